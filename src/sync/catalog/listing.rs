//! The catalogue of a source that does not offer `$listCatalog`: database by database, collection by collection. What
//! changes meanwhile comes as events, which are applied to what was found whether it is in it already or not.

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, Uuid, doc};

use super::read::{SourceCatalog, SourceCollection, without};
use crate::sync::endpoint::{Endpoint, failure, raw};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;

/// How often a collection is looked at whose name changes between two looks: it is not gone.
const LOOKS: usize = 5;

/// Everything in scope, as it is while it is read, at or after `time`.
pub async fn read(source: &Endpoint, scope: &Scope, time: Timestamp) -> Result<SourceCatalog> {
    let mut catalog = SourceCatalog { piecemeal: true, ..SourceCatalog::default() };
    for db in databases(source).await?.into_iter().filter(|db| scope.may_contain_db(db)) {
        let concern = read_concern(time);
        for entry in source.collect(&db, doc! {"listCollections": 1, "readConcern": concern}).await? {
            add(&mut catalog, source, scope, &db, &entry).await?;
        }
    }
    Ok(catalog)
}

/// A collection by its UUID, at or after `time`; none once it is dropped. `listIndexes` cannot be told to wait for that
/// time, so a member that does not lag is asked.
pub async fn by_uuid(source: &Endpoint, uuid: Uuid, time: Timestamp) -> Result<Option<SourceCollection>> {
    let source = &source.at_primary();
    for _ in 0..LOOKS {
        let Some((db, entry)) = entry(source, uuid, time).await? else { return Ok(None) };
        let mut catalog = SourceCatalog::default();
        add(&mut catalog, source, &Scope::default(), &db, &entry).await?;
        if let Some(found) = catalog.only()? {
            return Ok(Some(found));
        }
    }
    Err(Error::new(Reason::Interrupted, format!("the collection {uuid} has no name for long enough")))
}

/// Of `listCollections`: the server refuses "majority" here.
fn read_concern(time: Timestamp) -> Document {
    doc! {"level": "local", "afterClusterTime": time}
}

/// What `listCollections` says of a collection, and its database.
async fn entry(source: &Endpoint, uuid: Uuid, time: Timestamp) -> Result<Option<(String, Vec<u8>)>> {
    for db in databases(source).await? {
        let concern = read_concern(time);
        let command = doc! {"listCollections": 1, "filter": {"info.uuid": uuid}, "readConcern": concern};
        if let Some(entry) = source.collect(&db, command).await?.into_iter().next() {
            return Ok(Some((db, entry)));
        }
    }
    Ok(None)
}

/// Names of all databases, as the primary has them.
pub async fn databases(source: &Endpoint) -> Result<Vec<String>> {
    let reply = source.command("admin", doc! {"listDatabases": 1, "nameOnly": true}).await?;
    let names = reply.get_array("databases").into_iter().flatten();
    Ok(names.filter_map(|one| one.as_document()?.get_str("name").ok().map(str::to_owned)).collect())
}

async fn add(
    catalog: &mut SourceCatalog,
    source: &Endpoint,
    scope: &Scope,
    db: &str,
    entry: &[u8],
) -> Result<()> {
    let Some(name) = raw::get(entry, "name").and_then(|name| name.as_str()) else { return Ok(()) };
    if !scope.contains(db, name) {
        return Ok(());
    }
    let namespace = Namespace::new(db, name);
    let options = raw::get(entry, "options").and_then(|options| options.as_document()).unwrap_or_default();
    let info = raw::get(entry, "info").and_then(|info| info.as_document()).unwrap_or_default();
    match raw::get(info, "uuid").and_then(|uuid| uuid.as_uuid()) {
        None => catalog.add_view(namespace, without(options, &[])),
        Some(uuid) => {
            let indexes = match indexes(source, &namespace).await {
                // Dropped or renamed since: its event follows.
                Err(error) if error.code() == Some(failure::NAMESPACE_NOT_FOUND) => return Ok(()),
                other => other?,
            };
            catalog.add_collection(namespace, Uuid::from_bytes(uuid), options, indexes);
        }
    }
    Ok(())
}

async fn indexes(source: &Endpoint, namespace: &Namespace) -> Result<Vec<RawDocumentBuf>, Error> {
    let found = source
        .collect(&namespace.db, doc! {"listIndexes": &namespace.coll, "includeBuildUUIDs": true})
        .await?;
    let usable = |spec: &Vec<u8>| {
        let name = raw::get(spec, "name").and_then(|name| name.as_str());
        // One that is being built has its specification, and so its name, further inside.
        name.is_some_and(|name| name != "_id_") && raw::get(spec, "clustered").is_none()
    };
    Ok(found.iter().filter(|spec| usable(spec)).map(|spec| without(spec, &["ns"])).collect())
}
