//! What goes wrong around a sync: rights that are taken away, Secrets that vanish, an operator that starts again.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::lab::control_plane::ControlPlane;
use crate::site::{CRD, Operator, Site, cluster_sync, condition, established, fill, secrets, sets, succeed};

/// Have what a resource names looked at now.
fn look_again(site: &Site, name: &str, token: &str) {
    site.kubectl(&["annotate", "csync", name, "--overwrite", &format!("look=again-{token}")]);
}

/// Take the rights to a kind of object away from a role.
fn forbid(site: &Site, role: &str, resource: &str) {
    let mut role = site.json(&["get", "role", role]);
    let rules = role["rules"].as_array_mut().unwrap();
    for rule in rules.iter_mut() {
        rule["resources"].as_array_mut().unwrap().retain(|name| name != resource);
    }
    rules.retain(|rule| !rule["resources"].as_array().unwrap().is_empty());
    let rules = json!([{"op": "replace", "path": "/rules", "value": role["rules"]}]).to_string();
    let name = role["metadata"]["name"].as_str().unwrap();
    site.kubectl(&["patch", "role", name, "--type=json", "-p", &rules]);
    // The authorizer has a cache.
    std::thread::sleep(Duration::from_secs(1));
}

fn warnings(object: &Value) -> String {
    object["status"]["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_may_not_be_read_stops_neither_steering_nor_deletion() {
    let site = Site::new("forbidden");
    let (source, _) = secrets(&site).await;
    fill(&source, "forbidden", 20).await;
    let operator = site.operator(&[]);
    let mut sync = cluster_sync("sync", "forbidden");
    sync["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&sync));
    site.phase("sync", "Streaming");

    forbid(&site, "clustersync-operator", "secrets");
    look_again(&site, "sync", "1");
    let told =
        site.until("sync", "told of the right", |object| warnings(object).contains("may not get Secret"));
    assert!(warnings(&told).contains("deploy/base/role.yaml"), "{told:#}");
    assert_eq!(condition(&told, "Ready")["status"], "True", "it streams as before");
    site.set_state("sync", "Paused");
    site.phase("sync", "Paused");

    // Another one waits, and says for what.
    succeed(site.apply(&cluster_sync("other", "other")));
    let waiting = site.reason("other", "CredentialsMissing");
    let message = condition(&waiting, "Ready")["message"].as_str().unwrap();
    assert!(message.contains("The operator may not get Secret"), "{message}");
    let mut doomed = cluster_sync("doomed", "doomed");
    doomed["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&doomed));
    site.reason("doomed", "CredentialsMissing");

    for name in ["sync", "doomed"] {
        site.kubectl(&["delete", "csync", name, "--wait=false"]);
        site.gone(name);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(operator.log().contains("durable state removed"), "by the worker's own credentials");
    assert!(!site.events("sync").contains(&"StateRetained".to_owned()));
    assert!(site.events("doomed").contains(&"StateRetained".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_not_in_force_is_not_ready() {
    let site = Site::new("behind");
    let (source, _) = secrets(&site).await;
    fill(&source, "behind", 20).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("sync", "behind")));
    let before = site.phase("sync", "Streaming");
    let patch = r#"{"spec":{"source":{"uriSecretRef":{"name":"not-yet"}}}}"#;
    site.kubectl(&["patch", "csync", "sync", "--type=merge", "-p", patch]);
    let behind = site.reason("sync", "CredentialsMissing");
    assert_eq!(condition(&behind, "Ready")["observedGeneration"], behind["metadata"]["generation"]);
    assert_eq!(condition(&behind, "Ready")["status"], "False");
    assert_eq!(condition(&behind, "Reconciling")["status"], "True");
    assert_eq!(behind["status"]["phase"], "Streaming", "the worker runs on");
    assert_eq!(behind["status"]["worker"]["epoch"], before["status"]["worker"]["epoch"]);
    site.secret("not-yet", &sets().await.0.uri());
    look_again(&site, "sync", "1");
    let after = site.until("sync", "ready", |object| condition(object, "Ready")["status"] == "True");
    assert!(after["status"]["worker"]["epoch"].as_i64() > before["status"]["worker"]["epoch"].as_i64());
    assert!(after["status"]["warnings"].is_null(), "{after:#}");
    // The lag above which a sync is late is no reason to restart it.
    let log = operator.log();
    let patch = r#"{"spec":{"replication":{"maxLagSeconds":7}}}"#;
    site.kubectl(&["patch", "csync", "sync", "--type=merge", "-p", patch]);
    let last = site.phase("sync", "Streaming");
    assert_eq!(last["status"]["worker"], after["status"]["worker"]);
    let restarts = |log: &str| log.matches("configuration changed").count();
    assert_eq!(restarts(&operator.log()), restarts(&log));
}

fn since(object: &Value) -> [Value; 2] {
    ["Ready", "Completed"].map(|kind| condition(object, kind)["lastTransitionTime"].clone())
}

fn shows(operator: &Operator, name: &str, phase: &str) {
    let line = format!(r#"clustersync_phase{{name="{name}""#);
    let (mut on, mut text) = (String::new(), String::new());
    for _ in 0..50 {
        text = operator.http("/metrics");
        let own = text.lines().filter(|text| text.starts_with(&line));
        on = own.filter(|text| text.ends_with(" 1")).collect();
        if on.contains(&format!(r#"phase="{phase}""#)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{name} is not {phase} in the metrics: {on}\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_completed_stays_so_when_the_operator_starts_again() {
    let site = Site::new("completed");
    let (source, _) = secrets(&site).await;
    fill(&source, "completed", 20).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("done", "completed")));
    site.phase("done", "Streaming");
    site.set_state("done", "Completed");
    let done = site.until("done", "completed", |object| condition(object, "Completed")["status"] == "True");
    // Times are whole seconds: a flip would show.
    std::thread::sleep(Duration::from_millis(1100));
    drop(operator);
    let operator = site.operator(&[]);
    let epoch = |object: &Value| object["status"]["worker"]["epoch"].as_i64();
    let again = site.until("done", "read by a new worker", |object| epoch(object) > epoch(&done));
    assert_eq!(since(&again), since(&done));
    assert_eq!(again["status"]["phase"], "Completed");
    std::thread::sleep(Duration::from_millis(1100));
    drop(operator);

    // After a cutover people remove what is not needed any more.
    site.kubectl(&["delete", "secret", "source", "target"]);
    let operator = site.operator(&[]);
    operator.until_log("leading");
    shows(&operator, "done", "Completed");
    look_again(&site, "done", "1");
    std::thread::sleep(Duration::from_secs(5));
    let last = site.get("done");
    assert_eq!((since(&last), &last["status"]["phase"]), (since(&done), &json!("Completed")), "{last:#}");
    assert_eq!(condition(&last, "Ready")["status"], "True");
    assert!(!site.events("done").contains(&"CredentialsMissing".to_owned()));
}

#[test]
fn a_resource_without_a_worker_is_in_the_metrics() {
    let site = Site::new("workerless");
    let operator = site.operator(&[]);
    site.secret("source", "mongodb://a.example/?tls=perhaps");
    succeed(site.apply(&cluster_sync("waiting", "a")));
    site.reason("waiting", "CredentialsMissing");
    site.secret("target", "mongodb://b.example");
    succeed(site.apply(&cluster_sync("refused", "b")));
    site.reason("refused", "InvalidConfiguration");
    shows(&operator, "refused", "Stalled");
    site.kubectl(&["delete", "secret", "target"]);
    look_again(&site, "waiting", "1");
    site.reason("waiting", "CredentialsMissing");
    shows(&operator, "waiting", "Pending");
    site.kubectl(&["delete", "csync", "waiting", "refused"]);
    operator.until_log("resource deleted");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!operator.http("/metrics").contains("clustersync_phase{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_durable_state_is_removed_once() {
    let site = Site::new("removed-once");
    let (source, _) = secrets(&site).await;
    fill(&source, "removed-once", 20).await;
    let operator = site.operator(&[]);
    let mut sync = cluster_sync("sync", "removed-once");
    sync["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&sync));
    site.phase("sync", "Streaming");
    // The last words of the status change the object just before its finalizer is taken off.
    let items = source.database("removed-once").collection::<Document>("items");
    for n in 0..20 {
        items.insert_one(doc! {"_id": 1000 + n}).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    site.kubectl(&["delete", "csync", "sync", "--wait=false"]);
    site.gone("sync");
    std::thread::sleep(Duration::from_secs(2));
    let log = operator.log();
    assert_eq!(log.matches("durable state removed").count(), 1, "{log}");
    assert!(!log.contains("finalizer cannot be changed"), "{log}");
    assert!(!site.events("sync").contains(&"StateRetained".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_the_removal_does_not_repeat_it() {
    let site = Site::new("changed-meanwhile");
    secrets(&site).await;
    site.secret("target", "mongodb://127.0.0.1:1/?replicaSet=x&serverSelectionTimeoutMS=500");
    let operator = site.operator(&[]);
    let mut sync = cluster_sync("sync", "changed-meanwhile");
    sync["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&sync));
    site.reason("sync", "TargetUnreachable");
    site.kubectl(&["delete", "csync", "sync", "--wait=false"]);
    // It tries for half a minute.
    std::thread::sleep(Duration::from_secs(10));
    site.kubectl(&["label", "csync", "sync", "changed=meanwhile"]);
    site.gone("sync");
    let log = operator.log();
    assert_eq!(log.matches("durable state not removed").count(), 1, "{log}");
    assert!(!log.contains("finalizer cannot be changed"), "{log}");
}

#[test]
fn a_resource_that_cannot_be_read_says_what_it_leaves_behind() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    // As a later version might have it: anything goes.
    let print = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let json = succeed(plane.kubectl_as(&plane.kubeconfig, &print, CRD));
    let mut definition: Value = serde_json::from_str(&json).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    succeed(plane.apply(&definition.to_string()));
    established(plane);
    let site = Site::on(plane, "left-behind");
    let _operator = site.operator(&[]);
    let mut odd = cluster_sync("odd", "odd");
    odd["spec"]["state"] = json!("Sideways");
    odd["metadata"]["finalizers"] = json!(["clustersync.dev/durable-state"]);
    succeed(site.apply(&odd));
    site.reason("odd", "Undecodable");
    site.kubectl(&["delete", "csync", "odd", "--wait=false"]);
    site.gone("odd");
    std::thread::sleep(Duration::from_secs(1));
    assert!(site.events("odd").contains(&"StateRetained".to_owned()));
}

#[test]
fn readiness_waits_for_the_first_word_of_the_election_and_not_longer() {
    let site = Site::new("unready");
    let base = site.json(&["get", "role", "clustersync-operator-leader"]);
    forbid(&site, "clustersync-operator-leader", "leases");
    let operator = site.operator(&[]);
    operator.until_log("the lease cannot be read or taken");
    assert!(operator.http("/readyz").starts_with("HTTP/1.1 503"), "{}", operator.http("/readyz"));
    assert!(operator.http("/livez").starts_with("HTTP/1.1 200"));
    let rules = json!([{"op": "replace", "path": "/rules", "value": base["rules"]}]).to_string();
    site.kubectl(&["patch", "role", "clustersync-operator-leader", "--type=json", "-p", &rules]);
    operator.until_log("leading");
    assert!(operator.http("/readyz").starts_with("HTTP/1.1 200"));
    let standby = site.operator(&[]);
    standby.until_log("serving health");
    for _ in 0..50 {
        if standby.http("/readyz").starts_with("HTTP/1.1 200") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    // Cut off later, both are as good as any other.
    forbid(&site, "clustersync-operator-leader", "leases");
    operator.until_log("reconciling rests");
    for process in [&operator, &standby] {
        assert!(process.http("/readyz").starts_with("HTTP/1.1 200"));
        assert!(process.http("/livez").starts_with("HTTP/1.1 200"));
    }
}
