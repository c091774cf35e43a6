//! `clustersync reset`: remove a sync's durable state.

use clap::Args;

use super::address;
use super::serve::{ServeCommandError, check_names, holder, uri_of};
use crate::sync::config::{DEFAULT_METADATA_DATABASE, InitialSync, Limits, Replication};
use crate::sync::error::explain_by_hand;
use crate::sync::scope::Scope;
use crate::sync::{SyncConfig, lifecycle};

/// Flags of `clustersync reset`.
#[derive(Args, Clone, Debug)]
pub struct ResetArgs {
    /// Connection string of the target (environment: `CLUSTERSYNC_TARGET_URI`)
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Private authority of the target's certificate, PEM
    #[arg(long, value_name = "FILE")]
    target_ca_file: Option<String>,
    /// Client certificate and key for the target, PEM
    #[arg(long, value_name = "FILE")]
    target_certificate_file: Option<String>,
    /// Database on the target for the sync's own durable state
    #[arg(long, value_name = "NAME", default_value = DEFAULT_METADATA_DATABASE)]
    metadata_database: String,
    /// Key of that state
    #[arg(long, value_name = "ID", default_value = "default")]
    sync_id: String,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// What is wrong with the command line: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The target refused, or somebody runs the sync.
    #[error("{0}")]
    Failed(String),
}

/// Remove the state; refused while a process runs the sync.
pub async fn run(args: &ResetArgs) -> Result<(), ResetError> {
    explain_by_hand();
    let usage = |error: ServeCommandError| ResetError::Usage(error.to_string());
    let (given_by, uri) = uri_of(args.target.as_deref(), "--target", "TARGET_URI").map_err(usage)?;
    check_names(&args.sync_id, &args.metadata_database).map_err(usage)?;
    let (ca, certificate) = (args.target_ca_file.as_deref(), args.target_certificate_file.as_deref());
    let target = address::parse(&given_by, &uri, ca, certificate, None)
        .map_err(|error| ResetError::Usage(error.to_string()))?;
    let config = SyncConfig {
        id: args.sync_id.clone(),
        resource_uid: None,
        source: target.clone(),
        target,
        metadata_database: args.metadata_database.clone(),
        scope: Scope::default(),
        initial_sync: InitialSync::default(),
        replication: Replication::default(),
        limits: Limits::default(),
        holder: holder(),
    };
    lifecycle::delete_state(&config).await.map_err(|error| ResetError::Failed(error.explain()))?;
    println!("{}", serde_json::json!({"ok": true, "syncId": args.sync_id}));
    Ok(())
}
