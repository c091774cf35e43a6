//! The change stream: one raw cursor on the whole deployment, re-opened where it broke.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use tokio::sync::mpsc;

use super::token;
use crate::sync::budget::Reservation;
use crate::sync::context::Context;
use crate::sync::endpoint::cursor::{Batch, Cursor, Fetch};
use crate::sync::endpoint::{Endpoint, Feature, failure};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::scope::Scope;

/// How long a getMore waits at the end of the oplog: the delay with which progress without events is seen.
const AWAIT: Duration = Duration::from_millis(250);

/// How soon a server answers that merely cut the stream off.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes that a batch should have: the server would fill 16 MB, of which several are on their way at a time.
const BATCH_BYTES: usize = 1 << 20;

/// Events in a batch at most.
const MOST_EVENTS: u32 = 2_000;

/// Events in a batch at least, where it is asked for anew because they are large.
const FEWEST_EVENTS: u32 = 4;

/// The first events, which tell how large those to come are: the first batch of a cursor has a hundred at most, what
/// follows would be twenty times as large.
const SAMPLE: usize = 50;

/// How many times as many events are asked for at most where those that come are small.
const GROWTH: u32 = 4;

/// Full batches of small events that make the reader ask for more, at first and at most.
const PATIENCE: u32 = 2;
const MOST_PATIENCE: u32 = 64;

/// A server's batch of events, with its share of the byte budget.
#[derive(Debug)]
pub struct EventBatch {
    /// What the server sent.
    pub batch: Arc<Batch>,
    /// Held until every event of the batch is applied.
    pub reservation: Reservation,
    /// Its cursor has not got beyond where it was opened: the member that answers may not be there yet.
    pub opening: bool,
}

/// How events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With documents and the oplog's diffs.
    Whole,
    /// Without them, one at a time: for an event that would not fit into a message.
    Slim,
}

fn command(
    scope: &Scope,
    resume: Option<&str>,
    batch_size: Option<i32>,
    form: Form,
    raw_updates: bool,
) -> Result<RawDocumentBuf> {
    let mut stream = doc! {"allChangesForCluster": true, "showExpandedEvents": true};
    if raw_updates {
        stream.insert("showRawUpdateDescription", true);
    }
    if let Some(token) = resume {
        stream.insert("resumeAfter", token::document(token));
    }
    let batch_size = if form == Form::Slim { Some(1) } else { batch_size };
    let cursor = batch_size.map_or_else(Document::new, |size| doc! {"batchSize": size});
    let mut pipeline = vec![doc! {"$changeStream": stream}, doc! {"$match": scope.change_stream_match()}];
    if form == Form::Slim {
        pipeline.push(doc! {"$unset": ["fullDocument", "rawUpdateDescription", "updateDescription"]});
    } else if !raw_updates {
        pipeline.push(doc! {"$unset": "updateDescription"});
    }
    let command = doc! {
        "aggregate": 1, "pipeline": pipeline, "cursor": cursor, "readConcern": {"level": "majority"},
    };
    RawDocumentBuf::try_from(&command)
        .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))
}

/// The beginning of a sync: a token, and a time up to which nothing needs to be streamed: every later event comes
/// after the token. The server lets a new stream begin behind its last applied operation, which may be later than
/// the majority-committed `operationTime` of its reply; a catalogue read at the latter would miss what is between.
pub async fn start(source: &Endpoint, scope: &Scope) -> Result<(String, Timestamp)> {
    let mut cursor =
        source.cursor("admin", command(scope, None, Some(0), Form::Whole, false)?, Fetch::default()).await?;
    let first = cursor.next().await?;
    let opened = first.as_ref().and_then(|batch| {
        let token = token::text(batch.post_batch_token()?)?;
        let time = before(token::time(&token)?).max(batch.operation_time()?);
        Some((token, time))
    });
    opened.ok_or_else(|| {
        Error::new(Reason::Unsupported, "the source opened a change stream without a resume token")
    })
}

/// The last moment before `time`.
fn before(time: Timestamp) -> Timestamp {
    match time.increment {
        0 => Timestamp { time: time.time.saturating_sub(1), increment: u32::MAX },
        increment => Timestamp { time: time.time, increment: increment - 1 },
    }
}

