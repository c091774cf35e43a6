//! Kind to both ends: a source that answers slowly and a target whose majority lags are spared, and then not any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clustersync::sync::report::SlowedBy;
use clustersync::sync::{Phase, Report};
use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::{Sync, World, shared};

#[tokio::test]
async fn a_clone_spares_a_source_that_answers_slowly() {
    const FULL: u64 = 4 << 20;
    let source = ReplicaSet::start(Options::new("slowsource")).await;
    let world = World::on(&source, &shared().await.1, "pace_source").await;
    world.fill("c", 100_000, 900).await;
    let mut config = world.config();
    config.limits.bytes_per_second = FULL;
    config.limits.max_source_latency = Duration::from_millis(150);
    let sync = Sync::start(config);
    sync.until("at full speed", |report| report.initial_sync.bytes > 2 * FULL).await;
    let slow = |mode: &str| {
        doc! {
            "configureFailPoint": "failCommand",
            "mode": mode,
            "data": {"failCommands": ["find"], "blockConnection": true, "blockTimeMS": 400},
        }
    };
    let admin = source.members[0].direct().await.database("admin");
    admin.run_command(slow("alwaysOn")).await.unwrap();
    let slowed = |report: &Report| report.throttling.clone();
    let report = sync
        .until("slow", |report| slowed(report).is_some_and(|throttling| throttling.pace_percent <= 25))
        .await;
    let throttling = slowed(&report).unwrap();
    assert_eq!(throttling.by, SlowedBy::SourceLatency);
    assert!(throttling.message.contains("limits.maxSourceLatencyMs is 150"), "{}", throttling.message);
    let before = sync.report().initial_sync.bytes;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after = sync.report().initial_sync.bytes;
    assert!(after > before, "it stands still");
    assert!(after - before < 3 * FULL, "{} bytes in 6 s", after - before);
    admin.run_command(slow("off")).await.unwrap();
    let report = sync.until("at full speed again", |report| slowed(report).is_none()).await;
    assert_eq!(report.phase, Phase::Cloning, "the clone was over before it could go faster");
    sync.phase(Phase::Streaming).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_clone_spares_a_source_whose_members_lag() {
    let mut options = Options::new("laggingmembers");
    options.members = 3;
    let source = ReplicaSet::start(options).await;
    let world = World::on(&source, &shared().await.1, "pace_members").await;
    world.fill("c", 100_000, 900).await;
    let mut config = world.config();
    config.limits.bytes_per_second = 4 << 20;
    config.limits.max_replication_lag = Duration::from_secs(2);
    let sync = Sync::start(config);
    sync.until("at full speed", |report| report.initial_sync.bytes > 4 << 20).await;
    assert_eq!(sync.report().throttling, None, "nothing lags");
    replicate(&source, false).await;
    let late = doc! {"_id": "late"};
    world.coll("c").insert_one(late).write_concern(WriteConcern::nodes(1)).await.unwrap();
    let report = sync.until("slow", |report| report.throttling.is_some()).await;
    let slowed = report.throttling.unwrap();
    assert_eq!(slowed.by, SlowedBy::SourceReplicationLag);
    assert!(slowed.message.contains("replication on the source is"), "{}", slowed.message);
    replicate(&source, true).await;
    let report = sync.until("at full speed again", |report| report.throttling.is_none()).await;
    assert_eq!(report.phase, Phase::Cloning, "the clone was over before it could go faster");
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// Whether secondaries fetch what their primary writes.
async fn replicate(set: &ReplicaSet, goes_on: bool) {
    let primary = set.primary().await;
    let mode = if goes_on { "off" } else { "alwaysOn" };
    for (number, member) in set.members.iter().enumerate() {
        if number != primary {
            let set = doc! {"configureFailPoint": "stopReplProducer", "mode": mode};
            member.direct().await.database("admin").run_command(set).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_spares_a_target_whose_majority_lags() {
    let mut options = Options::new("lagging");
    options.members = 3;
    let (source, target) =
        tokio::join!(ReplicaSet::start(Options::new("laggingsource")), ReplicaSet::start(options));
    let world = World::on(&source, &target, "pace_target").await;
    world.fill("c", 100, 100).await;
    let mut config = world.config();
    config.limits.max_replication_lag = Duration::from_secs(2);
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    let (writing, coll) = (Arc::new(AtomicBool::new(true)), world.coll("new"));
    let writer = tokio::spawn({
        let writing = Arc::clone(&writing);
        async move {
            let filler = "x".repeat(20_000);
            let mut interval = tokio::time::interval(Duration::from_millis(100));
            while writing.load(Ordering::Relaxed) {
                interval.tick().await;
                let some: Vec<Document> = (0..10).map(|n| doc! {"n": n, "filler": &filler}).collect();
                coll.insert_many(some).await.unwrap();
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sync.report().throttling, None, "nothing lags");
    replicate(&target, false).await;
    let report = sync
        .until("slow", |report| report.throttling.as_ref().is_some_and(|slowed| slowed.pace_percent <= 12))
        .await;
    let slowed = report.throttling.unwrap();
    assert_eq!(slowed.by, SlowedBy::TargetReplicationLag);
    assert!(slowed.message.contains("limits.maxReplicationLagSeconds is 2"), "{}", slowed.message);
    let applied = |report: &Report| report.replication.events_applied;
    let before = applied(&sync.report());
    tokio::time::sleep(Duration::from_secs(8)).await;
    let some = applied(&sync.report()) - before;
    assert!(some < 400, "{some} events in 8 s, of which 800 were written");
    sync.until("going on", |report| applied(report) > before).await;
    replicate(&target, true).await;
    sync.until("at full speed again", |report| report.throttling.is_none()).await;
    writing.store(false, Ordering::Relaxed);
    writer.await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
