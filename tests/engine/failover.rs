//! The target's primary dies with writes that no other member has: the slots show it, nothing is lost.

use std::time::Duration;

use clustersync::sync::Phase;
use mongodb::bson::doc;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::World;

#[tokio::test]
async fn a_failover_with_rollback_loses_nothing() {
    let mut options = Options::new("tgt3");
    options.members = 3;
    let (source, mut target) =
        tokio::join!(ReplicaSet::start(Options::new("src3")), ReplicaSet::start(options));
    let world = World::on(&source, &target, "failover").await;
    world.fill("c", 2_000, 100).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    let primary = target.primary().await;
    // The secondaries stop fetching: what the primary acknowledges from now on, only it has.
    for (number, member) in target.members.iter().enumerate() {
        if number != primary {
            let stop = doc! {"configureFailPoint": "stopReplProducer", "mode": "alwaysOn"};
            member.direct().await.database("admin").run_command(stop).await.unwrap();
        }
    }
    let before = sync.report().replication.events_applied;
    for n in 0..1_500_i32 {
        world.coll("c").update_one(doc! {"_id": n}, doc! {"$push": {"log": n}}).await.unwrap();
    }
    sync.until("applying", |report| report.replication.events_applied > before + 200).await;
    target.members[primary].kill9();
    for (number, member) in target.members.iter().enumerate() {
        if number != primary {
            let go = doc! {"configureFailPoint": "stopReplProducer", "mode": "off"};
            member.direct().await.database("admin").run_command(go).await.unwrap();
        }
    }
    target.primary().await;
    for n in 0..300_i32 {
        world.coll("c").update_one(doc! {"_id": n}, doc! {"$push": {"log": -n}}).await.unwrap();
    }
    target.members[primary].start();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
