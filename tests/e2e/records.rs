//! What the target itself recorded: its oplog says which session moved which slot, and when a new owner took it over.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};

use crate::cluster::{Cluster, coll};

const OWNERS: &str = "clustersync.owners";
const SYNCS: &str = "clustersync.syncs";
const SLOTS: &str = "clustersync.slots";

/// A slot as the oplog tells it.
#[derive(Default)]
struct Slot {
    /// The session that the present owner announced in it.
    session: Option<Bson>,
    moves: u64,
    owners: u64,
}

/// The sessions that write the durable state of a sync, as the oplog tells them.
#[derive(Default)]
struct Sync {
    /// Of the owner that took the sync last.
    announced: Option<Bson>,
    /// Of the owner that raised the epoch in the sync's document last: the former may write until then.
    present: Option<Bson>,
}

/// All that was seen so far.
#[derive(Default)]
struct Seen {
    slots: BTreeMap<String, Slot>,
    syncs: BTreeMap<String, Sync>,
    /// Transactions that wrote the durable state of a sync.
    recorded: u64,
}

/// Every move of every slot was made by the session that the slot's present owner had announced in it, and every other write
/// of the durable state by the session of the sync's present owner: nobody else wrote at any time. Says how many of each
/// kind were seen, and the most owners that one slot had.
pub async fn one_writer_at_a_time(cluster: &Cluster) -> (u64, u64, u64) {
    let namespaces = doc! {"$in": [OWNERS, SYNCS, SLOTS]};
    let filter = doc! {"$or": [{"ns": namespaces.clone()}, {"o.applyOps.ns": namespaces}]};
    let oplog = coll(&cluster.target, "local", "oplog.rs");
    let mut entries = oplog.find(filter).sort(doc! {"$natural": 1}).await.unwrap();
    let mut seen = Seen::default();
    while let Some(entry) = entries.try_next().await.unwrap() {
        match entry.get_document("o").and_then(|o| o.get_array("applyOps")) {
            Ok(inner) => seen.transaction(&entry, inner),
            Err(_) => seen.alone(&entry),
        }
    }
    let (moves, owners) =
        (seen.slots.values().map(|slot| slot.moves), seen.slots.values().map(|slot| slot.owners));
    (moves.sum(), seen.recorded, owners.max().unwrap_or(0))
}

impl Seen {
    fn transaction(&mut self, entry: &Document, operations: &[Bson]) {
        let session = entry.get_document("lsid").ok().and_then(|lsid| lsid.get("id").cloned());
        let updates = |namespace: &str| {
            let of = move |operation: &&Document| {
                operation.get_str("ns").is_ok_and(|ns| ns == namespace)
                    && operation.get_str("op").is_ok_and(|op| op == "u")
            };
            operations.iter().filter_map(Bson::as_document).filter(of).map(id).collect::<Vec<_>>()
        };
        let fenced = updates(SYNCS);
        for sync in &fenced {
            let known = self.syncs.entry(sync.clone()).or_default();
            let owner = known.present.as_ref().or(known.announced.as_ref());
            assert_eq!(
                session.as_ref(),
                owner,
                "the state of {sync} was written by a session that is not its owner's"
            );
            self.recorded += 1;
        }
        for slot in updates(SLOTS) {
            assert!(fenced.is_empty(), "{slot} was moved by what writes the state");
            let moved = self.slots.entry(slot.clone()).or_default();
            assert_eq!(session, moved.session, "{slot} was moved by a session that is not its owner's");
            moved.moves += 1;
        }
    }

    /// A write outside of a transaction: an owner that takes the sync, raises the epoch, or announces its session.
    fn alone(&mut self, entry: &Document) {
        let (epoch, session) = changed(entry);
        match entry.get_str("ns").unwrap_or_default() {
            OWNERS => {
                if session.is_some() {
                    self.syncs.entry(id(entry)).or_default().announced = session;
                }
            }
            SYNCS => {
                let sync = self.syncs.entry(id(entry)).or_default();
                if epoch {
                    sync.present.clone_from(&sync.announced);
                }
            }
            _ => {
                let slot = self.slots.entry(id(entry)).or_default();
                if epoch {
                    slot.session = None;
                    slot.owners += 1;
                }
                if session.is_some() {
                    slot.session = session;
                }
            }
        }
    }
}

fn id(operation: &Document) -> String {
    let key = operation.get_document("o2").or_else(|_| operation.get_document("o")).unwrap();
    key.get_str("_id").unwrap_or_default().to_owned()
}

/// Whether an entry sets the epoch, and the session that it sets.
fn changed(entry: &Document) -> (bool, Option<Bson>) {
    let Ok(o) = entry.get_document("o") else { return (false, None) };
    let of = |session: &Document| session.get("id").cloned();
    let Ok(diff) = o.get_document("diff") else {
        return (false, o.get_document("session").ok().and_then(of));
    };
    let parts: Vec<&Document> = ["u", "i"].iter().filter_map(|part| diff.get_document(part).ok()).collect();
    let whole = parts.iter().find_map(|part| part.get_document("session").ok());
    let inside = diff.get_document("ssession").and_then(|session| session.get_document("u")).ok();
    (parts.iter().any(|part| part.contains_key("epoch")), whole.or(inside).and_then(of))
}
