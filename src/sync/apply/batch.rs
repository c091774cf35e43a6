//! From a lane's changes to few commands. Changes of one document keep their order; those of different documents
//! commute, since unique indexes wait until completion.

use std::collections::HashMap;

use super::{Change, Write, modifiers};
use crate::sync::clone::write::{begin, query, replacement};
use crate::sync::endpoint::raw::{self, Writer};
use crate::sync::state::Operation;

/// Bytes of one command, but for a single larger change: the driver holds several copies of a command that it sends,
/// and one of this size costs the servers many times what a round trip does.
const COMMAND_BYTES: usize = 512 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Insert,
    Update,
    Delete,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Diffs of one document in one statement: each is a stage of a pipeline, of which the server takes a thousand
/// (`internalPipelineLengthLimit`).
const STAGES: usize = 200;

/// The commands for a run of changes, and which change each statement is.
#[derive(Debug, Default)]
pub struct Plan {
    /// The commands, in order.
    pub operations: Vec<Operation>,
    /// For each command, the first change behind each statement.
    pub statements: Vec<Vec<usize>>,
    /// For each command, whether every statement must meet exactly one document.
    pub strict: Vec<bool>,
}

#[derive(Debug)]
struct Segment {
    command: Command,
    statements: Vec<usize>,
    bytes: usize,
    strict: bool,
}

/// Where the last change of a document is.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: usize,
    /// The last change of its statement, and how many it has.
    last: usize,
    count: usize,
}

#[derive(Debug)]
struct Group {
    first: usize,
    segments: Vec<Segment>,
    places: HashMap<u64, Place>,
}

/// Group `changes` into commands.
pub fn plan(changes: &[Change]) -> Plan {
    let mut groups: Vec<Group> = Vec::new();
    let mut index: HashMap<*const crate::sync::catalog::Collection, usize> = HashMap::new();
    // The diff that follows in the same statement.
    let mut next: Vec<Option<usize>> = vec![None; changes.len()];
    for (number, change) in changes.iter().enumerate() {
        let slot = *index.entry(std::sync::Arc::as_ptr(&change.collection)).or_insert_with(|| {
            groups.push(Group { first: number, segments: Vec::new(), places: HashMap::new() });
            groups.len() - 1
        });
        let Group { segments, places, .. } = &mut groups[slot];
        let capped = change.collection.is_capped();
        let size = change.write.len() + change.key.get().len() + 160;
        let place = places.get(&change.hash).copied();
        if let Some(place) = place.filter(|_| !capped)
            && place.count < STAGES
            && segments[place.segment].bytes + size <= COMMAND_BYTES
            && continues(&changes[place.last], change)
        {
            next[place.last] = Some(number);
            segments[place.segment].bytes += size;
            segments[place.segment].strict &= is_strict(change);
            places.insert(change.hash, Place { last: number, count: place.count + 1, ..place });
            continue;
        }
        let command = command(change);
        // Not before the last segment that holds an earlier change of the same document; where insertion order is part of
        // the data, not before anything.
        let from =
            if capped { segments.len().saturating_sub(1) } else { place.map_or(0, |place| place.segment) };
        let fits = |segment: &Segment| segment.command == command && segment.bytes + size <= COMMAND_BYTES;
        let found = segments.iter().enumerate().skip(from).find(|(_, one)| fits(one)).map(|(at, _)| at);
        let segment = found.unwrap_or_else(|| {
            segments.push(Segment { command, statements: Vec::new(), bytes: 0, strict: true });
            segments.len() - 1
        });
        segments[segment].statements.push(number);
        segments[segment].bytes += size;
        segments[segment].strict &= is_strict(change);
        places.insert(change.hash, Place { segment, last: number, count: 1 });
    }
    write(changes, groups, &next)
}

/// Whether a diff may be one more stage of the statement that ends in another diff: of the very same document, since a
/// hash is no identity.
fn continues(before: &Change, change: &Change) -> bool {
    matches!((&before.write, &change.write), (Write::Diff(_), Write::Diff(_)))
        && before.key.get() == change.key.get()
}

fn write(changes: &[Change], groups: Vec<Group>, next: &[Option<usize>]) -> Plan {
    let mut plan = Plan::default();
    for group in groups {
        let (namespace, uuid) = {
            let record = changes[group.first].collection.record();
            (record.target_namespace(), record.target_uuid)
        };
        for segment in group.segments {
            let mut writer = Writer::new(segment.bytes);
            begin(&mut writer, segment.command.name(), &namespace.coll, uuid);
            match segment.command {
                Command::Insert => inserts(&mut writer, changes, &segment.statements),
                Command::Update => updates(&mut writer, changes, &segment.statements, next),
                Command::Delete => deletes(&mut writer, changes, &segment.statements),
            }
            plan.operations.push(Operation { db: namespace.db.clone(), command: writer.finish() });
            plan.strict.push(segment.strict);
            plan.statements.push(segment.statements);
        }
    }
    plan
}

