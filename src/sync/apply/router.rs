//! From the change stream to the lanes: one task that sees every event in order, drops what is not for us, waits
//! for what is still being cloned, and stops at DDL until the lanes of its collection are empty.

use std::collections::HashSet;
use std::sync::Arc;

use mongodb::bson::{Timestamp, Uuid};
use tokio::sync::mpsc;

use super::ddl::Ddl;
use super::deleted::Deleted;
use super::lane::Lane;
use super::watermark::{Mark, Watermark};
use super::{Bytes, Change, Write, key};
use crate::sync::catalog::{Collection, read};
use crate::sync::clone;
use crate::sync::context::Context;
use crate::sync::endpoint::cursor::{Batch, Slice};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::state::CollectionState;
use crate::sync::stream::reader::EventBatch;
use crate::sync::stream::{Event, Kind, token};

/// Routes events.
#[derive(Debug)]
pub struct Router {
    ctx: Context,
    lanes: Vec<Lane>,
    watermark: Arc<Watermark>,
    ddl: Ddl,
    /// Events at or before it are in the catalogue and in every clone.
    catalogue_time: Timestamp,
    /// The newest time of which every event was seen.
    complete: Timestamp,
    /// The time of the last event.
    latest: Timestamp,
    /// Where the stream stood after the last batch.
    token: String,
    waiting: Vec<Vec<Change>>,
    deleted: Deleted,
    /// Collections of kinds that are left out.
    left_out: HashSet<Uuid>,
}

/// What becomes of an event of a document.
enum Verdict {
    Apply(Arc<Collection>),
    Discard,
}

impl Router {
    /// A router at the watermark's place.
    pub fn new(
        ctx: Context,
        lanes: Vec<Lane>,
        watermark: Arc<Watermark>,
        ddl: Ddl,
        catalogue_time: Timestamp,
    ) -> Self {
        let Mark { token, time: start } = watermark.mark();
        let waiting = lanes.iter().map(|_| Vec::new()).collect();
        Self {
            ctx,
            lanes,
            watermark,
            ddl,
            catalogue_time,
            complete: start,
            latest: start,
            token,
            waiting,
            deleted: Deleted::default(),
            left_out: HashSet::new(),
        }
    }

    /// Route until the reader is gone.
    pub async fn run(mut self, mut batches: mpsc::Receiver<EventBatch>) -> Result<()> {
        while let Some(EventBatch { batch, reservation, opening }) = batches.recv().await {
            let number = self.watermark.begin(Some(reservation));
            self.route(number, &batch, opening).await?;
        }
        Ok(())
    }

    async fn route(&mut self, number: u64, batch: &Arc<Batch>, opening: bool) -> Result<()> {
        let mut events = 0;
        let mut last_token = "";
        for bytes in batch.documents() {
            let event = Event::parse(bytes).ok_or_else(|| {
                Error::new(Reason::UnsupportedEvent, "the source sent a change event that is not understood")
            })?;
            events += 1;
            last_token = event.token;
            if event.time > self.latest {
                self.complete = self.latest;
                self.latest = event.time;
                self.ctx.progress.update_times(|times| times.seen = Some(event.time));
            }
            if event.time <= self.catalogue_time {
                continue;
            }
            if event.kind.is_document() {
                self.document(number, batch, &event).await?;
            } else {
                self.flush();
                Box::pin(self.ddl.apply(&event)).await?;
            }
        }
        self.flush();
        self.ctx.progress.events_read.add(events);
        let Some(token) = batch.post_batch_token().and_then(token::text) else { return Ok(()) };
        // A token that is not the last event's is a high-water mark: nothing at its time is still to come. The same
        // holds for an empty batch after the last event: the events of one transaction share a time. But a high-water mark
        // that has not moved says nothing new: that of a stream which was just opened names the moment after the last
        // operation, and what happens at that moment is still to come. Neither does an event's token with which a cursor
        // was opened: until it moves, the member that answers may lag behind the rest of that event's transaction.
        let rests = token == self.token && (token::is_high_water(&token) || opening);
        if !rests && (events == 0 || token::data(&token) != last_token) {
            self.complete = self.complete.max(token::time(&token).unwrap_or(self.complete)).max(self.latest);
            self.latest = self.complete;
        }
        self.token.clone_from(&token);
        self.watermark.end(number, Mark { token, time: self.complete });
        Ok(())
    }

