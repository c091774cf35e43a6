//! A slot: the document of a partition or a lane, and the fenced transactions that move it.
//!
//! Each batch is one transaction that first moves the slot from `{epoch, seq}` to `{epoch, seq + 1, position}`
//! and then writes the data. If nothing matches, a new owner has raised the epoch, or a failover rolled the
//! target back. One mechanism gives the fence, the exact resume and the detection of lost writes.

use std::time::Duration;

use mongodb::bson::{Binary, Bson, Document, Timestamp, Uuid, doc};
use serde::{Deserialize, Serialize};

use super::store::{SLOTS, Store};
use super::transaction::{Durability, Operation, Session, WriteError, write_error};
use crate::sync::endpoint::failure;
use crate::sync::error::{Error, Reason, Result};

/// How often a batch is tried again after a conflict or another passing refusal.
const RETRIES: u32 = 30;

/// A lane's document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneRecord {
    /// `<sync>/lane/<number>`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The sync.
    pub sync: String,
    /// `lane`.
    pub kind: String,
    /// Which lane.
    pub number: i32,
    /// The owner that may move it.
    pub epoch: i64,
    /// Moves so far.
    pub seq: i64,
    /// The token of the last event applied.
    pub position: String,
    /// Documents were read again as of then: events up to it may already be in what was written.
    #[serde(default)]
    pub replay_until: Option<Timestamp>,
}

/// A partition's document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionRecord {
    /// `<sync>/part/<uuid>/<number>`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The sync.
    pub sync: String,
    /// `partition`.
    pub kind: String,
    /// The source collection's UUID.
    pub collection: Uuid,
    /// The owner that may move it.
    pub epoch: i64,
    /// Moves so far.
    pub seq: i64,
    /// `{_id: …}` at which it begins (inclusive), as bytes; none: the first.
    pub lower: Option<Binary>,
    /// `{_id: …}` at which it ends (exclusive), as bytes; none: the last.
    pub upper: Option<Binary>,
    /// `{_id: …}` of the last document copied, as bytes.
    pub last: Option<Binary>,
    /// Documents copied.
    pub documents: i64,
    /// BSON bytes copied.
    pub bytes: i64,
    /// Whether it is wholly copied, majority-committed.
    pub done: bool,
    /// Not in the durable state: all of a collection which may turn out to be a single batch.
    #[serde(skip)]
    pub unrecorded: bool,
}

/// The kind of a lane's slot.
pub const LANE: &str = "lane";
/// The kind of a partition's slot.
pub const PARTITION: &str = "partition";

impl PartitionRecord {
    /// Its key.
    pub fn key(sync: &str, collection: Uuid, number: &str) -> String {
        format!("{sync}/part/{collection}/{number}")
    }
}

impl LaneRecord {
    /// A lane at the beginning.
    pub fn new(sync: &str, epoch: i64, number: i32, position: &str) -> Self {
        Self {
            id: format!("{sync}/lane/{number}"),
            sync: sync.to_owned(),
            kind: LANE.to_owned(),
            number,
            epoch,
            seq: 0,
            position: position.to_owned(),
            replay_until: None,
        }
    }
}

/// Judges the replies of a batch's operations before it is committed.
pub type Check<'a> = &'a (dyn Fn(&[Document]) -> Result<()> + Sync);

/// Accepts any replies.
pub fn any_reply(_: &[Document]) -> Result<()> {
    Ok(())
}

