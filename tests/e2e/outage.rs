//! The apiserver is away: reconciling rests, streaming goes on, status catches up.

use std::time::{Duration, Instant};

use crate::cluster::{Release, assert_identical, on_cluster};
use crate::writer::Writer;

fn node(args: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/node.sh");
    assert!(std::process::Command::new(script).args(args).status().unwrap().success(), "node.sh {args:?}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn streaming_outlives_the_apiserver() {
    on_cluster(async |cluster| {
        if !cluster.ours {
            println!("skipped: the apiserver of a cluster that is not ours is left alone");
            return;
        }
        let away = Duration::from_secs(if std::env::var("LONG").is_ok() { 600 } else { 90 });
        let release = Release::install(cluster, "outage", &["replicas=2"]);
        let writer = Writer::start(cluster, "outage");
        release.sync("stream", "outage", 0);
        release.phase("stream", "Streaming");
        let leader = release.holder();
        let applied = |release: &Release| {
            release.get("stream")["status"]["replication"]["eventsApplied"].as_i64().unwrap_or(0)
        };
        let before = applied(&release);
        node(&["stop", "apiserver"]);
        let (gone, mut slowest) = (Instant::now(), Duration::ZERO);
        while gone.elapsed() < away {
            slowest = slowest.max(writer.arrives(cluster, Duration::from_secs(10)).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        println!("outage: the apiserver away for {away:?}; changes took at most {slowest:?} to arrive");
        node(&["start", "apiserver"]);
        let deadline = Instant::now() + Duration::from_secs(90);
        while !cluster.try_kubectl(&["get", "--raw", "/readyz"]).status.success() {
            assert!(Instant::now() < deadline, "the apiserver does not come back");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        release.until("stream", "up to date", |object| {
            object["status"]["replication"]["eventsApplied"].as_i64().unwrap_or(0) > before
                && object["status"]["phase"] == "Streaming"
        });
        // Nobody needed to take over: the leader came back before anybody could see its Lease expire, or somebody else did.
        println!("outage: led by {leader} before, by {} after", release.holder());
        writer.stop(cluster).await;
        assert_identical(cluster, "outage", true).await;
        release.remove();
    });
}