    async fn document(&mut self, number: u64, batch: &Arc<Batch>, event: &Event<'_>) -> Result<()> {
        let Verdict::Apply(collection) = self.judge(event).await? else { return Ok(()) };
        let key = event.key.ok_or_else(|| {
            Error::new(
                Reason::UnsupportedEvent,
                format!("a change event of {} has no documentKey", event.namespace()),
            )
        })?;
        let hash = key::hash(collection.uuid, key, collection.is_collated());
        // A capped collection keeps insertion order, so that it has one lane.
        let spread = if collection.is_capped() { key::hash(collection.uuid, &[], false) } else { hash };
        let lane = usize::try_from(spread % self.lanes.len() as u64).unwrap_or(0);
        if event.token <= self.lanes[lane].position.as_str() {
            return Ok(());
        }
        let slice = |bytes: &[u8]| Bytes::Slice(Slice::new(batch, bytes));
        let missing = |what: &str| {
            Error::new(
                Reason::UnsupportedEvent,
                format!("a change event of {} has no {what}", event.namespace()),
            )
        };
        let replay = collection.in_replay_window(event.time);
        if collection.is_capped() && self.deleted.is_order_lost(event.kind, collection.uuid, hash, replay) {
            self.flush();
            collection.drained().await;
            tracing::info!(
                namespace = %collection.target(),
                "copying a capped collection again: a document came back during its scan"
            );
            // Its new clone reads from a later time than this event's.
            return clone::restart(&self.ctx, &collection).await;
        }
        let write = match event.kind {
            Kind::Delete => Write::Delete,
            // Read without its body, since it would not have fitted into a message, or without the oplog's diff.
            _ if event.full.is_none() && event.diff.is_none() => Write::Reread,
            Kind::Update => Write::Diff(slice(event.diff.ok_or_else(|| missing("rawUpdateDescription"))?)),
            Kind::Insert => Write::Insert(slice(event.full.ok_or_else(|| missing("fullDocument"))?)),
            _ => Write::Replace(slice(event.full.ok_or_else(|| missing("fullDocument"))?)),
        };
        self.waiting[lane].push(Change {
            collection,
            key: slice(key),
            hash,
            write,
            replay,
            time: event.time,
            token: slice(event.token.as_bytes()),
            batch: number,
        });
        Ok(())
    }

    async fn judge(&mut self, event: &Event<'_>) -> Result<Verdict> {
        let Some(uuid) = event.uuid else {
            return if self.ctx.config.scope.contains(event.db, event.coll) {
                Err(Error::new(
                    Reason::UnsupportedEvent,
                    format!("a change event of {} has no collectionUUID", event.namespace()),
                ))
            } else {
                Ok(Verdict::Discard)
            };
        };
        loop {
            let Some(collection) = self.ctx.catalog.get(uuid) else {
                return self.unknown(event, uuid).await;
            };
            if collection.is_gone() {
                return Ok(Verdict::Discard);
            }
            let (state, read_time) = {
                let record = collection.record();
                (record.state, record.read_time)
            };
            let read = |time: Timestamp| read_time.is_some_and(|read| time <= read);
            match state {
                // Its clone will read from a time after this event.
                CollectionState::Pending => return Ok(Verdict::Discard),
                CollectionState::Cloned | CollectionState::Cloning if read(event.time) => {
                    return Ok(Verdict::Discard);
                }
                CollectionState::Cloned => return Ok(Verdict::Apply(collection)),
                CollectionState::Creating | CollectionState::Cloning => {
                    self.flush();
                    let catalog = Arc::clone(&self.ctx.catalog);
                    catalog
                        .wait_until(|| {
                            catalog.get(uuid).is_none_or(|now| now.is_gone() || now.state() != state)
                        })
                        .await;
                }
            }
        }
    }

    /// An event of a collection that we do not know: out of scope, dropped by DDL that was applied before a restart,
    /// left out, or a gap.
    async fn unknown(&mut self, event: &Event<'_>, uuid: Uuid) -> Result<Verdict> {
        let known_to_be_none = event.token <= self.ddl.position() || self.ddl.is_before_the_listing(event);
        if !self.ctx.config.scope.contains(event.db, event.coll)
            || known_to_be_none
            || self.left_out.contains(&uuid)
        {
            return Ok(Verdict::Discard);
        }
        if self.ctx.config.initial_sync.skip_unsupported && self.is_unsupported(uuid, event.time).await? {
            self.left_out.insert(uuid);
            return Ok(Verdict::Discard);
        }
        Err(Error::new(
            Reason::StateMismatch,
            format!("{} changed on the source, but its creation was never seen", event.namespace()),
        ))
    }

    /// Whether the source has it as a kind that is left out, or has it no more: then nothing of it is missing.
    async fn is_unsupported(&self, uuid: Uuid, time: Timestamp) -> Result<bool> {
        match read::by_uuid(&self.ctx.source, uuid, time).await {
            Err(error) if error.reason() == Reason::Unsupported => Ok(true),
            found => Ok(found?.is_none()),
        }
    }

    /// Hand what waits to the lanes.
    fn flush(&mut self) {
        for (lane, waiting) in self.lanes.iter().zip(&mut self.waiting) {
            if waiting.is_empty() {
                continue;
            }
            let changes = std::mem::take(waiting);
            let mut run = 0;
            for (at, change) in changes.iter().enumerate() {
                run += 1;
                let last = changes.get(at + 1).is_none_or(|next| {
                    next.batch != change.batch || !Arc::ptr_eq(&next.collection, &change.collection)
                });
                if last {
                    self.watermark.add(change.batch, run);
                    change.collection.add_pending(run);
                    run = 0;
                }
            }
            lane.numbers.queued.add(changes.len() as u64);
            // A lane that is gone has failed; its error ends this run.
            let _ = lane.sender.send(changes);
        }
    }
}
