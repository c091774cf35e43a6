//! The beginning of a new sync: a token, the catalogue at that time, what stands in the way, and all of it
//! recorded before anything is written to a user's collection.

use std::fmt::Write as _;

use futures::StreamExt;
use futures::future::try_join_all;
use futures::try_join;
use mongodb::bson::doc;
use serde::Serialize;

use super::{Found, foreign};
use crate::sync::catalog::{create, read};
use crate::sync::config::{Desired, OnExistingData, SyncConfig};
use crate::sync::endpoint::identity::last_writes;
use crate::sync::endpoint::{Endpoint, oplog};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::{Checkpoint, FORMAT, Side, WitnessRecord};
use crate::sync::state::slot::LaneRecord;
use crate::sync::state::store::{COLLECTIONS, INDEXES, SLOTS, VIEWS};
use crate::sync::state::{CollectionRecord, IndexRecord, Stage, Store, SyncRecord, ViewRecord, claims};
use crate::sync::stream::reader;

/// Lanes when the user does not say.
const AUTO_LANES: usize = 4;

/// Sizes that are asked for at a time.
const ESTIMATES: usize = 8;

/// Names in a message at most.
const NAMED: usize = 8;

/// Make and record the plan of a new sync.
pub async fn plan(
    config: &SyncConfig,
    source: &Endpoint,
    store: &Store,
    found: &Found,
    desired: &Desired,
) -> Result<(SyncRecord, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut reserved = foreign::state_databases(source).await?;
    foreign::check_loop(source, &reserved, &found.target).await?;
    reserved.retain(|db| config.scope.may_contain_db(db));
    let scope = reserved.iter().fold(config.scope.clone(), |scope, db| scope.with_reserved(db));
    let (token, time) = reader::start(source, &scope).await?;
    let catalogue = read::read(source, &scope, time).await?;
    if !catalogue.unsupported.is_empty() {
        let names = catalogue.unsupported.iter().map(|one| format!("{} ({})", one.namespace, one.what));
        let names = listed(names);
        if !config.initial_sync.skip_unsupported {
            return Err(Error::new(Reason::Unsupported, format!("not supported: {names}")));
        }
        tracing::warn!("left out, since not supported: {names}");
        warnings.push(format!("left out, since not supported: {names}"));
    }
    if catalogue.piecemeal {
        warnings.push(
            "the source does not offer $listCatalog: its catalogue was read collection by collection"
                .to_owned(),
        );
    }
    let listed_until = if catalogue.piecemeal {
        let hello = source.command("admin", doc! {"hello": 1}).await?;
        last_writes(&hello).map(|(newest, _)| newest)
    } else {
        None
    };
    let collections = catalogue.collections.iter().map(|collection| &collection.namespace);
    let namespaces: Vec<Namespace> =
        collections.chain(catalogue.views.iter().map(|view| &view.namespace)).cloned().collect();
    claims::check(store, &namespaces).await?;
    if config.initial_sync.on_existing_data == OnExistingData::Fail {
        check_empty(store.target(), &namespaces).await?;
    }
    if namespaces.is_empty() {
        warnings.push(
            "the scope matches no collection of the source now; collections created later that match are copied"
                .to_owned(),
        );
    }
    let lanes = if config.replication.lanes == 0 { AUTO_LANES } else { config.replication.lanes };
    let lanes = i32::try_from(lanes).unwrap_or(i32::MAX);
    let witness = match oplog::witness_at(source, time).await {
        Ok(witness) => witness,
        Err(error) if error.reason() == Reason::NotAuthorized => {
            warnings.push(oplog::NOT_READABLE.to_owned());
            None
        }
        Err(error) => return Err(error),
    };
    let record = SyncRecord {
        id: store.sync().to_owned(),
        format: FORMAT,
        epoch: store.epoch(),
        writes: 0,
        resource_uid: config.resource_uid.clone(),
        source: Side { set_name: found.source.set_name.clone(), set_id: found.source.set_id.clone() },
        target: Side { set_name: found.target.set_name.clone(), set_id: found.target.set_id.clone() },
        include: config.scope.include().to_vec(),
        exclude: config.scope.exclude().to_vec(),
        reserved,
        stage: Stage::Planning,
        lanes,
        catalogue_time: Some(time),
        listed_until,
        checkpoint: Some(Checkpoint { token: token.clone(), time }),
        dirty: false,
        witness: witness.map(|witness| WitnessRecord { time: witness.time, term: witness.term }),
        ddl_position: String::new(),
        intent: None,
        clone_end: None,
        started_at: Some(jiff::Timestamp::now()),
        cloned_at: None,
        consistent_at: None,
        completion: None,
        handled_retry: desired.retry.clone(),
        handled_restart: desired.restart.clone(),
    };
    // What an earlier plan, or the sync before a restart, left behind goes only now: a refusal keeps it. The sync's own
    // document comes first: every fenced write needs it.
    store.begin_anew(&record).await?;
    record_all(source, store, &record, &catalogue, &namespaces, &token).await?;
    // Again: the opposite direction may have been planned at the same time, and saw nothing of ours.
    let opposite = foreign::check_loop(source, &foreign::state_databases(source).await?, &found.target).await;
    if let Err(error) = opposite {
        store.clear().await?;
        return Err(error);
    }
    tracing::info!(collections = namespaces.len(), time = %time, "the catalogue is recorded");
    Ok((SyncRecord { stage: Stage::Cloning, ..record }, warnings))
}

