//! Collections and indexes on the target. Every command names UUIDs where the server lets it, so that one that
//! is repeated after a crash cannot hit another collection of the same name.

use std::collections::HashSet;

use mongodb::bson::{Binary, Bson, Document, RawDocumentBuf, Uuid, doc, spec::BinarySubtype};

use super::{options, read};
use crate::sync::endpoint::{Endpoint, failure, raw};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;
use crate::sync::state::transaction::Durability;

/// What stands under a name on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A view.
    View,
    /// A collection.
    Collection(Uuid),
}

/// How often a collection is looked for that may be renamed meanwhile.
const LOOKS: usize = 3;

fn majority() -> Document {
    doc! {"w": "majority"}
}

fn uuid_value(uuid: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.bytes().to_vec() })
}

/// Look a name up.
pub async fn existing(target: &Endpoint, namespace: &Namespace) -> Result<Existing> {
    let found = existing_of(target, &namespace.db, &[&namespace.coll]).await?;
    Ok(found.into_iter().next().map_or(Existing::Nothing, |(_, existing)| existing))
}

/// Look up names of one database; those under which nothing stands are left out.
pub async fn existing_of(target: &Endpoint, db: &str, names: &[&str]) -> Result<Vec<(String, Existing)>> {
    existing_where(target, db, doc! {"name": {"$in": names}}).await
}

/// What stands in a database.
pub async fn existing_in(target: &Endpoint, db: &str) -> Result<Vec<(String, Existing)>> {
    existing_where(target, db, Document::new()).await
}

async fn existing_where(target: &Endpoint, db: &str, filter: Document) -> Result<Vec<(String, Existing)>> {
    let found = target.collect_from_primary(db, doc! {"listCollections": 1, "filter": filter}).await?;
    let entry = |entry: &Vec<u8>| {
        let name = raw::get(entry, "name")?.as_str()?.to_owned();
        let uuid = raw::get(entry, "info")
            .and_then(|info| raw::get(info.value, "uuid")?.as_uuid())
            .map(Uuid::from_bytes);
        Some((name, uuid.map_or(Existing::View, Existing::Collection)))
    };
    Ok(found.iter().filter_map(entry).collect())
}

/// Names in use in one of `dbs`.
pub async fn names(target: &Endpoint, db: &str) -> Result<Vec<String>> {
    let found = target.collect_from_primary(db, doc! {"listCollections": 1, "nameOnly": true}).await?;
    let name = |entry: &Vec<u8>| raw::get(entry, "name").and_then(|name| name.as_str()).map(str::to_owned);
    Ok(found.iter().filter_map(name).collect())
}

/// Create a view in place of whatever view stands there: it holds no data.
pub async fn create_view(target: &Endpoint, namespace: &Namespace, options: &[u8]) -> Result<()> {
    match existing(target, namespace).await? {
        Existing::Nothing => {}
        Existing::View => drop_view(target, namespace).await?,
        Existing::Collection(_) => {
            return Err(Error::new(
                Reason::TargetNotEmpty,
                format!("{namespace} is a view on the source and a collection on the target"),
            ));
        }
    }
    run_create(target, namespace, options, Durability::Majority).await
}

