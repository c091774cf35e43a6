//! DDL: judged by the namespace it ends in, applied when the lanes of its collections are empty. Its intent is
//! durable first, its commands carry UUIDs, and the token of the last one done is durable after.

mod rename;
mod views;

use std::sync::Arc;

use mongodb::bson::{Document, Timestamp, Uuid, doc};
use tokio::sync::RwLockWriteGuard;

use super::committed::Committed;
use crate::sync::catalog::{Catalog, Collection, create, index as catalog_index, options, read};
use crate::sync::config::OnExistingData;
use crate::sync::context::Context;
use crate::sync::endpoint::raw;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::binary;
use crate::sync::state::store::{COLLECTIONS, INDEXES};
use crate::sync::state::transaction::Durability;
use crate::sync::state::{CollectionRecord, CollectionState, IndexRecord, IndexState, Operation, claims};
use crate::sync::stream::{Event, Kind};

/// Applies DDL events, one at a time.
#[derive(Debug)]
pub struct Ddl {
    ctx: Context,
    committed: Committed,
    position: String,
    /// The event that an earlier run had begun.
    begun: Option<String>,
    /// The catalogue was read piece by piece until then: what is not in it may have come and gone.
    listed_until: Option<Timestamp>,
}

/// Whether a name is free on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Nothing stands there, or what was begun.
    Made,
    /// A view of this sync, or the copy of another collection.
    TakenByOurs,
}

impl Ddl {
    /// Go on after the event at `position`; `begun` may have been half done.
    pub fn new(
        ctx: Context,
        committed: Committed,
        position: String,
        begun: Option<String>,
        listed_until: Option<Timestamp>,
    ) -> Self {
        Self { ctx, committed, position, begun, listed_until }
    }

    /// Whether an event of a collection that is not known is of one that came and went while the catalogue was listed.
    pub fn is_before_the_listing(&self, event: &Event<'_>) -> bool {
        self.listed_until.is_some_and(|until| event.time <= until)
    }

    /// The token of the last event done.
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Apply one event, or find that it is none of ours, or stop at it. Each kind's future is on the heap: together they
    /// would fill a thread's stack.
    pub async fn apply(&mut self, event: &Event<'_>) -> Result<()> {
        if event.token <= self.position.as_str() {
            return Ok(());
        }
        let known = event.uuid.and_then(|uuid| self.ctx.catalog.get(uuid));
        let scope = &self.ctx.config.scope;
        let in_scope = scope.contains(event.db, event.coll);
        match event.kind {
            Kind::Create if in_scope && event.uuid.is_none() => Box::pin(self.create_view(event)).await,
            Kind::Create if in_scope => Box::pin(self.create(event)).await,
            Kind::Rename => Box::pin(self.rename(event, known)).await,
            Kind::Drop | Kind::Modify if event.uuid.is_none() => Box::pin(self.of_view(event)).await,
            Kind::Drop | Kind::Modify | Kind::CreateIndexes | Kind::DropIndexes => match known {
                Some(collection) => Box::pin(self.of_collection(event, collection)).await,
                None if in_scope
                    && !self.ctx.config.initial_sync.skip_unsupported
                    && !self.is_before_the_listing(event) =>
                {
                    Err(unsupported(event, "of a collection that is not known"))
                }
                None => Ok(()),
            },
            // The drops of the collections have come before it; views make none. It is never run: what is not in scope
            // stays.
            Kind::DropDatabase => Box::pin(self.drop_views(event)).await,
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

    /// Wait until these collections are not being copied and lanes hold none of their events, and keep clones from
    /// beginning.
    async fn quiesced<'a>(
        &self,
        catalog: &'a Catalog,
        collections: &[Option<&Arc<Collection>>],
    ) -> RwLockWriteGuard<'a, ()> {
        let at_rest = |uuid| {
            catalog.get(uuid).is_none_or(|now| {
                now.is_gone() || matches!(now.state(), CollectionState::Pending | CollectionState::Cloned)
            })
        };
        loop {
            for collection in collections.iter().flatten() {
                catalog.wait_until(|| at_rest(collection.uuid)).await;
                collection.drained().await;
            }
            let guard = catalog.ddl.write().await;
            if collections.iter().flatten().all(|collection| at_rest(collection.uuid)) {
                return guard;
            }
            // A clone began while we waited for the lock.
        }
    }

    /// Whether an earlier run had begun this, and not recorded that it was done.
    fn is_begun(&self, event: &Event<'_>) -> bool {
        self.begun.as_deref() == Some(event.token)
    }

