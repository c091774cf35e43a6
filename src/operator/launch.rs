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
use tokio_util::task::TaskTracker;

use crate::api::ClusterSyncSpec;
use crate::resource::material::part_of;
use crate::resource::{Asked, Material, Unusable};
use crate::sync::{Desired, Handle, Phase, Report, Share, SyncConfig, lifecycle};

use super::decide::WorkerState;
use super::publish::{Publisher, Shared, Subject, SubjectState};

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
    book: Mutex<Book>,
    share: Share,
    /// When the next worker may start.
    next_start: tokio::sync::Mutex<Instant>,
    /// How many resources have a status here.
    crowd: Arc<AtomicUsize>,
    /// Workers that are being stopped, also when nobody waits for that any more.
    stopping: TaskTracker,
}

/// Which syncs there are.
#[derive(Default)]
struct Book {
    /// This process leads: outside of a term nothing is started or published.
    open: bool,
    entries: HashMap<Key, Entry>,
}

struct Entry {
    subject: watch::Sender<Subject>,
    publisher: JoinHandle<()>,
    stop_publisher: CancellationToken,
    /// The phase that is shown.
    phase: Arc<watch::Sender<Phase>>,
    worker: Option<Worker>,
}

struct Worker {
    handle: Handle,
    desired: watch::Sender<Desired>,
    plan: Plan,
}

/// What a worker is started from.
pub struct Plan {
    /// Its configuration.
    pub config: SyncConfig,
    /// What that was made from.
    pub material: Material,
    /// The spec that this was resolved from.
    pub spec: ClusterSyncSpec,
}

/// What changes about a resource while its worker runs.
#[derive(Clone, Debug)]
pub struct Course {
    /// The generation that the rest was read from.
    pub generation: i64,
    /// What the user wants.
    pub asked: Asked,
    /// A warning of the operator's own.
    pub notice: Option<String>,
    /// The worker runs as an earlier spec said, because of this.
    pub behind: Option<Unusable>,
}

impl Launcher {
    /// None yet; `share` bounds all of them together. Closed until [`open`](Self::open).
    pub fn new(share: Share) -> Self {
        Self {
            book: Mutex::default(),
            share,
            next_start: tokio::sync::Mutex::new(Instant::now()),
            crowd: Arc::default(),
            stopping: TaskTracker::new(),
        }
    }

    /// A term begins: from now on syncs may be started, until [`stop_all`](Self::stop_all).
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// What runs for a resource, compared with its spec and the present material (none where it cannot be told).
    pub fn state(&self, key: &Key, spec: &ClusterSyncSpec, material: Option<&Material>) -> WorkerState {
        let book = self.lock();
        let Some(worker) = book.entries.get(key).and_then(|entry| entry.worker.as_ref()) else {
            return WorkerState::Absent;
        };
        let current = material.map_or_else(
            || part_of(&worker.plan.spec) == part_of(spec),
            |material| worker.plan.material == *material,
        );
        match current {
            _ if worker.handle.is_finished() => WorkerState::Ended,
            true => WorkerState::Current,
            false => WorkerState::Outdated,
        }
    }

    /// How often a resource's worker was started again, if its status is published here.
    pub fn restarts(&self, key: &Key) -> Option<i64> {
        let book = self.lock();
        let entry = book.entries.get(key)?;
        entry.worker.as_ref()?;
        Some(entry.subject.borrow().restarts)
    }

    /// How many resources have a status here.
    pub fn crowd(&self) -> usize {
        self.crowd.load(Ordering::Relaxed)
    }

    /// Start a worker, in place of the present one if there is one. `subject` is what the status says of it;
    /// its state is overwritten by the new worker's report. Does nothing outside of a term.
    pub async fn start(
        &self,
        key: &Key,
        plan: Plan,
        subject: Subject,
        publisher: impl FnOnce() -> Publisher,
    ) {
        self.stop_worker(key).await;
        self.take_turn().await;
        let mut book = self.lock();
        if !book.open {
            return;
        }
        let (desired, wish) = watch::channel(subject.asked.desired.clone());
        let handle = lifecycle::spawn(plan.config.clone(), wish, &self.share);
        let state = SubjectState::Running(handle.report.clone());
        self.publish_in(&mut book, key, Subject { state, ..subject }, publisher);
        let worker = Worker { handle, desired, plan };
        let orphan = match book.entries.get_mut(key) {
            Some(entry) => entry.worker.replace(worker),
            None => Some(worker),
        };
        // Not seen: starts of one resource come one after the other.
        if let Some(orphan) = orphan {
            self.end(orphan);
        }
    }

