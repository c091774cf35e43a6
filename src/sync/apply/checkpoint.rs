//! The checkpoint: a place in the stream whose events are all applied and majority-committed.
//!
//! It is recorded only if the target has all that the lanes committed (`committed`).

use std::sync::Arc;

use mongodb::bson::{Document, Timestamp, doc};

use super::committed::Committed;
use super::watermark::{Mark, Watermark};
use crate::sync::context::Context;
use crate::sync::endpoint::oplog;
use crate::sync::error::{Reason, Result};

/// Writes checkpoints.
#[derive(Debug)]
pub struct Checkpointer {
    ctx: Context,
    watermark: Arc<Watermark>,
    committed: Committed,
    last: Option<Mark>,
    may_read_oplog: bool,
}

impl Checkpointer {
    /// For one run.
    pub fn new(ctx: Context, watermark: Arc<Watermark>, committed: Committed) -> Self {
        Self { ctx, watermark, committed, last: None, may_read_oplog: true }
    }

    /// Write one if there is news. `extra` goes into the sync's document with it.
    pub async fn write(&mut self, extra: Document) -> Result<Timestamp> {
        // The mark first: what it covers is in the lanes' numbers, which are read later.
        let mark = self.watermark.mark();
        if extra.is_empty() && self.last.as_ref() == Some(&mark) {
            return Ok(mark.time);
        }
        let mut set = extra;
        set.insert("checkpoint", doc! {"token": &mark.token, "time": mark.time});
        if let Some(witness) = self.witness(mark.time).await? {
            set.insert("witness", witness);
        }
        self.committed.write(&self.ctx.store, vec![self.ctx.store.update_sync(set)?]).await?;
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
