//! When a status is worth a write: at once for a transition, now and then for progress, hardly ever for what
//! changes by itself. And how often what a resource names is looked at. Pure.

use std::time::Duration;

use crate::api::ClusterSyncStatus;
use crate::api::status::{InitialSyncStatus, ReplicationStatus, ThrottlingStatus};

/// Progress in the first minute of a clone, while somebody is watching.
const WATCHED: Duration = Duration::from_secs(2);

/// Progress at other times.
const PROGRESS: Duration = Duration::from_secs(15);

/// Times that pass by themselves: the checkpoint of a quiet source, the oplog's window.
const QUIET: Duration = Duration::from_secs(300);

/// Between two writes of progress over all resources: one takes one or two of the twenty requests a second, and
/// transitions must not wait for them.
const EACH: Duration = Duration::from_millis(200);

/// A change of lag below this is noise: an idle source writes a no-op every ten seconds.
const LAG_NOISE_SECONDS: i64 = 15;

/// The part of all requests that looking at Secrets and `ConfigMaps` may use.
const LOOKS: f64 = 0.25;

/// How long until what a resource names is looked at again: `usual`, or longer where many resources that name much would
/// use up the requests. `crowd`: how many resources there are; `references`: how many objects this one names.
pub fn look_again(usual: Duration, crowd: usize, references: usize, per_second: f64) -> Duration {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    // Looks come between a half of this time and the whole.
    let seconds = number(crowd) * number(references) / (per_second * LOOKS) * 4.0 / 3.0;
    usual.max(Duration::try_from_secs_f64(seconds).unwrap_or(usual))
}

/// How much a status differs from the one written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all.
    None,
    /// In times only.
    Quiet,
    /// In figures.
    Progress,
    /// In what a person or a script waits for.
    Transition,
}

impl Change {
    /// How long after the last write this change is written; none if never. `crowd`: how many resources are
    /// published by this process, which share its requests.
    pub fn interval(self, watched: bool, crowd: usize) -> Option<Duration> {
        let stretched = EACH.saturating_mul(u32::try_from(crowd).unwrap_or(u32::MAX));
        match self {
            Self::None => None,
            Self::Quiet => Some(QUIET),
            Self::Progress if watched => Some(WATCHED.max(stretched)),
            Self::Progress => Some(PROGRESS.max(stretched)),
            Self::Transition => Some(Duration::ZERO),
        }
    }
}

/// Compare the whole status (both managers' parts).
pub fn change(written: &ClusterSyncStatus, present: &ClusterSyncStatus) -> Change {
    if written == present {
        Change::None
    } else if essence(written) != essence(present) {
        Change::Transition
    } else if figures(written) != figures(present) || lag_moved(written, present) {
        Change::Progress
    } else {
        Change::Quiet
    }
}

/// Without figures and times.
fn essence(status: &ClusterSyncStatus) -> ClusterSyncStatus {
    let mut essence = status.clone();
    for condition in &mut essence.conditions {
        condition.message = String::new();
    }
    if let Some(source) = &mut essence.source {
        source.oplog_window_seconds = None;
    }
    essence.initial_sync = status.initial_sync.as_ref().map(|initial| InitialSyncStatus {
        started_at: initial.started_at.clone(),
        completed_at: initial.completed_at.clone(),
        ..InitialSyncStatus::default()
    });
    // That it begins and ends; how far it goes is a figure.
    essence.throttling = status.throttling.as_ref().map(|_| ThrottlingStatus::default());
    // A first figure is progress, not a transition: presence does not count either. An error that comes and goes with
    // each attempt is a figure too; one that matters shows in a condition.
    essence.replication = None;
    essence
}

/// Without times that pass by themselves and without lag.
fn figures(status: &ClusterSyncStatus) -> ClusterSyncStatus {
    let mut figures = status.clone();
    if let Some(source) = &mut figures.source {
        source.oplog_window_seconds = None;
    }
    if let Some(replication) = &mut figures.replication {
        replication.checkpoint_time = None;
        replication.lag_seconds = None;
        if let Some(error) = &mut replication.last_error {
            error.at = None;
        }
    }
    figures.replication = figures.replication.filter(|r| *r != ReplicationStatus::default());
    figures
}

