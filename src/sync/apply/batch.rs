//! From a lane's changes to few commands. Changes of one document keep their order; those of different documents
//! commute, since unique indexes wait until completion.

use std::collections::HashMap;

use super::{Change, Write};
use crate::sync::clone::write::{query, replacement};
use crate::sync::endpoint::raw::{self, Writer};
use crate::sync::state::Operation;

/// Bytes of one command: the server's bound is 16 MB and 16 KB, a single document may be 16 MB.
const COMMAND_BYTES: usize = 12 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Insert,
    Update,
    Delete,
}

/// The commands for a run of changes, and which change each statement is.
#[derive(Debug, Default)]
pub struct Plan {
    /// The commands, in order.
    pub operations: Vec<Operation>,
    /// For each command, the change behind each statement.
    pub statements: Vec<Vec<usize>>,
    /// For each command, whether every statement must meet exactly one document.
    pub strict: Vec<bool>,
}

#[derive(Debug)]
struct Segment {
    command: Command,
    changes: Vec<usize>,
    bytes: usize,
}

/// Group `changes` into commands.
pub fn plan(changes: &[Change]) -> Plan {
    let mut by_collection: Vec<(usize, Vec<Segment>, HashMap<u64, usize>)> = Vec::new();
    let mut index: HashMap<*const crate::sync::catalog::Collection, usize> = HashMap::new();
    for (number, change) in changes.iter().enumerate() {
        let slot = *index.entry(std::sync::Arc::as_ptr(&change.collection)).or_insert_with(|| {
            by_collection.push((number, Vec::new(), HashMap::new()));
            by_collection.len() - 1
        });
        let (_, segments, last) = &mut by_collection[slot];
        let command = command(change);
        let size = change.write.len() + change.key.get().len() + 160;
        // Not before the last segment that holds an earlier change of the same document.
        let from = if change.collection.is_capped() {
            // Insertion order is part of the data.
            segments.len().saturating_sub(1)
        } else {
            last.get(&change.hash).copied().unwrap_or(0)
        };
        let fits = |segment: &Segment| segment.command == command && segment.bytes + size <= COMMAND_BYTES;
        let found =
            segments.iter().enumerate().skip(from).find(|(_, segment)| fits(segment)).map(|(at, _)| at);
        let at = found.unwrap_or_else(|| {
            segments.push(Segment { command, changes: Vec::new(), bytes: 0 });
            segments.len() - 1
        });
        segments[at].changes.push(number);
        segments[at].bytes += size;
        last.insert(change.hash, at);
    }
    let mut plan = Plan::default();
    for (first, segments, _) in by_collection {
        let namespace = changes[first].collection.target();
        for segment in segments {
            let mut writer = Writer::new(segment.bytes);
            match segment.command {
                Command::Insert => inserts(&mut writer, &namespace.coll, changes, &segment.changes),
                Command::Update => updates(&mut writer, &namespace.coll, changes, &segment.changes),
                Command::Delete => deletes(&mut writer, &namespace.coll, changes, &segment.changes),
            }
            plan.operations.push(Operation { db: namespace.db.clone(), command: writer.finish() });
            plan.strict.push(segment.changes.iter().all(|&number| is_strict(&changes[number])));
            plan.statements.push(segment.changes);
        }
    }
    plan
}

fn is_strict(change: &Change) -> bool {
    !change.replay && !matches!(change.write, Write::Put(_))
}

fn command(change: &Change) -> Command {
    match &change.write {
        Write::Insert(document) if !change.replay && !raw::needs_literal(document.get()) => Command::Insert,
        Write::Delete => Command::Delete,
        _ => Command::Update,
    }
}

fn inserts(writer: &mut Writer, collection: &str, changes: &[Change], numbers: &[usize]) {
    writer.string("insert", collection);
    writer.boolean("bypassDocumentValidation", true);
    writer.open_array("documents");
    for (position, &number) in numbers.iter().enumerate() {
        if let Write::Insert(document) = &changes[number].write {
            writer.document(&position.to_string(), document.get());
        }
    }
    writer.close();
}

fn updates(writer: &mut Writer, collection: &str, changes: &[Change], numbers: &[usize]) {
    writer.string("update", collection);
    writer.boolean("bypassDocumentValidation", true);
    writer.open_array("updates");
    for (position, &number) in numbers.iter().enumerate() {
        let change = &changes[number];
        writer.open_document(&position.to_string());
        key(writer, change);
        match &change.write {
            Write::Insert(document) | Write::Put(document) => {
                replacement(writer, document.get());
                writer.boolean("upsert", true);
            }
            Write::Replace(document) => replacement(writer, document.get()),
            Write::Diff(diff) => apply_diff(writer, diff.get()),
            Write::Delete | Write::Reread => {}
        }
        writer.close();
    }
    writer.close();
}

