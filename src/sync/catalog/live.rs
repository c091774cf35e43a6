//! The catalogue of a running sync: the durable records, by UUID, with what only this process knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mongodb::bson::{Timestamp, Uuid};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::options;
use crate::sync::namespace::Namespace;
use crate::sync::report::CollectionProgress;
use crate::sync::state::{CollectionRecord, CollectionState, ViewRecord};

/// One collection in scope.
#[derive(Debug)]
pub struct Collection {
    /// The source's UUID.
    pub uuid: Uuid,
    record: RwLock<CollectionRecord>,
    pending: AtomicUsize,
    idle: Notify,
    gone: Mutex<Option<Timestamp>>,
    capped: AtomicBool,
    collated: AtomicBool,
    announced: AtomicBool,
    copied: Mutex<Copied>,
}

/// What of a collection is on the target.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    documents: u64,
    bytes: u64,
    /// What this process copied, and since when.
    own_bytes: u64,
    since: Option<Instant>,
}

impl Collection {
    fn new(record: CollectionRecord) -> Self {
        let options = &record.options.bytes;
        Self {
            uuid: record.uuid,
            capped: AtomicBool::new(options::is_capped(options)),
            collated: AtomicBool::new(options::is_collated(options)),
            record: RwLock::new(record),
            announced: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            idle: Notify::new(),
            gone: Mutex::default(),
            copied: Mutex::default(),
        }
    }

    fn copied(&self) -> MutexGuard<'_, Copied> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count what earlier runs copied.
    pub fn found(&self, documents: u64, bytes: u64) {
        let mut copied = self.copied();
        copied.documents += documents;
        copied.bytes += bytes;
    }

    /// Count what this run copied.
    pub fn add_copied(&self, documents: u64, bytes: u64) {
        let mut copied = self.copied();
        copied.documents += documents;
        copied.bytes += bytes;
        copied.own_bytes += bytes;
        copied.since.get_or_insert_with(Instant::now);
    }

    /// How far its clone is.
    pub fn progress(&self) -> CollectionProgress {
        let copied = *self.copied();
        let record = self.record();
        let number = |wide: i64| u64::try_from(wide).unwrap_or(0);
        let millis = copied.since.map_or(0, |since| u64::try_from(since.elapsed().as_millis()).unwrap_or(0));
        let (state, rate) = match record.state {
            CollectionState::Pending | CollectionState::Creating => ("Pending", 0),
            CollectionState::Cloning => ("Cloning", copied.own_bytes.saturating_mul(1000) / millis.max(1)),
            CollectionState::Cloned => ("Cloned", 0),
        };
        CollectionProgress {
            namespace: record.target.clone(),
            state,
            documents: copied.documents,
            documents_total: number(record.documents).max(copied.documents),
            bytes: copied.bytes,
            bytes_total: number(record.bytes).max(copied.bytes),
            bytes_per_second: rate,
        }
    }

    /// Its durable record, as last written.
    pub fn record(&self) -> RwLockReadGuard<'_, CollectionRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Change the record after the durable one was changed.
    pub fn set(&self, record: CollectionRecord) {
        self.capped.store(options::is_capped(&record.options.bytes), Ordering::Relaxed);
        self.collated.store(options::is_collated(&record.options.bytes), Ordering::Relaxed);
        let mut guard: RwLockWriteGuard<'_, CollectionRecord> =
            self.record.write().unwrap_or_else(PoisonError::into_inner);
        *guard = record;
        self.announced.store(false, Ordering::Relaxed);
    }

