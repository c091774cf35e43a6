//! A lane: an ordered queue of one hash slot of document keys. Its next batch fills while its last is in flight
//! and goes the moment the lane is free: no timers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::bson::{Document, Timestamp, doc};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::batch::{Plan, plan};
use super::reread::reread;
use super::watermark::Watermark;
use super::{Bytes, Change, Write};
use crate::sync::catalog::Collection;
use crate::sync::context::{COPIES, Context};
use crate::sync::endpoint::failure;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::progress::LaneNumbers;
use crate::sync::state::Refusal;
use crate::sync::state::slot::{LaneRecord, Slot};
use crate::sync::state::transaction::{Durability, WriteError, write_failure};

/// Changes in one transaction: beyond this the gain is small and an abort costs more.
const BATCH_CHANGES: usize = 2_000;

/// Bytes in one transaction.
const BATCH_BYTES: usize = 4 << 20;

/// What the rest of the engine knows of a lane.
#[derive(Debug)]
pub struct Lane {
    /// Where the router puts changes.
    pub sender: mpsc::UnboundedSender<Vec<Change>>,
    /// The slot's number after the last committed batch.
    pub seq: Arc<AtomicI64>,
    /// The slot's key.
    pub id: String,
    /// Events at or before this token were applied before this run.
    pub position: String,
    /// Its live numbers.
    pub numbers: Arc<LaneNumbers>,
}

/// The running side of a lane.
#[derive(Debug)]
pub struct Worker {
    ctx: Context,
    slot: Slot,
    seq: Arc<AtomicI64>,
    receiver: mpsc::UnboundedReceiver<Vec<Change>>,
    watermark: Arc<Watermark>,
    numbers: Arc<LaneNumbers>,
    /// Documents that were read again, and as of when: older changes of them are replays.
    reread: HashMap<u64, Timestamp>,
}

/// Open a lane at its durable position.
pub async fn open(ctx: &Context, record: &LaneRecord, watermark: Arc<Watermark>) -> Result<(Lane, Worker)> {
    let slot = Slot::open(&ctx.store, &record.id, record.seq).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let seq = Arc::new(AtomicI64::new(record.seq));
    let numbers = ctx.progress.lane(usize::try_from(record.number).unwrap_or(0));
    let lane = Lane {
        sender,
        seq: Arc::clone(&seq),
        id: record.id.clone(),
        position: record.position.clone(),
        numbers: Arc::clone(&numbers),
    };
    let reread = HashMap::new();
    Ok((lane, Worker { ctx: ctx.clone(), slot, seq, receiver, watermark, numbers, reread }))
}

impl Worker {
    /// Apply until the router is gone and the queue is empty.
    pub async fn run(mut self) -> Result<()> {
        let mut queue: VecDeque<Change> = VecDeque::new();
        loop {
            if queue.is_empty() {
                match self.receiver.recv().await {
                    Some(changes) => queue.extend(changes),
                    None => return Ok(()),
                }
            }
            while queue.len() < BATCH_CHANGES {
                match self.receiver.try_recv() {
                    Ok(changes) => queue.extend(changes),
                    Err(_) => break,
                }
            }
            let mut batch = take(&mut queue);
            self.apply(&mut batch).await?;
        }
    }

    async fn apply(&mut self, changes: &mut [Change]) -> Result<()> {
        let began = Instant::now();
        self.mark_replays(changes);
        let position = changes.last().map(|change| String::from_utf8_lossy(change.token.get()).into_owned());
        let set = doc! {"position": position.unwrap_or_default()};
        let bytes: usize = changes.iter().map(|change| change.write.len()).sum();
        let _writing = self.ctx.budgets.write.reserve(bytes as u64 * COPIES).await;
        loop {
            let plan = plan(changes);
            let outcome = {
                let met = |replies: &[Document]| check_met(&plan, replies, changes);
                self.slot
                    .commit(set.clone(), Document::new(), &plan.operations, Durability::Primary, &met)
                    .await
            };
            match outcome {
                Ok(()) => break,
                Err(Refusal::Engine(error)) => return Err(error),
                Err(Refusal::Document { operation, error }) => {
                    let refused =
                        plan.statements.get(operation).and_then(|numbers| numbers.get(error.index)).copied();
                    let refused = refused.ok_or_else(|| write_failure("a batch", &error))?;
                    self.mend(changes, refused, &error).await?;
                }
            }
        }
        self.seq.store(self.slot.seq(), Ordering::Release);
        self.numbers.add(changes.len(), began.elapsed());
        self.settle(changes);
        Ok(())
    }

