//! The life of one sync: ownership, attempts, what the user wants. The only place that changes its phase.

pub mod attempt;
pub mod course;
pub mod monitor;
pub mod publish;
pub mod recorded;
mod resume;
pub mod sums;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use mongodb::bson::Document;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Desired, SyncConfig};
use super::endpoint::Endpoint;
use super::endpoint::client::Side;
use super::error::{Class, Error, Reason, Result};
use super::progress::Progress;
use super::report::{CollectionProgress, LastError, Phase, Report};
use super::retry::Backoff;
use super::share::Share;
use super::state::{Store, owner, wish};
use attempt::Outcome;
use publish::Publisher;

/// How long a clean stop may take: within the ten seconds that a process has after SIGTERM.
const STOP: Duration = Duration::from_secs(8);

/// A run that went well for this long starts its backoff anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// A running sync.
#[derive(Debug)]
pub struct Handle {
    /// Its published state; changes wake a watcher.
    pub report: watch::Receiver<Report>,
    stop: CancellationToken,
    tasks: TaskTracker,
    progress: Arc<Progress>,
    abort: tokio::task::AbortHandle,
}

impl Handle {
    /// Stop cleanly: finish the batches in flight, write a checkpoint, give up ownership. Bounded in time
    /// (8 s); afterwards nothing of this sync runs here.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            self.abort.abort();
            self.tasks.wait().await;
        }
    }

    /// How far each collection's clone is, by name.
    pub fn collections(&self) -> Vec<CollectionProgress> {
        self.progress.collections()
    }

    /// Its live numbers.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Whether everything of this sync has ended (it was stopped, or it panicked).
    pub fn is_finished(&self) -> bool {
        self.tasks.is_closed() && self.tasks.is_empty()
    }
}

/// Run a sync until its handle is stopped. Never fails: every failure is in the report. `share` bounds it together
/// with the other syncs of this process.
pub fn spawn(mut config: SyncConfig, desired: watch::Receiver<Desired>, share: &Share) -> Handle {
    config.scope = config.scope.with_reserved(&config.metadata_database);
    let progress = Arc::new(Progress::default());
    let (publisher, report) = Publisher::new(&config, Arc::clone(&progress));
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let shown = Arc::clone(&progress);
    let life = Life {
        config: Arc::new(config),
        desired,
        publisher,
        progress,
        share: share.clone(),
        stop: stop.clone(),
    };
    let abort = tasks.spawn(life.run()).abort_handle();
    tasks.close();
    Handle { report, stop, tasks, progress: shown, abort }
}

/// Remove a stopped sync's durable state and claims from the target; user data is not touched. Fails with
/// `OwnedElsewhere` while a fresh owner holds it, with `StateMismatch` where another resource has adopted it.
pub async fn delete_state(config: &SyncConfig) -> Result<()> {
    let target = Endpoint::connect(Side::Target, &config.target).await?;
    let store = Store::new(target, &config.metadata_database, &config.id);
    store.prepare().await?;
    let store = owner::acquire(store, &config.holder).await?;
    let recorded = store.load().await?.and_then(|record| record.resource_uid);
    if config.resource_uid.is_some() && recorded.is_some() && recorded != config.resource_uid {
        owner::release(&store).await?;
        return Err(Error::new(
            Reason::StateMismatch,
            format!("the durable state of sync '{}' belongs to another resource now", config.id),
        ));
    }
    store.clear().await?;
    wish::remove(&store).await?;
    owner::remove(&store).await
}

/// What was last asked of a sync over a control API; none if nothing ever was.
pub async fn load_wish(config: &SyncConfig) -> Result<Option<Document>> {
    let target = Endpoint::connect(Side::Target, &config.target).await?;
    let loaded = wish::load(&Store::new(target.clone(), &config.metadata_database, &config.id)).await;
    target.close().await;
    loaded
}

/// Keep what is asked of a sync over a control API; when this returns, a restart will find it.
pub async fn save_wish(config: &SyncConfig, wish: Document) -> Result<()> {
    let target = Endpoint::connect(Side::Target, &config.target).await?;
    let saved = wish::save(&Store::new(target.clone(), &config.metadata_database, &config.id), wish).await;
    target.close().await;
    saved
}

