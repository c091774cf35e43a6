//! The documents of the durable state. Specifications of collections and indexes are kept as the bytes that
//! the source gave, so that what is restored is what was there.

use mongodb::bson::{Binary, Timestamp, Uuid, spec::BinarySubtype};
use serde::{Deserialize, Serialize};

use crate::sync::namespace::Namespace;

/// The format that this version writes; it reads those before too. 2: a collection may be `Cloning` without a partition, which
/// a version that knows 1 would take for copied.
pub const FORMAT: i32 = 2;

/// How far a sync has come, durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The catalogue is being recorded; nothing has been written to user collections.
    #[default]
    Planning,
    /// Collections are being copied.
    Cloning,
    /// All are copied.
    Streaming,
    /// The cutover was asked for.
    Completing,
    /// The cutover is irrevocable: deferred options are being restored.
    Restoring,
    /// Done.
    Completed,
}

/// One end as recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Replica set name, for people.
    pub set_name: String,
    /// Replica set id.
    pub set_id: String,
}

/// A durable place in the source's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Resume token: every event at or before it is applied.
    pub token: String,
    /// The time up to which everything is applied.
    pub time: Timestamp,
}

/// An oplog entry's time and term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// Its time.
    pub time: Timestamp,
    /// Its term.
    pub term: i64,
}

/// The cutover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompletionRecord {
    /// When asked, RFC 3339.
    pub requested_at: jiff::Timestamp,
    /// The time to drain to.
    pub fence: Option<Timestamp>,
    /// When it became irrevocable.
    pub committed_at: Option<jiff::Timestamp>,
    /// When what was deferred had been restored.
    #[serde(default)]
    pub completed_at: Option<jiff::Timestamp>,
}

/// A DDL step that was begun: found at a restart, it may have happened or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The event.
    pub token: String,
}

/// The document of a sync.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncRecord {
    /// The sync's id.
    #[serde(rename = "_id")]
    pub id: String,
    /// [`FORMAT`].
    pub format: i32,
    /// The owner that may write.
    pub epoch: i64,
    /// Fenced writes so far.
    pub writes: i64,
    /// The resource that asked for it first.
    pub resource_uid: Option<String>,
    /// Source.
    pub source: Side,
    /// Target.
    pub target: Side,
    /// Scope.
    pub include: Vec<String>,
    /// Scope.
    pub exclude: Vec<String>,
    /// Databases on the source that hold the state of other syncs: never in scope.
    #[serde(default)]
    pub reserved: Vec<String>,
    /// How far.
    pub stage: Stage,
    /// Lanes, of which each has its slot; never changed.
    pub lanes: i32,
    /// The catalogue's time: events at or before it are in what is cloned.
    pub catalogue_time: Option<Timestamp>,
    /// Where the catalogue was read piece by piece: when that ended. Collections that came and went before are not in it.
    #[serde(default)]
    pub listed_until: Option<Timestamp>,
    /// Where to resume.
    pub checkpoint: Option<Checkpoint>,
    /// A run that did not end cleanly may have written to collections outside of transactions (capped ones).
    #[serde(default)]
    pub dirty: bool,
    /// Proof of the history that the checkpoint belongs to.
    pub witness: Option<WitnessRecord>,
    /// The last DDL event that was done.
    pub ddl_position: String,
    /// A DDL event that was begun.
    pub intent: Option<Intent>,
    /// The source time at which the last collection was copied.
    pub clone_end: Option<Timestamp>,
    /// When the clone started.
    pub started_at: Option<jiff::Timestamp>,
    /// When the last collection was copied.
    pub cloned_at: Option<jiff::Timestamp>,
    /// When the target had passed `clone_end`.
    pub consistent_at: Option<jiff::Timestamp>,
    /// The cutover.
    pub completion: Option<CompletionRecord>,
    /// The request token last acted on.
    pub handled_retry: String,
    /// The request token last acted on.
    pub handled_restart: String,
}

/// How far a collection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionState {
    /// Not begun: its events are in what will be read.
    Pending,
    /// Being created on the target: whatever stands there empty is ours.
    Creating,
    /// Being copied: its events wait.
    Cloning,
    /// Copied: its events are applied.
    Cloned,
}

