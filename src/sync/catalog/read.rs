//! The source's catalogue as of one time.

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, Uuid, doc};

use super::{listing, options};
use crate::sync::endpoint::raw::{self, Writer};
use crate::sync::endpoint::{Endpoint, Feature};
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

/// A view as the source describes it.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// Its name.
    pub namespace: Namespace,
    /// Options of `create`.
    pub options: RawDocumentBuf,
}

/// A catalogue: everything in scope at one time.
#[derive(Clone, Debug, Default)]
pub struct SourceCatalog {
    /// Collections.
    pub collections: Vec<SourceCollection>,
    /// Views.
    pub views: Vec<SourceView>,
    /// The rest.
    pub unsupported: Vec<Unsupported>,
    /// Whether it was read collection by collection, so that parts of it may be later than asked.
    pub piecemeal: bool,
}

/// Codes with which a server or its provider refuses `$listCatalog`: not authorized, no such stage, not supported, not
/// allowed in this tier.
const REFUSED: &[i32] = &[13, 59, 115, 8000, 40324];

/// Whether this is the refusal of a source that does not offer `$listCatalog`.
pub fn is_refused(error: &Error) -> bool {
    error.code().is_some_and(|code| REFUSED.contains(&code))
}

/// Read everything in scope as of `time`, by one snapshot read; as it is now where the source does not offer that.
pub async fn read(source: &Endpoint, scope: &Scope, time: Timestamp) -> Result<SourceCatalog> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{"$listCatalog": {}}],
        "cursor": {},
        "readConcern": {"level": "snapshot", "atClusterTime": time},
    };
    let mut catalog = SourceCatalog::default();
    match entries(source, command).await {
        Ok(found) => {
            for entry in &found {
                add(&mut catalog, scope, entry);
            }
        }
        Err(error) if is_refused(&error) => {
            tracing::warn!(%error, "the source does not offer $listCatalog: listing collection by collection");
            // Another member may not have what came before the stream's beginning.
            let source = &source.at_primary();
            settle(source, time).await?;
            catalog = listing::read(source, scope, time).await?;
        }
        Err(error) => return Err(error),
    }
    catalog.collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    catalog.views.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    catalog.unsupported.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Ok(catalog)
}

/// Wait until everything up to `time` is committed. A stream begins behind the last operation that was applied, and an
/// earlier one may still be on its way: its collection would be neither in a listing nor in the stream.
async fn settle(source: &Endpoint, time: Timestamp) -> Result<()> {
    let nothing = doc! {
        "find": "nothing", "limit": 1, "readConcern": {"level": "majority", "afterClusterTime": time},
    };
    source.collect("clustersync", nothing).await.map(|_| ())
}

async fn entries(source: &Endpoint, command: Document) -> Result<Vec<Vec<u8>>> {
    if source.avoids(Feature::ListCatalog) {
        return Err(Error::new(Reason::Unsupported, "$listCatalog is avoided").with_code(Some(40324)));
    }
    source.collect("admin", command).await
}

fn add(catalog: &mut SourceCatalog, scope: &Scope, entry: &[u8]) {
    let text = |name| raw::get(entry, name).and_then(|element| element.as_str());
    let (Some(db), Some(name)) = (text("db"), text("name")) else { return };
    if !scope.contains(db, name) {
        return;
    }
    let namespace = Namespace::new(db, name);
    let Some(metadata) = raw::get(entry, "md").and_then(|md| md.as_document()) else {
        let options = only(entry, &["viewOn", "pipeline", "collation"]);
        return catalog.add_view(namespace, options);
    };
    let Some(options) = raw::get(metadata, "options").and_then(|options| options.as_document()) else {
        return;
    };
    let Some(uuid) = raw::get(options, "uuid").and_then(|uuid| uuid.as_uuid()) else { return };
    let indexes = raw::get(metadata, "indexes").and_then(|indexes| indexes.as_document()).unwrap_or_default();
    let indexes = raw::elements(indexes).filter_map(|index| finished_index(index.value)).collect();
    catalog.add_collection(namespace, Uuid::from_bytes(uuid), options, indexes);
}

impl SourceCatalog {
    /// The one collection that was looked for; what cannot be followed is not taken for what is not there.
    pub fn only(self) -> Result<Option<SourceCollection>> {
        if let Some(one) = self.unsupported.first() {
            return Err(Error::new(
                Reason::Unsupported,
                format!("not supported: {} ({})", one.namespace, one.what),
            ));
        }
        Ok(self.collections.into_iter().next())
    }

    /// Add a view, or name it where it cannot be followed.
    pub fn add_view(&mut self, namespace: Namespace, options: RawDocumentBuf) {
        match unsupported(options.as_bytes()) {
            Some(what) => self.unsupported.push(Unsupported { namespace, what }),
            None => self.views.push(SourceView { namespace, options }),
        }
    }

    /// Add a collection, or name it where it cannot be followed.
    pub fn add_collection(
        &mut self,
        namespace: Namespace,
        uuid: Uuid,
        options: &[u8],
        indexes: Vec<RawDocumentBuf>,
    ) {
        if let Some(what) = unsupported(options) {
            self.unsupported.push(Unsupported { namespace, what });
        } else {
            let options = without(options, &["uuid"]);
            self.collections.push(SourceCollection { namespace, uuid, options, indexes });
        }
    }
}

