//! A connected end: commands with the endpoint's name in every error.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::options::{ReadPreference as DriverReadPreference, ReadPreferenceOptions, SelectionCriteria};

use super::config::{EndpointConfig, Feature, ReadPreference};
use super::failure;
use crate::sync::error::{Error, Reason, Result};

/// Which end; decides the reason of a connection error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where data comes from.
    Source,
    /// Where data goes.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// One end, connected on first use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    client: Client,
    side: Side,
    hosts: String,
    read: SelectionCriteria,
    patience: Duration,
    avoid: Vec<Feature>,
}

impl Endpoint {
    /// Resolve names and set up the client; nothing is sent yet.
    pub async fn connect(side: Side, config: &EndpointConfig) -> Result<Self> {
        let unreachable = match side {
            Side::Source => Reason::SourceUnreachable,
            Side::Target => Reason::TargetUnreachable,
        };
        let options = config.client_options().await.map_err(|error| {
            Error::new(unreachable, format!("the {side}'s address cannot be used: {error}"))
        })?;
        let client = Client::with_options(options)
            .map_err(|error| failure::from_driver(side, &config.hosts(), &error))?;
        Ok(Self {
            client,
            side,
            hosts: config.hosts(),
            read: criteria(config.read_preference()),
            patience: config.operation_timeout(),
            avoid: config.avoided().to_vec(),
        })
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Whether a feature is done without.
    pub fn avoids(&self, feature: Feature) -> bool {
        self.avoid.contains(&feature)
    }

    /// Seed hosts, for messages.
    pub fn hosts(&self) -> &str {
        &self.hosts
    }

    /// The driver's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where clone and change stream read, by the endpoint's read preference.
    pub fn read_criteria(&self) -> SelectionCriteria {
        self.read.clone()
    }

    /// The same end, read from its primary, which is waited for: a member that lags, or that was filled anew, does not show
    /// what there is.
    #[must_use]
    pub fn at_primary(&self) -> Self {
        Self { read: criteria(ReadPreference::Primary), ..self.clone() }
    }

    /// A command on the primary.
    pub async fn command(&self, db: &str, command: Document) -> Result<Document> {
        self.in_time(self.long_command(db, command)).await?
    }

    /// Wait for an answer as long as an answer can take: the driver has no limit of its own, and a network that
    /// swallows packets would hold us for ever.
    pub async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.patience, answer).await.map_err(|_| {
            Error::new(
                Reason::Interrupted,
                format!(
                    "the {} at {} did not answer within {} s",
                    self.side,
                    self.hosts,
                    self.patience.as_secs()
                ),
            )
        })
    }

    /// A command on the primary, for as long as it takes: making an index unique reads all of it.
    pub async fn long_command(&self, db: &str, command: Document) -> Result<Document> {
        let reply = self.client.database(db).run_command(command).await;
        self.concerned(reply.map_err(|error| self.failure(&error))?)
    }

    /// A raw command on the primary.
    pub async fn raw_command(&self, db: &str, command: RawDocumentBuf) -> Result<Document> {
        self.in_time(self.long_raw_command(db, command)).await?
    }

    /// A raw command on the primary, for as long as it takes: index builds come this way.
    pub async fn long_raw_command(&self, db: &str, command: RawDocumentBuf) -> Result<Document> {
        let reply = self.client.database(db).run_raw_command(command).await;
        self.concerned(reply.map_err(|error| self.failure(&error))?)
    }

    /// A reply may say that the command was done and that a majority does not have it: a primary that steps down says
    /// so, and the driver takes it for success. It may be rolled back, so it is to be tried again.
    fn concerned(&self, reply: Document) -> Result<Document> {
        let Ok(concern) = reply.get_document("writeConcernError") else { return Ok(reply) };
        let words = failure::server_words(concern.get_str("errmsg").unwrap_or_default());
        let code = concern.get_i32("code").ok();
        Err(Error::new(Reason::Interrupted, format!("{}: not committed by a majority: {words}", self.side))
            .with_code(code))
    }

    /// A command on the primary, or on a secondary where there is no primary.
    pub async fn command_anywhere(&self, db: &str, command: Document) -> Result<Document> {
        let database = self.client.database(db);
        let reply =
            database.run_command(command).selection_criteria(criteria(ReadPreference::PrimaryPreferred));
        self.in_time(reply.into_future()).await?.map_err(|error| self.failure(&error))
    }

    /// The engine's error for one of the driver's.
    pub fn failure(&self, error: &mongodb::error::Error) -> Error {
        failure::from_driver(self.side, &self.hosts, error)
    }

    /// Close pooled connections.
    pub async fn close(self) {
        self.client.shutdown().immediate(true).await;
    }
}

fn criteria(preference: ReadPreference) -> SelectionCriteria {
    let options = Some(ReadPreferenceOptions::default());
    SelectionCriteria::ReadPreference(match preference {
        ReadPreference::Primary => DriverReadPreference::Primary,
        ReadPreference::PrimaryPreferred => DriverReadPreference::PrimaryPreferred { options },
        ReadPreference::Secondary => DriverReadPreference::Secondary { options },
        ReadPreference::SecondaryPreferred => DriverReadPreference::SecondaryPreferred { options },
        ReadPreference::Nearest => DriverReadPreference::Nearest { options },
    })
}
