//! Copying one partition: a reader that fetches the next batch while the last is being written.

use std::sync::Arc;

use mongodb::bson::{Document, RawDocumentBuf, doc};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{source_time, write};
use crate::sync::budget::Reservation;
use crate::sync::catalog::{Collection, read};
use crate::sync::context::Context;
use crate::sync::endpoint::cursor::{Batch, Fetch};
use crate::sync::endpoint::{failure, raw};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::Copied;
use crate::sync::state::slot::PartitionRecord;

/// Bytes that a batch should have: large enough to pay for its transaction, small beside the memory bound.
const BATCH_BYTES: i64 = 1 << 20;

/// Documents in a batch at most.
const BATCH_DOCUMENTS: i64 = 10_000;

/// The place at which a scan of a capped collection stood was overwritten.
const CAPPED_POSITION_LOST: i32 = 136;

/// What ends a scan in natural order: the cursor's place was overwritten, the collection was changed, the server forgot
/// the cursor.
const INTERRUPTED: &[i32] = &[
    CAPPED_POSITION_LOST,
    failure::QUERY_PLAN_KILLED,
    failure::NAMESPACE_NOT_FOUND,
    failure::COLLECTION_UUID_MISMATCH,
    failure::CURSOR_NOT_FOUND,
];

/// How a partition's copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is on the target.
    Copied,
    /// All of a small collection is on the target. That is to be recorded together with the collection.
    CopiedWhole(Copied),
    /// The collection is not on the source any more.
    Gone,
    /// A scan in natural order was interrupted: only a new one has the order right.
    Broken,
    /// Told to stop, after the batch that was being written.
    Stopped,
}

/// A batch on its way, with its share of the byte budget.
#[derive(Debug)]
pub struct Chunk {
    /// What the server sent.
    pub batch: Batch,
    /// Documents at the front that are on the target already.
    pub skip: usize,
    /// Whether nothing follows.
    pub last: bool,
    _reservation: Reservation,
}

impl Chunk {
    /// Whether the partition is wholly copied with it.
    pub fn ends(&self) -> bool {
        self.last && self.batch.documents().len() > self.skip
    }
}

/// Copy what is left of a partition; each batch is written when one of the `writers` is free.
pub async fn copy(
    ctx: &Context,
    collection: &Arc<Collection>,
    partition: PartitionRecord,
    writers: &Semaphore,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let documents = u64::try_from(partition.documents).unwrap_or(0);
    let bytes = u64::try_from(partition.bytes).unwrap_or(0);
    ctx.progress.documents.add(documents);
    ctx.progress.bytes.add(bytes);
    collection.found(documents, bytes);
    let (sender, receiver) = mpsc::channel(1);
    let reading = async {
        tokio::select! {
            outcome = read_all(ctx, collection, &partition, sender) => outcome,
            () = cancel.cancelled() => Ok(Outcome::Stopped),
        }
    };
    // The writer is never dropped in the middle: its transaction would stay open and hold the slot.
    let writing = write::write(ctx, collection, &partition, writers, receiver);
    let (outcome, written) = tokio::join!(reading, writing);
    let outcome = match written? {
        write::Written::Twice => return Ok(Outcome::Broken),
        write::Written::Whole(copied) => Outcome::CopiedWhole(copied),
        write::Written::All => outcome?,
    };
    if outcome == Outcome::Copied {
        ctx.progress.partitions_done.add(1);
        ctx.progress.partitions_copied.add(1);
    }
    Ok(outcome)
}

/// What the reader tells the writer.
#[derive(Debug)]
pub enum Message {
    /// More documents.
    Chunk(Chunk),
    /// That was all.
    End,
}

async fn read_all(
    ctx: &Context,
    collection: &Collection,
    partition: &PartitionRecord,
    sender: mpsc::Sender<Message>,
) -> Result<Outcome> {
    let mut last = partition.last.as_ref().map(|last| last.bytes.clone());
    let mut name = collection.record().source_namespace();
    loop {
        match read_from(ctx, collection, partition, &name, &mut last, &sender).await {
            Ok(()) => {
                let _ = sender.send(Message::End).await;
                return Ok(Outcome::Copied);
            }
            Err(error)
                if collection.is_capped()
                    && (last.is_some() || error.code() == Some(CAPPED_POSITION_LOST))
                    && error.code().is_some_and(|code| INTERRUPTED.contains(&code)) =>
            {
                let now = source_time(ctx).await?;
                return match read::locate(&ctx.source, collection.uuid, now).await? {
                    Some(_) => Ok(Outcome::Broken),
                    None => Ok(Outcome::Gone),
                };
            }
            Err(error)
                if matches!(
                    error.code(),
                    Some(
                        failure::QUERY_PLAN_KILLED
                            | failure::NAMESPACE_NOT_FOUND
                            | failure::COLLECTION_UUID_MISMATCH
                            | failure::CURSOR_NOT_FOUND
                    )
                ) =>
            {
                // Dropped, renamed, or only a lost cursor: the UUID tells.
                let now = source_time(ctx).await?;
                match read::locate(&ctx.source, collection.uuid, now).await? {
                    Some(found) => name = found,
                    None => return Ok(Outcome::Gone),
                }
            }
            Err(error) => return Err(error.context(format!("reading {name}"))),
        }
    }
}

