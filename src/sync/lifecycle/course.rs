//! Which way a sync goes next: pure functions from what is known to what to do.

use mongodb::bson::Timestamp;

use crate::sync::config::DesiredState;
use crate::sync::state::Stage;

/// What to do with a sync whose durable stage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nothing is recorded yet: check both ends and record the plan.
    Plan,
    /// Run the data path.
    Run,
    /// Do nothing until the user wants something else.
    Rest,
    /// Restore what was deferred: there is no way back.
    Restore,
    /// Stay cut over.
    Done,
}

/// `stage` is none before anything is recorded; `restart`: the user asked to clone anew.
pub fn course(stage: Option<Stage>, wanted: DesiredState, restart: bool) -> Course {
    match stage {
        // A plan fixes the place from which the stream is read: a rest would let the oplog pass it.
        None | Some(Stage::Planning) if wanted == DesiredState::Paused => Course::Rest,
        None | Some(Stage::Planning) => Course::Plan,
        Some(_) if restart && wanted == DesiredState::Paused => Course::Rest,
        Some(_) if restart => Course::Plan,
        Some(Stage::Completed) => Course::Done,
        Some(Stage::Restoring) => Course::Restore,
        Some(Stage::Cloning | Stage::Streaming | Stage::Completing) if wanted == DesiredState::Paused => {
            Course::Rest
        }
        Some(Stage::Cloning | Stage::Streaming | Stage::Completing) => Course::Run,
    }
}

/// Whether a sync copies collections when it goes on: then it takes a clone's slot.
pub fn clones(stage: Option<Stage>, restart: bool) -> bool {
    restart || matches!(stage, None | Some(Stage::Planning | Stage::Cloning))
}

/// Where a run of the data path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Every collection is copied.
    pub cloned: bool,
    /// The source time at which the last one was; none until it was looked up.
    pub clone_end: Option<Timestamp>,
    /// The target has passed that time, durably.
    pub consistent: bool,
    /// The time to drain to, once completion was asked for, durably.
    pub fence: Option<Timestamp>,
    /// No collection is being copied, also none that came later or is copied again, and all that were are consistent.
    pub settled: bool,
    /// Everything up to here is applied.
    pub applied: Timestamp,
}

/// What a run does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// End the run: the user wants a rest, or a new beginning.
    Leave,
    /// Go on copying.
    Copy,
    /// Look up when the clone ended.
    LearnCloneEnd,
    /// Go on applying what happened during the copy.
    CatchUp,
    /// Record that the target is consistent.
    BecomeConsistent,
    /// Go on following the source.
    Follow,
    /// Completion was asked for: record the time to drain to.
    FixFence,
    /// Go on draining to it.
    Drain,
    /// Everything up to the fence is applied: end the run, and cut over.
    CutOver,
    /// Completion was taken back: forget the fence.
    Abort,
}

impl Position {
    /// Decide. `restart`: the user asked to clone anew.
    pub fn next(&self, wanted: DesiredState, restart: bool) -> Step {
        if restart || wanted == DesiredState::Paused {
            return Step::Leave;
        }
        if !self.consistent {
            return match self.clone_end {
                _ if !self.cloned => Step::Copy,
                None => Step::LearnCloneEnd,
                Some(end) if self.applied >= end && self.settled => Step::BecomeConsistent,
                Some(_) => Step::CatchUp,
            };
        }
        match (wanted, self.fence) {
            (DesiredState::Completed, None) => Step::FixFence,
            (DesiredState::Completed, Some(fence)) if self.applied >= fence && self.settled => Step::CutOver,
            (DesiredState::Completed, Some(_)) => Step::Drain,
            (_, Some(_)) => Step::Abort,
            (_, None) => Step::Follow,
        }
    }
}

