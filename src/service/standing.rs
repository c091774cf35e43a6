//! The states of the control API, and which call is allowed in which: pure.

use serde::Serialize;

use crate::sync::{Desired, DesiredState, Phase, Reason};

/// What `/status` calls `state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing was started.
    #[default]
    Idle,
    /// Cloning or following, or on the way there.
    Running,
    /// Rests at the user's wish.
    Paused,
    /// Cutting over.
    Finalizing,
    /// Cut over.
    Finalized,
    /// Stopped for a reason that needs a person.
    Failed,
}

impl State {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finalizing => "finalizing",
            Self::Finalized => "finalized",
            Self::Failed => "failed",
        }
    }
}

/// The state of a sync that was started: what is wanted counts from the moment at which it was asked for.
pub fn state(desired: &Desired, phase: Phase, reason: Option<Reason>) -> State {
    match (phase, desired.state) {
        (Phase::Stalled, _) => State::Failed,
        (Phase::Completed, _) => State::Finalized,
        (_, DesiredState::Completed) => State::Finalizing,
        (Phase::Paused, DesiredState::Paused) => State::Paused,
        // While it waits for a database it rests, too. Not while it waits for another process to fall silent: until then
        // it could not be resumed.
        (Phase::Pending, DesiredState::Paused) if reason.is_some_and(|why| why != Reason::OwnedElsewhere) => {
            State::Paused
        }
        _ => State::Running,
    }
}

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Begin.
    Start,
    /// Rest.
    Pause,
    /// Go on; from a failure, where the caller says so.
    Resume {
        /// `fromFailure`.
        from_failure: bool,
    },
    /// Cut over.
    Finalize,
}

/// Where a sync is, as far as calls depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// As `/status` says.
    pub state: State,
    /// None while nothing was started.
    pub phase: Option<Phase>,
    /// It was asked to rest last, whether it does already or not.
    pub asked_to_rest: bool,
    /// The initial sync is complete.
    pub consistent: bool,
    /// What it does, or waits for, in words.
    pub doing: String,
}

/// Whether a call is allowed; else why not.
pub fn allowed(call: Call, at: &Standing) -> Result<(), String> {
    let why = match (call, at.state) {
        (Call::Start, State::Idle | State::Finalized)
        | (Call::Resume { .. }, State::Paused)
        | (Call::Resume { from_failure: true }, State::Failed)
        | (Call::Finalize, State::Finalized) => return Ok(()),
        (Call::Start, State::Running) => "already running",
        (Call::Start, State::Paused) => {
            "paused: resume it, or forget it by a restart of 'clustersync serve' with --reset-state"
        }
        (Call::Start | Call::Finalize, State::Finalizing) => "already finalizing",
        (Call::Start, State::Failed) => {
            "failed: resume it with fromFailure, or forget it by a restart of 'clustersync serve' with --reset-state"
        }
        (Call::Pause, State::Running) if at.phase == Some(Phase::Streaming) => return Ok(()),
        (Call::Finalize, State::Running | State::Paused) if at.consistent => return Ok(()),
        (Call::Pause, State::Running) => return Err(not_now("pause", at)),
        (Call::Finalize, State::Running | State::Paused) => return Err(not_now("finalize", at)),
        (Call::Pause, State::Paused) => "already paused",
        (Call::Resume { .. }, State::Running) if at.asked_to_rest => return Ok(()),
        (Call::Resume { .. }, State::Running) => "not paused: already running",
        (Call::Resume { from_failure: false }, State::Failed) => {
            "failed, not paused: see /status; to try again, resume with fromFailure"
        }
        (_, State::Idle) => "not started",
        (_, State::Failed) => "failed: see /status",
        (_, State::Finalizing) => "finalizing",
        (_, State::Finalized) => "already finalized",
    };
    Err(why.to_owned())
}

