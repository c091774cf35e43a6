//! `clustersync serve`: one sync without Kubernetes, steered over HTTP.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{address, environment};
use crate::service::control::Control;
use crate::service::http::{self, ServeError, Serving};
use crate::sync::SyncConfig;
use crate::sync::config::{DEFAULT_METADATA_DATABASE, Holder, InitialSync, Limits, Replication};
use crate::sync::endpoint::EndpointConfig;
use crate::sync::scope::Scope;

/// The port of the control API.
pub const PORT: u16 = 2242;

/// Flags of `clustersync serve`. Each has an environment variable `CLUSTERSYNC_…`, as the help says.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Connection string of the source (environment: `CLUSTERSYNC_SOURCE_URI`, where other users do not see it)
    #[arg(long, value_name = "URI", default_value_t = environment::or("SOURCE_URI", ""), hide_default_value = true)]
    source: String,
    /// Connection string of the target (environment: `CLUSTERSYNC_TARGET_URI`)
    #[arg(long, value_name = "URI", default_value_t = environment::or("TARGET_URI", ""), hide_default_value = true)]
    target: String,
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
    /// Port of the control API (environment: `CLUSTERSYNC_PORT`)
    #[arg(long, default_value_t = environment::or("PORT", "2242").parse().unwrap_or(PORT))]
    port: u16,
    /// Address of the control API; nothing listens beyond this machine unless asked (environment: `CLUSTERSYNC_HOST`)
    #[arg(long, default_value_t = environment::or("HOST", "localhost"))]
    host: String,
    /// How long the databases may take for an operation, such as 30s or 5m
    /// (environment: `CLUSTERSYNC_MONGODB_OPERATION_TIMEOUT`)
    #[arg(long, value_name = "DURATION", value_parser = duration,
          default_value_t = environment::or("MONGODB_OPERATION_TIMEOUT", "5m").parse::<Pretty>().unwrap_or_default())]
    mongodb_operation_timeout: Pretty,
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
    /// File with a token that calls must carry as `Authorization: Bearer`
    #[arg(long, value_name = "FILE")]
    auth_token_file: Option<PathBuf>,
    /// Certificate chain for HTTPS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A duration that shows itself as it was written.
#[derive(Clone, Copy, Debug, Default)]
struct Pretty(Duration);

impl std::str::FromStr for Pretty {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text)
    }
}

impl std::fmt::Display for Pretty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

fn duration(text: &str) -> Result<Pretty, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    let wrong = || "expected a duration from 1s to 1h, such as 30s or 5m".to_owned();
    let parsed = parsed.ok_or_else(wrong)?;
    if (1..=3600).contains(&parsed.as_secs()) { Ok(Pretty(parsed)) } else { Err(wrong()) }
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

/// Run until `shutdown`, then stop the sync with a checkpoint.
pub async fn run(args: ServeArgs, shutdown: CancellationToken) -> Result<(), ServeCommandError> {
    let listen = listen_address(&args.host, args.port)?;
    let config = config(&args)?;
    let token = args.auth_token_file.as_ref().map(read_token).transpose()?;
    // The port is open before anything is asked of the databases.
    let listener = http::bind(listen)?;
    let serving = Serving { token, tls: args.tls_cert.zip(args.tls_key) };
    let control = Control::new(config, args.lenient);
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
    let timeout = Some(args.mongodb_operation_timeout.0);
    let endpoint = |flag: &str, name: &str, uri: &str, ca: Option<&str>, certificate: Option<&str>| {
        if uri.is_empty() {
            return Err(ServeCommandError::Usage(format!("{flag} (or {name}) is required")));
        }
        Ok(address::parse(flag, uri, ca, certificate, timeout)?)
    };
    let source: EndpointConfig = endpoint(
        "--source",
        "CLUSTERSYNC_SOURCE_URI",
        &args.source,
        args.source_ca_file.as_deref(),
        args.source_certificate_file.as_deref(),
    )?;
    let target = endpoint(
        "--target",
        "CLUSTERSYNC_TARGET_URI",
        &args.target,
        args.target_ca_file.as_deref(),
        args.target_certificate_file.as_deref(),
    )?;
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

/// The same rules as in the resource's schema.
pub fn check_names(sync_id: &str, metadata_database: &str) -> Result<(), ServeCommandError> {
    let plain = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || more.contains(c))
    };
    if sync_id.is_empty() || sync_id.len() > 128 || !plain(sync_id, ".") {
        return Err(ServeCommandError::Usage(
            "--sync-id must have 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned(),
        ));
    }
    let server = ["admin", "local", "config"].contains(&metadata_database);
    if metadata_database.is_empty() || metadata_database.len() > 63 || server || !plain(metadata_database, "")
    {
        return Err(ServeCommandError::Usage(
            "--metadata-database must have 1 to 63 characters of A-Z, a-z, 0-9, '_' and '-', and is not admin, local or config"
                .to_owned(),
        ));
    }
    Ok(())
}

/// This process, in owner documents.
pub fn holder() -> Holder {
    Holder { id: super::operator::identity(), term: None }
}

fn listen_address(host: &str, port: u16) -> Result<SocketAddr, ServeCommandError> {
    let found = (host, port).to_socket_addrs().ok().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    // `localhost` is often both: people and scripts try 127.0.0.1 first.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first
        .copied()
        .ok_or_else(|| ServeCommandError::Usage(format!("--host: {host} is no address of this machine")))
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
