//! An oplog diff as classic update operators, where they leave the same document: a pipeline makes the server build the
//! whole document and compare it with the former one, which for a large document costs several times the update.

use crate::sync::endpoint::raw::{self, Element, Writer, kind};

/// Fields of a statement at most: more are not what this is for.
const FIELDS: usize = 50;

/// How many times as long as the diff its paths may be, which repeat the names of what holds a field: commands are filled
/// by the length of diffs.
const LONGER: usize = 2;

/// What a diff does to fields, by their dotted paths.
#[derive(Debug, Default)]
struct Modifiers<'a> {
    set: Vec<(String, Element<'a>)>,
    unset: Vec<String>,
}

/// Write `u: {$set: …, $unset: …}` for a diff (`{$v: 2, diff: …}`) which only changes fields that are there or removes
/// them, in documents and not in arrays. False, and nothing written, for any other: a field that comes goes to the end of
/// its document, which `$set` does not promise, and values that are documents may hold names that it refuses.
pub fn write(writer: &mut Writer, diff: &[u8]) -> bool {
    let mut modifiers = Modifiers::default();
    let read = raw::get(diff, "diff")
        .and_then(|diff| diff.as_document())
        .and_then(|diff| modifiers.read("", diff))
        .is_some();
    if !read || !modifiers.agree() || modifiers.names() > LONGER * diff.len() {
        return false;
    }
    writer.open_document("u");
    if !modifiers.set.is_empty() {
        writer.open_document("$set");
        for (path, value) in &modifiers.set {
            writer.element(path, value.kind, value.value);
        }
        writer.close();
    }
    if !modifiers.unset.is_empty() {
        writer.open_document("$unset");
        for path in &modifiers.unset {
            writer.boolean(path, true);
        }
        writer.close();
    }
    writer.close();
    true
}

impl<'a> Modifiers<'a> {
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.set.iter().map(|(path, _)| path.as_str()).chain(self.unset.iter().map(String::as_str))
    }

    /// Bytes of all paths.
    fn names(&self) -> usize {
        self.paths().map(str::len).sum()
    }

    /// Whether the server takes them: some, and none of a field inside another's or of the same, which a document with two
    /// fields of one name may lead to.
    fn agree(&self) -> bool {
        let paths: Vec<&str> = self.paths().collect();
        let meets =
            |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let conflict =
            |(number, a): (usize, &&str)| paths[number + 1..].iter().any(|b| meets(a, b) || meets(b, a));
        (1..=FIELDS).contains(&paths.len()) && !paths.iter().enumerate().any(conflict)
    }

    /// Add what `diff` does to the document at `parent` (empty, or a path with its dot). None: it cannot be said.
    fn read(&mut self, parent: &str, diff: &'a [u8]) -> Option<()> {
        for section in raw::elements(diff) {
            let fields = section.as_document()?;
            match section.name {
                b"u" => {
                    for field in raw::elements(fields) {
                        self.set.push((path(parent, field.name)?, scalar(field)?));
                    }
                }
                b"d" => {
                    for field in raw::elements(fields) {
                        self.unset.push(path(parent, field.name)?);
                    }
                }
                [b's', name @ ..] => self.read(&format!("{}.", path(parent, name)?), fields)?,
                _ => return None,
            }
        }
        Some(())
    }
}

/// None where an update operator would read the name as something else.
fn path(parent: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let plain = !name.is_empty() && !name.starts_with('$') && !name.contains('.');
    // `_id` may become a number of the same value and another type: a pipeline does that, an operator is refused.
    let plain = plain && !(parent.is_empty() && name == "_id");
    plain.then(|| format!("{parent}{name}"))
}