/// `collMod` with the given elements.
pub async fn modify(
    target: &Endpoint,
    namespace: &Namespace,
    uuid: Uuid,
    elements: &[raw::Element<'_>],
) -> Result<()> {
    let mut writer = raw::Writer::new(64);
    writer.string("collMod", &namespace.coll);
    writer.uuid("collectionUUID", uuid.bytes());
    for element in elements {
        writer.element(&String::from_utf8_lossy(element.name), element.kind, element.value);
    }
    writer.majority();
    let done = target.raw_command(&namespace.db, writer.finish()).await;
    done.map(|_| ()).map_err(|error| error.context(format!("changing the options of {namespace}")))
}

async fn run_create(
    target: &Endpoint,
    namespace: &Namespace,
    options: &[u8],
    durability: Durability,
) -> Result<()> {
    let mut writer = raw::Writer::new(options.len());
    writer.string("create", &namespace.coll);
    options::write_deferred(&mut writer, options);
    match durability {
        Durability::Majority => writer.majority(),
        Durability::Primary => {
            writer.open_document("writeConcern");
            writer.int32("w", 1);
            writer.close();
        }
    }
    let done = target.raw_command(&namespace.db, writer.finish()).await;
    done.map(|_| ()).map_err(|error| error.context(format!("creating {namespace}")))
}

/// The UUID of a collection that was just created.
pub fn created(namespace: &Namespace, existing: Existing) -> Result<Uuid> {
    match existing {
        Existing::Collection(uuid) => Ok(uuid),
        _ => Err(Error::new(
            Reason::TargetDiverged,
            format!("{namespace} vanished from the target after its creation"),
        )),
    }
}

/// Create a collection in its deferred form. Who needs its UUID looks it [`existing`] up: the reply does not say.
pub async fn create(
    target: &Endpoint,
    namespace: &Namespace,
    options: &[u8],
    durability: Durability,
) -> Result<()> {
    if options::is_capped(options) && options::is_clustered(options) {
        // Only a conversion makes such a collection, on the source as here: `create` refuses it (code 6049200).
        let clustered = read::without(options, &["capped", "size", "max"]);
        run_create(target, namespace, clustered.as_bytes(), durability).await?;
        let conversion =
            doc! {"convertToCapped": &namespace.coll, "size": options::UNBOUNDED, "writeConcern": majority()};
        let converted = target.long_command(&namespace.db, conversion).await;
        converted.map(|_| ()).map_err(|error| error.context(format!("creating {namespace}")))
    } else {
        run_create(target, namespace, options, durability).await
    }
}

/// Whether a collection holds no document.
pub async fn is_empty(target: &Endpoint, namespace: &Namespace) -> Result<bool> {
    let found = target
        .command(&namespace.db, doc! {"find": &namespace.coll, "limit": 1, "projection": {"_id": 1}})
        .await?;
    let batch = found.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    Ok(batch.map_or(true, Vec::is_empty))
}

/// Drop the collection with that UUID; gone already is fine.
pub async fn drop(target: &Endpoint, namespace: &Namespace, uuid: Uuid) -> Result<()> {
    let command =
        doc! {"drop": &namespace.coll, "collectionUUID": uuid_value(uuid), "writeConcern": majority()};
    match target.command(&namespace.db, command).await {
        Err(error) if !failure::is_of_a_missing_collection(&error) => {
            Err(error.context(format!("dropping {namespace}")))
        }
        _ => Ok(()),
    }
}

/// Drop what was found under a name; gone already is fine.
pub async fn drop_existing(target: &Endpoint, namespace: &Namespace, found: Existing) -> Result<()> {
    match found {
        Existing::Nothing => Ok(()),
        Existing::View => drop_view(target, namespace).await,
        Existing::Collection(uuid) => drop(target, namespace, uuid).await,
    }
}

/// Drop the collection with that UUID under whatever name of `db` in the scope it stands: a rename may have been done,
/// and not been recorded.
pub async fn drop_in_scope(target: &Endpoint, scope: &Scope, db: &str, uuid: Uuid) -> Result<()> {
    // A rename that was still under way may come between the look and the drop.
    for _ in 0..LOOKS {
        let list = doc! {"listCollections": 1, "filter": {"info.uuid": uuid_value(uuid)}};
        let found = target.collect_from_primary(db, list).await?;
        let name = found.first().and_then(|entry| raw::get(entry, "name")?.as_str());
        let Some(name) = name.filter(|name| scope.contains(db, name)) else { break };
        drop(target, &Namespace::new(db, name), uuid).await?;
    }
    Ok(())
}

/// Drop a view; gone already is fine.
pub async fn drop_view(target: &Endpoint, namespace: &Namespace) -> Result<()> {
    match target.command(&namespace.db, doc! {"drop": &namespace.coll, "writeConcern": majority()}).await {
        Err(error) if error.code() != Some(failure::NAMESPACE_NOT_FOUND) => Err(error),
        _ => Ok(()),
    }
}

/// Drop the server's own collection of a database's views, if it holds none any more: a database that is dropped takes
/// it along, one that loses its collections one by one keeps it.
pub async fn drop_view_catalogue(target: &Endpoint, db: &str) -> Result<()> {
    let views = Namespace::new(db, "system.views");
    if matches!(existing(target, &views).await?, Existing::Collection(_)) && is_empty(target, &views).await? {
        let command = doc! {"drop": &views.coll, "writeConcern": majority()};
        if let Err(error) = target.command(db, command).await {
            tracing::debug!(%error, db, "the empty system.views stays");
        }
    }
    Ok(())
}

/// Rename the collection with that UUID, over the one with UUID `replaced` if there is one: if that is gone already, and
/// nothing else stands there, into its place. A repetition is refused by the server, and then found to have happened.
pub async fn rename(
    target: &Endpoint,
    uuid: Uuid,
    from: &Namespace,
    to: &Namespace,
    replaced: Option<Uuid>,
) -> Result<()> {
    let command = |replaced: Option<Uuid>| {
        doc! {
            "renameCollection": from.to_string(),
            "to": to.to_string(),
            "collectionUUID": uuid_value(uuid),
            "dropTarget": replaced.map_or(Bson::Boolean(false), uuid_value),
            "writeConcern": majority(),
        }
    };
    let Err(error) = target.command("admin", command(replaced)).await else { return Ok(()) };
    let renamed = match existing(target, to).await? {
        Existing::Collection(found) if found == uuid => return Ok(()),
        Existing::Nothing if replaced.is_some() => target.command("admin", command(None)).await.map(|_| ()),
        _ => Err(error),
    };
    renamed.map_err(|error| error.context(format!("renaming {from} to {to}")))
}

/// Build indexes from complete specifications; blocks until they are built on a majority.
pub async fn create_indexes(
    target: &Endpoint,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    specs: &[RawDocumentBuf],
) -> Result<()> {
    let mut writer = raw::Writer::new(specs.iter().map(|spec| spec.as_bytes().len()).sum());
    writer.string("createIndexes", &namespace.coll);
    if let Some(uuid) = uuid {
        writer.uuid("collectionUUID", uuid.bytes());
    }
    writer.open_array("indexes");
    for (number, spec) in specs.iter().enumerate() {
        writer.document(&number.to_string(), spec.as_bytes());
    }
    writer.close();
    // By default the server waits for every voting member: one that is down would keep an index from being built.
    writer.string("commitQuorum", "majority");
    writer.majority();
    target.long_raw_command(&namespace.db, writer.finish()).await.map(|_| ())
}

/// Whether an index of that name is there.
pub async fn has_index(target: &Endpoint, namespace: &Namespace, name: &str) -> Result<bool> {
    Ok(index_names(target, namespace).await?.contains(name))
}

/// The names of a collection's indexes; none if there is no such collection.
pub async fn index_names(target: &Endpoint, namespace: &Namespace) -> Result<HashSet<String>> {
    let listed = target.collect_from_primary(&namespace.db, doc! {"listIndexes": &namespace.coll}).await;
    let found = match listed {
        Err(error) if error.code() == Some(failure::NAMESPACE_NOT_FOUND) => Vec::new(),
        listed => listed?,
    };
    let name = |spec: &Vec<u8>| raw::get(spec, "name").and_then(|name| name.as_str()).map(str::to_owned);
    Ok(found.iter().filter_map(name).collect())
}

/// Drop an index by name, or abort its build; gone already is fine.
pub async fn drop_index(
    target: &Endpoint,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    name: &str,
) -> Result<()> {
    let mut command = doc! {"dropIndexes": &namespace.coll, "index": name, "writeConcern": majority()};
    if let Some(uuid) = uuid {
        command.insert("collectionUUID", uuid_value(uuid));
    }
    match target.command(&namespace.db, command).await {
        Err(error)
            if !matches!(error.code(), Some(failure::NAMESPACE_NOT_FOUND | failure::INDEX_NOT_FOUND)) =>
        {
            Err(error.context(format!("dropping index {name} of {namespace}")))
        }
        _ => Ok(()),
    }
}

/// Abort the build of these indexes, which one command began: it goes only as a whole. Whether there was one.
pub async fn abort_build(target: &Endpoint, namespace: &Namespace, names: &[String]) -> Result<bool> {
    let command = doc! {"dropIndexes": &namespace.coll, "index": names, "writeConcern": majority()};
    match target.command(&namespace.db, command).await {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(error.code(), Some(failure::NAMESPACE_NOT_FOUND | failure::INDEX_NOT_FOUND)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.context(format!("aborting an index build of {namespace}"))),
    }
}
