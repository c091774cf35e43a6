//! The source's catalogue as of one time.

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, Uuid, doc};

use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::cursor::Fetch;
use crate::sync::endpoint::raw::{self, Writer};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;

/// A collection as the source describes it.
#[derive(Clone, Debug)]
pub struct SourceCollection {
    /// Its name.
    pub namespace: Namespace,
    /// Its identity.
    pub uuid: Uuid,
    /// Options of `create`, without the UUID.
    pub options: RawDocumentBuf,
    /// Its finished indexes but `_id_`: specifications as bytes.
    pub indexes: Vec<RawDocumentBuf>,
}

/// What is in scope but cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Its name.
    pub namespace: Namespace,
    /// What it is.
    pub what: &'static str,
}

/// A catalogue: everything in scope at one time.
#[derive(Clone, Debug, Default)]
pub struct SourceCatalog {
    /// Ordinary collections.
    pub collections: Vec<SourceCollection>,
    /// The rest.
    pub unsupported: Vec<Unsupported>,
}

/// Read everything in scope as of `time`, by one snapshot read.
pub async fn read(source: &Endpoint, scope: &Scope, time: Timestamp) -> Result<SourceCatalog> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{"$listCatalog": {}}],
        "cursor": {},
        "readConcern": {"level": "snapshot", "atClusterTime": time},
    };
    let command = RawDocumentBuf::try_from(&command)
        .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))?;
    let mut cursor = source.cursor("admin", command, Fetch::default()).await?;
    let mut catalog = SourceCatalog::default();
    while let Some(batch) = cursor.next().await? {
        for entry in batch.documents() {
            add(&mut catalog, scope, entry);
        }
    }
    catalog.collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    catalog.unsupported.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Ok(catalog)
}

fn add(catalog: &mut SourceCatalog, scope: &Scope, entry: &[u8]) {
    let text = |name| raw::get(entry, name).and_then(|element| element.as_str());
    let (Some(db), Some(name)) = (text("db"), text("name")) else { return };
    if !scope.contains(db, name) {
        return;
    }
    let namespace = Namespace::new(db, name);
    match text("type") {
        Some("view") => return catalog.unsupported.push(Unsupported { namespace, what: "a view" }),
        Some("timeseries") => {
            return catalog.unsupported.push(Unsupported { namespace, what: "a time-series collection" });
        }
        _ => {}
    }
    let Some(metadata) = raw::get(entry, "md").and_then(|md| md.as_document()) else { return };
    let Some(options) = raw::get(metadata, "options").and_then(|options| options.as_document()) else {
        return;
    };
    let Some(uuid) = raw::get(options, "uuid").and_then(|uuid| uuid.as_uuid()) else { return };
    if let Some(what) = unsupported(options) {
        return catalog.unsupported.push(Unsupported { namespace, what });
    }
    let indexes = raw::get(metadata, "indexes").and_then(|indexes| indexes.as_document()).unwrap_or_default();
    catalog.collections.push(SourceCollection {
        namespace,
        uuid: Uuid::from_bytes(uuid),
        options: without(options, &["uuid"]),
        indexes: raw::elements(indexes).filter_map(|index| finished_index(index.value)).collect(),
    });
}

/// An index whose build has committed; of one in progress, the commit will be an event.
fn finished_index(entry: &[u8]) -> Option<RawDocumentBuf> {
    let ready = raw::get(entry, "ready").is_none_or(|ready| ready.value != [0]);
    let spec = raw::get(entry, "spec")?.as_document()?;
    let name = raw::get(spec, "name")?.as_str()?;
    let clustered = raw::get(spec, "clustered").is_some();
    (ready && name != "_id_" && !clustered).then(|| without(spec, &["ns"]))
}

/// What in a collection's options cannot be followed.
pub fn unsupported(options: &[u8]) -> Option<&'static str> {
    let truthy = |name| {
        raw::get(options, name).is_some_and(|value| value.kind != raw::kind::BOOLEAN || value.value == [1])
    };
    if truthy("capped") {
        Some("a capped collection")
    } else if truthy("timeseries") {
        Some("a time-series collection")
    } else if truthy("viewOn") {
        Some("a view")
    } else if truthy("clusteredIndex") {
        Some("a clustered collection")
    } else if truthy("encryptedFields") {
        Some("a collection with queryable encryption")
    } else {
        None
    }
}