/// While it waits for a database, nothing is known of its initial sync: that it is incomplete would be a guess.
fn not_now(call: &str, at: &Standing) -> String {
    if at.consistent || at.phase == Some(Phase::Pending) {
        format!("cannot {call} now, since it is not streaming: {}", at.doing)
    } else {
        format!("cannot {call}: the initial sync is not complete yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(state: DesiredState) -> Desired {
        Desired { state, ..Desired::default() }
    }

    fn at(state: State, phase: Phase, consistent: bool) -> Standing {
        let doing = "waiting for the source".to_owned();
        Standing { state, phase: Some(phase), asked_to_rest: false, consistent, doing }
    }

    #[test]
    fn a_wish_counts_from_the_moment_it_is_said() {
        let running = wish(DesiredState::Running);
        for phase in [Phase::Pending, Phase::Preflight, Phase::Cloning, Phase::CatchingUp, Phase::Streaming] {
            assert_eq!(state(&running, phase, None), State::Running);
            assert_eq!(state(&wish(DesiredState::Completed), phase, None), State::Finalizing);
        }
        assert_eq!(state(&running, Phase::Paused, None), State::Running);
        assert_eq!(state(&wish(DesiredState::Paused), Phase::Paused, None), State::Paused);
        let waiting = |reason| state(&wish(DesiredState::Paused), Phase::Pending, reason);
        assert_eq!(waiting(Some(Reason::TargetUnreachable)), State::Paused);
        assert_eq!(waiting(Some(Reason::OwnedElsewhere)), State::Running);
        assert_eq!(waiting(None), State::Running);
        assert_eq!(state(&wish(DesiredState::Paused), Phase::Streaming, None), State::Running);
        assert_eq!(state(&wish(DesiredState::Completed), Phase::Paused, None), State::Finalizing);
        assert_eq!(state(&wish(DesiredState::Completed), Phase::Completed, None), State::Finalized);
        assert_eq!(state(&running, Phase::Stalled, None), State::Failed);
    }

    #[test]
    fn each_call_in_each_state() {
        let states =
            [State::Idle, State::Running, State::Paused, State::Finalizing, State::Finalized, State::Failed];
        let calls = [
            (Call::Start, [true, false, false, false, true, false]),
            (Call::Pause, [false, true, false, false, false, false]),
            (Call::Resume { from_failure: false }, [false, false, true, false, false, false]),
            (Call::Resume { from_failure: true }, [false, false, true, false, false, true]),
            (Call::Finalize, [false, true, true, false, true, false]),
        ];
        for (call, expected) in calls {
            for (state, expected) in states.into_iter().zip(expected) {
                let at = at(state, Phase::Streaming, true);
                let outcome = allowed(call, &at);
                assert_eq!(outcome.is_ok(), expected, "{call:?} in {state:?}");
            }
        }
    }

    #[test]
    fn what_is_about_to_rest_can_be_resumed() {
        let at = Standing { asked_to_rest: true, ..at(State::Running, Phase::Streaming, true) };
        assert_eq!(allowed(Call::Resume { from_failure: false }, &at), Ok(()));
    }

    #[test]
    fn before_the_initial_sync_is_complete_nothing_is_paused_or_finalized() {
        for phase in [Phase::Preflight, Phase::Cloning, Phase::CatchingUp] {
            for call in [Call::Pause, Call::Finalize] {
                let why = allowed(call, &at(State::Running, phase, false)).unwrap_err();
                assert!(why.ends_with("the initial sync is not complete yet"), "{why}");
            }
        }
    }

    #[test]
    fn what_only_waits_is_not_called_incomplete() {
        for (phase, consistent) in [(Phase::Pending, false), (Phase::Pending, true), (Phase::Paused, true)] {
            let why = allowed(Call::Pause, &at(State::Running, phase, consistent)).unwrap_err();
            assert_eq!(why, "cannot pause now, since it is not streaming: waiting for the source");
        }
        let why = allowed(Call::Finalize, &at(State::Running, Phase::Pending, false)).unwrap_err();
        assert!(why.contains("waiting for the source"), "{why}");
    }
}
