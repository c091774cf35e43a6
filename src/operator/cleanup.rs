//! Deletion with `deletionPolicy: Delete`: the finalizer, and what it is for.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::api::{ClusterSync, STATE_FINALIZER};
use crate::sync::lifecycle::delete_state;
use crate::sync::{Class, Error, SyncConfig};

use super::requests::{RequestError, Requests};

/// A resource whose databases are gone must not hang for longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A fresh owner record needs a moment to age.
const PAUSE: Duration = Duration::from_secs(2);

/// Versions of an object that is being deleted that are tried.
const TRIES: u32 = 5;

/// Whether a resource carries our finalizer.
pub fn has_finalizer(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == STATE_FINALIZER)
}

/// Put the finalizer on or take it off. Refused by the apiserver if the object has changed meanwhile; but from one that is
/// being deleted, which nothing can undo, it is taken off all the same.
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
    let name = metadata.name.as_deref().unwrap_or_default();
    let mut read = metadata.clone();
    let mut tries = 0;
    loop {
        tries += 1;
        let patch = Patch::Merge(with_finalizer(&read, present));
        let error = match requests.send(api.patch_metadata(name, &PatchParams::default(), &patch)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(404) && !present => return Ok(()),
            Err(error) => error,
        };
        if error.code() != Some(409) || present || read.deletion_timestamp.is_none() || tries >= TRIES {
            return Err(error);
        }
        // Most likely the status was written once more.
        match requests.send(api.get_metadata(name)).await {
            Ok(object) if object.metadata.uid == metadata.uid => read = object.metadata,
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        }
        if !has_finalizer(&read) {
            return Ok(());
        }
    }
}

fn with_finalizer(metadata: &ObjectMeta, present: bool) -> Value {
    let mut finalizers: Vec<String> = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != STATE_FINALIZER);
    if present {
        finalizers.push(STATE_FINALIZER.to_owned());
    }
    json!({ "metadata": {
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
        "finalizers": finalizers,
    }})
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
