//! How a sync stands to what was asked for. Ready, Reconciling, Stalled and the phase follow from it. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::api::ClusterSyncStatus;
use crate::api::conditions::{reasons, types};
use crate::sync::report::{LastError, SideReport};
use crate::sync::{Desired, DesiredState, Phase, Reason, Report};

use super::conditions::{Judged, Outcome, find};

/// A streaming sync is not Ready once an end has not answered, or every attempt has failed, for this long.
const NOT_READY_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How a sync stands to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there.
    Ready,
    /// It was there, and may be again by itself, but is not now.
    NotReady,
    /// On its way.
    Reconciling,
    /// A person must act.
    Stalled,
}

/// A standing with its reason and a sentence.
type Judgement = (Standing, String, String);

/// Whether a worker has read the durable state: what it reports before is not the last word.
pub(super) fn knows(report: &Report) -> bool {
    let read = report.initial_sync.started_at.is_some() || report.completion.is_some();
    report.epoch > 0 && report.phase != Phase::Pending && (read || report.phase != Phase::Stalled)
}

/// The phase that is shown.
pub(super) fn phase(judged: &Judged<'_>, previous: &ClusterSyncStatus) -> Phase {
    match judged.outcome {
        _ if settled(judged, previous).is_some() => Phase::Completed,
        Outcome::Running(report) | Outcome::Behind(report, _) => report.phase,
        Outcome::Waiting(_) => Phase::Pending,
        Outcome::Refused(_) | Outcome::Undecodable(_) => Phase::Stalled,
    }
}

/// Whether the cutover is done, as far as is known.
pub(super) fn completed(judged: &Judged<'_>, previous: &ClusterSyncStatus) -> bool {
    let report = judged.outcome.report();
    let reported = report.is_some_and(|report| {
        let restored = report.completion.as_ref().is_some_and(|c| c.completed_at.is_some());
        report.phase == Phase::Completed || (report.phase == Phase::Stalled && restored)
    });
    let unread = report.is_none_or(|report| !knows(report));
    reported || (unread && was_completed(previous) && !restart_is_open(&judged.asked.desired, previous))
}

fn was_completed(previous: &ClusterSyncStatus) -> bool {
    find(&previous.conditions, types::COMPLETED).is_some_and(|condition| condition.status == "True")
}

fn restart_is_open(desired: &Desired, previous: &ClusterSyncStatus) -> bool {
    is_open(&desired.restart, previous.handled.as_ref().and_then(|handled| handled.restart.as_deref()))
}

fn is_open(wish: &str, handled: Option<&str>) -> bool {
    !wish.is_empty() && handled != Some(wish)
}

/// A cutover that was done before a worker was started, or could be, stays done until the worker has read otherwise:
/// its databases and Secrets may well be gone for good. How many indexes were missing; none where that does not hold.
fn settled(judged: &Judged<'_>, previous: &ClusterSyncStatus) -> Option<usize> {
    let missing = previous.completion.as_ref().map_or(0, |completion| completion.unsuccessful_indexes.len());
    let unread = match judged.outcome {
        Outcome::Running(report) | Outcome::Behind(report, _) => {
            report.phase == Phase::Pending && !knows(report)
        }
        // Missing indexes can only be mended with the Secrets.
        Outcome::Waiting(_) => missing == 0,
        Outcome::Refused(_) | Outcome::Undecodable(_) => false,
    };
    let desired = &judged.asked.desired;
    let handled = previous.handled.as_ref().and_then(|handled| handled.retry.as_deref());
    let asked_before =
        previous.observed_generation == Some(judged.generation) || desired.state == DesiredState::Completed;
    let holds = unread
        && asked_before
        && previous.phase.as_deref() == Some(Phase::Completed.as_str())
        && was_completed(previous)
        && !restart_is_open(desired, previous)
        && !is_open(&desired.retry, handled);
    holds.then_some(missing)
}

