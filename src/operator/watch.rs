//! Watching resources: what changes is reconciled, what is gone is stopped.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Resource};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::controller::{Context, Guarded, reconcile, retry};
use super::launch::Key;

/// Resources reconciled at a time: a stop may take seconds, and the others should not wait for it.
const CONCURRENCY: u16 = 16;

/// How soon workers whose resource is gone are stopped: kube reconciles no object that has left its store.
const SWEEP: Duration = Duration::from_secs(10);

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
        let is_gone = |key: &Key| {
            let object = store.get(&ObjectRef::new(&key.name).within(&key.namespace));
            object.is_none_or(|object| object.meta().uid.as_deref() != Some(&key.uid))
        };
        let gone = context.launcher.keys().into_iter().filter(|key| ours(key) && is_gone(key));
        // At the same time: each may take seconds.
        join_all(gone.map(|key| forget(key, &context))).await;
        for key in context.launcher.ended().into_iter().filter(ours) {
            // A full queue is no loss: the next sweep finds the same.
            let _ = wake.try_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

async fn forget(key: Key, context: &Context) {
    tracing::info!(namespace = key.namespace, name = key.name, "resource deleted: stopping its sync");
    context.launcher.forget(&key).await;
    context.succeeded(&key.uid);
}
