//! What is asked for once: request tokens, and what a refusal leaves as it was. And what needs no source any more.

use std::time::Duration;

use clustersync::sync::config::OnExistingData;
use clustersync::sync::{Desired, DesiredState, Phase, Reason, lifecycle};
use mongodb::bson::{Document, Timestamp, doc};

use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::{Sync, World, shared, uuid_of};

fn restart(token: &str) -> Desired {
    Desired { restart: token.to_owned(), retry: token.to_owned(), ..Desired::default() }
}

#[tokio::test]
async fn a_token_that_is_taken_away_asks_for_nothing() {
    let world = World::shared("tokens").await;
    world.fill("c", 20, 10).await;
    let mut config = world.config();
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start_with(config, restart("first"));
    sync.phase(Phase::Streaming).await;
    let before = sync.report();
    sync.desired.send_replace(Desired::default());
    world.coll("c").insert_one(doc! {"_id": "later"}).await.unwrap();
    world.caught_up(&sync).await;
    let after = sync.report();
    assert_eq!(after.initial_sync.started_at, before.initial_sync.started_at, "it was not begun anew");
    assert_eq!(after.initial_sync.documents_copied, 20);
    sync.stop().await;
}

#[tokio::test]
async fn who_adopts_a_state_does_not_act_on_tokens_that_it_brings() {
    let world = World::shared("adopted").await;
    world.fill("c", 20, 10).await;
    let mut config = world.config();
    config.resource_uid = Some("one".to_owned());
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start_with(config.clone(), restart("of one"));
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let former = config.clone();
    config.resource_uid = Some("other".to_owned());
    let sync = Sync::start_with(config.clone(), restart("of the other"));
    let report = sync.phase(Phase::Streaming).await;
    assert_eq!(report.initial_sync.documents_copied, 0, "nothing was cloned again");
    assert_eq!(report.handled_restart, "of the other", "recorded");
    // From now on it is asked by its own.
    sync.desired.send_replace(restart("again"));
    sync.until("cloned anew", |report| report.phase == Phase::Streaming && report.handled_restart == "again")
        .await;
    sync.stop().await;
    let refused = lifecycle::delete_state(&former).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::StateMismatch, "what another resource has adopted is not deleted");
    lifecycle::delete_state(&config).await.unwrap();
}

#[tokio::test]
async fn who_adopts_a_state_whose_history_is_lost_can_begin_anew() {
    let world = World::shared("adopted_lost").await;
    world.fill("c", 20, 10).await;
    let mut config = world.config();
    config.resource_uid = Some("one".to_owned());
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start(config.clone());
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let syncs = world.target.database("clustersync").collection::<Document>("syncs");
    let long_ago = doc! {"$set": {"witness.time": Timestamp { time: 1, increment: 1 }}};
    syncs.update_one(doc! {"_id": "adopted_lost"}, long_ago).await.unwrap();
    config.resource_uid = Some("other".to_owned());
    let sync = Sync::start_with(config.clone(), restart("brought"));
    sync.stalled(Reason::OplogLost).await;
    sync.desired.send_replace(restart("again"));
    sync.until("cloned anew", |report| report.phase == Phase::Streaming && report.handled_restart == "again")
        .await;
    world.assert_identical(true).await;
    sync.stop().await;
    lifecycle::delete_state(&config).await.unwrap();
}

