//! Access to the durable state of one sync by its owner.

use futures::future::try_join_all;
use mongodb::bson::{
    Document, Uuid, deserialize_from_document, deserialize_from_slice, doc, serialize_to_document,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{CollectionRecord, IndexRecord, SyncRecord, ViewRecord};
use super::slot::{PartitionRecord, any_reply};
use super::transaction::{Operation, Session};
use super::writer::Writer;
use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::failure;
use crate::sync::error::{Error, Reason, Result};

/// Owners, one document a sync.
pub const OWNERS: &str = "owners";
/// Syncs.
pub const SYNCS: &str = "syncs";
/// Partitions and lanes.
pub const SLOTS: &str = "slots";
/// Collections in scope.
pub const COLLECTIONS: &str = "collections";
/// Their indexes.
pub const INDEXES: &str = "indexes";
/// Views in scope.
pub const VIEWS: &str = "views";
/// Target namespaces held.
pub const CLAIMS: &str = "claims";

/// The durable state of one sync, as its owner with `epoch` sees it.
#[derive(Clone, Debug)]
pub struct Store {
    target: Endpoint,
    db: String,
    sync: String,
    epoch: i64,
    /// One session for all fenced writes, known to whoever takes over: it can kill a transaction that a dead or
    /// frozen owner left open, which would hold the sync's document for a minute.
    writer: Option<Writer>,
}

impl Store {
    /// Open without owning: `epoch` 0 matches nothing, so every fenced write would be refused.
    pub fn new(target: Endpoint, db: &str, sync: &str) -> Self {
        Self { target, db: db.to_owned(), sync: sync.to_owned(), epoch: 0, writer: None }
    }

    /// The same store as its owner, who recorded `session` in the owner document.
    pub fn owned(mut self, epoch: i64, session: Session) -> Result<Self> {
        self.epoch = epoch;
        self.writer = Some(Writer::spawn(session, self.fence()?, self.db.clone(), self.lost()));
        Ok(self)
    }

    /// The target.
    pub fn target(&self) -> &Endpoint {
        &self.target
    }

    /// The metadata database.
    pub fn db(&self) -> &str {
        &self.db
    }

    /// The sync's id.
    pub fn sync(&self) -> &str {
        &self.sync
    }

    /// The owner's number.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Create the collections, since a transaction must not be the first to use one.
    pub async fn prepare(&self) -> Result<()> {
        let existing = self
            .target
            .collect(&self.db, doc! {"listCollections": 1, "nameOnly": true})
            .await?
            .iter()
            .filter_map(|raw| crate::sync::endpoint::raw::get(raw, "name")?.as_str().map(str::to_owned))
            .collect::<Vec<_>>();
        let missing = [OWNERS, SYNCS, SLOTS, COLLECTIONS, INDEXES, VIEWS, CLAIMS]
            .into_iter()
            .filter(|name| !existing.iter().any(|existing| existing == name));
        try_join_all(missing.map(|name| self.create(name))).await?;
        Ok(())
    }

    async fn create(&self, name: &str) -> Result<()> {
        let command = if name == OWNERS || name == SYNCS {
            doc! {"create": name, "writeConcern": {"w": "majority"}}
        } else {
            // It creates the collection too.
            doc! {"createIndexes": name, "indexes": [{"key": {"sync": 1}, "name": "sync_1"}],
            "writeConcern": {"w": "majority"}}
        };
        match self.target.command(&self.db, command).await {
            Err(error) if error.code() != Some(failure::NAMESPACE_EXISTS) => Err(error),
            _ => Ok(()),
        }
    }

    /// Run `operations` in a majority transaction that first proves that we still own the sync; others that write at the
    /// same time may share it.
    pub async fn write(&self, operations: Vec<Operation>) -> Result<()> {
        self.writer.as_ref().ok_or_else(|| self.lost())?.write(operations).await
    }

    /// As [`write`](Self::write), alone; commits only if `check` accepts the replies.
    pub async fn write_checked(
        &self,
        operations: Vec<Operation>,
        check: impl Fn(&[Document]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Vec<Document>> {
        self.writer.as_ref().ok_or_else(|| self.lost())?.write_alone(None, operations, check).await
    }

    fn fence(&self) -> Result<Operation> {
        let update = doc! {"q": {"_id": &self.sync, "epoch": self.epoch}, "u": {"$inc": {"writes": 1_i64}}};
        Operation::new(&self.db, &doc! {"update": SYNCS, "updates": [update]})
    }

    /// The error of an owner that was overtaken.
    pub fn lost(&self) -> Error {
        Error::new(
            Reason::OwnershipLost,
            format!("epoch {} of sync '{}' was overtaken by another owner", self.epoch, self.sync),
        )
    }

    /// An operation that changes the sync's own document.
    pub fn update_sync(&self, set: Document) -> Result<Operation> {
        let update = doc! {"q": {"_id": &self.sync}, "u": {"$set": set}};
        Operation::new(&self.db, &doc! {"update": SYNCS, "updates": [update]})
    }

    /// An operation that puts whole documents, by `_id`.
    pub fn put<T: Serialize>(&self, collection: &str, documents: &[T]) -> Result<Operation> {
        let mut updates = Vec::with_capacity(documents.len());
        for document in documents {
            let document = serialize_to_document(document).map_err(|error| encoding(&error))?;
            let id = document.get("_id").cloned().unwrap_or_default();
            updates.push(doc! {"q": {"_id": id}, "u": document, "upsert": true});
        }
        Operation::new(&self.db, &doc! {"update": collection, "updates": updates})
    }

    /// An operation that adds documents which are not there yet: [`put`](Self::put) would look for each first.
    pub fn add<T: Serialize>(&self, collection: &str, documents: &[T]) -> Result<Operation> {
        let documents: Vec<Document> = documents
            .iter()
            .map(|document| serialize_to_document(document).map_err(|error| encoding(&error)))
            .collect::<Result<_>>()?;
        Operation::new(&self.db, &doc! {"insert": collection, "documents": documents})
    }

    /// An operation that says of collections, by `_id`, that they are being created.
    pub fn creating(&self, ids: &[String]) -> Result<Operation> {
        let update = doc! {"q": {"_id": {"$in": ids}}, "u": {"$set": {"state": "Creating"}}, "multi": true};
        Operation::new(&self.db, &doc! {"update": COLLECTIONS, "updates": [update]})
    }

    /// An operation that removes what matches, of this sync only.
    pub fn remove(&self, collection: &str, mut filter: Document) -> Result<Operation> {
        filter.insert("sync", &self.sync);
        Operation::new(&self.db, &doc! {"delete": collection, "deletes": [{"q": filter, "limit": 0}]})
    }

    /// An operation that removes the partitions of a collection.
    pub fn remove_partitions(&self, collection: Uuid) -> Result<Operation> {
        self.remove(SLOTS, below(&PartitionRecord::key(&self.sync, collection, "")))
    }

    /// The sync's document, as a majority has it.
    pub async fn load(&self) -> Result<Option<SyncRecord>> {
        let found = self.find::<SyncRecord>(SYNCS, doc! {"_id": &self.sync}).await?;
        Ok(found.into_iter().next())
    }

    /// The collections in scope.
    pub async fn collections(&self) -> Result<Vec<CollectionRecord>> {
        self.find(COLLECTIONS, doc! {"sync": &self.sync}).await
    }

    /// Their indexes.
    pub async fn indexes(&self) -> Result<Vec<IndexRecord>> {
        self.find(INDEXES, doc! {"sync": &self.sync}).await
    }

    /// The views in scope.
    pub async fn views(&self) -> Result<Vec<ViewRecord>> {
        self.find(VIEWS, doc! {"sync": &self.sync}).await
    }

    /// Prove that we still own the sync, for a write that no transaction can fence.
    pub async fn prove(&self) -> Result<()> {
        let owner: Vec<Document> =
            self.find_latest(OWNERS, doc! {"_id": &self.sync, "epoch": self.epoch}).await?;
        if owner.is_empty() { Err(self.lost()) } else { Ok(()) }
    }

    /// The indexes of some collections.
    pub async fn indexes_of(&self, collections: &[Uuid]) -> Result<Vec<IndexRecord>> {
        // Those of all collections may be very many.
        let keys = |collection: &Uuid| below(&format!("{}/", CollectionRecord::key(&self.sync, *collection)));
        self.find(INDEXES, doc! {"$or": collections.iter().map(keys).collect::<Vec<_>>()}).await
    }

    /// Whether DDL was begun by an earlier run, or by this one, and not recorded as done.
    pub async fn has_intent(&self) -> Result<bool> {
        let filter = doc! {"_id": self.sync(), "intent": {"$ne": null}};
        Ok(!self.find::<Document>(SYNCS, filter).await?.is_empty())
    }

    /// Majority read of documents of one kind.
    pub async fn find<T: DeserializeOwned>(&self, collection: &str, filter: Document) -> Result<Vec<T>> {
        self.find_at(collection, filter, "majority").await
    }

    /// What the primary holds now, which a failover may still take back: for slots, whose numbers would show it.
    pub async fn find_latest<T: DeserializeOwned>(
        &self,
        collection: &str,
        filter: Document,
    ) -> Result<Vec<T>> {
        self.find_at(collection, filter, "local").await
    }

    async fn find_at<T: DeserializeOwned>(
        &self,
        collection: &str,
        filter: Document,
        level: &str,
    ) -> Result<Vec<T>> {
        let find = doc! {
            "find": collection, "filter": filter, "batchSize": 10_000, "sort": {"_id": 1},
            "readConcern": {"level": level},
        };
        let found = self.target.collect_from_primary(&self.db, find).await?;
        let decode = |document: &Vec<u8>| {
            deserialize_from_slice(document).map_err(|error| {
                Error::new(
                    Reason::StateMismatch,
                    format!("{}.{collection} holds state of another format: {error}", self.db),
                )
            })
        };
        found.iter().map(decode).collect()
    }

    /// Remove everything of this sync but its owner document.
    pub async fn clear(&self) -> Result<()> {
        self.renew_with(Vec::new()).await
    }

    /// Begin anew: remove everything of this sync but its owner document, and record `record`.
    pub async fn begin_anew(&self, record: &SyncRecord) -> Result<()> {
        let record = serialize_to_document(record).map_err(|error| encoding(&error))?;
        let insert = Operation::new(&self.db, &doc! {"insert": SYNCS, "documents": [record]})?;
        self.renew_with(vec![insert]).await
    }

    /// There is no sync's document to be fenced by: the owner document is.
    async fn renew_with(&self, operations: Vec<Operation>) -> Result<()> {
        let update = doc! {
            "q": {"_id": &self.sync, "epoch": self.epoch}, "u": [{"$set": {"renewedAt": "$$NOW"}}],
        };
        let fence = Operation::new(&self.db, &doc! {"update": OWNERS, "updates": [update]})?;
        let mut all = Vec::new();
        for collection in [SLOTS, COLLECTIONS, INDEXES, VIEWS, CLAIMS] {
            all.push(self.remove(collection, Document::new())?);
        }
        let sync = doc! {"delete": SYNCS, "deletes": [{"q": {"_id": &self.sync}, "limit": 1}]};
        all.push(Operation::new(&self.db, &sync)?);
        all.extend(operations);
        let writer = self.writer.as_ref().ok_or_else(|| self.lost())?;
        writer.write_alone(Some(fence), all, any_reply).await.map(|_| ())
    }

    /// Decode one document.
    pub fn decode<T: DeserializeOwned>(document: Document) -> Result<T> {
        deserialize_from_document(document).map_err(|error| encoding(&error))
    }
}

/// A filter for keys that begin with `prefix`, which ends with a slash: `_id` is indexed whatever else is.
fn below(prefix: &str) -> Document {
    let parent = prefix.strip_suffix('/').unwrap_or(prefix);
    doc! {"_id": {"$gt": prefix, "$lt": format!("{parent}0")}}
}

fn encoding(error: &mongodb::bson::error::Error) -> Error {
    Error::new(Reason::StateMismatch, format!("durable state cannot be read or written: {error}"))
}
