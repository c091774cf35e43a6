//! Wiring: watch resources, and bring each to what it asks for.
//!
//! A reconcile reads like this: dereference what the spec names, put the material together, decide, apply.
//! Status is written by the resource's publisher, not here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};

use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::{ClusterSync, ClusterSyncStatus, DeletionPolicy};
use crate::resource::references::references;
use crate::resource::{Asked, Material, Unusable, material};
use crate::sync::config::{Holder, LeaseTerm};

use super::cleanup::{has_finalizer, remove_state, set_finalizer};
use super::decide::{Decision, Observed, WorkerState, decide};
use super::dereference::dereference;
use super::events::{Announcement, Events};
use super::launch::{Key, Launcher};
use super::leader::Leadership;
use super::patch::{Incarnation, StatusClient};
use super::publish::{Publisher, Subject, SubjectState};
use super::requests::{RequestError, Requests};

/// A `ClusterSync`, or what could be read of it.
type Guarded = DeserializeGuard<ClusterSync>;

/// Resources reconciled at a time: a stop may take seconds, and the others should not wait for it.
const CONCURRENCY: u16 = 16;

/// Secrets are looked at again within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(55);

/// What is missing is looked for more often.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(15);

/// How soon workers whose resource is gone are stopped: kube reconciles no object that has left its store.
const SWEEP: Duration = Duration::from_secs(10);

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
        let attempts = Mutex::default();
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

    fn succeeded(&self, uid: &str) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
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

/// Watch one namespace (none: all) until cancelled.
pub async fn watch(namespace: Option<String>, context: Arc<Context>, stop: CancellationToken) {
    let client = context.client.clone();
    let api: Api<Guarded> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let (store, writer) = reflector::store();
    let mut complained = false;
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .inspect(move |event| complain(event.as_ref().err(), &mut complained))
        .touched_objects()
        // Generation alone drops finalizer changes; status writes must not bring an object back.
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
            PredicateConfig::default(),
        );
    let (wake, woken) = mpsc::channel::<ObjectRef<Guarded>>(256);
    let woken = futures::stream::unfold(woken, |mut woken| async {
        woken.recv().await.map(|object| (object, woken))
    });
    let sweeper = sweep(namespace, store.clone(), context.clone(), wake);
    let stopped = stop.clone();
    let reconciles = Controller::for_stream(changes, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(woken)
        .graceful_shutdown_on(async move { stopped.cancelled().await })
        .run(reconcile, retry, context)
        .for_each(|result| async {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, object)) = result {
                tracing::warn!(%error, %object, "reconcile failed; it is tried again");
            }
        });
    tokio::select! {
        () = reconciles => {}
        () = sweeper => {}
    }
}

/// Say once, not with every retry, that the watch does not work.
fn complain(error: Option<&watcher::Error>, complained: &mut bool) {
    let Some(error) = error else {
        *complained = false;
        return;
    };
    if std::mem::replace(complained, true) {
        return;
    }
    let missing = matches!(error,
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404);
    if missing {
        tracing::warn!("the CustomResourceDefinition is not installed; waiting for it");
    } else {
        tracing::warn!(%error, "cannot watch ClusterSyncs; trying again");
    }
}

