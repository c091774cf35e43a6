//! Wiring: bring each resource to what it asks for.
//!
//! A reconcile reads like this: dereference what the spec names, put the material together, decide, apply.
//! Status is written by the resource's publisher, not here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Client, Resource};
use tokio::sync::watch;

use crate::api::{ClusterSync, ClusterSyncSpec, ClusterSyncStatus, DeletionPolicy};
use crate::resource::references::references;
use crate::resource::status::notice;
use crate::resource::{Asked, Material, Unusable, material};
use crate::sync::config::{Holder, LeaseTerm};

use super::cadence::look_again;
use super::cleanup::{has_finalizer, remove_state, set_finalizer};
use super::decide::{Decision, Observed, WorkerState, decide};
use super::dereference::dereference;
use super::events::{Announcement, Events};
use super::launch::{Course, Key, Launcher, Plan};
use super::leader::Leadership;
use super::patch::{Incarnation, StatusClient};
use super::publish::{Publisher, Subject, SubjectState};
use super::requests::{RequestError, Requests};

/// A `ClusterSync`, or what could be read of it.
pub(super) type Guarded = DeserializeGuard<ClusterSync>;

/// Secrets are looked at again within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(55);

/// What is missing is looked for more often.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(15);

/// Backoff of failing reconciles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// While the Lease is not renewed.
const REST: Duration = Duration::from_secs(2);

/// What every reconcile needs.
pub struct Context {
    /// The apiserver.
    pub client: Client,
    /// Its pace.
    pub requests: Arc<Requests>,
    /// The syncs.
    pub launcher: Arc<Launcher>,
    /// Events.
    pub events: Events,
    /// This process, in owner documents.
    pub identity: String,
    /// The term that made this process leader.
    pub term: LeaseTerm,
    /// Whether that still holds.
    pub leadership: watch::Receiver<Leadership>,
    /// Only Secrets with the label are read.
    pub require_secret_label: bool,
    attempts: Mutex<HashMap<String, u32>>,
    /// UIDs of resources whose durable state is removed; their finalizer may not be yet.
    cleaned: Mutex<HashSet<String>>,
}

impl Context {
    /// A leader's context.
    #[expect(clippy::too_many_arguments, reason = "one place builds it, by name would be longer")]
    pub fn new(
        client: Client,
        requests: Arc<Requests>,
        launcher: Arc<Launcher>,
        events: Events,
        identity: String,
        term: LeaseTerm,
        leadership: watch::Receiver<Leadership>,
        require_secret_label: bool,
    ) -> Self {
        let (attempts, cleaned) = (Mutex::default(), Mutex::default());
        Self {
            client,
            requests,
            launcher,
            events,
            identity,
            term,
            leadership,
            require_secret_label,
            attempts,
            cleaned,
        }
    }

    fn may_reconcile(&self) -> bool {
        matches!(*self.leadership.borrow(), Leadership::Leading { renewed: true, .. })
    }

    fn failed(&self, uid: &str) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(uid.to_owned()).or_default();
        *count += 1;
        FIRST_RETRY.saturating_mul(2_u32.saturating_pow(*count - 1)).min(LAST_RETRY)
    }

    pub(super) fn succeeded(&self, uid: &str) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn cleaned(&self) -> MutexGuard<'_, HashSet<String>> {
        self.cleaned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to look again at what a spec names.
    fn look_again(&self, usual: Duration, spec: &ClusterSyncSpec) -> Action {
        let (crowd, references) = (self.launcher.crowd(), references(spec).len());
        Action::requeue(jittered(look_again(usual, crowd, references, self.requests.per_second())))
    }
}