    /// The durable record says `Creating` already, and is the same otherwise.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
    }

    /// Whether it was announced, and its record not changed since.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    /// Whether it keeps insertion order, and no transaction can write to it.
    pub fn is_capped(&self) -> bool {
        self.capped.load(Ordering::Relaxed)
    }

    /// Whether strings that differ in bytes may be one `_id`.
    pub fn is_collated(&self) -> bool {
        self.collated.load(Ordering::Relaxed)
    }

    /// Name on the target.
    pub fn target(&self) -> Namespace {
        self.record().target_namespace()
    }

    /// How far it has come.
    pub fn state(&self) -> CollectionState {
        self.record().state
    }

    /// Whether an event at `time` may already be in what was cloned.
    pub fn in_replay_window(&self, time: Timestamp) -> bool {
        self.record().clone_end.is_some_and(|end| time <= end)
    }

    /// Whether events that may already be in what was cloned come after `time`.
    pub fn is_catching_up(&self, time: Timestamp) -> bool {
        self.record().clone_end.is_some_and(|end| time < end)
    }

    /// The clone found that the source does not have it any more at `time`; its drop is still to come in the stream.
    pub fn mark_gone(&self, time: Timestamp) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
    }

    /// The time at which the source did not have it any more.
    pub fn gone_at(&self) -> Option<Timestamp> {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`mark_gone`](Self::mark_gone) was called.
    pub fn is_gone(&self) -> bool {
        self.gone_at().is_some()
    }

    /// Count events handed to lanes.
    pub fn add_pending(&self, events: usize) {
        self.pending.fetch_add(events, Ordering::AcqRel);
    }

    /// Count events that lanes have committed.
    pub fn remove_pending(&self, events: usize) {
        if self.pending.fetch_sub(events, Ordering::AcqRel) == events {
            self.idle.notify_waiters();
        }
    }

    /// The barrier: wait until lanes hold no event of this collection. Only the router adds events, and it waits
    /// here, so none can join.
    pub async fn drained(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.pending.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// All collections in scope.
#[derive(Debug, Default)]
pub struct Catalog {
    collections: Mutex<HashMap<Uuid, Arc<Collection>>>,
    views: Mutex<BTreeMap<String, ViewRecord>>,
    changed: Notify,
    /// Read while a collection begins or ends its clone, which several may do at a time; written while a DDL event is
    /// applied: the two must not interleave.
    pub ddl: tokio::sync::RwLock<()>,
}

impl Catalog {
    /// From the durable records.
    pub fn new(records: Vec<CollectionRecord>, views: Vec<ViewRecord>) -> Self {
        let catalog = Self::default();
        catalog.views().extend(views.into_iter().map(|view| (view.namespace.clone(), view)));
        for record in records {
            catalog.insert(record);
        }
        catalog
    }

    fn guard(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Collection>>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By UUID.
    pub fn get(&self, uuid: Uuid) -> Option<Arc<Collection>> {
        self.guard().get(&uuid).cloned()
    }

    /// Whether `collection` is what stands for its UUID: one that left the scope and came back is another.
    pub fn holds(&self, collection: &Arc<Collection>) -> bool {
        self.get(collection.uuid).is_some_and(|held| Arc::ptr_eq(&held, collection))
    }

    /// By its name on the target.
    pub fn by_target(&self, namespace: &Namespace) -> Option<Arc<Collection>> {
        self.guard().values().find(|collection| collection.target() == *namespace).cloned()
    }

    /// Whether a collection of the target is a copy.
    pub fn is_ours(&self, on_target: Uuid) -> bool {
        self.guard().values().any(|one| one.record().target_uuid == Some(on_target))
    }

    /// Whether a collection of the target is the copy of another than `collection`.
    pub fn is_of_another(&self, on_target: Uuid, collection: Uuid) -> bool {
        self.guard().values().any(|one| one.uuid != collection && one.record().target_uuid == Some(on_target))
    }

    /// Whether every collection is copied.
    pub fn is_copied(&self) -> bool {
        self.guard().values().all(|one| one.state() == CollectionState::Cloned)
    }

    /// Whether every collection is copied, and what was applied has reached the end of each copy.
    pub fn is_settled(&self, applied: Timestamp) -> bool {
        let settled = |one: &Arc<Collection>| {
            one.state() == CollectionState::Cloned && one.record().clone_end.is_none_or(|end| end <= applied)
        };
        self.guard().values().all(settled)
    }

    /// The views, by name.
    pub fn views(&self) -> MutexGuard<'_, BTreeMap<String, ViewRecord>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Add or replace.
    pub fn insert(&self, record: CollectionRecord) -> Arc<Collection> {
        let collection = Arc::new(Collection::new(record));
        self.guard().insert(collection.uuid, Arc::clone(&collection));
        self.changed.notify_waiters();
        collection
    }

    /// Forget.
    pub fn remove(&self, uuid: Uuid) {
        self.guard().remove(&uuid);
        self.changed.notify_waiters();
    }

    /// One that the source still has, and that can be looked into by `_id`.
    pub fn any_present(&self) -> Option<Arc<Collection>> {
        self.guard().values().find(|one| !one.is_gone() && !one.is_capped()).cloned()
    }

    /// All, by source name.
    pub fn all(&self) -> Vec<Arc<Collection>> {
        let mut all: Vec<_> = self.guard().values().cloned().collect();
        all.sort_by(|a, b| a.record().source.cmp(&b.record().source));
        all
    }

    /// Wake who waits for a collection's state.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Wait until `ready` holds; it is asked again at each change.
    pub async fn wait_until(&self, ready: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if ready() {
                return;
            }
            changed.await;
        }
    }
}
