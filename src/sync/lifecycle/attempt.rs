//! One attempt: connect, check, own, resume or plan, and do what the user wants until that changes or fails.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::course::{Course, clones, course};
use super::monitor;
use super::publish::Publisher;
use super::recorded::{check_format, check_target, fill, restart_asked};
use super::sums;
use crate::sync::catalog::bounds::Early;
use crate::sync::catalog::build::Builder;
use crate::sync::completion;
use crate::sync::config::{Desired, DesiredState, SyncConfig};
use crate::sync::context::Context;
use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::client::Side;
use crate::sync::endpoint::identity;
use crate::sync::error::{Class, Error, Reason, Result};
use crate::sync::lookups::Lookups;
use crate::sync::pace::Pace;
use crate::sync::preflight::survey::{self, Survey};
use crate::sync::preflight::{self, Found};
use crate::sync::progress::Progress;
use crate::sync::report::Phase;
use crate::sync::run;
use crate::sync::share::{CloneSlot, Share};
use crate::sync::state::{Stage, Store, SyncRecord, owner};
use crate::sync::throttle::Throttle;
use crate::sync::writers::Writers;

/// How an attempt ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Told to stop.
    Stopped,
    /// The user wants something that begins with a new attempt.
    Again,
}

/// Do what is wanted until that fails, or until told to stop.
pub async fn attempt(
    config: &Arc<SyncConfig>,
    desired: &mut watch::Receiver<Desired>,
    publisher: &Publisher,
    progress: &Arc<Progress>,
    share: &Share,
    seen: &Seen,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let attempt = Attempt { config, publisher, progress, share, seen, stop };
    attempt.see(desired);
    tokio::select! {
        looked = attempt.look(desired) => {
            let (target, known) = looked?;
            let outcome = Box::pin(attempt.go_on(&target, known, desired)).await;
            target.close().await;
            outcome
        }
        () = stop.cancelled() => Ok(Outcome::Stopped),
    }
}

/// What the user wanted when an attempt looked last: a failure is an answer to that, and to nothing that came later.
pub type Seen = Mutex<Desired>;

/// What is known of a sync before it is owned.
enum Known {
    /// The cutover is committed: what remains needs the target only. The source may be gone for ever.
    Past,
    /// Anything else, with both ends checked.
    Ahead(Box<Ends>),
}

/// A source that was looked at, and what the checks of both ends found.
pub(super) struct Ends {
    pub(super) source: Endpoint,
    pub(super) found: Found,
    /// What is recorded.
    stage: Option<Stage>,
}

/// What a new sync begins with: the right to clone, and what its source is.
struct Ahead {
    slot: CloneSlot,
    survey: Result<Survey>,
}

pub(super) struct Attempt<'a> {
    pub(super) config: &'a Arc<SyncConfig>,
    pub(super) publisher: &'a Publisher,
    progress: &'a Arc<Progress>,
    share: &'a Share,
    seen: &'a Seen,
    stop: &'a CancellationToken,
}

