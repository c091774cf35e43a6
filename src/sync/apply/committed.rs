//! What lanes committed, and whether the target still has it: a failover can take back what no majority had.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::bson::{Document, doc};

use super::lane::Lane;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::state::store::SLOTS;
use crate::sync::state::{Operation, Store};

/// The lanes' own account.
#[derive(Clone, Debug)]
pub struct Committed {
    lanes: Vec<(String, Arc<AtomicI64>)>,
}

impl Committed {
    /// By these lanes, at any time.
    pub fn by(lanes: &[Lane]) -> Self {
        Self { lanes: lanes.iter().map(|lane| (lane.id.clone(), Arc::clone(&lane.seq))).collect() }
    }

    /// Write in one majority transaction that commits only if the target has all that the lanes have committed by now.
    /// Else nothing is written, and the run starts over from what the target holds.
    pub async fn write(&self, store: &Store, mut operations: Vec<Operation>) -> Result<()> {
        let expected: Vec<(String, i64)> =
            self.lanes.iter().map(|(id, seq)| (id.clone(), seq.load(Ordering::Acquire))).collect();
        let ids: Vec<&str> = expected.iter().map(|(id, _)| id.as_str()).collect();
        let find = doc! {"find": SLOTS, "filter": {"_id": {"$in": ids}}, "projection": {"seq": 1}, "batchSize": 1_000};
        operations.insert(0, Operation::new(store.db(), &find)?);
        store.write_checked(operations, move |replies| lanes_hold(&expected, replies)).await.map(drop)
    }
}

fn lanes_hold(expected: &[(String, i64)], replies: &[Document]) -> Result<()> {
    let lanes = replies
        .first()
        .and_then(|reply| reply.get_document("cursor").ok())
        .and_then(|cursor| cursor.get_array("firstBatch").ok());
    let holds = |id: &str, seq: i64| {
        lanes.is_some_and(|lanes| {
            lanes.iter().filter_map(|lane| lane.as_document()).any(|lane| {
                lane.get_str("_id").ok() == Some(id) && lane.get_i64("seq").is_ok_and(|found| found >= seq)
            })
        })
    };
    match expected.iter().find(|(id, seq)| !holds(id, *seq)) {
        None => Ok(()),
        Some((id, seq)) => Err(Error::new(
            Reason::Interrupted,
            format!(
                "lane {id} does not hold batch {seq} any more: the target failed over; resuming from what it holds"
            ),
        )),
    }
}
