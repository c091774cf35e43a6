//! Index builds that take long, are under way, or fail: none stops the data.

use std::time::Duration;

use clustersync::sync::{DesiredState, Phase};
use mongodb::bson::doc;
use mongodb::{Client, bson::Document};

use crate::lab::mongod::pair;
use crate::world::{Sync, World};

async fn fail_point(client: &Client, name: &str, mode: &str) {
    client.database("admin").run_command(doc! {"configureFailPoint": name, "mode": mode}).await.unwrap();
}

fn indexes(collection: &str, name: &str, unique: bool) -> Document {
    doc! {"createIndexes": collection, "indexes": [{"key": {"n": 1}, "name": name, "unique": unique}]}
}

const BUILD: &str = "hangAfterStartingIndexBuild";

#[tokio::test(flavor = "multi_thread")]
async fn builds_that_take_longer_than_any_operation_may() {
    let (source, target) = pair().await;
    let world = World::on(&source, &target, "builds").await;
    world.fill("c", 300, 50).await;
    world.fill("other", 10, 10).await;

    // Under way on the source when the catalogue is read.
    fail_point(&world.source, BUILD, "alwaysOn").await;
    let building = {
        let db = world.src();
        tokio::spawn(async move { db.run_command(indexes("c", "begun before", false)).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut config = world.config();
    config.target = config.target.with_operation_timeout(Duration::from_secs(2));
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    fail_point(&world.target, BUILD, "alwaysOn").await;
    fail_point(&world.source, BUILD, "off").await;
    building.await.unwrap().unwrap();

    // It hangs on the target now: data and other DDL go on.
    for round in 0..5 {
        world.coll("c").update_many(doc! {}, doc! {"$set": {"round": round}}).await.unwrap();
        world.coll(&format!("made{round}")).insert_one(doc! {"_id": round}).await.unwrap();
        world.caught_up(&sync).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(sync.report().replication.last_error.is_none(), "{:?}", sync.report().replication.last_error);
    let differences = world.differences(true).await;
    assert_eq!(differences.len(), 1, "only the index: {differences:?}");
    fail_point(&world.target, BUILD, "off").await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    assert!(report.completion.unwrap().unsuccessful_indexes.is_empty());
    world.assert_identical(false).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_build_that_fails_on_the_source_leaves_nothing() {
    let world = World::shared("failing").await;
    world.fill("c", 300, 50).await;
    assert!(world.src().run_command(indexes("c", "never", true)).await.is_err(), "n is not unique");
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    assert!(world.src().run_command(indexes("c", "never", true)).await.is_err());
    world.src().run_command(indexes("c", "never", false)).await.unwrap();
    world.src().run_command(doc! {"dropIndexes": "c", "index": "never"}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A command that builds several indexes goes only as a whole: what DDL needs to have out of its way must go at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_several_indexes_gives_way_to_a_drop() {
    let (source, target) = pair().await;
    let world = World::on(&source, &target, "several").await;
    world.fill("c", 8_000, 800).await;
    let two = doc! {"createIndexes": "c", "indexes": [{"key": {"n": 1}, "name": "one"}, {"key": {"m": 1}, "name": "two"}]};
    world.src().run_command(two).await.unwrap();
    fail_point(&world.target, BUILD, "alwaysOn").await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.coll("c").drop().await.unwrap();
    world.coll("after").insert_one(doc! {"_id": 1}).await.unwrap();
    let began = std::time::Instant::now();
    world.caught_up(&sync).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the stream stood still for {:?}", began.elapsed());
    fail_point(&world.target, BUILD, "off").await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// The cutover waits for builds that go on, and takes none of them for a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_while_unique_and_expiring_indexes_are_built() {
    let (source, target) = pair().await;
    let world = World::on(&source, &target, "going_on").await;
    world.fill("c", 8_000, 800).await;
    let indexes = doc! {"createIndexes": "c", "indexes": [
        {"key": {"_id": 1, "n": 1}, "name": "unique", "unique": true},
        {"key": {"at": 1}, "name": "expires", "expireAfterSeconds": 5_000},
        {"key": {"m": 1}, "name": "plain"},
    ]};
    world.src().run_command(indexes).await.unwrap();
    fail_point(&world.target, BUILD, "alwaysOn").await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completing).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fail_point(&world.target, BUILD, "off").await;
    let report = sync.phase(Phase::Completed).await;
    assert_eq!(report.completion.unwrap().unsuccessful_indexes, []);
    world.assert_identical(false).await;
    sync.stop().await;
}
