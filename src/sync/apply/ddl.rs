//! DDL: judged by the namespace it ends in, applied when the lanes of its collections are empty. Its intent is
//! durable first, its commands carry UUIDs, and the token of the last one done is durable after.

use std::sync::Arc;

use mongodb::bson::{Document, Uuid, doc};

use crate::sync::catalog::{Collection, create, read};
use crate::sync::context::Context;
use crate::sync::endpoint::raw;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::binary;
use crate::sync::state::store::{COLLECTIONS, INDEXES};
use crate::sync::state::{CollectionRecord, CollectionState, IndexRecord, Operation, claims};
use crate::sync::stream::{Event, Kind};

/// Applies DDL events, one at a time.
#[derive(Debug)]
pub struct Ddl {
    ctx: Context,
    position: String,
    /// The event that an earlier run had begun.
    begun: Option<String>,
}

impl Ddl {
    /// Go on after the event at `position`; `begun` may have been half done.
    pub fn new(ctx: Context, position: String, begun: Option<String>) -> Self {
        Self { ctx, position, begun }
    }

    /// The token of the last event done.
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Apply one event, or find that it is none of ours, or stop at it.
    pub async fn apply(&mut self, event: &Event<'_>) -> Result<()> {
        if event.token <= self.position.as_str() {
            return Ok(());
        }
        let known = event.uuid.and_then(|uuid| self.ctx.catalog.get(uuid));
        let scope = &self.ctx.config.scope;
        let in_scope = scope.contains(event.db, event.coll);
        match event.kind {
            Kind::Create if in_scope => self.create(event).await,
            Kind::Rename => self.rename(event, known).await,
            Kind::Drop | Kind::CreateIndexes | Kind::DropIndexes => match known {
                Some(collection) => self.of_collection(event, collection).await,
                None if in_scope && event.uuid.is_some() => {
                    Err(unsupported(event, "of a collection that is not known"))
                }
                None => Ok(()),
            },
            // The drops of the collections have come before it; views make none and are not followed yet.
            Kind::Other("dropDatabase") => Ok(()),
            Kind::Other(_) if in_scope || known.is_some() => Err(unsupported(event, "is not supported")),
            Kind::Other(name) if event.coll.is_empty() => {
                if scope.may_contain_db(event.db) {
                    Err(unsupported(event, &format!("({name}) is not supported")))
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Wait until nothing of the collection is in a lane, or in the middle of its clone.
    async fn quiesce(&self, collection: &Collection) {
        let catalog = Arc::clone(&self.ctx.catalog);
        let uuid = collection.uuid;
        catalog
            .wait_until(|| {
                catalog.get(uuid).is_none_or(|now| {
                    now.is_gone() || matches!(now.state(), CollectionState::Pending | CollectionState::Cloned)
                })
            })
            .await;
        collection.drained().await;
    }

    /// Make the intent durable; whether an earlier run had done so.
    async fn intend(&mut self, event: &Event<'_>) -> Result<bool> {
        if self.begun.take().is_some_and(|begun| begun == event.token) {
            return Ok(true);
        }
        let intent = self.ctx.store.update_sync(doc! {"intent": {"token": event.token}})?;
        self.ctx.store.write(vec![intent]).await?;
        Ok(false)
    }

    /// Record the outcome together with the event's token.
    async fn record(&mut self, event: &Event<'_>, mut operations: Vec<Operation>) -> Result<()> {
        operations.push(self.ctx.store.update_sync(doc! {"ddlPosition": event.token, "intent": null})?);
        self.ctx.store.write(operations).await?;
        event.token.clone_into(&mut self.position);
        self.ctx.progress.events_applied.add(1);
        Ok(())
    }

    async fn create(&mut self, event: &Event<'_>) -> Result<()> {
        let namespace = event.namespace();
        let Some(uuid) = event.uuid else { return Err(unsupported(event, "(a view) is not supported")) };
        if self.ctx.catalog.get(uuid).is_some() {
            return Ok(());
        }
        let options = event.description.unwrap_or_default();
        if let Some(what) = read::unsupported(options) {
            return Err(unsupported(event, &format!("of {what} is not supported")));
        }
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = catalog.ddl.lock().await;
        let begun = self.intend(event).await?;
        let target = &self.ctx.target;
        let target_uuid = match create::existing(target, &namespace).await? {
            create::Existing::Nothing => create::create(target, &namespace, options).await?,
            create::Existing::Collection(found) if begun && create::is_empty(target, &namespace).await? => {
                found
            }
            _ => {
                return Err(Error::new(
                    Reason::TargetNotEmpty,
                    format!("{namespace} was created on the source, but exists on the target already"),
                ));
            }
        };
        let record = CollectionRecord {
            id: CollectionRecord::key(self.ctx.store.sync(), uuid),
            sync: self.ctx.store.sync().to_owned(),
            uuid,
            source: namespace.to_string(),
            target: namespace.to_string(),
            target_uuid: Some(target_uuid),
            options: binary(options),
            state: CollectionState::Cloned,
            read_time: None,
            clone_end: None,
            documents: 0,
            bytes: 0,
        };
        let claimed = [namespace.clone()];
        claims::check(&self.ctx.store, &claimed).await?;
        let operations = vec![
            claims::release(&self.ctx.store, &claimed)?,
            claims::claim(&self.ctx.store, &claimed)?,
            self.ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?,
        ];
        if let Err(error) = self.record(event, operations).await {
            return Err(claims::explain(&self.ctx.store, &claimed, error).await);
        }
        tracing::info!(%namespace, "collection created");
        self.ctx.catalog.insert(record);
        Ok(())
    }

    async fn of_collection(&mut self, event: &Event<'_>, collection: Arc<Collection>) -> Result<()> {
        self.quiesce(&collection).await;
        let catalog = Arc::clone(&self.ctx.catalog);
        let guard = catalog.ddl.lock().await;
        if collection.state() == CollectionState::Creating {
            // Its clone began while we waited for the lock.
            drop(guard);
            return Box::pin(self.of_collection(event, collection)).await;
        }
        match event.kind {
            Kind::Drop => self.drop_collection(event, &collection).await,
            Kind::CreateIndexes => self.create_indexes(event, &collection).await,
            _ => self.drop_indexes(event, &collection).await,
        }
    }

    async fn drop_collection(&mut self, event: &Event<'_>, collection: &Arc<Collection>) -> Result<()> {
        let _hold = self.ctx.builder.hold(collection.uuid).await?;
        self.intend(event).await?;
        let (namespace, target_uuid) = {
            let record = collection.record();
            (record.target_namespace(), record.target_uuid)
        };
        if let Some(target_uuid) = target_uuid {
            create::drop(&self.ctx.target, &namespace, target_uuid).await?;
        }
        let operations = self.forget(collection.uuid, &namespace)?;
        self.record(event, operations).await?;
        tracing::info!(%namespace, "collection dropped");
        self.ctx.catalog.remove(collection.uuid);
        Ok(())
    }

    fn forget(&self, uuid: Uuid, namespace: &Namespace) -> Result<Vec<Operation>> {
        let store = &self.ctx.store;
        Ok(vec![
            store.remove(COLLECTIONS, doc! {"uuid": uuid})?,
            store.remove(INDEXES, doc! {"collection": uuid})?,
            store.remove(crate::sync::state::store::SLOTS, doc! {"collection": uuid})?,
            claims::release(store, std::slice::from_ref(namespace))?,
        ])
    }

    /// Only recorded: the builder builds them in the background.
    async fn create_indexes(&mut self, event: &Event<'_>, collection: &Arc<Collection>) -> Result<()> {
        let specs = index_specs(event);
        let mut records: Vec<IndexRecord> = Vec::with_capacity(specs.len());
        for spec in specs {
            let Some(name) = raw::get(spec, "name").and_then(|name| name.as_str()) else { continue };
            let spec = read::without(spec, &["ns"]);
            records.push(IndexRecord::new(
                self.ctx.store.sync(),
                collection.uuid,
                name,
                spec.as_bytes(),
                event.token,
            ));
        }
        let operations = vec![self.ctx.store.put(INDEXES, &records)?];
        self.record(event, operations).await?;
        self.ctx.builder.wake();
        Ok(())
    }

    async fn drop_indexes(&mut self, event: &Event<'_>, collection: &Arc<Collection>) -> Result<()> {
        let _hold = self.ctx.builder.hold(collection.uuid).await?;
        self.intend(event).await?;
        let namespace = collection.target();
        let created = collection.record().target_uuid.is_some();
        let mut names: Vec<String> = Vec::new();
        for spec in index_specs(event) {
            let Some(name) = raw::get(spec, "name").and_then(|name| name.as_str()) else { continue };
            if created {
                create::drop_index(&self.ctx.target, &namespace, name).await?;
            }
            names.push(name.to_owned());
        }
        let filter: Document = doc! {"collection": collection.uuid, "name": {"$in": names}};
        let operations = vec![self.ctx.store.remove(INDEXES, filter)?];
        self.record(event, operations).await
    }

    async fn rename(&mut self, event: &Event<'_>, known: Option<Arc<Collection>>) -> Result<()> {
        let Some((to_db, to_coll)) = event.to else { return Err(unsupported(event, "says no new name")) };
        let to = Namespace::new(to_db, to_coll);
        let into_scope = self.ctx.config.scope.contains(to_db, to_coll);
        let Some(collection) = known else {
            return if into_scope {
                Err(unsupported(event, &format!("to {to}, into the scope, is not supported")))
            } else {
                Ok(())
            };
        };
        if !into_scope {
            return Err(unsupported(event, &format!("to {to}, out of the scope, is not supported")));
        }
        if to.db != collection.target().db {
            return Err(unsupported(event, &format!("to {to}, in another database, is not supported")));
        }
        let replaced = event
            .description
            .and_then(|description| raw::get(description, "dropTarget"))
            .and_then(|uuid| uuid.as_uuid())
            .and_then(|uuid| self.ctx.catalog.get(Uuid::from_bytes(uuid)));
        self.quiesce(&collection).await;
        if let Some(replaced) = &replaced {
            self.quiesce(replaced).await;
        }
        let catalog = Arc::clone(&self.ctx.catalog);
        let guard = catalog.ddl.lock().await;
        let settled =
            |collection: &Collection| collection.state() != CollectionState::Creating || collection.is_gone();
        if !settled(&collection) || replaced.as_ref().is_some_and(|replaced| !settled(replaced)) {
            drop(guard);
            return Box::pin(self.rename(event, Some(collection))).await;
        }
        let _hold = self.ctx.builder.hold(collection.uuid).await?;
        let _held = match &replaced {
            Some(replaced) => Some(self.ctx.builder.hold(replaced.uuid).await?),
            None => None,
        };
        self.intend(event).await?;
        self.rename_on_target(event, &collection, replaced.as_ref(), &to).await
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
        let replaced_uuid = replaced.and_then(|replaced| replaced.record().target_uuid);
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
        self.ctx.catalog.announce();
        Ok(())
    }
}

fn index_specs<'a>(event: &Event<'a>) -> Vec<&'a [u8]> {
    event
        .description
        .and_then(|description| raw::get(description, "indexes"))
        .map(|indexes| raw::elements(indexes.value).filter_map(|spec| spec.as_document()).collect())
        .unwrap_or_default()
}

fn unsupported(event: &Event<'_>, what: &str) -> Error {
    let kind = match event.kind {
        Kind::Create => "create",
        Kind::Drop => "drop",
        Kind::Rename => "rename",
        Kind::CreateIndexes => "createIndexes",
        Kind::DropIndexes => "dropIndexes",
        Kind::Other(name) => name,
        _ => "a document event",
    };
    let name = if event.coll.is_empty() { event.db.to_owned() } else { event.namespace().to_string() };
    Error::new(Reason::UnsupportedEvent, format!("the event '{kind}' of {name} {what}"))
}