/// Judge.
pub(super) fn standing(judged: &Judged<'_>, previous: &ClusterSyncStatus, now: Timestamp) -> Judgement {
    if let Some(missing) = settled(judged, previous) {
        return done(missing);
    }
    let report = match judged.outcome {
        Outcome::Waiting(unusable) => {
            return (Standing::Reconciling, unusable.reason.to_string(), unusable.message.clone());
        }
        Outcome::Undecodable(why) => {
            return (Standing::Stalled, reasons::UNDECODABLE.into(), why.to_owned());
        }
        Outcome::Refused(unusable) => {
            return (Standing::Stalled, unusable.reason.to_string(), unusable.message.clone());
        }
        // What is done needs nothing that a spec names.
        Outcome::Behind(report, unusable) if report.phase != Phase::Completed => {
            let message = format!("{unusable} Until then the sync runs on with what it has read before.");
            return (Standing::Reconciling, unusable.reason.to_string(), message);
        }
        Outcome::Running(report) | Outcome::Behind(report, _) => report,
    };
    // What was asked for and is not reached yet comes before what was reached for an earlier generation:
    // otherwise `kubectl wait --for=condition=Ready` would succeed on yesterday's word.
    if let Some((reason, message)) = heading(&judged.asked.desired, report) {
        return (Standing::Reconciling, reason.into(), message.into());
    }
    of_report(report, now)
}

fn of_report(report: &Report, now: Timestamp) -> Judgement {
    let reported = |fallback: &str| {
        if report.message.is_empty() { fallback.to_owned() } else { report.message.clone() }
    };
    match report.phase {
        Phase::Pending => {
            let reason = report.reason.map_or(Phase::Pending.as_str(), Reason::as_str);
            (Standing::Reconciling, reason.into(), reported("Waiting for ownership of the sync."))
        }
        phase @ Phase::Preflight => {
            (Standing::Reconciling, phase.to_string(), reported("Checking both replica sets."))
        }
        phase @ Phase::Cloning => {
            (Standing::Reconciling, phase.to_string(), reported("Copying collections."))
        }
        phase @ Phase::CatchingUp => {
            let message = reported("Applying the changes that were made during the clone.");
            (Standing::Reconciling, phase.to_string(), message)
        }
        phase @ Phase::Completing => (
            Standing::Reconciling,
            phase.to_string(),
            reported("Draining to the source's present time, then restoring what was deferred."),
        ),
        Phase::Streaming => streaming(report, now),
        phase @ Phase::Paused => {
            let message = "Paused. Resume before the source's oplog outruns the checkpoint.";
            (Standing::Ready, phase.to_string(), message.into())
        }
        Phase::Completed => done(report.completion.as_ref().map_or(0, |c| c.unsuccessful_indexes.len())),
        phase @ Phase::Stalled => {
            let reason = report.reason.map_or(phase.as_str(), Reason::as_str);
            (Standing::Stalled, reason.into(), reported("Stopped; see the log."))
        }
    }
}

fn streaming(report: &Report, now: Timestamp) -> Judgement {
    if let Some(reason) = lost(report, now) {
        let message = report.replication.last_error.as_ref().map_or_else(
            || format!("No connection for over a minute. {}", reason.remedy()),
            |error| error.message.clone(),
        );
        return (Standing::NotReady, reasons::CONNECTION_LOST.into(), message);
    }
    if let Some(error) = failing(report, now) {
        return (Standing::NotReady, error.reason.clone(), error.message.clone());
    }
    (Standing::Ready, Phase::Streaming.to_string(), "Following the source.".into())
}

fn done(missing: usize) -> Judgement {
    if missing == 0 {
        return (Standing::Ready, Phase::Completed.to_string(), "The cutover is done.".into());
    }
    let message = format!(
        "The cutover is done, but {missing} indexes could not be restored: see \
         status.completion.unsuccessfulIndexes, remove the cause, then change spec.requests.retry."
    );
    (Standing::Stalled, reasons::INDEXES_MISSING.into(), message)
}

/// Where a sync that rests in one state is going, when the spec asks for another.
fn heading(desired: &Desired, report: &Report) -> Option<(&'static str, &'static str)> {
    use DesiredState::{Completed, Paused, Running};
    let restart = is_open(&desired.restart, Some(&report.handled_restart));
    match (desired.state, report.phase) {
        (_, Phase::Stalled | Phase::Completed | Phase::Completing) => None,
        (Paused, phase) if phase != Phase::Paused => {
            Some((reasons::PAUSING, "Finishing the batches in flight."))
        }
        (Running, Phase::Paused) => Some((reasons::RESUMING, "Resuming from the checkpoint.")),
        (Completed, Phase::Streaming | Phase::Paused) => {
            Some((reasons::COMPLETION_REQUESTED, "The cutover is about to begin."))
        }
        (_, Phase::Streaming | Phase::Paused) if restart => {
            Some((reasons::RESTARTING, "The clone is about to begin anew."))
        }
        _ => None,
    }
}

