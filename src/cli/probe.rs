//! `clustersync probe`: ask an address once. The image has no shell and no curl, and a chart's test needs one of them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

/// Flags of `clustersync probe`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// What to ask, for example <http://clustersync:8080/readyz>
    #[arg(long)]
    url: String,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

/// Why the address was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer.
    #[error("no answer from {0}: {1}")]
    NoAnswer(String, ureq::Error),
    /// An answer, but not 200.
    #[error("{0} answers {1}")]
    Refused(String, u16),
}

/// Succeeds if the answer is 200, and prints the first of what it says.
pub fn run(args: &ProbeArgs) -> Result<ExitCode, ProbeError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(args.timeout)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer =
        agent.get(&args.url).call().map_err(|error| ProbeError::NoAnswer(args.url.clone(), error))?;
    let code = answer.status().as_u16();
    if code != 200 {
        return Err(ProbeError::Refused(args.url.clone(), code));
    }
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    super::print(&format!("{} answers: {}\n", args.url, text.lines().next().unwrap_or_default()));
    Ok(ExitCode::SUCCESS)
}