/// Why a reconcile has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading what the spec names failed.
    #[error("Secrets and ConfigMaps cannot be read: {0}")]
    Dereference(#[source] RequestError),
    /// The finalizer could not be set or removed.
    #[error("the finalizer cannot be changed: {0}")]
    Finalizer(#[source] RequestError),
}

/// Bring a resource to what it asks for.
pub(super) async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if !context.may_reconcile() {
        return Ok(Action::requeue(REST));
    }
    let metadata = object.meta();
    let key = Key {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    };
    let action = match &object.0 {
        Ok(resource) => bring_about(&key, resource, &context).await?,
        Err(invalid) => give_up_on(&key, &invalid.metadata, &invalid.error, &context).await?,
    };
    context.succeeded(&key.uid);
    Ok(action)
}

/// When to try again.
#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
pub(super) fn retry(object: Arc<Guarded>, _: &ReconcileError, context: Arc<Context>) -> Action {
    Action::requeue(context.failed(object.meta().uid.as_deref().unwrap_or_default()))
}

async fn bring_about(key: &Key, resource: &ClusterSync, context: &Context) -> Result<Action, ReconcileError> {
    let spec = &resource.spec;
    let deleted = resource.metadata.deletion_timestamp.is_some();
    let has_finalizer = has_finalizer(&resource.metadata);
    // What goes away needs its Secrets only to remove state that no worker here has a way to.
    let needed =
        !deleted || (has_finalizer && context.launcher.state(key, spec, None) == WorkerState::Absent);
    let (material, unusable) = if needed {
        match material_of(key, resource, context).await {
            Ok(Ok(material)) => (Some(material), None),
            Ok(Err(unusable)) => (None, Some(unusable)),
            Err(error) => {
                pass_on(key, resource, context);
                return Err(error);
            }
        }
    } else {
        (None, Some(Unusable::missing("The resource is being deleted.")))
    };
    let worker = context.launcher.state(key, spec, material.as_ref());
    let observed = Observed {
        deleted,
        has_finalizer,
        wants_finalizer: spec.deletion_policy == Some(DeletionPolicy::Delete),
        material: unusable.map_or(Ok(()), Err),
        worker,
    };
    let decision = decide(&observed);
    tracing::debug!(namespace = key.namespace, name = key.name, ?decision, "decided");
    apply(key, resource, material, decision, worker, context).await
}

async fn apply(
    key: &Key,
    resource: &ClusterSync,
    material: Option<Material>,
    decision: Decision,
    worker: WorkerState,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let launcher = &context.launcher;
    let publisher = || publisher(key, &resource.metadata, resource.status.clone(), context);
    let subject = |state| subject(resource, state);
    let looked_at_again = context.look_again(LOOK_AGAIN, &resource.spec);
    match decision {
        Decision::AddFinalizer => {
            finalizer(&resource.metadata, true, context).await?;
            Ok(looked_at_again)
        }
        Decision::RemoveFinalizer => {
            if resource.metadata.deletion_timestamp.is_some() {
                launcher.forget(key).await;
            }
            finalizer(&resource.metadata, false, context).await?;
            Ok(looked_at_again)
        }
        Decision::Start | Decision::Replace => {
            let Some(material) = material else { return Ok(looked_at_again) };
            let config = match material.configuration(holder(key, context)) {
                Ok(config) => config,
                Err(unusable) => return refuse(key, resource, unusable, context).await,
            };
            match worker {
                WorkerState::Ended => {
                    tracing::error!(
                        namespace = key.namespace,
                        name = key.name,
                        "the sync ended by itself; starting it again"
                    );
                }
                WorkerState::Outdated => {
                    tracing::info!(
                        namespace = key.namespace,
                        name = key.name,
                        "configuration changed: restarting the sync from its checkpoint"
                    );
                }
                _ => tracing::info!(namespace = key.namespace, name = key.name, "starting the sync"),
            }
            let mut subject = subject(SubjectState::Waiting(Unusable::missing("Starting.")));
            subject.restarts = launcher.restarts(key).or(restarts_before(resource)).map_or(0, |n| n + 1);
            let plan = Plan { config, material, spec: resource.spec.clone() };
            launcher.start(key, plan, subject, publisher).await;
            Ok(looked_at_again)
        }
        Decision::Steer => {
            launcher.steer(key, course(resource), publisher);
            Ok(looked_at_again)
        }
        Decision::KeepRunning(unusable) => {
            let notice = Some(notice(&unusable));
            launcher.steer(key, Course { notice, ..course(resource) }, publisher);
            Ok(context.look_again(LOOK_FOR_MISSING, &resource.spec))
        }
        Decision::KeepBehind(unusable) => {
            launcher.steer(key, Course { behind: Some(unusable), ..course(resource) }, publisher);
            Ok(context.look_again(LOOK_FOR_MISSING, &resource.spec))
        }
        Decision::Wait(unusable) => {
            launcher.stop_worker(key).await;
            launcher.publish(key, subject(SubjectState::Waiting(unusable)), publisher);
            Ok(context.look_again(LOOK_FOR_MISSING, &resource.spec))
        }
        Decision::Refuse(unusable) => refuse(key, resource, unusable, context).await,
        Decision::CleanUp => {
            if !context.cleaned().contains(&key.uid) {
                clean_up(key, resource, material, context).await;
                context.cleaned().insert(key.uid.clone());
            }
            launcher.forget(key).await;
            finalizer(&resource.metadata, false, context).await?;
            context.cleaned().remove(&key.uid);
            Ok(Action::await_change())
        }
        Decision::Forget => {
            launcher.forget(key).await;
            Ok(Action::await_change())
        }
    }
}

