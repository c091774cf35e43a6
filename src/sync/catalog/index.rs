//! What of an index is deferred until completion. Lanes may reorder two documents that trade a unique value,
//! so `unique` waits; the source deletes expired documents, not the target; a hidden index would not be used.

use mongodb::bson::{Document, doc};

use crate::sync::endpoint::raw::{self, Writer};

/// The largest `expireAfterSeconds` that the server accepts: 68 years, so never.
pub const NEVER: i32 = i32::MAX;

const DEFERRED: &[&str] = &["unique", "prepareUnique", "expireAfterSeconds", "hidden"];

/// The specification in the form that it has on the target before completion.
pub fn relaxed(spec: &[u8]) -> mongodb::bson::RawDocumentBuf {
    let mut writer = Writer::new(spec.len());
    for element in raw::elements(spec) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        match name {
            "expireAfterSeconds" => writer.int32(name, NEVER),
            "ns" => {}
            name if DEFERRED.contains(&name) => {}
            name => writer.element(name, element.kind, element.value),
        }
    }
    writer.finish()
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
    if let Some(seconds) = raw::get(spec, "expireAfterSeconds").and_then(|value| value.as_i64()) {
        steps.push(doc! {"name": name, "expireAfterSeconds": seconds});
    }
    if truthy("hidden") {
        steps.push(doc! {"name": name, "hidden": true});
    }
    steps
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
        let relaxed: Document = relaxed(&bytes(&spec)).try_into().unwrap();
        let expected = doc! {"v": 2, "key": {"a": 1, "b.c": -1_i64}, "name": "x", "expireAfterSeconds": NEVER,
        "partialFilterExpression": {"a": {"$gt": 1.0}}, "sparse": true};
        assert_eq!(bytes(&relaxed), bytes(&expected));
        assert_eq!(restoration(&bytes(&spec)).len(), 4);
    }

    #[test]
    fn a_plain_index_needs_nothing_later() {
        let spec = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": false};
        assert!(restoration(&bytes(&spec)).is_empty());
    }
}
