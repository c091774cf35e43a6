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
