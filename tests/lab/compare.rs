//! The judge: are two replica sets the same? Type, options and indexes of every namespace, and the raw bytes of
//! every document by `_id`. Shares no code with the engine.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{Client, Collection};

/// What is compared, and how.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Only these databases; empty: all but the server's own and `clustersync`.
    pub databases: Vec<String>,
    /// Expect the deferred form of indexes on the target.
    pub before_completion: bool,
}

/// Differences, for a person; none: identical.
pub async fn compare(source: &Client, target: &Client, judge: &Judge) -> Vec<String> {
    let mut differences = Vec::new();
    let databases = if judge.databases.is_empty() {
        let mut names = BTreeSet::new();
        for client in [source, target] {
            names.extend(client.list_database_names().await.unwrap());
        }
        names
            .into_iter()
            .filter(|name| !["admin", "local", "config", "clustersync"].contains(&name.as_str()))
            .collect()
    } else {
        judge.databases.clone()
    };
    for db in databases {
        let (mut left, right) = (catalogue(source, &db).await, catalogue(target, &db).await);
        if judge.before_completion {
            left.values_mut().for_each(defer_options);
        }
        let right: BTreeMap<String, Document> = right
            .into_iter()
            .map(|(name, mut entry)| {
                if judge.before_completion && is_deferred(&entry) {
                    defer_options(&mut entry);
                }
                (name, entry)
            })
            .collect();
        for name in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
            match (left.get(name), right.get(name)) {
                (Some(_), None) => differences.push(format!("{db}.{name} is missing on the target")),
                (None, Some(_)) => differences.push(format!("{db}.{name} is only on the target")),
                (Some(a), Some(b)) => {
                    if a != b {
                        differences.push(format!("{db}.{name} has other options: {a} / {b}"));
                    }
                    differences.extend(indexes(source, target, &db, name, judge).await);
                    let view = a.get_str("type").is_ok_and(|kind| kind == "view");
                    if !view {
                        differences.extend(documents(source, target, &db, name).await);
                    }
                    let capped =
                        a.get_document("options").is_ok_and(|options| options.contains_key("capped"));
                    if capped && order(source, &db, name).await != order(target, &db, name).await {
                        differences.push(format!("{db}.{name} has another order"));
                    }
                }
                (None, None) => {}
            }
        }
    }
    differences
}

/// Caps and the expiry of whole collections wait for completion.
fn defer_options(entry: &mut Document) {
    if let Ok(options) = entry.get_document_mut("options") {
        if options.get_bool("capped").unwrap_or(false) {
            options.remove("size");
            options.remove("max");
        }
        options.remove("expireAfterSeconds");
    }
}

/// Whether nothing on the target goes by itself: no cap that could be reached, no expiry.
fn is_deferred(entry: &Document) -> bool {
    let Ok(options) = entry.get_document("options") else { return true };
    let size = options.get("size").and_then(|size| size.as_i64().or(size.as_i32().map(i64::from)));
    !options.contains_key("max")
        && !options.contains_key("expireAfterSeconds")
        && size.is_none_or(|size| size > 1 << 40)
}

/// Type and options, without the UUID.
async fn catalogue(client: &Client, db: &str) -> BTreeMap<String, Document> {
    let mut cursor = client.database(db).run_cursor_command(doc! {"listCollections": 1}).await.unwrap();
    let mut all = BTreeMap::new();
    while let Some(entry) = cursor.next().await {
        let entry = entry.unwrap();
        // What it held is compared as views; the server leaves it behind, empty, when the last view goes.
        if entry.get_str("name").is_ok_and(|name| name == "system.views") {
            continue;
        }
        let mut options = entry.get_document("options").cloned().unwrap_or_default();
        // Whether `collMod` writes these defaults down depends on the server's patch level.
        if options.contains_key("validator") {
            for (name, default) in [("validationLevel", "strict"), ("validationAction", "error")] {
                if !options.contains_key(name) {
                    options.insert(name, default);
                }
            }
        }
        let kept = doc! {
            "type": entry.get("type").cloned().unwrap_or(Bson::Null),
            "options": options,
            "readOnly": entry.get_document("info").ok().and_then(|info| info.get("readOnly")).cloned().unwrap_or(Bson::Null),
        };
        all.insert(entry.get_str("name").unwrap().to_owned(), kept);
    }
    all
}

