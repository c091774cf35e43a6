//! Between the resource and the engine: spec and Secrets become a sync's configuration, a report becomes
//! status. Pure: nothing here talks to Kubernetes or MongoDB.

pub mod conditions;
pub mod material;
pub mod references;
mod standing;
pub mod status;

pub use conditions::{Asked, Judged, Outcome};
pub use material::Material;
pub use references::{Content, Fetched, Reference};

use crate::sync::Reason;

/// Why a resource cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unusable {
    /// `InvalidConfiguration` (only a change of the resource or a Secret helps) or `CredentialsMissing`
    /// (something that is named does not exist yet).
    pub reason: Reason,
    /// What is wrong, by field or object, with what to do. Never a value out of a Secret.
    pub message: String,
}

impl Unusable {
    /// The spec, or a Secret's content, is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { reason: Reason::InvalidConfiguration, message: message.into() }
    }

    /// Something that is named is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { reason: Reason::CredentialsMissing, message: message.into() }
    }
}
