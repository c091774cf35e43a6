//! Transactions that are open when a sync begins or completes, and large ones.

use clustersync::sync::{DesiredState, Phase};
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};

use crate::world::World;

async fn begun(world: &World) -> ClientSession {
    let mut session = world.source.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    session
}

#[tokio::test]
async fn open_when_the_sync_begins() {
    let world = World::shared("txn_start").await;
    world.fill("c", 2_000, 100).await;
    let mut session = begun(&world).await;
    let change = doc! {"$set": {"in": "transaction"}};
    for id in [1, 1_999] {
        world.coll("c").update_one(doc! {"_id": id}, change.clone()).session(&mut session).await.unwrap();
    }
    world.coll("c").delete_one(doc! {"_id": 1_000}).session(&mut session).await.unwrap();
    world.coll("made").insert_one(doc! {"_id": 1}).session(&mut session).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.coll("c").update_one(doc! {"_id": 2}, doc! {"$inc": {"n": 1}}).await.unwrap();
    world.caught_up(&sync).await;
    let early = world.tgt().collection::<Document>("c").count_documents(doc! {"in": "transaction"}).await;
    assert_eq!(early.unwrap(), 0, "not committed yet");
    session.commit_transaction().await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn open_at_completion_it_is_not_waited_for() {
    let world = World::shared("txn_end").await;
    world.fill("c", 200, 100).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    let mut session = begun(&world).await;
    world.coll("c").delete_many(doc! {}).session(&mut session).await.unwrap();
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    // What the source's readers saw when the cutover was asked for is what the target holds.
    world.assert_identical(false).await;
    session.abort_transaction().await.unwrap();
    world.assert_identical(false).await;
    sync.stop().await;
}

/// Many oplog entries for one transaction, between plain writes to the same documents.
#[tokio::test]
async fn larger_than_an_oplog_entry() {
    let world = World::shared("txn_large").await;
    world.fill("c", 4_000, 100).await;
    let mut config = world.config();
    config.limits.bytes_per_second = 300 << 10;
    let sync = crate::world::Sync::start(config);
    sync.phase(Phase::Cloning).await;
    for round in 0..2 {
        let mut session = begun(&world).await;
        let filler = "z".repeat(12_000);
        for n in 0..4_000 {
            let collection = world.coll(if n % 2 == 0 { "c" } else { "other" });
            let set = doc! {"$set": {"filler": &filler, "round": round, "n": n}};
            if n % 50 == 0 {
                world.coll("plain").insert_one(doc! {"round": round, "n": n}).await.unwrap();
            }
            collection.update_one(doc! {"_id": n}, set).upsert(true).session(&mut session).await.unwrap();
        }
        world.coll("c").update_one(doc! {"_id": 3_999}, doc! {"$set": {"plain": round}}).await.unwrap();
        session.commit_transaction().await.unwrap();
        world.coll("c").update_many(doc! {"n": {"$gt": 3_000}}, doc! {"$inc": {"after": 1}}).await.unwrap();
        if round == 0 {
            sync.phase(Phase::Streaming).await;
        }
    }
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