struct Life {
    config: Arc<SyncConfig>,
    desired: watch::Receiver<Desired>,
    publisher: Publisher,
    progress: Arc<Progress>,
    share: Share,
    stop: CancellationToken,
}

impl Life {
    async fn run(mut self) {
        let ticker = self.publisher.clone();
        let stopping = self.stop.clone();
        let ticking = async move {
            tokio::select! {
                () = ticker.tick() => {}
                () = stopping.cancelled() => {}
            }
        };
        let living = self.live();
        tokio::join!(ticking, living);
    }

    async fn live(&mut self) {
        let seed = self.config.id.bytes().fold(17, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let mut backoff = Backoff::new(seed);
        while !self.stop.is_cancelled() {
            let began = tokio::time::Instant::now();
            let wanted = attempt::Seen::default();
            let attempting = attempt::attempt(
                &self.config,
                &mut self.desired,
                &self.publisher,
                &self.progress,
                &self.share,
                &wanted,
                &self.stop,
            );
            // Nobody else would notice: the last report would stay as it is.
            let outcome = AssertUnwindSafe(attempting).catch_unwind().await.unwrap_or_else(|_| {
                Err(Error::new(Reason::Internal, "the engine panicked; the message is on standard error"))
            });
            // An attempt may also be long because nothing answered.
            if began.elapsed() > HEALTHY && !self.publisher.is_failing() {
                backoff.reset();
            }
            match outcome {
                Ok(Outcome::Stopped) => return,
                Ok(Outcome::Again) => backoff.reset(),
                Err(error) if error.class() == Class::Transient => {
                    let wait = backoff.next_delay();
                    self.report_failure(&error, backoff.attempts());
                    if matches!(error.reason(), Reason::OwnedElsewhere | Reason::OwnershipLost) {
                        tracing::info!(%error, "waiting for ownership");
                    } else {
                        tracing::warn!(reason = %error.reason(), code = error.code(), attempt = backoff.attempts(), %error, "trying again");
                    }
                    let wait = if error.reason() == Reason::OwnedElsewhere {
                        wait.min(Duration::from_secs(1))
                    } else {
                        wait
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    self.report_failure(&error, backoff.attempts() + 1);
                    tracing::error!(reason = %error.reason(), code = error.code(), "{}", error.explain());
                    self.publisher.stall(&error);
                    let wanted = wanted.into_inner().unwrap_or_else(PoisonError::into_inner);
                    if !self.wait_for_request(&wanted).await {
                        return;
                    }
                    self.publisher.enter(Phase::Pending, "trying again, as asked");
                    backoff.reset();
                }
            }
        }
    }

    fn report_failure(&self, error: &Error, attempts: u32) {
        self.publisher.failed();
        self.publisher.update(|report| {
            report.replication.last_error = Some(LastError {
                at: jiff::Timestamp::now(),
                reason: error.reason().as_str().to_owned(),
                message: error.explain(),
                attempts,
            });
            let connection = |side: &mut super::report::SideReport, connected: bool| {
                if side.connected != Some(connected) {
                    side.connected = Some(connected);
                    side.connected_since = jiff::Timestamp::now();
                }
            };
            match error.reason() {
                Reason::SourceUnreachable => connection(&mut report.source, false),
                Reason::TargetUnreachable => connection(&mut report.target, false),
                _ => {}
            }
            if matches!(report.phase, Phase::Pending | Phase::Preflight) && error.class() == Class::Transient
            {
                report.phase = Phase::Pending;
                report.reason = Some(error.reason());
                report.message = error.explain();
            }
        });
    }

    /// Stalled: wait until a request token differs from what the attempt that failed saw last. False when told to stop.
    async fn wait_for_request(&mut self, seen: &Desired) -> bool {
        loop {
            {
                let desired = self.desired.borrow_and_update();
                if desired.retry != seen.retry || desired.restart != seen.restart {
                    return true;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        self.stop.cancelled().await;
                        return false;
                    }
                }
            }
        }
    }
}
