//! Two processes on one sync id: what was asked of the one that owns it is done by the one that comes after.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::stand::{Serve, Stand};

fn held(status: &Value) -> bool {
    status["info"].as_str().is_some_and(|info| info.contains("is held by"))
}

async fn count(stand: &Stand, collection: &str, filter: Document) -> u64 {
    let there = stand.target.database(&stand.db).collection::<Document>(collection);
    there.count_documents(filter).await.unwrap()
}

/// A document that only a clone anew would remove.
async fn mark(stand: &Stand, collection: &str) {
    let there = stand.target.database(&stand.db).collection::<Document>(collection);
    there.insert_one(doc! {"_id": "mark"}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_finalize_outlive_their_owner() {
    let stand = Stand::new("heirs").await;
    stand.fill("c", 500, 10).await;
    let mut first = stand.serve(&[]);
    first.done("/start", &stand.scope());
    first.until_streaming();
    let mut second = stand.serve(&[]);
    second.until("waiting", held);
    let why = second.refused("/pause", &json!({}));
    assert!(why.contains("not the owner") && why.contains("is held by"), "{why}");
    first.done("/pause", &json!({}));
    stand.coll("c").insert_one(doc! {"_id": "while paused"}).await.unwrap();
    first.process.kill();
    let status = second.until("paused", |status| {
        assert!(status["phase"] != "Streaming", "{status:#}");
        status["phase"] == "Paused" && !held(status)
    });
    assert_eq!(status["state"], "paused");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        (second.state().as_str(), count(&stand, "c", doc! {"_id": "while paused"}).await),
        ("paused", 0)
    );
    second.done("/resume", &json!({}));
    stand.caught_up(&second).await;

    let third = stand.serve(&[]);
    third.until("waiting", held);
    second.done("/finalize", &json!({}));
    second.process.kill();
    third.until_state("finalized");
    stand.assert_identical(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_start_is_done_by_the_next_owner_in_its_own_scope() {
    let stand = Stand::new("newscope").await;
    stand.fill("a", 50, 10).await;
    stand.fill("b", 50, 10).await;
    let mut first = stand.serve(&[]);
    first.done("/start", &stand.scope());
    first.until_streaming();
    first.done("/finalize", &json!({}));
    first.until_state("finalized");
    let second = stand.serve(&[]);
    second.until("waiting", held);
    mark(&stand, "a").await;
    mark(&stand, "b").await;
    first.done("/start", &json!({"includeNamespaces": ["newscope.b"]}));
    // A clean stop leaves no ten seconds in which to look.
    first.process.stop();
    second.until_streaming();
    stand.caught_up(&second).await;
    assert_eq!(count(&stand, "a", doc! {"_id": "mark"}).await, 1, "{}", second.process.output());
    assert_eq!(count(&stand, "b", doc! {"_id": "mark"}).await, 0);
    stand.fill("a2", 10, 10).await;
    stand.caught_up(&second).await;
    assert_eq!(count(&stand, "a2", doc! {}).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_before_the_last_one_is_never_done_again() {
    let stand = Stand::new("olderstart").await;
    stand.fill("c", 50, 10).await;
    let wishes = stand.target.database("clustersync").collection::<Document>("wishes");
    let id = doc! {"_id": "olderstart"};
    let mut first = stand.serve(&[]);
    first.done("/start", &stand.scope());
    let older = wishes.find_one(id.clone()).await.unwrap().unwrap();
    first.until_streaming();
    first.done("/finalize", &json!({}));
    first.until_state("finalized");
    first.done("/start", &stand.scope());
    first.until_streaming();
    mark(&stand, "c").await;
    // As a process would leave it that was frozen while it saved.
    wishes.replace_one(id.clone(), &older).await.unwrap();
    let mut second = stand.serve(&[]);
    second.until("waiting", held);
    first.process.kill();
    second.until_streaming();
    stand.caught_up(&second).await;
    assert_eq!(count(&stand, "c", doc! {"_id": "mark"}).await, 1, "a waiting one");
    second.process.stop();
    wishes.replace_one(id, &older).await.unwrap();
    let third = stand.serve(&[]);
    third.until_streaming();
    assert_eq!(count(&stand, "c", doc! {"_id": "mark"}).await, 1, "one that comes later");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_nobody_asked_hears_of_what_the_other_was_asked() {
    let stand = Stand::new("hears").await;
    stand.fill("c", 50, 10).await;
    let known = |serve: &Serve| serve.until("known", |status| status.get("info").is_none());
    let (mut first, second) = (stand.serve(&[]), stand.serve(&[]));
    known(&first);
    known(&second);
    first.done("/start", &stand.scope());
    // Either may own it, from the moment at which both know of it.
    first.until_streaming();
    assert_eq!(second.refused("/start", &json!({})), "already running");
    let third = stand.serve_as("hears2", &[]);
    known(&third);
    let fourth = stand.serve_as("hears2", &[]);
    fourth.done("/start", &json!({"includeNamespaces": ["hears2.*"]}));
    third.until("told", |status| status["state"] == "running");
    first.process.stop();
    second.until_streaming();
    stand.assert_identical(true).await;
}
