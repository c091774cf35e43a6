//! Everything that can be known before data moves.

pub mod plan;
pub mod rights;

use mongodb::bson::{Document, doc};

use super::endpoint::Endpoint;
use super::endpoint::identity::{self, Identity};
use super::error::{Error, Reason, Result};
use super::state::store::SYNCS;

/// What the checks found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who the source is.
    pub source: Identity,
    /// Who the target is.
    pub target: Identity,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Reachable, rights, replica sets, versions, not the same set.
pub async fn check(source: &Endpoint, target: &Endpoint) -> Result<Found> {
    // Rights first: without them the other answers are refusals.
    rights::check(source, rights::SOURCE).await?;
    rights::check(target, rights::TARGET).await?;
    let source_identity = identity::identify(source).await?;
    let target_identity = identity::identify(target).await?;
    if source_identity.set_id == target_identity.set_id {
        return Err(Error::new(
            Reason::SameReplicaSet,
            format!("source and target are the same replica set '{}'", source_identity.set_name),
        ));
    }
    let warnings = identity::check_versions(&source_identity, &target_identity)?;
    Ok(Found { source: source_identity, target: target_identity, warnings })
}

/// Refuse a loop: a sync recorded on the source that writes to the source from our target.
pub async fn check_loop(source: &Endpoint, metadata_database: &str, target: &Identity) -> Result<()> {
    let find = doc! {
        "find": SYNCS,
        "filter": {"source.setId": &target.set_id, "stage": {"$nin": ["Planning", "Restoring", "Completed"]}},
        "projection": {"_id": 1},
        "limit": 1,
    };
    let found = source.collect(metadata_database, find).await?;
    let opposite =
        found.first().and_then(|bytes| Document::try_from(super::endpoint::raw::document(bytes)?).ok());
    match opposite {
        None => Ok(()),
        Some(opposite) => Err(Error::new(
            Reason::SyncLoop,
            format!(
                "sync '{}' writes from this target to this source",
                opposite.get_str("_id").unwrap_or_default()
            ),
        )),
    }
}
