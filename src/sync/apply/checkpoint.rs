//! The checkpoint: a place in the stream whose events are all applied and majority-committed.
//!
//! One majority transaction compares the lanes' numbers with those that we saw committed, and records the
//! place. If a failover took a batch back, the numbers differ, nothing is recorded and the run starts over from
//! what the target holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::bson::{Document, Timestamp, doc};

use super::lane::Lane;
use super::watermark::{Mark, Watermark};
use crate::sync::context::Context;
use crate::sync::endpoint::oplog;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::state::Operation;
use crate::sync::state::store::SLOTS;

/// Writes checkpoints.
#[derive(Debug)]
pub struct Checkpointer {
    ctx: Context,
    watermark: Arc<Watermark>,
    lanes: Vec<(String, Arc<AtomicI64>)>,
    last: Option<Mark>,
    may_read_oplog: bool,
}

impl Checkpointer {
    /// For one run.
    pub fn new(ctx: Context, watermark: Arc<Watermark>, lanes: &[Lane]) -> Self {
        let lanes = lanes.iter().map(|lane| (lane.id.clone(), Arc::clone(&lane.seq))).collect();
        Self { ctx, watermark, lanes, last: None, may_read_oplog: true }
    }

    /// Write one if there is news. `extra` goes into the sync's document with it.
    pub async fn write(&mut self, extra: Document) -> Result<Timestamp> {
        // The mark first: what it covers is in the lanes' numbers that are read after it.
        let mark = self.watermark.mark();
        if extra.is_empty() && self.last.as_ref() == Some(&mark) {
            return Ok(mark.time);
        }
        let expected: Vec<(String, i64)> =
            self.lanes.iter().map(|(id, seq)| (id.clone(), seq.load(Ordering::Acquire))).collect();
        let mut set = extra;
        set.insert("checkpoint", doc! {"token": &mark.token, "time": mark.time});
        if let Some(witness) = self.witness(mark.time).await? {
            set.insert("witness", witness);
        }
        let ids: Vec<&str> = expected.iter().map(|(id, _)| id.as_str()).collect();
        let find = doc! {"find": SLOTS, "filter": {"_id": {"$in": ids}}, "projection": {"seq": 1}, "batchSize": 1_000};
        let operations = vec![Operation::new(self.ctx.store.db(), &find)?, self.ctx.store.update_sync(set)?];
        self.ctx.store.write_checked(operations, move |replies| lanes_hold(&expected, replies)).await?;
        self.ctx.progress.update_times(|times| times.checkpoint = Some(mark.time));
        let time = mark.time;
        self.last = Some(mark);
        Ok(time)
    }

    /// An oplog entry at the checkpoint's time, if there is one there; else the former witness stays.
    async fn witness(&mut self, time: Timestamp) -> Result<Option<Document>> {
        if !self.may_read_oplog {
            return Ok(None);
        }
        match oplog::witness_at(&self.ctx.source, time).await {
            Ok(witness) => Ok(witness.map(oplog::Witness::to_document)),
            Err(error) if error.reason() == Reason::NotAuthorized => {
                self.may_read_oplog = false;
                self.ctx.progress.warn(oplog::NOT_READABLE);
                Ok(None)
            }
            Err(error) => Err(error),
        }
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
