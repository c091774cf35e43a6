//! The whole life of a sync over the control API, also across kills.

use std::time::Duration;

use mongodb::bson::doc;
use mongodb::options::IndexOptions;
use mongodb::{IndexModel, bson::Document};
use serde_json::json;

use crate::stand::Stand;

#[tokio::test(flavor = "multi_thread")]
async fn start_pause_resume_finalize() {
    let stand = Stand::new("life").await;
    stand.fill("c", 3_000, 200).await;
    let unique = IndexOptions::builder().unique(true).build();
    stand
        .coll("c")
        .create_index(IndexModel::builder().keys(doc! {"_id": 1, "n": 1}).options(unique).build())
        .await
        .unwrap();
    let mut serve = stand.serve(&[]);
    assert_eq!(
        serve.until("known", |status| status.get("info").is_none()),
        json!({"ok": true, "state": "idle", "lagTimeSeconds": 0, "eventsRead": 0, "eventsApplied": 0})
    );
    serve.done("/start", &stand.scope());
    assert_eq!(serve.state(), "running", "from the moment of the answer");
    let status = serve.until_streaming();
    assert_eq!(status["initialSync"]["completed"], true);
    assert_eq!(status["initialSync"]["cloneCompleted"], true);
    assert_eq!(status["initialSync"]["lagTimeSeconds"], 0);
    assert!(status["initialSync"]["clonedSizeBytes"].as_u64().unwrap() > 600_000);
    assert!(status.get("finalization").is_none());
    stand.coll("c").insert_one(doc! {"_id": "new"}).await.unwrap();
    stand.coll("c").update_many(doc! {"n": 5}, doc! {"$set": {"m": 1}}).await.unwrap();
    stand.caught_up(&serve).await;
    stand.assert_identical(true).await;

    serve.done("/pause", &json!({}));
    assert_eq!(serve.state(), "paused");
    stand.coll("c").insert_one(doc! {"_id": "while paused"}).await.unwrap();
    // A pause outlives the process.
    serve.process.kill();
    let mut serve = stand.serve(&[]);
    serve.until_state("paused");
    let there = stand.target.database("life").collection::<Document>("c");
    assert_eq!(there.count_documents(doc! {"_id": "while paused"}).await.unwrap(), 0);
    serve.done("/resume", &json!({}));
    assert_eq!(serve.state(), "running");
    stand.caught_up(&serve).await;
    assert_eq!(there.count_documents(doc! {"_id": "while paused"}).await.unwrap(), 1);

    serve.done("/finalize", &json!({}));
    let status = serve.until_state("finalized");
    assert_eq!(status["finalization"]["completed"], true);
    assert!(status["finalization"]["completedAt"].is_string());
    assert!(status["finalization"].get("unsuccessfulIndexes").is_none());
    stand.assert_identical(false).await;
    assert!(serve.process.stop() < Duration::from_secs(10));

    // It stays finalized; a new run clones anew, over what is there.
    let serve = stand.serve(&[]);
    let again = serve.until_state("finalized");
    assert_eq!(again["finalization"], status["finalization"]);
    stand.fill("second", 100, 10).await;
    serve.done("/start", &stand.scope());
    assert_eq!(serve.state(), "running");
    serve.until_streaming();
    stand.assert_identical(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_answer_it_goes_on_by_itself() {
    let stand = Stand::new("killed").await;
    stand.fill("c", 5_000, 500).await;
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.process.kill();
    let mut serve = stand.serve(&[]);
    serve.until("running", |status| status["state"] == "running");
    std::thread::sleep(Duration::from_millis(300));
    serve.process.kill();
    let serve = stand.serve(&[]);
    serve.until_streaming();
    stand.caught_up(&serve).await;
    stand.assert_identical(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_finalizing_it_finalizes() {
    let stand = Stand::new("cutover").await;
    stand.fill("c", 500, 10).await;
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    serve.done("/finalize", &json!({}));
    assert!(["finalizing", "finalized"].contains(&serve.state().as_str()));
    serve.process.kill();
    let serve = stand.serve(&[]);
    serve.until_state("finalized");
    stand.assert_identical(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_after_the_initial_sync_is_taken_once() {
    let stand = Stand::new("rests").await;
    stand.fill("c", 500, 10).await;
    let mut serve = stand.serve(&[]);
    let mut body = stand.scope();
    body["pauseOnInitialSync"] = true.into();
    serve.done("/start", &body);
    let status = serve.until_state("paused");
    assert_eq!(status["initialSync"]["completed"], true);
    serve.process.kill();
    let serve = stand.serve(&[]);
    serve.until_state("paused");
    serve.done("/resume", &json!({}));
    serve.until_streaming();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(serve.state(), "running", "not again");
    // From a pause it can be finalized, too.
    serve.done("/pause", &json!({}));
    stand.coll("c").insert_one(doc! {"_id": "late"}).await.unwrap();
    serve.done("/finalize", &json!({}));
    assert_ne!(serve.state(), "paused");
    serve.until_state("finalized");
    stand.assert_identical(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_cannot_be_restored_are_named_and_asked_for_again() {
    let stand = Stand::new("indexes").await;
    stand.fill("c", 50, 10).await;
    let unique = IndexOptions::builder().unique(true).name("filler_u".to_owned()).build();
    stand
        .coll("u")
        .create_index(IndexModel::builder().keys(doc! {"a": 1}).options(unique).build())
        .await
        .unwrap();
    stand.coll("u").insert_one(doc! {"_id": 1, "a": 1}).await.unwrap();
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    // Somebody writes to the target what the source's index forbids.
    let there = stand.target.database("indexes").collection::<Document>("u");
    there.insert_one(doc! {"_id": 2, "a": 1}).await.unwrap();
    serve.done("/finalize", &json!({}));
    let status = serve.until_state("finalized");
    let missing = &status["finalization"]["unsuccessfulIndexes"][0];
    assert_eq!((&missing["namespace"], &missing["indexName"]), (&json!("indexes.u"), &json!("filler_u")));
    assert_eq!((&missing["type"], &missing["keys"]), (&json!("failed"), &json!({"a": 1})));
    assert!(!missing["reason"].as_str().unwrap().is_empty());
    serve.process.kill();
    let serve = stand.serve(&[]);
    let again = serve.until_state("finalized");
    assert_eq!(again["finalization"], status["finalization"], "it survives a restart");
    there.delete_one(doc! {"_id": 2}).await.unwrap();
    serve.done("/finalize", &json!({}));
    serve.until("complete", |status| {
        status["state"] == "finalized" && status["finalization"].get("unsuccessfulIndexes").is_none()
    });
    stand.assert_identical(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_explained_and_left_on_request() {
    let stand = Stand::new("fails").await;
    stand.fill("c", 50, 10).await;
    stand.target.database("fails").collection::<Document>("c").insert_one(doc! {"_id": 0}).await.unwrap();
    let mut serve = stand.serve(&[]);
    let mut body = stand.scope();
    body["onExistingData"] = "Fail".into();
    serve.done("/start", &body);
    let status = serve.until_state("failed");
    assert_eq!(status["ok"], false);
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("fails.c"), "{status}");
    assert!(error.contains("fromFailure") && error.contains("--reset-state"), "{error}");
    assert!(!error.contains("initialSync."), "{error}");
    assert!(!serve.process.output().contains("initialSync."), "{}", serve.process.output());
    assert!(serve.refused("/resume", &json!({})).contains("fromFailure"));
    assert!(serve.refused("/start", &body).contains("failed"));
    stand.target.database("fails").drop().await.unwrap();
    serve.done("/resume", &json!({"fromFailure": true}));
    serve.until_streaming();
    stand.assert_identical(true).await;

    // The other way that it names, for what no retry mends.
    serve.process.stop();
    stand.coll("c").drop().await.unwrap();
    stand.fill("c", 60, 10).await;
    let mut serve = stand.serve(&["--reset-state"]);
    serve.until("idle", |status| status["state"] == "idle" && status.get("info").is_none());
    serve.done("/start", &body);
    serve.until_state("failed");
    serve.process.stop();
    let serve = stand.serve(&["--reset-state"]);
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    stand.assert_identical(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_and_cannot_be_used_is_said_and_replaced() {
    let stand = Stand::new("unusable").await;
    stand.fill("c", 50, 10).await;
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    serve.process.stop();
    let wishes = stand.target.database("clustersync").collection::<Document>("wishes");
    let id = doc! {"_id": "unusable"};
    for broken in [
        doc! {"$set": {"wish.body": "{\"includeNamespaces\": [\"unus"}},
        doc! {"$set": {"wish.body": "{}", "wish.state": "Flying"}},
    ] {
        wishes.update_one(id.clone(), broken).await.unwrap();
        let serve = stand.serve(&[]);
        let status = serve.until("explained", |status| {
            status["info"].as_str().is_some_and(|info| info.contains("cannot be used"))
        });
        assert_eq!((&status["state"], &status["ok"]), (&json!("idle"), &json!(true)));
        for call in ["/pause", "/resume", "/finalize"] {
            let why = serve.refused(call, &json!({}));
            assert!(why.starts_with("not started: ") && why.contains("cannot be used"), "{why}");
        }
        assert_eq!(serve.raw("GET", "/readyz", "").0, 200);
    }
    let serve = stand.serve(&[]);
    let answer = serve.post("/start", &stand.scope());
    assert_eq!(answer["ok"], true);
    assert!(answer["info"].as_str().is_some_and(|info| info.contains("cannot be used")), "{answer}");
    serve.until_streaming();
    stand.assert_identical(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_state_can_be_forgotten() {
    let stand = Stand::new("forgotten").await;
    stand.fill("c", 50, 10).await;
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    let reset = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_clustersync"))
            .args(["reset", "--sync-id=forgotten", &format!("--target={}", stand.target_uri)])
            .output()
            .unwrap()
    };
    let refused = reset();
    assert_eq!(refused.status.code(), Some(1), "not under a running sync");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is held by"), "{refused:?}");
    assert_eq!(serve.state(), "running");
    serve.process.stop();
    let done = reset();
    assert!(done.status.success(), "{done:?}");
    let mut serve = stand.serve(&[]);
    serve.until("idle", |status| status["state"] == "idle" && status.get("info").is_none());
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    serve.process.stop();
    let serve = stand.serve(&["--reset-state"]);
    serve.until("idle", |status| status["state"] == "idle" && status.get("info").is_none());
    assert!(
        stand
            .target
            .database("forgotten")
            .collection::<Document>("c")
            .count_documents(doc! {})
            .await
            .unwrap()
            > 0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_process_of_a_sync_waits_and_takes_over() {
    let stand = Stand::new("twice").await;
    stand.fill("c", 500, 10).await;
    let mut first = stand.serve(&[]);
    first.done("/start", &stand.scope());
    first.until_streaming();
    let second = stand.serve(&[]);
    let status = second
        .until("held", |status| status["info"].as_str().is_some_and(|info| info.contains("is held by")));
    assert_eq!(status["state"], "running");
    stand.coll("c").insert_one(doc! {"_id": "x"}).await.unwrap();
    stand.caught_up(&first).await;
    first.process.kill();
    stand.coll("c").insert_one(doc! {"_id": "y"}).await.unwrap();
    second.until_streaming();
    stand.caught_up(&second).await;
    stand.assert_identical(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_cleanly_in_every_phase() {
    let stand = Stand::new("stops").await;
    stand.fill("c", 20_000, 500).await;
    let mut serve = stand.serve(&[]);
    assert!(serve.process.stop() < Duration::from_secs(10), "idle");
    let mut serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    serve.until("cloning", |status| status["phase"] == "Cloning" || status["phase"] == "Streaming");
    assert!(serve.process.stop() < Duration::from_secs(10), "cloning");
    let mut serve = stand.serve(&[]);
    serve.until_streaming();
    assert!(serve.process.stop() < Duration::from_secs(10), "streaming");
    let mut serve = stand.serve(&[]);
    serve.until_streaming();
    serve.done("/pause", &json!({}));
    assert!(serve.process.stop() < Duration::from_secs(10), "paused");
    let mut serve = stand.serve(&[]);
    serve.until_state("paused");
    serve.done("/finalize", &json!({}));
    assert!(serve.process.stop() < Duration::from_secs(10), "finalizing");
    let mut serve = stand.serve(&[]);
    serve.until_state("finalized");
    assert!(serve.process.stop() < Duration::from_secs(10), "finalized");
    stand.assert_identical(false).await;
}