#[tokio::test]
async fn a_restart_that_is_refused_loses_nothing() {
    let world = World::shared("refused").await;
    world.fill("c", 20, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.desired.send_replace(restart("anew"));
    sync.stalled(Reason::TargetNotEmpty).await;
    world.coll("c").insert_one(doc! {"_id": "later"}).await.unwrap();
    // Taken back: it goes on from its checkpoint.
    sync.desired.send_replace(Desired::default());
    let report = sync.until("streaming", |report| report.phase == Phase::Streaming).await;
    assert_eq!(report.initial_sync.documents_copied, 20);
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn after_the_cutover_the_source_is_not_needed() {
    let (_, target) = shared().await;
    let source = ReplicaSet::start(Options::new("leaving")).await;
    let world = World::on(&source, target, "left").await;
    world.fill("c", 20, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Completed);
    let completed = sync.phase(Phase::Completed).await;
    sync.stop().await;
    drop(source);
    let sync =
        Sync::start_with(world.config(), Desired { state: DesiredState::Completed, ..Desired::default() });
    let again = sync.phase(Phase::Completed).await;
    let (before, after) = (completed.completion.unwrap(), again.completion.unwrap());
    assert_eq!((before.committed_at, before.fence), (after.committed_at, after.fence));
    assert!(after.completed_at.is_some() && again.initial_sync.completed_at.is_some());
    assert_eq!(again.source.replica_set, "leaving");
    sync.stop().await;
}

#[tokio::test]
async fn a_failure_is_shown_until_it_is_got_past() {
    let (_, target) = shared().await;
    let mut source = ReplicaSet::start(Options::new("flickers")).await;
    let world = World::on(&source, target, "flickers").await;
    world.fill("c", 20, 10).await;
    let mut config = world.config();
    config.replication.checkpoint_interval = std::time::Duration::from_secs(300);
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    source.members[0].kill9();
    let failing = sync.until("failing", |report| report.failing_since.is_some()).await;
    assert!(failing.replication.last_error.is_some());
    source.members[0].start();
    source.primary().await;
    world.coll("c").insert_one(doc! {"_id": "later"}).await.unwrap();
    let well = sync.until("well", |report| report.failing_since.is_none()).await;
    assert_eq!(well.replication.last_error, None);
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A fence that an earlier run fixed says nothing of what was written since: the wish may have been taken back meanwhile.
#[tokio::test]
async fn a_cutover_that_was_interrupted_takes_what_is_there_now() {
    let world = World::shared("taken_back_cutover").await;
    world.fill("c", 10, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.stop().await;
    let long_ago = Timestamp { time: 1, increment: 1 };
    let completing = doc! {"$set": {
        "stage": "Completing",
        "completion": {"requestedAt": "2026-01-01T00:00:00Z", "fence": long_ago, "committedAt": null},
    }};
    let syncs = world.target.database("clustersync").collection::<Document>("syncs");
    syncs.update_one(doc! {"_id": &world.db}, completing).await.unwrap();
    world.fill("d", 20_000, 10).await;
    let wanted = Desired { state: DesiredState::Completed, ..Desired::default() };
    let sync = Sync::start_with(world.config(), wanted);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// A restart drops what there is and fixes from where the stream is read: neither while a rest is wanted.
#[tokio::test]
async fn a_restart_waits_for_the_end_of_a_pause() {
    let world = World::shared("restart_paused").await;
    world.fill("c", 10, 10).await;
    let mut config = world.config();
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start(config.clone());
    sync.phase(Phase::Streaming).await;
    let before = uuid_of(&world.tgt(), "c").await;
    sync.stop().await;
    let paused = Desired { state: DesiredState::Paused, ..restart("again") };
    let sync = Sync::start_with(config, paused);
    sync.phase(Phase::Paused).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sync.report().phase, Phase::Paused);
    assert_eq!(uuid_of(&world.tgt(), "c").await, before, "it stays until the pause ends");
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    assert_ne!(uuid_of(&world.tgt(), "c").await, before);
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// `Drop` is meant for whatever stands under a name of the source's, also where it is a view there.
#[tokio::test]
async fn a_view_takes_the_place_of_a_collection_where_that_is_asked_for() {
    let world = World::shared("view_in_place").await;
    world.fill("c", 10, 10).await;
    let view = doc! {"create": "v", "viewOn": "c", "pipeline": []};
    world.src().run_command(view).await.unwrap();
    world.tgt().collection::<Document>("v").insert_one(doc! {"of": "the user"}).await.unwrap();
    let mut config = world.config();
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
