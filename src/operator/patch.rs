//! Status writes: server-side apply under two managers, refused by the apiserver when the object is not the
//! one that was read.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::reflector::Lookup;
use serde_json::json;

use crate::api::conditions::{CONTROLLER_MANAGER, WORKER_MANAGER};
use crate::api::{ClusterSync, ClusterSyncStatus, GROUP, VERSION};

use super::requests::{RequestError, send_now};

/// Who owns a part of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// observedGeneration and the conditions of the controller.
    Controller,
    /// The rest.
    Worker,
}

impl Manager {
    fn name(self) -> &'static str {
        match self {
            Self::Controller => CONTROLLER_MANAGER,
            Self::Worker => WORKER_MANAGER,
        }
    }
}

/// One incarnation of a resource, at one version.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID: another object under the same name is not ours to write to.
    pub uid: String,
    /// Version last seen.
    pub resource_version: String,
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// Done.
    Done,
    /// The object has changed: read it again.
    Conflict,
    /// The object is gone, or another has its name.
    Gone,
}

/// What is there now.
#[derive(Debug)]
pub enum Present {
    /// The same object; its version was taken over. With the worker's part of the status.
    Same(Box<ClusterSyncStatus>),
    /// The object is gone, or another has its name.
    Gone,
}

/// The status of one resource, as an API client sees it. Untyped, so that a resource that cannot be decoded
/// can be told so.
#[derive(Clone, Debug)]
pub struct StatusClient {
    api: Api<DynamicObject>,
}

impl StatusClient {
    /// For the resources of a namespace.
    pub fn new(client: kube::Client, namespace: &str) -> Self {
        let resource = ApiResource::erase::<ClusterSync>(&());
        Self { api: Api::namespaced_with(client, namespace, &resource) }
    }

    /// Apply one manager's whole set. The caller has had its turn.
    pub async fn apply(
        &self,
        incarnation: &mut Incarnation,
        manager: Manager,
        status: &ClusterSyncStatus,
    ) -> Result<Written, RequestError> {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": ClusterSync::kind(&()),
            "metadata": {
                "name": incarnation.name,
                "namespace": incarnation.namespace,
                // Refuses a zombie: no two objects ever have a version in common. A UID here would be ignored,
                // the status subresource takes its metadata from what is stored.
                "resourceVersion": incarnation.resource_version,
            },
            "status": status,
        });
        let params = PatchParams::apply(manager.name()).force();
        match send_now(self.api.patch_status(&incarnation.name, &params, &Patch::Apply(&object))).await {
            Ok(object) => {
                incarnation.resource_version = object.metadata.resource_version.unwrap_or_default();
                Ok(Written::Done)
            }
            Err(error) => match error.code() {
                Some(409) => Ok(Written::Conflict),
                Some(404) => Ok(Written::Gone),
                _ => Err(error),
            },
        }
    }

    /// Read the object again.
    pub async fn refresh(&self, incarnation: &mut Incarnation) -> Result<Present, RequestError> {
        let object = match send_now(self.api.get(&incarnation.name)).await {
            Ok(object) => object,
            Err(error) if error.code() == Some(404) => return Ok(Present::Gone),
            Err(error) => return Err(error),
        };
        if object.metadata.uid.as_deref() != Some(&incarnation.uid) {
            return Ok(Present::Gone);
        }
        incarnation.resource_version = object.metadata.resource_version.unwrap_or_default();
        let status = object.data.get("status").cloned().unwrap_or_default();
        Ok(Present::Same(Box::new(serde_json::from_value(status).unwrap_or_default())))
    }
}
