//! A sync's life as its resource tells it.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use crate::lab::compare::{Judge, compare};
use crate::site::{Site, cluster_sync, condition, count, fill, secrets, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn clone_stream_pause_resume_complete() {
    let site = Site::new("life");
    let (source, target) = secrets(&site).await;
    fill(&source, "life", 3000).await;
    let items = source.database("life").collection::<Document>("items");
    let _operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("life", "life")));

    let streaming = site.phase("life", "Streaming");
    for (kind, status) in [
        ("Ready", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
        ("Completed", "False"),
        ("InitialSyncComplete", "True"),
        ("SourceConnected", "True"),
        ("TargetConnected", "True"),
    ] {
        assert_eq!(condition(&streaming, kind)["status"], status, "{kind}: {streaming:#}");
    }
    let status = &streaming["status"];
    assert_eq!(status["source"]["replicaSet"], "src");
    assert_eq!(status["initialSync"]["documents"], 3000);
    assert_eq!(status["syncID"], streaming["metadata"]["uid"]);
    assert!(status["worker"]["epoch"].as_i64().unwrap() > 0);
    let managers: Vec<&str> = streaming["metadata"]["managedFields"]
        .as_array()
        .map(|all| {
            all.iter()
                .filter(|m| m["subresource"] == "status")
                .filter_map(|m| m["manager"].as_str())
                .collect()
        })
        .unwrap_or_default();
    assert!(managers.is_empty() || managers.len() == 2, "{managers:?}");

    items.insert_one(doc! {"_id": 5000}).await.unwrap();
    for _ in 0..100 {
        if count(&target, "life").await == 3001 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(count(&target, "life").await, 3001);

    site.set_state("life", "Paused");
    let paused = site.phase("life", "Paused");
    assert_eq!(condition(&paused, "Ready")["reason"], "Paused");
    items.insert_one(doc! {"_id": 5001}).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count(&target, "life").await, 3001, "paused");
    site.set_state("life", "Running");
    site.phase("life", "Streaming");

    site.set_state("life", "Completed");
    let completed = site.phase("life", "Completed");
    assert_eq!(condition(&completed, "Completed")["status"], "True");
    assert_eq!(condition(&completed, "Ready")["status"], "True");
    assert!(completed["status"]["completion"]["committedAt"].is_string());
    let judge = Judge { databases: vec!["life".to_owned()], before_completion: false };
    let differences = compare(&source, &target, &judge).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let back = r#"{"spec": {"state": "Running"}}"#;
    let refused =
        site.plane.try_kubectl(&["-n", "life", "patch", "csync", "life", "--type=merge", "-p", back]);
    assert!(!refused.status.success(), "a committed cutover is final");
    // Events are sent behind the status.
    std::thread::sleep(Duration::from_secs(1));
    let events = site.events("life");
    for reason in ["Streaming", "Paused", "Completed"] {
        assert!(events.iter().any(|event| event == reason), "{reason} is not in {events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_resource_adopts_by_sync_id() {
    let site = Site::new("adopt");
    let (source, target) = secrets(&site).await;
    fill(&source, "adopt", 500).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("first", "adopt")));
    let first = site.phase("first", "Streaming");
    site.kubectl(&["delete", "csync", "first"]);
    operator.until_log("resource deleted: stopping its sync");
    fill(&source, "adopt2", 1).await;
    source.database("adopt").collection::<Document>("items").insert_one(doc! {"_id": 9000}).await.unwrap();

    let mut second = cluster_sync("second", "adopt");
    second["spec"]["syncID"] = first["status"]["syncID"].clone();
    succeed(site.apply(&second));
    // Without the adopted state the target's data would be refused.
    let second = site.phase("second", "Streaming");
    assert_eq!(second["status"]["initialSync"]["completedAt"], first["status"]["initialSync"]["completedAt"]);
    assert!(second["status"]["worker"]["epoch"].as_i64() > first["status"]["worker"]["epoch"].as_i64());
    for _ in 0..100 {
        if count(&target, "adopt").await == 501 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("what changed meanwhile has not arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_created_anew_under_the_same_name_is_another_one() {
    let site = Site::new("again");
    let (source, _) = secrets(&site).await;
    fill(&source, "again", 50).await;
    let operator = site.operator(&[]);
    let sync = cluster_sync("same", "again");
    succeed(site.apply(&sync));
    let first = site.phase("same", "Streaming");
    site.kubectl(&["delete", "csync", "same"]);
    succeed(site.apply(&sync));
    // The state, and the data, belong to the first one: nothing is adopted unasked.
    let second = site.until("same", "refused", |object| condition(object, "Stalled")["status"] == "True");
    let reason = condition(&second, "Stalled")["reason"].as_str().unwrap();
    assert!(["TargetInUse", "TargetNotEmpty"].contains(&reason), "{second:#}");
    assert_eq!(second["status"]["syncID"], second["metadata"]["uid"]);
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
    assert!(second["status"]["initialSync"]["completedAt"].is_null(), "{second:#}");
    operator.until_log("resource deleted: stopping its sync");
}
