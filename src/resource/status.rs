//! Report → the worker's part of the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::status::{
    ClusterSyncStatus, CompletionStatus, Count, HandledRequests, InitialSyncStatus, LastErrorStatus,
    ReplicationStatus, SourceStatus, TargetStatus, ThrottlingStatus, UnsuccessfulIndexStatus, WorkerStatus,
};
use crate::sync::report::{
    ClusterTime, CompletionReport, InitialSyncReport, LastError, ReplicationReport, ThrottlingReport,
    UnsuccessfulIndex,
};
use crate::sync::{Phase, Report};

use super::Unusable;
use super::conditions::{Judged, controller_conditions, worker_conditions};
use super::standing;

// As the schema bounds them: a status that is too long is refused as a whole.
const MAX_WARNINGS: usize = 32;
const MAX_INDEXES: usize = 128;
const MAX_TEXT: usize = 1024;
const MAX_NAME: usize = 255;
const MAX_VERSION: usize = 64;
const MAX_TOKEN: usize = 64;
const MAX_SYNC_ID: usize = 128;
const MAX_HOLDER: usize = 512;
const MAX_FENCE: usize = 32;

/// How a warning of the operator's own begins, as opposed to one of the engine's.
const NOTICE: &str = "The sync runs on with what it has read before: ";

/// The warning that a worker goes on although something that it was built from has vanished.
pub fn notice(unusable: &Unusable) -> String {
    format!("{NOTICE}{unusable}")
}

/// The controller's set: always whole, because an applied subset erases the rest.
pub fn controller_status(
    judged: &Judged<'_>,
    previous: &ClusterSyncStatus,
    now: Timestamp,
) -> ClusterSyncStatus {
    ClusterSyncStatus {
        observed_generation: Some(judged.generation),
        conditions: controller_conditions(judged, previous, now),
        ..ClusterSyncStatus::default()
    }
}

/// The worker's set: always whole. What a new worker has not read from the durable state yet is carried over
/// from `previous`, so that a restart does not blank the progress, nor the commit that a rule depends on.
pub fn worker_status(
    judged: &Judged<'_>,
    previous: &ClusterSyncStatus,
    restarts: i64,
    notice: Option<&str>,
    now: Timestamp,
) -> ClusterSyncStatus {
    let before = carried(previous);
    let status = match judged.outcome.report() {
        None => before,
        Some(report) => {
            let fresh = from_report(report, restarts);
            if standing::knows(report) { fresh } else { carry(fresh, &before) }
        }
    };
    let mut warnings = status.warnings;
    warnings.truncate(MAX_WARNINGS - 1);
    warnings.extend(notice.map(|notice| cut(notice, MAX_TEXT)));
    ClusterSyncStatus {
        phase: Some(phase(judged, previous).as_str().to_owned()),
        conditions: worker_conditions(judged, &previous.conditions, now),
        warnings,
        ..status
    }
}

/// The phase that is shown: that of the worker, or what stands for it.
pub fn phase(judged: &Judged<'_>, previous: &ClusterSyncStatus) -> Phase {
    standing::phase(judged, previous)
}

/// What of a status is true for longer than the worker that it tells of.
fn carried(previous: &ClusterSyncStatus) -> ClusterSyncStatus {
    let lasting = previous.warnings.iter().filter(|warning| !warning.starts_with(NOTICE));
    ClusterSyncStatus {
        observed_generation: None,
        conditions: Vec::new(),
        replication: merge_replication(None, previous.replication.as_ref()),
        throttling: None,
        warnings: lasting.cloned().collect(),
        ..previous.clone()
    }
}

/// `fresh`, with the parts that it does not know yet from `before`.
fn carry(fresh: ClusterSyncStatus, before: &ClusterSyncStatus) -> ClusterSyncStatus {
    // The holder is who owns the sync, not who would like to.
    let worker = fresh.worker.map(|worker| match (worker.epoch, &before.worker) {
        (None, Some(owner)) => WorkerStatus { restarts: worker.restarts, ..owner.clone() },
        _ => worker,
    });
    let warnings = if fresh.warnings.is_empty() { before.warnings.clone() } else { fresh.warnings };
    ClusterSyncStatus {
        source: fresh.source.or_else(|| before.source.clone()),
        target: fresh.target.or_else(|| before.target.clone()),
        worker,
        initial_sync: fresh.initial_sync.or_else(|| before.initial_sync.clone()),
        replication: merge_replication(fresh.replication, before.replication.as_ref()),
        completion: fresh.completion.or_else(|| before.completion.clone()),
        warnings,
        handled: fresh.handled.or_else(|| before.handled.clone()),
        ..fresh
    }
}