    async fn take_turn(&self) {
        let mut next = self.next_start.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + STAGGER;
    }

    /// Pass on what the user wants now, to the worker and to the status; the latter is published again if that had ended.
    pub fn steer(&self, key: &Key, course: Course, publisher: impl FnOnce() -> Publisher) {
        let mut book = self.lock();
        let Some(entry) = book.entries.get(key) else { return };
        entry.wish(&course.asked.desired);
        entry.subject.send_if_modified(|subject| {
            let Course { generation, asked, notice, behind } = course;
            let changed = Subject { generation, asked, notice, behind, ..subject.clone() };
            let differs = (subject.generation, &subject.asked, &subject.notice, &subject.behind)
                != (changed.generation, &changed.asked, &changed.notice, &changed.behind);
            *subject = changed;
            differs
        });
        self.keep_published(&mut book, key, publisher);
    }

    /// Pass on what the user wants now to the worker alone.
    pub fn wish(&self, key: &Key, desired: &Desired) {
        if let Some(entry) = self.lock().entries.get(key) {
            entry.wish(desired);
        }
    }

    /// Publish the status of a resource; its worker is not touched. Does nothing outside of a term.
    pub fn publish(&self, key: &Key, subject: Subject, publisher: impl FnOnce() -> Publisher) {
        self.publish_in(&mut self.lock(), key, subject, publisher);
    }

    fn publish_in(
        &self,
        book: &mut Book,
        key: &Key,
        subject: Subject,
        publisher: impl FnOnce() -> Publisher,
    ) {
        if !book.open {
            return;
        }
        if let Some(entry) = book.entries.get(key) {
            entry.subject.send_replace(subject);
        } else {
            let entry = Entry {
                subject: watch::Sender::new(subject),
                publisher: tokio::spawn(async {}),
                stop_publisher: CancellationToken::new(),
                phase: Arc::default(),
                worker: None,
            };
            // Not running yet, whatever the task above says.
            entry.stop_publisher.cancel();
            book.entries.insert(key.clone(), entry);
        }
        self.keep_published(book, key, publisher);
    }

    /// A publisher ends when its resource is gone, or by a bug.
    fn keep_published(&self, book: &mut Book, key: &Key, publisher: impl FnOnce() -> Publisher) {
        let Some(entry) = book.entries.get_mut(key) else { return };
        if entry.stop_publisher.is_cancelled() || entry.publisher.is_finished() {
            entry.stop_publisher = CancellationToken::new();
            let (subject, stop) = (entry.subject.subscribe(), entry.stop_publisher.clone());
            let shared = Shared { crowd: self.crowd.clone(), phase: entry.phase.clone() };
            entry.publisher = tokio::spawn(publisher().run(subject, stop, shared));
        }
        self.crowd.store(book.entries.len(), Ordering::Relaxed);
    }

    /// Stop a resource's worker, if it has one; its status goes on being published. Returns the
    /// configuration that it ran with.
    pub async fn stop_worker(&self, key: &Key) -> Option<SyncConfig> {
        let worker = self.lock().entries.get_mut(key)?.worker.take()?;
        let config = worker.plan.config.clone();
        // A task of its own: it goes on if this reconcile is given up.
        let _ = self.end(worker).await;
        Some(config)
    }

    fn end(&self, worker: Worker) -> JoinHandle<()> {
        self.stopping.spawn(worker.handle.stop())
    }

    /// Stop everything about a resource.
    pub async fn forget(&self, key: &Key) {
        let entry = {
            let mut book = self.lock();
            let entry = book.entries.remove(key);
            self.crowd.store(book.entries.len(), Ordering::Relaxed);
            entry
        };
        if let Some(entry) = entry {
            self.end_entry(entry, &CancellationToken::new()).await;
        }
    }