    /// Mark the changes that a document read again already holds.
    fn mark_replays(&mut self, changes: &mut [Change]) {
        if self.reread.is_empty() {
            return;
        }
        let oldest = changes.first().map(|change| change.time);
        self.reread.retain(|_, as_of| oldest.is_none_or(|oldest| *as_of >= oldest));
        for change in changes {
            if self.reread.get(&change.hash).is_some_and(|as_of| change.time <= *as_of) {
                change.replay = true;
            }
        }
    }

    /// Inside a replay window, read the refused document again; outside it, stop.
    async fn mend(&mut self, changes: &mut [Change], refused: usize, error: &WriteError) -> Result<()> {
        let change = &changes[refused];
        let namespace = change.collection.target().to_string();
        if !change.replay || matches!(change.write, Write::Put(_)) {
            let failure = write_failure(&namespace, error);
            return Err(if error.code == failure::DUPLICATE_KEY {
                failure.as_reason(Reason::TargetDiverged)
            } else {
                failure
            });
        }
        tracing::debug!(
            namespace,
            code = error.code,
            "reading a document again: a replayed event does not fit"
        );
        let (document, as_of) = reread(&self.ctx, &change.collection, change.key.get(), change.time).await?;
        let hash = change.hash;
        changes[refused].write =
            document.map_or(Write::Delete, |document| Write::Put(Bytes::Owned(document.into())));
        self.reread.insert(hash, as_of);
        for later in &mut changes[refused + 1..] {
            if later.hash == hash && later.time <= as_of {
                later.replay = true;
            }
        }
        Ok(())
    }

    /// Tell who waits that these changes are on the target.
    fn settle(&self, changes: &[Change]) {
        let mut by_batch: Vec<(u64, usize)> = Vec::new();
        let mut by_collection: Vec<(&Arc<Collection>, usize)> = Vec::new();
        for change in changes {
            match by_batch.last_mut() {
                Some((batch, count)) if *batch == change.batch => *count += 1,
                _ => by_batch.push((change.batch, 1)),
            }
            match by_collection.last_mut() {
                Some((collection, count)) if Arc::ptr_eq(collection, &change.collection) => *count += 1,
                _ => by_collection.push((&change.collection, 1)),
            }
        }
        for (batch, count) in by_batch {
            self.watermark.complete(batch, count);
        }
        for (collection, count) in by_collection {
            collection.remove_pending(count);
        }
        self.ctx.progress.events_applied.add(changes.len() as u64);
    }
}

fn take(queue: &mut VecDeque<Change>) -> Vec<Change> {
    let (mut bytes, mut count) = (0, 0);
    for change in queue.iter().take(BATCH_CHANGES) {
        bytes += change.write.len();
        if count > 0 && bytes > BATCH_BYTES {
            break;
        }
        count += 1;
    }
    queue.drain(..count).collect()
}

/// Outside a replay window every statement must meet its document; the server's count proves it.
fn check_met(plan: &Plan, replies: &[Document], changes: &[Change]) -> Result<()> {
    for ((reply, statements), strict) in replies.iter().zip(&plan.statements).zip(&plan.strict) {
        let met = reply.get_i32("n").unwrap_or(0);
        if *strict && usize::try_from(met).ok() != Some(statements.len()) {
            let namespace = statements.first().map(|&number| changes[number].collection.target().to_string());
            return Err(Error::new(
                Reason::TargetDiverged,
                format!(
                    "{} of {} documents that the source changed were found in the target's {}",
                    met,
                    statements.len(),
                    namespace.unwrap_or_default()
                ),
            ));
        }
    }
    Ok(())
}
