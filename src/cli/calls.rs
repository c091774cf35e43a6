//! `clustersync start|status|pause|resume|finalize`: call the control API of a running `serve` and print its answer.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use serde_json::{Map, Value, json};

use super::environment::EnvironmentError;
use super::serve::PORT;
use super::{environment, watch};
use crate::service::request::{FIELDS, Kind};

/// Between two looks of `status --watch`.
const WATCH: Duration = Duration::from_secs(1);

/// Where the API is.
#[derive(Args, Clone, Debug)]
pub struct CallArgs {
    /// Port of the control API on this machine (environment: `CLUSTERSYNC_PORT`) [default: 2242]
    #[arg(long)]
    port: Option<u16>,
    /// Address of the control API, if it is elsewhere: http://host:port
    #[arg(long, conflicts_with = "port")]
    url: Option<String>,
    /// File with the token that `serve` was given
    #[arg(long, value_name = "FILE")]
    auth_token_file: Option<PathBuf>,
    /// Private authority of the API's certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Fields of `/start` as flags.
#[derive(Clone, Debug, Default)]
pub struct StartFields(Map<String, Value>);

impl StartFields {
    /// The body.
    pub fn into_body(self) -> Value {
        Value::Object(self.0)
    }
}

/// `cloneSegmentSize` → `clone-segment-size`.
fn flag(field: &str) -> String {
    let mut flag = String::new();
    for character in field.chars() {
        if character.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(character.to_ascii_lowercase());
    }
    flag
}

impl Args for StartFields {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(FIELDS.iter().map(|&(field, kind, _, help)| {
            let arg = Arg::new(field).long(flag(field)).help(help);
            match kind {
                Kind::Namespaces => arg.value_delimiter(',').action(ArgAction::Append).value_name("LIST"),
                Kind::Flag => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(["true", "false"])
                    .hide_possible_values(true),
                Kind::Count => arg.value_parser(clap::value_parser!(u64)).value_name("N"),
                Kind::UpTo(most) => arg.value_parser(clap::value_parser!(u64).range(..=most)).value_name("N"),
                Kind::Size => arg.value_name("SIZE"),
                Kind::Duration => arg.value_name("DURATION"),
                Kind::WriteConcern => arg.value_name("W"),
                Kind::OnExistingData => arg.value_parser(["Drop", "Fail"]).value_name("WHAT"),
            }
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StartFields {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut fields = Map::new();
        for &(field, kind, ..) in FIELDS {
            let value = match kind {
                Kind::Namespaces => {
                    matches.get_many::<String>(field).map(|list| json!(list.collect::<Vec<_>>()))
                }
                Kind::Flag => matches.get_one::<String>(field).map(|flag| json!(flag == "true")),
                Kind::Count | Kind::UpTo(_) => matches.get_one::<u64>(field).map(|count| json!(count)),
                _ => matches.get_one::<String>(field).map(|text| json!(text)),
            };
            if let Some(value) = value {
                fields.insert(field.to_owned(), value);
            }
        }
        Ok(Self(fields))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// What is wrong with the environment: exit code 2.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Nothing listens there, or it is no API.
    #[error("no answer from {0}: {1}; is 'clustersync serve' running there?")]
    NoAnswer(String, String),
    /// A file cannot be read.
    #[error("{0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// Not a certificate.
    #[error("{0} holds no certificate in PEM form")]
    Certificate(String),
    /// stdout.
    #[error("cannot write the answer: {0}")]
    Output(std::io::Error),
}

/// POST `body` to `path` and print the answer; fails if it says `ok: false`.
pub fn post(args: &CallArgs, path: &str, body: &Value) -> Result<ExitCode, CallError> {
    let api = Api::new(args)?;
    let answer = api.call(path, Some(body))?;
    print(&answer)?;
    Ok(if answer["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Print the status; again and again, if `watching`, with bars at a terminal.
pub fn status(args: &CallArgs, watching: bool) -> Result<ExitCode, CallError> {
    let api = Api::new(args)?;
    let mut bars = (watching && std::io::stdout().is_terminal()).then(watch::Bars::new);
    loop {
        let answer = api.call("status", None)?;
        let is_read = match &mut bars {
            Some(bars) => {
                bars.show(&answer);
                true
            }
            None if watching => print_line(&answer)?,
            None => print(&answer)?,
        };
        // An answer without a state is a refusal.
        let over = matches!(answer["state"].as_str(), None | Some("finalized" | "failed"));
        if !watching || over || !is_read {
            return Ok(if answer["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(WATCH);
    }
}

struct Api {
    base: String,
    agent: ureq::Agent,
    token: Option<String>,
}

impl Api {
    fn new(args: &CallArgs) -> Result<Self, CallError> {
        let base = match (&args.url, args.port) {
            (Some(url), _) => url.clone(),
            (None, Some(port)) => format!("http://127.0.0.1:{port}"),
            (None, None) => format!("http://127.0.0.1:{}", environment::port()?.unwrap_or(PORT)),
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| CallError::File(path.display().to_string(), error))
        };
        let token = args.auth_token_file.as_ref().map(read).transpose()?;
        let token = token.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(15)))
            .http_status_as_error(false);
        if let Some(path) = &args.ca_file {
            let pem = read(path)?;
            let wrong = || CallError::Certificate(path.display().to_string());
            let certificate = ureq::tls::Certificate::from_pem(&pem).map_err(|_| wrong())?;
            let roots = ureq::tls::RootCerts::from(vec![certificate]);
            config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { base: base.trim_end_matches('/').to_owned(), agent: config.build().into(), token })
    }

    fn call(&self, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let url = format!("{}/{path}", self.base);
        let silent =
            |error: &dyn std::fmt::Display| CallError::NoAnswer(self.base.clone(), error.to_string());
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(String::new, Value::to_string);
        let request =
            request.header("Content-Type", "application/json").body(body).map_err(|error| silent(&error))?;
        let answered = self.agent.run(request);
        let mut answer = answered.map_err(|error| silent(&error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| silent(&error))?;
        serde_json::from_str(&text).map_err(|_| silent(&"the answer is not JSON"))
    }
}

/// Whether somebody reads it.
fn print(answer: &Value) -> Result<bool, CallError> {
    let text = serde_json::to_string_pretty(answer).unwrap_or_default();
    write_out(&text)
}

fn print_line(answer: &Value) -> Result<bool, CallError> {
    write_out(&answer.to_string())
}

fn write_out(text: &str) -> Result<bool, CallError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CallError::Output(error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Start {
        #[command(flatten)]
        fields: StartFields,
    }

    #[test]
    fn every_field_has_a_flag() {
        let arguments = [
            "start",
            "--include-namespaces",
            "a.*,b.c",
            "--pause-on-initial-sync",
            "--clone-segment-size",
            "1GiB",
            "--repl-num-workers",
            "3",
            "--use-collection-bulk-write=false",
        ];
        let body = Start::parse_from(arguments).fields.into_body();
        assert_eq!(
            body,
            json!({"includeNamespaces": ["a.*", "b.c"], "pauseOnInitialSync": true, "cloneSegmentSize": "1GiB",
                "replNumWorkers": 3, "useCollectionBulkWrite": false})
        );
        assert_eq!(flag("replChangeStreamBatchSize"), "repl-change-stream-batch-size");
    }
}
