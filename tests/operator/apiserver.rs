//! The apiserver away for 90 s (ten minutes with `LONG=1`): reconciling stops, streaming does not, and the status
//! catches up. A control plane of its own, because it is frozen.

use std::process::Command;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use serde_json::Value;

use crate::lab::control_plane::ControlPlane;
use crate::site::{CRD, Site, cluster_sync, count, established, fill, secrets, succeed};

fn signal(plane: &ControlPlane, signal: &str) {
    let pid = std::fs::read_to_string(plane.folder().join("apiserver.pid")).unwrap();
    assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_goes_on_and_the_status_catches_up() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    succeed(plane.apply(CRD));
    established(plane);
    let site = Site::on(plane, "away");
    let (source, target) = secrets(&site).await;
    fill(&source, "away", 100).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("away", "away")));
    let before = site.phase("away", "Streaming");

    let away = Duration::from_secs(if std::env::var_os("LONG").is_some() { 600 } else { 90 });
    let began = Instant::now();
    signal(plane, "-STOP");
    let items = source.database("away").collection::<Document>("items");
    let mut written = 100;
    let mut behind = 0;
    while began.elapsed() < away {
        items.insert_one(doc! {"_id": 1000 + i64::try_from(written).unwrap()}).await.unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
        behind = behind.max(written - count(&target, "away").await);
    }
    let mut arrived = 0;
    for _ in 0..50 {
        arrived = count(&target, "away").await;
        if arrived == written {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = operator.log();
    signal(plane, "-CONT");
    let back = Instant::now();
    assert_eq!(arrived, written, "streaming stopped with the apiserver: {log}");
    assert!(behind < 20, "the target was {behind} documents behind: {log}");
    assert!(log.contains("reconciling rests until the lease is renewed"), "{log}");

    // Nothing has changed but times and figures: the status catches up by itself.
    let checkpoint = |object: &Value| {
        let text = object["status"]["replication"]["checkpointTime"].as_str().unwrap_or_default();
        text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
    };
    let caught_up = site.until("away", "told of the time meanwhile", |object| {
        checkpoint(object) >= checkpoint(&before) + i64::try_from(away.as_secs()).unwrap() - 10
    });
    println!("the status caught up {:?} after the apiserver was back", back.elapsed());
    assert_eq!(caught_up["status"]["worker"], before["status"]["worker"], "the same owner throughout");
    site.set_state("away", "Paused");
    let after = site.phase("away", "Paused");
    assert_eq!(after["status"]["worker"], before["status"]["worker"]);
}
