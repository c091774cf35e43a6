//! What a sync publishes about itself. Complete at every moment: a reader needs no history.

use jiff::Timestamp;

use super::error::Reason;

/// Where a sync is in its life. Durable, except `Pending` and `Preflight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for ownership or a free slot. Set at spawn; not durable.
    #[default]
    Pending,
    /// Checks both ends before data moves. Set once owner; not durable.
    Preflight,
    /// Copies collections.
    Cloning,
    /// All collections are copied; events up to the end of the clone are being applied.
    CatchingUp,
    /// The target is consistent and follows the source.
    Streaming,
    /// Rests at the user's wish; the checkpoint stays.
    Paused,
    /// Drains to the fence and restores what was deferred.
    Completing,
    /// Cut over; nothing runs.
    Completed,
    /// Stopped for a reason that needs a person.
    Stalled,
}

impl Phase {
    /// The name used in the API, the logs and the durable state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preflight => "Preflight",
            Self::Cloning => "Cloning",
            Self::CatchingUp => "CatchingUp",
            Self::Streaming => "Streaming",
            Self::Paused => "Paused",
            Self::Completing => "Completing",
            Self::Completed => "Completed",
            Self::Stalled => "Stalled",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A position in a replica set's oplog: seconds since 1970 and an ordinal within the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTime {
    /// Seconds since 1970.
    pub seconds: u32,
    /// Ordinal within the second, from 1.
    pub increment: u32,
}

impl From<mongodb::bson::Timestamp> for ClusterTime {
    fn from(time: mongodb::bson::Timestamp) -> Self {
        Self { seconds: time.time, increment: time.increment }
    }
}

impl From<ClusterTime> for mongodb::bson::Timestamp {
    fn from(time: ClusterTime) -> Self {
        Self { time: time.seconds, increment: time.increment }
    }
}

impl std::fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.seconds, self.increment)
    }
}

/// The clone of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionProgress {
    /// `db.coll` on the target.
    pub namespace: String,
    /// `Pending`, `Cloning` or `Cloned`.
    pub state: &'static str,
    /// Documents copied.
    pub documents: u64,
    /// Documents expected, by the collection's statistics.
    pub documents_total: u64,
    /// BSON bytes copied.
    pub bytes: u64,
    /// BSON bytes expected.
    pub bytes_total: u64,
    /// BSON bytes a second since this process began with it, while it is being copied.
    pub bytes_per_second: u64,
}

/// The published state of one sync.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The key of the durable state.
    pub sync_id: String,
    /// Where it is.
    pub phase: Phase,
    /// When it entered that phase, by this process's clock.
    pub phase_since: Timestamp,
    /// Why it is `Stalled` or `Pending`; for other phases none.
    pub reason: Option<Reason>,
    /// One sentence for a person: what is happening, or what happened and what to do. Never a secret.
    pub message: String,
    /// The source as seen.
    pub source: SideReport,
    /// The target as seen.
    pub target: SideReport,
    /// Who owns the sync, once known: the holder's id.
    pub holder: String,
    /// The number that fences; grows with each take-over; 0 before ownership.
    pub epoch: i64,
    /// The clone.
    pub initial_sync: InitialSyncReport,
    /// The stream.
    pub replication: ReplicationReport,
    /// The cutover, once asked for.
    pub completion: Option<CompletionReport>,
    /// When attempts began to fail, if none has got any further since: no checkpoint, no copied batch.
    pub failing_since: Option<Timestamp>,
    /// What slows the sync down, while anything does.
    pub throttling: Option<ThrottlingReport>,
    /// What a user should know although nothing is wrong enough to stop.
    pub warnings: Vec<String>,
    /// Request tokens that have been acted on (or recorded at first contact), from the durable state.
    pub handled_retry: String,
    /// As `handled_retry`.
    pub handled_restart: String,
}

/// One end of the sync.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideReport {
    /// Whether the last attempt to talk to it succeeded; none before the first.
    pub connected: Option<bool>,
    /// Since when `connected` has this value.
    pub connected_since: Timestamp,
    /// Replica set name.
    pub replica_set: String,
    /// Server version, as `6.0.27`.
    pub version: String,
    /// Source only: seconds between the oldest oplog entry and now.
    pub oplog_window_seconds: Option<i64>,
}