    /// The term is over: stop every sync, at the same time, and start none until the next one. The status is written once
    /// more where `last_words` says so.
    pub async fn stop_all(&self, last_words: bool) {
        let entries: Vec<Entry> = {
            let mut book = self.lock();
            book.open = false;
            self.crowd.store(0, Ordering::Relaxed);
            book.entries.drain().map(|(_, entry)| entry).collect()
        };
        let silent = CancellationToken::new();
        if !last_words {
            silent.cancel();
        }
        join_all(entries.into_iter().map(|entry| self.end_entry(entry, &silent))).await;
        // Those that a reconcile had begun to stop before it was given up.
        self.stopping.close();
        self.stopping.wait().await;
        self.stopping.reopen();
    }

    async fn end_entry(&self, entry: Entry, silent: &CancellationToken) {
        let Entry { subject, mut publisher, stop_publisher, worker, .. } = entry;
        if silent.is_cancelled() {
            publisher.abort();
        }
        if let Some(worker) = worker {
            let _ = self.end(worker).await;
        }
        stop_publisher.cancel();
        if timeout(LAST_WRITE, &mut publisher).await.is_err() {
            publisher.abort();
        }
        drop(subject);
    }

    /// The resources that have an entry here.
    pub fn keys(&self) -> Vec<Key> {
        self.lock().entries.keys().cloned().collect()
    }

    /// The resources whose worker ended without being told to.
    pub fn ended(&self) -> Vec<Key> {
        let book = self.lock();
        let has_ended = |entry: &Entry| entry.worker.as_ref().is_some_and(|w| w.handle.is_finished());
        let ended = book.entries.iter().filter(|(_, entry)| has_ended(entry));
        ended.map(|(key, _)| key.clone()).collect()
    }

    /// The reports of all syncs, for metrics. A resource without a worker has one that tells of its phase alone.
    pub fn reports(&self) -> Vec<(Key, Report)> {
        let book = self.lock();
        let report = |entry: &Entry| {
            let phase = *entry.phase.borrow();
            let Some(worker) = &entry.worker else { return Report { phase, ..Report::default() } };
            let mut report = worker.handle.report.borrow().clone();
            // What is done waits for nothing, though its worker has not read that yet.
            if (report.phase, phase) == (Phase::Pending, Phase::Completed) {
                report.phase = phase;
            }
            report
        };
        book.entries.iter().map(|(key, entry)| (key.clone(), report(entry))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing that holds the lock can leave the map half changed.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn wish(&self, desired: &Desired) {
        let Some(worker) = &self.worker else { return };
        worker.desired.send_if_modified(|wish| {
            let differs = wish != desired;
            wish.clone_from(desired);
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{Key, Launcher, Plan};
    use crate::api::ClusterSync;
    use crate::operator::publish::{Publisher, Subject, SubjectState};
    use crate::resource::{Asked, Fetched, Material, Unusable};
    use crate::sync::Share;
    use crate::sync::config::Holder;

    fn plan() -> Plan {
        let text = "apiVersion: clustersync.dev/v1alpha1\nkind: ClusterSync\nmetadata: {name: a, uid: u}\n\
                    spec: {source: {uri: 'mongodb://127.0.0.1:1/?replicaSet=a'}, target: {uri: 'mongodb://127.0.0.1:1/?replicaSet=b'}}";
        let resource: ClusterSync = serde_saphyr::from_str(text).unwrap();
        let material = Material::resolve(&resource, &Fetched::default()).ok().unwrap();
        let config = material.configuration(Holder { id: "h".into(), term: None }).unwrap();
        Plan { config, material, spec: resource.spec }
    }

    fn subject() -> Subject {
        Subject {
            generation: 1,
            asked: Asked::default(),
            state: SubjectState::Waiting(Unusable::missing("Starting.")),
            restarts: 0,
            notice: None,
            behind: None,
        }
    }

    fn never() -> Publisher {
        panic!("published outside of a term")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_outside_of_a_term() {
        let launcher = Launcher::new(Share::new(1, 1 << 20));
        let key = Key { namespace: "n".into(), name: "a".into(), uid: "u".into() };
        launcher.open();
        // The term ends while a start waits for its turn.
        *launcher.next_start.lock().await = Instant::now() + Duration::from_secs(5);
        let over = async {
            sleep(Duration::from_secs(1)).await;
            launcher.stop_all(false).await;
        };
        tokio::join!(launcher.start(&key, plan(), subject(), never), over);
        launcher.start(&key, plan(), subject(), never).await;
        launcher.publish(&key, subject(), never);
        assert!(launcher.keys().is_empty());
    }
}