    /// Make the intent durable, where the target has what lanes committed: events that a failover takes back come again, and
    /// would not find the collection as it was. What is refused is refused before: what had been begun is taken for ours.
    async fn intend(&mut self, event: &Event<'_>) -> Result<()> {
        if self.begun.take().is_some_and(|begun| begun == event.token) {
            return Ok(());
        }
        let intent = self.ctx.store.update_sync(doc! {"intent": {"token": event.token}})?;
        self.committed.write(&self.ctx.store, vec![intent]).await
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
        let Some(uuid) = event.uuid else { return Ok(()) };
        if self.ctx.catalog.get(uuid).is_some() {
            return Ok(());
        }
        let options = event.description.unwrap_or_default();
        if let Some(what) = read::unsupported(options) {
            return self.leave_out(event, what);
        }
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = catalog.ddl.write().await;
        let begun = self.is_begun(event);
        // A capped one may be a copy of another, whose documents make no events: its clone brings what is in it.
        let late = options::is_capped(options);
        claims::check(&self.ctx.store, std::slice::from_ref(&namespace)).await?;
        if !late && self.make_room(event, &namespace, uuid, begun).await? == Room::TakenByOurs {
            return self.of_the_past(event).await;
        }
        self.intend(event).await?;
        let mut record = CollectionRecord::new(self.ctx.store.sync(), uuid, &namespace, options);
        if late {
            record.late = true;
        } else {
            record.target_uuid = Some(self.create_or_find(&namespace, options, begun).await?);
            record.state = CollectionState::Cloned;
        }
        let mut operations = self.claim(&namespace)?;
        operations.push(self.ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?);
        self.record_claim(event, operations, &namespace).await?;
        tracing::info!(%namespace, "collection created");
        self.ctx.catalog.insert(record);
        Ok(())
    }

    async fn create_or_find(&self, namespace: &Namespace, options: &[u8], begun: bool) -> Result<Uuid> {
        let target = &self.ctx.target;
        match create::existing(target, namespace).await? {
            create::Existing::Collection(found) if begun => Ok(found),
            _ => {
                create::create(target, namespace, options, Durability::Majority).await?;
                create::created(namespace, create::existing(target, namespace).await?)
            }
        }
    }

    /// What stands on the target under a name that the source gives to a collection is the user's, or of what was begun.
    async fn make_room(
        &self,
        event: &Event<'_>,
        namespace: &Namespace,
        uuid: Uuid,
        begun: bool,
    ) -> Result<Room> {
        let found = create::existing(&self.ctx.target, namespace).await?;
        // Of a collection that is renamed: an earlier run may have renamed it already.
        let copy = self.ctx.catalog.get(uuid).and_then(|known| known.record().target_uuid);
        match found {
            create::Existing::Nothing => return Ok(Room::Made),
            create::Existing::Collection(found) if copy == Some(found) => return Ok(Room::Made),
            create::Existing::Collection(found) if self.ctx.catalog.is_of_another(found, uuid) => {
                return Ok(Room::TakenByOurs);
            }
            create::Existing::View
                if self.is_before_the_listing(event)
                    && self.ctx.catalog.views().contains_key(&namespace.to_string()) =>
            {
                return Ok(Room::TakenByOurs);
            }
            create::Existing::Collection(_)
                if begun && create::is_empty(&self.ctx.target, namespace).await? =>
            {
                return Ok(Room::Made);
            }
            _ => {}
        }
        self.clear(namespace, found).await?;
        Ok(Room::Made)
    }

    /// Drop what is the user's, if that was asked for.
    async fn clear(&self, namespace: &Namespace, found: create::Existing) -> Result<()> {
        if self.ctx.config.initial_sync.on_existing_data != OnExistingData::Drop {
            return Err(Error::new(
                Reason::TargetNotEmpty,
                format!("{namespace} came into being on the source, but exists on the target already"),
            ));
        }
        // After the look: what is found later may be a new owner's.
        self.ctx.store.prove().await?;
        tracing::warn!(%namespace, "dropping what stands on the target, as onExistingData: Drop asks: it came into being on the source");
        create::drop_existing(&self.ctx.target, namespace, found).await
    }

    /// Something else of ours has the name already: only a catalogue that was read piece by piece, later than this event,
    /// says so. What the event did is over.
    async fn of_the_past(&mut self, event: &Event<'_>) -> Result<()> {
        if self.is_before_the_listing(event) {
            return self.record(event, Vec::new()).await;
        }
        let name = event.to.map_or_else(|| event.namespace(), |(db, coll)| Namespace::new(db, coll));
        Err(Error::new(
            Reason::TargetDiverged,
            format!("{name} came into being on the source, but is the copy of something else on the target"),
        ))
    }

    /// Operations that claim a name for this sync, whether it has it already or not. That no other sync has it is asked
    /// before anything is done.
    fn claim(&self, namespace: &Namespace) -> Result<Vec<Operation>> {
        let claimed = std::slice::from_ref(namespace);
        Ok(vec![claims::release(&self.ctx.store, claimed)?, claims::claim(&self.ctx.store, claimed)?])
    }

