//! A lane: an ordered queue of one hash slot of document keys. Its next batch fills while its last is in flight
//! and goes the moment the lane is free: no timers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::bson::{Document, Timestamp, doc};
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::Instant;

use super::batch::{self, Plan, plan};
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
use crate::sync::state::transaction::{Durability, WriteError, write_error, write_failure};

/// What one transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capacity {
    changes: usize,
    bytes: usize,
}

/// Of one collection: beyond this the gain is small, an abort costs more, and so does the memory.
const BATCH: Capacity = Capacity { changes: 2_000, bytes: 1 << 20 };

/// Of large changes, which are not worth a transaction a handful at a time.
const FEW: Capacity = Capacity { changes: 64, bytes: 2 << 20 };

/// What each further collection adds to that: it takes commands of its own, which should not be small.
const OF_EACH_COLLECTION: Capacity = Capacity { changes: 120, bytes: 32 << 10 };

/// Over however many collections.
const MOST: Capacity = Capacity { changes: 8_000, bytes: 4 << 20 };

/// Documents that were read again and are remembered one by one; they are looked at before each batch.
const REMEMBERED: usize = 50_000;

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
    /// What an earlier run read again, this one does not know by name: everything up to then may be a replay.
    replay_until: Option<Timestamp>,
    /// The newest of both, durable with each batch.
    read_until: Option<Timestamp>,
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
    let worker = Worker {
        ctx: ctx.clone(),
        slot,
        seq,
        receiver,
        watermark,
        numbers,
        reread: HashMap::new(),
        replay_until: record.replay_until,
        read_until: record.replay_until,
    };
    Ok((lane, worker))
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
            let writers = Arc::clone(&self.ctx.writers);
            let mut turn = writers.turn().await;
            while queue.len() < MOST.changes {
                match self.receiver.try_recv() {
                    Ok(changes) => queue.extend(changes),
                    Err(_) => break,
                }
            }
            let mut batch = take(&mut queue);
            if batch.iter().any(|change| matches!(change.write, Write::Reread)) {
                // What is read is the source's: others write meanwhile.
                drop(turn.take());
                for change in self.read_again(&mut batch).await?.into_iter().rev() {
                    queue.push_front(change);
                }
                turn = writers.turn().await;
            }
            self.apply(batch, turn).await?;
        }
    }

    /// Apply a batch. What does not go as one transaction, since its collection is capped or the server refuses a document,
    /// goes beside the lanes whose `turn` it is: it may wait for more than the target.
    async fn apply(&mut self, mut changes: Vec<Change>, turn: Option<SemaphorePermit<'_>>) -> Result<()> {
        let mut turn = turn;
        let began = Instant::now();
        let taken = changes.len();
        self.mark_replays(&mut changes);
        let position = changes.last().map(|change| String::from_utf8_lossy(change.token.get()).into_owned());
        let position = position.unwrap_or_default();
        let newest = changes.last().map(|change| change.time);
        let bytes: usize = changes.iter().map(|change| change.write.len()).sum();
        self.ctx.pace.write(taken, bytes).await;
        let _writing = self.ctx.budgets.write.reserve(bytes as u64 * COPIES).await;
        let settled = Settled::of(&changes);
        if changes.first().is_some_and(|change| change.collection.is_capped()) {
            drop(turn.take());
            self.write_in_order(changes, began).await?;
            changes = Vec::new();
        }
        loop {
            let mut plan = plan(&changes);
            let outcome = {
                let set = doc! {
                    "position": &position,
                    "replayUntil": self.read_until.filter(|until| newest.is_none_or(|newest| newest <= *until)),
                };
                let mut operations = Some(std::mem::take(&mut plan.operations));
                let met = |replies: &[Document]| check_met(&plan, replies, &changes);
                let make = || operations.take().unwrap_or_else(|| batch::plan(&changes).operations);
                self.slot.commit(set, Document::new(), make, Durability::Primary, &met).await
            };
            match outcome {
                Ok(()) => break,
                Err(Refusal::Engine(error)) => return Err(error),
                Err(Refusal::Document { operation, error }) => {
                    drop(turn.take());
                    let refused =
                        plan.statements.get(operation).and_then(|numbers| numbers.get(error.index)).copied();
                    let refused = refused.ok_or_else(|| write_failure("a batch", &error))?;
                    self.mend(&mut changes, refused, &error, began).await?;
                }
            }
        }
        self.seq.store(self.slot.seq(), Ordering::Release);
        self.numbers.add(taken, began.elapsed());
        self.settle(settled, taken);
        Ok(())
    }

    /// Changes of a capped collection, one after the other and outside of a transaction, which it does not allow. If
    /// this is interrupted the collection is copied again.
    async fn write_in_order(&mut self, mut changes: Vec<Change>, began: Instant) -> Result<()> {
        'again: while !changes.is_empty() {
            let plan = plan(&changes);
            self.ctx.store.prove().await?;
            for (number, operation) in plan.operations.iter().enumerate() {
                let reply = self.ctx.target.raw_command(&operation.db, operation.for_majority()).await?;
                if let Some(error) = write_error(&reply) {
                    let refused = plan.statements[number].get(error.index).copied();
                    let refused = refused.ok_or_else(|| write_failure("a batch", &error))?;
                    self.mend(&mut changes, refused, &error, began).await?;
                    // What came before it is done.
                    changes.drain(..refused);
                    continue 'again;
                }
                if plan.strict[number] {
                    check_count(&reply, &plan.statements[number], &changes)?;
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// Fetch the documents of which an event says only that they changed; returns those changes that a batch has no room
    /// for any more.
    async fn read_again(&mut self, changes: &mut Vec<Change>) -> Result<Vec<Change>> {
        let (mut bytes, mut read) = (0, false);
        let capacity = Capacity::of(collections(changes));
        for at in 0..changes.len() {
            let change = &mut changes[at];
            if matches!(change.write, Write::Reread) {
                let (document, as_of) =
                    reread(&self.ctx, &change.collection, change.key.get(), change.time).await?;
                change.write = put_or_delete(document);
                change.replay = true;
                let hash = change.hash;
                self.remember(hash, as_of);
                read = true;
            }
            bytes += changes[at].write.len();
            if read && !capacity.admits(at, bytes) {
                return Ok(changes.split_off(at + 1));
            }
        }
        Ok(Vec::new())
    }

    /// A document was read as of a time: older changes of it are replays; of all documents, where these are too many to be
    /// told apart.
    fn remember(&mut self, hash: u64, as_of: Timestamp) {
        self.reread.insert(hash, as_of);
        self.read_until = self.read_until.max(Some(as_of));
        if self.reread.len() > REMEMBERED {
            self.replay_until = self.read_until;
            self.reread.clear();
        }
    }

    /// Mark the changes that a document read again already holds.
    fn mark_replays(&mut self, changes: &mut [Change]) {
        let oldest = changes.first().map(|change| change.time);
        self.replay_until = self.replay_until.filter(|until| oldest.is_none_or(|oldest| oldest <= *until));
        if self.reread.is_empty() && self.replay_until.is_none() {
            return;
        }
        self.reread.retain(|_, as_of| oldest.is_none_or(|oldest| *as_of >= oldest));
        for change in changes {
            let read = self.reread.get(&change.hash).copied().max(self.replay_until);
            if read.is_some_and(|as_of| change.time <= as_of) {
                change.replay = true;
            }
        }
    }

    /// Inside a replay window, read the refused document again; outside it, stop. Where an index refuses a document that
    /// the source accepts, the index goes until completion.
    async fn mend(
        &mut self,
        changes: &mut Vec<Change>,
        refused: usize,
        error: &WriteError,
        began: Instant,
    ) -> Result<()> {
        let change = &changes[refused];
        let namespace = change.collection.target().to_string();
        let put = matches!(change.write, Write::Put(_));
        if failure::IS_OF_AN_INDEX.contains(&error.code) && (put || !change.replay) {
            let gave_way = self.ctx.builder.give_way(&change.collection, error, began).await?;
            if gave_way {
                return Ok(());
            }
        }
        if error.code == failure::IMMUTABLE_FIELD && (put || change.replay) && !change.collection.is_capped()
        {
            // The ids differ in bytes and are equal under the collation: the old document goes first.
            let deleted = Change { write: Write::Delete, replay: true, ..change.clone() };
            changes.insert(refused, deleted);
            return Ok(());
        }
        if !change.replay || put {
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
        changes[refused].write = put_or_delete(document);
        self.remember(hash, as_of);
        for later in &mut changes[refused + 1..] {
            if later.hash == hash && later.time <= as_of {
                later.replay = true;
            }
        }
        Ok(())
    }

    /// Tell who waits that these changes are on the target.
    fn settle(&self, settled: Settled, changes: usize) {
        for (batch, count) in settled.by_batch {
            self.watermark.complete(batch, count);
        }
        for (collection, count) in settled.by_collection {
            collection.remove_pending(count);
        }
        self.ctx.progress.events_applied.add(changes as u64);
    }
}

/// What a batch settles once it is committed.
struct Settled {
    by_batch: Vec<(u64, usize)>,
    by_collection: Vec<(Arc<Collection>, usize)>,
}

impl Settled {
    fn of(changes: &[Change]) -> Self {
        let mut by_batch: Vec<(u64, usize)> = Vec::new();
        let mut by_collection: Vec<(Arc<Collection>, usize)> = Vec::new();
        for change in changes {
            match by_batch.last_mut() {
                Some((batch, count)) if *batch == change.batch => *count += 1,
                _ => by_batch.push((change.batch, 1)),
            }
            match by_collection.last_mut() {
                Some((collection, count)) if Arc::ptr_eq(collection, &change.collection) => *count += 1,
                _ => by_collection.push((Arc::clone(&change.collection), 1)),
            }
        }
        Self { by_batch, by_collection }
    }
}

fn put_or_delete(document: Option<Vec<u8>>) -> Write {
    document.map_or(Write::Delete, |document| Write::Put(Bytes::Owned(document.into())))
}

/// The next batch: changes of a capped collection are not mixed with others.
fn take(queue: &mut VecDeque<Change>) -> Vec<Change> {
    let (mut bytes, mut count) = (0, 0);
    let mut collections: HashSet<*const Collection> = HashSet::new();
    let capped = |change: &Change| change.collection.is_capped().then_some(change.collection.uuid);
    let first = queue.front().and_then(capped);
    for change in queue.iter() {
        bytes += change.write.len();
        let capacity = Capacity::of(collections.len());
        if count > 0 && (!capacity.admits(count, bytes) || capped(change) != first) {
            break;
        }
        collections.insert(Arc::as_ptr(&change.collection));
        count += 1;
    }
    queue.drain(..count).collect()
}

/// Of how many collections.
fn collections(changes: &[Change]) -> usize {
    changes.iter().map(|change| Arc::as_ptr(&change.collection)).collect::<HashSet<_>>().len()
}

impl Capacity {
    /// In a transaction of so many collections.
    fn of(collections: usize) -> Self {
        let further = collections.saturating_sub(1);
        Self {
            changes: MOST.changes.min(BATCH.changes + further * OF_EACH_COLLECTION.changes),
            bytes: MOST.bytes.min(BATCH.bytes + further * OF_EACH_COLLECTION.bytes),
        }
    }

    /// One more change, beside `count` others, that makes `bytes` of them all.
    fn admits(self, count: usize, bytes: usize) -> bool {
        let few = count < FEW.changes && bytes <= FEW.bytes;
        count < self.changes && (bytes <= self.bytes || few)
    }
}

/// Outside a replay window every statement must meet its document; the server's count proves it.
fn check_met(plan: &Plan, replies: &[Document], changes: &[Change]) -> Result<()> {
    for ((reply, statements), strict) in replies.iter().zip(&plan.statements).zip(&plan.strict) {
        if *strict {
            check_count(reply, statements, changes)?;
        }
    }
    Ok(())
}

fn check_count(reply: &Document, statements: &[usize], changes: &[Change]) -> Result<()> {
    let met = reply.get_i32("n").unwrap_or(0);
    if usize::try_from(met).ok() == Some(statements.len()) {
        return Ok(());
    }
    let namespace = statements.first().map(|&number| changes[number].collection.target().to_string());
    Err(Error::new(
        Reason::TargetDiverged,
        format!(
            "{met} of {} documents that the source changed were found in the target's {}",
            statements.len(),
            namespace.unwrap_or_default()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_large_changes_may_have_more_bytes_than_many_small_ones() {
        let one = Capacity::of(1);
        assert!(one.admits(BATCH.changes - 1, BATCH.bytes) && !one.admits(BATCH.changes, BATCH.bytes));
        assert!(one.admits(FEW.changes - 1, FEW.bytes) && !one.admits(FEW.changes, BATCH.bytes + 1));
        assert!(!one.admits(1, FEW.bytes + 1));
    }

    #[test]
    fn more_collections_have_more_room_up_to_a_bound() {
        assert!(Capacity::of(50).admits(BATCH.changes, BATCH.bytes + 1));
        assert_eq!(Capacity::of(0), BATCH);
        assert_eq!(Capacity::of(1_000), MOST);
    }
}