/// A value that is stored as it is, whatever is in it.
fn scalar(value: Element<'_>) -> Option<Element<'_>> {
    let zero = value.kind == kind::TIMESTAMP && value.value.iter().all(|byte| *byte == 0);
    let is_scalar = !zero && kind::SCALARS.contains(&value.kind);
    is_scalar.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Bson, Document, Timestamp, doc, serialize_to_vec};
    use proptest::prelude::*;

    fn written(diff: Document) -> Option<Document> {
        let mut writer = Writer::new(0);
        let done = write(&mut writer, &serialize_to_vec(&doc! {"$v": 2, "diff": diff}).unwrap());
        let statement = Document::try_from(&writer.finish()).unwrap();
        assert_eq!(done, !statement.is_empty());
        statement.get_document("u").ok().cloned()
    }

    #[test]
    fn changed_and_removed_fields_are_set_and_unset() {
        let diff = doc! {"d": {"x": false}, "u": {"a": 1, "b": "c"}, "sn": {"u": {"0": 1.5}, "sm": {"d": {"y": false}}}};
        let expected = doc! {"$set": {"a": 1, "b": "c", "n.0": 1.5}, "$unset": {"x": true, "n.m.y": true}};
        assert_eq!(written(diff), Some(expected));
    }

    #[test]
    fn anything_else_is_left_to_the_pipeline() {
        let others = [
            doc! {},
            doc! {"i": {"a": 1}},
            doc! {"u": {"a": 1}, "i": {"b": 1}},
            doc! {"u": {"a": {"b": 1}}},
            doc! {"u": {"a": [1]}},
            doc! {"u": {"a.b": 1}},
            doc! {"u": {"$a": 1}},
            doc! {"d": {"": false}},
            doc! {"s$a": {"u": {"b": 1}}},
            doc! {"s": {"u": {"b": 1}}},
            doc! {"sa": {"a": true, "u0": 1}},
            doc! {"sa": {"a": true, "s0": {"u": {"b": 1}}}},
            doc! {"sa": {"i": {"b": 1}}},
            doc! {"u": {"a": Timestamp { time: 0, increment: 0 }}},
            doc! {"u": {"a": Bson::Undefined}},
            doc! {"u": {"_id": 1.0}},
            doc! {"s_id": {"u": {"a": 1.0}}},
            doc! {format!("s{}", "n".repeat(300)): {"u": {"a": 1, "b": 1, "c": 1}}},
            doc! {"u": {"a": 1}, "sa": {"u": {"b": 1}}},
            doc! {"d": {"a": false}, "u": {"a": 1}},
            doc! {"u": (0..=50).map(|n| (n.to_string(), Bson::from(n))).collect::<Document>()},
        ];
        for other in others {
            assert_eq!(written(other.clone()), None, "{other}");
        }
    }

    /// What a diff leaves of a document, by its meaning.
    fn applied(mut document: Document, diff: &Document) -> Document {
        for (section, fields) in diff {
            let fields = fields.as_document().unwrap();
            match section.as_str() {
                "u" => fields.iter().for_each(|(name, value)| {
                    document.insert(name, value.clone());
                }),
                "d" => fields.keys().for_each(|name| {
                    document.remove(name);
                }),
                nested => {
                    let inner = document.get_document(&nested[1..]).unwrap().clone();
                    document.insert(&nested[1..], applied(inner, fields));
                }
            }
        }
        document
    }

    /// What modifiers leave of it.
    fn modified(mut document: Document, modifiers: &Document) -> Document {
        fn at<'a>(document: &'a mut Document, path: &'a str) -> (&'a mut Document, &'a str) {
            match path.split_once('.') {
                Some((first, rest)) => at(document.get_document_mut(first).unwrap(), rest),
                None => (document, path),
            }
        }
        for (path, value) in modifiers.get_document("$set").into_iter().flatten() {
            let (inside, name) = at(&mut document, path);
            inside.insert(name, value.clone());
        }
        for path in modifiers.get_document("$unset").into_iter().flat_map(Document::keys) {
            let (inside, name) = at(&mut document, path);
            inside.remove(name);
        }
        document
    }

    /// A document, and a diff of some of its fields.
    fn cases() -> impl Strategy<Value = (Document, Document)> {
        proptest::collection::vec((0..4_u8, any::<i32>()), 1..8).prop_map(|fields| build(&fields, 0))
    }

    /// Fields by number; of each: stays, changes, goes, or is a document that changes inside.
    fn build(fields: &[(u8, i32)], depth: usize) -> (Document, Document) {
        let (mut document, mut set, mut unset, mut nested) = (Document::new(), doc! {}, doc! {}, doc! {});
        for (number, (what, value)) in fields.iter().enumerate() {
            let name = format!("{number}");
            document.insert(&name, i64::from(*value));
            match what {
                1 => drop(set.insert(&name, f64::from(*value))),
                2 => drop(unset.insert(&name, false)),
                3 if depth < 3 => {
                    let (inner, diff) = build(&fields[..number], depth + 1);
                    document.insert(&name, inner);
                    if !diff.is_empty() {
                        nested.insert(format!("s{name}"), diff);
                    }
                }
                _ => {}
            }
        }
        let mut diff = Document::new();
        if !unset.is_empty() {
            diff.insert("d", unset);
        }
        if !set.is_empty() {
            diff.insert("u", set);
        }
        diff.extend(nested);
        (document, diff)
    }

    /// How many a diff changes or removes.
    fn fields(diff: &Document) -> usize {
        let of = |(section, fields): (&String, &Bson)| match (section.as_str(), fields.as_document().unwrap())
        {
            ("u" | "d", changed) => changed.len(),
            (_, inside) => self::fields(inside),
        };
        diff.iter().map(of).sum()
    }

    proptest! {
        #[test]
        fn modifiers_leave_what_the_diff_leaves((document, diff) in cases()) {
            if let Some(modifiers) = written(diff.clone()) {
                prop_assert_eq!(modified(document.clone(), &modifiers), applied(document, &diff));
            } else {
                prop_assert!(!(1..=FIELDS).contains(&fields(&diff)), "{:?}", diff);
            }
        }
    }
}
