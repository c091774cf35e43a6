//! Events: one for each transition that a person would want to read in `kubectl describe`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::ClusterSyncStatus;
use crate::api::conditions::types;
use crate::resource::conditions::find;
use crate::sync::Phase;

use super::requests::{RequestError, Requests};

/// Events that wait for the apiserver; more are dropped, since status says the same.
const QUEUE: usize = 256;

/// The API's limit is 1 kB.
const MAX_NOTE: usize = 1000;

/// Who reports, as `kubectl describe` shows it.
const CONTROLLER: &str = "clustersync-operator";

/// The same again within this time counts the first one up.
const SERIES: Duration = Duration::from_secs(6 * 60);

/// An event is named after its object, with a suffix of 17 characters; a name has at most 253.
const MAX_NAME: usize = 230;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Something needs attention.
    pub warning: bool,
    /// One of the documented reasons.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Announcement {
    /// Something needs attention.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), note: note.into() }
    }

    fn normal(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), note: note.into() }
    }
}

/// What a change of status is worth saying. `milestone` is the last phase that was announced: `Pending` and
/// `Preflight` are passed through at each start and are not.
pub fn announcements(
    before: &ClusterSyncStatus,
    after: &ClusterSyncStatus,
    milestone: &mut Option<String>,
) -> Vec<Announcement> {
    let mut said = Vec::new();
    let on = |status: &ClusterSyncStatus, kind: &str| {
        find(&status.conditions, kind).filter(|c| c.status == "True").cloned()
    };
    let phase = after.phase.as_deref().unwrap_or_default();
    let passing = [Phase::Pending, Phase::Preflight, Phase::Stalled].iter().any(|p| p.as_str() == phase);
    if !passing && !phase.is_empty() && milestone.as_deref() != Some(phase) {
        *milestone = Some(phase.to_owned());
        let note = find(&after.conditions, types::READY).map(|c| c.message.clone()).unwrap_or_default();
        said.push(Announcement::normal(phase, note));
    }
    let stalled = on(after, types::STALLED).map(|c| (types::STALLED, c));
    let waiting = on(after, types::RECONCILING).filter(|c| is_engine_reason(&c.reason));
    for (kind, condition) in stalled.into_iter().chain(waiting.map(|c| (types::RECONCILING, c))) {
        if on(before, kind).is_none_or(|c| c.reason != condition.reason) {
            said.push(Announcement::warning(condition.reason, condition.message));
        }
    }
    // It was there, and is not now: without a connection, or since every attempt fails.
    let troubled = |status: &ClusterSyncStatus| {
        let on_its_way = on(status, types::RECONCILING).or_else(|| on(status, types::STALLED)).is_some();
        let ready = find(&status.conditions, types::READY).filter(|c| c.status == "False" && !on_its_way);
        ready.cloned()
    };
    if let Some(ready) = troubled(after)
        && troubled(before).is_none_or(|c| c.reason != ready.reason)
    {
        said.push(Announcement::warning(ready.reason, ready.message));
    }
    if let (None, Some(lagging)) = (on(before, types::LAGGING), on(after, types::LAGGING)) {
        said.push(Announcement::warning(types::LAGGING, lagging.message));
    }
    said
}

fn is_engine_reason(reason: &str) -> bool {
    crate::sync::Reason::ALL.iter().any(|known| known.as_str() == reason)
}

/// Takes announcements without ever making the caller wait.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(Announcement, ObjectReference)>,
}

impl Events {
    /// A task sends them, one after the other, until the last clone of this is gone.
    pub fn start(client: kube::Client, instance: &str, requests: Arc<Requests>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Announcement, ObjectReference)>(QUEUE);
        let mut recorder = Recorder { client, requests, instance: cut(instance, 128), said: HashMap::new() };
        tokio::spawn(async move {
            while let Some((announcement, regarding)) = waiting.recv().await {
                // A terminating namespace forbids events, and nothing depends on them.
                if let Err(error) = recorder.publish(&announcement, &regarding).await {
                    tracing::debug!(%error, reason = announcement.reason, "event not recorded");
                }
            }
        });
        Self { queue }
    }

    /// Queue, or drop when the queue is full.
    pub fn say(&self, announcement: Announcement, regarding: &ObjectReference) {
        if self.queue.try_send((announcement, regarding.clone())).is_err() {
            tracing::debug!("event dropped: the apiserver is slow");
        }
    }
}

/// Writes events. Not kube's own recorder: that one's names are too long for objects with long names.
struct Recorder {
    client: kube::Client,
    requests: Arc<Requests>,
    instance: String,
    /// By the object's UID and the reason: the event's name, how often it was said, and when last.
    said: HashMap<(String, String), (String, i32, Instant)>,
}

