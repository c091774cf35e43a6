//! The `ClusterSync` resource: types, admission rules and the names of conditions. No behaviour.
//!
//! The field descriptions here are the ones that `kubectl explain` shows, so they speak to the user of the
//! resource. Nothing is optional in the schema by `null`: an absent field and a null one mean the same,
//! and defaults other than `state` are resolved in code, so that GitOps tools see no drift.

pub mod conditions;
pub mod crd;
pub mod endpoint;
pub mod rules;
pub mod spec;
pub mod status;

pub use endpoint::{CertificateAuthority, SecretKeyRef, SecretRef, SourceSpec, TargetSpec, Tls};
pub use spec::{
    ClusterSync, ClusterSyncSpec, DeletionPolicy, InitialSyncSpec, LimitsSpec, OnExistingData,
    ReplicationSpec, RequestsSpec, ScopeSpec, State,
};
pub use status::ClusterSyncStatus;

/// The API group; also the prefix of labels and finalizers.
pub const GROUP: &str = "clustersync.dev";

/// The one version.
pub const VERSION: &str = "v1alpha1";

/// On a resource with `deletionPolicy: Delete` only: the durable state on the target is yet to be removed.
pub const STATE_FINALIZER: &str = "clustersync.dev/durable-state";

/// With `--require-secret-label` only Secrets that carry this label with the value `true` are read.
pub const SECRET_LABEL: &str = "clustersync.dev/use";