/// The lag of before is no longer true; the checkpoint is.
fn merge_replication(
    fresh: Option<ReplicationStatus>,
    before: Option<&ReplicationStatus>,
) -> Option<ReplicationStatus> {
    let mut merged = fresh.unwrap_or_default();
    if merged.checkpoint_time.is_none() {
        merged.checkpoint_time = before.and_then(|b| b.checkpoint_time.clone());
    }
    (merged != ReplicationStatus::default()).then_some(merged)
}

fn from_report(report: &Report, restarts: i64) -> ClusterSyncStatus {
    let source = SourceStatus {
        replica_set: text(&report.source.replica_set, MAX_NAME),
        version: text(&report.source.version, MAX_VERSION),
        oplog_window_seconds: report.source.oplog_window_seconds,
    };
    let target = TargetStatus {
        replica_set: text(&report.target.replica_set, MAX_NAME),
        version: text(&report.target.version, MAX_VERSION),
    };
    let handled = HandledRequests {
        retry: text(&report.handled_retry, MAX_TOKEN),
        restart: text(&report.handled_restart, MAX_TOKEN),
    };
    let owns = report.epoch > 0;
    ClusterSyncStatus {
        observed_generation: None,
        phase: Some(report.phase.as_str().to_owned()),
        conditions: Vec::new(),
        sync_id: text(&report.sync_id, MAX_SYNC_ID),
        source: (source != SourceStatus::default()).then_some(source),
        target: (target != TargetStatus::default()).then_some(target),
        worker: Some(WorkerStatus {
            holder: text(&report.holder, MAX_HOLDER).filter(|_| owns),
            epoch: owns.then_some(report.epoch),
            restarts: Some(restarts),
        }),
        initial_sync: initial_sync(&report.initial_sync),
        replication: replication(&report.replication),
        completion: report.completion.as_ref().map(completion),
        throttling: report.throttling.as_ref().map(throttling),
        warnings: report.warnings.iter().take(MAX_WARNINGS - 1).map(|w| cut(w, MAX_TEXT)).collect(),
        handled: (handled != HandledRequests::default()).then_some(handled),
    }
}

fn initial_sync(report: &InitialSyncReport) -> Option<InitialSyncStatus> {
    if *report == InitialSyncReport::default() {
        return None;
    }
    let running = report.cloned_at.is_none();
    Some(InitialSyncStatus {
        started_at: report.started_at.map(to_second),
        completed_at: report.completed_at.map(to_second),
        progress: progress(report),
        collections: Some(Count {
            total: integer(report.collections_total),
            done: integer(report.collections_done),
        }),
        partitions: Some(Count {
            total: integer(report.partitions_total),
            done: integer(report.partitions_done),
        }),
        documents: Some(integer(report.documents)),
        bytes: Some(integer(report.bytes)),
        bytes_total: Some(integer(report.bytes_total)),
        bytes_per_second: running.then(|| integer(report.bytes_per_second)),
        eta_seconds: report.eta_seconds.filter(|_| running).map(integer),
    })
}

/// Never 100% before the clone is done: the expectation is the source's estimate.
fn progress(report: &InitialSyncReport) -> Option<String> {
    if report.cloned_at.is_some() || report.completed_at.is_some() {
        return Some("100%".to_owned());
    }
    let (done, total) = if report.bytes_total > 0 {
        (report.bytes, report.bytes_total)
    } else {
        (report.collections_done, report.collections_total)
    };
    let percent = (u128::from(done) * 100).checked_div(u128::from(total))?.min(99);
    Some(format!("{percent}%"))
}

fn replication(report: &ReplicationReport) -> Option<ReplicationStatus> {
    let status = ReplicationStatus {
        checkpoint_time: report.checkpoint_time.and_then(wall_clock),
        lag_seconds: report.lag_seconds,
        events_applied: report.applied_time.map(|_| integer(report.events_applied)),
        last_error: report.last_error.as_ref().map(last_error),
    };
    (status != ReplicationStatus::default()).then_some(status)
}

fn throttling(report: &ThrottlingReport) -> ThrottlingStatus {
    ThrottlingStatus {
        reason: report.by.as_str().to_owned(),
        pace_percent: i64::from(report.pace_percent),
        since: Some(to_second(report.since)),
        message: cut(&report.message, MAX_TEXT),
    }
}

fn last_error(error: &LastError) -> LastErrorStatus {
    LastErrorStatus {
        at: Some(to_second(error.at)),
        reason: cut(&error.reason, 64),
        message: cut(&error.message, 2048),
        attempts: i64::from(error.attempts),
    }
}

