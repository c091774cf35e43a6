//! The cutover: fix a fence, drain to it, restore what was deferred, stop.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use mongodb::bson::{Document, Timestamp, Uuid, doc};

use super::catalog::{Catalog, Collection, create, index, options};
use super::clone::stage_name;
use super::context::Context;
use super::endpoint::identity::last_writes;
use super::endpoint::{Endpoint, failure, raw};
use super::error::{Class, Error, Reason, Result};
use super::namespace::Namespace;
use super::report::UnsuccessfulIndex;
use super::state::record::CompletionRecord;
use super::state::store::{CLAIMS, INDEXES};
use super::state::{IndexRecord, IndexState, Stage, Store};

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

/// Forget the fence and go back to streaming.
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
/// cannot be restored are returned, and can be asked for again: then (`first` is false) nothing else is touched, since the
/// target has had a life of its own.
pub async fn restore(store: &Store, catalog: &Catalog, first: bool) -> Result<Vec<UnsuccessfulIndex>> {
    let mut missing = Vec::new();
    let mut standing = Standing::default();
    let mut indexes = store.indexes().await?;
    // Two indexes with the same keys differ once the unique one is unique: what could not be built beside it comes last.
    indexes.sort_by_key(|record| record.state != IndexState::Built);
    for mut record in indexes {
        let Some(collection) = catalog.get(record.collection) else { continue };
        if record.state == IndexState::Restored {
            continue;
        }
        let namespace = collection.target();
        let uuid = collection.record().target_uuid;
        if record.state == IndexState::Built
            && !standing.has(store.target(), &collection, &record.name).await?
        {
            // It gave way to a document, and that was not recorded.
            record.state = IndexState::Waiting;
        }
        let outcome = restore_one(store.target(), &namespace, uuid, &record, collection.is_collated()).await;
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
        store.write(vec![store.put(INDEXES, std::slice::from_ref(&record))?]).await?;
    }
    if first {
        restore_options(store.target(), catalog).await?;
    }
    let now = jiff::Timestamp::now();
    let done = doc! {"stage": stage_name(Stage::Completed), "completion.completedAt": now.to_string()};
    store.write(vec![store.update_sync(done)?, store.remove(CLAIMS, Document::new())?]).await?;
    tracing::info!(missing = missing.len(), "completed");
    Ok(missing)
}

/// The indexes that an earlier restoration left behind.
pub async fn unsuccessful_indexes(store: &Store, catalog: &Catalog) -> Result<Vec<UnsuccessfulIndex>> {
    let records = store.indexes().await?;
    Ok(records
        .iter()
        .filter(|record| record.state != IndexState::Restored)
        .filter_map(|record| {
            let collection = catalog.get(record.collection)?;
            Some(unsuccessful(&collection.target().to_string(), record))
        })
        .collect())
}

/// Names of the indexes that stand on the target, asked for once a collection.
#[derive(Debug, Default)]
struct Standing(HashMap<Uuid, Option<HashSet<String>>>);

impl Standing {
    async fn has(&mut self, target: &Endpoint, collection: &Collection, name: &str) -> Result<bool> {
        let names = match self.0.entry(collection.uuid) {
            Entry::Occupied(asked) => asked.into_mut(),
            Entry::Vacant(new) => {
                let listed = create::index_names(target, &collection.target()).await;
                new.insert(match listed {
                    // Who may build them need not be one who may list them.
                    Err(error) if error.reason() == Reason::NotAuthorized => None,
                    listed => Some(listed?),
                })
            }
        };
        Ok(names.as_ref().is_none_or(|names| names.contains(name)))
    }
}

async fn restore_one(
    target: &Endpoint,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    record: &IndexRecord,
    collated: bool,
) -> Result<()> {
    let spec = &record.spec.bytes;
    let unbuilt = matches!(record.state, IndexState::Waiting | IndexState::Failed);
    let complete = unbuilt && build(target, namespace, uuid, record, collated).await? == Form::Complete;
    for step in index::restoration(spec) {
        // What stood there already keeps whether it is hidden: the server does not compare that.
        if complete && !step.contains_key("hidden") {
            continue;
        }
        let mut command = doc! {"collMod": &namespace.coll, "index": step, "writeConcern": {"w": "majority"}};
        if let Some(uuid) = uuid {
            command.insert("collectionUUID", uuid);
        }
        target.long_command(&namespace.db, command).await?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Relaxed,
    Complete,
}

/// Build an index that is not there, first as it would have been before: a build of that form may be going on, which
/// this one joins. Where another index with the same keys is in its way it is built as it is on the source.
async fn build(
    target: &Endpoint,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    record: &IndexRecord,
    collated: bool,
) -> Result<Form> {
    let in_the_way = |error: &Error| {
        matches!(error.code(), Some(failure::INDEX_OPTIONS_CONFLICT | failure::INDEX_KEY_SPECS_CONFLICT))
    };
    let spec = &record.spec.bytes;
    match create::create_indexes(target, namespace, uuid, &[index::relaxed(spec, collated)]).await {
        Ok(()) => return Ok(Form::Relaxed),
        Err(error) if in_the_way(&error) => {}
        Err(error) => return Err(error),
    }
    match create::create_indexes(target, namespace, uuid, &[index::complete(spec, collated)]).await {
        Ok(()) => Ok(Form::Complete),
        // It stands there in some form between the two.
        Err(error) if in_the_way(&error) && create::has_index(target, namespace, &record.name).await? => {
            Ok(Form::Relaxed)
        }
        Err(error) => Err(error),
    }
}

/// Caps and the expiry of whole collections, last of all: from here on the target removes by itself. What is refused for
/// one does not keep the others from theirs.
async fn restore_options(target: &Endpoint, catalog: &Catalog) -> Result<()> {
    let mut refused = Ok(());
    for collection in catalog.all() {
        let (namespace, uuid, steps) = {
            let record = collection.record();
            (record.target_namespace(), record.target_uuid, options::restoration(&record.options.bytes))
        };
        // What was not created is not there.
        let Some(uuid) = uuid else { continue };
        for step in steps {
            let mut command = doc! {"collMod": &namespace.coll};
            command.extend(step);
            command.insert("collectionUUID", uuid);
            command.insert("writeConcern", doc! {"w": "majority"});
            let Err(error) = target.long_command(&namespace.db, command).await else { continue };
            if error.class() == Class::Transient {
                return Err(error);
            }
            if failure::is_of_a_missing_collection(&error) {
                tracing::warn!(%namespace, "it was dropped or renamed on the target since the cutover: its options are its users'");
                break;
            }
            refused = refused.and(Err(error.context(format!("restoring the options of {namespace}"))));
        }
    }
    refused
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
