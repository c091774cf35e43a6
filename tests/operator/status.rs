//! Status writes on the real apiserver: whose they are, and which it refuses.

use clustersync::api::ClusterSyncStatus;
use clustersync::operator::patch::{Incarnation, Manager, Present, StatusClient, Written};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::site::{Site, cluster_sync, succeed};

async fn client(site: &Site) -> StatusClient {
    crate::lab::crypto();
    let kubeconfig = Kubeconfig::read_from(&site.plane.kubeconfig).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    StatusClient::new(kube::Client::try_from(config).unwrap(), &site.namespace)
}

fn incarnation(site: &Site, object: &Value) -> Incarnation {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    Incarnation {
        namespace: site.namespace.clone(),
        name: text("name"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
    }
}

fn status(fields: Value) -> ClusterSyncStatus {
    serde_json::from_value(fields).unwrap()
}

#[tokio::test]
async fn each_manager_keeps_to_its_own_fields() {
    let site = Site::new("managers");
    let client = client(&site).await;
    succeed(site.apply(&cluster_sync("shared", "shared")));
    let mut object = incarnation(&site, &site.get("shared"));
    let writes = [
        (Manager::Worker, json!({"phase": "Cloning", "syncID": "a", "warnings": ["w"]})),
        (Manager::Controller, json!({"observedGeneration": 1})),
        (Manager::Worker, json!({"phase": "Streaming", "syncID": "a"})),
    ];
    for (manager, fields) in writes {
        let written = client.apply(&mut object, manager, &status(fields)).await.unwrap();
        assert!(matches!(written, Written::Done), "{written:?}");
    }
    let expected = json!({"observedGeneration": 1, "phase": "Streaming", "syncID": "a"});
    assert_eq!(site.get("shared")["status"], expected);
}

#[tokio::test]
async fn what_slows_a_sync_down_is_shown_while_it_does() {
    let site = Site::new("throttling");
    let client = client(&site).await;
    let mut sync = cluster_sync("slow", "slow");
    sync["spec"]["limits"] = json!({"maxSourceLatencyMs": 50, "maxReplicationLagSeconds": 5});
    succeed(site.apply(&sync));
    let mut object = incarnation(&site, &site.get("slow"));
    let throttling = json!({
        "reason": "TargetReplicationLag",
        "pacePercent": 3,
        "since": "2026-01-01T00:00:00Z",
        "message": "replication on the target is 9 s behind",
    });
    let slowed = status(json!({"phase": "Streaming", "throttling": throttling}));
    assert!(matches!(client.apply(&mut object, Manager::Worker, &slowed).await.unwrap(), Written::Done));
    assert_eq!(site.get("slow")["status"]["throttling"], throttling);
    let full = status(json!({"phase": "Streaming"}));
    assert!(matches!(client.apply(&mut object, Manager::Worker, &full).await.unwrap(), Written::Done));
    assert!(site.get("slow")["status"]["throttling"].is_null());
}

#[tokio::test]
async fn a_zombie_writes_neither_on_a_newer_version_nor_on_another_object() {
    let site = Site::new("zombies");
    let client = client(&site).await;
    let sync = cluster_sync("same", "same");
    succeed(site.apply(&sync));
    let mut stale = incarnation(&site, &site.get("same"));
    let old = status(json!({"phase": "Streaming"}));

    site.set_state("same", "Paused");
    let written = client.apply(&mut stale, Manager::Worker, &old).await.unwrap();
    assert!(matches!(written, Written::Conflict), "{written:?}");
    assert!(matches!(client.refresh(&mut stale).await.unwrap(), Present::Same(_)));

    site.kubectl(&["delete", "csync", "same"]);
    let written = client.apply(&mut stale, Manager::Worker, &old).await.unwrap();
    assert!(!matches!(written, Written::Done), "{written:?}");
    succeed(site.apply(&sync));
    let written = client.apply(&mut stale, Manager::Worker, &old).await.unwrap();
    assert!(matches!(written, Written::Conflict), "{written:?}");
    // Reading it again must not lead it to the new object.
    assert!(matches!(client.refresh(&mut stale).await.unwrap(), Present::Gone));
    assert!(site.get("same")["status"].is_null());
}
