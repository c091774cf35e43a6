//! What a sync that is begun anew had made on the target. Once its records are forgotten nobody knows any more that it is ours:
//! what the source has lost since, or loses before its turn in the new clone, would stay for ever.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::bson::Uuid;

use crate::sync::catalog::create::{self, Existing};
use crate::sync::endpoint::Endpoint;
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;
use crate::sync::state::{CollectionRecord, Stage, Store, SyncRecord};

/// Drops at a time.
const AT_A_TIME: usize = 8;

/// Collections and views that the sync before made.
#[derive(Debug, Default)]
pub struct Former {
    collections: Vec<CollectionRecord>,
    views: HashSet<Namespace>,
    /// A rename may have been done, and not been recorded.
    half_done: bool,
}

/// Something of ours that stands on the target.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Its name now.
    pub namespace: Namespace,
    found: Existing,
}

impl Former {
    /// What is recorded. Nothing once the cutover was committed: what was ours is its users' since.
    pub async fn load(store: &Store, record: &SyncRecord) -> Result<Self> {
        if matches!(record.stage, Stage::Restoring | Stage::Completed) {
            return Ok(Self::default());
        }
        let views = store.views().await?;
        let views = views.iter().filter(|view| view.created);
        Ok(Self {
            collections: store.collections().await?,
            views: views.filter_map(|view| Namespace::parse(&view.namespace)).collect(),
            half_done: record.intent.is_some(),
        })
    }

    /// What of it stands on the target, in the scope and under the names that the sync gave: what somebody renamed there
    /// was set aside.
    pub async fn left_over(&self, target: &Endpoint, scope: &Scope) -> Result<Vec<LeftOver>> {
        let mut ours: HashMap<Uuid, Namespace> = HashMap::new();
        for record in &self.collections {
            if let Some(uuid) = record.target_uuid {
                ours.insert(uuid, record.target_namespace());
            }
        }
        let dbs: HashSet<&str> = ours.values().chain(&self.views).map(|one| one.db.as_str()).collect();
        let mut found = Vec::new();
        for db in dbs {
            for (name, existing) in create::existing_in(target, db).await? {
                let namespace = Namespace::new(db, name);
                let is_ours = match existing {
                    Existing::Collection(uuid) => {
                        ours.get(&uuid).is_some_and(|named| self.half_done || *named == namespace)
                    }
                    _ => self.views.contains(&namespace),
                };
                if is_ours && scope.contains(db, &namespace.coll) {
                    found.push(LeftOver { namespace, found: existing });
                }
            }
        }
        Ok(found)
    }
}

/// Drop what is left over.
pub async fn drop(store: &Store, left_over: Vec<LeftOver>) -> Result<()> {
    stream::iter(left_over)
        .map(Ok)
        .try_for_each_concurrent(AT_A_TIME, |LeftOver { namespace, found }| async move {
            tracing::warn!(%namespace, "dropping what the sync before made, as onExistingData: Drop asks");
            store.prove().await?;
            create::drop_existing(store.target(), &namespace, found).await
        })
        .await
}
