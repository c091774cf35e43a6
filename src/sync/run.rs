//! One run of the data path, from durable state until it is told to stop or has drained to a fence: clone, reader,
//! router, lanes, index builds and checkpoints side by side.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, Timestamp, doc};
use tokio::sync::{RwLockWriteGuard, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::apply::checkpoint::Checkpointer;
use super::apply::committed::Committed;
use super::apply::ddl::Ddl;
use super::apply::lane::{self, Lane};
use super::apply::router::Router;
use super::apply::watermark::{Mark, Watermark};
use super::clone;
use super::completion;
use super::config::Desired;
use super::context::Context;
use super::error::{Error, Reason, Result};
use super::lifecycle::course::{Position, Step};
use super::lifecycle::publish::Publisher;
use super::pace;
use super::report::{CompletionReport, Phase};
use super::share::CloneSlot;
use super::state::record::FORMAT;
use super::state::slot::{LANE, LaneRecord};
use super::state::store::SLOTS;
use super::state::{CollectionState, Stage, SyncRecord};
use super::stream::{reader, token};

/// How long queues may take to drain at a stop; what is left is read again from the checkpoint.
const DRAIN: Duration = Duration::from_secs(5);

/// How often phases and the fence are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Between checkpoints while a failure was not got past: that a checkpoint moves shows that it was.
const SOON: Duration = Duration::from_secs(5);

/// Why a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop, or the user wants another state.
    Stopped,
    /// Everything up to the fence is applied and recorded.
    Drained,
}

/// Run until `stop`, until the user wants something else, or until drained. `slot` is held while the clone runs.
pub async fn run(
    ctx: &Context,
    record: &SyncRecord,
    slot: Option<CloneSlot>,
    desired: &mut watch::Receiver<Desired>,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> Result<End> {
    let checkpoint = record
        .checkpoint
        .as_ref()
        .ok_or_else(|| Error::new(Reason::StateMismatch, "the durable state has no checkpoint"))?;
    let start = Mark { token: checkpoint.token.clone(), time: checkpoint.time };
    let watermark = Arc::new(Watermark::new(start.clone()));
    ctx.progress.update_times(|times| {
        times.applied = Some(start.time);
        times.checkpoint = Some(start.time);
        times.seen = Some(times.seen.map_or(start.time, |seen| seen.max(start.time)));
    });
    if record.stage == Stage::Completing {
        // The wish may have been taken back since, and users have written on: what is asked for now gets a fence of its own.
        completion::abort(ctx).await?;
        publisher.update(|report| report.completion = None);
    }
    clone::again(ctx, record.dirty, start.time).await?;
    ctx.store.write(vec![ctx.store.update_sync(doc! {"dirty": true, "format": FORMAT})?]).await?;
    let (lanes, workers) = open_lanes(ctx, record, &watermark).await?;
    let committed = Committed::by(&lanes);
    let mut checkpointer = Checkpointer::new(ctx.clone(), Arc::clone(&watermark), committed);
    publisher.update(|report| report.replication.lanes = u32::try_from(lanes.len()).unwrap_or(0));

    let cancel = stop.child_token();
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for worker in workers {
        tasks.spawn(worker.run());
    }
    spawn_stream(ctx, record, &mut tasks, lanes, &watermark, start.token, &cancel);
    let (cloned_sender, mut cloned) = watch::channel(record.stage != Stage::Cloning);
    {
        let (ctx, cancel) = (ctx.clone(), cancel.clone());
        tasks.spawn(async move { clone::run(&ctx, &cancel, slot, &cloned_sender).await });
    }
    spawn_builder(ctx, &mut tasks, &cancel);
    spawn_pace(ctx, &mut tasks, &cancel);

    let mut steer = Steer::new(ctx, record);
    let mut ticks = tokio::time::interval(LOOK);
    let mut checkpoints = tokio::time::interval(ctx.config.replication.checkpoint_interval);
    let mut last_write = Instant::now();
    let end = loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(panic)) => return Err(Error::new(Reason::Internal, format!("a task ended: {panic}"))),
                // All of them may notice a stop before we do.
                None if stop.is_cancelled() => break End::Stopped,
                None => return Err(Error::new(Reason::Internal, "every task ended")),
            },
            () = stop.cancelled() => break End::Stopped,
            _ = checkpoints.tick() => {
                checkpointer.write(Document::new()).await?;
                last_write = Instant::now();
            }
            () = moment(&mut ticks, &mut cloned) => {
                let applied = watermark.mark().time;
                ctx.progress.update_times(|times| times.applied = Some(applied));
                clone::missing(ctx, applied).await?;
                let wanted = desired.borrow().clone();
                steer.position.applied = applied;
                steer.position.cloned = *cloned.borrow_and_update();
                steer.position.settled = ctx.catalog.is_settled(applied);
                if let Some(end) = steer.look(&wanted, publisher, &mut checkpointer).await? {
                    break end;
                }
                if publisher.is_failing() && last_write.elapsed() > SOON {
                    checkpoints.reset_immediately();
                }
            }
        }
    };
    cancel.cancel();
    let clean = drain(&mut tasks).await?;
    // A clone has no checkpoint of its own: its slots are durable batch by batch.
    let stopped = doc! {"stoppedAt": jiff::Timestamp::now().to_string(), "dirty": !clean};
    checkpointer.write(stopped).await?;
    Ok(end)
}