/// Why a batch was not committed.
#[derive(Debug)]
pub enum Refusal {
    /// The server refuses one statement; nothing of the batch was written.
    Document {
        /// Which operation.
        operation: usize,
        /// Which statement of it, and why.
        error: WriteError,
    },
    /// Anything else; nothing of the batch was written, or all of it, which the slot shows.
    Engine(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// The right to move one slot, and the session to do it with.
#[derive(Debug)]
pub struct Slot {
    store: Store,
    id: String,
    seq: i64,
    session: Session,
}

impl Slot {
    /// Open a slot whose document was read at `seq` after the epoch was raised in it.
    pub async fn open(store: &Store, id: &str, seq: i64) -> Result<Self> {
        let session = Session::open(store.target()).await?;
        let slot = Self { store: store.clone(), id: id.to_owned(), seq, session };
        // Whoever takes over kills this session, so that a frozen owner's open transaction does not hold the slot.
        slot.store
            .target()
            .command(
                slot.store.db(),
                doc! {"update": SLOTS, "updates": [
                    {"q": {"_id": &slot.id, "epoch": slot.store.epoch()}, "u": {"$set": {"session": slot.session.id().clone()}}}
                ], "writeConcern": {"w": 1}},
            )
            .await?;
        Ok(slot)
    }

    /// Moves so far.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// Apply the operations that `make` makes, anew for each try, so that nobody keeps a copy of their bytes, and move
    /// the slot by `$set: set`, `$inc: inc` in one transaction, which commits only if `check` accepts the operations'
    /// replies.
    pub async fn commit(
        &mut self,
        set: Document,
        inc: Document,
        mut make: impl FnMut() -> Vec<Operation> + Send,
        durability: Durability,
        check: Check<'_>,
    ) -> Result<(), Refusal> {
        let mut inc = inc;
        inc.insert("seq", 1_i64);
        let mut change = doc! {"$inc": inc};
        if !set.is_empty() {
            change.insert("$set", Bson::Document(set));
        }
        let fence = Operation::new(
            self.store.db(),
            &doc! {"update": SLOTS, "updates": [
                {"q": {"_id": &self.id, "epoch": self.store.epoch(), "seq": self.seq}, "u": change}
            ]},
        )?;
        let mut tries = 0;
        loop {
            match self.commit_once(&fence, make(), durability, check).await {
                Err(Refusal::Engine(error)) if is_passing(&error) && tries < RETRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(5 * u64::from(tries))).await;
                }
                Ok(()) => {
                    self.seq += 1;
                    return Ok(());
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn commit_once(
        &mut self,
        fence: &Operation,
        operations: Vec<Operation>,
        durability: Durability,
        check: Check<'_>,
    ) -> Result<(), Refusal> {
        self.session.begin(durability).await?;
        let replies = self.run_all(fence, operations).await;
        match replies.and_then(|replies| Ok(check(&replies)?)) {
            Ok(()) => Ok(self.session.commit().await?),
            Err(refusal) => {
                self.session.abort().await;
                Err(refusal)
            }
        }
    }

    async fn run_all(
        &mut self,
        fence: &Operation,
        operations: Vec<Operation>,
    ) -> Result<Vec<Document>, Refusal> {
        if self.session.run(fence.clone()).await?.get_i32("n").ok() != Some(1) {
            return Err(self.explain_mismatch().await.into());
        }
        let mut replies = Vec::with_capacity(operations.len());
        for (number, operation) in operations.into_iter().enumerate() {
            let reply = self.session.run(operation).await?;
            if let Some(error) = write_error(&reply) {
                if error.code == failure::WRITE_CONFLICT {
                    return Err(Error::new(Reason::Interrupted, "a write conflict on the target")
                        .with_code(Some(error.code))
                        .into());
                }
                return Err(Refusal::Document { operation: number, error });
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    async fn explain_mismatch(&self) -> Error {
        let found = self.store.find::<Document>(SLOTS, doc! {"_id": &self.id}).await;
        match found.map(|found| found.into_iter().next()) {
            Err(error) => error,
            Ok(Some(slot)) if slot.get_i64("epoch").ok() == Some(self.store.epoch()) => Error::new(
                Reason::Interrupted,
                format!(
                    "slot {} stands at {} where {} was expected: the target failed over, or an earlier attempt's write arrived late; resuming from what it holds",
                    self.id,
                    slot.get_i64("seq").unwrap_or(-1),
                    self.seq
                ),
            ),
            Ok(_) => self.store.lost(),
        }
    }
}

/// Whether the same transaction may simply be tried again here.
pub fn is_passing(error: &Error) -> bool {
    // Write conflict, lock timeout, no such transaction (aborted by the server under cache pressure), and a snapshot
    // that a DDL operation made unavailable.
    matches!(error.code(), Some(failure::WRITE_CONFLICT | 24 | 246 | 251))
}