async fn read_from(
    ctx: &Context,
    collection: &Collection,
    partition: &PartitionRecord,
    name: &Namespace,
    last: &mut Option<Vec<u8>>,
    sender: &mpsc::Sender<Message>,
) -> Result<()> {
    let (read_time, average) = {
        let record = collection.record();
        (record.read_time, record.bytes.checked_div(record.documents.max(1)).unwrap_or(0).max(64))
    };
    let limit = ctx.config.limits.bytes_per_second;
    // A slow limit gets small batches, so that progress is smooth and a stop is quick.
    let batch_bytes = if limit == 0 {
        BATCH_BYTES
    } else {
        i64::try_from(limit / 4).unwrap_or(BATCH_BYTES).clamp(64 << 10, BATCH_BYTES)
    };
    let batch_size = (batch_bytes / average).clamp(1, BATCH_DOCUMENTS);
    let mut command = doc! {
        "find": &name.coll,
        "collectionUUID": collection.uuid,
        "hint": if collection.is_capped() { doc! {"$natural": 1} } else { doc! {"_id": 1} },
        "batchSize": batch_size,
        "readConcern": {"level": "majority"},
    };
    if let Some(read_time) = read_time
        && let Some(Ok(concern)) =
            command.get_mut("readConcern").map(|concern| concern.as_document_mut().ok_or(()))
    {
        concern.insert("afterClusterTime", read_time);
    }
    let from = last.as_deref().or(partition.lower.as_ref().map(|lower| lower.bytes.as_slice()));
    let upper = partition.upper.as_ref().map(|upper| upper.bytes.as_slice());
    let raw_command = bounded(&command, from, upper)?;
    let fetch = Fetch { await_time: None, batch_size: u32::try_from(batch_size).ok() };
    let mut cursor = ctx.source.cursor(&name.db, raw_command, fetch).await?;
    let mut resumed = last.clone();
    loop {
        // Not ahead of the writer by more than one batch.
        let Ok(place) = sender.reserve().await else {
            return Err(Error::new(Reason::Interrupted, "the writer of a partition ended"));
        };
        let asked = Instant::now();
        let Some(batch) = cursor.next().await? else { break };
        ctx.progress.read_micros.set(u64::try_from(asked.elapsed().as_micros()).unwrap_or(0));
        ctx.progress.documents_read.add(batch.documents().len() as u64);
        ctx.progress.bytes_read.add(batch.bytes().len() as u64);
        if let Some(time) = batch.operation_time() {
            ctx.progress.update_times(|times| times.read = times.read.max(Some(time)));
        }
        let Some(final_id) = batch.documents().next_back().and_then(raw::id_document) else { continue };
        // `min` is inclusive: the document that we stopped at comes again.
        let skip = match resumed.take() {
            Some(seen) => usize::from(
                batch
                    .documents()
                    .next()
                    .and_then(raw::id_document)
                    .is_some_and(|id| id.as_bytes() == seen.as_slice()),
            ),
            None => 0,
        };
        *last = Some(final_id.as_bytes().to_vec());
        let bytes = batch.bytes().len() as u64;
        ctx.throttle.take(bytes).await;
        let reservation = ctx.budgets.clone.reserve(bytes).await;
        let last = batch.is_last();
        let chunk = Chunk { batch, skip, last, _reservation: reservation };
        place.send(Message::Chunk(chunk));
        if last {
            break;
        }
    }
    Ok(())
}

/// With what was encoded before it came here: `min` (inclusive) and `max` (exclusive).
fn bounded(command: &Document, min: Option<&[u8]>, max: Option<&[u8]>) -> Result<RawDocumentBuf> {
    let command = RawDocumentBuf::try_from(command)
        .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))?;
    let mut writer = raw::Writer::continuing(command.as_bytes());
    for (name, bound) in [("min", min), ("max", max)] {
        if let Some(bound) = bound {
            writer.document(name, bound);
        }
    }
    Ok(writer.finish())
}