/// Progress of the clone. Documents and bytes count what is on the target, over all runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitialSyncReport {
    /// When the clone first started.
    pub started_at: Option<Timestamp>,
    /// When the last collection was copied.
    pub cloned_at: Option<Timestamp>,
    /// When the target had passed the clone's end and so was consistent.
    pub completed_at: Option<Timestamp>,
    /// Collections in scope at the start.
    pub collections_total: u64,
    /// Collections wholly copied.
    pub collections_done: u64,
    /// Partitions planned so far.
    pub partitions_total: u64,
    /// Partitions wholly copied.
    pub partitions_done: u64,
    /// Partitions that this process finished: after a restart the finished ones of before are not in it.
    pub partitions_copied: u64,
    /// Documents copied.
    pub documents: u64,
    /// Documents expected, by the collections' statistics.
    pub documents_total: u64,
    /// BSON bytes copied.
    pub bytes: u64,
    /// BSON bytes expected.
    pub bytes_total: u64,
    /// BSON bytes a second, over the last seconds.
    pub bytes_per_second: u64,
    /// Seconds to the end at the present rate.
    pub eta_seconds: Option<u64>,
    /// Documents that this process wrote.
    pub documents_copied: u64,
    /// BSON bytes that this process wrote.
    pub bytes_copied: u64,
}

/// Progress of the stream. Counters are of this process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicationReport {
    /// Everything up to here is applied, majority-committed and recorded; a restart resumes here.
    pub checkpoint_time: Option<ClusterTime>,
    /// Everything up to here is applied.
    pub applied_time: Option<ClusterTime>,
    /// The source's last write minus `applied_time`, in seconds; 0 when equal.
    pub lag_seconds: Option<i64>,
    /// Events read from the source.
    pub events_read: u64,
    /// Events applied to the target.
    pub events_applied: u64,
    /// Lanes.
    pub lanes: u32,
    /// Bytes held in queues.
    pub queued_bytes: u64,
    /// The last failure, until the sync has got further than it was then.
    pub last_error: Option<LastError>,
}

/// Why a sync goes more slowly than it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowedBy {
    /// The source takes longer for a small read than it may.
    SourceLatency,
    /// Members of the source lag behind its primary.
    SourceReplicationLag,
    /// Members of the target lag behind its primary.
    TargetReplicationLag,
}

impl SlowedBy {
    /// The name used in the API, the logs and the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceLatency => "SourceLatency",
            Self::SourceReplicationLag => "SourceReplicationLag",
            Self::TargetReplicationLag => "TargetReplicationLag",
        }
    }
}

/// A sync that is slowed down to spare an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottlingReport {
    /// Why.
    pub by: SlowedBy,
    /// Since when.
    pub since: Timestamp,
    /// How fast it goes, in percent of what it did before.
    pub pace_percent: u32,
    /// What was measured, and what is slowed.
    pub message: String,
}

/// A failure as a user sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// The reason's name (bounded set).
    pub reason: String,
    /// What happened and what to do; no secret.
    pub message: String,
    /// How many attempts in a row have failed.
    pub attempts: u32,
}

/// Progress of the cutover.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionReport {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The source time that is drained to, once known.
    pub fence: Option<ClusterTime>,
    /// When it became irrevocable.
    pub committed_at: Option<Timestamp>,
    /// When what was deferred had been restored; later, if it was asked for again.
    pub completed_at: Option<Timestamp>,
    /// Indexes that could not be restored.
    pub unsuccessful_indexes: Vec<UnsuccessfulIndex>,
}

/// An index that is not on the target as it was on the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsuccessfulIndex {
    /// `db.coll` on the target.
    pub namespace: String,
    /// The index's name.
    pub index_name: String,
    /// `failed`, `incomplete` or `inconsistent`.
    pub kind: String,
    /// Why, in the server's words, without documents.
    pub reason: String,
    /// The key pattern as JSON.
    pub keys: String,
}
