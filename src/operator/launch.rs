//! Shared workers: which syncs run in this process, started and stopped here and nowhere else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::resource::{Asked, Material};
use crate::sync::{Desired, Handle, Report, Share, SyncConfig, lifecycle};

use super::decide::WorkerState;
use super::publish::{Publisher, Subject, SubjectState};

/// A publisher's last write may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// A resource, told apart from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// Between two starts: a hundred syncs that begin at one moment would all connect at once.
const STAGGER: Duration = Duration::from_millis(50);

/// The syncs of this process.
pub struct Launcher {
    entries: Mutex<HashMap<Key, Entry>>,
    share: Share,
    /// When the next worker may start.
    next_start: tokio::sync::Mutex<Instant>,
    /// How many resources have a status here.
    crowd: Arc<AtomicUsize>,
}

struct Entry {
    subject: watch::Sender<Subject>,
    publisher: JoinHandle<()>,
    stop_publisher: CancellationToken,
    worker: Option<Worker>,
}

struct Worker {
    handle: Handle,
    desired: watch::Sender<Desired>,
    material: Material,
    config: SyncConfig,
}

impl Launcher {
    /// None yet; `share` bounds all of them together.
    pub fn new(share: Share) -> Self {
        Self {
            entries: Mutex::default(),
            share,
            next_start: tokio::sync::Mutex::new(Instant::now()),
            crowd: Arc::default(),
        }
    }

    /// What runs for a resource, compared with the present material (none where it cannot be told).
    pub fn state(&self, key: &Key, material: Option<&Material>) -> WorkerState {
        let entries = self.lock();
        match entries.get(key).and_then(|entry| entry.worker.as_ref()) {
            None => WorkerState::Absent,
            Some(worker) if worker.handle.is_finished() => WorkerState::Ended,
            Some(worker) if Some(&worker.material) == material => WorkerState::Current,
            Some(_) => WorkerState::Outdated,
        }
    }

    /// How often a resource's worker was started again, if its status is published here.
    pub fn restarts(&self, key: &Key) -> Option<i64> {
        let entries = self.lock();
        let entry = entries.get(key)?;
        entry.worker.as_ref()?;
        Some(entry.subject.borrow().restarts)
    }

    /// Start a worker, in place of the present one if there is one. `subject` is what the status says of it;
    /// its state is overwritten by the new worker's report.
    pub async fn start(
        &self,
        key: &Key,
        config: SyncConfig,
        material: Material,
        subject: Subject,
        publisher: impl FnOnce() -> Publisher,
    ) {
        self.stop_worker(key).await;
        self.take_turn().await;
        let (desired, wish) = watch::channel(subject.asked.desired.clone());
        let handle = lifecycle::spawn(config.clone(), wish, &self.share);
        let state = SubjectState::Running(handle.report.clone());
        self.publish(key, Subject { state, ..subject }, publisher);
        let worker = Worker { handle, desired, material, config };
        let orphan = match self.lock().get_mut(key) {
            Some(entry) => entry.worker.replace(worker),
            None => Some(worker),
        };
        // Not seen: starts of one resource come one after the other.
        if let Some(orphan) = orphan {
            orphan.handle.stop().await;
        }
    }

    async fn take_turn(&self) {
        let mut next = self.next_start.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + STAGGER;
    }

    /// Pass on what the user wants now, to the worker and to the status.
    pub fn steer(
        &self,
        key: &Key,
        generation: i64,
        resource_version: &str,
        asked: &Asked,
        notice: Option<String>,
    ) {
        let entries = self.lock();
        let Some(entry) = entries.get(key) else { return };
        if let Some(worker) = &entry.worker {
            worker.desired.send_if_modified(|wish| {
                let differs = *wish != asked.desired;
                wish.clone_from(&asked.desired);
                differs
            });
        }
        entry.subject.send_if_modified(|subject| {
            let differs =
                (subject.generation, &subject.asked, &subject.notice) != (generation, asked, &notice);
            subject.generation = generation;
            resource_version.clone_into(&mut subject.resource_version);
            subject.asked.clone_from(asked);
            subject.notice = notice;
            differs
        });
    }

    /// Publish the status of a resource; its worker is not touched.
    pub fn publish(&self, key: &Key, subject: Subject, publisher: impl FnOnce() -> Publisher) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(key) {
            entry.subject.send_replace(subject);
            if !entry.publisher.is_finished() {
                return;
            }
        } else {
            let (sender, _) = watch::channel(subject);
            let entry = Entry {
                subject: sender,
                publisher: tokio::spawn(async {}),
                stop_publisher: CancellationToken::new(),
                worker: None,
            };
            entries.insert(key.clone(), entry);
        }
        if let Some(entry) = entries.get_mut(key) {
            entry.stop_publisher = CancellationToken::new();
            let (subject, stop) = (entry.subject.subscribe(), entry.stop_publisher.clone());
            entry.publisher = tokio::spawn(publisher().run(subject, stop, self.crowd.clone()));
        }
        self.crowd.store(entries.len(), Ordering::Relaxed);
    }

    /// Stop a resource's worker, if it has one; its status goes on being published. Returns the
    /// configuration that it ran with.
    pub async fn stop_worker(&self, key: &Key) -> Option<SyncConfig> {
        let worker = self.lock().get_mut(key)?.worker.take()?;
        worker.handle.stop().await;
        Some(worker.config)
    }

    /// Stop everything about a resource.
    pub async fn forget(&self, key: &Key) {
        let entry = {
            let mut entries = self.lock();
            let entry = entries.remove(key);
            self.crowd.store(entries.len(), Ordering::Relaxed);
            entry
        };
        if let Some(entry) = entry {
            entry.end(&CancellationToken::new()).await;
        }
    }

    /// Stop every sync, at the same time; the status is written once more where `last_words` says so.
    pub async fn stop_all(&self, last_words: bool) {
        let entries: Vec<Entry> = self.lock().drain().map(|(_, entry)| entry).collect();
        let silent = CancellationToken::new();
        if !last_words {
            silent.cancel();
        }
        join_all(entries.into_iter().map(|entry| entry.end(&silent))).await;
    }

    /// The resources that have an entry here.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// The resources whose worker ended without being told to.
    pub fn ended(&self) -> Vec<Key> {
        let entries = self.lock();
        let ended = entries.iter().filter(|(_, e)| e.worker.as_ref().is_some_and(|w| w.handle.is_finished()));
        ended.map(|(key, _)| key.clone()).collect()
    }

    /// The reports of all syncs, for metrics.
    pub fn reports(&self) -> Vec<(Key, Report)> {
        let entries = self.lock();
        let reports = entries.iter().filter_map(|(key, entry)| {
            let worker = entry.worker.as_ref()?;
            Some((key.clone(), worker.handle.report.borrow().clone()))
        });
        reports.collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        // Nothing that holds the lock can leave the map half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    async fn end(self, silent: &CancellationToken) {
        let Self { subject, mut publisher, stop_publisher, worker } = self;
        if silent.is_cancelled() {
            publisher.abort();
        }
        if let Some(worker) = worker {
            worker.handle.stop().await;
        }
        stop_publisher.cancel();
        if timeout(LAST_WRITE, &mut publisher).await.is_err() {
            publisher.abort();
        }
        drop(subject);
    }
}
