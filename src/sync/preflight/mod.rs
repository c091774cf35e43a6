//! Everything that can be known before data moves.

pub mod foreign;
pub mod former;
pub mod plan;
pub mod rights;
pub mod survey;

use std::fmt::Write as _;

use super::endpoint::Endpoint;
use super::endpoint::identity::{self, Identity};
use super::error::{Error, Reason, Result};

/// Names in a message at most.
const NAMED: usize = 8;

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

/// Some names, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let mut text = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if count > NAMED {
        let _ = write!(text, " and {} more", count - NAMED);
    }
    text
}
