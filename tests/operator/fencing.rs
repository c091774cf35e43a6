//! Who owns a sync, when resources or terms compete for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::site::{Site, cluster_sync, condition, fill, secrets, succeed};

fn worker(object: &Value) -> &Value {
    &object["status"]["worker"]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_resources_with_one_sync_id_do_not_take_it_from_each_other() {
    let site = Site::new("one-id");
    let (source, _) = secrets(&site).await;
    fill(&source, "one-id", 50).await;
    let operator = site.operator(&[]);
    let mut sync = cluster_sync("first", "one-id");
    sync["spec"]["syncID"] = json!("one-id");
    succeed(site.apply(&sync));
    let first = site.phase("first", "Streaming");
    sync["metadata"]["name"] = json!("second");
    sync["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&sync));
    let second = site.reason("second", "OwnedElsewhere");
    assert!(condition(&second, "Ready")["message"].as_str().unwrap().contains("is held by"));
    std::thread::sleep(Duration::from_secs(8));
    let later = site.get("first");
    assert_eq!(worker(&later)["epoch"], worker(&first)["epoch"], "{}", operator.log());
    assert_eq!(later["status"]["phase"], "Streaming");
    assert_eq!(condition(&site.get("second"), "Ready")["reason"], "OwnedElsewhere");
    let holder = worker(&first)["holder"].as_str().unwrap();
    assert!(holder.ends_with(&format!("/{}", first["metadata"]["uid"].as_str().unwrap())), "{holder}");

    // What the second one does not own it does not remove.
    site.kubectl(&["delete", "csync", "second", "--wait=false"]);
    site.gone("second");
    std::thread::sleep(Duration::from_secs(1));
    assert!(site.events("second").contains(&"StateRetained".to_owned()));
    site.set_state("first", "Paused");
    let paused = site.phase("first", "Paused");
    assert_eq!(worker(&paused)["epoch"], worker(&first)["epoch"]);
}
