//! The live numbers of one run, from which reports are made. Counting is lock-free.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::Timestamp;

use super::catalog::Catalog;
use super::report::{CollectionProgress, ThrottlingReport};

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
    /// Documents that the clone read.
    pub documents_read: Counter,
    /// Bytes that the clone read.
    pub bytes_read: Counter,
    /// How long the clone's last batch took to read, in microseconds.
    pub read_micros: Counter,
    /// How long the clone's last batch took to write, in microseconds.
    pub write_micros: Counter,
    times: Mutex<Times>,
    catalog: Mutex<Option<Arc<Catalog>>>,
    lanes: Mutex<Vec<Arc<LaneNumbers>>>,
    warnings: Mutex<BTreeSet<String>>,
    throttling: Mutex<Option<ThrottlingReport>>,
}

/// Upper bounds of the histogram of a lane's batches, in changes.
pub const BATCH_BOUNDS: [u64; 8] = [1, 5, 10, 50, 100, 500, 1_000, 2_000];

/// Upper bounds of the histogram of how long they took, in milliseconds.
pub const MILLIS_BOUNDS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000];

/// What one lane did in this process.
#[derive(Debug, Default)]
pub struct LaneNumbers {
    /// Changes handed to it.
    pub queued: Counter,
    /// Changes that it applied.
    pub applied: Counter,
    /// Microseconds that its batches took.
    pub micros: Counter,
    /// Batches with at most as many changes as [`BATCH_BOUNDS`] says; the last counts all.
    pub batches: [Counter; BATCH_BOUNDS.len() + 1],
    /// Batches that took at most as long as [`MILLIS_BOUNDS`] says; the last counts all.
    pub durations: [Counter; MILLIS_BOUNDS.len() + 1],
}

impl LaneNumbers {
    /// Count a batch.
    pub fn add(&self, changes: usize, took: Duration) {
        let changes = changes as u64;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.applied.add(changes);
        self.micros.add(micros);
        let bounds = BATCH_BOUNDS.iter().chain([&u64::MAX]);
        self.batches
            .iter()
            .zip(bounds)
            .filter(|(_, bound)| changes <= **bound)
            .for_each(|(one, _)| one.add(1));
        let bounds = MILLIS_BOUNDS.iter().map(|millis| millis * 1000).chain([u64::MAX]);
        self.durations
            .iter()
            .zip(bounds)
            .filter(|(_, bound)| micros <= *bound)
            .for_each(|(one, _)| one.add(1));
    }
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
    /// The newest time that the clone's reads saw.
    pub read: Option<Timestamp>,
    /// The source's newest majority-committed write.
    pub source: Option<Timestamp>,
    /// Seconds that the source's oplog holds.
    pub oplog_window_seconds: Option<i64>,
}

impl Progress {
    /// The collections of the present run.
    pub fn follow(&self, catalog: &Arc<Catalog>) {
        *self.catalog.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(catalog));
    }

    /// How far each collection is, by name.
    pub fn collections(&self) -> Vec<CollectionProgress> {
        let catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner).clone();
        catalog.map_or_else(Vec::new, |catalog| catalog.all().iter().map(|one| one.progress()).collect())
    }

    /// What a user should know, found out while running. Said once in the log, and kept in the report.
    pub fn warn(&self, warning: &str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.insert(warning.to_owned()) {
            tracing::warn!("{warning}");
        }
    }

    /// What [`warn`](Self::warn) was told.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Say what slows the sync down, or that nothing does.
    pub fn throttle(&self, throttling: Option<ThrottlingReport>) {
        *self.throttling.lock().unwrap_or_else(PoisonError::into_inner) = throttling;
    }

    /// What [`throttle`](Self::throttle) was told.
    pub fn throttling(&self) -> Option<ThrottlingReport> {
        self.throttling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The numbers of a lane; they go on over the runs of this process.
    pub fn lane(&self, number: usize) -> Arc<LaneNumbers> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        while lanes.len() <= number {
            lanes.push(Arc::default());
        }
        Arc::clone(&lanes[number])
    }

    /// The numbers of all lanes.
    pub fn lanes(&self) -> Vec<Arc<LaneNumbers>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

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
