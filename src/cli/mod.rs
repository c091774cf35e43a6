//! The command line: one file a subcommand.

pub mod address;
pub mod calls;
pub mod environment;
pub mod operator;
pub mod probe;
pub mod reset;
pub mod serve;
pub mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::telemetry::logs::{self, LogOptions};
use crate::telemetry::redact::redact;
use environment::EnvironmentError;

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
  clustersync operator --watch-namespaces shop,crm       run the syncs of two namespaces
  clustersync serve --source URI --target URI            one sync without Kubernetes, steered by:
  clustersync start --include-namespaces shop.*
  clustersync status --watch
  clustersync finalize

Exit codes: 0 done, 1 failed (or the answer says ok: false), 2 wrong command line.";

const SERVE: &str = "Example:
  clustersync serve --source mongodb://a:27017/?replicaSet=src --target mongodb://b:27017/?replicaSet=tgt
  curl -X POST localhost:2242/start -d '{\"includeNamespaces\": [\"shop.*\"]}'

Without a subcommand, --source means serve. Started again, a sync that was running goes on by itself.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the syncs that ClusterSync resources ask for, until SIGTERM
    Operator(operator::OperatorArgs),
    /// Run one sync without Kubernetes, steered over HTTP, until SIGTERM
    #[command(after_help = SERVE)]
    Serve(Box<serve::ServeArgs>),
    /// Begin: clone, then stream
    Start {
        #[command(flatten)]
        call: calls::CallArgs,
        #[command(flatten)]
        fields: calls::StartFields,
    },
    /// Print how far the sync is
    Status {
        #[command(flatten)]
        call: calls::CallArgs,
        /// Again and again, with progress bars at a terminal, until it is finalized or failed
        #[arg(long)]
        watch: bool,
    },
    /// Rest; the checkpoint stays
    Pause {
        #[command(flatten)]
        call: calls::CallArgs,
    },
    /// Go on after a pause
    Resume {
        #[command(flatten)]
        call: calls::CallArgs,
        /// Try again after a failure
        #[arg(long)]
        from_failure: bool,
    },
    /// Cut over: drain, restore what was deferred, stop
    Finalize {
        #[command(flatten)]
        call: calls::CallArgs,
    },
    /// Remove a sync's durable state from the target; the copied data stays
    Reset(reset::ResetArgs),
    /// Print the CustomResourceDefinition of ClusterSync
    Crd,
    /// Ask an address once; succeeds if it answers 200
    Probe(probe::ProbeArgs),
    /// Print the version
    Version,
}

