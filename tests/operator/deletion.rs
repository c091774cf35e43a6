//! A resource goes; its state stays or goes with it; the data stays.

use mongodb::Client;
use mongodb::bson::{Document, doc};

use crate::site::{Site, cluster_sync, condition, count, fill, plane, secrets, succeed};

/// Documents of the durable state that belong to a sync.
async fn state(target: &Client, id: &str) -> u64 {
    let db = target.database("clustersync");
    let mut found = 0;
    for name in db.list_collection_names().await.unwrap() {
        let mut cursor = db.collection::<Document>(&name).find(doc! {}).await.unwrap();
        while cursor.advance().await.unwrap() {
            found += u64::from(format!("{:?}", cursor.deserialize_current().unwrap()).contains(id));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_removes_the_state_and_retain_keeps_it() {
    let site = Site::new("deletion");
    let (source, target) = secrets(&site).await;
    let operator = site.operator(&[]);
    for (name, policy) in [("kept", "Retain"), ("removed", "Delete")] {
        fill(&source, name, 50).await;
        let mut sync = cluster_sync(name, name);
        sync["spec"]["deletionPolicy"] = policy.into();
        succeed(site.apply(&sync));
    }
    for name in ["kept", "removed"] {
        let object = site.phase(name, "Streaming");
        let id = object["status"]["syncID"].as_str().unwrap().to_owned();
        assert!(state(&target, &id).await > 0);
        assert_eq!(
            object["metadata"]["finalizers"].is_array(),
            name == "removed",
            "a finalizer only with work to do"
        );
        site.kubectl(&["delete", "csync", name, "--wait=false"]);
        site.gone(name);
        if name == "removed" {
            assert_eq!(state(&target, &id).await, 0);
        } else {
            operator.until_log("resource deleted: stopping its sync");
            assert!(state(&target, &id).await > 0);
        }
        assert_eq!(count(&target, name).await, 50, "the copied data stays");
        assert!(!operator.http("/metrics").contains(&format!(r#"name="{name}""#)), "its series are gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_does_not_wait_for_a_target_that_is_gone() {
    let site = Site::new("unreachable");
    secrets(&site).await;
    site.secret("target", "mongodb://127.0.0.1:1/?replicaSet=x&serverSelectionTimeoutMS=500");
    let _operator = site.operator(&[]);
    let mut sync = cluster_sync("gone", "gone");
    sync["spec"]["deletionPolicy"] = "Delete".into();
    succeed(site.apply(&sync));
    let waiting = site.reason("gone", "TargetUnreachable");
    assert_eq!(condition(&waiting, "Stalled")["status"], "False", "it is tried again");
    site.kubectl(&["delete", "csync", "gone", "--wait=false"]);
    site.gone("gone");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(site.events("gone").contains(&"StateRetained".to_owned()));
}

/// The rights of an operator that may work everywhere do not go with one namespace.
fn rights_everywhere(site: &Site) {
    let role = site.json(&["get", "role", "clustersync-operator"]);
    let name = serde_json::json!({"name": format!("{}-everywhere", site.namespace)});
    let group = "rbac.authorization.k8s.io";
    let account = serde_json::json!({
        "kind": "ServiceAccount", "name": "clustersync-operator", "namespace": site.namespace,
    });
    let role = serde_json::json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": name, "rules": role["rules"],
    });
    let binding = serde_json::json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": name,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name["name"]}, "subjects": [account],
    });
    for object in [role, binding] {
        succeed(site.plane.apply(&object.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_ends_takes_its_syncs_with_it() {
    let home = Site::new("everywhere");
    rights_everywhere(&home);
    let site = Site::new("ending");
    let (source, target) = secrets(&site).await;
    let operator = home.operator(&["--watch-namespaces=ending"]);
    fill(&source, "ending", 20).await;
    let mut sync = cluster_sync("ending", "ending");
    sync["spec"]["deletionPolicy"] = "Delete".into();
    succeed(site.apply(&sync));
    let id = site.phase("ending", "Streaming")["status"]["syncID"].as_str().unwrap().to_owned();
    // Its Secrets may go first, and no event can be written any more.
    let _controllers = plane().controllers("namespace-controller");
    site.kubectl(&["delete", "secret", "--all"]);
    let ended = plane().try_kubectl(&["delete", "namespace", "ending", "--timeout=60s"]);
    assert!(ended.status.success(), "{}\n{}", site.kubectl(&["get", "csync", "-o", "yaml"]), operator.log());
    assert_eq!(state(&target, &id).await, 0);
    assert_eq!(count(&target, "ending").await, 20, "the copied data stays");
}
