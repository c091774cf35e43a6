//! The task that keeps one resource's status true: it watches the worker's report and writes when
//! [`cadence`](super::cadence) says so. While another operator that owns the sync writes the same status, it stands aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::ClusterSyncStatus;
use crate::resource::status::{controller_status, phase, worker_status};
use crate::resource::{Asked, Judged, Outcome, Unusable};
use crate::sync::{Phase, Reason, Report};

use super::cadence::{Change, change};
use super::events::{Events, announcements};
use super::patch::{Incarnation, Manager, Present, StatusClient, Written};
use super::requests::{RequestError, Requests};

/// Conditions depend on time passed, too.
const TICK: Duration = Duration::from_secs(5);

/// A report that changes all the time is looked at no oftener.
const SETTLE: Duration = Duration::from_millis(100);

/// After a failed write, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How long an owner that writes the status is left alone before it is looked for again.
const ASIDE: Duration = Duration::from_secs(300);

/// How long a clone counts as being watched.
const WATCHED: SignedDuration = SignedDuration::from_secs(60);

/// What the status is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The generation that `asked` was read from.
    pub generation: i64,
    /// What the user wants.
    pub asked: Asked,
    /// What came of it.
    pub state: SubjectState,
    /// How often a worker was started for this resource, but for the first time.
    pub restarts: i64,
    /// A warning of the operator's own.
    pub notice: Option<String>,
    /// The worker runs as an earlier spec said, because of this.
    pub behind: Option<Unusable>,
}

/// What came of a spec; as [`Outcome`], but owned.
#[derive(Clone, Debug)]
pub enum SubjectState {
    /// A worker runs.
    Running(watch::Receiver<Report>),
    /// Something is missing.
    Waiting(Unusable),
    /// The spec cannot be used.
    Refused(Unusable),
    /// The object cannot be read: only the controller's part is written.
    Undecodable(String),
}

/// What a publisher needs beside its subject.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Where to write.
    pub client: StatusClient,
    /// The pace.
    pub requests: Arc<Requests>,
    /// Where to announce transitions.
    pub events: Events,
    /// What events are about.
    pub regarding: ObjectReference,
    /// What is written to.
    pub incarnation: Incarnation,
    /// What was there at the start.
    pub written: ClusterSyncStatus,
}

struct Computed {
    controller: ClusterSyncStatus,
    worker: Option<ClusterSyncStatus>,
    whole: ClusterSyncStatus,
    phase: Phase,
    watched: bool,
    writer: Writer,
}

/// Who we are among those who may write a status.
#[derive(Clone, Debug, Default)]
struct Writer {
    /// Our worker's epoch; 0 without ownership.
    epoch: i64,
    /// Our worker's name; empty without one.
    holder: String,
    /// Our worker sees that another owns the sync.
    owned_elsewhere: bool,
}

/// Another owner writes this status.
#[derive(Clone, Copy, Debug)]
struct Aside {
    epoch: i64,
    since: Instant,
}

impl Aside {
    /// Whether to go on leaving the status alone.
    fn holds(&self, writer: &Writer) -> bool {
        match writer.epoch {
            0 => writer.owned_elsewhere || self.since.elapsed() < ASIDE,
            epoch => epoch <= self.epoch,
        }
    }
}

/// The epoch of another owner that has just written this status. A name that stands there since before is none: its
/// process may be long gone.
fn other_owner(writer: &Writer, expected: &ClusterSyncStatus, found: &ClusterSyncStatus) -> Option<i64> {
    let worker = found.worker.as_ref()?;
    let (holder, epoch) = (worker.holder.as_deref()?, worker.epoch?);
    let changed = part(found, Manager::Worker) != part(expected, Manager::Worker);
    (changed && holder != writer.holder && epoch > writer.epoch).then_some(epoch)
}

enum Attempt {
    Written,
    Again,
    /// Another owner, of this epoch, writes.
    Aside(i64),
    Gone,
}

/// What a publisher shares with others.
#[derive(Clone, Debug)]
pub struct Shared {
    /// How many resources are published by this process.
    pub crowd: Arc<AtomicUsize>,
    /// The phase that is shown.
    pub phase: Arc<watch::Sender<Phase>>,
}

