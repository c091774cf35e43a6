//! Raw cursors: whole server batches, with what the driver's typed cursors hide (resume tokens, times).

use std::future::IntoFuture;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp};
use mongodb::options::{CursorType, RunCursorCommandOptions};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::client::Endpoint;
use super::raw;
use crate::sync::error::{Error, Reason, Result};

/// A server-side cursor, bound to its server and session by the driver.
pub struct Cursor {
    inner: RawBatchCursor,
    endpoint: Endpoint,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("side", &self.endpoint.side()).finish_non_exhaustive()
    }
}

/// How a cursor waits and how much it fetches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fetch {
    /// For tailing cursors: how long a getMore may wait for something new.
    pub await_time: Option<Duration>,
    /// Documents in each later batch; the server ends a batch at 16 MB anyway.
    pub batch_size: Option<u32>,
}

/// One batch as the server sent it.
#[derive(Debug)]
pub struct Batch {
    reply: RawBatch,
    /// Where in the reply each document is: they are walked once, since each step of a walk waits for memory.
    documents: Vec<Range<usize>>,
}

impl Endpoint {
    /// Run a command that answers with a cursor, where the read preference says.
    pub async fn cursor(&self, db: &str, command: RawDocumentBuf, fetch: Fetch) -> Result<Cursor> {
        let mut options = RunCursorCommandOptions::default();
        options.selection_criteria = Some(self.read_criteria());
        options.cursor_type = Some(if fetch.await_time.is_some() {
            CursorType::TailableAwait
        } else {
            CursorType::NonTailable
        });
        options.max_time = fetch.await_time;
        options.batch_size = fetch.batch_size;
        let database = self.client().database(db);
        let opening = database.run_raw_cursor_command(command).with_options(options).batch();
        // A change stream that begins far back may scan long for its first event.
        let cursor = match fetch.await_time {
            Some(_) => opening.await,
            None => self.in_time(opening.into_future()).await?,
        };
        Ok(Cursor { inner: cursor.map_err(|error| self.failure(&error))?, endpoint: self.clone() })
    }

    /// As [`collect`](Self::collect), from the primary: what was just written.
    pub async fn collect_from_primary(&self, db: &str, command: Document) -> Result<Vec<Vec<u8>>> {
        let database = self.client().database(db);
        let opening = database.run_cursor_command(command).batch();
        let cursor = self.in_time(opening.into_future()).await?;
        let mut cursor =
            Cursor { inner: cursor.map_err(|error| self.failure(&error))?, endpoint: self.clone() };
        let mut all = Vec::new();
        while let Some(batch) = cursor.next().await? {
            all.extend(batch.documents().map(<[u8]>::to_vec));
        }
        Ok(all)
    }

    /// Every document that a cursor command yields; for catalogues and other small results.
    pub async fn collect(&self, db: &str, command: Document) -> Result<Vec<Vec<u8>>> {
        let command = RawDocumentBuf::try_from(&command)
            .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))?;
        let mut cursor = self.cursor(db, command, Fetch::default()).await?;
        let mut all = Vec::new();
        while let Some(batch) = cursor.next().await? {
            all.extend(batch.documents().map(<[u8]>::to_vec));
        }
        Ok(all)
    }
}

impl Cursor {
    /// The next batch, which for a tailing cursor may be empty; none at the end.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        match self.endpoint.in_time(self.inner.next()).await? {
            None => Ok(None),
            Some(Ok(reply)) => Ok(Some(Batch::new(reply))),
            Some(Err(error)) => Err(self.endpoint.failure(&error)),
        }
    }
}

impl Batch {
    fn new(reply: RawBatch) -> Self {
        let mut batch = Self { reply, documents: Vec::new() };
        let array = batch.array();
        let base = batch.bytes().as_ptr() as usize;
        let documents = raw::elements(array).map(|element| {
            let start = element.value.as_ptr() as usize - base;
            start..start + element.value.len()
        });
        batch.documents = documents.collect();
        batch
    }

    /// The server's whole reply.
    pub fn bytes(&self) -> &[u8] {
        self.reply.as_raw_document().as_bytes()
    }

    fn cursor_field(&self, name: &str) -> Option<raw::Element<'_>> {
        raw::get(raw::get(self.bytes(), "cursor")?.value, name)
    }

    /// The array of the documents, whose names are `"0"`, `"1"`, …
    pub fn array(&self) -> &[u8] {
        let array = self.cursor_field("firstBatch").or_else(|| self.cursor_field("nextBatch"));
        array.map(|array| array.value).unwrap_or_default()
    }

    /// The documents.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator {
        let bytes = self.bytes();
        self.documents.iter().map(|place| &bytes[place.clone()])
    }

    /// Whether the server has nothing more for this cursor.
    pub fn is_last(&self) -> bool {
        self.cursor_field("id").is_some_and(|id| id.value.iter().all(|byte| *byte == 0))
    }

    /// Where a change stream stands after this batch.
    pub fn post_batch_token(&self) -> Option<&[u8]> {
        self.cursor_field("postBatchResumeToken")?.as_document()
    }

    /// The time of the server's newest operation when it answered.
    pub fn operation_time(&self) -> Option<Timestamp> {
        raw::get(self.bytes(), "operationTime")?.as_timestamp()
    }

    /// The time that a snapshot read saw.
    pub fn at_cluster_time(&self) -> Option<Timestamp> {
        self.cursor_field("atClusterTime")?.as_timestamp()
    }
}

/// A piece of a batch that keeps the batch alive: passing a document on costs no copy.
#[derive(Clone, Debug)]
pub struct Slice {
    batch: Arc<Batch>,
    start: usize,
    end: usize,
}

impl Slice {
    /// `part` must lie inside `batch`; anything else yields an empty slice.
    pub fn new(batch: &Arc<Batch>, part: &[u8]) -> Self {
        let base = batch.bytes().as_ptr() as usize;
        let start = (part.as_ptr() as usize).wrapping_sub(base);
        let end = start.saturating_add(part.len());
        if end <= batch.bytes().len() {
            Self { batch: Arc::clone(batch), start, end }
        } else {
            Self { batch: Arc::clone(batch), start: 0, end: 0 }
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.batch.bytes()[self.start..self.end]
    }
}