/// The next time to look: after a while, or when the clone is done.
async fn moment(ticks: &mut Interval, cloned: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = ticks.tick() => {}
        // Its sender goes when the clone's task is stopped.
        Ok(()) = cloned.changed() => {}
    }
}

fn spawn_stream(
    ctx: &Context,
    record: &SyncRecord,
    tasks: &mut JoinSet<Result<()>>,
    lanes: Vec<Lane>,
    watermark: &Arc<Watermark>,
    token: String,
    cancel: &CancellationToken,
) {
    let (sender, receiver) = mpsc::channel(4);
    {
        let (ctx, cancel) = (ctx.clone(), cancel.clone());
        tasks.spawn(async move {
            tokio::select! {
                outcome = reader::read(&ctx, token, sender) => outcome,
                () = cancel.cancelled() => Ok(()),
            }
        });
    }
    let begun = record.intent.as_ref().map(|intent| intent.token.clone());
    let committed = Committed::by(&lanes);
    let ddl = Ddl::new(ctx.clone(), committed, record.ddl_position.clone(), begun, record.listed_until);
    let catalogue_time = record.catalogue_time.unwrap_or(Timestamp { time: 0, increment: 0 });
    let router = Router::new(ctx.clone(), lanes, Arc::clone(watermark), ddl, catalogue_time);
    let cancel = cancel.clone();
    tasks.spawn(async move {
        tokio::select! {
            outcome = router.run(receiver) => outcome,
            () = cancel.cancelled() => Ok(()),
        }
    });
}

fn spawn_builder(ctx: &Context, tasks: &mut JoinSet<Result<()>>, cancel: &CancellationToken) {
    let (builder, cancel) = (Arc::clone(&ctx.builder), cancel.clone());
    tasks.spawn(async move {
        tokio::select! {
            outcome = builder.run() => outcome,
            () = cancel.cancelled() => Ok(()),
        }
    });
}

/// Only while data moves: who rests, or empties its queues at a stop, is not slowed down.
fn spawn_pace(ctx: &Context, tasks: &mut JoinSet<Result<()>>, cancel: &CancellationToken) {
    if !ctx.config.limits.watches() {
        return;
    }
    let (ctx, cancel) = (ctx.clone(), cancel.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = pace::watch::watch(&ctx) => Ok(()),
            () = cancel.cancelled() => Ok(()),
        }
    });
}

async fn open_lanes(
    ctx: &Context,
    record: &SyncRecord,
    watermark: &Arc<Watermark>,
) -> Result<(Vec<Lane>, Vec<lane::Worker>)> {
    let filter = doc! {"sync": ctx.store.sync(), "kind": LANE};
    let mut records: Vec<LaneRecord> = ctx.store.find_latest(SLOTS, filter).await?;
    records.sort_by_key(|record| record.number);
    // Another number would send a document to a lane which is beyond its events.
    if record.lanes < 1 || !records.iter().map(|lane| lane.number).eq(0..record.lanes) {
        let found = records.len();
        return Err(Error::new(
            Reason::StateMismatch,
            format!("the durable state has {found} of {} lanes", record.lanes),
        ));
    }
    // What a lane or DDL has done was seen, by an earlier run: clones must not read from before it. Where a stream was opened
    // is no event, and may be a moment that the source has not reached.
    let positions = records.iter().map(|lane| &lane.position).chain([&record.ddl_position]);
    let done = positions.filter(|position| !token::is_high_water(position));
    let newest = done.filter_map(|position| token::time(position)).max();
    ctx.progress.update_times(|times| times.seen = times.seen.max(newest));
    let (mut lanes, mut workers) = (Vec::new(), Vec::new());
    for record in &records {
        let (lane, worker) = lane::open(ctx, record, Arc::clone(watermark)).await?;
        lanes.push(lane);
        workers.push(worker);
    }
    Ok((lanes, workers))
}