impl Publisher {
    /// Publish until stopped, until nobody holds the subject, or until the resource is gone. When stopped,
    /// the last state is written once more, if there is time.
    pub async fn run(
        mut self,
        mut subject: watch::Receiver<Subject>,
        stop: CancellationToken,
        shared: Shared,
    ) {
        let mut milestone = self.written.phase.clone();
        let mut written_at: Option<Instant> = None;
        let mut retry = FIRST_RETRY;
        let mut aside: Option<Aside> = None;
        loop {
            let now = subject.borrow_and_update().clone();
            let computed = self.compute(&now);
            shared.phase.send_if_modified(|phase| std::mem::replace(phase, computed.phase) != computed.phase);
            aside = aside.filter(|aside: &Aside| aside.holds(&computed.writer));
            let difference =
                if aside.is_some() { Change::None } else { change(&self.written, &computed.whole) };
            let interval = difference.interval(computed.watched, shared.crowd.load(Ordering::Relaxed));
            let due = match (interval, written_at) {
                (None, _) => None,
                (Some(interval), Some(at)) => Some(interval.saturating_sub(at.elapsed())),
                (Some(_), None) => Some(Duration::ZERO),
            };
            let stopping = stop.is_cancelled();
            if due == Some(Duration::ZERO) || (stopping && difference >= Change::Progress) {
                match self.write(&subject, &mut milestone, written_at.is_some()).await {
                    Ok(Attempt::Written) => {
                        (written_at, retry) = (Some(Instant::now()), FIRST_RETRY);
                    }
                    Ok(Attempt::Again) => {}
                    Ok(Attempt::Aside(epoch)) => aside = Some(Aside { epoch, since: Instant::now() }),
                    Ok(Attempt::Gone) => return,
                    Err(error) => {
                        tracing::warn!(
                            namespace = self.incarnation.namespace, name = self.incarnation.name, %error,
                            "status not written; trying again"
                        );
                        if stopping {
                            return;
                        }
                        let _ = timeout(retry, stop.cancelled()).await;
                        retry = (retry * 2).min(LAST_RETRY);
                    }
                }
                if !stopping {
                    continue;
                }
            }
            if stopping {
                return;
            }
            if !self.wait(&mut subject, &now, due, &stop).await {
                return;
            }
        }
    }

