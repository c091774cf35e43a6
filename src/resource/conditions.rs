//! Report → conditions, by the table of states in `docs/architecture.md`.
//!
//! Ready, Reconciling and Stalled follow from one [`Standing`], so that at most one of them is True.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::conditions::{reasons, types};
use crate::sync::report::SideReport;
use crate::sync::{Desired, DesiredState, Phase, Reason, Report};

use super::Unusable;
use super::status::{cut, to_second};

/// A streaming sync is not Ready once an end has not answered for this long.
const NOT_READY_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// A connection lost for less is not shown: elections and short retries are not news.
const DISCONNECTED_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// As the schema bounds it.
const MAX_MESSAGE: usize = 4096;

/// What a resource's status is made from.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    /// The generation of the spec that `asked` was read from.
    pub generation: i64,
    /// What that spec asks for.
    pub asked: Asked,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// The part of a spec that conditions depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// State and tokens.
    pub desired: Desired,
    /// The lag above which the sync is lagging.
    pub max_lag_seconds: i64,
}

/// What came of a spec.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// A worker runs and reports.
    Running(&'a Report),
    /// No worker yet: something that the spec names is not there.
    Waiting(&'a Unusable),
    /// No worker: the spec cannot be used.
    Refused(&'a Unusable),
}

impl<'a> Outcome<'a> {
    /// The report, if a worker runs.
    pub fn report(&self) -> Option<&'a Report> {
        match self {
            Self::Running(report) => Some(report),
            Self::Waiting(_) | Self::Refused(_) => None,
        }
    }
}

/// How a sync stands to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It is there.
    Ready,
    /// It was there, and no person need act yet, but an end is away.
    NotReady,
    /// On its way.
    Reconciling,
    /// A person must act.
    Stalled,
}

struct Verdict {
    status: &'static str,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(status: bool, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: if status { "True" } else { "False" }, reason: reason.into(), message: message.into() }
    }

    fn unknown() -> Self {
        Self { status: "Unknown", reason: reasons::NOT_YET_KNOWN.into(), message: String::new() }
    }
}

/// Ready, Reconciling, Stalled and Completed: the controller's conditions.
pub fn controller_conditions(judged: &Judged<'_>, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
    let (standing, reason, message) = standing(judged, now);
    let only = |wanted: &Standing| if standing == *wanted { message.clone() } else { String::new() };
    let completed = judged.outcome.report().map_or_else(
        // Without a worker nothing new is known: a cutover that was done stays done.
        || find(previous, types::COMPLETED).is_some_and(|c| c.status == "True"),
        |report| report.phase == Phase::Completed,
    );
    let completed_reason = if completed { Phase::Completed.as_str() } else { reasons::NOT_COMPLETED };
    let verdicts = [
        (types::READY, Verdict::new(standing == Standing::Ready, reason.clone(), message.clone())),
        (
            types::RECONCILING,
            Verdict::new(standing == Standing::Reconciling, reason.clone(), only(&Standing::Reconciling)),
        ),
        (types::STALLED, Verdict::new(standing == Standing::Stalled, reason, only(&Standing::Stalled))),
        (types::COMPLETED, Verdict::new(completed, completed_reason, "")),
    ];
    stamp(verdicts, previous, judged.generation, now)
}

/// `InitialSyncComplete`, `SourceConnected`, `TargetConnected` and `Lagging`: the worker's conditions.
pub fn worker_conditions(judged: &Judged<'_>, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
    let report = judged.outcome.report();
    let verdicts = [
        (types::INITIAL_SYNC_COMPLETE, initial_sync_complete(report, previous)),
        (
            types::SOURCE_CONNECTED,
            connected(
                report.map(|r| &r.source),
                Reason::SourceUnreachable,
                previous,
                types::SOURCE_CONNECTED,
                now,
            ),
        ),
        (
            types::TARGET_CONNECTED,
            connected(
                report.map(|r| &r.target),
                Reason::TargetUnreachable,
                previous,
                types::TARGET_CONNECTED,
                now,
            ),
        ),
        (types::LAGGING, lagging(report, judged.asked.max_lag_seconds, previous)),
    ];
    stamp(verdicts, previous, judged.generation, now)
}

