//! Events: one for each transition that a person would want to read in `kubectl describe`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::api::ClusterSyncStatus;
use crate::api::conditions::{reasons, types};
use crate::resource::conditions::find;
use crate::sync::Phase;

use super::requests::Requests;

/// Events that wait for the apiserver; more are dropped, since status says the same.
const QUEUE: usize = 256;

/// The API's limit is 1 kB.
const MAX_NOTE: usize = 1000;

/// Who reports, as `kubectl describe` shows it.
const CONTROLLER: &str = "clustersync-operator";

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
    let lost = |status: &ClusterSyncStatus| {
        find(&status.conditions, types::READY).filter(|c| c.reason == reasons::CONNECTION_LOST).cloned()
    };
    if let (None, Some(ready)) = (lost(before), lost(after)) {
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
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(cut(instance, 128)) };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((announcement, regarding)) = waiting.recv().await {
                let event = Event {
                    type_: if announcement.warning { EventType::Warning } else { EventType::Normal },
                    reason: announcement.reason,
                    note: Some(cut(&announcement.note, MAX_NOTE)),
                    action: "Sync".to_owned(),
                    secondary: None,
                };
                // A terminating namespace forbids events, and nothing depends on them.
                if let Err(error) = requests.send(recorder.publish(&event, &regarding)).await {
                    tracing::debug!(%error, reason = event.reason, "event not recorded");
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

    use super::announcements;
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
