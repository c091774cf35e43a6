//! What a sync is told: endpoints, scope and limits, once; the desired state, again and again.

use std::time::Duration;

use super::endpoint::EndpointConfig;
use super::scope::Scope;

/// The name of the database on the target that holds durable state, unless the user chose another.
pub const DEFAULT_METADATA_DATABASE: &str = "clustersync";

/// Everything one run of a sync needs; immutable while it runs. A change means a stop and a new spawn.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// The key of the durable state: 1 to 128 characters of `[A-Za-z0-9._-]`.
    pub id: String,
    /// The UID of the resource that asked for this sync, recorded in the durable state.
    pub resource_uid: Option<String>,
    /// Where data comes from. Only read.
    pub source: EndpointConfig,
    /// Where data goes.
    pub target: EndpointConfig,
    /// The database on the target for durable state; never in scope.
    pub metadata_database: String,
    /// Which namespaces are copied.
    pub scope: Scope,
    /// How the clone is done.
    pub initial_sync: InitialSync,
    /// How the stream is applied.
    pub replication: Replication,
    /// What must not be exceeded.
    pub limits: Limits,
    /// Who runs the sync, for the owner document.
    pub holder: Holder,
}

/// Options of the clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialSync {
    /// What to do with data that is already there.
    pub on_existing_data: OnExistingData,
    /// Collections cloned at a time; 0 means automatic.
    pub parallel_collections: usize,
    /// Partitions of one collection read at a time; 0 means automatic.
    pub readers_per_collection: usize,
    /// Leave out what cannot be followed (time-series collections), with a warning, rather than stop at it.
    pub skip_unsupported: bool,
}

/// What to do with collections in scope that exist on the target before the clone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExistingData {
    /// Stop with `TargetNotEmpty`.
    #[default]
    Fail,
    /// Drop them, each logged by name, and clone anew.
    Drop,
}

/// Options of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Ordered queues that apply events in parallel; 0 means automatic. Changes only while drained.
    pub lanes: usize,
    /// How often progress is made durable as a checkpoint.
    pub checkpoint_interval: Duration,
    /// Above this lag the report says `Lagging`.
    pub max_lag: Duration,
}

impl Default for Replication {
    fn default() -> Self {
        Self { lanes: 0, checkpoint_interval: Duration::from_secs(5), max_lag: Duration::from_secs(60) }
    }
}

/// Limits that the user set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that the clone may read; 0 means no limit.
    pub bytes_per_second: u64,
    /// The source's latency above which the clone reads more slowly; 0 means whatever it is.
    pub max_source_latency: Duration,
    /// The replication lag of source or target above which the sync slows down; 0 means whatever it is.
    pub max_replication_lag: Duration,
}

impl Limits {
    /// Whether an end's load is to be watched.
    pub fn watches(&self) -> bool {
        !self.max_source_latency.is_zero() || !self.max_replication_lag.is_zero()
    }
}

/// Who owns a sync, as written into the owner document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Unique to this process, readable by a person: pod or host name and a random part.
    pub id: String,
    /// The leader election that appointed this process, where there is one. A successor in the same
    /// election with a higher term need not wait for its predecessor's record to age.
    pub term: Option<LeaseTerm>,
}

/// One term of a leader election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTerm {
    /// The election: the Lease's UID.
    pub lease: String,
    /// Grows with each change of leader: the Lease's `leaseTransitions`.
    pub term: i64,
}

/// What the user wants now; may change at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Run, rest or cut over.
    pub state: DesiredState,
    /// A token that the user changes to leave `Stalled`, or to try missing indexes again. One seen at first
    /// contact is recorded, not acted on.
    pub retry: String,
    /// A token that the user changes to clone anew.
    pub restart: String,
}

/// The states that a user can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DesiredState {
    /// Clone, then stream.
    #[default]
    Running,
    /// Stop at the next batch and keep everything.
    Paused,
    /// Drain, restore what was deferred, stop.
    Completed,
}
