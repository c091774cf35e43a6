//! What the source's oplog can prove: how far back it reaches, and that a checkpoint is part of its history.

use std::time::Duration;

use mongodb::bson::{Document, Timestamp, doc};

use super::client::Endpoint;
use super::raw;
use crate::sync::error::{Error, Reason, Result};

/// Looks before a missing entry counts: a member that lags, or one just elected, does not show it yet.
const LOOKS: u32 = 10;

/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// An entry of the source's oplog: proof that a history is the one that a checkpoint was taken from. A resume
/// token proves nothing: one from another replica set is accepted silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The entry's time.
    pub time: Timestamp,
    /// The election term that wrote it.
    pub term: i64,
}

impl Witness {
    /// For the durable state.
    pub fn to_document(self) -> Document {
        doc! {"time": self.time, "term": self.term}
    }

    /// From the durable state.
    pub fn from_document(document: &Document) -> Option<Self> {
        Some(Self { time: document.get_timestamp("time").ok()?, term: document.get_i64("term").ok()? })
    }
}

/// What is said where the oplog must not be read.
pub const NOT_READABLE: &str = "the source's user may not read 'local': a rewound source cannot be recognised, and \
    the oplog window is not known";

/// The majority-committed entry at exactly `time`, if there is one.
pub async fn witness_at(source: &Endpoint, time: Timestamp) -> Result<Option<Witness>> {
    let found = first(
        source,
        doc! {
            "find": "oplog.rs", "filter": {"ts": {"$gte": time, "$lte": time}}, "projection": {"ts": 1, "t": 1},
            "limit": 1, "readConcern": {"level": "majority"},
        },
    )
    .await?;
    Ok(found.and_then(|entry| {
        let time = raw::get(&entry, "ts")?.as_timestamp()?;
        Some(Witness { time, term: raw::get(&entry, "t")?.as_i64()? })
    }))
}

/// Whether the source still has the history that `witness` belongs to. The primary is asked: a member that lags does not
/// show the newest yet, and one that was filled anew does not reach far back.
pub async fn check_witness(source: &Endpoint, witness: Witness) -> Result<()> {
    let source = &source.at_primary();
    for _ in 0..LOOKS {
        if witness_at(source, witness.time).await? == Some(witness) {
            return Ok(());
        }
        let oldest = oldest(source).await?;
        if oldest.is_none_or(|oldest| oldest > witness.time) {
            return Err(Error::new(
                Reason::OplogLost,
                format!(
                    "the source's oplog no longer reaches back to the checkpoint ({})",
                    seconds_text(witness.time)
                ),
            ));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Err(Error::new(
        Reason::SourceRewound,
        format!(
            "the source's oplog has no entry of term {} at the checkpoint ({})",
            witness.term,
            seconds_text(witness.time)
        ),
    ))
}

/// The time of the oldest entry.
pub async fn oldest(source: &Endpoint) -> Result<Option<Timestamp>> {
    let found = first(
        source,
        doc! {"find": "oplog.rs", "projection": {"ts": 1}, "sort": {"$natural": 1}, "limit": 1},
    )
    .await?;
    Ok(found.and_then(|entry| raw::get(&entry, "ts")?.as_timestamp()))
}

/// How much time the oplog holds, up to `newest`.
pub async fn window(source: &Endpoint, newest: Timestamp) -> Result<Option<Duration>> {
    Ok(oldest(source)
        .await?
        .map(|oldest| Duration::from_secs(newest.time.saturating_sub(oldest.time).into())))
}

async fn first(source: &Endpoint, command: Document) -> Result<Option<Vec<u8>>> {
    Ok(source.collect("local", command).await?.into_iter().next())
}

fn seconds_text(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.time.into()).map_or_else(|_| time.to_string(), |at| at.to_string())
}