async fn indexes(source: &Client, target: &Client, db: &str, name: &str, judge: &Judge) -> Vec<String> {
    let mut expected = specs(source, db, name).await;
    let found = specs(target, db, name).await;
    if judge.before_completion {
        for spec in expected.values_mut() {
            if spec.contains_key("clustered") {
                continue;
            }
            for field in ["unique", "prepareUnique", "hidden"] {
                spec.remove(field);
            }
            if spec.contains_key("expireAfterSeconds") {
                spec.insert("expireAfterSeconds".to_owned(), i32::MAX.to_string());
            }
        }
    }
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differing = names.into_iter().filter(|index| expected.get(*index) != found.get(*index));
    differing
        .map(|index| format!("{db}.{name} index {index}: {:?} / {:?}", expected.get(index), found.get(index)))
        .collect()
}

/// Index options by name, values in canonical text; the order of options is no difference, that of keys is.
async fn specs(client: &Client, db: &str, name: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    // Said apart, since an index that is still being built is listed like any other.
    let list = doc! {"listIndexes": name, "includeBuildUUIDs": true};
    let Ok(mut cursor) = client.database(db).run_cursor_command(list).await else {
        return BTreeMap::new();
    };
    let mut all = BTreeMap::new();
    while let Some(spec) = cursor.next().await {
        let spec = spec.unwrap();
        if spec.contains_key("buildUUID") {
            continue;
        }
        let mut fields: BTreeMap<String, String> = spec
            .iter()
            .filter(|(key, _)| key.as_str() != "ns")
            .map(|(key, value)| {
                (key.clone(), if key == "expireAfterSeconds" { number(value) } else { value.to_string() })
            })
            .collect();
        // Its expiry is the collection's, compared there; older patch levels do not repeat it here.
        if fields.contains_key("clustered") {
            fields.remove("expireAfterSeconds");
        }
        fields.retain(|key, value| !(key == "hidden" && value == "false"));
        all.insert(spec.get_str("name").unwrap().to_owned(), fields);
    }
    all
}

fn number(value: &Bson) -> String {
    value
        .as_i64()
        .or(value.as_i32().map(i64::from))
        .map_or_else(|| value.to_string(), |number| number.to_string())
}

async fn documents(source: &Client, target: &Client, db: &str, name: &str) -> Vec<String> {
    let (left, right) = tokio::join!(all(source, db, name), all(target, db, name));
    let mut differences = Vec::new();
    for id in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
        let what = match (left.get(id), right.get(id)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => "differs",
            (Some(_), None) => "is missing on the target",
            _ => "is only on the target",
        };
        if differences.len() == 5 {
            differences.push(format!("{db}.{name}: more documents"));
            break;
        }
        let shown =
            left.get(id).or(right.get(id)).and_then(|bytes| RawDocumentBuf::from_bytes(bytes.clone()).ok());
        let shown = shown
            .and_then(|raw| raw.get("_id").ok().flatten().map(|id| format!("{id:?}")))
            .unwrap_or_default();
        differences.push(format!("{db}.{name} document {shown} {what}"));
        if let (Some(a), Some(b)) = (left.get(id), right.get(id)) {
            let text = |bytes: &[u8]| {
                RawDocumentBuf::from_bytes(bytes.to_vec()).map(|raw| format!("{raw:?}")).unwrap_or_default()
            };
            differences.push(format!("  source {:.400}\n  target {:.400}", text(a), text(b)));
        }
    }
    differences
}

/// The ids in natural order.
async fn order(client: &Client, db: &str, name: &str) -> Vec<String> {
    let collection: Collection<Document> = client.database(db).collection(name);
    let mut cursor =
        collection.find(doc! {}).sort(doc! {"$natural": 1}).projection(doc! {"_id": 1}).await.unwrap();
    let mut all = Vec::new();
    while let Some(document) = cursor.next().await {
        all.push(format!("{:?}", document.unwrap().get("_id")));
    }
    all
}

/// Every document's bytes, keyed by the bytes of its `_id` element.
async fn all(client: &Client, db: &str, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let collection: Collection<RawDocumentBuf> = client.database(db).collection(name);
    let mut cursor = collection.find(doc! {}).batch_size(10_000).await.unwrap();
    let mut all = BTreeMap::new();
    while let Some(document) = cursor.next().await {
        let document = document.unwrap();
        let id = document.iter_elements().flatten().find(|element| element.key().as_str() == "_id").unwrap();
        let mut key = vec![id.element_type() as u8];
        key.extend(format!("{:?}", id.value().unwrap()).into_bytes());
        all.insert(key, document.into_bytes());
    }
    all
}
