//! The states of the control API, and which call is allowed in which: pure.

use serde::Serialize;

use crate::sync::{Desired, DesiredState, Phase};

/// What `/status` calls `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing was started.
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
pub fn state(desired: &Desired, phase: Phase) -> State {
    match (phase, desired.state) {
        (Phase::Stalled, _) => State::Failed,
        (Phase::Completed, _) => State::Finalized,
        (_, DesiredState::Completed) => State::Finalizing,
        (Phase::Paused, DesiredState::Paused) => State::Paused,
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

/// Whether a call is allowed; else why not. `phase` is none while nothing was started; `consistent`: the initial sync
/// is complete.
pub fn allowed(call: Call, state: State, phase: Option<Phase>, consistent: bool) -> Result<(), &'static str> {
    match (call, state) {
        (Call::Start, State::Idle | State::Finalized)
        | (Call::Resume { .. }, State::Paused)
        | (Call::Resume { from_failure: true }, State::Failed)
        | (Call::Finalize, State::Finalized) => Ok(()),
        (Call::Start, State::Running) => Err("already running"),
        (Call::Start, State::Paused) => Err("paused: resume it, or forget it with --reset-state"),
        (Call::Start | Call::Finalize, State::Finalizing) => Err("already finalizing"),
        (Call::Start, State::Failed) => {
            Err("failed: resume it with fromFailure, or forget it with --reset-state")
        }
        (Call::Pause, State::Running) if phase == Some(Phase::Streaming) => Ok(()),
        (Call::Pause, State::Running) => Err("cannot pause: the initial sync is not complete yet"),
        (Call::Pause, State::Paused) => Err("already paused"),
        (Call::Finalize, State::Running | State::Paused) if consistent => Ok(()),
        (Call::Finalize, State::Running | State::Paused) => {
            Err("cannot finalize: the initial sync is not complete yet")
        }
        (Call::Resume { .. }, State::Running) => Err("not paused: already running"),
        (Call::Resume { from_failure: false }, State::Failed) => {
            Err("failed, not paused: see /status; to try again, resume with fromFailure")
        }
        (_, State::Idle) => Err("not started"),
        (_, State::Failed) => Err("failed: see /status"),
        (_, State::Finalizing) => Err("finalizing"),
        (_, State::Finalized) => Err("already finalized"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(state: DesiredState) -> Desired {
        Desired { state, ..Desired::default() }
    }

    #[test]
    fn a_wish_counts_from_the_moment_it_is_said() {
        let running = wish(DesiredState::Running);
        for phase in [Phase::Pending, Phase::Preflight, Phase::Cloning, Phase::CatchingUp, Phase::Streaming] {
            assert_eq!(state(&running, phase), State::Running);
            assert_eq!(state(&wish(DesiredState::Completed), phase), State::Finalizing);
        }
        assert_eq!(state(&running, Phase::Paused), State::Running);
        assert_eq!(state(&wish(DesiredState::Paused), Phase::Paused), State::Paused);
        assert_eq!(state(&wish(DesiredState::Paused), Phase::Streaming), State::Running);
        assert_eq!(state(&wish(DesiredState::Completed), Phase::Paused), State::Finalizing);
        assert_eq!(state(&wish(DesiredState::Completed), Phase::Completed), State::Finalized);
        assert_eq!(state(&running, Phase::Stalled), State::Failed);
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
                let outcome = allowed(call, state, Some(Phase::Streaming), true);
                assert_eq!(outcome.is_ok(), expected, "{call:?} in {state:?}");
            }
        }
    }

    #[test]
    fn before_the_initial_sync_is_complete_nothing_is_paused_or_finalized() {
        for phase in [Phase::Cloning, Phase::CatchingUp] {
            assert!(allowed(Call::Pause, State::Running, Some(phase), false).is_err());
            assert!(allowed(Call::Finalize, State::Running, Some(phase), false).is_err());
        }
    }
}