/// The present name of a collection, by its UUID; none once it is dropped.
pub async fn locate(source: &Endpoint, uuid: Uuid) -> Result<Option<Namespace>> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{"$listCatalog": {}}, {"$match": {"md.options.uuid": uuid}}, {"$project": {"db": 1, "name": 1}}],
        "cursor": {},
    };
    let found = source.collect("admin", command).await?;
    Ok(found.first().and_then(|entry| {
        Some(Namespace::new(raw::get(entry, "db")?.as_str()?, raw::get(entry, "name")?.as_str()?))
    }))
}

/// A copy of `document` without some top-level fields.
pub fn without(document: &[u8], names: &[&str]) -> RawDocumentBuf {
    let mut writer = Writer::new(document.len());
    for element in raw::elements(document) {
        if let Ok(name) = std::str::from_utf8(element.name)
            && !names.contains(&name)
        {
            writer.element(name, element.kind, element.value);
        }
    }
    writer.finish()
}

/// Expected documents and BSON bytes of a collection, for progress only.
pub async fn estimate(source: &Endpoint, namespace: &Namespace) -> (i64, i64) {
    let command = doc! {
        "aggregate": &namespace.coll,
        "pipeline": [{"$collStats": {"storageStats": {}}}, {"$project": {"n": "$storageStats.count", "s": "$storageStats.size"}}],
        "cursor": {},
    };
    let stats: Option<Document> = match source.collect(&namespace.db, command).await {
        Ok(found) => found.first().and_then(|bytes| raw::document(bytes)?.try_into().ok()),
        Err(error) => {
            tracing::debug!(%namespace, %error, "no statistics for this collection");
            None
        }
    };
    let number = |name: &str| {
        let value = stats.as_ref()?.get(name)?;
        #[allow(clippy::cast_possible_truncation)]
        value.as_i64().or_else(|| value.as_i32().map(Into::into)).or_else(|| value.as_f64().map(|f| f as i64))
    };
    (number("n").unwrap_or(0), number("s").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Binary, serialize_to_vec, spec::BinarySubtype};

    fn entry(db: &str, name: &str, options: Document) -> Vec<u8> {
        let mut options = options;
        options.insert("uuid", Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] });
        serialize_to_vec(&doc! {"db": db, "name": name, "type": "collection", "md": {
        "ns": format!("{db}.{name}"), "options": options, "indexes": [
            {"spec": {"v": 2, "key": {"_id": 1}, "name": "_id_"}, "ready": true},
            {"spec": {"v": 2, "key": {"a": 1}, "name": "a_1"}, "ready": true},
            {"spec": {"v": 2, "key": {"b": 1}, "name": "b_1"}, "ready": false},
        ]}})
        .unwrap()
    }

    #[test]
    fn finished_indexes_and_options_are_kept_the_uuid_is_the_key() {
        let mut catalog = SourceCatalog::default();
        add(&mut catalog, &Scope::default(), &entry("a", "b", doc! {"validator": {"x": 1}}));
        let found = &catalog.collections[0];
        assert_eq!(found.uuid, Uuid::from_bytes([7; 16]));
        assert_eq!(Document::try_from(found.options.clone()).unwrap(), doc! {"validator": {"x": 1}});
        let names: Vec<_> = found.indexes.iter().map(|spec| spec.get_str("name").unwrap()).collect();
        assert_eq!(names, ["a_1"]);
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let mut catalog = SourceCatalog::default();
        add(&mut catalog, &Scope::default(), &entry("a", "cap", doc! {"capped": true, "size": 4096}));
        add(&mut catalog, &Scope::default(), &entry("a", "plain", doc! {"capped": false}));
        assert_eq!(catalog.unsupported.len(), 1);
        assert_eq!(catalog.unsupported[0].what, "a capped collection");
        assert_eq!(catalog.collections.len(), 1);
    }
}
