//! What a sync that is begun anew had made on the target. The source may have dropped or renamed it since, and no event will
//! say so: what is ours and not in the new catalogue is left over.

use std::collections::{BTreeMap, HashSet};

use mongodb::bson::{Uuid, doc};

use crate::sync::catalog::create;
use crate::sync::endpoint::{Endpoint, raw};
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;
use crate::sync::state::{CollectionRecord, Stage, Store, SyncRecord};

/// Collections and views that the sync before made.
#[derive(Debug, Default)]
pub struct Former {
    collections: Vec<CollectionRecord>,
    views: HashSet<Namespace>,
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
        })
    }

    /// What of it stands on the target in the scope, under names that are not among `kept`.
    pub async fn left_over(
        &self,
        target: &Endpoint,
        scope: &Scope,
        kept: &[Namespace],
    ) -> Result<Vec<LeftOver>> {
        let kept: HashSet<&Namespace> = kept.iter().collect();
        let mut ours: BTreeMap<String, HashSet<Uuid>> = BTreeMap::new();
        for record in &self.collections {
            if let Some(uuid) = record.target_uuid {
                ours.entry(record.target_namespace().db).or_default().insert(uuid);
            }
        }
        for view in &self.views {
            ours.entry(view.db.clone()).or_default();
        }
        let mut found = Vec::new();
        for (db, uuids) in ours {
            // By UUID: a rename may have been done, and not been recorded.
            for entry in target.collect_from_primary(&db, doc! {"listCollections": 1}).await? {
                let Some(name) = raw::get(&entry, "name").and_then(|name| name.as_str()) else { continue };
                let namespace = Namespace::new(&db, name);
                let uuid = raw::get(&entry, "info")
                    .and_then(|info| raw::get(info.value, "uuid")?.as_uuid())
                    .map(Uuid::from_bytes);
                let is_ours = match &uuid {
                    Some(uuid) => uuids.contains(uuid),
                    None => self.views.contains(&namespace),
                };
                if is_ours && scope.contains(&db, name) && !kept.contains(&namespace) {
                    found.push(LeftOver { namespace, uuid });
                }
            }
        }
        Ok(found)
    }
}

/// Drop what is left over.
pub async fn drop(store: &Store, left_over: Vec<LeftOver>) -> Result<()> {
    for LeftOver { namespace, uuid } in left_over {
        tracing::warn!(%namespace, "dropping what the sync before made, as onExistingData: Drop asks: it is not on the source");
        store.prove().await?;
        match uuid {
            Some(uuid) => create::drop(store.target(), &namespace, uuid).await?,
            None => create::drop_view(store.target(), &namespace).await?,
        }
    }
    Ok(())
}