async fn refuse(
    key: &Key,
    resource: &ClusterSync,
    unusable: Unusable,
    context: &Context,
) -> Result<Action, ReconcileError> {
    context.launcher.stop_worker(key).await;
    let subject = subject(resource, SubjectState::Refused(unusable));
    context
        .launcher
        .publish(key, subject, || publisher(key, &resource.metadata, resource.status.clone(), context));
    // An error of the spec alone awaits a change; what a Secret holds is outside the object.
    if references(&resource.spec).is_empty() {
        Ok(Action::await_change())
    } else {
        Ok(context.look_again(LOOK_AGAIN, &resource.spec))
    }
}

/// An object that this version cannot read must not stall the others, and must be deletable.
async fn give_up_on(
    key: &Key,
    metadata: &ObjectMeta,
    error: &str,
    context: &Context,
) -> Result<Action, ReconcileError> {
    if metadata.deletion_timestamp.is_some() {
        let config = context.launcher.stop_worker(key).await;
        context.launcher.forget(key).await;
        if has_finalizer(metadata) {
            finalizer(metadata, false, context).await?;
            let id =
                config.map_or_else(|| format!("(spec.syncID, by default {})", key.uid), |config| config.id);
            let why = format!("the resource cannot be read ({error}), so that it is not known where it is");
            retained(&id, &why, &about(metadata), context);
        }
        return Ok(Action::await_change());
    }
    tracing::warn!(namespace = key.namespace, name = key.name, error, "this ClusterSync cannot be read");
    let message = format!(
        "This version of the operator cannot read the resource ({error}). Correct it, or install the version that its CustomResourceDefinition belongs to."
    );
    context.launcher.stop_worker(key).await;
    let subject = Subject {
        generation: metadata.generation.unwrap_or(0),
        asked: Asked::default(),
        state: SubjectState::Undecodable(message),
        restarts: 0,
        notice: None,
        behind: None,
    };
    context.launcher.publish(key, subject, || publisher(key, metadata, None, context));
    Ok(Action::await_change())
}

async fn material_of(
    key: &Key,
    resource: &ClusterSync,
    context: &Context,
) -> Result<Result<Material, Unusable>, ReconcileError> {
    let fetched = dereference(
        &context.client,
        &context.requests,
        &key.namespace,
        &resource.spec,
        context.require_secret_label,
    )
    .await
    .map_err(ReconcileError::Dereference)?;
    Ok(Material::resolve(resource, &fetched))
}

