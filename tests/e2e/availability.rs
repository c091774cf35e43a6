//! Any pod may go at any time, in any way, while one sync clones and another streams: the other replica takes over, and
//! nothing is lost, doubled or begun anew.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, Release, assert_identical, fill, on_cluster};
use crate::pod::Pod;
use crate::records::one_writer_at_a_time;
use crate::writer::Writer;

/// A leader that vanishes is replaced within this time.
const TAKEOVER: Duration = Duration::from_secs(20);

/// One that stops cleanly, within this.
const HANDOVER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    Deleted,
    Killed,
    Frozen,
    CutOff,
    OutOfMemory,
}

impl Accident {
    fn befall(self, release: &Release, leader: &Pod) {
        match self {
            Self::Deleted => {
                release.kubectl(&["delete", "pod", &leader.name, "--wait=false"]);
            }
            Self::Killed => leader.kill(),
            Self::Frozen => leader.freeze(),
            Self::CutOff => leader.cut_off(),
            Self::OutOfMemory => leader.starve(),
        }
    }

    /// What was taken away comes back; whoever was overtaken must notice.
    fn pass(self, release: &Release, leader: &Pod) {
        match self {
            Self::Deleted => {}
            Self::Killed => assert!(release.restarts(leader).0 > 0, "the container was started again"),
            Self::Frozen => leader.thaw(),
            Self::CutOff => leader.let_back(),
            Self::OutOfMemory => {
                let (restarts, why) = release.restarts(leader);
                assert!(restarts > 0 && why == "OOMKilled", "{restarts} {why}");
            }
        }
    }

    fn limit(self) -> Duration {
        if self == Self::Deleted { HANDOVER } else { TAKEOVER }
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn any_leader_may_go_while_syncs_clone_and_stream() {
    on_cluster(async |cluster| {
        let release = Release::install(cluster, "ha", &["replicas=2"]);
        let writer = Writer::start(cluster, "ha_stream");
        release.sync("stream", "ha_stream", 0);
        release.phase("stream", "Streaming");
        writer.arrives(cluster, Duration::from_secs(10)).await;
        let accidents = if cluster.ours {
            vec![
                Accident::Deleted,
                Accident::Killed,
                Accident::Frozen,
                Accident::CutOff,
                Accident::OutOfMemory,
            ]
        } else {
            vec![Accident::Deleted, Accident::Deleted]
        };
        for (number, accident) in accidents.into_iter().enumerate() {
            release.ready();
            let (sync, db) = (format!("clone{number}"), format!("ha_clone{number}"));
            let took = one(&release, accident, &writer, (&sync, &db)).await;
            println!("takeover: leader {accident:?}: changes arrive again after {:.1} s", took.as_secs_f64());
            assert!(took < accident.limit(), "{accident:?}: {took:?}\n{}", release.logs());
        }
        writer.stop(cluster).await;
        assert_identical(cluster, "ha_stream", true).await;
        if cluster.ours {
            let (moves, recorded, owners) = one_writer_at_a_time(cluster).await;
            println!(
                "takeover: {moves} moves of slots and {recorded} writes of the state, up to {owners} owners of one, never two at a time"
            );
            assert!(moves > 1_000 && recorded > 50 && owners >= 5);
        }
        release.remove();
    });
}

/// An accident while `sync` clones; how long it took until changes of the other sync arrive again.
async fn one(release: &Release, accident: Accident, writer: &Writer, (sync, db): (&str, &str)) -> Duration {
    let cluster: &'static Cluster = release.cluster;
    fill(&cluster.source, db, 40).await;
    release.sync(sync, db, 1 << 20);
    let copied =
        |object: &serde_json::Value| object["status"]["initialSync"]["documents"].as_i64().unwrap_or(0);
    release.until(sync, "cloning", |object| copied(object) > 1_000);
    let leader = release.leader();
    let began = Instant::now();
    accident.befall(release, &leader);
    let took = {
        // What is on its way already may still arrive: only what another owner brings counts.
        while release.holder().starts_with(&format!("{}_", leader.name))
            && accident != Accident::Killed
            && accident != Accident::OutOfMemory
        {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody takes over from {accident:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        writer.arrives(cluster, Duration::from_secs(60)).await;
        began.elapsed()
    };
    accident.pass(release, &leader);
    // Both go on from where they were: the clone without its limit, so that the next accident need not wait for it.
    release.kubectl(&[
        "patch",
        "clustersync",
        sync,
        "--type=merge",
        "-p",
        &json!({"spec": {"limits": {"bytesPerSecond": 0}}}).to_string(),
    ]);
    release.phase(sync, "Streaming");
    assert_identical(cluster, db, true).await;
    let first = release.get(sync);
    let copied_once = first["status"]["initialSync"]["documents"].as_i64();
    assert_eq!(copied_once, Some(40_000), "every document was copied once");
    release.phase("stream", "Streaming");
    release.kubectl(&["delete", "clustersync", sync]);
    took
}
