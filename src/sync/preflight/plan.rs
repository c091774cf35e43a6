//! The beginning of a new sync: what stands in the way of what the survey found, and all of it recorded before anything is
//! written to a user's collection.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use futures::try_join;
use mongodb::bson::doc;
use serde::Serialize;

use super::former::{self, Former, LeftOver};
use super::survey::Survey;
use super::{Found, foreign, listed};
use crate::sync::catalog::create;
use crate::sync::config::{Desired, OnExistingData, SyncConfig};
use crate::sync::endpoint::Endpoint;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::{Checkpoint, FORMAT, Side, WitnessRecord};
use crate::sync::state::slot::LaneRecord;
use crate::sync::state::store::{COLLECTIONS, INDEXES, SLOTS, VIEWS};
use crate::sync::state::{CollectionRecord, IndexRecord, Stage, Store, SyncRecord, ViewRecord, claims};
use crate::sync::writers::Writers;

/// Make and record the plan of a new sync, by what its source is; `former` made what it takes the place of.
pub async fn plan(
    config: &SyncConfig,
    source: &Endpoint,
    store: &Store,
    found: &Found,
    desired: &Desired,
    survey: &Survey,
    former: &Former,
) -> Result<(SyncRecord, Vec<String>)> {
    let mut warnings = survey.warnings.clone();
    let Survey { catalogue, token, time, .. } = survey;
    let collections = catalogue.collections.iter().map(|collection| &collection.namespace);
    let namespaces: Vec<Namespace> =
        collections.chain(catalogue.views.iter().map(|view| &view.namespace)).cloned().collect();
    claims::check(store, &namespaces).await?;
    let left_over = former.left_over(store.target(), &config.scope).await?;
    let drops = config.initial_sync.on_existing_data == OnExistingData::Drop;
    if !drops {
        check_empty(store.target(), &namespaces, &left_over).await?;
    }
    if namespaces.is_empty() {
        warnings.push(
            "the scope matches no collection of the source now; collections created later that match are copied"
                .to_owned(),
        );
    }
    let lanes = Writers::new(store.target(), config.replication.lanes).lanes().await;
    let lanes = i32::try_from(lanes).unwrap_or(i32::MAX);
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
        reserved: survey.reserved.clone(),
        stage: Stage::Planning,
        lanes,
        catalogue_time: Some(*time),
        listed_until: survey.listed_until,
        checkpoint: Some(Checkpoint { token: token.clone(), time: *time }),
        dirty: false,
        witness: survey.witness.map(|witness| WitnessRecord { time: witness.time, term: witness.term }),
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
    // What an earlier plan, or the sync before a restart, left behind goes only now: a refusal keeps it. Data goes before
    // the record of whose it is.
    if drops {
        former::drop(store, left_over).await?;
    }
    // The sync's own document comes first: every fenced write needs it.
    store.begin_anew(&record).await?;
    record_all(store, &record, survey, &namespaces).await?;
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
    store: &Store,
    record: &SyncRecord,
    survey: &Survey,
    namespaces: &[Namespace],
) -> Result<()> {
    let catalogue = &survey.catalogue;
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
    let collections: Vec<CollectionRecord> = catalogue
        .collections
        .iter()
        .zip(&survey.sizes)
        .map(|(found, size)| {
            let options = found.options.as_bytes();
            let record = CollectionRecord::new(store.sync(), found.uuid, &found.namespace, options);
            CollectionRecord { documents: size.documents, bytes: size.bytes, ..record }
        })
        .collect();
    // What waits at the same time is written at the same time.
    try_join!(
        add_all(store, COLLECTIONS, &collections),
        add_all(store, INDEXES, &indexes),
        add_all(store, VIEWS, &views)
    )?;
    for some in namespaces.chunks(500) {
        if let Err(error) = store.write(vec![claims::claim(store, some)?]).await {
            return Err(claims::explain(store, some, error).await);
        }
    }
    let lanes: Vec<LaneRecord> = (0..record.lanes)
        .map(|number| LaneRecord::new(store.sync(), store.epoch(), number, &survey.token))
        .collect();
    store.write(vec![store.put(SLOTS, &lanes)?, store.update_sync(doc! {"stage": "Cloning"})?]).await
}

async fn add_all<T: Serialize>(store: &Store, to: &str, records: &[T]) -> Result<()> {
    let adds = records.chunks(500).map(|some| async { store.write(vec![store.add(to, some)?]).await });
    try_join_all(adds).await.map(drop)
}

/// Data that is there already is never overwritten unless the user said so, and would make the target more than a copy.
async fn check_empty(target: &Endpoint, namespaces: &[Namespace], left_over: &[LeftOver]) -> Result<()> {
    let mut taken: BTreeSet<String> = left_over.iter().map(|one| one.namespace.to_string()).collect();
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
