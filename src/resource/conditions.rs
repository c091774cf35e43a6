//! Report → conditions, by the table of states in `docs/architecture.md`.
//!
//! Ready, Reconciling and Stalled follow from one standing, so that at most one of them is True.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::ClusterSyncStatus;
use crate::api::conditions::{reasons, types};
use crate::sync::report::SideReport;
use crate::sync::{Desired, Phase, Reason, Report};

use super::Unusable;
use super::standing::{Standing, completed, knows, standing};
use super::status::{cut, to_second};

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
    /// A worker runs as an earlier spec said: something that the present one names is not there.
    Behind(&'a Report, &'a Unusable),
    /// No worker yet: something that the spec names is not there.
    Waiting(&'a Unusable),
    /// No worker: the spec cannot be used.
    Refused(&'a Unusable),
    /// This version cannot read the resource, as the sentence says.
    Undecodable(&'a str),
}

impl<'a> Outcome<'a> {
    /// The report, if a worker runs.
    pub fn report(&self) -> Option<&'a Report> {
        match self {
            Self::Running(report) | Self::Behind(report, _) => Some(report),
            Self::Waiting(_) | Self::Refused(_) | Self::Undecodable(_) => None,
        }
    }
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
pub fn controller_conditions(
    judged: &Judged<'_>,
    previous: &ClusterSyncStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let (standing, reason, message) = standing(judged, previous, now);
    let only = |wanted: &Standing| if standing == *wanted { message.clone() } else { String::new() };
    let completed = completed(judged, previous);
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
    stamp(verdicts, &previous.conditions, judged.generation, now)
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

fn initial_sync_complete(report: Option<&Report>, previous: &[Condition]) -> Verdict {
    let done = match report {
        Some(report) if knows(report) || report.initial_sync.completed_at.is_some() => {
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

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use proptest::prelude::*;

    use super::{Asked, Judged, Outcome, controller_conditions, find, worker_conditions};
    use crate::api::ClusterSyncStatus;
    use crate::api::conditions::{reasons, types};
    use crate::resource::Unusable;
    use crate::sync::report::{CompletionReport, SideReport, UnsuccessfulIndex};
    use crate::sync::{Desired, DesiredState, Phase, Reason, Report};

    const PHASES: [Phase; 9] = [
        Phase::Pending,
        Phase::Preflight,
        Phase::Cloning,
        Phase::CatchingUp,
        Phase::Streaming,
        Phase::Paused,
        Phase::Completing,
        Phase::Completed,
        Phase::Stalled,
    ];
    const STATES: [DesiredState; 3] = [DesiredState::Running, DesiredState::Paused, DesiredState::Completed];

    fn asked(state: DesiredState) -> Asked {
        Asked { desired: Desired { state, ..Desired::default() }, max_lag_seconds: 60 }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn judge(report: &Report, asked: Asked) -> Vec<Condition> {
        let judged = Judged { generation: 3, asked, outcome: Outcome::Running(report) };
        controller_conditions(&judged, &ClusterSyncStatus::default(), now())
    }

    /// Ready, Reconciling, Stalled, Completed as letters, and Ready's reason.
    fn row(conditions: &[Condition]) -> (String, String) {
        let letter = |kind: &str| find(conditions, kind).unwrap().status[..1].to_owned();
        let letters =
            [types::READY, types::RECONCILING, types::STALLED, types::COMPLETED].map(letter).concat();
        (letters, find(conditions, types::READY).unwrap().reason.clone())
    }

    #[test]
    fn the_table_of_states() {
        let table = [
            (Phase::Pending, DesiredState::Running, "FTFF", "Pending"),
            (Phase::Preflight, DesiredState::Running, "FTFF", "Preflight"),
            (Phase::Cloning, DesiredState::Running, "FTFF", "Cloning"),
            (Phase::CatchingUp, DesiredState::Running, "FTFF", "CatchingUp"),
            (Phase::Streaming, DesiredState::Running, "TFFF", "Streaming"),
            (Phase::Paused, DesiredState::Paused, "TFFF", "Paused"),
            (Phase::Completing, DesiredState::Completed, "FTFF", "Completing"),
            (Phase::Completed, DesiredState::Completed, "TFFT", "Completed"),
            (Phase::Stalled, DesiredState::Running, "FFTF", "Stalled"),
        ];
        for (phase, state, letters, reason) in table {
            let report = Report { phase, ..Report::default() };
            assert_eq!(row(&judge(&report, asked(state))), (letters.into(), reason.into()), "{phase}");
        }
    }

    #[test]
    fn missing_indexes_stall_what_is_completed() {
        let completion = CompletionReport {
            unsuccessful_indexes: vec![UnsuccessfulIndex::default()],
            ..CompletionReport::default()
        };
        let report = Report { phase: Phase::Completed, completion: Some(completion), ..Report::default() };
        let row = row(&judge(&report, asked(DesiredState::Completed)));
        assert_eq!(row, ("FFTT".into(), reasons::INDEXES_MISSING.into()));
    }

    #[test]
    fn streaming_is_not_ready_after_a_minute_without_a_connection() {
        let lost = |seconds| SideReport {
            connected: Some(false),
            connected_since: now().checked_sub(SignedDuration::from_secs(seconds)).unwrap(),
            ..SideReport::default()
        };
        for (seconds, letters) in [(59, "TFFF"), (60, "FFFF")] {
            let report = Report { phase: Phase::Streaming, target: lost(seconds), ..Report::default() };
            assert_eq!(row(&judge(&report, asked(DesiredState::Running))).0, letters);
        }
    }

    #[test]
    fn lag_swings_without_noise() {
        let at = |lag, previous: &[Condition]| {
            let mut report = Report { phase: Phase::Streaming, ..Report::default() };
            report.replication.lag_seconds = Some(lag);
            let judged = Judged {
                generation: 1,
                asked: asked(DesiredState::Running),
                outcome: Outcome::Running(&report),
            };
            worker_conditions(&judged, previous, now())
        };
        let status = |conditions: &[Condition]| find(conditions, types::LAGGING).unwrap().status.clone();
        let calm = at(60, &[]);
        assert_eq!(status(&calm), "False");
        let late = at(61, &calm);
        assert_eq!(status(&late), "True");
        assert_eq!(status(&at(31, &late)), "True");
        assert_eq!(status(&at(30, &late)), "False");
    }

    #[test]
    fn what_cannot_run_waits_or_stalls() {
        let missing = Unusable::missing("Secret a does not exist.");
        let invalid = Unusable::invalid("spec.scope: empty pattern.");
        let cases = [
            (Outcome::Waiting(&missing), "FTFF", Reason::CredentialsMissing),
            (Outcome::Refused(&invalid), "FFTF", Reason::InvalidConfiguration),
        ];
        for (outcome, letters, reason) in cases {
            let judged = Judged { generation: 1, asked: Asked::default(), outcome };
            let row = row(&controller_conditions(&judged, &ClusterSyncStatus::default(), now()));
            assert_eq!(row, (letters.into(), reason.as_str().into()));
        }
    }

    proptest! {
        #[test]
        fn at_most_one_of_ready_reconciling_and_stalled(
            phase in 0..PHASES.len(), state in 0..STATES.len(), restart in "[ab]?", handled in "[ab]?",
            connected in proptest::option::of(any::<bool>()),
        ) {
            let mut report = Report { phase: PHASES[phase], handled_restart: handled, ..Report::default() };
            report.source.connected = connected;
            let mut asked = asked(STATES[state]);
            asked.desired.restart = restart;
            let conditions = judge(&report, asked);
            let on = [types::READY, types::RECONCILING, types::STALLED]
                .iter()
                .filter(|kind| find(&conditions, kind).unwrap().status == "True")
                .count();
            prop_assert!(on <= 1);
            for condition in &conditions {
                prop_assert!(!condition.reason.is_empty());
                prop_assert_eq!(condition.observed_generation, Some(3));
            }
        }

        /// `kubectl wait --for=condition=Ready` after a change of spec must not succeed on the old state.
        #[test]
        fn ready_only_where_the_spec_wants_to_be(phase in 0..PHASES.len(), state in 0..STATES.len()) {
            let report = Report { phase: PHASES[phase], ..Report::default() };
            let conditions = judge(&report, asked(STATES[state]));
            if find(&conditions, types::READY).unwrap().status == "True" {
                let there = match STATES[state] {
                    DesiredState::Running => [Phase::Streaming, Phase::Completed],
                    DesiredState::Paused => [Phase::Paused, Phase::Completed],
                    DesiredState::Completed => [Phase::Completed, Phase::Completed],
                };
                prop_assert!(there.contains(&PHASES[phase]));
            }
        }

        #[test]
        fn a_time_of_transition_moves_only_with_the_status(first in 0..PHASES.len(), second in 0..PHASES.len()) {
            let judged = |report| Judged {
                generation: 1, asked: asked(DesiredState::Running), outcome: Outcome::Running(report),
            };
            let (a, b) = (
                Report { phase: PHASES[first], ..Report::default() },
                Report { phase: PHASES[second], ..Report::default() },
            );
            let before = controller_conditions(&judged(&a), &ClusterSyncStatus::default(), now());
            let later = now().checked_add(SignedDuration::from_secs(60)).unwrap();
            let stored = ClusterSyncStatus { conditions: before.clone(), ..ClusterSyncStatus::default() };
            let after = controller_conditions(&judged(&b), &stored, later);
            for (old, new) in before.iter().zip(&after) {
                prop_assert_eq!(
                    old.status == new.status,
                    old.last_transition_time == new.last_transition_time
                );
            }
        }
    }
}