impl Step {
    /// Whether there is nothing to do but to let the data path work.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Copy | Self::CatchUp | Self::Follow | Self::Drain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        (0_u32..4, 0_u32..3).prop_map(|(time, increment)| Timestamp { time, increment })
    }

    fn position() -> impl Strategy<Value = Position> {
        let times = (proptest::option::of(time()), proptest::option::of(time()), time());
        (any::<bool>(), any::<bool>(), any::<bool>(), times).prop_map(
            |(cloned, settled, consistent, (clone_end, fence, applied))| Position {
                cloned,
                clone_end,
                consistent,
                fence,
                settled,
                applied,
            },
        )
    }

    fn wanted() -> impl Strategy<Value = DesiredState> {
        prop_oneof![Just(DesiredState::Running), Just(DesiredState::Paused), Just(DesiredState::Completed)]
    }

    fn stage() -> impl Strategy<Value = Option<Stage>> {
        prop_oneof![
            Just(None),
            Just(Some(Stage::Planning)),
            Just(Some(Stage::Cloning)),
            Just(Some(Stage::Streaming)),
            Just(Some(Stage::Completing)),
            Just(Some(Stage::Restoring)),
            Just(Some(Stage::Completed)),
        ]
    }

    /// What the run records when it takes a step, with the source at `now`.
    fn take(position: &mut Position, step: Step, now: Timestamp) {
        match step {
            Step::Copy => position.cloned = true,
            Step::LearnCloneEnd => position.clone_end = Some(now),
            Step::CatchUp | Step::Drain => {
                position.applied = position.applied.max(now);
                position.settled = true;
            }
            Step::BecomeConsistent => position.consistent = true,
            Step::FixFence => position.fence = Some(now),
            Step::Abort => position.fence = None,
            Step::Leave | Step::Follow | Step::CutOver => {}
        }
    }

    proptest! {
        #[test]
        fn nothing_is_cut_over_before_it_is_consistent_and_drained(at in position(), wanted in wanted(), restart in any::<bool>()) {
            if at.next(wanted, restart) == Step::CutOver {
                prop_assert!(at.consistent && wanted == DesiredState::Completed && !restart);
                prop_assert!(at.settled && at.fence.is_some_and(|fence| at.applied >= fence));
            }
        }

        #[test]
        fn the_target_is_consistent_only_past_the_clones_end(at in position(), wanted in wanted()) {
            if at.next(wanted, false) == Step::BecomeConsistent {
                prop_assert!(at.cloned && at.settled && at.clone_end.is_some_and(|end| at.applied >= end));
            }
        }

        #[test]
        fn a_fence_is_fixed_once_and_only_on_request(at in position(), wanted in wanted()) {
            if at.next(wanted, false) == Step::FixFence {
                prop_assert!(at.fence.is_none() && at.consistent && wanted == DesiredState::Completed);
            }
        }

        #[test]
        fn a_rest_or_a_restart_ends_the_run_wherever_it_is(at in position(), wanted in wanted()) {
            prop_assert_eq!(at.next(DesiredState::Paused, false), Step::Leave);
            prop_assert_eq!(at.next(wanted, true), Step::Leave);
        }

        /// From anywhere, a wish that stays is fulfilled in a few steps, each of them taken once in a row.
        #[test]
        fn every_wish_comes_true(mut at in position(), complete in any::<bool>()) {
            let (wanted, goal) = if complete {
                (DesiredState::Completed, Step::CutOver)
            } else {
                (DesiredState::Running, Step::Follow)
            };
            let now = Timestamp { time: 9, increment: 1 };
            let mut steps = 0;
            loop {
                let step = at.next(wanted, false);
                if step == goal {
                    break;
                }
                take(&mut at, step, now);
                prop_assert!(step == Step::CatchUp || step == Step::Drain || at.next(wanted, false) != step, "{:?} at {:?}", step, at);
                steps += 1;
                prop_assert!(steps < 10);
            }
        }

        #[test]
        fn a_cutover_is_never_undone_but_by_a_restart(wanted in wanted()) {
            prop_assert_eq!(course(Some(Stage::Completed), wanted, false), Course::Done);
            prop_assert_eq!(course(Some(Stage::Restoring), wanted, false), Course::Restore);
        }

        #[test]
        fn nothing_runs_while_a_rest_is_wanted(stage in stage(), restart in any::<bool>()) {
            prop_assert!(!matches!(course(stage, DesiredState::Paused, restart), Course::Run | Course::Plan));
        }

        #[test]
        fn what_plans_or_copies_takes_a_slot(stage in stage(), wanted in wanted(), restart in any::<bool>()) {
            if course(stage, wanted, restart) == Course::Plan {
                prop_assert!(clones(stage, restart));
            }
            if matches!(stage, Some(Stage::Streaming | Stage::Completing | Stage::Restoring | Stage::Completed)) {
                prop_assert_eq!(clones(stage, restart), restart);
            }
        }
    }
}
