//! etcd restored from an older backup: resources are as they were, versions count from there again, and what was made
//! since is gone. The durable state on the target is ahead of all that, and it decides. A control plane of its own,
//! because its data is exchanged.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::Value;

use crate::lab::control_plane::ControlPlane;
use crate::site::{CRD, Site, cluster_sync, condition, count, established, fill, secrets, succeed};

async fn insert(source: &Client, db: &str, id: i32) {
    source.database(db).collection::<Document>("items").insert_one(doc! {"_id": id}).await.unwrap();
}

async fn arrives(target: &Client, db: &str, documents: u64) {
    for _ in 0..300 {
        if count(target, db).await == documents {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{db} has {} documents, not {documents}", count(target, db).await);
}

fn initial_sync(object: &Value) -> (Value, Value, Value) {
    let status = &object["status"]["initialSync"];
    (status["startedAt"].clone(), status["completedAt"].clone(), status["documents"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sync_runs_twice_or_starts_over() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    succeed(plane.apply(CRD));
    established(plane);
    let site = Site::on(plane, "backup");
    let (source, target) = secrets(&site).await;
    let operator = site.operator(&[]);
    let make = |name: &str| succeed(site.apply(&cluster_sync(name, &format!("backup-{name}"))));
    for name in ["streaming", "done", "fresh", "late"] {
        fill(&source, &format!("backup-{name}"), 100).await;
    }
    make("streaming");
    make("done");
    let before = site.phase("streaming", "Streaming");
    site.phase("done", "Streaming");
    // In the backup this one has no status yet.
    operator.process.signal("STOP");
    make("fresh");
    plane.back_up();
    operator.process.signal("CONT");

    let fresh = site.phase("fresh", "Streaming");
    site.set_state("done", "Completed");
    let done = site.phase("done", "Completed");
    make("late");
    let late = site.phase("late", "Streaming");
    for name in ["streaming", "fresh", "late"] {
        insert(&source, &format!("backup-{name}"), 1000).await;
        arrives(&target, &format!("backup-{name}"), 101).await;
    }

    plane.restore();
    assert_eq!(site.get("done")["spec"]["state"], "Running", "the backup is older");
    for name in ["streaming", "fresh"] {
        insert(&source, &format!("backup-{name}"), 1001).await;
        arrives(&target, &format!("backup-{name}"), 102).await;
    }
    for (name, known) in [("streaming", &before), ("fresh", &fresh)] {
        let after = site.phase(name, "Streaming");
        assert_eq!(initial_sync(&after), initial_sync(known), "{name} started over");
    }
    // What was cut over stays so, although the restored resource says Running.
    let after = site.phase("done", "Completed");
    assert_eq!(after["status"]["completion"], done["status"]["completion"]);
    assert_eq!(condition(&after, "Completed")["status"], "True");
    insert(&source, "backup-done", 1000).await;

    // A change is noticed, although its version is lower than others were before.
    site.set_state("streaming", "Paused");
    site.phase("streaming", "Paused");
    site.set_state("streaming", "Running");
    site.phase("streaming", "Streaming");

    // Its resource is gone: it is stopped, and one of the same name is another one, that overwrites nothing.
    let metrics = operator.http("/metrics");
    assert!(!metrics.contains(r#"name="late""#), "its sync is stopped");
    assert!(operator.log().contains("restored from a backup"), "{}", operator.log());
    make("late");
    let again = site.until("late", "refused", |object| condition(object, "Stalled")["status"] == "True");
    let reason = condition(&again, "Stalled")["reason"].as_str().unwrap();
    assert!(["TargetInUse", "TargetNotEmpty"].contains(&reason), "{again:#}");
    // With the state's name it goes on where the lost one was.
    site.kubectl(&["delete", "csync", "late"]);
    let mut adopted = cluster_sync("late", "backup-late");
    adopted["spec"]["syncID"] = late["status"]["syncID"].clone();
    succeed(site.apply(&adopted));
    assert_eq!(initial_sync(&site.phase("late", "Streaming")), initial_sync(&late));
    insert(&source, "backup-late", 1001).await;
    arrives(&target, "backup-late", 102).await;
    assert_eq!(count(&target, "backup-done").await, 100, "a sync that was done has run again");
}

/// The backup names a leader that has lost the lead since: both are alive, and both have streamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_backup_and_one_of_the_present_do_not_both_write() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    succeed(plane.apply(CRD));
    established(plane);
    let site = Site::on(plane, "leaders");
    let (source, target) = secrets(&site).await;
    fill(&source, "leaders", 100).await;
    let former = site.operator(&[]);
    former.until_log("leading");
    succeed(site.apply(&cluster_sync("sync", "leaders")));
    let before = site.phase("sync", "Streaming");
    plane.back_up();
    site.phase("sync", "Streaming");

    let epoch = |object: &Value| object["status"]["worker"]["epoch"].as_i64().unwrap_or(0);
    let present = site.operator(&[]);
    former.process.signal("STOP");
    let taken_over = site.until("sync", "streaming under its next owner", |object| {
        object["status"]["phase"] == "Streaming" && epoch(object) > epoch(&before)
    });
    insert(&source, "leaders", 1000).await;
    arrives(&target, "leaders", 101).await;

    plane.restore();
    former.process.signal("CONT");
    let after = site.until("sync", "streaming again", |object| {
        object["status"]["phase"] == "Streaming" && epoch(object) > epoch(&taken_over)
    });
    assert_eq!(initial_sync(&after), initial_sync(&before), "it started over");
    insert(&source, "leaders", 1001).await;
    arrives(&target, "leaders", 102).await;
    // One of the two reports it, the one that the target knows as its owner.
    let owners = target.database("clustersync").collection::<Document>("owners");
    let id = after["status"]["syncID"].as_str().unwrap();
    let mut settled = Vec::new();
    for _ in 0..5 {
        let streams = [&former, &present].map(|operator| {
            let wanted = r#"clustersync_phase{name="sync",namespace="leaders",phase="Streaming"} 1"#;
            operator.http("/metrics").contains(wanted)
        });
        let owner = owners.find_one(doc! {"_id": id}).await.unwrap().unwrap();
        settled.push((streams, owner.get_i64("epoch").unwrap()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(settled.iter().all(|now| *now == settled[0]), "{settled:?}");
    assert_eq!(settled[0].0.iter().filter(|streams| **streams).count(), 1, "{settled:?}");
    assert_eq!(settled[0].1, epoch(&after));
}
