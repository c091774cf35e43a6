//! What the clones of many collections ask again and again, asked together.

use std::collections::HashMap;

use mongodb::bson::{Timestamp, Uuid, doc};

use super::catalog::create::{self, Existing};
use super::endpoint::Endpoint;
use super::endpoint::together::Together;
use super::error::{Error, Reason, Result};
use super::namespace::Namespace;
use super::state::{IndexRecord, Store};

/// The lookups of one run.
#[derive(Debug)]
pub struct Lookups {
    existing: Together<Namespace, Existing>,
    indexes: Together<Uuid, Vec<IndexRecord>>,
    source_time: Together<(), Timestamp>,
    prove: Together<(), ()>,
}

impl Lookups {
    /// Of these ends.
    pub fn new(source: &Endpoint, store: &Store) -> Self {
        let (target, source, store, owned) =
            (store.target().clone(), source.clone(), store.clone(), store.clone());
        Self {
            existing: Together::new(move |names| {
                let target = target.clone();
                async move { existing(&target, &names).await }
            }),
            indexes: Together::new(move |collections| {
                let store = store.clone();
                async move { indexes(&store, &collections).await }
            }),
            source_time: Together::new(move |all: Vec<()>| {
                let source = source.clone();
                async move { Ok(vec![source_time(&source).await?; all.len()]) }
            }),
            prove: Together::new(move |all: Vec<()>| {
                let store = owned.clone();
                async move { store.prove().await.map(|()| all) }
            }),
        }
    }

    /// What stands on the target under a name.
    pub async fn existing(&self, namespace: &Namespace) -> Result<Existing> {
        self.existing.ask(namespace.clone()).await
    }

    /// The indexes of a collection as they are recorded.
    pub async fn indexes_of(&self, collection: Uuid) -> Result<Vec<IndexRecord>> {
        self.indexes.ask(collection).await
    }

    /// Prove that we still own the sync, for a write that no transaction can fence.
    pub async fn prove(&self) -> Result<()> {
        self.prove.ask(()).await
    }

    /// The newest time of the source: that of its latest operation, or of a later one of another member.
    pub async fn source_time(&self) -> Result<Timestamp> {
        self.source_time.ask(()).await
    }
}

async fn existing(target: &Endpoint, names: &[Namespace]) -> Result<Vec<Existing>> {
    let mut by_db: HashMap<&str, Vec<&str>> = HashMap::new();
    for name in names {
        by_db.entry(&name.db).or_default().push(&name.coll);
    }
    let mut found = HashMap::new();
    for (db, colls) in by_db {
        let standing = create::existing_of(target, db, &colls).await?;
        found.extend(standing.into_iter().map(|(coll, existing)| ((db, coll), existing)));
    }
    let of = |name: &Namespace| found.get(&(name.db.as_str(), name.coll.clone())).copied();
    Ok(names.iter().map(|name| of(name).unwrap_or(Existing::Nothing)).collect())
}

async fn indexes(store: &Store, collections: &[Uuid]) -> Result<Vec<Vec<IndexRecord>>> {
    let mut found: HashMap<Uuid, Vec<IndexRecord>> = HashMap::new();
    for record in store.indexes_of(collections).await? {
        found.entry(record.collection).or_default().push(record);
    }
    Ok(collections.iter().map(|uuid| found.get(uuid).cloned().unwrap_or_default()).collect())
}

/// From the primary: a member that lags would name a time before what others have shown.
async fn source_time(source: &Endpoint) -> Result<Timestamp> {
    let reply = source.command("admin", doc! {"ping": 1}).await?;
    reply
        .get_timestamp("operationTime")
        .map_err(|_| Error::new(Reason::NotAReplicaSet, "the source's replies carry no operationTime"))
}