impl Attempt<'_> {
    fn see(&self, desired: &mut watch::Receiver<Desired>) -> Desired {
        let wanted = desired.borrow_and_update().clone();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&wanted);
        wanted
    }

    async fn look(&self, desired: &watch::Receiver<Desired>) -> Result<(Endpoint, Known)> {
        let target = Endpoint::connect(Side::Target, &self.config.target).await?;
        // A user that may not even look here is told so by the checks.
        let record = match self.store(&target).load().await {
            Err(error) if error.reason() == Reason::NotAuthorized => None,
            found => found?,
        };
        let restart =
            record.as_ref().is_some_and(|record| restart_asked(record, self.config, &desired.borrow()));
        let stage = record.map(|record| record.stage);
        if matches!(course(stage, desired.borrow().state, restart), Course::Restore | Course::Done) {
            self.publisher.connected(&[Side::Target]);
            return Ok((target, Known::Past));
        }
        let source = Endpoint::connect(Side::Source, &self.config.source).await?;
        let found = preflight::check(&source, &target).await?;
        self.publisher.connected(&[Side::Source, Side::Target]);
        self.publisher.update(|report| {
            found.source.set_name.clone_into(&mut report.source.replica_set);
            report.source.version = found.source.version.to_string();
            found.target.set_name.clone_into(&mut report.target.replica_set);
            report.target.version = found.target.version.to_string();
            report.warnings.clone_from(&found.warnings);
        });
        Ok((target, Known::Ahead(Box::new(Ends { source, found, stage }))))
    }

    fn store(&self, target: &Endpoint) -> Store {
        Store::new(target.clone(), &self.config.metadata_database, &self.config.id)
    }

    /// Hold the sync while doing what is wanted; give it up at a clean end, so that the next owner need not wait.
    async fn go_on(
        &self,
        target: &Endpoint,
        known: Known,
        desired: &mut watch::Receiver<Desired>,
    ) -> Result<Outcome> {
        let ahead = future::maybe_done(self.look_ahead(&known, desired.borrow().state));
        let own = async {
            let store = self.store(target);
            store.prepare().await?;
            owner::acquire(store, &self.config.holder).await
        };
        tokio::pin!(ahead, own);
        let store = tokio::select! {
            store = &mut own => store,
            () = ahead.as_mut() => own.await,
        }?;
        self.publisher.update(|report| report.epoch = store.epoch());
        tracing::info!(epoch = store.epoch(), "owner of the sync");
        let working = async {
            match &known {
                Known::Past => self.finish(&store, desired).await,
                Known::Ahead(ends) => {
                    tokio::select! {
                        () = ahead.as_mut() => {}
                        () = changed(desired) => {}
                        () = self.stop.cancelled() => {}
                    }
                    let ahead = ahead.as_mut().take_output().flatten();
                    let outcome = self.work(ends, &store, ahead, desired).await;
                    ends.source.clone().close().await;
                    outcome
                }
            }
        };
        let outcome = tokio::select! {
            outcome = working => outcome,
            lost = keep_renewing(&store) => Err(lost),
        };
        let keep = outcome.as_ref().is_err_and(|error| error.class() == Class::Transient);
        if !keep && let Err(error) = owner::release(&store).await {
            tracing::debug!(%error, "ownership was not released");
        }
        outcome
    }

    /// What remains after the cutover was committed.
    async fn finish(&self, store: &Store, desired: &mut watch::Receiver<Desired>) -> Result<Outcome> {
        while !self.stop.is_cancelled() {
            let wanted = self.see(desired);
            let Some(record) = store.load().await? else { return Ok(Outcome::Again) };
            let restart = restart_asked(&record, self.config, &wanted);
            if !matches!(course(Some(record.stage), wanted.state, restart), Course::Restore | Course::Done) {
                return Ok(Outcome::Again);
            }
            check_format(&record)?;
            let target = identity::identify(store.target()).await?;
            check_target(&record, &target)?;
            let record = self.adopt(store, record, &wanted).await?;
            let record = self.handle_retry(store, record, &wanted).await?;
            let catalog = sums::catalog(store, &record, self.progress).await?;
            self.publisher.update(|report| {
                fill(report, &record);
                report.source.replica_set.clone_from(&record.source.set_name);
                report.target.replica_set.clone_from(&record.target.set_name);
                report.target.version = target.version.to_string();
            });
            if record.stage == Stage::Restoring {
                self.publisher.enter(Phase::Completing, "restoring what was deferred");
                let first =
                    record.completion.as_ref().is_none_or(|completion| completion.completed_at.is_none());
                completion::restore(store, &catalog, first).await?;
                continue;
            }
            let missing = completion::unsuccessful_indexes(store, &catalog).await?;
            let message = if missing.is_empty() { "cut over" } else { "cut over; some indexes are missing" };
            self.publisher.update(|report| {
                if let Some(completion) = &mut report.completion {
                    completion.unsuccessful_indexes = missing;
                }
            });
            self.publisher.enter(Phase::Completed, message);
            self.rest(desired, |wanted| {
                self.publisher.restart_wanted(wanted) || self.publisher.retry_wanted(wanted)
            })
            .await?;
        }
        Ok(Outcome::Stopped)
    }

    /// What a new sync begins with, while its durable state is created: none where others wait for the right to clone.
    async fn look_ahead(&self, known: &Known, wanted: DesiredState) -> Option<Ahead> {
        let Known::Ahead(ends) = known else { return None };
        if course(ends.stage, wanted, false) != Course::Plan {
            return None;
        }
        let slot = self.share.try_clone_slot()?;
        let survey = survey::survey(self.config, &ends.source, &ends.found).await;
        Some(Ahead { slot, survey })
    }

    async fn work(
        &self,
        ends: &Ends,
        store: &Store,
        mut ahead: Option<Ahead>,
        desired: &mut watch::Receiver<Desired>,
    ) -> Result<Outcome> {
        while !self.stop.is_cancelled() {
            let wanted = self.see(desired);
            // For what comes first: a plan fixes the place from which the stream is read, and no wait may let the oplog pass it.
            let (held, survey) = ahead.take().map(|ahead| (ahead.slot, ahead.survey)).unzip();
            let before = store.load().await?;
            let stage = before.as_ref().map(|record| record.stage);
            let restart = before.as_ref().is_some_and(|record| restart_asked(record, self.config, &wanted));
            let course = course(stage, wanted.state, restart);
            if matches!(course, Course::Restore | Course::Done) {
                return Ok(Outcome::Again);
            }
            if course == Course::Rest && clones(stage, restart) && (restart || stage != Some(Stage::Cloning))
            {
                self.publisher.enter(Phase::Paused, "paused before the clone begins");
                self.rest(desired, |wanted| wanted.state != DesiredState::Paused).await?;
                continue;
            }
            let slot = if matches!(course, Course::Plan | Course::Run) && clones(stage, restart) {
                match self.clone_slot(held, desired).await {
                    Some(slot) => Some(slot),
                    None => continue,
                }
            } else {
                None
            };
            let (record, early) = self.resume_or_plan(ends, store, &wanted, before, survey).await?;
            let ctx = self.context(&ends.source, store, &record, early).await?;
            self.publisher.update(|report| fill(report, &record));
            let outcome = tokio::select! {
                outcome = self.stage(&ctx, &record, slot, desired) => outcome,
                error = async { monitor::watch(&ctx).await.err() } => Err(error.unwrap_or_else(|| {
                    Error::new(Reason::Internal, "the source is not watched any more")
                })),
            }?;
            if outcome == Outcome::Stopped {
                break;
            }
        }
        Ok(Outcome::Stopped)
    }

    /// Wait for the right to clone unless it is held; none when told to stop, or when the user wants something else
    /// meanwhile.
    async fn clone_slot(
        &self,
        held: Option<CloneSlot>,
        desired: &mut watch::Receiver<Desired>,
    ) -> Option<CloneSlot> {
        if let Some(slot) = held.or_else(|| self.share.try_clone_slot()) {
            return Some(slot);
        }
        let limit = self.share.limit();
        self.publisher
            .wait(Reason::Queued, &format!("as many syncs as may ({limit}) are cloning in this process"));
        tokio::select! {
            slot = self.share.clone_slot() => Some(slot),
            () = changed(desired) => None,
            () = self.stop.cancelled() => None,
        }
    }

    async fn context(
        &self,
        source: &Endpoint,
        store: &Store,
        record: &SyncRecord,
        early: Early,
    ) -> Result<Context> {
        let catalog = sums::catalog(store, record, self.progress).await?;
        let progress = Arc::clone(self.progress);
        let mut config = Arc::clone(self.config);
        for db in &record.reserved {
            let config = Arc::make_mut(&mut config);
            config.scope = config.scope.clone().with_reserved(db);
            progress.warn(&format!(
                "the database {db} holds the state of a sync that writes to the source: not copied"
            ));
        }
        let throttle = Arc::new(Throttle::new(config.limits.bytes_per_second));
        let pace = Arc::new(Pace::new(&config.limits, Arc::clone(&throttle), Arc::clone(&progress)));
        let writers = Writers::new(store.target(), config.replication.lanes);
        Ok(Context {
            config,
            source: source.clone(),
            target: store.target().clone(),
            store: store.clone(),
            lookups: Arc::new(Lookups::new(source, store)),
            early: Arc::new(early),
            builder: Arc::new(Builder::new(store.clone(), Arc::clone(&catalog))),
            catalog,
            progress,
            budgets: self.share.budgets(),
            writers: Arc::new(writers),
            throttle,
            pace,
        })
    }

    /// Do what the stage and the user's wish ask for, until one of them changes.
    async fn stage(
        &self,
        ctx: &Context,
        record: &SyncRecord,
        slot: Option<CloneSlot>,
        desired: &mut watch::Receiver<Desired>,
    ) -> Result<Outcome> {
        let wanted = desired.borrow().state;
        match course(Some(record.stage), wanted, false) {
            Course::Restore | Course::Done => Ok(Outcome::Again),
            Course::Rest => {
                self.publisher.enter(Phase::Paused, "paused; the checkpoint stays");
                self.rest(desired, |wanted| wanted.state != DesiredState::Paused).await
            }
            Course::Plan | Course::Run => {
                match Box::pin(run::run(ctx, record, slot, desired, self.publisher, self.stop)).await? {
                    run::End::Stopped => Ok(Outcome::Again),
                    run::End::Drained => {
                        let fence = ctx.progress.times().applied;
                        let committed_at = completion::commit(ctx, fence).await?;
                        self.publisher.update(|report| {
                            if let Some(completion) = &mut report.completion {
                                completion.committed_at = Some(committed_at);
                            }
                        });
                        Ok(Outcome::Again)
                    }
                }
            }
        }
    }

    async fn rest(
        &self,
        desired: &mut watch::Receiver<Desired>,
        over: impl Fn(&Desired) -> bool,
    ) -> Result<Outcome> {
        loop {
            if over(&desired.borrow_and_update()) {
                return Ok(Outcome::Again);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Outcome::Stopped),
                () = changed(desired) => {}
            }
        }
    }
}

/// Until the user wants something else; for ever, once nobody is there to say so.
async fn changed(desired: &mut watch::Receiver<Desired>) {
    if desired.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn keep_renewing(store: &Store) -> Error {
    loop {
        tokio::time::sleep(owner::RENEW_INTERVAL).await;
        match owner::renew(store).await {
            Ok(()) => {}
            Err(error) if error.reason() == Reason::OwnershipLost => return error,
            // The data path has its own errors; fences keep us honest while we cannot renew.
            Err(error) => tracing::debug!(%error, "ownership was not renewed"),
        }
    }
}
