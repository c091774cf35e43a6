//! Index builds that take long, are under way, or fail: none stops the data.

use std::time::Duration;

use clustersync::sync::{Desired, DesiredState, Phase};
use mongodb::bson::doc;
use mongodb::options::IndexOptions;
use mongodb::{Client, IndexModel, bson::Document};

use crate::clone::index;
use crate::lab::mongod::{Options, ReplicaSet, pair};
use crate::world::{Sync, World, shared};

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

/// An index may have given way to a document, and its worker been killed before that was recorded; it may stand there in
/// its final form but for being hidden, where a restoration was interrupted.
#[tokio::test]
async fn a_cutover_looks_which_indexes_there_are() {
    let world = World::shared("which_indexes").await;
    world.fill("c", 50, 10).await;
    let unique = IndexOptions::builder().unique(true).hidden(true).build();
    index(&world, "c", doc! {"u": 1}, unique).await;
    index(&world, "c", doc! {"n": 1, "s.a": 1}, IndexOptions::default()).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.stop().await;
    let copy = world.tgt().collection::<Document>("c");
    copy.drop_index("n_1_s.a_1").await.unwrap();
    copy.drop_index("u_1").await.unwrap();
    let unique = IndexOptions::builder().unique(true).build();
    copy.create_index(IndexModel::builder().keys(doc! {"u": 1}).options(unique).build()).await.unwrap();
    let records = world.target.database("clustersync").collection::<Document>("indexes");
    let failed = doc! {"$set": {"state": "Failed"}};
    records.update_one(doc! {"sync": "which_indexes", "name": "u_1"}, failed).await.unwrap();
    let sync =
        Sync::start_with(world.config(), Desired { state: DesiredState::Completed, ..Desired::default() });
    let report = sync.phase(Phase::Completed).await;
    assert_eq!(report.completion.unwrap().unsuccessful_indexes.len(), 0);
    world.assert_identical(false).await;
    sync.stop().await;
}

/// One member that is down keeps no index from being built, nor a cutover from its end.
#[tokio::test]
async fn indexes_are_built_while_a_member_of_the_target_is_down() {
    let mut options = Options::new("onedown");
    options.members = 3;
    let (source, mut target) = (&shared().await.0, ReplicaSet::start(options).await);
    target.members[2].kill9();
    let world = World::on(source, &target, "one_down").await;
    world.fill("large", 20_000, 600).await;
    world.fill("small", 50, 10).await;
    for name in ["large", "small"] {
        let unique = IndexOptions::builder().unique(true).build();
        index(&world, name, doc! {"u": 1}, unique).await;
        index(&world, name, doc! {"n": 1}, IndexOptions::default()).await;
    }
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    assert_eq!(report.completion.unwrap().unsuccessful_indexes.len(), 0);
    world.assert_identical(false).await;
    sync.stop().await;
}

/// The target's own users may drop what was cut over before its options are restored.
#[tokio::test]
async fn options_of_what_is_gone_do_not_keep_the_others_from_theirs() {
    let world = World::shared("options_gone").await;
    for name in ["a", "b"] {
        let capped = doc! {"create": name, "capped": true, "size": 1 << 20};
        world.src().run_command(capped).await.unwrap();
        world.coll(name).insert_one(doc! {"_id": 1}).await.unwrap();
    }
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.tgt().collection::<Document>("a").drop().await.unwrap();
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.coll("a").drop().await.unwrap();
    world.assert_identical(false).await;
    sync.stop().await;
}
