//! Applying events: route → lane → batch → write; DDL in between, at barriers.

pub mod batch;
pub mod checkpoint;
pub mod committed;
pub mod ddl;
pub mod deleted;
pub mod key;
pub mod lane;
pub mod modifiers;
pub mod reread;
pub mod router;
pub mod watermark;

use std::sync::Arc;

use mongodb::bson::Timestamp;

use super::catalog::Collection;
use super::endpoint::cursor::Slice;

/// One event on its way to the target.
#[derive(Clone, Debug)]
pub struct Change {
    /// The collection.
    pub collection: Arc<Collection>,
    /// `{_id: …}`.
    pub key: Bytes,
    /// The document's identity; events with the same hash keep their order.
    pub hash: u64,
    /// What to write.
    pub write: Write,
    /// Whether its effect may be on the target already: then it is written so that it does no harm, and an error
    /// means that the document must be read again.
    pub replay: bool,
    /// When it happened.
    pub time: Timestamp,
    /// Its resume token.
    pub token: Bytes,
    /// The batch it came in.
    pub batch: u64,
}

/// What to write.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new document.
    Insert(Bytes),
    /// A whole document in place of another.
    Replace(Bytes),
    /// The document as it was read again from the source: whatever stands there.
    Put(Bytes),
    /// A difference, as in the oplog.
    Diff(Bytes),
    /// The document as the source has it now: what happened to it is not known.
    Reread,
    /// No document.
    Delete,
}

/// Bytes out of a batch, or our own.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// Out of a batch.
    Slice(Slice),
    /// Our own.
    Owned(Arc<[u8]>),
}

impl Bytes {
    /// The bytes.
    pub fn get(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Write {
    /// Bytes that it adds to a command.
    pub fn len(&self) -> usize {
        match self {
            Self::Insert(bytes) | Self::Replace(bytes) | Self::Put(bytes) | Self::Diff(bytes) => {
                bytes.get().len()
            }
            Self::Delete | Self::Reread => 0,
        }
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