async fn clean_up(key: &Key, resource: &ClusterSync, material: Option<Material>, context: &Context) {
    // The worker's own configuration first: its Secrets may be gone already.
    let config = match context.launcher.stop_worker(key).await {
        Some(config) => Ok(config),
        None => match material {
            Some(material) => material.configuration(holder(key, context)).map_err(|error| error.to_string()),
            None => Err("its Secrets cannot be read".to_owned()),
        },
    };
    let removed = match config {
        Ok(config) => remove_state(&config).await,
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => tracing::info!(namespace = key.namespace, name = key.name, "durable state removed"),
        Err(error) => {
            tracing::warn!(namespace = key.namespace, name = key.name, error, "durable state not removed");
            let sync_id = material::sync_id(&resource.spec, &key.uid);
            retained(&sync_id, &error, &resource.object_ref(&()), context);
        }
    }
}

fn retained(sync_id: &str, why: &str, regarding: &ObjectReference, context: &Context) {
    let note = format!("The durable state of sync {sync_id} was not removed from the target: {why}");
    context.events.say(Announcement::warning("StateRetained", note), regarding);
}

/// What the user wants now reaches a running worker although what the spec names cannot be read at present.
fn pass_on(key: &Key, resource: &ClusterSync, context: &Context) {
    let publisher = || publisher(key, &resource.metadata, resource.status.clone(), context);
    if context.launcher.state(key, &resource.spec, None) == WorkerState::Current {
        context.launcher.steer(key, course(resource), publisher);
    } else {
        // The status waits: whether the rest of this generation is in force is not known.
        context.launcher.wish(key, &asked(resource).desired);
    }
}

async fn finalizer(metadata: &ObjectMeta, present: bool, context: &Context) -> Result<(), ReconcileError> {
    set_finalizer(&context.client, &context.requests, metadata, present)
        .await
        .map_err(ReconcileError::Finalizer)
}

/// What an event is about.
fn about(metadata: &ObjectMeta) -> ObjectReference {
    ClusterSync { metadata: metadata.clone(), ..ClusterSync::default() }.object_ref(&())
}

fn publisher(
    key: &Key,
    metadata: &ObjectMeta,
    status: Option<ClusterSyncStatus>,
    context: &Context,
) -> Publisher {
    Publisher {
        client: StatusClient::new(context.client.clone(), &key.namespace),
        requests: context.requests.clone(),
        events: context.events.clone(),
        regarding: about(metadata),
        incarnation: Incarnation {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: key.uid.clone(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
        },
        written: status.unwrap_or_default(),
    }
}

fn subject(resource: &ClusterSync, state: SubjectState) -> Subject {
    Subject {
        generation: resource.metadata.generation.unwrap_or(0),
        asked: asked(resource),
        state,
        restarts: restarts_before(resource).unwrap_or(0),
        notice: None,
        behind: None,
    }
}

fn course(resource: &ClusterSync) -> Course {
    let generation = resource.metadata.generation.unwrap_or(0);
    Course { generation, asked: asked(resource), notice: None, behind: None }
}

fn restarts_before(resource: &ClusterSync) -> Option<i64> {
    resource.status.as_ref()?.worker.as_ref()?.restarts
}

fn asked(resource: &ClusterSync) -> Asked {
    Asked {
        desired: material::desired(&resource.spec),
        max_lag_seconds: material::max_lag_seconds(&resource.spec),
    }
}

/// An owner of its own for each resource: two that name one sync must not take it from each other.
fn holder(key: &Key, context: &Context) -> Holder {
    Holder { id: format!("{}/{}", context.identity, key.uid), term: Some(context.term.clone()) }
}

/// Between half of `limit` and `limit`, so that a hundred resources do not come at once.
fn jittered(limit: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = RandomState::new().hash_one(limit) % 1000;
    let share = u32::try_from(share).unwrap_or(0);
    limit / 2 + limit / 2 * share / 1000
}
