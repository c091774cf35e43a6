//! The beginning of a collection's clone: create it on the target, fix the time from which it is read, plan.

use std::sync::Arc;

use futures::try_join;
use mongodb::bson::{Uuid, doc};

use super::{plan, restart, source_time};
use crate::sync::catalog::create::{self, Existing};
use crate::sync::catalog::{Collection, index, options, read};
use crate::sync::config::OnExistingData;
use crate::sync::context::Context;
use crate::sync::endpoint::failure;
use crate::sync::error::{Class, Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::binary;
use crate::sync::state::slot::{PARTITION, PartitionRecord};
use crate::sync::state::store::{COLLECTIONS, INDEXES, SLOTS};
use crate::sync::state::transaction::Durability;
use crate::sync::state::{CollectionRecord, CollectionState, IndexRecord, IndexState, Operation};

/// Below this, indexes are built before the data: a build on a collection with data costs 20 ms whatever its
/// size, one on an empty collection 2 ms; above, building them after the data is several times faster.
pub const INDEX_FIRST_BYTES: i64 = 4 << 20;

/// Record, of small collections whose turn comes soon, that they may come into being on the target: together, since each
/// recording costs a small one a good part of its data's time.
pub async fn announce(ctx: &Context, soon: &[Arc<Collection>]) -> Result<()> {
    let _ddl = ctx.catalog.ddl.read().await;
    let is_new = |one: &&Arc<Collection>| {
        let record = one.record();
        record.state == CollectionState::Pending && !record.late
    };
    let soon: Vec<_> = soon.iter().filter(|one| ctx.catalog.holds(one)).filter(is_new).collect();
    if soon.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = soon.iter().map(|one| one.record().id.clone()).collect();
    ctx.store.write(vec![ctx.store.creating(&ids)?]).await?;
    for one in soon {
        one.announce();
    }
    Ok(())
}

/// Begin, or find out how far an earlier run came. None if the collection is not in the catalogue any more, or not on
/// the source.
pub async fn begin(ctx: &Context, collection: &Arc<Collection>) -> Result<Option<Vec<PartitionRecord>>> {
    if collection.state() == CollectionState::Cloning {
        let partitions = partitions(ctx, collection).await?;
        // A scan in natural order cannot be resumed. What has no partition (or, by a former version, one that never moved) may
        // have got documents outside of a transaction: a collection with another UUID is out of reach of who wrote them.
        let moved = |one: &PartitionRecord| one.seq > 0 || one.lower.is_some() || one.upper.is_some();
        if !collection.is_capped() && partitions.iter().any(moved) {
            count(ctx, &partitions);
            return Ok(Some(partitions));
        }
        restart(ctx, collection).await?;
    }
    let waiting;
    let mut record = {
        let _ddl = ctx.catalog.ddl.read().await;
        if !ctx.catalog.holds(collection) {
            return Ok(None);
        }
        let (was, announced) = (collection.state(), collection.is_announced());
        let mut record = collection.record().clone();
        record.state = CollectionState::Creating;
        // A build of what is to be cleared would make it anew.
        let _hold = if record.late { Some(ctx.builder.hold(record.uuid).await?) } else { None };
        let found = if record.late {
            let now = source_time(ctx).await?;
            let Some(found) = read::by_uuid(&ctx.source, record.uuid, now).await? else {
                // Its drop will find no UUID to drop: what an earlier run created goes here.
                let namespace = record.target_namespace();
                if was == CollectionState::Creating
                    && let Existing::Collection(uuid) = standing(ctx, &namespace).await?
                    && !ctx.catalog.is_of_another(uuid, record.uuid)
                {
                    clear_begun(ctx, &namespace, uuid).await?;
                }
                return Ok(None);
            };
            record.options = binary(found.options.as_bytes());
            let size = read::estimate(&ctx.source, &found.namespace).await;
            (record.documents, record.bytes) = (size.documents, size.bytes);
            Some(found)
        } else {
            None
        };
        // From here on the router keeps this collection's events; those it discarded are before the read time.
        collection.set(record.clone());
        if !clear_target(ctx, &record, was).await? {
            return Ok(None);
        }
        if !announced {
            let mut operations = vec![ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?];
            if let Some(found) = &found {
                operations.extend(indexes_anew(ctx, found)?);
            }
            ctx.store.write(operations).await?;
        }
        // What is built on it is built on a majority, and would miss a collection that a failover took back.
        waiting = waiting_indexes(ctx, &record).await?;
        let durability = if waiting.is_empty() { Durability::Majority } else { Durability::Primary };
        let namespace = record.target_namespace();
        create::create(&ctx.target, &namespace, &record.options.bytes, durability).await?;
        record.target_uuid = Some(create::created(&namespace, ctx.lookups.existing(&namespace).await?)?);
        collection.set(record.clone());
        record
    };
    record.read_time = Some(source_time(ctx).await?);
    let built = index_first(ctx, &record, waiting).await?;
    let capped = collection.is_capped();
    let planned = if capped { Ok(plan::whole(ctx, &record, true)) } else { plan::plan(ctx, &record).await };
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) if error.class() == Class::Transient => return Err(error),
        Err(error) => {
            tracing::debug!(namespace = record.source, %error, "not divided into partitions");
            plan::whole(ctx, &record, capped)
        }
    };
    let _ddl = ctx.catalog.ddl.read().await;
    if !ctx.catalog.holds(collection) {
        return Ok(None);
    }
    // A rename may have happened since; only what was found out here is set.
    let mut current = collection.record().clone();
    current.state = CollectionState::Cloning;
    current.target_uuid = record.target_uuid;
    current.options = record.options;
    (current.documents, current.bytes) = (record.documents, record.bytes);
    current.late = false;
    current.read_time = record.read_time;
    // The indexes count as built only together with the collection: until then it may be created anew.
    let mut operations = vec![ctx.store.put(COLLECTIONS, std::slice::from_ref(&current))?];
    if !built.is_empty() {
        operations.push(ctx.store.put(INDEXES, &built)?);
    }
    if !planned.iter().any(|partition| partition.unrecorded) {
        for some in planned.chunks(500) {
            operations.push(ctx.store.put(SLOTS, some)?);
        }
    }
    ctx.store.write(operations).await?;
    tracing::info!(
        namespace = current.source,
        documents = current.documents,
        bytes = current.bytes,
        partitions = planned.len(),
        "cloning"
    );
    collection.set(current);
    ctx.catalog.wake();
    count(ctx, &planned);
    Ok(Some(planned))
}

