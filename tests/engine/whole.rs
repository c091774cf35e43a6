//! Collections that are copied as a whole: small ones, whose data are inserted outside of a transaction, and capped ones.
//! A clone of them that ends suddenly begins anew, with a collection of another UUID.

use std::time::{Duration, Instant};

use clustersync::sync::Phase;
use futures::future::join_all;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::options::IndexOptions;

use crate::clone::index;
use crate::kill::Worker;
use crate::world::World;

const COLLECTIONS: i32 = 120;

/// Each of 60 documents and an index.
async fn fill(world: &World) {
    let all = (0..COLLECTIONS).map(|number| async move {
        let name = format!("c{number:03}");
        world.fill(&name, 60, 200).await;
        let unique = IndexOptions::builder().unique(true).build();
        index(world, &name, doc! {"u": 1}, unique).await;
    });
    join_all(all).await;
}

/// The collections' UUIDs on the target.
async fn uuids(world: &World) -> Vec<Bson> {
    let list = doc! {"listCollections": 1, "cursor": {"batchSize": 10_000}};
    let listed = world.tgt().run_command(list).await.unwrap();
    let listed = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let uuid = |entry: &Bson| {
        entry.as_document().unwrap().get_document("info").unwrap().get("uuid").unwrap().clone()
    };
    listed.iter().map(uuid).collect()
}

/// How many collections are recorded in that state.
async fn recorded(world: &World, state: &str) -> u64 {
    let collections = world.target.database("clustersync").collection::<Document>("collections");
    collections.count_documents(doc! {"sync": &world.db, "state": state}).await.unwrap()
}

#[tokio::test]
async fn killed_again_and_again_it_copies_every_small_collection_once() {
    let world = World::shared("whole_killed").await;
    fill(&world).await;
    // What an insert would change, and what an index of the target refuses at first.
    world
        .coll("c000")
        .insert_one(doc! {"_id": "zero", "u": "zero", "at": Timestamp { time: 0, increment: 0 }})
        .await
        .unwrap();
    for number in 1..4 {
        let mut worker = Worker::start(&world, 300 << 10);
        worker.until("some copied", |worker| worker.number("partitions_done") >= 20 * number).await;
        let done = worker.number("partitions_done");
        worker.kill();
        let finished = recorded(&world, "Cloned").await;
        assert!(finished >= done, "{finished} of {done} are recorded");
        let while_down = doc! {"$set": {"round": number as i64}};
        world.coll(&format!("c{:03}", number * 17)).update_many(doc! {}, while_down).await.unwrap();
        // DDL of what is copied, is being copied, and waits.
        for part in 0..8 {
            let name = |offset: u64| format!("c{:03}", part * 15 + number * 4 + offset);
            world.coll(&name(0)).drop_index("u_1").await.unwrap();
            let hidden = doc! {"collMod": name(1), "index": {"name": "u_1", "hidden": true}};
            world.src().run_command(hidden).await.unwrap();
            let (from, to) =
                (format!("whole_killed.{}", name(2)), format!("whole_killed.{}_renamed", name(2)));
            let rename = doc! {"renameCollection": from, "to": to};
            world.source.database("admin").run_command(rename).await.unwrap();
            // Not before: what is dropped stays counted as done and is recorded no more.
            if number == 3 {
                world.coll(&name(3)).drop().await.unwrap();
            }
        }
    }
    let before = uuids(&world).await;
    let finished = recorded(&world, "Cloned").await;
    assert!(recorded(&world, "Creating").await > 0, "some were announced");
    let new = world.start();
    new.phase(Phase::Streaming).await;
    world.caught_up(&new).await;
    world.assert_identical(true).await;
    let after = uuids(&world).await;
    let kept = before.iter().filter(|one| after.contains(one)).count() as u64;
    // Eight were dropped after the last kill.
    assert!(kept + 8 >= finished, "{kept} of {finished} finished collections are the same");
    new.stop().await;
}

/// What a frozen owner was about to insert arrives when its documents have come and gone.
#[tokio::test]
async fn what_a_frozen_owner_inserts_late_is_refused() {
    let world = World::shared("whole_late").await;
    fill(&world).await;
    let mut old = Worker::start(&world, 300 << 10);
    old.until("some copied", |worker| worker.number("partitions_done") >= 30).await;
    old.signal("STOP");
    let new = world.start();
    new.phase(Phase::Streaming).await;
    for number in 0..COLLECTIONS {
        world.coll(&format!("c{number:03}")).delete_many(doc! {"u": {"$lt": 50}}).await.unwrap();
    }
    world.caught_up(&new).await;
    old.signal("CONT");
    let refused =
        |worker: &Worker| worker.output().contains("overtaken") || worker.output().contains("held by");
    old.until("refused", refused).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.assert_identical(true).await;
    old.kill();
    new.stop().await;
}

#[tokio::test]
async fn a_capped_collection_whose_clone_was_killed_gets_its_indexes() {
    // Indexes of a small one are built before its data.
    for (db, documents) in [("whole_capped_small", 4_000), ("whole_capped_large", 12_000)] {
        let world = World::shared(db).await;
        world.src().run_command(doc! {"create": "c", "capped": true, "size": 64 << 20}).await.unwrap();
        world.fill("c", documents, 900).await;
        index(&world, "c", doc! {"n": 1}, IndexOptions::default()).await;
        let mut worker = Worker::start(&world, 2 << 20);
        let some = u64::try_from(documents / 4).unwrap();
        worker.until("some copied", |worker| worker.number("copied") > some).await;
        worker.kill();
        let new = world.start();
        new.phase(Phase::Streaming).await;
        world.caught_up(&new).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let differences = world.differences(true).await;
            if differences.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{}", differences.join("\n"));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        new.stop().await;
    }
}
