//! Shared workers: which syncs run in this process, started and stopped here and nowhere else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::resource::{Asked, Material};
use crate::sync::{Desired, Handle, Report, SyncConfig, lifecycle};

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

/// The syncs of this process.
#[derive(Default)]
pub struct Launcher {
    entries: Mutex<HashMap<Key, Entry>>,
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
        let (desired, wish) = watch::channel(subject.asked.desired.clone());
        let handle = lifecycle::spawn(config.clone(), wish);
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
            entry.publisher =
                tokio::spawn(publisher().run(entry.subject.subscribe(), entry.stop_publisher.clone()));
        }
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
        let entry = self.lock().remove(key);
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
