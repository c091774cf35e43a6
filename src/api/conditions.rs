//! The names of conditions, of their reasons and of the operator's field managers: API, so in one place.

/// The types of conditions.
pub mod types {
    /// The sync does what was asked for: it streams, rests or is done.
    pub const READY: &str = "Ready";
    /// It is on its way to what was asked for.
    pub const RECONCILING: &str = "Reconciling";
    /// It stopped and waits for a person.
    pub const STALLED: &str = "Stalled";
    /// The cutover is done.
    pub const COMPLETED: &str = "Completed";
    /// The target was consistent once: all later changes are streamed.
    pub const INITIAL_SYNC_COMPLETE: &str = "InitialSyncComplete";
    /// The source answers.
    pub const SOURCE_CONNECTED: &str = "SourceConnected";
    /// The target answers.
    pub const TARGET_CONNECTED: &str = "TargetConnected";
    /// The target is further behind than `spec.replication.maxLagSeconds`.
    pub const LAGGING: &str = "Lagging";
}

/// The reasons that come beside those of the engine (`sync::Reason`) and the names of phases.
pub mod reasons {
    /// The spec asks for a pause that is not reached yet.
    pub const PAUSING: &str = "Pausing";
    /// The spec asks to go on after a pause.
    pub const RESUMING: &str = "Resuming";
    /// The spec asks for a new clone that has not begun.
    pub const RESTARTING: &str = "Restarting";
    /// The cutover was asked for and has not begun.
    pub const COMPLETION_REQUESTED: &str = "CompletionRequested";
    /// An end has not answered for a minute.
    pub const CONNECTION_LOST: &str = "ConnectionLost";
    /// An end answers.
    pub const CONNECTED: &str = "Connected";
    /// Nothing is known yet.
    pub const NOT_YET_KNOWN: &str = "NotYetKnown";
    /// Some indexes could not be restored at completion.
    pub const INDEXES_MISSING: &str = "IndexesMissing";
    /// The cutover was not asked for, or is not done.
    pub const NOT_COMPLETED: &str = "NotCompleted";
    /// The clone, and what changed meanwhile, is on the target.
    pub const CAUGHT_UP: &str = "CaughtUp";
    /// The clone is not done, or changes of its time are not applied yet.
    pub const IN_PROGRESS: &str = "InProgress";
    /// The lag is above the limit.
    pub const LAG_ABOVE_LIMIT: &str = "LagAboveLimit";
    /// The lag is within the limit.
    pub const LAG_WITHIN_LIMIT: &str = "LagWithinLimit";
    /// This version of the operator cannot read the resource.
    pub const UNDECODABLE: &str = "Undecodable";
    /// Every reason of this module, for the documentation and its test.
    pub const ALL: &[&str] = &[
        PAUSING,
        RESUMING,
        RESTARTING,
        COMPLETION_REQUESTED,
        CONNECTION_LOST,
        CONNECTED,
        NOT_YET_KNOWN,
        INDEXES_MISSING,
        NOT_COMPLETED,
        CAUGHT_UP,
        IN_PROGRESS,
        LAG_ABOVE_LIMIT,
        LAG_WITHIN_LIMIT,
        UNDECODABLE,
    ];
}

/// Owner of observedGeneration and the conditions Ready, Reconciling, Stalled and Completed.
pub const CONTROLLER_MANAGER: &str = "clustersync-controller";

/// Owner of the rest of the status.
pub const WORKER_MANAGER: &str = "clustersync-worker";