/// How to log; to stderr.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_field_names)] // The names are the flags.
struct LogArgs {
    /// Which lines are written; `RUST_LOG` directives take precedence
    /// (environment: `CLUSTERSYNC_LOG_LEVEL`) [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = LEVELS)]
    log_level: Option<String>,
    /// One JSON object a line (environment: `CLUSTERSYNC_LOG_JSON`)
    #[arg(long, global = true)]
    log_json: bool,
    /// No colours, even at a terminal (environment: `CLUSTERSYNC_LOG_NO_COLOR`)
    #[arg(long, global = true)]
    log_no_color: bool,
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

impl LogArgs {
    fn options(self) -> Result<LogOptions, EnvironmentError> {
        let level = |text: &str| {
            let level = text.to_ascii_lowercase();
            let known = LEVELS.contains(&level.as_str());
            known.then_some(level).ok_or_else(|| format!("expected one of {}", LEVELS.join(", ")))
        };
        let level = match self.log_level {
            Some(level) => level,
            None => environment::parsed("LOG_LEVEL", level)?.unwrap_or_else(|| "info".to_owned()),
        };
        Ok(LogOptions {
            level,
            json: self.log_json || environment::flag("LOG_JSON")?,
            no_color: self.log_no_color || environment::flag("LOG_NO_COLOR")?,
        })
    }
}

/// Parse and run. Exit code 2 for what is wrong with the command line, 1 for what went wrong later.
pub async fn main() -> ExitCode {
    let configured = matches!(environment::variable("SOURCE_URI"), Ok(Some(_)));
    let cli = match Cli::try_parse_from(with_subcommand(std::env::args_os().collect(), configured)) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    // These write no log, and must not fail for how it is set up.
    if !matches!(cli.command, Command::Crd | Command::Version) {
        match cli.log.options() {
            Ok(options) => logs::install(&options),
            Err(error) => return wrong_usage(&error),
        }
    }
    match cli.command {
        Command::Operator(args) => {
            let outcome = operator::run(args, on_signal()).await;
            match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Command::Serve(args) => match serve::run(*args, on_signal()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ serve::ServeCommandError::Usage(_)) => wrong_usage(&error),
            Err(error) => fail(&error),
        },
        Command::Start { call, fields } => {
            answered(move || calls::post(&call, "start", &fields.into_body())).await
        }
        Command::Status { call, watch } => answered(move || calls::status(&call, watch)).await,
        Command::Pause { call } => answered(move || calls::post(&call, "pause", &json!({}))).await,
        Command::Resume { call, from_failure } => {
            answered(move || calls::post(&call, "resume", &json!({"fromFailure": from_failure}))).await
        }
        Command::Finalize { call } => answered(move || calls::post(&call, "finalize", &json!({}))).await,
        Command::Reset(args) => match reset::run(&args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ reset::ResetError::Usage(_)) => wrong_usage(&error),
            Err(error) => fail(&error),
        },
        Command::Crd => match crate::api::crd::yaml() {
            Ok(yaml) => print(&yaml),
            Err(error) => fail(&error),
        },
        Command::Probe(args) => answered(move || probe::run(&args)).await,
        Command::Version => {
            println!("clustersync {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// Without a subcommand, `--source`, or its variable in the environment, means `serve`.
fn with_subcommand(mut arguments: Vec<OsString>, configured: bool) -> Vec<OsString> {
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let given: Vec<String> = arguments.iter().skip(1).map(text).collect();
    let names = |option: &str| given.iter().any(|argument| argument.starts_with(option));
    let asked = names("--source") || names("--target");
    let help = ["-h", "--help", "-V", "--version"];
    let configured = configured && !given.iter().any(|argument| help.contains(&argument.as_str()));
    if (asked || configured) && !has_command(&given) {
        arguments.insert(1, "serve".into());
    }
    arguments
}

/// Whether one of the arguments is neither an option nor an option's value.
fn has_command(given: &[String]) -> bool {
    let mut known = Cli::command();
    known.build();
    let serve = known.find_subcommand("serve").into_iter().flat_map(clap::Command::get_arguments);
    let valued: Vec<&str> =
        serve.filter(|option| option.get_action().takes_values()).filter_map(clap::Arg::get_long).collect();
    let mut arguments = given.iter();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(option) if valued.contains(&option) => drop(arguments.next()),
            Some(_) => {}
            None if argument.starts_with('-') => {}
            None => return true,
        }
    }
    false
}

/// Run a blocking call and turn its outcome into an exit code.
async fn answered<E>(call: impl FnOnce() -> Result<ExitCode, E> + Send + 'static) -> ExitCode
where
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => match (&error as &dyn std::error::Error).downcast_ref() {
            Some(calls::CallError::Environment(error)) => wrong_usage(error),
            _ => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

fn wrong_usage(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(2)
}

/// A mistaken argument is repeated in what is said of it, and may be an address with a password.
fn complain(error: &dyn std::fmt::Display) {
    eprintln!("clustersync: {}", redact(&error.to_string()));
}

/// Help and version as they are; what is wrong with the command line in one line, for scripts and logs.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * 2);
    }
    wrong_usage(&one_line(&error.render().to_string()))
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
    complain(error);
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
    fn a_source_without_a_subcommand_means_serve() {
        let with = |arguments: &[&str], configured| {
            let arguments = arguments.iter().map(OsString::from).collect();
            let arguments = with_subcommand(arguments, configured);
            arguments.into_iter().map(|one| one.into_string().unwrap()).collect::<Vec<_>>()
        };
        for (arguments, configured) in [
            (&["c", "--source", "a", "--target=b"][..], false),
            (&["c", "--log-json", "--source", "a"], false),
            (&["c", "--sync-id", "start", "--source", "a"], false),
            (&["c", "--log-level", "info", "--source", "status", "--target", "reset"], false),
            (&["c"], true),
            (&["c", "--port", "3000"], true),
            (&["c", "--log-json", "--reset-state"], true),
        ] {
            assert_eq!(with(arguments, configured)[1], "serve", "{arguments:?}");
        }
        for arguments in [
            &["c", "serve", "--source", "a"][..],
            &["c", "reset", "--target", "a"],
            &["c", "--log-level", "info", "status"],
            &["c", "--help"],
            &["c", "-V"],
            &["c", "frobnicate", "--source", "a"],
        ] {
            assert_eq!(with(arguments, true), *arguments);
        }
        assert_eq!(with(&["c", "--port", "3000"], false).len(), 3);
        assert_eq!(with(&["c"], false).len(), 1);
    }

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
