//! Transactions on the target, as raw commands on a session of our own.

use std::future::IntoFuture;

use mongodb::ClientSession;
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::options::{Acknowledgment, ReadConcern, SessionOptions, TransactionOptions, WriteConcern};

use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::client::Side;
use crate::sync::endpoint::failure;
use crate::sync::endpoint::raw::Writer;
use crate::sync::error::{Error, Reason, Result};

/// One command of a transaction.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The database it runs in.
    pub db: String,
    /// The command, without concerns.
    pub command: RawDocumentBuf,
}

impl Operation {
    /// From a decoded command.
    pub fn new(db: &str, command: &Document) -> Result<Self> {
        let command = RawDocumentBuf::try_from(command)
            .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))?;
        Ok(Self { db: db.to_owned(), command })
    }

    /// The command, outside of a transaction: done when a majority has it.
    pub fn for_majority(&self) -> RawDocumentBuf {
        let mut writer = Writer::continuing(self.command.as_bytes());
        writer.majority();
        writer.finish()
    }

    /// Bytes of the command.
    pub fn len(&self) -> usize {
        self.command.as_bytes().len()
    }

    /// Whether it is no command at all.
    pub fn is_empty(&self) -> bool {
        self.command.is_empty()
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The primary: may be rolled back by a failover, which the slot's number shows.
    Primary,
    /// A majority.
    Majority,
}

/// A session for one transaction at a time.
#[derive(Debug)]
pub struct Session {
    inner: ClientSession,
    target: Endpoint,
}

impl Session {
    /// A new session.
    pub async fn open(target: &Endpoint) -> Result<Self> {
        let options = SessionOptions::builder().causal_consistency(false).build();
        let inner = target.client().start_session().with_options(options).await;
        Ok(Self { inner: inner.map_err(|error| target.failure(&error))?, target: target.clone() })
    }

    /// The server's name of the session: whoever takes over can kill its open transaction.
    pub fn id(&self) -> &Document {
        self.inner.id()
    }

    /// Begin.
    pub async fn begin(&mut self, durability: Durability) -> Result<()> {
        let acknowledgment = match durability {
            Durability::Primary => Acknowledgment::Nodes(1),
            Durability::Majority => Acknowledgment::Majority,
        };
        // Not "snapshot": that reads at the all-durable time, which another transaction's commit may hold before our
        // own last write to the slot. "local" reads the newest.
        let options = TransactionOptions::builder()
            .read_concern(ReadConcern::local())
            .write_concern(WriteConcern::builder().w(acknowledgment).build())
            .build();
        let begun = self.inner.start_transaction().with_options(options).await;
        begun.map_err(|error| self.target.failure(&error))
    }

    /// Run one command in the transaction. Errors of single documents are in the reply's `writeErrors`.
    pub async fn run(&mut self, operation: Operation) -> Result<Document> {
        let database = self.target.client().database(&operation.db);
        let command = database.run_raw_command(operation.command).session(&mut self.inner);
        let reply = self.target.in_time(command.into_future()).await?;
        reply.map_err(|error| self.target.failure(&error))
    }

    /// Commit. An error with reason `Interrupted` leaves it open whether it happened: the slot's number tells.
    pub async fn commit(&mut self) -> Result<()> {
        let committed = self.target.in_time(self.inner.commit_transaction().into_future()).await?;
        committed.map_err(|error| {
            let unknown = error.contains_label(mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT);
            let error = self.target.failure(&error);
            if unknown { error.as_reason(Reason::Interrupted) } else { error }
        })
    }

    /// Abort; the server does it by itself if this cannot reach it.
    pub async fn abort(&mut self) {
        match self.target.in_time(self.inner.abort_transaction().into_future()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %self.target.failure(&error), "a transaction was not aborted by request");
            }
            Err(error) => tracing::debug!(%error, "a transaction was not aborted by request"),
        }
    }
}

/// An error of one document in a write command's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    /// Position of the statement in its command.
    pub index: usize,
    /// The server's code.
    pub code: i32,
    /// The server's words, without the document.
    pub words: String,
}

/// The first document error in a write command's reply.
pub fn write_error(reply: &Document) -> Option<WriteError> {
    let first = reply.get_array("writeErrors").ok()?.first()?.as_document()?;
    let code = first.get_i32("code").unwrap_or(0);
    Some(WriteError {
        index: usize::try_from(first.get_i32("index").unwrap_or(0)).unwrap_or(0),
        code,
        words: failure::words_of(code, first.get_str("errmsg").unwrap_or_default()),
    })
}

/// The error for a document error that nobody may mend.
pub fn write_failure(namespace: &str, error: &WriteError) -> Error {
    failure::from_code(Side::Target, error.code, &error.words).context(format!("writing to {namespace}"))
}