/// An index whose build has committed; of one in progress, the commit will be an event.
pub fn finished_index(entry: &[u8]) -> Option<RawDocumentBuf> {
    let ready = raw::get(entry, "ready").is_none_or(|ready| ready.value != [0]);
    let spec = raw::get(entry, "spec")?.as_document()?;
    let name = raw::get(spec, "name")?.as_str()?;
    let clustered = raw::get(spec, "clustered").is_some();
    (ready && name != "_id_" && !clustered).then(|| without(spec, &["ns"]))
}

/// What in the options of a collection or view cannot be followed.
pub fn unsupported(options: &[u8]) -> Option<&'static str> {
    let given = |name| {
        raw::get(options, name).is_some_and(|value| value.kind != raw::kind::BOOLEAN || value.value == [1])
    };
    if given("timeseries") || options::is_time_series(options) {
        Some("a time-series collection")
    } else if given("encryptedFields") {
        Some("a collection with queryable encryption")
    } else {
        None
    }
}

/// A collection by its UUID, as it is at or after `time`; none once it is dropped. A member that lags waits for that
/// time: else "not there" would only mean "not there yet".
pub async fn by_uuid(source: &Endpoint, uuid: Uuid, time: Timestamp) -> Result<Option<SourceCollection>> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{"$listCatalog": {}}, {"$match": {"md.options.uuid": uuid}}],
        "cursor": {},
        "readConcern": {"level": "majority", "afterClusterTime": time},
    };
    match entries(source, command).await {
        Ok(found) => {
            let mut catalog = SourceCatalog::default();
            for entry in &found {
                add(&mut catalog, &Scope::default(), entry);
            }
            catalog.only()
        }
        Err(error) if is_refused(&error) => listing::by_uuid(source, uuid, time).await,
        Err(error) => Err(error),
    }
}

/// The name of a collection at or after `time`, by its UUID; none once it is dropped.
pub async fn locate(source: &Endpoint, uuid: Uuid, time: Timestamp) -> Result<Option<Namespace>> {
    Ok(by_uuid(source, uuid, time).await?.map(|found| found.namespace))
}

/// A copy of some of the top-level fields of `document`.
pub fn only(document: &[u8], names: &[&str]) -> RawDocumentBuf {
    let mut writer = Writer::new(document.len());
    for element in raw::elements(document) {
        if let Ok(name) = std::str::from_utf8(element.name)
            && names.contains(&name)
        {
            writer.element(name, element.kind, element.value);
        }
    }
    writer.finish()
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

/// How large a collection is, about.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Documents.
    pub documents: i64,
    /// BSON bytes.
    pub bytes: i64,
}

/// The expected size of a collection, for progress and for how it is divided.
pub async fn estimate(source: &Endpoint, namespace: &Namespace) -> Size {
    // The server's running numbers, a tenth of the work of `$collStats`.
    let size = doc! {"dataSize": namespace.to_string(), "estimate": true};
    let found = match source.command_anywhere(&namespace.db, size).await {
        Ok(found) => (number(&found, "numObjects"), number(&found, "size")),
        Err(error) => {
            tracing::debug!(%namespace, %error, "no dataSize for this collection");
            collection_stats(source, namespace).await
        }
    };
    Size { documents: found.0.unwrap_or(0), bytes: found.1.unwrap_or(0) }
}

async fn collection_stats(source: &Endpoint, namespace: &Namespace) -> (Option<i64>, Option<i64>) {
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
    stats.map_or((None, None), |stats| (number(&stats, "n"), number(&stats, "s")))
}

fn number(document: &Document, name: &str) -> Option<i64> {
    let value = document.get(name)?;
    #[allow(clippy::cast_possible_truncation)]
    value.as_i64().or_else(|| value.as_i32().map(Into::into)).or_else(|| value.as_f64().map(|f| f as i64))
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
    fn views_are_told_from_collections_and_what_cannot_be_followed_is_named() {
        let mut catalog = SourceCatalog::default();
        add(&mut catalog, &Scope::default(), &entry("a", "cap", doc! {"capped": true, "size": 4096}));
        let view = |name: &str, on: &str| {
            let entry = doc! {"db": "a", "name": name, "type": "view", "ns": "a.v", "_id": "a.v", "viewOn": on, "pipeline": []};
            serialize_to_vec(&entry).unwrap()
        };
        add(&mut catalog, &Scope::default(), &view("v", "c"));
        add(&mut catalog, &Scope::default(), &view("ts", "system.buckets.ts"));
        assert_eq!(catalog.unsupported[0].what, "a time-series collection");
        assert_eq!((catalog.unsupported.len(), catalog.collections.len(), catalog.views.len()), (1, 1, 1));
        let options = Document::try_from(catalog.views[0].options.clone()).unwrap();
        assert_eq!(options, doc! {"viewOn": "c", "pipeline": []});
    }
}