/// Let tasks end by themselves for a while; errors still count, since they may say that something was not applied.
/// False if some had to be aborted.
async fn drain(tasks: &mut JoinSet<Result<()>>) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + DRAIN;
    loop {
        match tokio::time::timeout_at(deadline, tasks.join_next()).await {
            Ok(None) => return Ok(true),
            Ok(Some(Ok(outcome))) => outcome?,
            Ok(Some(Err(_))) => {}
            Err(_) => {
                tasks.abort_all();
                return Ok(false);
            }
        }
    }
}

/// Takes the steps that [`course`](super::lifecycle::course) decides.
struct Steer<'a> {
    ctx: &'a Context,
    position: Position,
    /// From the cutover on, no more DDL is begun.
    ddl: Option<RwLockWriteGuard<'a, ()>>,
}

impl<'a> Steer<'a> {
    fn new(ctx: &'a Context, record: &SyncRecord) -> Self {
        let position = Position {
            cloned: record.stage != Stage::Cloning,
            clone_end: record.clone_end,
            consistent: record.consistent_at.is_some(),
            fence: None,
            settled: false,
            applied: Timestamp { time: 0, increment: 0 },
        };
        Self { ctx, position, ddl: None }
    }

    /// Keep DDL from now on from being begun; false where some is under way, or brought something to be copied: nobody would
    /// end it after the cutover. What an earlier run left half done has come before this run's fence.
    fn hold_ddl(&mut self) -> bool {
        let Ok(ddl) = self.ctx.catalog.ddl.try_write() else { return false };
        if !self.ctx.catalog.is_settled(self.position.applied) {
            return false;
        }
        self.ddl = Some(ddl);
        true
    }

    /// Take steps until there is nothing to do but to wait, or the run is over.
    async fn look(
        &mut self,
        wanted: &Desired,
        publisher: &Publisher,
        checkpointer: &mut Checkpointer,
    ) -> Result<Option<End>> {
        loop {
            let step = self.position.next(wanted.state, publisher.restart_wanted(wanted));
            match step {
                Step::Leave => return Ok(Some(End::Stopped)),
                Step::Copy => {
                    let catalog = &self.ctx.catalog;
                    let left =
                        catalog.all().iter().filter(|one| one.state() != CollectionState::Cloned).count();
                    publisher.enter(Phase::Cloning, &format!("copying: {left} collections to go"));
                }
                Step::LearnCloneEnd => self.learn_clone_end(publisher).await?,
                Step::CatchUp => {
                    publisher.enter(Phase::CatchingUp, "applying what happened during the copy");
                }
                Step::BecomeConsistent => {
                    let now = jiff::Timestamp::now();
                    checkpointer.write(doc! {"consistentAt": now.to_string()}).await?;
                    self.position.consistent = true;
                    publisher.update(|report| report.initial_sync.completed_at = Some(now));
                }
                Step::Follow => publisher.enter(Phase::Streaming, "following the source"),
                Step::FixFence => self.fix_fence(publisher).await?,
                Step::Drain => publisher.enter(Phase::Completing, "draining to the fence"),
                Step::CutOver => {
                    if !self.hold_ddl() {
                        return Ok(None);
                    }
                    checkpointer.write(Document::new()).await?;
                    return Ok(Some(End::Drained));
                }
                Step::Abort => {
                    completion::abort(self.ctx).await?;
                    self.position.fence = None;
                    publisher.update(|report| report.completion = None);
                }
            }
            if step.is_waiting() {
                return Ok(None);
            }
        }
    }

    async fn learn_clone_end(&mut self, publisher: &Publisher) -> Result<()> {
        let record = self.ctx.store.load().await?;
        let end = record.as_ref().and_then(|record| record.clone_end);
        self.position.clone_end = Some(end.ok_or_else(|| {
            Error::new(Reason::StateMismatch, "the durable state does not say when the clone ended")
        })?);
        let cloned_at = record.and_then(|record| record.cloned_at);
        publisher.update(|report| report.initial_sync.cloned_at = cloned_at);
        Ok(())
    }

    async fn fix_fence(&mut self, publisher: &Publisher) -> Result<()> {
        let requested = completion::request(self.ctx).await?;
        self.position.fence = requested.fence;
        publisher.update(|report| {
            report.completion = Some(CompletionReport {
                requested_at: requested.requested_at,
                fence: requested.fence.map(Into::into),
                ..CompletionReport::default()
            });
        });
        Ok(())
    }
}
