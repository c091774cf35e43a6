//! What the user asks for.

// `kubectl explain` shows these texts as they are: no backticks.
#![allow(clippy::doc_markdown)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{SourceSpec, TargetSpec};
use super::rules;
use super::status::ClusterSyncStatus;

/// What to sync, and what the sync should be doing now.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "clustersync.dev",
    version = "v1alpha1",
    kind = "ClusterSync",
    plural = "clustersyncs",
    shortname = "csync",
    namespaced,
    status = "ClusterSyncStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Keeps a target MongoDB replica set in step with a source: clones once, then streams every change, until spec.state is set to Completed.",
    validation = rules::COMPLETED_IS_FINAL,
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state", description = "What was asked for"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the sync is in its life"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether it does what was asked for"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.replication.lagSeconds", description = "Seconds that the target is behind the source"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.initialSync.progress", description = "How much of the clone is done"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Since when the resource exists"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.replicaSet", priority = 1, description = "Replica set that is read"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target.replicaSet", priority = 1, description = "Replica set that is written"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1, description = "What is happening, and what to do")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::SYNC_ID_IMMUTABLE,
    validation = rules::METADATA_DATABASE_IMMUTABLE,
    validation = rules::SCOPE_IMMUTABLE,
    validation = rules::TARGET_IMMUTABLE
)]
pub struct ClusterSyncSpec {
    /// What the sync should be doing: Running clones and then streams; Paused rests and keeps everything (but
    /// not for longer than the source's oplog reaches back, see status.source.oplogWindowSeconds); Completed
    /// cuts over: it drains to the source's present time, restores what was deferred (unique and TTL indexes)
    /// and stops for good. Until status.completion.committedAt is set, Completed may be taken back.
    #[serde(default)]
    pub state: State,
    /// Key of the durable state on the target. Default: the UID of this resource. To go on with the state of
    /// a deleted or restored resource, set its status.syncID here; source, target and scope must match.
    /// Immutable.
    #[serde(default, rename = "syncID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9._-]*$"))]
    pub sync_id: Option<String>,
    /// The replica set to read from. It is only read.
    pub source: SourceSpec,
    /// The replica set to write to.
    pub target: TargetSpec,
    /// Database on the target for the sync's own durable state. Default "clustersync". It is never copied.
    /// Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 38), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    #[x_kube(validation = rules::METADATA_DATABASE_NOT_SYSTEM)]
    pub metadata_database: Option<String>,
    /// Which namespaces are copied. Default: everything but the server's own databases. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeSpec>,
    /// How the clone is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_sync: Option<InitialSyncSpec>,
    /// How changes are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationSpec>,
    /// What must not be exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// See [`DeletionPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// One-time requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsSpec>,
}

/// The states that a user can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Clone, then stream.
    #[default]
    Running,
    /// Rest and keep everything.
    Paused,
    /// Cut over.
    Completed,
}

/// Which namespaces are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopeSpec {
    /// Namespaces to copy: "db.collection", "db.*" or "db", with * and ? as wildcards. Empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 255), regex(pattern = r#"^[^./\\" $]+(\.[^$]+)?$"#))
    )]
    #[x_kube(validation = rules::SCOPE_NOT_SYSTEM)]
    pub include: Vec<String>,
    /// Namespaces not to copy, in the same form. Exclude wins over include.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 255), regex(pattern = r#"^[^./\\" $]+(\.[^$]+)?$"#))
    )]
    #[x_kube(validation = rules::SCOPE_NOT_SYSTEM)]
    pub exclude: Vec<String>,
}

/// How the clone is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitialSyncSpec {
    /// See [`OnExistingData`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_existing_data: Option<OnExistingData>,
    /// Collections cloned at a time. Default 0: automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub parallel_collections: Option<i32>,
    /// Partitions of one collection read at a time. Default 0: automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub readers_per_collection: Option<i32>,
    /// Leave out what cannot be followed (time-series collections, queryable encryption), with a warning in the
    /// status, rather than stop with Unsupported. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_unsupported: Option<bool>,
}

/// What to do with collections in scope that exist on the target already: Fail (default) stops with
/// TargetNotEmpty; Drop drops them, each logged by name, and clones anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExistingData {
    /// Stop with TargetNotEmpty.
    #[default]
    Fail,
    /// Drop the collections in scope and clone anew.
    Drop,
}

/// How changes are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    /// Ordered queues that apply changes in parallel. Default 0: automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub lanes: Option<i32>,
    /// Seconds between checkpoints: how much is read again after a crash. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub checkpoint_interval_seconds: Option<i32>,
    /// Lag above which the condition Lagging becomes True. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub max_lag_seconds: Option<i32>,
}

/// What must not be exceeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Bytes a second that the clone may read from the source. Default 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_099_511_627_776_i64))]
    pub bytes_per_second: Option<i64>,
    /// Milliseconds that the source may take for a small read, the network included. Above it the clone reads
    /// more slowly, and faster again once the source answers in time; status.throttling shows it. Default 0:
    /// however long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60_000))]
    pub max_source_latency_ms: Option<i32>,
    /// Seconds that the majority of a replica set may lag behind its primary. Above it on the source, or on the
    /// member that is read, the clone reads more slowly; above it on the target, changes are applied more slowly
    /// too, as long as the source's oplog leaves time for that. status.throttling shows it. Default 0: however
    /// large the lag is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub max_replication_lag_seconds: Option<i32>,
}

/// What becomes of the durable state on the target (progress, claims) when this resource is deleted: Retain
/// (default) keeps it, so that a new resource can go on from it by syncID; Delete removes it. The copied data
/// is never touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Keep it: a new resource can go on from it by syncID.
    #[default]
    Retain,
    /// Remove it from the target. User data is not touched.
    Delete,
}

/// One-time requests: each is an opaque token, acted on when it changes. A token that is there when the sync
/// begins is recorded, not acted on; status.handled shows the last ones dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestsSpec {
    /// Change this (for example to the present time) to leave phase Stalled once its cause is removed, or,
    /// when completed, to try missing indexes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub retry: Option<String>,
    /// Change this to throw the progress away and clone anew; initialSync.onExistingData decides about the
    /// data on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restart: Option<String>,
}
