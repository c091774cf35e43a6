//! Index builds in the background, out of the durable catalogue: no lane and no checkpoint waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::{RawDocumentBuf, Uuid, doc};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::create;
use super::index;
use super::live::{Catalog, Collection};
use crate::sync::endpoint::failure;
use crate::sync::error::{Class, Error, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::slot::any_reply;
use crate::sync::state::store::INDEXES;
use crate::sync::state::transaction::WriteError;
use crate::sync::state::{CollectionState, IndexRecord, IndexState, Operation, Store};

/// Builds what the durable catalogue says is waiting.
#[derive(Debug)]
pub struct Builder {
    store: Store,
    catalog: Arc<Catalog>,
    wake: Notify,
    rest: Notify,
    activity: Mutex<Activity>,
}

#[derive(Debug, Default)]
struct Activity {
    busy: HashMap<Uuid, (Namespace, Vec<String>)>,
    held: HashSet<Uuid>,
    /// When indexes of a collection gave way last.
    gave_way: HashMap<Uuid, Instant>,
}

impl Builder {
    /// For one run of a sync.
    pub fn new(store: Store, catalog: Arc<Catalog>) -> Self {
        Self { store, catalog, wake: Notify::new(), rest: Notify::new(), activity: Mutex::default() }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to build.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Build until cancelled.
    pub async fn run(&self) -> Result<()> {
        loop {
            if self.pass().await? == 0 {
                let _ = tokio::time::timeout(Duration::from_secs(10), self.wake.notified()).await;
            }
        }
    }

    /// Build everything that waits now; the number of indexes tried.
    pub async fn pass(&self) -> Result<usize> {
        let waiting: Vec<IndexRecord> =
            self.store.find(INDEXES, doc! {"sync": self.store.sync(), "state": "Waiting"}).await?;
        let mut by_collection: HashMap<Uuid, Vec<IndexRecord>> = HashMap::new();
        for record in waiting {
            by_collection.entry(record.collection).or_default().push(record);
        }
        let mut tried = 0;
        for (uuid, records) in by_collection {
            let Some(collection) = self.catalog.get(uuid) else { continue };
            if collection.state() != CollectionState::Cloned {
                continue;
            }
            let namespace = {
                let mut activity = self.activity();
                if activity.held.contains(&uuid) {
                    continue;
                }
                let namespace = collection.target();
                let names = records.iter().map(|record| record.name.clone()).collect();
                activity.busy.insert(uuid, (namespace.clone(), names));
                namespace
            };
            let outcome = self.build(&collection, &namespace, &records).await;
            self.activity().busy.remove(&uuid);
            self.rest.notify_waiters();
            match outcome {
                Ok(()) => tried += records.len(),
                // An earlier run was killed in a rename: that is still to come, and the indexes wait for it.
                Err(error) if failure::is_of_a_missing_collection(&error) => {
                    tracing::debug!(%namespace, %error, "no indexes are built now");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tried)
    }

    async fn build(
        &self,
        collection: &Collection,
        namespace: &Namespace,
        records: &[IndexRecord],
    ) -> Result<()> {
        let collated = collection.is_collated();
        let uuid = collection.record().target_uuid;
        let specs: Vec<RawDocumentBuf> =
            records.iter().map(|record| index::relaxed(&record.spec.bytes, collated)).collect();
        tracing::info!(%namespace, indexes = records.len(), "building indexes");
        match create::create_indexes(self.store.target(), namespace, uuid, &specs).await {
            Ok(()) => {
                for record in records {
                    self.settle(namespace, record, None).await?;
                }
                Ok(())
            }
            Err(error) if is_of_no_index(&error) => Err(error),
            Err(_) => self.build_each(namespace, uuid, records, &specs).await,
        }
    }

    /// One bad index does not keep the others away, nor the data.
    async fn build_each(
        &self,
        namespace: &Namespace,
        uuid: Option<Uuid>,
        records: &[IndexRecord],
        specs: &[RawDocumentBuf],
    ) -> Result<()> {
        for (record, spec) in records.iter().zip(specs) {
            if self.is_held(record.collection) {
                return Ok(());
            }
            match self.build_one(namespace, uuid, &record.name, spec).await {
                Ok(()) => self.settle(namespace, record, None).await?,
                Err(error) if is_of_no_index(&error) => return Err(error),
                Err(error) => self.settle(namespace, record, Some(&error)).await?,
            }
        }
        Ok(())
    }

    /// An index that stands there in another form, since its specification changed while it was built, is built anew.
    async fn build_one(
        &self,
        namespace: &Namespace,
        uuid: Option<Uuid>,
        name: &str,
        spec: &RawDocumentBuf,
    ) -> Result<()> {
        let target = self.store.target();
        let specs = std::slice::from_ref(spec);
        match create::create_indexes(target, namespace, uuid, specs).await {
            Err(error)
                if matches!(
                    error.code(),
                    Some(failure::INDEX_OPTIONS_CONFLICT | failure::INDEX_KEY_SPECS_CONFLICT)
                ) && create::has_index(target, namespace, name).await? =>
            {
                create::drop_index(target, namespace, uuid, name).await?;
                create::create_indexes(target, namespace, uuid, specs).await
            }
            other => other,
        }
    }

    fn is_held(&self, uuid: Uuid) -> bool {
        self.activity().held.contains(&uuid)
    }

    /// Record the outcome, unless the index was dropped or replaced meanwhile: then what was built goes again.
    async fn settle(
        &self,
        namespace: &Namespace,
        record: &IndexRecord,
        failure: Option<&Error>,
    ) -> Result<()> {
        {
            let mut activity = self.activity();
            // DDL may have aborted it, or dropped what was just built: it stays waiting and is looked at again.
            if activity.held.contains(&record.collection) {
                return Ok(());
            }
            // From here on it is no build that DDL could abort.
            if let Some((_, building)) = activity.busy.get_mut(&record.collection) {
                building.retain(|name| *name != record.name);
            }
        }
        if let Some(error) = failure {
            tracing::warn!(%namespace, index = record.name, %error, "an index cannot be built now; it is tried again at completion");
        }
        let state = if failure.is_some() { "Failed" } else { "Built" };
        let update = doc! {
            "q": {"_id": &record.id, "generation": &record.generation},
            "u": {"$set": {"state": state, "error": failure.map(ToString::to_string)}},
        };
        let replies = self
            .store
            .write_checked(
                vec![Operation::new(self.store.db(), &doc! {"update": INDEXES, "updates": [update]})?],
                any_reply,
            )
            .await?;
        let kept = replies.first().is_some_and(|reply| reply.get_i32("n").ok() == Some(1));
        if !kept && failure.is_none() {
            create::drop_index(self.store.target(), namespace, None, &record.name).await?;
        }
        Ok(())
    }

    /// An index refuses a document that the source accepts, since the source has it no more or not yet: it goes, and is
    /// tried again at completion. False if there is none that could refuse, and none went since `began`: two lanes may
    /// meet the same one.
    pub async fn give_way(
        self: &Arc<Self>,
        collection: &Collection,
        error: &WriteError,
        began: Instant,
    ) -> Result<bool> {
        let _hold = self.hold(collection.uuid).await?;
        let uuid = collection.record().target_uuid;
        let filter = doc! {"sync": self.store.sync(), "collection": collection.uuid, "state": "Built"};
        let built: Vec<IndexRecord> = self.store.find(INDEXES, filter).await?;
        let mut refusing: Vec<IndexRecord> =
            built.into_iter().filter(|record| index::may_refuse(&record.spec.bytes)).collect();
        let namespace = collection.target();
        for record in &mut refusing {
            create::drop_index(self.store.target(), &namespace, uuid, &record.name).await?;
            record.state = IndexState::Failed;
            record.error = Some(error.words.clone());
            tracing::warn!(%namespace, index = record.name, code = error.code, "the index refuses a document of the source: dropped until completion");
        }
        if refusing.is_empty() {
            return Ok(self.activity().gave_way.get(&collection.uuid).is_some_and(|at| *at >= began));
        }
        self.store.write(vec![self.store.put(INDEXES, &refusing)?]).await?;
        self.activity().gave_way.insert(collection.uuid, Instant::now());
        Ok(true)
    }

    /// Keep builds of a collection away while DDL changes it: one in progress is aborted.
    pub async fn hold(self: &Arc<Self>, uuid: Uuid) -> Result<Hold> {
        self.activity().held.insert(uuid);
        let hold = Hold { builder: Arc::clone(self), uuid };
        loop {
            let rest = self.rest.notified();
            let Some((namespace, names)) = self.activity().busy.get(&uuid).cloned() else { return Ok(hold) };
            // What is not built by one command (any more) is dropped one by one.
            if !create::abort_build(self.store.target(), &namespace, &names).await? {
                for name in names {
                    create::drop_index(self.store.target(), &namespace, None, &name).await?;
                }
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), rest).await;
        }
    }
}

/// While it lives, no index of the collection is built.
#[derive(Debug)]
pub struct Hold {
    builder: Arc<Builder>,
    uuid: Uuid,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.builder.activity().held.remove(&self.uuid);
        self.builder.wake();
    }
}

/// Whether an error says nothing of the index that was to be built.
fn is_of_no_index(error: &Error) -> bool {
    error.class() == Class::Transient || failure::is_of_a_missing_collection(error)
}