fn lag_moved(written: &ClusterSyncStatus, present: &ClusterSyncStatus) -> bool {
    let lag = |status: &ClusterSyncStatus| status.replication.as_ref().and_then(|r| r.lag_seconds);
    match (lag(written), lag(present)) {
        (Some(before), Some(now)) => (now - before).abs() >= LAG_NOISE_SECONDS || (before != 0 && now == 0),
        (before, now) => before.is_some() != now.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use std::time::Duration;

    use super::{Change, change, look_again};
    use crate::api::ClusterSyncStatus;
    use crate::api::status::{
        InitialSyncStatus, LastErrorStatus, ReplicationStatus, SourceStatus, ThrottlingStatus,
    };

    fn status() -> ClusterSyncStatus {
        ClusterSyncStatus {
            phase: Some("Streaming".into()),
            source: Some(SourceStatus {
                replica_set: Some("rs0".into()),
                version: Some("6.0.27".into()),
                oplog_window_seconds: Some(1000),
            }),
            initial_sync: Some(InitialSyncStatus { documents: Some(5), ..InitialSyncStatus::default() }),
            replication: Some(ReplicationStatus {
                checkpoint_time: Some(Time(Timestamp::UNIX_EPOCH)),
                lag_seconds: Some(0),
                events_applied: Some(7),
                last_error: None,
            }),
            ..ClusterSyncStatus::default()
        }
    }

    fn changed(edit: impl FnOnce(&mut ClusterSyncStatus)) -> Change {
        let mut present = status();
        edit(&mut present);
        change(&status(), &present)
    }

    #[test]
    fn a_quiet_resource_is_quiet() {
        assert_eq!(changed(|_| ()), Change::None);
        let quiet = changed(|s| {
            s.source.as_mut().unwrap().oplog_window_seconds = Some(1010);
            let replication = s.replication.as_mut().unwrap();
            replication.checkpoint_time = Some(Time(Timestamp::from_second(10).unwrap()));
            replication.lag_seconds = Some(10);
        });
        assert_eq!(quiet, Change::Quiet);
        assert!(quiet.interval(true, 1).unwrap().as_secs() >= 60);
    }

    #[test]
    fn progress_of_many_leaves_requests_for_transitions() {
        for (watched, alone) in [(true, 2), (false, 15)] {
            let interval = |crowd| Change::Progress.interval(watched, crowd).unwrap();
            assert_eq!(interval(1), Duration::from_secs(alone));
            // Two requests a write, of twenty a second: at most half of them.
            assert!(interval(300).as_secs_f64() >= 300.0 * 2.0 / 10.0);
        }
        assert!(Change::Transition.interval(false, 300).unwrap().is_zero());
    }

    #[test]
    fn figures_are_progress_and_states_are_transitions() {
        assert_eq!(changed(|s| s.replication.as_mut().unwrap().events_applied = Some(8)), Change::Progress);
        assert_eq!(changed(|s| s.replication.as_mut().unwrap().lag_seconds = Some(30)), Change::Progress);
        assert_eq!(changed(|s| s.initial_sync.as_mut().unwrap().documents = Some(6)), Change::Progress);
        assert_eq!(changed(|s| s.phase = Some("Paused".into())), Change::Transition);
        assert_eq!(changed(|s| s.observed_generation = Some(2)), Change::Transition);
        assert_eq!(changed(|s| s.warnings.push("w".into())), Change::Transition);
        assert_eq!(
            changed(|s| s.initial_sync.as_mut().unwrap().completed_at = Some(Time(Timestamp::UNIX_EPOCH))),
            Change::Transition
        );
    }

    #[test]
    fn slowing_down_is_a_transition_and_how_far_is_a_figure() {
        let slowed = |percent| ThrottlingStatus { pace_percent: percent, ..ThrottlingStatus::default() };
        assert_eq!(changed(|s| s.throttling = Some(slowed(50))), Change::Transition);
        let mut before = status();
        before.throttling = Some(slowed(50));
        let mut after = before.clone();
        after.throttling = Some(slowed(25));
        assert_eq!(change(&before, &after), Change::Progress);
    }

    #[test]
    fn an_error_that_comes_and_goes_is_no_transition() {
        let error =
            LastErrorStatus { reason: "Interrupted".into(), attempts: 1, ..LastErrorStatus::default() };
        let failing = |s: &mut ClusterSyncStatus| {
            s.replication.as_mut().unwrap().last_error = Some(error.clone());
        };
        assert_eq!(changed(failing), Change::Progress);
        let mut before = status();
        failing(&mut before);
        assert_eq!(change(&before, &status()), Change::Progress, "it is gone");
        let mut other = before.clone();
        other.replication.as_mut().unwrap().last_error.as_mut().unwrap().reason = "OwnershipLost".into();
        assert_eq!(change(&before, &other), Change::Progress);
    }

    #[test]
    fn a_crowd_looks_less_often_and_leaves_most_requests_alone() {
        let usual = Duration::from_secs(55);
        for (crowd, references) in [(1, 6), (10, 6), (100, 2), (5, 0)] {
            assert_eq!(look_again(usual, crowd, references, 20.0), usual, "{crowd} with {references} each");
        }
        for (crowd, references) in [(300_u32, 2_u32), (300, 6), (2000, 4)] {
            let interval = look_again(usual, crowd as usize, references as usize, 20.0).as_secs_f64();
            let rate = f64::from(crowd * references) / (interval * 0.75);
            assert!(rate <= 5.01, "{crowd} with {references} each: {rate} a second");
        }
    }
}
