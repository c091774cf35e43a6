//! Two replicas: one leads, the other takes over.

use std::time::{Duration, Instant};

use crate::site::{Site, cluster_sync, fill, secrets, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_and_a_killed_one_is_replaced() {
    let site = Site::new("replicas");
    let (source, _) = secrets(&site).await;
    fill(&source, "replicas", 100).await;
    let mut first = site.operator(&[]);
    first.until_log("leading");
    succeed(site.apply(&cluster_sync("sync", "replicas")));
    let before = site.phase("sync", "Streaming");
    let mut second = site.operator(&[]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!second.log().contains("leading"), "one leads");

    let stopped = first.process.stop();
    assert!(stopped < Duration::from_secs(10), "SIGTERM took {stopped:?}");
    let began = Instant::now();
    let epoch = |object: &serde_json::Value| object["status"]["worker"]["epoch"].as_i64().unwrap_or(0);
    let streams = |above: i64| {
        site.until("sync", "streaming under its next owner", |object| {
            object["status"]["phase"] == "Streaming" && epoch(object) > above
        })
    };
    let after = streams(epoch(&before));
    assert!(began.elapsed() < Duration::from_secs(10), "a hand-over took {:?}", began.elapsed());
    assert_eq!(after["status"]["initialSync"]["completedAt"], before["status"]["initialSync"]["completedAt"]);

    let third = site.operator(&[]);
    std::thread::sleep(Duration::from_secs(3));
    second.process.kill();
    let began = Instant::now();
    streams(epoch(&after));
    assert!(began.elapsed() < Duration::from_secs(30), "a take-over took {:?}", began.elapsed());
    assert!(third.log().contains("leading"));
}
