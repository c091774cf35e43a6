//! Options of a collection: what is deferred until completion, and what `collMod` changes. The source removes what is
//! expired or overflows, not the target; the target follows by deletes.

use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::sync::endpoint::raw::{self, Element, Writer};

/// What a capped collection may hold on the target before completion: it never overflows by itself. The server's
/// bound is 2^50.
pub const UNBOUNDED: i64 = 1 << 49;

/// Options of `create` that are the server's own business: `temp` is refused (code 72), `idIndex` follows from
/// the collation, `autoIndexId` is long gone.
const NOT_OURS: &[&str] = &["uuid", "temp", "idIndex", "autoIndexId"];

/// Options that `collMod` sets on the target at once.
const IMMEDIATE: &[&str] =
    &["validator", "validationLevel", "validationAction", "changeStreamPreAndPostImages"];

fn truthy(options: &[u8], name: &str) -> bool {
    raw::get(options, name).is_some_and(|value| match value.kind {
        raw::kind::BOOLEAN => value.value == [1],
        _ => value.as_i64().is_none_or(|number| number != 0),
    })
}

/// Whether the collection is capped.
pub fn is_capped(options: &[u8]) -> bool {
    truthy(options, "capped")
}

/// Whether its documents are kept in an index on `_id`.
pub fn is_clustered(options: &[u8]) -> bool {
    truthy(options, "clusteredIndex")
}

/// Whether it has a default collation.
pub fn is_collated(options: &[u8]) -> bool {
    raw::get(options, "collation").is_some()
}

/// Of a time-series collection's view.
pub fn is_time_series(options: &[u8]) -> bool {
    let on = raw::get(options, "viewOn").and_then(|on| on.as_str());
    on.is_some_and(|on| on.starts_with("system.buckets."))
}

/// Write the options as they are on the target before completion.
pub fn write_deferred(writer: &mut Writer, options: &[u8]) {
    let capped = is_capped(options);
    for element in raw::elements(options) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        match name {
            name if NOT_OURS.contains(&name) => {}
            "expireAfterSeconds" => {}
            "max" if capped => {}
            "size" if capped => writer.int64("size", UNBOUNDED),
            "capped" if !capped => {}
            name => writer.element(name, element.kind, element.value),
        }
    }
}

/// The `collMod` changes that turn the deferred form into the source's.
pub fn restoration(options: &[u8]) -> Vec<Document> {
    let number = |name: &str| raw::get(options, name).and_then(|value| value.as_i64());
    let mut steps = Vec::new();
    if let Some(seconds) = number("expireAfterSeconds") {
        steps.push(doc! {"expireAfterSeconds": seconds});
    }
    if is_capped(options) {
        if let Some(max) = number("max").filter(|max| *max > 0) {
            steps.push(doc! {"cappedMax": max});
        }
        if let Some(size) = number("size") {
            steps.push(doc! {"cappedSize": size});
        }
    }
    steps
}

/// The options after a `collMod` whose description is `change`.
pub fn changed(options: &[u8], change: &[u8]) -> RawDocumentBuf {
    let mut writer = Writer::new(options.len() + change.len());
    let renamed = |name: &str| match name {
        "cappedSize" => "size".to_owned(),
        "cappedMax" => "max".to_owned(),
        other => other.to_owned(),
    };
    let set: Vec<(String, Element<'_>)> = raw::elements(change)
        .filter_map(|element| Some((renamed(std::str::from_utf8(element.name).ok()?), element)))
        .collect();
    for element in raw::elements(options) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        if !set.iter().any(|(other, _)| other == name) {
            writer.element(name, element.kind, element.value);
        }
    }
    for (name, element) in &set {
        let off = name == "expireAfterSeconds" && element.as_str() == Some("off");
        if !off {
            writer.element(name, element.kind, element.value);
        }
    }
    writer.finish()
}

/// What of a `collMod` the target is told at once; none if nothing.
pub fn immediate(change: &[u8]) -> Vec<Element<'_>> {
    let ours =
        |element: &Element<'_>| std::str::from_utf8(element.name).is_ok_and(|name| IMMEDIATE.contains(&name));
    raw::elements(change).filter(ours).collect()
}

/// An index's specification after a `collMod` whose `index` part is `change`.
pub fn changed_index(spec: &[u8], change: &[u8]) -> RawDocumentBuf {
    let flags = ["hidden", "prepareUnique", "unique", "expireAfterSeconds"];
    let given = |name: &str| flags.contains(&name).then(|| raw::get(change, name)).flatten();
    let becomes_unique = given("unique").is_some();
    let mut writer = Writer::new(spec.len() + 32);
    for element in raw::elements(spec) {
        let Ok(name) = std::str::from_utf8(element.name) else { continue };
        if given(name).is_none() && !(becomes_unique && name == "prepareUnique") {
            writer.element(name, element.kind, element.value);
        }
    }
    for name in flags {
        if let Some(value) = given(name) {
            let off = value.kind == raw::kind::BOOLEAN && value.value == [0];
            if !off {
                writer.element(name, value.kind, value.value);
            }
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::serialize_to_vec;

    fn bytes(document: &Document) -> Vec<u8> {
        serialize_to_vec(document).unwrap()
    }

    fn deferred(options: &Document) -> Document {
        let mut writer = Writer::new(64);
        write_deferred(&mut writer, &bytes(options));
        writer.finish().try_into().unwrap()
    }

    #[test]
    fn caps_and_expiry_wait_for_completion() {
        let capped = doc! {"capped": true, "size": 4096_i64, "max": 7, "validator": {"a": 1}};
        assert_eq!(deferred(&capped), doc! {"capped": true, "size": UNBOUNDED, "validator": {"a": 1}});
        assert_eq!(restoration(&bytes(&capped)), [doc! {"cappedMax": 7_i64}, doc! {"cappedSize": 4096_i64}]);
        let clustered =
            doc! {"clusteredIndex": {"v": 2, "key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 9_i64};
        assert_eq!(
            deferred(&clustered),
            doc! {"clusteredIndex": {"v": 2, "key": {"_id": 1}, "unique": true}}
        );
        assert_eq!(restoration(&bytes(&clustered)), [doc! {"expireAfterSeconds": 9_i64}]);
        assert_eq!(deferred(&doc! {"temp": true, "capped": false}), doc! {});
    }

    #[test]
    fn a_change_of_options_replaces_adds_and_removes() {
        let options = doc! {"capped": true, "size": 5120, "max": 10, "expireAfterSeconds": 5};
        let change = doc! {"cappedSize": 10_000, "validator": {"a": 1}, "expireAfterSeconds": "off"};
        let changed: Document = changed(&bytes(&options), &bytes(&change)).try_into().unwrap();
        assert_eq!(changed, doc! {"capped": true, "max": 10, "size": 10_000, "validator": {"a": 1}});
        let change = bytes(&change);
        assert_eq!(immediate(&change).len(), 1);
    }

    #[test]
    fn a_change_of_an_index_replaces_adds_and_removes() {
        let spec = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "prepareUnique": true, "hidden": true};
        let after = |change: Document| -> Document {
            changed_index(&bytes(&spec), &bytes(&change)).try_into().unwrap()
        };
        assert_eq!(
            after(doc! {"name": "a_1", "unique": true}),
            doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "hidden": true, "unique": true}
        );
        assert_eq!(
            after(doc! {"name": "a_1", "hidden": false, "expireAfterSeconds": 5}),
            doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "prepareUnique": true, "expireAfterSeconds": 5}
        );
    }
}
