//! Read what a spec names: Secrets and ConfigMaps of the same namespace, by name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::GetParams;
use kube::{Api, Client};

use crate::api::ClusterSyncSpec;
use crate::resource::references::references;
use crate::resource::{Content, Fetched, Reference};

use super::requests::{RequestError, Requests};

/// Read them all. What does not exist is not in the answer, what the operator may not get is marked in it; whether that
/// matters is for the next step.
pub async fn dereference(
    client: &Client,
    requests: &Requests,
    namespace: &str,
    spec: &ClusterSyncSpec,
    require_secret_label: bool,
) -> Result<Fetched, RequestError> {
    let mut found = BTreeMap::new();
    let mut forbidden = BTreeSet::new();
    for reference in references(spec) {
        let content = match &reference {
            Reference::Secret(name) => secret(client, requests, namespace, name).await,
            Reference::ConfigMap(name) => config_map(client, requests, namespace, name).await,
        };
        match content {
            Ok(content) => drop(found.insert(reference, content)),
            Err(error) if error.code() == Some(404) => {}
            Err(error) if error.code() == Some(403) => {
                forbidden.insert(reference);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Fetched::new(found, require_secret_label).with_forbidden(forbidden))
}

/// Out of the apiserver's cache: a minute of delay is promised anyway, and etcd is spared.
fn cached() -> GetParams {
    GetParams::any()
}

async fn secret(
    client: &Client,
    requests: &Requests,
    namespace: &str,
    name: &str,
) -> Result<Content, RequestError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = requests.send(api.get_with(name, &cached())).await?;
    Ok(Content {
        labels: secret.metadata.labels.unwrap_or_default(),
        data: secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, ByteString(value))| (key, value))
            .collect(),
    })
}

async fn config_map(
    client: &Client,
    requests: &Requests,
    namespace: &str,
    name: &str,
) -> Result<Content, RequestError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let map = requests.send(api.get_with(name, &cached())).await?;
    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, ByteString(value))| (key, value));
    Ok(Content { labels: map.metadata.labels.unwrap_or_default(), data: text.chain(binary).collect() })
}
