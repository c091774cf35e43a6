//! The apiserver away for longer than a lease lasts: reconciling stops, streaming does not. A control plane of its
//! own, because it is frozen.

use std::process::Command;
use std::time::Duration;

use mongodb::bson::{Document, doc};

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

    signal(plane, "-STOP");
    let items = source.database("away").collection::<Document>("items");
    for number in 0..40 {
        items.insert_one(doc! {"_id": 1000 + number}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut arrived = 0;
    for _ in 0..50 {
        arrived = count(&target, "away").await;
        if arrived == 140 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = operator.log();
    signal(plane, "-CONT");
    assert_eq!(arrived, 140, "streaming stopped with the apiserver: {log}");
    assert!(log.contains("reconciling rests until the lease is renewed"), "{log}");

    site.set_state("away", "Paused");
    let after = site.phase("away", "Paused");
    assert_eq!(
        before["status"]["worker"]["epoch"], after["status"]["worker"]["epoch"],
        "the same owner throughout"
    );
}
