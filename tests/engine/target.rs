//! Others change the target: what is ours is missed and not made anew, what is theirs stays.

use clustersync::sync::endpoint::Feature;
use clustersync::sync::{Desired, DesiredState, Phase, Reason};
use mongodb::bson::{Document, doc};

use crate::world::World;

#[tokio::test]
async fn a_collection_that_vanishes_from_the_target_is_missed() {
    let world = World::shared("vanishes").await;
    world.fill("c", 50, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.target.database("vanishes").collection::<Document>("c").drop().await.unwrap();
    // An insert would make it anew, without its options and its documents.
    world.coll("c").insert_one(doc! {"_id": "new"}).await.unwrap();
    sync.stalled(Reason::TargetDiverged).await;
    let names = world.target.database("vanishes").list_collection_names().await.unwrap();
    assert!(names.is_empty(), "{names:?}");
    sync.stop().await;
}

/// Indexes that are asked for again after the cutover do not take back what was changed since.
#[tokio::test]
async fn what_was_changed_after_the_cutover_stays() {
    let world = World::shared("own_life").await;
    world.src().run_command(doc! {"create": "c", "capped": true, "size": 8_192}).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    let there = world.target.database("own_life");
    there.run_command(doc! {"collMod": "c", "cappedSize": 1 << 20}).await.unwrap();
    sync.desired.send_modify(|desired| desired.retry = "again".to_owned());
    sync.until("done again", |report| report.handled_retry == "again" && report.phase == Phase::Completed)
        .await;
    let listed = there.run_command(doc! {"listCollections": 1, "filter": {"name": "c"}}).await.unwrap();
    assert!(listed.to_string().contains("1048576"), "{listed}");
    sync.stop().await;
}

/// Changes of documents whose collection is gone by the time at which they are read again.
#[tokio::test]
async fn documents_are_read_again_after_their_collection_was_dropped() {
    let world = World { avoid: vec![Feature::RawUpdates], ..World::shared("read_late").await };
    world.fill("c", 50, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Paused);
    sync.phase(Phase::Paused).await;
    world.coll("c").update_many(doc! {}, doc! {"$set": {"x": 1}}).await.unwrap();
    world.coll("c").update_many(doc! {"_id": {"$lt": 9}}, doc! {"$set": {"x": 2}}).await.unwrap();
    world.coll("c").delete_many(doc! {"_id": {"$lt": 5}}).await.unwrap();
    world.coll("c").insert_one(doc! {"_id": 3, "again": true}).await.unwrap();
    world.coll("c").drop().await.unwrap();
    world.coll("c").insert_one(doc! {"_id": "another"}).await.unwrap();
    sync.desired.send_replace(Desired::default());
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// The longest that an index can be told to wait is 68 years: older dates go from the target by themselves.
#[tokio::test]
async fn a_delete_of_what_is_gone_already_is_no_divergence() {
    let world = World::shared("gone_already").await;
    world.fill("c", 50, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world
        .target
        .database("gone_already")
        .collection::<Document>("c")
        .delete_one(doc! {"_id": 7})
        .await
        .unwrap();
    world.coll("c").delete_one(doc! {"_id": 7}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
