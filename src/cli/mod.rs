//! The command line: one file a subcommand.

pub mod operator;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::operator::launch::Launcher;
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
    /// Which lines are written
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
    let cli = Cli::parse();
    logs::install(&LogOptions {
        level: cli.log.log_level,
        json: cli.log.log_json,
        no_color: cli.log.log_no_color,
    });
    match cli.command {
        Command::Operator(args) => {
            let outcome = operator::run(args, Arc::new(Launcher::default()), on_signal()).await;
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
