//! Forward, complete, and back by hand: a run with the endpoints swapped.

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::lab::compare::{Judge, compare};
use crate::lab::mongod::{ReplicaSet, pair};
use crate::stand::Serve;

fn serve(from: &ReplicaSet, to: &ReplicaSet, more: &[&str]) -> Serve {
    let mut args =
        vec!["serve".to_owned(), format!("--source={}", from.uri()), format!("--target={}", to.uri())];
    args.extend(more.iter().map(ToString::to_string));
    Serve::start(&args)
}

/// The command line against a running service: its answer.
fn call(serve: &Serve, args: &[&str]) -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_clustersync"))
        .args(args)
        .arg(format!("--port={}", serve.port))
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn databases(set: &ReplicaSet) -> Vec<String> {
    let mut names = set.client().await.list_database_names().await.unwrap();
    names.retain(|name| !["admin", "config", "local"].contains(&name.as_str()));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_by_hand() {
    let (here, there) = pair().await;
    let (left, right) = (here.client().await, there.client().await);
    let items = left.database("shop").collection::<Document>("items");
    items.insert_many((0..500).map(|n| doc! {"_id": n, "n": n % 7})).await.unwrap();

    // Its state is kept where the run of the other direction would not expect it.
    let forward = serve(&here, &there, &["--metadata-database=moving"]);
    assert_eq!(call(&forward, &["start"])["ok"], true);
    forward.until_streaming();
    items.update_many(doc! {"n": 3}, doc! {"$set": {"seen": true}}).await.unwrap();

    // While it runs, the other direction is a loop, whatever the database of its state is called.
    let loop_ = serve(&there, &here, &[]);
    call(&loop_, &["start", "--include-namespaces", "shop.*"]);
    let refused = loop_.until_state("failed");
    assert!(
        refused["error"].as_str().unwrap().contains("writes from this target to this source"),
        "{refused}"
    );
    drop(loop_);
    left.database("clustersync").drop().await.unwrap();

    call(&forward, &["finalize"]);
    forward.until_state("finalized");
    drop(forward);
    assert_eq!(databases(&there).await, ["moving", "shop"]);

    right.database("shop").collection::<Document>("items").delete_many(doc! {"n": 1}).await.unwrap();
    right.database("shop").collection::<Document>("orders").insert_one(doc! {"_id": 1}).await.unwrap();
    let back = serve(&there, &here, &[]);
    call(&back, &["start"]);
    let status = back.until_streaming();
    assert!(status["warnings"].to_string().contains("moving"), "{status}");
    right.database("shop").collection::<Document>("orders").insert_one(doc! {"_id": 2}).await.unwrap();
    call(&back, &["finalize"]);
    back.until_state("finalized");
    let judge = Judge { databases: vec!["shop".to_owned()], before_completion: false };
    let differences = compare(&right, &left, &judge).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(databases(&here).await, ["clustersync", "shop"], "another sync's state does not travel");
    assert_eq!(call(&back, &["status"])["finalization"]["completed"], json!(true));
}
