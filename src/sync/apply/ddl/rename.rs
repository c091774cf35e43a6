//! Renames: within the scope, out of it, and into it, where the collection is copied first.

use std::sync::Arc;

use mongodb::bson::Uuid;

use super::{Ddl, Room, unsupported};
use crate::sync::catalog::{Collection, create};
use crate::sync::endpoint::raw;
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;
use crate::sync::state::store::COLLECTIONS;
use crate::sync::state::{CollectionRecord, claims};
use crate::sync::stream::Event;

/// A document without fields.
const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];

impl Ddl {
    pub(super) async fn rename(&mut self, event: &Event<'_>, known: Option<Arc<Collection>>) -> Result<()> {
        let Some((to_db, to_coll)) = event.to else { return Err(unsupported(event, "says no new name")) };
        let to = Namespace::new(to_db, to_coll);
        let into_scope = self.ctx.config.scope.contains(to_db, to_coll);
        let replaced = event
            .description
            .and_then(|description| raw::get(description, "dropTarget"))
            .and_then(|uuid| uuid.as_uuid())
            .and_then(|uuid| self.ctx.catalog.get(Uuid::from_bytes(uuid)));
        let Some(collection) = known else {
            return if into_scope { self.rename_into_scope(event, replaced, &to).await } else { Ok(()) };
        };
        if !into_scope {
            tracing::info!(from = %event.namespace(), %to, "renamed out of the scope");
            return self.of_collection(event, collection).await;
        }
        if collection.target() == to && replaced.is_none() {
            // The catalogue was read later than this.
            return self.record(event, Vec::new()).await;
        }
        if to.db != collection.target().db {
            return Err(unsupported(event, &format!("to {to}, in another database, is not supported")));
        }
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = self.quiesced(&catalog, &[Some(&collection), replaced.as_ref()]).await;
        let _hold = self.ctx.builder.hold(collection.uuid).await?;
        let _held = match &replaced {
            Some(replaced) => Some(self.ctx.builder.hold(replaced.uuid).await?),
            None => None,
        };
        claims::check(&self.ctx.store, std::slice::from_ref(&to)).await?;
        let moves = target_uuid(Some(&collection)).is_some() && target_uuid(replaced.as_ref()).is_none();
        if moves && self.make_room(event, &to, collection.uuid, false).await? == Room::TakenByOurs {
            return self.of_the_past(event).await;
        }
        self.intend(event).await?;
        self.rename_on_target(event, &collection, replaced.as_ref(), &to).await
    }

    /// What was not followed so far is copied now; what it replaces goes.
    async fn rename_into_scope(
        &mut self,
        event: &Event<'_>,
        replaced: Option<Arc<Collection>>,
        to: &Namespace,
    ) -> Result<()> {
        let Some(uuid) = event.uuid else { return Err(unsupported(event, "says no collectionUUID")) };
        claims::check(&self.ctx.store, std::slice::from_ref(to)).await?;
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = self.quiesced(&catalog, &[replaced.as_ref()]).await;
        let _held = match &replaced {
            Some(replaced) => Some(self.ctx.builder.hold(replaced.uuid).await?),
            None => None,
        };
        self.intend(event).await?;
        let mut operations = Vec::new();
        if let Some(replaced) = &replaced {
            let before = replaced.record().clone();
            if let Some(target_uuid) = before.target_uuid {
                create::drop(&self.ctx.target, to, target_uuid).await?;
            }
            operations.extend(self.forget(replaced.uuid, to)?);
        }
        let record =
            CollectionRecord { late: true, ..CollectionRecord::new(self.ctx.store.sync(), uuid, to, &EMPTY) };
        operations.extend(self.claim(to)?);
        operations.push(self.ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?);
        self.record_claim(event, operations, to).await?;
        tracing::info!(from = %event.namespace(), %to, "renamed into the scope: copying it");
        if let Some(replaced) = &replaced {
            catalog.remove(replaced.uuid);
        }
        catalog.insert(record);
        Ok(())
    }

    async fn rename_on_target(
        &mut self,
        event: &Event<'_>,
        collection: &Arc<Collection>,
        replaced: Option<&Arc<Collection>>,
        to: &Namespace,
    ) -> Result<()> {
        let mut record = collection.record().clone();
        let from = record.target_namespace();
        let replaced_uuid = target_uuid(replaced);
        match record.target_uuid {
            Some(uuid) => create::rename(&self.ctx.target, uuid, &from, to, replaced_uuid).await?,
            // Not cloned yet: only the name that it will get changes.
            None => {
                if let Some(uuid) = replaced_uuid {
                    create::drop(&self.ctx.target, to, uuid).await?;
                }
            }
        }
        record.source = to.to_string();
        record.target = to.to_string();
        let mut operations = match replaced {
            Some(replaced) => self.forget(replaced.uuid, to)?,
            None => vec![claims::release(&self.ctx.store, std::slice::from_ref(to))?],
        };
        operations.push(claims::release(&self.ctx.store, std::slice::from_ref(&from))?);
        operations.push(claims::claim(&self.ctx.store, std::slice::from_ref(to))?);
        operations.push(self.ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?);
        if let Err(error) = self.record(event, operations).await {
            return Err(claims::explain(&self.ctx.store, std::slice::from_ref(to), error).await);
        }
        tracing::info!(%from, %to, "collection renamed");
        if let Some(replaced) = replaced {
            self.ctx.catalog.remove(replaced.uuid);
        }
        collection.set(record);
        self.ctx.catalog.wake();
        Ok(())
    }
}

fn target_uuid(collection: Option<&Arc<Collection>>) -> Option<Uuid> {
    collection.and_then(|collection| collection.record().target_uuid)
}