/// Read batches from after `token` until the receiver is gone.
pub async fn read(ctx: &Context, token: String, sender: mpsc::Sender<EventBatch>) -> Result<()> {
    let mut token = token;
    let mut form = Form::Whole;
    let mut raw_updates = !ctx.source.avoids(Feature::RawUpdates);
    let mut source = ctx.source.clone();
    let mut at_primary = false;
    let mut cursor = None;
    let mut asking = Asking::new();
    let mut opening = true;
    loop {
        if !raw_updates {
            ctx.progress.warn("the source does not offer raw updates: every updated document is read again");
        }
        let next = match cursor.as_mut() {
            None => match open(&source, ctx, &token, form, raw_updates, asking.size).await {
                Ok(opened) => {
                    (cursor, opening) = (Some(opened), true);
                    continue;
                }
                Err(error) => Err(error),
            },
            Some(cursor) => Cursor::next(cursor).await,
        };
        let batch = match next {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                cursor = None;
                continue;
            }
            Err(error) => {
                match error.code() {
                    // Idle cursors die after ten minutes; while a clone goes on nobody may have asked for longer.
                    Some(failure::CURSOR_NOT_FOUND) => {}
                    _ if form == Form::Whole && does_not_fit(&error, &source).await => {
                        tracing::info!(%error, "an event does not fit into a message: its document is read by itself");
                        form = Form::Slim;
                    }
                    // A member that was filled anew does not reach as far back as the others.
                    Some(code) if failure::HISTORY_LOST.contains(&code) && !at_primary => {
                        tracing::info!(code, "this member does not have the history: asking the primary");
                        at_primary = true;
                        source = ctx.source.at_primary();
                    }
                    Some(code) if raw_updates && failure::UNKNOWN_OPTION.contains(&code) => {
                        tracing::debug!(code, "the change stream refuses an option");
                        raw_updates = false;
                    }
                    _ => return Err(error.context("reading the change stream")),
                }
                cursor = None;
                continue;
            }
        };
        opening = opening && batch.documents().len() == 0;
        if let Some(after) = batch.post_batch_token().and_then(token::text) {
            opening = opening && after == token;
            token = after;
        }
        if form == Form::Slim && batch.documents().len() > 0 {
            form = Form::Whole;
            cursor = None;
        } else if asking.learn(batch.documents().len(), batch.bytes().len()) {
            cursor = None;
        }
        let reservation = ctx.budgets.stream.reserve(batch.bytes().len() as u64).await;
        if sender.send(EventBatch { batch: Arc::new(batch), reservation, opening }).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether the stream broke because its next event makes the reply too large. 6.0.5 closes the connection then where it
/// is the event's token that does: the server is there, and only cut the stream off.
async fn does_not_fit(error: &Error, source: &Endpoint) -> bool {
    if let Some(code) = error.code() {
        return code == failure::TOO_LARGE;
    }
    let ping = source.command_anywhere("admin", doc! {"ping": 1});
    error.reason() == Reason::SourceUnreachable
        && matches!(tokio::time::timeout(ANSWER, ping).await, Ok(Ok(_)))
}

/// How many events are asked for at a time. A cursor keeps the size with which it was opened: another size is another
/// cursor, so that events of mixed sizes must not make it go up and down.
#[derive(Debug)]
struct Asking {
    size: u32,
    /// The first events, and their bytes.
    sample: (usize, usize),
    /// Full batches in a row that were far too small.
    small: u32,
    /// So many of them make the size grow.
    patience: u32,
}

impl Asking {
    fn new() -> Self {
        Self { size: MOST_EVENTS, sample: (0, 0), small: 0, patience: PATIENCE }
    }

    /// How many events of the size of these are a batch.
    fn fitting(events: usize, bytes: usize) -> u32 {
        let fitting = BATCH_BYTES / (bytes / events.max(1)).max(1);
        u32::try_from(fitting).unwrap_or(MOST_EVENTS).clamp(FEWEST_EVENTS, MOST_EVENTS)
    }

    /// Learn from a batch; whether another size is better now. Less at once, more by and by, and the later the more
    /// often it was too much.
    fn learn(&mut self, events: usize, bytes: usize) -> bool {
        let fitting = Self::fitting(events, bytes);
        if self.sample.0 < SAMPLE {
            self.sample = (self.sample.0 + events, self.sample.1 + bytes);
            let fitting = Self::fitting(self.sample.0, self.sample.1);
            if self.sample.0 >= SAMPLE && fitting < self.size / 2 {
                self.size = fitting;
                return true;
            }
        }
        let (too_large, full) =
            (bytes > 2 * BATCH_BYTES && fitting < self.size, events >= self.size as usize);
        if too_large {
            (self.size, self.small) = (fitting, 0);
            self.patience = (2 * self.patience).min(MOST_PATIENCE);
            return true;
        }
        if full {
            self.small = if fitting / 2 >= self.size { self.small + 1 } else { 0 };
        }
        if self.small < self.patience {
            return false;
        }
        (self.size, self.small) = ((GROWTH * self.size).min(fitting), 0);
        true
    }
}

async fn open(
    source: &Endpoint,
    ctx: &Context,
    token: &str,
    form: Form,
    raw_updates: bool,
    size: u32,
) -> Result<Cursor> {
    let batch_size = if form == Form::Slim { 1 } else { size };
    let fetch = Fetch { await_time: Some(AWAIT), batch_size: Some(batch_size) };
    let command = command(&ctx.config.scope, Some(token), None, form, raw_updates)?;
    source.cursor("admin", command, fetch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size after so many batches of `events` (the size that is asked for, where there are more) of `each` bytes.
    fn size_after(asking: &mut Asking, batches: usize, events: usize, each: usize) -> u32 {
        for _ in 0..batches {
            let events = events.min(asking.size as usize);
            asking.learn(events, events * each);
        }
        asking.size
    }

    #[test]
    fn batches_follow_the_size_of_events() {
        let of_100_kb = u32::try_from(BATCH_BYTES / (100 << 10)).unwrap();
        let mut asking = Asking::new();
        assert_eq!(size_after(&mut asking, 9, 3, 900), MOST_EVENTS);
        assert_eq!(size_after(&mut asking, 9, usize::MAX, 900), MOST_EVENTS);
        assert!(asking.learn(160, 16 << 20), "a message is full of events of 100 KB");
        assert_eq!(asking.size, of_100_kb);
        assert_eq!(size_after(&mut asking, 9, usize::MAX, 100 << 10), of_100_kb);
        assert_eq!(size_after(&mut asking, 9, 1, 16 << 20), FEWEST_EVENTS);
        assert_eq!(size_after(&mut asking, 99, 3, 900), FEWEST_EVENTS, "there are no more");
        let (grown, fitting) = (size_after(&mut asking, 99, usize::MAX, 900) as usize, BATCH_BYTES / 900);
        assert!((fitting / 2..=fitting).contains(&grown), "{grown}");
    }

    #[test]
    fn the_first_batch_tells_what_to_ask_for() {
        let mut asking = Asking::new();
        assert!(asking.learn(101, 101 * (5 << 10)));
        assert_eq!(asking.size as usize, BATCH_BYTES / (5 << 10));
        assert!(!asking.learn(101, 101 * (15 << 10)), "only the first");
        let mut few = Asking::new();
        assert_eq!(size_after(&mut few, 9, 5, 100 << 10), MOST_EVENTS, "too few to tell");
        assert_eq!(size_after(&mut few, 1, 5, 100 << 10) as usize, BATCH_BYTES / (100 << 10));
    }

    #[test]
    fn mixed_sizes_do_not_open_a_cursor_again_and_again() {
        let mut asking = Asking::new();
        let sizes = (0..100_000).map(|number| if number % 40 == 39 { 5 << 20 } else { 900 });
        let (mut events, mut opened, mut bytes, mut batches) = (0, 0, 0, 0);
        for size in sizes {
            (events, bytes) = (events + 1, bytes + size);
            // A message is full at 16 MB.
            if events >= asking.size as usize || bytes > 16 << 20 {
                batches += 1;
                opened += u32::from(asking.learn(events, bytes));
                (events, bytes) = (0, 0);
            }
        }
        assert!(opened * 20 < batches, "opened {opened} times for {batches} batches");
    }

    #[test]
    fn the_moment_before_is_before() {
        for time in [Timestamp { time: 5, increment: 0 }, Timestamp { time: 5, increment: 1 }] {
            assert!(before(time) < time);
        }
    }
}