fn lost(report: &Report, now: Timestamp) -> Option<Reason> {
    let lost = |side: &SideReport| {
        side.connected == Some(false) && now.duration_since(side.connected_since) >= NOT_READY_AFTER
    };
    if lost(&report.source) {
        Some(Reason::SourceUnreachable)
    } else if lost(&report.target) {
        Some(Reason::TargetUnreachable)
    } else {
        None
    }
}

/// The last error, once attempts have done nothing but fail for too long.
fn failing(report: &Report, now: Timestamp) -> Option<&LastError> {
    report.failing_since.filter(|since| now.duration_since(*since) >= NOT_READY_AFTER)?;
    report.replication.last_error.as_ref()
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use crate::api::ClusterSyncStatus;
    use crate::api::conditions::{reasons, types};
    use crate::resource::conditions::{Asked, Judged, Outcome, find};
    use crate::resource::status::{controller_status, worker_status};
    use crate::resource::{Unusable, conditions};
    use crate::sync::report::{CompletionReport, LastError, UnsuccessfulIndex};
    use crate::sync::{Desired, DesiredState, Phase, Reason, Report};

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn judged(generation: i64, desired: Desired, outcome: Outcome<'_>) -> Judged<'_> {
        Judged { generation, asked: Asked { desired, max_lag_seconds: 60 }, outcome }
    }

    fn wish(state: DesiredState) -> Desired {
        Desired { state, ..Desired::default() }
    }

    /// As the publisher does it: both parts over what was there before.
    fn write(judged: &Judged<'_>, previous: &ClusterSyncStatus) -> ClusterSyncStatus {
        let controller = controller_status(judged, previous, now());
        let mut whole = worker_status(judged, previous, 0, None, now());
        whole.observed_generation = controller.observed_generation;
        whole.conditions.extend(controller.conditions);
        whole
    }

    /// Phase; Ready and its reason; Completed.
    fn row(status: &ClusterSyncStatus) -> (&str, &str, &str, &str) {
        let ready = find(&status.conditions, types::READY).unwrap();
        let completed = &find(&status.conditions, types::COMPLETED).unwrap().status;
        (status.phase.as_deref().unwrap(), &ready.status, &ready.reason, completed)
    }

    fn completed(missing: usize) -> (Report, ClusterSyncStatus) {
        let completion = CompletionReport {
            committed_at: Some(now()),
            completed_at: Some(now()),
            unsuccessful_indexes: vec![UnsuccessfulIndex::default(); missing],
            ..CompletionReport::default()
        };
        let report =
            Report { phase: Phase::Completed, epoch: 3, completion: Some(completion), ..Report::default() };
        let desired = wish(DesiredState::Completed);
        let status = write(&judged(2, desired, Outcome::Running(&report)), &ClusterSyncStatus::default());
        (report, status)
    }

    const DONE: (&str, &str, &str, &str) = ("Completed", "True", "Completed", "True");

    #[test]
    fn a_completed_sync_stays_so_through_a_restart_of_the_operator() {
        let (report, before) = completed(0);
        assert_eq!(row(&before), DONE);
        let pending = Report::default();
        let unreachable = Report { reason: Some(Reason::SourceUnreachable), ..Report::default() };
        let owner = Report { epoch: 4, ..Report::default() };
        let mut status = before;
        for (what, report) in [
            ("a new worker", &pending),
            ("its source was switched off after the cutover", &unreachable),
            ("owner, but nothing read yet", &owner),
            ("read", &report),
        ] {
            let desired = wish(DesiredState::Completed);
            status = write(&judged(2, desired, Outcome::Running(report)), &status);
            assert_eq!(row(&status), DONE, "{what}");
            assert!(status.completion.as_ref().unwrap().committed_at.is_some(), "{what}");
        }
        // A change that asks for nothing else is no reason to look less than done.
        let status = write(&judged(3, wish(DesiredState::Completed), Outcome::Running(&pending)), &status);
        assert_eq!((row(&status), status.observed_generation), (DONE, Some(3)));
    }

    #[test]
    fn a_completed_sync_needs_no_secrets() {
        let missing = Unusable::missing("Secret a does not exist.");
        let (report, before) = completed(0);
        let desired = || wish(DesiredState::Completed);
        let waiting = write(&judged(2, desired(), Outcome::Waiting(&missing)), &before);
        assert_eq!(row(&waiting), DONE);
        assert_eq!(row(&write(&judged(2, desired(), Outcome::Waiting(&missing)), &waiting)), DONE);
        assert_eq!(row(&write(&judged(3, desired(), Outcome::Behind(&report, &missing)), &waiting)), DONE);
        // With work left to do it does.
        let (_, before) = completed(2);
        let waiting = write(&judged(2, desired(), Outcome::Waiting(&missing)), &before);
        assert_eq!(row(&waiting), ("Pending", "False", "CredentialsMissing", "True"));
    }

    #[test]
    fn missing_indexes_are_still_missing_after_a_restart() {
        let (_, before) = completed(2);
        let expected = ("Completed", "False", reasons::INDEXES_MISSING, "True");
        assert_eq!(row(&before), expected);
        let report = Report::default();
        let desired = wish(DesiredState::Completed);
        assert_eq!(row(&write(&judged(2, desired, Outcome::Running(&report)), &before)), expected);
    }

    #[test]
    fn what_was_asked_of_a_completed_sync_is_not_hidden() {
        let (_, before) = completed(0);
        let (pending, missing) = (Report::default(), Unusable::missing("Secret a does not exist."));
        let restart = Desired { restart: "1".into(), ..wish(DesiredState::Completed) };
        let status = write(&judged(3, restart.clone(), Outcome::Running(&pending)), &before);
        assert_eq!(row(&status), ("Pending", "False", "Pending", "False"));
        let status = write(&judged(3, restart, Outcome::Waiting(&missing)), &before);
        assert_eq!(row(&status), ("Pending", "False", "CredentialsMissing", "False"));
        let running = wish(DesiredState::Running);
        let status = write(&judged(3, running, Outcome::Running(&pending)), &before);
        assert_eq!(row(&status), ("Pending", "False", "Pending", "True"));
        // A worker that has read otherwise has the last word.
        let cloning = Report { phase: Phase::Cloning, epoch: 4, ..Report::default() };
        let desired = wish(DesiredState::Completed);
        let status = write(&judged(2, desired, Outcome::Running(&cloning)), &before);
        assert_eq!(row(&status), ("Cloning", "False", "Cloning", "False"));
    }

    fn streaming() -> Report {
        let mut report = Report { phase: Phase::Streaming, epoch: 1, ..Report::default() };
        report.initial_sync.completed_at = Some(now());
        report
    }

    #[test]
    fn the_initial_sync_stays_complete_while_a_new_owner_reads() {
        let before = write(
            &judged(1, Desired::default(), Outcome::Running(&streaming())),
            &ClusterSyncStatus::default(),
        );
        let owner = Report { epoch: 2, ..Report::default() };
        let after = write(&judged(1, Desired::default(), Outcome::Running(&owner)), &before);
        let complete = find(&after.conditions, types::INITIAL_SYNC_COMPLETE).unwrap();
        assert_eq!(complete.status, "True");
        assert!(after.initial_sync.is_some());
    }

    #[test]
    fn streaming_is_not_ready_after_a_minute_of_failing_attempts() {
        let mut report = streaming();
        report.replication.last_error = Some(LastError {
            reason: Reason::AuthenticationFailed.as_str().into(),
            message: "It failed.".into(),
            ..LastError::default()
        });
        for (seconds, expected) in [(59, ("True", "Streaming")), (60, ("False", "AuthenticationFailed"))] {
            report.failing_since = Some(now().checked_sub(SignedDuration::from_secs(seconds)).unwrap());
            let judged = judged(1, Desired::default(), Outcome::Running(&report));
            let conditions = conditions::controller_conditions(&judged, &ClusterSyncStatus::default(), now());
            let ready = find(&conditions, types::READY).unwrap();
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), expected, "after {seconds} s");
            let others = [types::RECONCILING, types::STALLED].map(|kind| find(&conditions, kind).unwrap());
            assert!(others.iter().all(|condition| condition.status == "False"));
            if seconds == 60 {
                assert_eq!(ready.message, "It failed.");
            }
        }
    }

    #[test]
    fn a_spec_that_is_not_in_force_is_not_ready() {
        let (report, missing) = (streaming(), Unusable::missing("Secret b does not exist."));
        let judged = judged(4, Desired::default(), Outcome::Behind(&report, &missing));
        let status = write(&judged, &ClusterSyncStatus::default());
        assert_eq!(row(&status), ("Streaming", "False", "CredentialsMissing", "False"));
        let ready = find(&status.conditions, types::READY).unwrap();
        assert_eq!(ready.observed_generation, Some(4));
        assert!(ready.message.contains("runs on"), "{}", ready.message);
        assert_eq!(find(&status.conditions, types::RECONCILING).unwrap().status, "True");
    }
}
