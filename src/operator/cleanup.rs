//! Deletion with `deletionPolicy: Delete`: the finalizer, and what it is for.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::api::{ClusterSync, STATE_FINALIZER};
use crate::sync::lifecycle::delete_state;
use crate::sync::{Class, Error, SyncConfig};

use super::requests::{RequestError, Requests};

/// A resource whose databases are gone must not hang for longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A fresh owner record needs a moment to age.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether a resource carries our finalizer.
pub fn has_finalizer(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == STATE_FINALIZER)
}

/// Put the finalizer on or take it off. Refused by the apiserver if the object has changed meanwhile.
pub async fn set_finalizer(
    client: &Client,
    requests: &Requests,
    metadata: &ObjectMeta,
    present: bool,
) -> Result<(), RequestError> {
    let resource = ApiResource::erase::<ClusterSync>(&());
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    // Untyped, because an object that cannot be decoded must be deletable.
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let mut finalizers: Vec<String> = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != STATE_FINALIZER);
    if present {
        finalizers.push(STATE_FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }});
    let name = metadata.name.as_deref().unwrap_or_default();
    match requests.send(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(404) && !present => Ok(()),
        Err(error) => Err(error),
    }
}

/// Remove the durable state, trying for a while.
pub async fn remove_state(config: &SyncConfig) -> Result<(), String> {
    let mut last = None;
    let tries = async {
        loop {
            match delete_state(config).await {
                Ok(()) => return Ok(()),
                Err(error) if error.class() == Class::Stop => return Err(error),
                Err(error) => last = Some(error),
            }
            sleep(PAUSE).await;
        }
    };
    let done: Result<Result<(), Error>, _> = timeout(GIVE_UP_AFTER, tries).await;
    match done {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(last.map_or_else(|| "no answer".to_owned(), |error| error.to_string())),
    }
}