/// A collection in scope. Its key is the source's UUID: names are not identities.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectionRecord {
    /// `<sync>/<uuid>`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The sync.
    pub sync: String,
    /// The source's UUID.
    pub uuid: Uuid,
    /// `db.coll` on the source, as of the last DDL event seen.
    pub source: String,
    /// `db.coll` on the target.
    pub target: String,
    /// The UUID that the target gave.
    pub target_uuid: Option<Uuid>,
    /// Options of `create`, as bytes.
    pub options: Binary,
    /// How far.
    pub state: CollectionState,
    /// Events at or before it are in what was read.
    pub read_time: Option<Timestamp>,
    /// Events at or before it may be in what was read.
    pub clone_end: Option<Timestamp>,
    /// Documents expected.
    pub documents: i64,
    /// BSON bytes expected.
    pub bytes: i64,
    /// Its data makes no events, or was not followed: options, indexes and documents are read from the source when
    /// its clone begins.
    #[serde(default)]
    pub late: bool,
    /// What was copied, if that was so little that it needed no partition.
    #[serde(default)]
    pub whole: Option<Copied>,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// Documents.
    pub documents: i64,
    /// BSON bytes.
    pub bytes: i64,
}

/// A view in scope. It has a name and no UUID.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewRecord {
    /// `<sync>/<db.coll>`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The sync.
    pub sync: String,
    /// `db.coll`.
    pub namespace: String,
    /// Options of `create`, as bytes.
    pub options: Binary,
    /// Whether it is on the target.
    pub created: bool,
}

impl ViewRecord {
    /// To be created.
    pub fn new(sync: &str, namespace: &Namespace, options: &[u8]) -> Self {
        Self {
            id: format!("{sync}/{namespace}"),
            sync: sync.to_owned(),
            namespace: namespace.to_string(),
            options: binary(options),
            created: false,
        }
    }
}

impl CollectionRecord {
    /// A collection that was not copied yet.
    pub fn new(sync: &str, uuid: Uuid, namespace: &Namespace, options: &[u8]) -> Self {
        Self {
            id: Self::key(sync, uuid),
            sync: sync.to_owned(),
            uuid,
            source: namespace.to_string(),
            target: namespace.to_string(),
            target_uuid: None,
            options: binary(options),
            state: CollectionState::Pending,
            read_time: None,
            clone_end: None,
            documents: 0,
            bytes: 0,
            late: false,
            whole: None,
        }
    }

    /// Its key.
    pub fn key(sync: &str, uuid: Uuid) -> String {
        format!("{sync}/{uuid}")
    }

    /// Source name.
    pub fn source_namespace(&self) -> Namespace {
        Namespace::parse(&self.source).unwrap_or_else(|| Namespace::new("", &*self.source))
    }

    /// Target name.
    pub fn target_namespace(&self) -> Namespace {
        Namespace::parse(&self.target).unwrap_or_else(|| Namespace::new("", &*self.target))
    }
}

/// How far an index has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// To be built.
    Waiting,
    /// Built, in its deferred form.
    Built,
    /// The target refused it.
    Failed,
    /// As on the source.
    Restored,
}

/// An index in scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexRecord {
    /// `<sync>/<uuid>/<name>`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The sync.
    pub sync: String,
    /// The collection's UUID on the source.
    pub collection: Uuid,
    /// The index's name.
    pub name: String,
    /// Its specification on the source, as bytes.
    pub spec: Binary,
    /// How far.
    pub state: IndexState,
    /// Why it failed.
    pub error: Option<String>,
    /// The event that brought it (empty: the catalogue): tells it from a later one of the same name.
    pub generation: String,
}

impl IndexRecord {
    /// Its key.
    pub fn key(sync: &str, collection: Uuid, name: &str) -> String {
        format!("{sync}/{collection}/{name}")
    }

    /// To be built.
    pub fn new(sync: &str, collection: Uuid, name: &str, spec: &[u8], generation: &str) -> Self {
        Self {
            id: Self::key(sync, collection, name),
            sync: sync.to_owned(),
            collection,
            name: name.to_owned(),
            spec: binary(spec),
            state: IndexState::Waiting,
            error: None,
            generation: generation.to_owned(),
        }
    }
}

/// Bytes for the durable state.
pub fn binary(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}