/// `u: [{$_internalApplyOplogUpdate: {oplogUpdate: <diff>}}]`: the server applies it as its own secondaries do.
fn apply_diff(writer: &mut Writer, diff: &[u8]) {
    writer.open_array("u");
    writer.open_document("0");
    writer.open_document("$_internalApplyOplogUpdate");
    writer.document("oplogUpdate", diff);
    writer.close();
    writer.close();
    writer.close();
}

fn deletes(writer: &mut Writer, collection: &str, changes: &[Change], numbers: &[usize]) {
    writer.string("delete", collection);
    writer.open_array("deletes");
    for (position, &number) in numbers.iter().enumerate() {
        writer.open_document(&position.to_string());
        key(writer, &changes[number]);
        writer.int32("limit", 1);
        writer.close();
    }
    writer.close();
}

fn key(writer: &mut Writer, change: &Change) {
    if let Some(id) = raw::get(change.key.get(), "_id") {
        query(writer, id.kind, id.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::apply::Bytes;
    use crate::sync::catalog::Catalog;
    use crate::sync::namespace::Namespace;
    use crate::sync::state::{CollectionRecord, CollectionState};
    use mongodb::bson::{Timestamp, Uuid, doc, serialize_to_vec};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn collection(n: u8) -> Arc<crate::sync::catalog::Collection> {
        let namespace = Namespace::new("d", format!("c{n}"));
        let options = if n == 9 { serialize_to_vec(&doc! {"capped": true}).unwrap() } else { Vec::new() };
        let record = CollectionRecord::new("s", Uuid::from_bytes([n; 16]), &namespace, &options);
        Catalog::default().insert(CollectionRecord { state: CollectionState::Cloned, ..record })
    }

    fn bytes(document: &mongodb::bson::Document) -> Bytes {
        Bytes::Owned(serialize_to_vec(document).unwrap().into())
    }

    fn change(collection: &Arc<crate::sync::catalog::Collection>, id: i32, kind: u8, replay: bool) -> Change {
        let document = bytes(&doc! {"_id": id, "v": 1});
        Change {
            collection: Arc::clone(collection),
            key: bytes(&doc! {"_id": id}),
            hash: u64::try_from(id).unwrap(),
            write: match kind {
                0 => Write::Insert(document),
                1 => Write::Diff(bytes(&doc! {"$v": 2, "diff": {"u": {"v": 2}}})),
                2 => Write::Delete,
                _ => Write::Replace(document),
            },
            replay,
            time: Timestamp { time: 1, increment: 1 },
            token: Bytes::Owned(Arc::from(&b"82"[..])),
            batch: 0,
        }
    }

    #[test]
    fn different_documents_share_commands() {
        let c = collection(1);
        let changes: Vec<_> = (0..30).map(|n| change(&c, n, u8::try_from(n % 3).unwrap(), false)).collect();
        let plan = plan(&changes);
        assert_eq!(plan.operations.len(), 3);
        assert!(plan.strict.iter().all(|&strict| strict));
    }

    #[test]
    fn a_replayed_insert_is_an_upsert_and_never_strict() {
        let c = collection(1);
        let plan = plan(&[change(&c, 1, 0, true)]);
        let command: mongodb::bson::Document = plan.operations[0].command.clone().try_into().unwrap();
        assert_eq!(command.keys().next().unwrap(), "update");
        assert_eq!(plan.strict, [false]);
    }

    proptest! {
        #[test]
        fn a_capped_collection_keeps_the_order_of_all(spec in proptest::collection::vec((0i32..6, 0u8..4, any::<bool>()), 0..40)) {
            let capped = collection(9);
            let changes: Vec<_> = spec.iter().map(|&(id, kind, replay)| change(&capped, id, kind, replay)).collect();
            let order: Vec<usize> = plan(&changes).statements.into_iter().flatten().collect();
            prop_assert_eq!(order, (0..changes.len()).collect::<Vec<_>>());
        }

        /// Each change is in exactly one statement, and the changes of a document come in their order.
        #[test]
        fn order_within_a_document_is_kept(spec in proptest::collection::vec((1u8..3, 0i32..6, 0u8..4, any::<bool>()), 0..60)) {
            let collections = [collection(1), collection(2)];
            let changes: Vec<_> = spec.iter().map(|&(c, id, kind, replay)| change(&collections[usize::from(c) - 1], id, kind, replay)).collect();
            let plan = plan(&changes);
            let order: Vec<usize> = plan.statements.iter().flatten().copied().collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..changes.len()).collect::<Vec<_>>());
            for (at, &earlier) in order.iter().enumerate() {
                for &later in &order[at + 1..] {
                    let same = spec[earlier].0 == spec[later].0 && spec[earlier].1 == spec[later].1;
                    prop_assert!(!same || earlier < later);
                }
            }
            for (operation, statements) in plan.operations.iter().zip(&plan.statements) {
                let command: mongodb::bson::Document = operation.command.clone().try_into().unwrap();
                let array = command.values().find_map(|value| value.as_array()).unwrap();
                prop_assert_eq!(array.len(), statements.len());
            }
        }
    }
}