    async fn record_claim(
        &mut self,
        event: &Event<'_>,
        operations: Vec<Operation>,
        namespace: &Namespace,
    ) -> Result<()> {
        match self.record(event, operations).await {
            Ok(()) => Ok(()),
            Err(error) => Err(claims::explain(&self.ctx.store, std::slice::from_ref(namespace), error).await),
        }
    }

    /// Something that cannot be followed appeared.
    fn leave_out(&self, event: &Event<'_>, what: &str) -> Result<()> {
        if self.ctx.config.initial_sync.skip_unsupported {
            tracing::warn!(namespace = %event.namespace(), what, "left out, since not supported");
            return Ok(());
        }
        Err(unsupported(event, &format!("of {what} is not supported")))
    }

    /// `collMod`: what can be done at once is, the rest is recorded for completion.
    async fn modify(&mut self, event: &Event<'_>, collection: &Arc<Collection>) -> Result<()> {
        let change = event.description.unwrap_or_default();
        self.intend(event).await?;
        let _hold = self.ctx.builder.hold(collection.uuid).await?;
        let mut operations = Vec::new();
        let mut record = collection.record().clone();
        if let Some(index) = raw::get(change, "index").and_then(|index| index.as_document()) {
            operations.extend(self.modify_index(&record, index).await?);
        }
        let options = read::without(change, &["index"]);
        let at_once = options::immediate(options.as_bytes());
        if let Some(uuid) = record.target_uuid.filter(|_| !at_once.is_empty()) {
            create::modify(&self.ctx.target, &record.target_namespace(), uuid, &at_once).await?;
        }
        record.options = binary(options::changed(&record.options.bytes, options.as_bytes()).as_bytes());
        operations.push(self.ctx.store.put(COLLECTIONS, std::slice::from_ref(&record))?);
        self.record(event, operations).await?;
        tracing::info!(namespace = record.target, "collection changed");
        collection.set(record);
        Ok(())
    }

    async fn modify_index(&self, record: &CollectionRecord, change: &[u8]) -> Result<Vec<Operation>> {
        let Some(name) = raw::get(change, "name").and_then(|name| name.as_str()) else {
            return Ok(Vec::new());
        };
        let filter = doc! {"sync": self.ctx.store.sync(), "collection": record.uuid, "name": name};
        let found: Vec<IndexRecord> = self.ctx.store.find(INDEXES, filter).await?;
        let Some(mut index) = found.into_iter().next() else { return Ok(Vec::new()) };
        let expires = |spec: &[u8]| raw::get(spec, "expireAfterSeconds").is_some();
        let before = expires(&index.spec.bytes);
        index.spec = binary(options::changed_index(&index.spec.bytes, change).as_bytes());
        if index.state == IndexState::Built && !before && expires(&index.spec.bytes) {
            let namespace = record.target_namespace();
            let never = doc! {"name": name, "expireAfterSeconds": catalog_index::NEVER};
            let mut command =
                doc! {"collMod": &namespace.coll, "index": never, "writeConcern": {"w": "majority"}};
            if let Some(uuid) = record.target_uuid {
                command.insert("collectionUUID", uuid);
            }
            self.ctx.target.command(&namespace.db, command).await?;
        }
        Ok(vec![self.ctx.store.put(INDEXES, std::slice::from_ref(&index))?])
    }

    async fn of_collection(&mut self, event: &Event<'_>, collection: Arc<Collection>) -> Result<()> {
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = self.quiesced(&catalog, &[Some(&collection)]).await;
        match event.kind {
            Kind::Drop | Kind::Rename => self.drop_collection(event, &collection).await,
            Kind::Modify => self.modify(event, &collection).await,
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
        let created = collection.record().target_uuid;
        let mut names: Vec<String> = Vec::new();
        for spec in index_specs(event) {
            let Some(name) = raw::get(spec, "name").and_then(|name| name.as_str()) else { continue };
            if created.is_some() {
                create::drop_index(&self.ctx.target, &namespace, created, name).await?;
            }
            names.push(name.to_owned());
        }
        let filter: Document = doc! {"collection": collection.uuid, "name": {"$in": names}};
        let operations = vec![self.ctx.store.remove(INDEXES, filter)?];
        self.record(event, operations).await
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
        Kind::Modify => "modify",
        Kind::DropDatabase => "dropDatabase",
        Kind::Other(name) => name,
        _ => "a document event",
    };
    let name = if event.coll.is_empty() { event.db.to_owned() } else { event.namespace().to_string() };
    Error::new(Reason::UnsupportedEvent, format!("the event '{kind}' of {name} {what}"))
}