impl Recorder {
    async fn publish(
        &mut self,
        announcement: &Announcement,
        regarding: &ObjectReference,
    ) -> Result<(), RequestError> {
        self.said.retain(|_, (_, _, at)| at.elapsed() < SERIES);
        let api: Api<Event> =
            Api::namespaced(self.client.clone(), regarding.namespace.as_deref().unwrap_or("default"));
        let now = Timestamp::now();
        let key = (regarding.uid.clone().unwrap_or_default(), announcement.reason.clone());
        let (name, count) = if let Some((name, count, _)) = self.said.get(&key) {
            let series = EventSeries { count: count + 1, last_observed_time: MicroTime(now) };
            // All else is immutable.
            let patch = json!({ "series": series });
            self.requests.send(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
            (name.clone(), count + 1)
        } else {
            let name = event_name(regarding.name.as_deref().unwrap_or(CONTROLLER), now);
            let event = Event {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: regarding.namespace.clone(),
                    ..ObjectMeta::default()
                },
                action: Some("Sync".to_owned()),
                event_time: Some(MicroTime(now)),
                note: Some(cut(&announcement.note, MAX_NOTE)),
                reason: Some(announcement.reason.clone()),
                regarding: Some(regarding.clone()),
                reporting_controller: Some(CONTROLLER.to_owned()),
                reporting_instance: Some(self.instance.clone()),
                type_: Some(if announcement.warning { "Warning" } else { "Normal" }.to_owned()),
                ..Event::default()
            };
            self.requests.send(api.create(&PostParams::default(), &event)).await?;
            (name, 1)
        };
        self.said.insert(key, (name, count, Instant::now()));
        Ok(())
    }
}

fn event_name(object: &str, now: Timestamp) -> String {
    // A cut must not leave a label that ends with a dash, nor two dots in a row.
    let object = cut(object, MAX_NAME);
    let object = object.trim_end_matches(['-', '.']);
    format!("{object}.{:x}", now.as_nanosecond())
}

/// At most `max` bytes.
fn cut(text: &str, max: usize) -> String {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{announcements, event_name};
    use crate::resource::status::controller_status;
    use crate::resource::{Asked, Judged, Outcome};
    use crate::sync::{Phase, Reason, Report};

    fn status(phase: Phase, reason: Option<Reason>) -> crate::api::ClusterSyncStatus {
        let report = Report { phase, reason, message: "why".into(), ..Report::default() };
        let judged = Judged { generation: 1, asked: Asked::default(), outcome: Outcome::Running(&report) };
        let mut status =
            controller_status(&judged, &crate::api::ClusterSyncStatus::default(), Timestamp::UNIX_EPOCH);
        status.phase = Some(phase.as_str().to_owned());
        status
    }

    #[test]
    fn an_event_of_any_object_has_a_valid_name() {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        for length in 1..=253 {
            for pattern in ["a", "ab.", "a-", "a.b-c"] {
                let object = pattern.repeat(253)[..length].trim_end_matches(['-', '.']).to_owned();
                let name = event_name(&object, Timestamp::now());
                assert!(name.len() <= 253, "{name}");
                for part in name.split('.') {
                    let valid = !part.is_empty() && part.chars().all(label);
                    assert!(valid && !part.starts_with('-') && !part.ends_with('-'), "{name}");
                }
                assert!(name.starts_with(&object[..object.len().min(225)]));
            }
        }
    }

    #[test]
    fn attempts_that_only_fail_are_said_once() {
        let minute = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
        let status = |failing: bool, reason: Reason| {
            let mut report = Report { phase: Phase::Streaming, epoch: 1, ..Report::default() };
            report.failing_since = failing.then_some(Timestamp::UNIX_EPOCH);
            report.replication.last_error = Some(crate::sync::report::LastError {
                reason: reason.as_str().to_owned(),
                message: "why".into(),
                ..Default::default()
            });
            let judged =
                Judged { generation: 1, asked: Asked::default(), outcome: Outcome::Running(&report) };
            controller_status(&judged, &crate::api::ClusterSyncStatus::default(), minute)
        };
        let mut milestone = None;
        let mut before = status(false, Reason::Interrupted);
        for (failing, reason, expected) in [
            (true, Reason::AuthenticationFailed, vec!["AuthenticationFailed"]),
            (true, Reason::AuthenticationFailed, vec![]),
            (true, Reason::Internal, vec!["Internal"]),
            (false, Reason::Internal, vec![]),
        ] {
            let after = status(failing, reason);
            let said = announcements(&before, &after, &mut milestone);
            let (said, warnings): (Vec<_>, Vec<_>) = said.into_iter().map(|a| (a.reason, a.warning)).unzip();
            assert_eq!(said, expected);
            assert!(warnings.iter().all(|warning| *warning));
            before = after;
        }
    }

    #[test]
    fn each_milestone_and_each_reason_is_said_once() {
        let mut milestone = None;
        let run = [
            (Phase::Pending, None, vec![]),
            (Phase::Pending, Some(Reason::SourceUnreachable), vec!["SourceUnreachable"]),
            (Phase::Pending, Some(Reason::SourceUnreachable), vec![]),
            (Phase::Preflight, None, vec![]),
            (Phase::Cloning, None, vec!["Cloning"]),
            (Phase::Cloning, None, vec![]),
            (Phase::Stalled, Some(Reason::OplogLost), vec!["OplogLost"]),
            (Phase::Stalled, Some(Reason::OplogLost), vec![]),
            // A restart of the operator passes through Pending and is not a milestone.
            (Phase::Pending, None, vec![]),
            (Phase::Cloning, None, vec![]),
            (Phase::Streaming, None, vec!["Streaming"]),
        ];
        let mut before = crate::api::ClusterSyncStatus::default();
        for (phase, reason, expected) in run {
            let after = status(phase, reason);
            let said: Vec<String> =
                announcements(&before, &after, &mut milestone).into_iter().map(|a| a.reason).collect();
            assert_eq!(said, expected, "{phase}");
            before = after;
        }
    }
}