fn completion(report: &CompletionReport) -> CompletionStatus {
    CompletionStatus {
        requested_at: Some(to_second(report.requested_at)),
        fence: report.fence.map(|fence| cut(&fence.to_string(), MAX_FENCE)),
        committed_at: report.committed_at.map(to_second),
        unsuccessful_indexes: report.unsuccessful_indexes.iter().take(MAX_INDEXES).map(index).collect(),
    }
}

fn index(index: &UnsuccessfulIndex) -> UnsuccessfulIndexStatus {
    UnsuccessfulIndexStatus {
        namespace: cut(&index.namespace, 512),
        index_name: cut(&index.index_name, 512),
        keys: cut(&index.keys, MAX_TEXT),
        kind: cut(&index.kind, 32),
        reason: cut(&index.reason, MAX_TEXT),
    }
}

fn wall_clock(time: ClusterTime) -> Option<Time> {
    Timestamp::from_second(i64::from(time.seconds)).ok().map(Time)
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn text(value: &str, max: usize) -> Option<String> {
    (!value.is_empty()).then(|| cut(value, max))
}

/// At most `max` characters: the schema counts characters, and a refused status would hide the very error.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max - 1).collect();
    cut.push('…');
    cut
}

/// The API shows whole seconds.
pub(super) fn to_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{cut, notice, worker_status};
    use crate::api::ClusterSyncStatus;
    use crate::resource::{Asked, Judged, Outcome, Unusable};
    use crate::sync::report::{ClusterTime, CompletionReport, InitialSyncReport, SlowedBy, ThrottlingReport};
    use crate::sync::{Phase, Report};

    fn status(report: &Report, previous: &ClusterSyncStatus) -> ClusterSyncStatus {
        let judged = Judged { generation: 1, asked: Asked::default(), outcome: Outcome::Running(report) };
        worker_status(&judged, previous, 0, None, Timestamp::UNIX_EPOCH)
    }

    fn streaming() -> Report {
        let mut report =
            Report { phase: Phase::Streaming, epoch: 4, sync_id: "s".into(), ..Report::default() };
        report.initial_sync = InitialSyncReport {
            started_at: Some(Timestamp::UNIX_EPOCH),
            cloned_at: Some(Timestamp::UNIX_EPOCH),
            completed_at: Some(Timestamp::UNIX_EPOCH),
            documents: 10,
            ..InitialSyncReport::default()
        };
        report.replication.checkpoint_time = Some(ClusterTime { seconds: 5, increment: 1 });
        report.replication.lag_seconds = Some(3);
        report.source.replica_set = "rs0".into();
        report.handled_retry = "r".into();
        report.completion = Some(CompletionReport {
            committed_at: Some(Timestamp::UNIX_EPOCH),
            ..CompletionReport::default()
        });
        report
    }

    #[test]
    fn a_new_worker_does_not_blank_what_it_has_not_read_yet() {
        let before = status(&streaming(), &ClusterSyncStatus::default());
        let pending = Report { sync_id: "s".into(), ..Report::default() };
        let after = status(&pending, &before);
        assert_eq!(after.phase.as_deref(), Some("Pending"));
        assert_eq!(after.initial_sync, before.initial_sync);
        assert_eq!(after.completion, before.completion);
        assert_eq!(after.handled, before.handled);
        assert_eq!(after.source, before.source);
        assert_eq!(after.worker.unwrap().epoch, Some(4));
        let replication = after.replication.unwrap();
        assert!(replication.checkpoint_time.is_some());
        assert_eq!(replication.lag_seconds, None);
    }

    #[test]
    fn an_owner_knows_everything() {
        let before = status(&streaming(), &ClusterSyncStatus::default());
        let restarted = Report { phase: Phase::Cloning, epoch: 5, ..Report::default() };
        let after = status(&restarted, &before);
        assert_eq!(after.initial_sync, None);
        assert_eq!(after.completion, None);
    }

    fn throttling_report(message: String) -> ThrottlingReport {
        let since = Timestamp::UNIX_EPOCH;
        ThrottlingReport { by: SlowedBy::SourceLatency, since, pace_percent: 50, message }
    }

    #[test]
    fn what_slowed_a_worker_goes_with_it() {
        let slowed = Report { throttling: Some(throttling_report("why".into())), ..streaming() };
        let before = status(&slowed, &ClusterSyncStatus::default());
        assert_eq!(before.throttling.as_ref().map(|slowed| slowed.pace_percent), Some(50));
        assert_eq!(status(&Report::default(), &before).throttling, None, "a new one");
        let missing = Unusable::missing("Secret a does not exist.");
        let judged = Judged { generation: 2, asked: Asked::default(), outcome: Outcome::Waiting(&missing) };
        assert_eq!(worker_status(&judged, &before, 0, None, Timestamp::UNIX_EPOCH).throttling, None, "none");
    }

    #[test]
    fn without_a_worker_the_rest_stays() {
        let before = status(&streaming(), &ClusterSyncStatus::default());
        let missing = Unusable::missing("Secret a does not exist.");
        let judged = Judged { generation: 2, asked: Asked::default(), outcome: Outcome::Waiting(&missing) };
        let after = worker_status(&judged, &before, 0, None, Timestamp::UNIX_EPOCH);
        assert_eq!(after.phase.as_deref(), Some("Pending"));
        assert_eq!(after.initial_sync, before.initial_sync);
        let replication = after.replication.unwrap();
        assert!(replication.checkpoint_time.is_some());
        assert_eq!(
            (replication.lag_seconds, replication.last_error),
            (None, None),
            "of a worker that is gone"
        );
    }

    #[test]
    fn a_notice_ends_with_what_it_tells_of() {
        let missing = Unusable::missing("Secret a does not exist.");
        let report = Report { warnings: vec!["of the engine".into()], ..streaming() };
        let judged = |outcome| Judged { generation: 1, asked: Asked::default(), outcome };
        let running = judged(Outcome::Running(&report));
        let notice = notice(&missing);
        let now = Timestamp::UNIX_EPOCH;
        let noticed = worker_status(&running, &ClusterSyncStatus::default(), 0, Some(&notice), now);
        assert_eq!(noticed.warnings, ["of the engine", &notice]);
        let pending = Report::default();
        for outcome in [Outcome::Waiting(&missing), Outcome::Running(&pending)] {
            let after = worker_status(&judged(outcome), &noticed, 0, None, now);
            assert_eq!(after.warnings, ["of the engine"]);
        }
    }

    #[test]
    fn the_holder_is_the_owner_and_nobody_else() {
        let owner = Report { holder: "a".into(), ..streaming() };
        let before = status(&owner, &ClusterSyncStatus::default());
        let waiting = Report { holder: "b".into(), ..Report::default() };
        let worker = status(&waiting, &before).worker.unwrap();
        assert_eq!((worker.holder.as_deref(), worker.epoch), (Some("a"), Some(4)));
        assert_eq!(status(&waiting, &ClusterSyncStatus::default()).worker.unwrap().holder, None);
    }

    /// The apiserver refuses a status as a whole for one string that is too long.
    #[test]
    fn every_text_is_cut_to_its_bound() {
        let long = || "ö".repeat(5000);
        let mut report = Report { holder: long(), sync_id: long(), ..streaming() };
        report.source.replica_set = long();
        report.source.version = long();
        report.target = report.source.clone();
        (report.handled_retry, report.handled_restart) = (long(), long());
        report.warnings = vec![long(); 50];
        report.throttling = Some(throttling_report(long()));
        let status = serde_json::to_value(status(&report, &ClusterSyncStatus::default())).unwrap();
        let definition = serde_json::to_value(crate::api::crd::definition()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert!(bounded("status", schema, &status) > 12);
    }

    /// How many strings were compared with their bounds.
    fn bounded(path: &str, schema: &serde_json::Value, value: &serde_json::Value) -> usize {
        use serde_json::Value;
        match value {
            Value::String(text) => {
                let max = schema["maxLength"].as_u64();
                let length = text.chars().count() as u64;
                assert!(max.is_none_or(|max| length <= max), "{path}: {length} > {max:?}");
                usize::from(max.is_some())
            }
            Value::Array(items) => {
                let max = schema["maxItems"].as_u64();
                assert!(max.is_none_or(|max| items.len() as u64 <= max), "{path} has {}", items.len());
                items.iter().map(|item| bounded(path, &schema["items"], item)).sum()
            }
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| bounded(&format!("{path}.{name}"), &schema["properties"][name], field))
                .sum(),
            _ => 0,
        }
    }

    #[test]
    fn progress_reaches_100_only_when_the_clone_is_done() {
        let mut report = streaming();
        report.initial_sync =
            InitialSyncReport { bytes: 20, bytes_total: 10, ..InitialSyncReport::default() };
        let progress = |report: &Report| {
            status(report, &ClusterSyncStatus::default()).initial_sync.and_then(|i| i.progress)
        };
        assert_eq!(progress(&report).as_deref(), Some("99%"));
        report.initial_sync.cloned_at = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(progress(&report).as_deref(), Some("100%"));
        report.initial_sync = InitialSyncReport { bytes: 4, bytes_total: 10, ..InitialSyncReport::default() };
        assert_eq!(progress(&report).as_deref(), Some("40%"));
    }

    #[test]
    fn long_texts_are_cut_by_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