/// Stop workers whose resource is gone; wake the reconcile of those whose worker ended by itself.
async fn sweep(
    namespace: Option<String>,
    store: Store<Guarded>,
    context: Arc<Context>,
    wake: mpsc::Sender<ObjectRef<Guarded>>,
) {
    if store.wait_until_ready().await.is_err() {
        return std::future::pending().await;
    }
    loop {
        sleep(SWEEP).await;
        let ours = |key: &Key| namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        for key in context.launcher.keys().into_iter().filter(ours) {
            let object = store.get(&ObjectRef::new(&key.name).within(&key.namespace));
            let present = object.is_some_and(|object| object.meta().uid.as_deref() == Some(&key.uid));
            if !present {
                tracing::info!(
                    namespace = key.namespace,
                    name = key.name,
                    "resource deleted: stopping its sync"
                );
                context.launcher.forget(&key).await;
                context.succeeded(&key.uid);
            }
        }
        for key in context.launcher.ended().into_iter().filter(ours) {
            // A full queue is no loss: the next sweep finds the same.
            let _ = wake.try_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
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

#[expect(clippy::needless_pass_by_value, reason = "kube's signature")]
fn retry(object: Arc<Guarded>, _: &ReconcileError, context: Arc<Context>) -> Action {
    Action::requeue(context.failed(object.meta().uid.as_deref().unwrap_or_default()))
}

async fn bring_about(key: &Key, resource: &ClusterSync, context: &Context) -> Result<Action, ReconcileError> {
    let spec = &resource.spec;
    let (material, unusable) = match material_of(key, resource, context).await? {
        Ok(material) => (Some(material), None),
        Err(unusable) => (None, Some(unusable)),
    };
    let worker = context.launcher.state(key, material.as_ref());
    let observed = Observed {
        deleted: resource.metadata.deletion_timestamp.is_some(),
        has_finalizer: has_finalizer(&resource.metadata),
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
    let looked_at_again = Action::requeue(jittered(LOOK_AGAIN));
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
            let config = match material.configuration(holder(context)) {
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
            launcher.start(key, config, material, subject, publisher).await;
            Ok(looked_at_again)
        }
        Decision::Steer => {
            steer(key, resource, None, context);
            Ok(looked_at_again)
        }
        Decision::KeepRunning(unusable) => {
            let notice = format!("The sync runs on with what it has read before: {unusable}");
            steer(key, resource, Some(notice), context);
            Ok(Action::requeue(jittered(LOOK_FOR_MISSING)))
        }
        Decision::Wait(unusable) => {
            launcher.stop_worker(key).await;
            launcher.publish(key, subject(SubjectState::Waiting(unusable)), publisher);
            Ok(Action::requeue(jittered(LOOK_FOR_MISSING)))
        }
        Decision::Refuse(unusable) => refuse(key, resource, unusable, context).await,
        Decision::CleanUp => {
            clean_up(key, resource, material, context).await;
            launcher.forget(key).await;
            finalizer(&resource.metadata, false, context).await?;
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
        Ok(Action::requeue(jittered(LOOK_AGAIN)))
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
        context.launcher.forget(key).await;
        if has_finalizer(metadata) {
            finalizer(metadata, false, context).await?;
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
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        asked: Asked::default(),
        state: SubjectState::Undecodable(message),
        restarts: 0,
        notice: None,
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
            Some(material) => material.configuration(holder(context)).map_err(|error| error.to_string()),
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
            let note =
                format!("The durable state of sync {sync_id} could not be removed from the target: {error}");
            context.events.say(Announcement::warning("StateRetained", note), &resource.object_ref(&()));
        }
    }
}

fn steer(key: &Key, resource: &ClusterSync, notice: Option<String>, context: &Context) {
    let version = resource.metadata.resource_version.as_deref().unwrap_or_default();
    let generation = resource.metadata.generation.unwrap_or(0);
    context.launcher.steer(key, generation, version, &asked(resource), notice);
}

async fn finalizer(metadata: &ObjectMeta, present: bool, context: &Context) -> Result<(), ReconcileError> {
    set_finalizer(&context.client, &context.requests, metadata, present)
        .await
        .map_err(ReconcileError::Finalizer)
}

fn publisher(
    key: &Key,
    metadata: &ObjectMeta,
    status: Option<ClusterSyncStatus>,
    context: &Context,
) -> Publisher {
    let stub = ClusterSync { metadata: metadata.clone(), ..ClusterSync::default() };
    Publisher {
        client: StatusClient::new(context.client.clone(), &key.namespace),
        requests: context.requests.clone(),
        events: context.events.clone(),
        regarding: stub.object_ref(&()),
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
        resource_version: resource.metadata.resource_version.clone().unwrap_or_default(),
        asked: asked(resource),
        state,
        restarts: restarts_before(resource).unwrap_or(0),
        notice: None,
    }
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

fn holder(context: &Context) -> Holder {
    Holder { id: context.identity.clone(), term: Some(context.term.clone()) }
}

/// Between half of `limit` and `limit`, so that a hundred resources do not come at once.
fn jittered(limit: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = RandomState::new().hash_one(limit) % 1000;
    let share = u32::try_from(share).unwrap_or(0);
    limit / 2 + limit / 2 * share / 1000
}
