//! What of an index is deferred until completion. Lanes may reorder two documents that trade a unique value,
//! so `unique` waits; the source deletes expired documents, not the target; a hidden index would not be used.

use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::sync::endpoint::raw::{self, Writer};

/// The largest `expireAfterSeconds` that the server accepts: 68 years, so never.
pub const NEVER: i32 = i32::MAX;

const DEFERRED: &[&str] = &["unique", "prepareUnique", "expireAfterSeconds", "hidden"];

/// The specification for a collection of which `collated` says that it has a default collation: one without a
/// collation means the simple one, which `createIndexes` must be told there.
pub fn complete(spec: &[u8], collated: bool) -> RawDocumentBuf {
    let mut writer = Writer::new(spec.len() + 40);
    for element in raw::elements(spec) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        if name != "ns" {
            writer.element(name, element.kind, element.value);
        }
    }
    if collated && raw::get(spec, "collation").is_none() {
        writer.open_document("collation");
        writer.string("locale", "simple");
        writer.close();
    }
    writer.finish()
}

/// The specification in the form that it has on the target before completion.
pub fn relaxed(spec: &[u8], collated: bool) -> RawDocumentBuf {
    let spec = complete(spec, collated);
    let spec = spec.as_bytes();
    let mut writer = Writer::new(spec.len());
    for element in raw::elements(spec) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        match name {
            "expireAfterSeconds" => writer.int32(name, NEVER),
            name if DEFERRED.contains(&name) => {}
            name => writer.element(name, element.kind, element.value),
        }
    }
    writer.finish()
}

/// Whether an index of this kind can refuse a document: one of several fields (parallel arrays), or of special keys.
pub fn may_refuse(spec: &[u8]) -> bool {
    let Some(key) = raw::get(spec, "key").and_then(|key| key.as_document()) else { return false };
    raw::elements(key).count() > 1 || raw::elements(key).any(|field| field.kind == raw::kind::STRING)
}

/// The `collMod` index changes that turn the relaxed form into the source's, in order. `unique` needs
/// `prepareUnique` first (<https://www.mongodb.com/docs/manual/reference/command/collMod/>).
pub fn restoration(spec: &[u8]) -> Vec<Document> {
    let Some(name) = raw::get(spec, "name").and_then(|name| name.as_str()) else { return Vec::new() };
    let truthy = |field: &str| {
        raw::get(spec, field).is_some_and(|value| match value.kind {
            raw::kind::BOOLEAN => value.value == [1],
            _ => value.as_i64().is_some_and(|number| number != 0),
        })
    };
    let mut steps = Vec::new();
    if truthy("unique") {
        steps.push(doc! {"name": name, "prepareUnique": true});
        steps.push(doc! {"name": name, "unique": true});
    } else if truthy("prepareUnique") {
        steps.push(doc! {"name": name, "prepareUnique": true});
    }
    if let Some(seconds) = raw::get(spec, "expireAfterSeconds").and_then(|value| expiry(value)) {
        steps.push(doc! {"name": name, "expireAfterSeconds": seconds});
    }
    if truthy("hidden") {
        steps.push(doc! {"name": name, "hidden": true});
    }
    steps
}

/// Old catalogues hold what is no number: the server takes it for never.
fn expiry(value: raw::Element<'_>) -> Option<i64> {
    let nan = value.kind == raw::kind::DOUBLE
        && value.value.try_into().is_ok_and(|bytes| f64::from_le_bytes(bytes).is_nan());
    if nan { Some(NEVER.into()) } else { value.as_i64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::serialize_to_vec;

    fn bytes(document: &Document) -> Vec<u8> {
        serialize_to_vec(document).unwrap()
    }

    #[test]
    fn deferred_options_wait_and_everything_else_stays_in_order() {
        let spec = doc! {"v": 2, "unique": true, "key": {"a": 1, "b.c": -1_i64}, "name": "x", "hidden": true,
        "expireAfterSeconds": 5_i64, "partialFilterExpression": {"a": {"$gt": 1.0}}, "sparse": true};
        let relaxed: Document = relaxed(&bytes(&spec), false).try_into().unwrap();
        let expected = doc! {"v": 2, "key": {"a": 1, "b.c": -1_i64}, "name": "x", "expireAfterSeconds": NEVER,
        "partialFilterExpression": {"a": {"$gt": 1.0}}, "sparse": true};
        assert_eq!(bytes(&relaxed), bytes(&expected));
        assert_eq!(restoration(&bytes(&spec)).len(), 4);
    }

    #[test]
    fn under_a_collation_the_simple_one_is_named() {
        let german = doc! {"v": 2, "key": {"a": 1}, "name": "a", "collation": {"locale": "de"}};
        let plain = doc! {"v": 2, "key": {"a": 1}, "name": "a"};
        let after =
            |spec: &Document, collated| -> Document { complete(&bytes(spec), collated).try_into().unwrap() };
        assert_eq!(after(&german, true), german);
        assert_eq!(after(&plain, false), plain);
        assert_eq!(after(&plain, true).get_document("collation").unwrap(), &doc! {"locale": "simple"});
    }

    #[test]
    fn a_plain_index_needs_nothing_later() {
        let spec = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": false};
        assert!(restoration(&bytes(&spec)).is_empty());
    }
}
