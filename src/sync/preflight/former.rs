//! What a sync that is begun anew had made on the target. Once its records are forgotten nobody knows any more that it is ours:
//! what the source has lost since, or loses before its turn in the new clone, would stay for ever.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Uuid, doc};

use crate::sync::catalog::create;
use crate::sync::endpoint::{Endpoint, raw};
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

/// Something of ours that stands on the target; views have no UUID.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Its name now.
    pub namespace: Namespace,
    uuid: Option<Uuid>,
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
            for entry in target.collect_from_primary(db, doc! {"listCollections": 1}).await? {
                let Some(name) = raw::get(&entry, "name").and_then(|name| name.as_str()) else { continue };
                let namespace = Namespace::new(db, name);
                let uuid = raw::get(&entry, "info")
                    .and_then(|info| raw::get(info.value, "uuid")?.as_uuid())
                    .map(Uuid::from_bytes);
                let is_ours = match &uuid {
                    Some(uuid) => ours.get(uuid).is_some_and(|named| self.half_done || *named == namespace),
                    None => self.views.contains(&namespace),
                };
                if is_ours && scope.contains(db, name) {
                    found.push(LeftOver { namespace, uuid });
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
        .try_for_each_concurrent(AT_A_TIME, |LeftOver { namespace, uuid }| async move {
            tracing::warn!(%namespace, "dropping what the sync before made, as onExistingData: Drop asks");
            store.prove().await?;
            match uuid {
                Some(uuid) => create::drop(store.target(), &namespace, uuid).await,
                None => create::drop_view(store.target(), &namespace).await,
            }
        })
        .await
}
