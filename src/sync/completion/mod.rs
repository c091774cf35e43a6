//! The cutover: fix a fence, drain to it, restore what was deferred, stop.

use mongodb::bson::{Document, Timestamp, doc};

use super::catalog::{create, index, options};
use super::clone::stage_name;
use super::context::Context;
use super::endpoint::identity::last_writes;
use super::endpoint::{failure, raw};
use super::error::{Class, Error, Reason, Result};
use super::namespace::Namespace;
use super::report::UnsuccessfulIndex;
use super::state::record::CompletionRecord;
use super::state::store::{CLAIMS, INDEXES};
use super::state::{IndexRecord, IndexState, Stage};

/// Fix the fence: everything that the source's primary has written when it was asked.
pub async fn request(ctx: &Context) -> Result<CompletionRecord> {
    let hello = ctx.source.command("admin", doc! {"hello": 1}).await?;
    let (fence, _) = last_writes(&hello)
        .ok_or_else(|| Error::new(Reason::NotAReplicaSet, "the source does not say what it wrote last"))?;
    let requested_at = jiff::Timestamp::now();
    let completion = doc! {"requestedAt": requested_at.to_string(), "fence": fence, "committedAt": null, "completedAt": null};
    let set = doc! {"stage": stage_name(Stage::Completing), "completion": completion};
    ctx.store.write(vec![ctx.store.update_sync(set)?]).await?;
    tracing::info!(fence = %fence, "completing: draining to the fence");
    Ok(CompletionRecord { requested_at, fence: Some(fence), ..CompletionRecord::default() })
}

/// Go back to streaming.
pub async fn abort(ctx: &Context) -> Result<()> {
    let set = doc! {"stage": stage_name(Stage::Streaming), "completion": null};
    ctx.store.write(vec![ctx.store.update_sync(set)?]).await?;
    tracing::info!("completion aborted: streaming on");
    Ok(())
}

/// From here on there is no way back: restoring `unique` is not compatible with applying events.
pub async fn commit(ctx: &Context, fence: Option<Timestamp>) -> Result<jiff::Timestamp> {
    let now = jiff::Timestamp::now();
    let set = doc! {
        "stage": stage_name(Stage::Restoring), "completion.committedAt": now.to_string(), "completion.fence": fence,
    };
    ctx.store.write(vec![ctx.store.update_sync(set)?]).await?;
    Ok(now)
}

/// Build what is missing, restore what was deferred, record the outcome and give the namespaces back. Indexes that
/// cannot be restored are returned, and can be asked for again.
pub async fn restore(ctx: &Context) -> Result<Vec<UnsuccessfulIndex>> {
    let mut missing = Vec::new();
    let mut indexes = ctx.store.indexes().await?;
    // Two indexes with the same keys differ once the unique one is unique: what could not be built beside it comes last.
    indexes.sort_by_key(|record| record.state != IndexState::Built);
    for mut record in indexes {
        let Some(collection) = ctx.catalog.get(record.collection) else { continue };
        if record.state == IndexState::Restored {
            continue;
        }
        let namespace = collection.target();
        let outcome = restore_one(ctx, &namespace, &record, collection.is_collated()).await;
        match outcome {
            Ok(()) => {
                record.state = IndexState::Restored;
                record.error = None;
            }
            Err(error) if error.class() == Class::Transient => return Err(error),
            Err(error) => {
                tracing::warn!(%namespace, index = record.name, %error, "an index is not as it was on the source");
                record.state = IndexState::Failed;
                record.error = Some(error.to_string());
                missing.push(unsuccessful(&namespace.to_string(), &record));
            }
        }
        ctx.store.write(vec![ctx.store.put(INDEXES, std::slice::from_ref(&record))?]).await?;
    }
    restore_options(ctx).await?;
    let now = jiff::Timestamp::now();
    let done = doc! {"stage": stage_name(Stage::Completed), "completion.completedAt": now.to_string()};
    ctx.store.write(vec![ctx.store.update_sync(done)?, ctx.store.remove(CLAIMS, Document::new())?]).await?;
    tracing::info!(missing = missing.len(), "completed");
    Ok(missing)
}

/// The indexes that an earlier restoration left behind.
pub async fn unsuccessful_indexes(ctx: &Context) -> Result<Vec<UnsuccessfulIndex>> {
    let records = ctx.store.indexes().await?;
    Ok(records
        .iter()
        .filter(|record| record.state != IndexState::Restored)
        .filter_map(|record| {
            let collection = ctx.catalog.get(record.collection)?;
            Some(unsuccessful(&collection.target().to_string(), record))
        })
        .collect())
}

async fn restore_one(
    ctx: &Context,
    namespace: &Namespace,
    record: &IndexRecord,
    collated: bool,
) -> Result<()> {
    let spec = &record.spec.bytes;
    if matches!(record.state, IndexState::Waiting | IndexState::Failed) {
        match create::create_indexes(&ctx.target, namespace, &[index::complete(spec, collated)]).await {
            // Built already in its deferred form, with the same name: the steps below change it.
            Err(error) if error.code() == Some(failure::INDEX_KEY_SPECS_CONFLICT) => {}
            Err(error) if error.code() == Some(failure::INDEX_OPTIONS_CONFLICT) => {
                if !create::has_index(&ctx.target, namespace, &record.name).await? {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
    for step in index::restoration(spec) {
        let command = doc! {"collMod": &namespace.coll, "index": step, "writeConcern": {"w": "majority"}};
        ctx.target.command(&namespace.db, command).await?;
    }
    Ok(())
}

/// Caps and the expiry of whole collections, last of all: from here on the target removes by itself.
async fn restore_options(ctx: &Context) -> Result<()> {
    for collection in ctx.catalog.all() {
        let (namespace, steps) = {
            let record = collection.record();
            (record.target_namespace(), options::restoration(&record.options.bytes))
        };
        for step in steps {
            let mut command = doc! {"collMod": &namespace.coll};
            command.extend(step);
            command.insert("writeConcern", doc! {"w": "majority"});
            let done = ctx.target.command(&namespace.db, command).await;
            done.map_err(|error| error.context(format!("restoring the options of {namespace}")))?;
        }
    }
    Ok(())
}

fn unsuccessful(namespace: &str, record: &IndexRecord) -> UnsuccessfulIndex {
    let keys = raw::get(&record.spec.bytes, "key")
        .and_then(|key| Document::try_from(raw::document(key.value)?).ok())
        .and_then(|key| serde_json::to_string(&key).ok())
        .unwrap_or_default();
    UnsuccessfulIndex {
        namespace: namespace.to_owned(),
        index_name: record.name.clone(),
        kind: if record.state == IndexState::Failed { "failed" } else { "incomplete" }.to_owned(),
        reason: record.error.clone().unwrap_or_default(),
        keys,
    }
}
