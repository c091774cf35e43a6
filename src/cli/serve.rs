//! `clustersync serve`: one sync without Kubernetes, steered over HTTP.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::environment::EnvironmentError;
use super::{address, environment};
use crate::service::control::Control;
use crate::service::http::{self, ServeError, Serving};
use crate::sync::SyncConfig;
use crate::sync::config::{DEFAULT_METADATA_DATABASE, Holder, InitialSync, Limits, Replication};
use crate::sync::error::explain_by_hand;
use crate::sync::scope::Scope;

/// The port of the control API.
pub const PORT: u16 = 2242;

const HOST: &str = "localhost";

const OPERATION_TIMEOUT: Duration = Duration::from_secs(300);

/// Flags of `clustersync serve`. What has an environment variable `CLUSTERSYNC_…` says so in the help.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Connection string of the source (environment: `CLUSTERSYNC_SOURCE_URI`, where other users do not see it)
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Connection string of the target (environment: `CLUSTERSYNC_TARGET_URI`)
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Private authority of the source's certificate, PEM (in place of tlsCAFile in the string)
    #[arg(long, value_name = "FILE")]
    source_ca_file: Option<String>,
    /// Client certificate and key for the source, PEM (in place of tlsCertificateKeyFile in the string)
    #[arg(long, value_name = "FILE")]
    source_certificate_file: Option<String>,
    /// Private authority of the target's certificate, PEM
    #[arg(long, value_name = "FILE")]
    target_ca_file: Option<String>,
    /// Client certificate and key for the target, PEM
    #[arg(long, value_name = "FILE")]
    target_certificate_file: Option<String>,
    /// Port of the control API (environment: `CLUSTERSYNC_PORT`) [default: 2242]
    #[arg(long)]
    port: Option<u16>,
    /// Address of the control API; nothing listens beyond this machine unless asked (environment: `CLUSTERSYNC_HOST`)
    /// [default: localhost]
    #[arg(long)]
    host: Option<String>,
    /// How long the databases may take for an operation, such as 30s or 5m
    /// (environment: `CLUSTERSYNC_MONGODB_OPERATION_TIMEOUT`) [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    mongodb_operation_timeout: Option<Duration>,
    /// Forget this sync's durable state at the start; the copied data stays
    #[arg(long)]
    reset_state: bool,
    /// Database on the target for the sync's own durable state
    #[arg(long, value_name = "NAME", default_value = DEFAULT_METADATA_DATABASE)]
    metadata_database: String,
    /// Key of that state: two syncs to one target need two
    #[arg(long, value_name = "ID", default_value = "default")]
    sync_id: String,
    /// Ignore unknown fields of /start
    #[arg(long)]
    lenient: bool,
    /// File with a token that calls must carry as `Authorization: Bearer`; needed where `--host` opens the port to others
    #[arg(long, value_name = "FILE")]
    auth_token_file: Option<PathBuf>,
    /// Certificate chain for HTTPS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    parsed
        .filter(|parsed| allowed.contains(parsed))
        .ok_or_else(|| "expected a duration from 1s to 1h, such as 30s or 5m".to_owned())
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeCommandError {
    /// What is wrong with the command line: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The HTTP side.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl From<address::AddressError> for ServeCommandError {
    fn from(error: address::AddressError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<EnvironmentError> for ServeCommandError {
    fn from(error: EnvironmentError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Run until `shutdown`, then stop the sync with a checkpoint.
pub async fn run(args: ServeArgs, shutdown: CancellationToken) -> Result<(), ServeCommandError> {
    explain_by_hand();
    let (host, listen) = listen_address(&args)?;
    let config = config(&args)?;
    let defaults = environment::start_defaults()?;
    let token = args.auth_token_file.as_ref().map(read_token).transpose()?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(read_tls(certificate, key).await?),
        _ => None,
    };
    if !listen.ip().is_loopback() && token.is_none() {
        tracing::warn!(
            "whoever reaches {listen} steers this sync, and a start may drop: use --auth-token-file"
        );
    }
    // The port is open before anything is asked of the databases.
    let listener = http::bind(listen)?;
    let serving = Serving { host, token, tls };
    let control = Control::new(config, defaults, args.lenient);
    let recovering =
        tokio::spawn(std::sync::Arc::clone(&control).recover(args.reset_state, shutdown.clone()));
    let served = http::serve(listener, std::sync::Arc::clone(&control), serving, shutdown).await;
    recovering.abort();
    control.stop().await;
    tracing::info!("stopped");
    Ok(served?)
}

/// What a sync of these flags is, but for what `/start` says.
fn config(args: &ServeArgs) -> Result<SyncConfig, ServeCommandError> {
    let timeout = match args.mongodb_operation_timeout {
        Some(timeout) => timeout,
        None => environment::parsed("MONGODB_OPERATION_TIMEOUT", duration)?.unwrap_or(OPERATION_TIMEOUT),
    };
    let endpoint = |uri: &Option<String>, flag, name, ca: &Option<String>, certificate: &Option<String>| {
        let (given_by, uri) = uri_of(uri.as_deref(), flag, name)?;
        let (ca, certificate) = (ca.as_deref(), certificate.as_deref());
        Ok::<_, ServeCommandError>(address::parse(&given_by, &uri, ca, certificate, Some(timeout))?)
    };
    let (ca, certificate) = (&args.source_ca_file, &args.source_certificate_file);
    let source = endpoint(&args.source, "--source", "SOURCE_URI", ca, certificate)?;
    let (ca, certificate) = (&args.target_ca_file, &args.target_certificate_file);
    let target = endpoint(&args.target, "--target", "TARGET_URI", ca, certificate)?;
    check_names(&args.sync_id, &args.metadata_database)?;
    Ok(SyncConfig {
        id: args.sync_id.clone(),
        resource_uid: None,
        source,
        target,
        metadata_database: args.metadata_database.clone(),
        scope: Scope::default(),
        initial_sync: InitialSync::default(),
        replication: Replication::default(),
        limits: Limits::default(),
        holder: holder(),
    })
}

/// A connection string, and what gave it: a flag, or else a variable.
pub fn uri_of(given: Option<&str>, flag: &str, name: &str) -> Result<(String, String), ServeCommandError> {
    if let Some(uri) = given.filter(|uri| !uri.is_empty()) {
        return Ok((flag.to_owned(), uri.to_owned()));
    }
    match environment::variable(name)? {
        Some(variable) => Ok((variable.name, variable.value)),
        None => Err(ServeCommandError::Usage(format!("{flag} (or CLUSTERSYNC_{name}) is required"))),
    }
}

/// The same rules as in the resource's schema.
pub fn check_names(sync_id: &str, metadata_database: &str) -> Result<(), ServeCommandError> {
    let plain = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || more.contains(c))
    };
    if !(1..=128).contains(&sync_id.len()) || !plain(sync_id, ".") {
        return Err(ServeCommandError::Usage(
            "--sync-id must have 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned(),
        ));
    }
    let lower = metadata_database.to_ascii_lowercase();
    let server = ["admin", "local", "config"].contains(&lower.as_str());
    if !(1..=38).contains(&metadata_database.len()) || server || !plain(metadata_database, "") {
        return Err(ServeCommandError::Usage(
            "--metadata-database must have 1 to 38 characters of A-Z, a-z, 0-9, '_' and '-', and is not admin, local or config"
                .to_owned(),
        ));
    }
    Ok(())
}

/// This process, in owner documents.
pub fn holder() -> Holder {
    Holder { id: super::operator::identity(), term: None }
}

/// The name that was asked for, and the address behind it.
fn listen_address(args: &ServeArgs) -> Result<(String, SocketAddr), ServeCommandError> {
    let port = match args.port {
        Some(port) => port,
        None => environment::port()?.unwrap_or(PORT),
    };
    let (given_by, host) = match (&args.host, environment::variable("HOST")?) {
        (Some(host), _) => ("--host".to_owned(), host.clone()),
        (None, Some(variable)) => (variable.name, variable.value),
        (None, None) => ("--host".to_owned(), HOST.to_owned()),
    };
    let found = (host.as_str(), port).to_socket_addrs();
    let found = found.ok().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    // `localhost` is often both: people and scripts try 127.0.0.1 first.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    let wrong = || format!("{given_by}: {} is no address of this machine", host.escape_debug());
    let address = first.copied().ok_or_else(|| ServeCommandError::Usage(wrong()))?;
    Ok((host, address))
}

async fn read_tls(certificate: &Path, key: &Path) -> Result<RustlsConfig, ServeCommandError> {
    let read = |flag: &str, path: &Path| {
        fs::read(path).map_err(|error| {
            ServeCommandError::Usage(format!("{flag}: {} cannot be read: {error}", path.display()))
        })
    };
    let (certificate, key) = (read("--tls-cert", certificate)?, read("--tls-key", key)?);
    RustlsConfig::from_pem(certificate, key).await.map_err(|error| {
        ServeCommandError::Usage(format!("--tls-cert and --tls-key cannot be used: {error}"))
    })
}

fn read_token(path: &PathBuf) -> Result<String, ServeCommandError> {
    let text = fs::read_to_string(path).map_err(|error| {
        ServeCommandError::Usage(format!("--auth-token-file: {} cannot be read: {error}", path.display()))
    })?;
    match text.trim() {
        "" => Err(ServeCommandError::Usage(format!("--auth-token-file: {} is empty", path.display()))),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_resources_rules() {
        let longest = "m".repeat(38);
        for (id, database, good) in [
            ("default", "clustersync", true),
            ("A.b_c-1", longest.as_str(), true),
            ("a/b", "clustersync", false),
            ("", "clustersync", false),
            ("a", "", false),
            ("a", &"m".repeat(39), false),
            ("a", "Admin", false),
            ("a", "LOCAL", false),
            ("a", "config", false),
            ("a", "a.b", false),
        ] {
            assert_eq!(check_names(id, database).is_ok(), good, "{id} {database}");
        }
    }
}
