//! What to do about one resource: a pure function between dereference and apply.

use crate::resource::Unusable;

/// What is known about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// It is being deleted.
    pub deleted: bool,
    /// It carries our finalizer.
    pub has_finalizer: bool,
    /// `deletionPolicy: Delete`.
    pub wants_finalizer: bool,
    /// What spec and Secrets amount to.
    pub material: Result<(), Unusable>,
    /// What runs for it here.
    pub worker: WorkerState,
}

/// What runs for a resource in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Nothing.
    Absent,
    /// A worker, built from the material of now; while that is not known, from the spec of now.
    Current,
    /// A worker, built from other material; while the present one is not known, from another spec.
    Outdated,
    /// A worker that ended without being told to.
    Ended,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take the finalizer on, before there is any state to remove. The change brings the resource back here.
    AddFinalizer,
    /// Let the finalizer go: the policy became Retain.
    RemoveFinalizer,
    /// Start a worker.
    Start,
    /// Stop the worker and start one from the new material.
    Replace,
    /// Pass on what the user wants now.
    Steer,
    /// The worker goes on with what it has; something that the spec names has vanished meanwhile.
    KeepRunning(Unusable),
    /// The worker goes on as an earlier spec said; what the present one names is not there yet.
    KeepBehind(Unusable),
    /// Nothing runs until what the spec names is there.
    Wait(Unusable),
    /// Stop the worker, if any: the spec cannot be used.
    Refuse(Unusable),
    /// Stop the worker, remove the durable state, then let the finalizer go.
    CleanUp,
    /// Stop the worker; the state stays.
    Forget,
}

/// Decide.
pub fn decide(observed: &Observed) -> Decision {
    let Observed { deleted, has_finalizer, wants_finalizer, material, worker } = observed;
    if *deleted {
        return if *has_finalizer && *wants_finalizer {
            Decision::CleanUp
        } else if *has_finalizer {
            Decision::RemoveFinalizer
        } else {
            Decision::Forget
        };
    }
    match (wants_finalizer, has_finalizer) {
        (true, false) => return Decision::AddFinalizer,
        (false, true) => return Decision::RemoveFinalizer,
        _ => {}
    }
    match (material, worker) {
        (Err(unusable), WorkerState::Current) if is_missing(unusable) => {
            Decision::KeepRunning(unusable.clone())
        }
        (Err(unusable), WorkerState::Outdated) if is_missing(unusable) => {
            Decision::KeepBehind(unusable.clone())
        }
        (Err(unusable), _) if is_missing(unusable) => Decision::Wait(unusable.clone()),
        (Err(unusable), _) => Decision::Refuse(unusable.clone()),
        (Ok(()), WorkerState::Absent | WorkerState::Ended) => Decision::Start,
        (Ok(()), WorkerState::Outdated) => Decision::Replace,
        (Ok(()), WorkerState::Current) => Decision::Steer,
    }
}

fn is_missing(unusable: &Unusable) -> bool {
    unusable.reason == crate::sync::Reason::CredentialsMissing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Decision, Observed, WorkerState, decide};
    use crate::resource::Unusable;

    fn observed() -> impl Strategy<Value = Observed> {
        let material = prop_oneof![
            Just(Ok(())),
            Just(Err(Unusable::missing("Secret a does not exist"))),
            Just(Err(Unusable::invalid("spec.scope"))),
        ];
        let worker = prop_oneof![
            Just(WorkerState::Absent),
            Just(WorkerState::Current),
            Just(WorkerState::Outdated),
            Just(WorkerState::Ended),
        ];
        (any::<bool>(), any::<bool>(), any::<bool>(), material, worker).prop_map(
            |(deleted, has_finalizer, wants_finalizer, material, worker)| Observed {
                deleted,
                has_finalizer,
                wants_finalizer,
                material,
                worker,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_starts_for_a_resource_that_goes_away(mut o in observed()) {
            o.deleted = true;
            prop_assert!(matches!(
                decide(&o),
                Decision::CleanUp | Decision::RemoveFinalizer | Decision::Forget
            ));
        }

        #[test]
        fn no_state_is_written_before_the_finalizer_that_removes_it(o in observed()) {
            if matches!(decide(&o), Decision::Start | Decision::Replace) {
                prop_assert_eq!(o.has_finalizer, o.wants_finalizer);
            }
        }

        #[test]
        fn state_is_removed_only_when_the_user_said_so(o in observed()) {
            if decide(&o) == Decision::CleanUp {
                prop_assert!(o.deleted && o.wants_finalizer && o.has_finalizer);
            }
        }

        #[test]
        fn a_running_worker_outlives_a_secret_that_vanished(mut o in observed()) {
            o.deleted = false;
            o.has_finalizer = o.wants_finalizer;
            o.material = Err(Unusable::missing("Secret a does not exist"));
            o.worker = WorkerState::Current;
            prop_assert!(matches!(decide(&o), Decision::KeepRunning(_)));
            // Nor is it stopped for a spec that cannot be brought about yet; but that spec is not in force.
            o.worker = WorkerState::Outdated;
            prop_assert!(matches!(decide(&o), Decision::KeepBehind(_)));
        }

        #[test]
        fn an_unusable_spec_never_starts_anything(mut o in observed()) {
            o.material = Err(Unusable::invalid("spec.scope"));
            prop_assert!(!matches!(decide(&o), Decision::Start | Decision::Replace | Decision::Steer));
        }

        #[test]
        fn a_usable_spec_ends_in_a_current_worker(mut o in observed()) {
            o.deleted = false;
            o.material = Ok(());
            for _ in 0..3 {
                match decide(&o) {
                    Decision::AddFinalizer => o.has_finalizer = true,
                    Decision::RemoveFinalizer => o.has_finalizer = false,
                    Decision::Start | Decision::Replace => o.worker = WorkerState::Current,
                    Decision::Steer => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(decide(&o), Decision::Steer);
        }
    }
}