/// A delete that meets nothing leaves what it should: the target's own expiry may have been faster (dates before 1958 are
/// further back than the longest that an index can be told to wait).
fn is_strict(change: &Change) -> bool {
    !change.replay && !matches!(change.write, Write::Put(_) | Write::Delete)
}

fn command(change: &Change) -> Command {
    match &change.write {
        Write::Insert(document) if !change.replay && !raw::needs_literal(document.get()) => Command::Insert,
        Write::Delete => Command::Delete,
        _ => Command::Update,
    }
}

fn inserts(writer: &mut Writer, changes: &[Change], numbers: &[usize]) {
    writer.boolean("bypassDocumentValidation", true);
    writer.open_array("documents");
    for (position, &number) in numbers.iter().enumerate() {
        if let Write::Insert(document) = &changes[number].write {
            writer.document(&position.to_string(), document.get());
        }
    }
    writer.close();
}

fn updates(writer: &mut Writer, changes: &[Change], numbers: &[usize], next: &[Option<usize>]) {
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
            // A replay meets documents of later times, where a path may lead nowhere.
            Write::Diff(diff)
                if next[number].is_none() && !change.replay && modifiers::write(writer, diff.get()) => {}
            Write::Diff(_) => apply_diffs(writer, changes, number, next),
            Write::Delete | Write::Reread => {}
        }
        writer.close();
    }
    writer.close();
}

/// `u: [{$_internalApplyOplogUpdate: {oplogUpdate: <diff>}}, …]`: the server applies them as its own secondaries do.
fn apply_diffs(writer: &mut Writer, changes: &[Change], first: usize, next: &[Option<usize>]) {
    writer.open_array("u");
    let mut present = Some(first);
    let mut stage = 0;
    while let Some(number) = present {
        if let Write::Diff(diff) = &changes[number].write {
            writer.open_document(&stage.to_string());
            writer.open_document("$_internalApplyOplogUpdate");
            writer.document("oplogUpdate", diff.get());
            writer.close();
            writer.close();
        }
        stage += 1;
        present = next[number];
    }
    writer.close();
}

fn deletes(writer: &mut Writer, changes: &[Change], numbers: &[usize]) {
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
        assert_eq!(plan.strict, [true, true, false], "a delete may find nothing");
    }

    #[test]
    fn diffs_of_one_document_are_stages_of_one_update() {
        let c = collection(1);
        let mut changes: Vec<_> = (0..5).map(|_| change(&c, 1, 1, false)).collect();
        changes.insert(2, change(&c, 2, 1, true));
        let merged = plan(&changes);
        assert_eq!(merged.statements, [vec![0, 2]]);
        assert_eq!(merged.strict, [false], "one of them may be a replay");
        // The same hash, but another document.
        let other = Change { hash: 1, ..change(&c, 7, 1, false) };
        assert_eq!(
            plan(&[change(&c, 1, 1, false), other, change(&c, 1, 1, false)]).statements,
            [vec![0, 1, 2]]
        );
        let many: Vec<_> = (0..=STAGES).map(|_| change(&c, 1, 1, false)).collect();
        assert_eq!(plan(&many).statements, [vec![0, STAGES]]);
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
            let changes: Vec<_> = spec.iter().enumerate().map(|(n, &(c, id, kind, replay))| {
                let mut change = change(&collections[usize::from(c) - 1], id, kind, replay);
                if kind == 1 {
                    // Numbered, to be found again among the stages of a statement.
                    change.write = Write::Diff(bytes(&doc! {"n": i64::try_from(n).unwrap()}));
                }
                change
            }).collect();
            let plan = plan(&changes);
            let mut order: Vec<usize> = Vec::new();
            for (operation, statements) in plan.operations.iter().zip(&plan.statements) {
                let command: mongodb::bson::Document = operation.command.clone().try_into().unwrap();
                let array = command.values().find_map(|value| value.as_array()).unwrap();
                prop_assert_eq!(array.len(), statements.len());
                for (statement, &first) in array.iter().zip(statements) {
                    let stages = statement.as_document().and_then(|one| one.get_array("u").ok());
                    match stages.filter(|_| matches!(changes[first].write, Write::Diff(_))) {
                        None => order.push(first),
                        Some(stages) => order.extend(stages.iter().map(|stage| {
                            let apply = stage.as_document().unwrap().get_document("$_internalApplyOplogUpdate").unwrap();
                            usize::try_from(apply.get_document("oplogUpdate").unwrap().get_i64("n").unwrap()).unwrap()
                        })),
                    }
                }
            }
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..changes.len()).collect::<Vec<_>>());
            for (at, &earlier) in order.iter().enumerate() {
                for &later in &order[at + 1..] {
                    let same = spec[earlier].0 == spec[later].0 && spec[earlier].1 == spec[later].1;
                    prop_assert!(!same || earlier < later);
                }
            }
        }
    }
}
