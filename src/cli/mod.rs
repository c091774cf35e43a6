//! The command line: one file a subcommand.

pub mod operator;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::telemetry::logs::{self, LogOptions};

/// Keep one MongoDB replica set in step with another: clone once, stream every change, cut over when you say so.
#[derive(Debug, Parser)]
#[command(name = "clustersync", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "Examples:
  clustersync crd | kubectl apply --server-side -f -     install the ClusterSync resource
  clustersync operator --watch-namespaces shop,crm       run the syncs of two namespaces";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the syncs that ClusterSync resources ask for, until SIGTERM
    Operator(operator::OperatorArgs),
    /// Print the CustomResourceDefinition of ClusterSync
    Crd,
    /// Print the version
    Version,
}

/// How to log; to stderr.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_field_names)] // The names are the flags.
struct LogArgs {
    /// Which lines are written; `RUST_LOG` directives take precedence
    #[arg(long, global = true, value_name = "LEVEL", default_value_t = from_environment("LOG_LEVEL", "info"),
          value_parser = ["trace", "debug", "info", "warn", "error", "fatal"])]
    log_level: String,
    /// One JSON object a line (environment: `CLUSTERSYNC_LOG_JSON`)
    #[arg(long, global = true, default_value_t = is_yes(&from_environment("LOG_JSON", "false")))]
    log_json: bool,
    /// No colours, even at a terminal (environment: `CLUSTERSYNC_LOG_NO_COLOR`)
    #[arg(long, global = true, default_value_t = is_yes(&from_environment("LOG_NO_COLOR", "false")))]
    log_no_color: bool,
}

/// `CLUSTERSYNC_<name>`, else `PCSM_<name>`, which people who come from there have set.
fn from_environment(name: &str, default: &str) -> String {
    std::env::var(format!("CLUSTERSYNC_{name}"))
        .or_else(|_| std::env::var(format!("PCSM_{name}")))
        .unwrap_or_else(|_| default.to_owned())
}

fn is_yes(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

/// Parse and run. Exit code 2 for what is wrong with the command line, 1 for what went wrong later.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    logs::install(&LogOptions {
        level: cli.log.log_level,
        json: cli.log.log_json,
        no_color: cli.log.log_no_color,
    });
    match cli.command {
        Command::Operator(args) => {
            let outcome = operator::run(args, on_signal()).await;
            match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Command::Crd => match crate::api::crd::yaml() {
            Ok(yaml) => print(&yaml),
            Err(error) => fail(&error),
        },
        Command::Version => {
            println!("clustersync {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// Help and version as they are; what is wrong with the command line in one line, for scripts and logs.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * 2);
    }
    eprintln!("clustersync: {}", one_line(&error.render().to_string()));
    ExitCode::from(2)
}

fn one_line(text: &str) -> String {
    let words = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let words: Vec<&str> = words.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    let words = words.join(" ");
    format!("{} (see --help)", words.strip_prefix("error: ").unwrap_or(&words))
}

/// A reader that has seen enough (`| head`) is no failure; a full disk is.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("clustersync: {error}");
    ExitCode::FAILURE
}

/// Cancelled by SIGTERM or SIGINT.
fn on_signal() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("signals cannot be caught: a stop will be a kill");
            return;
        };
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        stop.cancel();
    });
    shutdown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line_that_names_what_is_wrong() {
        for (arguments, named) in [
            (&["clustersync", "operator", "--max-clones", "0"][..], "--max-clones"),
            (&["clustersync", "operator", "--nonsense"], "--nonsense"),
            (&["clustersync", "frobnicate"], "frobnicate"),
            (&["clustersync", "--log-level", "loud", "crd"], "loud"),
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            let line = one_line(&error.render().to_string());
            assert!(line.contains(named) && !line.contains('\n') && !line.contains("Usage"), "{line}");
        }
    }
}