    /// Until something may have changed; false when nobody holds the subject any more.
    async fn wait(
        &self,
        subject: &mut watch::Receiver<Subject>,
        now: &Subject,
        due: Option<Duration>,
        stop: &CancellationToken,
    ) -> bool {
        let mut report = match &now.state {
            SubjectState::Running(report) => Some(report.clone()),
            _ => None,
        };
        let tick = due.unwrap_or(TICK).clamp(SETTLE, TICK);
        let reported = async {
            match &mut report {
                // An ended worker wakes the reconcile by itself; here it is simply silent.
                Some(report) => {
                    if report.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            held = subject.changed() => return held.is_ok(),
            () = stop.cancelled() => return true,
            () = reported => {}
            () = sleep(tick) => {}
        }
        sleep(SETTLE).await;
        true
    }

    fn compute(&self, subject: &Subject) -> Computed {
        let now = Timestamp::now();
        let report;
        let outcome = match &subject.state {
            SubjectState::Running(latest) => {
                report = latest.borrow().clone();
                match &subject.behind {
                    None => Outcome::Running(&report),
                    Some(unusable) => Outcome::Behind(&report, unusable),
                }
            }
            SubjectState::Waiting(unusable) => Outcome::Waiting(unusable),
            SubjectState::Refused(unusable) => Outcome::Refused(unusable),
            SubjectState::Undecodable(why) => Outcome::Undecodable(why),
        };
        let judged = Judged { generation: subject.generation, asked: subject.asked.clone(), outcome };
        let controller = controller_status(&judged, &self.written, now);
        let worker = (!matches!(subject.state, SubjectState::Undecodable(_)))
            .then(|| worker_status(&judged, &self.written, subject.restarts, subject.notice.as_deref(), now));
        let rest = worker
            .clone()
            .unwrap_or_else(|| ClusterSyncStatus { conditions: Vec::new(), ..self.written.clone() });
        let whole = joined(controller.clone(), rest);
        let watched = judged.outcome.report().is_some_and(|report| {
            report.phase == Phase::Cloning && now.duration_since(report.phase_since) < WATCHED
        });
        let writer = judged.outcome.report().map_or_else(Writer::default, |report| Writer {
            epoch: report.epoch,
            holder: report.holder.clone(),
            owned_elsewhere: report.reason == Some(Reason::OwnedElsewhere),
        });
        let phase = phase(&judged, &self.written);
        Computed { controller, worker, whole, phase, watched, writer }
    }

    async fn write(
        &mut self,
        subject: &watch::Receiver<Subject>,
        milestone: &mut Option<String>,
        wrote_before: bool,
    ) -> Result<Attempt, RequestError> {
        self.requests.turn().await;
        // What is written is what is true after the wait.
        let computed = self.compute(&subject.borrow().clone());
        let before = self.written.clone();
        if let Some(worker) =
            computed.worker.as_ref().filter(|worker| part(&before, Manager::Worker) != **worker)
        {
            match self.client.apply(&mut self.incarnation, Manager::Worker, worker).await? {
                Written::Done => {
                    let controller = part(&before, Manager::Controller);
                    self.written = joined(controller, worker.clone());
                    self.requests.turn().await;
                }
                other => return self.resolve(other, &computed.writer, wrote_before).await,
            }
        }
        if part(&before, Manager::Controller) != computed.controller {
            match self.client.apply(&mut self.incarnation, Manager::Controller, &computed.controller).await? {
                Written::Done => {}
                other => return self.resolve(other, &computed.writer, wrote_before).await,
            }
        }
        for announcement in announcements(&before, &computed.whole, milestone) {
            self.events.say(announcement, &self.regarding);
        }
        self.written = computed.whole;
        Ok(Attempt::Written)
    }

    async fn resolve(
        &mut self,
        written: Written,
        writer: &Writer,
        wrote_before: bool,
    ) -> Result<Attempt, RequestError> {
        if matches!(written, Written::Gone) {
            return Ok(Attempt::Gone);
        }
        self.requests.turn().await;
        match self.client.refresh(&mut self.incarnation).await? {
            Present::Gone => Ok(Attempt::Gone),
            Present::Same(status) => {
                let other = other_owner(writer, &self.written, &status).filter(|_| wrote_before);
                self.written = *status;
                let Some(theirs) = other else { return Ok(Attempt::Again) };
                tracing::info!(
                    namespace = self.incarnation.namespace,
                    name = self.incarnation.name,
                    epoch = writer.epoch,
                    theirs,
                    "another owner writes this status: leaving it alone"
                );
                Ok(Attempt::Aside(theirs))
            }
        }
    }
}

/// A whole status of both parts.
fn joined(controller: ClusterSyncStatus, worker: ClusterSyncStatus) -> ClusterSyncStatus {
    let conditions = [controller.conditions, worker.conditions].concat();
    ClusterSyncStatus { observed_generation: controller.observed_generation, conditions, ..worker }
}

/// One manager's part of a whole status.
fn part(whole: &ClusterSyncStatus, manager: Manager) -> ClusterSyncStatus {
    use crate::api::conditions::types::{COMPLETED, READY, RECONCILING, STALLED};
    let of_controller = |kind: &str| [READY, RECONCILING, STALLED, COMPLETED].contains(&kind);
    let conditions = |controller: bool| {
        whole.conditions.iter().filter(|c| of_controller(&c.type_) == controller).cloned().collect()
    };
    match manager {
        Manager::Controller => ClusterSyncStatus {
            observed_generation: whole.observed_generation,
            conditions: conditions(true),
            ..ClusterSyncStatus::default()
        },
        Manager::Worker => {
            ClusterSyncStatus { observed_generation: None, conditions: conditions(false), ..whole.clone() }
        }
    }
}
