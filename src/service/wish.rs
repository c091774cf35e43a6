//! What was asked of the one sync of a process, as it is saved on the target.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::{Document, deserialize_from_document, serialize_to_document};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::control::Refused;
use super::request::{self, StartRequest};
use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::client::Side;
use crate::sync::error::{Class, Result};
use crate::sync::state::Store;
use crate::sync::{Desired, DesiredState, Reason, SyncConfig, lifecycle};

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// The body of `/start`, as JSON.
    pub body: String,
    /// Run, rest or cut over.
    pub state: Asked,
    /// The token of the last retry.
    pub retry: String,
    /// The token of the `/start`: each has its own, and later ones are greater.
    pub restart: String,
    /// The rest of `pauseOnInitialSync` was taken.
    pub rested: bool,
}

/// The state that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// Clone, then stream.
    #[default]
    Running,
    /// Rest.
    Paused,
    /// Cut over.
    Completed,
}

impl Wish {
    /// For the engine.
    pub fn desired(&self) -> Desired {
        let state = match self.state {
            Asked::Running => DesiredState::Running,
            Asked::Paused => DesiredState::Paused,
            Asked::Completed => DesiredState::Completed,
        };
        Desired { state, retry: self.retry.clone(), restart: self.restart.clone() }
    }

    /// Out of what is saved, with the start that it holds. Nothing of it is guessed: half a wish would mean a scope
    /// that nobody asked for.
    pub fn read(saved: Document) -> std::result::Result<(Self, StartRequest), String> {
        let unusable = |why: String| format!("what was asked before cannot be used: {why}");
        let wish: Self = deserialize_from_document(saved).map_err(|error| unusable(error.to_string()))?;
        let body: Map<String, Value> = serde_json::from_str(&wish.body)
            .map_err(|error| unusable(format!("the body of its start is not JSON ({error})")))?;
        let request = request::parse(&body, true).map_err(|error| unusable(error.to_string()))?;
        Ok((wish, request))
    }

    /// A start that is older than one that the sync has done must not be done over it.
    #[must_use]
    pub fn not_before(mut self, handled: &str) -> Self {
        if is_older(&self.restart, handled) {
            tracing::debug!(
                asked = self.restart,
                handled,
                "an older start than the last one is not done again"
            );
            handled.clone_into(&mut self.restart);
        }
        self
    }
}

/// Tokens are times, in RFC 3339. What is none has no order.
fn is_older(token: &str, than: &str) -> bool {
    match (token.parse::<Timestamp>(), than.parse::<Timestamp>()) {
        (Ok(token), Ok(than)) => token < than,
        _ => false,
    }
}

/// A token that was never used before, and comes after `last` whatever the clocks of other machines say.
pub fn token_after(last: &str) -> String {
    let now = Timestamp::now();
    let next = last.parse::<Timestamp>().ok().and_then(|last| last.checked_add(Duration::from_nanos(1)).ok());
    next.map_or(now, |next| next.max(now)).to_string()
}

/// The start that the sync did last, by its durable state; empty if none.
pub async fn handled_restart(config: &SyncConfig) -> Result<String> {
    let target = Endpoint::connect(Side::Target, &config.target).await?;
    let recorded = Store::new(target.clone(), &config.metadata_database, &config.id).load().await;
    target.close().await;
    match recorded {
        Ok(record) => Ok(record.map(|record| record.handled_restart).unwrap_or_default()),
        // What this version cannot read is the engine's to refuse.
        Err(error) if error.class() == Class::Stop => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Save within `patience`.
pub async fn save(config: &SyncConfig, wish: &Wish, patience: Duration) -> std::result::Result<(), Refused> {
    let wish = serialize_to_document(wish).map_err(|error| Refused(error.to_string()))?;
    match tokio::time::timeout(patience, lifecycle::save_wish(config, wish)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Refused(error.explain())),
        Err(_) => Err(Refused(format!(
            "the target does not answer. {}",
            Reason::TargetUnreachable.remedy_by_hand()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn a_wish_is_read_whole_or_not_at_all() {
        let wish = Wish {
            body: r#"{"includeNamespaces":["a.*"]}"#.to_owned(),
            restart: token_after(""),
            ..Wish::default()
        };
        let saved = serialize_to_document(&wish).unwrap();
        let (read, request) = Wish::read(saved.clone()).unwrap();
        assert_eq!((read, request.include), (wish, vec!["a.*".to_owned()]));
        for (field, value) in [
            ("body", ""),
            ("body", "{\"includeNamespaces\": [\"a.*\""),
            ("body", "[]"),
            ("body", "{\"includeNamespaces\": 1}"),
            ("state", "Flying"),
        ] {
            let mut broken = saved.clone();
            broken.insert(field, value);
            let why = Wish::read(broken).unwrap_err();
            assert!(why.contains("cannot be used"), "{field} {value}: {why}");
        }
        assert!(Wish::read(doc! {}).is_err());
    }

    #[test]
    fn an_older_start_gives_way_to_the_one_that_was_done() {
        let with = |restart: &str| Wish { restart: restart.to_owned(), ..Wish::default() };
        for (asked, handled, kept) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"),
            ("2026-01-01T00:00:00Z", "", "2026-01-01T00:00:00Z"),
            ("", "2026-01-01T00:00:00Z", ""),
        ] {
            assert_eq!(with(asked).not_before(handled).restart, kept, "{asked} {handled}");
        }
    }

    #[test]
    fn tokens_grow_also_where_the_clock_goes_back() {
        let ahead = (Timestamp::now() + Duration::from_secs(3600)).to_string();
        for last in ["", "no time", "2020-01-01T00:00:00Z", &ahead] {
            let token = token_after(last);
            assert!(token != last && !is_older(&token, last), "{last} {token}");
        }
        let token = token_after(&ahead);
        assert!(is_older(&ahead, &token));
    }
}
