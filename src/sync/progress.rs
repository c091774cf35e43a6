//! The live numbers of one run, from which reports are made. Counting is lock-free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mongodb::bson::Timestamp;

/// Shared by everything that runs for a sync.
#[derive(Debug, Default)]
pub struct Progress {
    /// Collections in scope when the clone was planned.
    pub collections_total: Counter,
    /// Collections copied.
    pub collections_done: Counter,
    /// Partitions planned.
    pub partitions_total: Counter,
    /// Partitions copied, over all runs.
    pub partitions_done: Counter,
    /// Partitions copied by this process.
    pub partitions_copied: Counter,
    /// Documents on the target, over all runs.
    pub documents: Counter,
    /// Documents expected.
    pub documents_total: Counter,
    /// Bytes on the target, over all runs.
    pub bytes: Counter,
    /// Bytes expected.
    pub bytes_total: Counter,
    /// Documents copied by this process.
    pub documents_copied: Counter,
    /// Bytes copied by this process.
    pub bytes_copied: Counter,
    /// Events read by this process.
    pub events_read: Counter,
    /// Events applied by this process.
    pub events_applied: Counter,
    /// Bytes held in queues.
    pub queued_bytes: Counter,
    times: Mutex<Times>,
}

/// Times in the source's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Everything up to here is applied.
    pub applied: Option<Timestamp>,
    /// Everything up to here is durable.
    pub checkpoint: Option<Timestamp>,
    /// The newest event that was read.
    pub seen: Option<Timestamp>,
    /// The source's newest majority-committed write.
    pub source: Option<Timestamp>,
    /// Seconds that the source's oplog holds.
    pub oplog_window_seconds: Option<i64>,
}

impl Progress {
    /// The times as they are.
    pub fn times(&self) -> Times {
        *self.guard()
    }

    /// Change the times.
    pub fn update_times(&self, change: impl FnOnce(&mut Times)) {
        change(&mut self.guard());
    }

    fn guard(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget what belongs to one attempt: the clone's sums are read again from the durable state.
    pub fn restart(&self) {
        for counter in [
            &self.collections_total,
            &self.collections_done,
            &self.partitions_total,
            &self.partitions_done,
            &self.documents,
            &self.documents_total,
            &self.bytes,
            &self.bytes_total,
        ] {
            counter.set(0);
        }
        self.update_times(|times| times.applied = None);
    }
}

/// A number that many tasks add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Add.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replace.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Read.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far the target is behind, in seconds: 0 when nothing is missing.
pub fn lag_seconds(times: Times) -> Option<i64> {
    let (applied, source) = (times.applied?, times.source?);
    Some(if applied >= source { 0 } else { i64::from(source.time) - i64::from(applied.time) })
}
