//! The clone: plan → read → write → mark done, collection by collection, resumable inside each partition.

pub mod begin;
pub mod partition;
pub mod plan;
pub mod schedule;
pub mod write;

use std::sync::Arc;

use mongodb::bson::{Timestamp, doc};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use schedule::Places;

use super::catalog::{Collection, create, views};
use super::context::Context;
use super::error::{Error, Reason, Result};
use super::share::CloneSlot;
use super::state::record::Copied;
use super::state::store::COLLECTIONS;
use super::state::{CollectionState, Stage};

/// Copy every collection that is not copied yet, then those that come later (their data makes no events, or a capped one
/// must be copied again), until cancelled: batches in flight are finished then. When the first of it is done, in
/// stage `Cloning`, that is recorded, `slot` is given back and `cloned` says so.
pub async fn run(
    ctx: &Context,
    cancel: &CancellationToken,
    mut slot: Option<CloneSlot>,
    cloned: &watch::Sender<bool>,
) -> Result<()> {
    views::create_missing(ctx).await?;
    let places = OnceCell::new();
    loop {
        let collections = open(ctx);
        if !collections.is_empty() {
            let places = places.get_or_init(|| async {
                Places::new(&ctx.config.initial_sync, ctx.writers.at_a_time().await)
            });
            if !schedule::copy_all(ctx, collections, places.await, cancel).await? {
                return Ok(());
            }
        }
        if !*cloned.borrow() && open(ctx).is_empty() {
            finish(ctx).await?;
            let _ = cloned.send_replace(true);
            slot = None;
        }
        tokio::select! {
            () = ctx.catalog.wait_until(|| !open(ctx).is_empty()) => {}
            () = cancel.cancelled() => break,
        }
    }
    drop(slot);
    Ok(())
}

fn open(ctx: &Context) -> Vec<Arc<Collection>> {
    let mut all = ctx.catalog.all();
    all.retain(|collection| collection.state() != CollectionState::Cloned && !collection.is_gone());
    // What was begun first: the stream may be waiting for it.
    all.sort_by_key(|collection| collection.state() == CollectionState::Pending);
    all
}

/// Copy capped collections again whose order the last run has left in doubt: all where it did not end cleanly (`dirty`), else
/// those that had not caught up with their clone at the `checkpoint`, since what was deleted during a scan is not kept.
pub async fn again(ctx: &Context, dirty: bool, checkpoint: Timestamp) -> Result<()> {
    let capped =
        ctx.catalog.all().into_iter().filter(|one| one.is_capped() && one.state() == CollectionState::Cloned);
    for collection in capped.filter(|one| dirty || one.is_catching_up(checkpoint)) {
        restart(ctx, &collection).await?;
        tracing::info!(
            namespace = collection.record().target,
            dirty,
            "copying a capped collection again: the last run left its order in doubt"
        );
    }
    Ok(())
}

/// Back to the beginning of a collection's clone; its events are discarded until it begins. What is on the target goes
/// first, and again after a crash here: DDL of a collection that waits finds nothing there, and changes the record only.
pub async fn restart(ctx: &Context, collection: &Collection) -> Result<()> {
    let _ddl = ctx.catalog.ddl.write().await;
    let mut record = collection.record().clone();
    if let Some(uuid) = record.target_uuid {
        let _hold = ctx.builder.hold(record.uuid).await?;
        if record.state == CollectionState::Cloned {
            // Whoever finds it so begins here again.
            record.state = CollectionState::Cloning;
            ctx.store.write(vec![ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?]).await?;
        }
        let namespace = record.target_namespace();
        if ctx.store.has_intent().await? {
            create::drop_in_scope(&ctx.target, &ctx.config.scope, &namespace.db, uuid).await?;
        } else {
            create::drop(&ctx.target, &namespace, uuid).await?;
        }
        record.target_uuid = None;
    }
    record.state = CollectionState::Pending;
    record.late = true;
    (record.read_time, record.clone_end, record.whole) = (None, None, None);
    let slots = ctx.store.remove_partitions(record.uuid)?;
    ctx.store.write(vec![ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?, slots]).await?;
    collection.set(record);
    ctx.catalog.wake();
    Ok(())
}

/// The clone of everything has ended: what is read from now on is ordinary streaming.
async fn finish(ctx: &Context) -> Result<()> {
    let end = ctx.catalog.all().iter().filter_map(|collection| collection.record().clone_end).max();
    let end = match end {
        Some(end) => end,
        None => source_time(ctx).await?,
    };
    let set = doc! {"stage": stage_name(Stage::Streaming), "cloneEnd": end, "clonedAt": jiff::Timestamp::now().to_string()};
    ctx.store.write(vec![ctx.store.update_sync(set)?]).await?;
    tracing::info!("every collection is copied");
    Ok(())
}

/// The name of a stage as the durable state has it.
pub fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Planning => "Planning",
        Stage::Cloning => "Cloning",
        Stage::Streaming => "Streaming",
        Stage::Completing => "Completing",
        Stage::Restoring => "Restoring",
        Stage::Completed => "Completed",
    }
}

/// The source's newest time, at or after every event that was read.
pub async fn source_time(ctx: &Context) -> Result<Timestamp> {
    let now = ctx.lookups.source_time().await?;
    let times = ctx.progress.times();
    Ok(now.max(times.seen.unwrap_or(now)).max(times.read.unwrap_or(now)))
}

/// The collection is copied: its events may be applied from its read time on. `whole` is what that was without a
/// recorded partition.
async fn done(ctx: &Context, collection: &Arc<Collection>, whole: Option<Copied>) -> Result<()> {
    let end = source_time(ctx).await?;
    {
        let _ddl = ctx.catalog.ddl.read().await;
        if !ctx.catalog.holds(collection) {
            return Ok(());
        }
        let mut record = collection.record().clone();
        record.state = CollectionState::Cloned;
        record.clone_end = Some(end);
        record.whole = whole;
        ctx.store.write(vec![ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?]).await?;
        if whole.is_some() {
            ctx.progress.partitions_done.add(1);
            ctx.progress.partitions_copied.add(1);
        }
        tracing::info!(namespace = record.target, "collection copied");
        collection.set(record);
    }
    ctx.progress.collections_done.add(1);
    ctx.catalog.wake();
    // A small collection's indexes were built before its data.
    if collection.record().bytes > begin::INDEX_FIRST_BYTES {
        ctx.builder.wake();
    }
    Ok(())
}

/// The collection is not on the source any more. Its drop is an event that is still to come: [`missing`] looks after it.
async fn gone(ctx: &Context, collection: &Arc<Collection>) -> Result<()> {
    let time = source_time(ctx).await?;
    tracing::info!(
        namespace = collection.record().source,
        "the collection was dropped on the source during its clone"
    );
    collection.mark_gone(time);
    ctx.progress.collections_done.add(1);
    ctx.catalog.wake();
    Ok(())
}

/// Fail if the stream has passed the time at which a collection was not there, and its drop never came. Its events were
/// discarded meanwhile: its clone begins anew.
pub async fn missing(ctx: &Context, applied: Timestamp) -> Result<()> {
    let passed = |one: &Arc<Collection>| one.gone_at().is_some_and(|time| applied > time);
    let Some(one) = ctx.catalog.all().into_iter().find(passed) else { return Ok(()) };
    restart(ctx, &one).await?;
    let name = one.record().source.clone();
    Err(Error::new(
        Reason::Interrupted,
        format!("{name} was not found on the source, but was not dropped: looking again"),
    ))
}
