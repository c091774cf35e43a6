//! What the user sees.

// `kubectl explain` shows these texts as they are: no backticks.
#![allow(clippy::doc_markdown)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the sync is doing. Two field managers write it: clustersync-controller (observedGeneration and the
/// conditions Ready, Reconciling, Stalled, Completed) and clustersync-worker (the rest).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSyncStatus {
    /// The generation of the spec that the conditions were judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the sync is in its life: Pending, Preflight, Cloning, CatchingUp, Streaming, Paused, Completing,
    /// Completed or Stalled. More may be added: use the conditions to decide anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub phase: Option<String>,
    /// What holds at present: Ready, Reconciling, Stalled, Completed, InitialSyncComplete, SourceConnected,
    /// TargetConnected and Lagging, each True, False or Unknown. At most one of the first three is True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// Key of the durable state on the target; set it as spec.syncID of a new resource to go on from here.
    #[serde(default, rename = "syncID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub sync_id: Option<String>,
    /// The source as seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The target as seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// Who runs the sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
    /// Progress of the clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_sync: Option<InitialSyncStatus>,
    /// Progress of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationStatus>,
    /// Progress of the cutover, once asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<CompletionStatus>,
    /// What slows the sync down to spare the source or the target, while spec.limits asks for it; absent at full
    /// speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<ThrottlingStatus>,
    /// What a user should know although it does not stop the sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub warnings: Vec<String>,
    /// The one-time requests that were dealt with last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<HandledRequests>,
}

/// The source as seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Name of the replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub replica_set: Option<String>,
    /// Server version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Seconds that the oplog reaches back: a pause, or a clone, must not last longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oplog_window_seconds: Option<i64>,
}

/// The target as seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Name of the replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub replica_set: Option<String>,
    /// Server version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
}

/// Who runs the sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// The process that owns the sync, as recorded on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub holder: Option<String>,
    /// Grows with each take-over; the target refuses writes of a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// How often the worker was started again since the resource was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i64>,
}

/// Done and total.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// How many there are.
    pub total: i64,
    /// How many are done.
    pub done: i64,
}

/// Progress of the clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitialSyncStatus {
    /// When the clone first began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the target was first consistent with the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// How much is done, for people, for example "42%".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub progress: Option<String>,
    /// Collections in scope, and those wholly copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<Count>,
    /// Partitions planned so far, and those wholly copied: a restart copies none of the latter again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Count>,
    /// Documents copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<i64>,
    /// Bytes copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Bytes expected in all, by the source's statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Bytes a second at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// Seconds to the end of the clone at the present rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
}

/// Progress of the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationStatus {
    /// Everything that the source wrote up to this time is on the target, durably. Written with other
    /// changes, and by itself every five minutes; the metrics have it to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_time: Option<Time>,
    /// Seconds that the target is behind the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// Changes applied by the present worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_applied: Option<i64>,
    /// The last failure, while the present attempt has not got past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastErrorStatus>,
}

/// A failure that is being retried or has stopped the sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastErrorStatus {
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// One of the documented reasons.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What happened, and what to do.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// How many attempts in a row have failed.
    pub attempts: i64,
}

/// Progress of the cutover.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionStatus {
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// Source time that is drained to, as "seconds.increment".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub fence: Option<String>,
    /// When the cutover became final. From then on spec.state must stay Completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Time>,
    /// Indexes that could not be restored. Remove the cause, then change spec.requests.retry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub unsuccessful_indexes: Vec<UnsuccessfulIndexStatus>,
}

/// An index that is not on the target as it was on the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnsuccessfulIndexStatus {
    /// The collection on the target, as "db.collection".
    #[schemars(length(max = 512))]
    pub namespace: String,
    /// Name of the index.
    #[schemars(length(max = 512))]
    pub index_name: String,
    /// Key pattern as JSON.
    #[schemars(length(max = 1024))]
    pub keys: String,
    /// What is wrong with it: failed, incomplete or inconsistent.
    #[schemars(length(max = 32))]
    pub kind: String,
    /// Why, in the server's words.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// What slows the sync down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottlingStatus {
    /// SourceLatency, SourceReplicationLag or TargetReplicationLag. More may be added.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// How fast the sync goes, in percent of what it did before. Never 0.
    pub pace_percent: i64,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What was measured, and what is slowed.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The one-time requests that were dealt with last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandledRequests {
    /// The value of spec.requests.retry that was dealt with last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub retry: Option<String>,
    /// The value of spec.requests.restart that was dealt with last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restart: Option<String>,
}

/// As metav1.Condition has it, as a map by type: two field managers own entries of one list.
fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "description": "Name of the condition."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 64, "description": "One word; the documentation lists them."},
                "message": {"type": "string", "maxLength": 4096, "description": "A sentence for people: what is, and what to do."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation of the spec that this was judged for."}
            }
        }
    })
}