fn standing(judged: &Judged<'_>, now: Timestamp) -> (Standing, String, String) {
    let report = match judged.outcome {
        Outcome::Waiting(unusable) => {
            return (Standing::Reconciling, unusable.reason.to_string(), unusable.message.clone());
        }
        Outcome::Refused(unusable) => {
            return (Standing::Stalled, unusable.reason.to_string(), unusable.message.clone());
        }
        Outcome::Running(report) => report,
    };
    let reported = |fallback: &str| {
        if report.message.is_empty() { fallback.to_owned() } else { report.message.clone() }
    };
    // What was asked for and is not reached yet comes before what was reached for an earlier generation:
    // otherwise `kubectl wait --for=condition=Ready` would succeed on yesterday's word.
    if let Some((reason, message)) = heading(&judged.asked.desired, report) {
        return (Standing::Reconciling, reason.into(), message.into());
    }
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
        phase @ Phase::Streaming => match lost(report, now) {
            Some(reason) => {
                let message = report.replication.last_error.as_ref().map_or_else(
                    || format!("No connection for over a minute. {}", reason.remedy()),
                    |error| error.message.clone(),
                );
                (Standing::NotReady, reasons::CONNECTION_LOST.into(), message)
            }
            None => (Standing::Ready, phase.to_string(), "Following the source.".into()),
        },
        phase @ Phase::Paused => {
            let message = "Paused. Resume before the source's oplog outruns the checkpoint.";
            (Standing::Ready, phase.to_string(), message.into())
        }
        phase @ Phase::Completed => {
            let missing = report.completion.as_ref().map_or(0, |c| c.unsuccessful_indexes.len());
            if missing == 0 {
                return (Standing::Ready, phase.to_string(), "The cutover is done.".into());
            }
            let message = format!(
                "The cutover is done, but {missing} indexes could not be restored: see \
                 status.completion.unsuccessfulIndexes, remove the cause, then change spec.requests.retry."
            );
            (Standing::Stalled, reasons::INDEXES_MISSING.into(), message)
        }
        phase @ Phase::Stalled => {
            let reason = report.reason.map_or(phase.as_str(), Reason::as_str);
            (Standing::Stalled, reason.into(), reported("Stopped; see the log."))
        }
    }
}

/// Where a sync that rests in one state is going, when the spec asks for another.
fn heading(desired: &Desired, report: &Report) -> Option<(&'static str, &'static str)> {
    use DesiredState::{Completed, Paused, Running};
    let restart = !desired.restart.is_empty() && desired.restart != report.handled_restart;
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

fn initial_sync_complete(report: Option<&Report>, previous: &[Condition]) -> Verdict {
    // A worker that does not own the sync yet has not read the durable state.
    let done = match report {
        Some(report) if report.epoch > 0 || report.initial_sync.completed_at.is_some() => {
            report.initial_sync.completed_at.is_some()
        }
        _ => find(previous, types::INITIAL_SYNC_COMPLETE).is_some_and(|c| c.status == "True"),
    };
    if done {
        Verdict::new(true, reasons::CAUGHT_UP, "The target was consistent; every later change is streamed.")
    } else {
        Verdict::new(false, reasons::IN_PROGRESS, "")
    }
}

fn connected(
    side: Option<&SideReport>,
    unreachable: Reason,
    previous: &[Condition],
    kind: &str,
    now: Timestamp,
) -> Verdict {
    let Some((side, connected)) = side.and_then(|side| side.connected.map(|c| (side, c))) else {
        return Verdict::unknown();
    };
    let was = find(previous, kind).is_some_and(|c| c.status == "True");
    let recent = now.duration_since(side.connected_since) < DISCONNECTED_AFTER;
    if connected || (was && recent) {
        Verdict::new(true, reasons::CONNECTED, "")
    } else {
        Verdict::new(false, unreachable.as_str(), unreachable.remedy())
    }
}

/// With hysteresis: a lag that swings about the limit is not news each time.
fn lagging(report: Option<&Report>, limit: i64, previous: &[Condition]) -> Verdict {
    let Some(lag) = report.and_then(|r| r.replication.lag_seconds) else {
        return Verdict::unknown();
    };
    let was = find(previous, types::LAGGING).is_some_and(|c| c.status == "True");
    if lag > limit || (was && lag > limit / 2) {
        let message = format!("The target is behind the source by more than {limit} s.");
        Verdict::new(true, reasons::LAG_ABOVE_LIMIT, message)
    } else {
        Verdict::new(false, reasons::LAG_WITHIN_LIMIT, "")
    }
}

/// A condition by its type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn stamp<const N: usize>(
    verdicts: [(&'static str, Verdict); N],
    previous: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(kind, verdict)| {
            let since = find(previous, kind)
                .filter(|before| before.status == verdict.status)
                .map_or_else(|| to_second(now), |before| before.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: verdict.status.to_owned(),
                reason: verdict.reason,
                message: cut(&verdict.message, MAX_MESSAGE),
                last_transition_time: since,
                observed_generation: Some(generation),
            }
        })
        .collect()
}
