//! The document of `/status`. Keys that do not apply yet are absent.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::standing::State;
use crate::sync::report::{
    ClusterTime, CollectionProgress, CompletionReport, ThrottlingReport, UnsuccessfulIndex,
};
use crate::sync::{Phase, Report};

/// Collections named in `progress` at most: those being copied first.
const MOST_COLLECTIONS: usize = 1_000;

/// `/status`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    lag_time_seconds: i64,
    events_read: u64,
    events_applied: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_replicated_op_time: Option<OpTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_sync: Option<InitialSync>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalization: Option<Finalization>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    progress: Vec<Collection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oplog_window: Option<OplogWindow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttling: Option<Throttling>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OpTime {
    ts: String,
    iso_date: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InitialSync {
    completed: bool,
    clone_completed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_time_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_clone_size_bytes: Option<u64>,
    cloned_size_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finalization {
    completed: bool,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unsuccessful_indexes: Vec<Index>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names)] // The names are the API's.
struct Index {
    namespace: String,
    index_name: String,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    keys: Value,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Collection {
    namespace: String,
    state: &'static str,
    cloned_documents: u64,
    estimated_documents: u64,
    cloned_size_bytes: u64,
    estimated_size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    reason: &'static str,
    pace_percent: u32,
    since: String,
    message: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OplogWindow {
    seconds: i64,
}

impl Status {
    /// Of a sync that was not started; `info` only where something stands in the way of a start.
    pub fn idle(info: Option<String>) -> Self {
        Self { ok: true, state: State::Idle.as_str(), info, ..Self::default() }
    }

    /// Of a sync that was.
    pub fn of(state: State, report: &Report, collections: &[CollectionProgress]) -> Self {
        let failed = state == State::Failed;
        let stream = &report.replication;
        let trouble = stream.last_error.as_ref().filter(|_| state == State::Running);
        Self {
            ok: !failed,
            error: failed.then(|| report.message.clone()),
            state: state.as_str(),
            info: Some(match (failed, trouble) {
                (true, _) => {
                    format!("stopped: {}", report.reason.map_or("see error", |reason| reason.as_str()))
                }
                (false, Some(error)) => error.message.clone(),
                (false, None) => report.message.clone(),
            }),
            phase: Some(report.phase.as_str()),
            lag_time_seconds: stream.lag_seconds.unwrap_or(0),
            events_read: stream.events_read,
            events_applied: stream.events_applied,
            last_replicated_op_time: stream.applied_time.map(op_time),
            initial_sync: Some(initial_sync(report)),
            finalization: report.completion.as_ref().map(|completion| finalization(report, completion)),
            progress: progress(report, collections),
            oplog_window: report.source.oplog_window_seconds.map(|seconds| OplogWindow { seconds }),
            throttling: report.throttling.as_ref().map(throttling),
            warnings: report.warnings.clone(),
        }
    }
}

fn op_time(time: ClusterTime) -> OpTime {
    let date = Timestamp::from_second(i64::from(time.seconds)).unwrap_or_default();
    OpTime { ts: time.to_string(), iso_date: date.to_string() }
}

fn initial_sync(report: &Report) -> InitialSync {
    let clone = &report.initial_sync;
    let completed = clone.completed_at.is_some();
    InitialSync {
        completed,
        clone_completed: clone.cloned_at.is_some(),
        lag_time_seconds: if completed { Some(0) } else { report.replication.lag_seconds },
        estimated_clone_size_bytes: (clone.started_at.is_some()).then_some(clone.bytes_total),
        cloned_size_bytes: clone.bytes,
    }
}

fn throttling(report: &ThrottlingReport) -> Throttling {
    Throttling {
        reason: report.by.as_str(),
        pace_percent: report.pace_percent,
        since: report.since.to_string(),
        message: report.message.clone(),
    }
}

fn finalization(report: &Report, completion: &CompletionReport) -> Finalization {
    let completed = report.phase == Phase::Completed;
    Finalization {
        completed,
        started_at: completion.requested_at.to_string(),
        completed_at: completion.completed_at.filter(|_| completed).map(|at| at.to_string()),
        unsuccessful_indexes: completion.unsuccessful_indexes.iter().map(index).collect(),
    }
}

fn index(index: &UnsuccessfulIndex) -> Index {
    Index {
        namespace: index.namespace.clone(),
        index_name: index.index_name.clone(),
        kind: index.kind.clone(),
        reason: index.reason.clone(),
        keys: serde_json::from_str(&index.keys).unwrap_or_default(),
    }
}

/// While the clone goes on: collection by collection.
fn progress(report: &Report, collections: &[CollectionProgress]) -> Vec<Collection> {
    if report.phase != Phase::Cloning {
        return Vec::new();
    }
    let mut shown: Vec<&CollectionProgress> = collections.iter().collect();
    shown.sort_by_key(|one| (one.state != "Cloning", one.state == "Cloned"));
    shown.iter().take(MOST_COLLECTIONS).map(|one| collection(one)).collect()
}

fn collection(one: &CollectionProgress) -> Collection {
    let rate = Some(one.bytes_per_second).filter(|rate| *rate > 0);
    Collection {
        namespace: one.namespace.clone(),
        state: match one.state {
            "Pending" => "pending",
            "Cloning" => "cloning",
            _ => "cloned",
        },
        cloned_documents: one.documents,
        estimated_documents: one.documents_total,
        cloned_size_bytes: one.bytes,
        estimated_size_bytes: one.bytes_total,
        bytes_per_second: rate,
        eta_seconds: rate.map(|rate| one.bytes_total.saturating_sub(one.bytes) / rate),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_idle_sync_has_five_keys() {
        let status = serde_json::to_value(Status::idle(None)).unwrap();
        assert_eq!(
            status,
            json!({"ok": true, "state": "idle", "lagTimeSeconds": 0, "eventsRead": 0, "eventsApplied": 0})
        );
    }

    #[test]
    fn what_does_not_apply_is_absent() {
        let report = Report { message: "checking both ends".into(), ..Report::default() };
        let status = serde_json::to_value(Status::of(State::Running, &report, &[])).unwrap();
        for absent in [
            "error",
            "finalization",
            "lastReplicatedOpTime",
            "oplogWindow",
            "warnings",
            "progress",
            "throttling",
        ] {
            assert!(status.get(absent).is_none(), "{absent}");
        }
        assert_eq!(status["initialSync"]["completed"], false);
        assert!(status["initialSync"].get("lagTimeSeconds").is_none(), "not known yet");
        assert!(!status.to_string().contains("null"), "{status}");
    }

    #[test]
    fn a_complete_initial_sync_is_behind_of_nothing() {
        let mut report = Report { phase: Phase::Streaming, ..Report::default() };
        report.replication.lag_seconds = Some(7);
        let lag = |report: &Report| {
            let status = serde_json::to_value(Status::of(State::Running, report, &[])).unwrap();
            (status["initialSync"]["lagTimeSeconds"].clone(), status["lagTimeSeconds"].clone())
        };
        assert_eq!(lag(&report), (json!(7), json!(7)));
        report.initial_sync.completed_at = Some(Timestamp::now());
        assert_eq!(lag(&report), (json!(0), json!(7)));
    }

    #[test]
    fn what_slows_it_down_is_shown() {
        let slowed = ThrottlingReport {
            by: crate::sync::report::SlowedBy::SourceLatency,
            since: Timestamp::UNIX_EPOCH,
            pace_percent: 25,
            message: "why".into(),
        };
        let report = Report { phase: Phase::Cloning, throttling: Some(slowed), ..Report::default() };
        let status = serde_json::to_value(Status::of(State::Running, &report, &[])).unwrap();
        let expected = json!({"reason": "SourceLatency", "pacePercent": 25, "since": "1970-01-01T00:00:00Z", "message": "why"});
        assert_eq!(status["throttling"], expected);
    }

    #[test]
    fn a_failure_says_why() {
        let report = Report {
            phase: Phase::Stalled,
            reason: Some(crate::sync::Reason::OplogLost),
            message: "gone. Clone anew.".into(),
            ..Report::default()
        };
        let status = serde_json::to_value(Status::of(State::Failed, &report, &[])).unwrap();
        assert_eq!((&status["ok"], &status["error"]), (&json!(false), &json!("gone. Clone anew.")));
        assert_eq!(status["info"], "stopped: OplogLost");
    }

    #[test]
    fn times_and_indexes_are_as_documented() {
        let report = Report {
            phase: Phase::Completed,
            replication: crate::sync::report::ReplicationReport {
                applied_time: Some(ClusterTime { seconds: 1_732_370_000, increment: 1 }),
                ..Default::default()
            },
            completion: Some(CompletionReport {
                unsuccessful_indexes: vec![UnsuccessfulIndex {
                    namespace: "db.c".into(),
                    index_name: "a_1".into(),
                    kind: "failed".into(),
                    reason: "duplicates".into(),
                    keys: r#"{"a":1}"#.into(),
                }],
                ..CompletionReport::default()
            }),
            ..Report::default()
        };
        let status = serde_json::to_value(Status::of(State::Finalized, &report, &[])).unwrap();
        assert_eq!(
            status["lastReplicatedOpTime"],
            json!({"ts": "1732370000.1", "isoDate": "2024-11-23T13:53:20Z"})
        );
        assert_eq!(
            status["finalization"]["unsuccessfulIndexes"],
            json!([{"namespace": "db.c", "indexName": "a_1", "type": "failed", "reason": "duplicates", "keys": {"a": 1}}])
        );
    }
}
