//! What the target itself recorded: its oplog says which session moved which slot, and when a new owner took it over.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};

use crate::cluster::{Cluster, coll};

/// A slot as the oplog tells it.
#[derive(Default)]
struct Slot {
    /// The session that the present owner announced in it.
    session: Option<Bson>,
    moves: u64,
    owners: u64,
}

/// Every move of every slot was made by the session that the slot's present owner had announced in it: nobody else wrote
/// at any time. Says how many moves were seen, and the most owners that one slot had.
pub async fn one_writer_at_a_time(cluster: &Cluster) -> (u64, u64) {
    let filter = doc! {"$or": [{"ns": "clustersync.slots"}, {"o.applyOps.ns": "clustersync.slots"}]};
    let oplog = coll(&cluster.target, "local", "oplog.rs");
    let mut entries = oplog.find(filter).sort(doc! {"$natural": 1}).await.unwrap();
    let mut slots: BTreeMap<String, Slot> = BTreeMap::new();
    while let Some(entry) = entries.try_next().await.unwrap() {
        let Ok(inner) = entry.get_document("o").and_then(|o| o.get_array("applyOps")) else {
            alone(&entry, &mut slots);
            continue;
        };
        let session = entry.get_document("lsid").ok().and_then(|lsid| lsid.get("id").cloned());
        for operation in inner.iter().filter_map(Bson::as_document) {
            if operation.get_str("ns").ok() == Some("clustersync.slots")
                && operation.get_str("op").ok() == Some("u")
            {
                let slot = slots.entry(id(operation)).or_default();
                assert_eq!(
                    session,
                    slot.session,
                    "{} was moved by a session that is not its owner's",
                    id(operation)
                );
                slot.moves += 1;
            }
        }
    }
    (slots.values().map(|slot| slot.moves).sum(), slots.values().map(|slot| slot.owners).max().unwrap_or(0))
}

fn id(operation: &Document) -> String {
    let key = operation.get_document("o2").or_else(|_| operation.get_document("o")).unwrap();
    key.get_str("_id").unwrap_or_default().to_owned()
}

/// An update outside of a transaction: an owner that raises the epoch, or announces its session.
fn alone(entry: &Document, slots: &mut BTreeMap<String, Slot>) {
    let slot = slots.entry(id(entry)).or_default();
    let Ok(diff) = entry.get_document("o").and_then(|o| o.get_document("diff")) else { return };
    for part in ["u", "i"].iter().filter_map(|part| diff.get_document(part).ok()) {
        if part.contains_key("epoch") {
            slot.session = None;
            slot.owners += 1;
        }
        if let Ok(session) = part.get_document("session") {
            slot.session = session.get("id").cloned();
        }
    }
    if let Ok(session) = diff.get_document("ssession").and_then(|s| s.get_document("u")) {
        slot.session = session.get("id").cloned();
    }
}