fn count(ctx: &Context, partitions: &[PartitionRecord]) {
    let done = partitions.iter().filter(|partition| partition.done).count();
    ctx.progress.partitions_total.add(partitions.len() as u64);
    ctx.progress.partitions_done.add(done as u64);
}

async fn partitions(ctx: &Context, collection: &Collection) -> Result<Vec<PartitionRecord>> {
    let filter = doc! {"sync": ctx.store.sync(), "kind": PARTITION, "collection": collection.uuid};
    ctx.store.find_latest(SLOTS, filter).await
}

/// Make room: what is empty where something may have been begun is ours, anything else is the user's. False if another
/// collection of ours stands there: an earlier run renamed it as the source did, and did not come to record that. What
/// this one was is gone from the source.
async fn clear_target(ctx: &Context, record: &CollectionRecord, was: CollectionState) -> Result<bool> {
    let namespace = record.target_namespace();
    let mut found = standing(ctx, &namespace).await?;
    if let Existing::Collection(uuid) = found {
        if ctx.catalog.is_of_another(uuid, record.uuid) {
            return Ok(false);
        }
        if was == CollectionState::Creating {
            found = clear_begun(ctx, &namespace, uuid).await?;
        }
    }
    match found {
        Existing::Nothing => Ok(true),
        found if ctx.config.initial_sync.on_existing_data == OnExistingData::Drop => {
            tracing::warn!(%namespace, "dropping what stands on the target, as onExistingData: Drop asks");
            create::drop_existing(&ctx.target, &namespace, found).await?;
            Ok(true)
        }
        _ => Err(Error::new(Reason::TargetNotEmpty, format!("{namespace} exists on the target"))),
    }
}

/// What stands on the target under a name, and the proof that we may change it: nothing else fences what follows. What was
/// found after the proof may be a new owner's.
async fn standing(ctx: &Context, namespace: &Namespace) -> Result<Existing> {
    let (found, ()) = try_join!(ctx.lookups.existing(namespace), ctx.lookups.prove())?;
    if found != Existing::Nothing {
        ctx.lookups.prove().await?;
    }
    Ok(found)
}

/// Drop what an earlier run may have begun, where it has no documents. What stands there then.
async fn clear_begun(ctx: &Context, namespace: &Namespace, uuid: Uuid) -> Result<Existing> {
    if !create::is_empty(&ctx.target, namespace).await? {
        return Ok(Existing::Collection(uuid));
    }
    create::drop(&ctx.target, namespace, uuid).await?;
    Ok(Existing::Nothing)
}

/// Its indexes as the source has them now, in place of those that are recorded.
fn indexes_anew(ctx: &Context, found: &read::SourceCollection) -> Result<Vec<Operation>> {
    // Told from what a build of before still has to say of indexes of the same names.
    let generation = format!("anew {}", jiff::Timestamp::now());
    let records: Vec<IndexRecord> = found
        .indexes
        .iter()
        .map(|spec| {
            let name = spec.get_str("name").unwrap_or_default();
            IndexRecord::new(ctx.store.sync(), found.uuid, name, spec.as_bytes(), &generation)
        })
        .collect();
    let mut operations = vec![ctx.store.remove(INDEXES, doc! {"collection": found.uuid})?];
    if !records.is_empty() {
        operations.push(ctx.store.put(INDEXES, &records)?);
    }
    Ok(operations)
}

/// The indexes that are built before the data.
async fn waiting_indexes(ctx: &Context, record: &CollectionRecord) -> Result<Vec<IndexRecord>> {
    if record.bytes > INDEX_FIRST_BYTES {
        return Ok(Vec::new());
    }
    let mut waiting = ctx.lookups.indexes_of(record.uuid).await?;
    waiting.retain(|index| index.state == IndexState::Waiting);
    Ok(waiting)
}

async fn index_first(
    ctx: &Context,
    record: &CollectionRecord,
    mut waiting: Vec<IndexRecord>,
) -> Result<Vec<IndexRecord>> {
    if waiting.is_empty() {
        return Ok(waiting);
    }
    let collated = options::is_collated(&record.options.bytes);
    let specs: Vec<_> = waiting.iter().map(|record| index::relaxed(&record.spec.bytes, collated)).collect();
    match create::create_indexes(&ctx.target, &record.target_namespace(), record.target_uuid, &specs).await {
        Ok(()) => {}
        Err(error) if error.class() == Class::Transient => return Err(error),
        Err(error) if failure::is_of_a_missing_collection(&error) => {
            return Err(error.as_reason(Reason::Interrupted));
        }
        // The builder tries them one by one later, and says which is the bad one.
        Err(_) => return Ok(Vec::new()),
    }
    for index in &mut waiting {
        index.state = IndexState::Built;
    }
    Ok(waiting)
}