async fn record_all(
    source: &Endpoint,
    store: &Store,
    record: &SyncRecord,
    catalogue: &read::SourceCatalog,
    namespaces: &[Namespace],
    token: &str,
) -> Result<()> {
    let mut indexes = Vec::new();
    for found in &catalogue.collections {
        for spec in &found.indexes {
            let name = spec.get_str("name").unwrap_or_default();
            indexes.push(IndexRecord::new(store.sync(), found.uuid, name, spec.as_bytes(), ""));
        }
    }
    let views: Vec<ViewRecord> = catalogue
        .views
        .iter()
        .map(|view| ViewRecord::new(store.sync(), &view.namespace, view.options.as_bytes()))
        .collect();
    // What waits at the same time is written at the same time, and the source is asked meanwhile.
    let collections = async {
        let mut collections = Vec::with_capacity(catalogue.collections.len());
        for (found, (documents, bytes)) in catalogue.collections.iter().zip(sizes(source, catalogue).await) {
            let options = found.options.as_bytes();
            let record = CollectionRecord::new(store.sync(), found.uuid, &found.namespace, options);
            collections.push(CollectionRecord { documents, bytes, ..record });
        }
        add_all(store, COLLECTIONS, &collections).await
    };
    try_join!(collections, add_all(store, INDEXES, &indexes), add_all(store, VIEWS, &views))?;
    for some in namespaces.chunks(500) {
        if let Err(error) = store.write(vec![claims::claim(store, some)?]).await {
            return Err(claims::explain(store, some, error).await);
        }
    }
    let lanes: Vec<LaneRecord> =
        (0..record.lanes).map(|number| LaneRecord::new(store.sync(), store.epoch(), number, token)).collect();
    store.write(vec![store.put(SLOTS, &lanes)?, store.update_sync(doc! {"stage": "Cloning"})?]).await
}

async fn add_all<T: Serialize>(store: &Store, to: &str, records: &[T]) -> Result<()> {
    let adds = records.chunks(500).map(|some| async { store.write(vec![store.add(to, some)?]).await });
    try_join_all(adds).await.map(drop)
}

/// Documents and bytes of each collection.
async fn sizes(source: &Endpoint, catalogue: &read::SourceCatalog) -> Vec<(i64, i64)> {
    let names: Vec<Namespace> = catalogue.collections.iter().map(|found| found.namespace.clone()).collect();
    futures::stream::iter(names)
        .map(|namespace| {
            let source = source.clone();
            async move { read::estimate(&source, &namespace).await }
        })
        .buffered(ESTIMATES)
        .collect()
        .await
}

/// Data that is there already is never overwritten unless the user said so.
async fn check_empty(target: &Endpoint, namespaces: &[Namespace]) -> Result<()> {
    let mut taken = Vec::new();
    let mut dbs: Vec<&str> = namespaces.iter().map(|namespace| namespace.db.as_str()).collect();
    dbs.sort_unstable();
    dbs.dedup();
    for db in dbs {
        let names = create::names(target, db).await?;
        taken.extend(
            namespaces
                .iter()
                .filter(|namespace| namespace.db == db && names.contains(&namespace.coll))
                .map(ToString::to_string),
        );
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Reason::TargetNotEmpty,
        format!("on the target exist already: {}", listed(taken.into_iter())),
    ))
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let mut text = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if count > NAMED {
        let _ = write!(text, " and {} more", count - NAMED);
    }
    text
}
