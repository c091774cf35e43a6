//! Durable state: resume, adoption, claims, a lost oplog, a replaced source.

use std::time::Duration;

use clustersync::sync::{Desired, DesiredState, Phase, Reason, Share, lifecycle};
use mongodb::bson::{Document, doc};

use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::{Sync, World, holder, shared};

#[tokio::test]
async fn a_stopped_sync_resumes_without_cloning_again() {
    let world = World::shared("resumed").await;
    world.fill("c", 500, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    world.coll("c").insert_one(doc! {"_id": "meanwhile"}).await.unwrap();
    let began = std::time::Instant::now();
    let sync = world.start();
    let report = sync.phase(Phase::Streaming).await;
    assert!(began.elapsed() < Duration::from_secs(5), "a clean hand-over waited {:?}", began.elapsed());
    assert_eq!(report.initial_sync.documents_copied, 0);
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_changed_scope_is_not_a_wider_sync() {
    let world = World::shared("scoped").await;
    world.fill("c", 5, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let mut config = world.config();
    config.scope = clustersync::sync::scope::Scope::new(&[], &[]).unwrap();
    let sync = Sync::start(config);
    sync.stalled(Reason::ScopeChanged).await;
    sync.stop().await;
}

#[tokio::test]
async fn two_syncs_do_not_write_to_one_collection() {
    let world = World::shared("claimed").await;
    world.fill("c", 5, 10).await;
    let first = world.start();
    first.phase(Phase::Streaming).await;
    let mut config = world.config();
    config.id = "claimed-second".to_owned();
    let second = Sync::start(config.clone());
    let report = second.stalled(Reason::TargetInUse).await;
    assert!(report.message.contains("'claimed'"), "{}", report.message);
    // When the first is complete, its claims are gone; the data still is not overwritten unasked.
    first.want(DesiredState::Completed);
    first.phase(Phase::Completed).await;
    second.desired.send_modify(|desired| desired.retry = "again".to_owned());
    second.until("not empty", |report| report.reason == Some(Reason::TargetNotEmpty)).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_restart_clones_anew_only_where_the_user_allows_it() {
    let world = World::shared("restarted").await;
    world.fill("c", 50, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let mut config = world.config();
    config.initial_sync.on_existing_data = clustersync::sync::config::OnExistingData::Drop;
    let desired = Desired { restart: "now".to_owned(), ..Desired::default() };
    let sync = Sync::start_with(config, desired);
    let report = sync
        .until("cloned anew", |report| report.phase == Phase::Streaming && report.handled_restart == "now")
        .await;
    assert_eq!(report.initial_sync.documents_copied, 50);
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_restart_leaves_nothing_that_the_source_lost_meanwhile() {
    let world = World::shared("lost_meanwhile").await;
    for name in ["kept", "dropped", "renamed", "turned", "aside"] {
        world.fill(name, 20, 10).await;
    }
    let view = doc! {"create": "seen", "viewOn": "kept", "pipeline": []};
    world.src().run_command(view).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    world.coll("dropped").drop().await.unwrap();
    world.coll("seen").drop().await.unwrap();
    let rename = doc! {"renameCollection": "lost_meanwhile.renamed", "to": "lost_meanwhile.name"};
    world.source.database("admin").run_command(rename).await.unwrap();
    world.coll("turned").drop().await.unwrap();
    world.src().run_command(doc! {"create": "turned", "viewOn": "kept", "pipeline": []}).await.unwrap();
    let aside = doc! {"renameCollection": "lost_meanwhile.aside", "to": "lost_meanwhile.set_aside"};
    world.target.database("admin").run_command(aside).await.unwrap();
    world.tgt().collection::<Document>("kept").drop().await.unwrap();
    world.tgt().collection("own").insert_one(doc! {"_id": "precious"}).await.unwrap();

    let mut config = world.config();
    let desired = Desired { restart: "now".to_owned(), ..Desired::default() };
    let sync = Sync::start_with(config.clone(), desired.clone());
    let report = sync.stalled(Reason::TargetNotEmpty).await;
    for name in ["dropped", "renamed", "seen", "turned"] {
        assert!(report.message.contains(&format!("lost_meanwhile.{name}")), "{}", report.message);
    }
    sync.stop().await;
    config.initial_sync.on_existing_data = clustersync::sync::config::OnExistingData::Drop;
    let sync = Sync::start_with(config, desired);
    sync.until("cloned anew", |report| report.phase == Phase::Streaming && report.handled_restart == "now")
        .await;
    world.caught_up(&sync).await;
    let own = world.tgt().collection::<Document>("own");
    assert_eq!(own.count_documents(doc! {}).await.unwrap(), 1, "it was never ours");
    own.drop().await.unwrap();
    let aside = world.tgt().collection::<Document>("set_aside");
    assert_eq!(aside.count_documents(doc! {}).await.unwrap(), 20, "somebody wants to keep it");
    aside.drop().await.unwrap();
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn what_was_cut_over_is_its_users() {
    let world = World::shared("cut_over").await;
    for name in ["kept", "dropped"] {
        world.fill(name, 20, 10).await;
    }
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    sync.stop().await;
    world.coll("dropped").drop().await.unwrap();
    let mut config = world.config();
    config.initial_sync.on_existing_data = clustersync::sync::config::OnExistingData::Drop;
    let desired = Desired { restart: "now".to_owned(), ..Desired::default() };
    let sync = Sync::start_with(config, desired);
    sync.until("cloned anew", |report| report.phase == Phase::Streaming && report.handled_restart == "now")
        .await;
    let left = world.tgt().collection::<Document>("dropped").count_documents(doc! {}).await.unwrap();
    assert_eq!(left, 20);
    sync.stop().await;
}

#[tokio::test]
async fn durable_state_can_be_deleted_and_user_data_stays() {
    let world = World::shared("deleted").await;
    world.fill("c", 5, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    let mut config = world.config();
    config.holder = holder();
    let refused = lifecycle::delete_state(&config).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::OwnedElsewhere);
    sync.stop().await;
    lifecycle::delete_state(&config).await.unwrap();
    let metadata = world.target.database("clustersync");
    for name in ["owners", "syncs", "slots", "collections", "indexes", "claims"] {
        let filter = doc! {"$or": [{"_id": "deleted"}, {"sync": "deleted"}]};
        let left = metadata.collection::<Document>(name).count_documents(filter).await.unwrap();
        assert_eq!(left, 0, "{name}");
    }
    world.assert_identical(true).await;
}

#[tokio::test]
async fn an_oplog_that_rolled_over_while_paused_is_said() {
    let (_, target) = shared().await;
    let mut options = Options::new("tiny");
    options.oplog = 16;
    // The server keeps the oplog back to its last checkpoint: take one every second.
    options.extra = vec!["--syncdelay".to_owned(), "1".to_owned()];
    let source = ReplicaSet::start(options).await;
    let world = World::on(&source, target, "oplog_lost").await;
    world.fill("c", 100, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Paused);
    sync.phase(Phase::Paused).await;
    let witness = {
        let state = world.target.database("clustersync").collection::<Document>("syncs");
        let record = state.find_one(doc! {"_id": "oplog_lost"}).await.unwrap().unwrap();
        record.get_document("witness").unwrap().get_timestamp("time").unwrap()
    };
    let filler = "x".repeat(1 << 20);
    let other = world.source.database("other").collection::<Document>("bulk");
    let mut rolled = false;
    for round in 0..60 {
        let some: Vec<Document> = (0..8).map(|n| doc! {"_id": round * 100 + n, "f": &filler}).collect();
        other.insert_many(some).await.unwrap();
        other.delete_many(doc! {}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let oldest = world
            .source
            .database("local")
            .collection::<Document>("oplog.rs")
            .find_one(doc! {})
            .sort(doc! {"$natural": 1})
            .await
            .unwrap()
            .unwrap();
        rolled = oldest.get_timestamp("ts").unwrap() > witness;
        if rolled {
            break;
        }
    }
    assert!(rolled, "the oplog did not roll over");
    sync.want(DesiredState::Running);
    let report = sync.stalled(Reason::OplogLost).await;
    assert!(report.message.contains("requests.restart"), "{}", report.message);
    sync.stop().await;
}

#[tokio::test]
async fn another_set_under_the_same_address_is_found() {
    let (first, target) = shared().await;
    let world = World::on(first, target, "replaced").await;
    world.fill("c", 5, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let second = ReplicaSet::start(Options::new("src")).await;
    let mut config = world.config();
    config.source = clustersync::sync::endpoint::EndpointConfig::parse(&second.uri(), false).unwrap();
    let sync = Sync::start(config);
    sync.stalled(Reason::SourceReplaced).await;
    sync.stop().await;
}

/// The fence by itself: whatever an overtaken owner sends, the target's server refuses it.
#[tokio::test]
async fn an_overtaken_owner_cannot_write() {
    use clustersync::sync::config::LeaseTerm;
    use clustersync::sync::endpoint::Endpoint;
    use clustersync::sync::endpoint::client::Side;
    use clustersync::sync::state::slot::any_reply;
    use clustersync::sync::state::transaction::Durability;
    use clustersync::sync::state::{Operation, Refusal, Slot, Store, owner};

    let world = World::shared("fenced").await;
    // More than a batch: less has no partition.
    world.fill("c", 2_500, 900).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    let target = Endpoint::connect(Side::Target, &world.config().target).await.unwrap();
    let own = async |term: i64| {
        let mut holder = holder();
        holder.term = Some(LeaseTerm { lease: "election".to_owned(), term });
        owner::acquire(Store::new(target.clone(), "clustersync", "fenced"), &holder).await
    };
    let old = own(1).await.unwrap();
    let slots = world.target.database("clustersync").collection::<Document>("slots");
    let mut stale = Vec::new();
    for kind in ["lane", "partition"] {
        let slot = slots.find_one(doc! {"sync": "fenced", "kind": kind}).await.unwrap().unwrap();
        let (id, seq) = (slot.get_str("_id").unwrap(), slot.get_i64("seq").unwrap());
        stale.push(Slot::open(&old, id, seq).await.unwrap());
    }
    // A fresh owner is not pushed aside, except by its own successor in the same election.
    assert_eq!(own(1).await.unwrap_err().reason(), Reason::OwnedElsewhere);
    let new = own(2).await.unwrap();
    assert!(new.epoch() > old.epoch());
    let insert = Operation::new("fenced", &doc! {"insert": "c", "documents": [{"_id": "stale"}]}).unwrap();
    for slot in &mut stale {
        let batch = std::slice::from_ref(&insert);
        let refused = slot.commit(doc! {}, doc! {}, || batch.to_vec(), Durability::Primary, &any_reply).await;
        let Err(Refusal::Engine(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.reason(), Reason::OwnershipLost, "{error}");
    }
    let state = old.update_sync(doc! {"stage": "Planning"}).unwrap();
    assert_eq!(old.write(vec![state]).await.unwrap_err().reason(), Reason::OwnershipLost);
    assert_eq!(owner::renew(&old).await.unwrap_err().reason(), Reason::OwnershipLost);
    assert!(world.tgt().collection::<Document>("c").find_one(doc! {"_id": "stale"}).await.unwrap().is_none());
    owner::renew(&new).await.unwrap();
    owner::release(&new).await.unwrap();
}

#[tokio::test]
async fn an_owner_that_looks_at_a_slow_source_stays_the_owner() {
    use clustersync::sync::endpoint::Endpoint;
    use clustersync::sync::endpoint::client::Side;
    use clustersync::sync::state::{Store, owner};

    let source = ReplicaSet::start(Options::new("slowlook")).await;
    let world = World::on(&source, &shared().await.1, "slow_look").await;
    world.fill("c", 100, 10).await;
    // Sizes are asked for before anything is recorded.
    let slow = doc! {
        "configureFailPoint": "failCommand",
        "mode": {"times": 1},
        "data": {"failCommands": ["dataSize"], "blockConnection": true, "blockTimeMS": 14_000},
    };
    source.members[0].direct().await.database("admin").run_command(slow).await.unwrap();
    let sync = world.start();
    tokio::time::sleep(owner::OWNER_TTL + Duration::from_secs(2)).await;
    let target = Endpoint::connect(Side::Target, &world.config().target).await.unwrap();
    let taken = owner::acquire(Store::new(target, "clustersync", "slow_look"), &holder()).await;
    assert_eq!(taken.unwrap_err().reason(), Reason::OwnedElsewhere);
    let epoch = sync.report().epoch;
    let report = sync.phase(Phase::Streaming).await;
    assert_eq!(report.epoch, epoch);
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_source_restored_from_an_older_backup_is_found() {
    let (_, target) = shared().await;
    let mut source = ReplicaSet::start(Options::new("rewound")).await;
    let world = World::on(&source, target, "rewound").await;
    world.fill("c", 50, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;

    let backup = crate::lab::process::Folder::new("backup");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
        assert!(status.success());
    };
    source.members[0].kill9();
    copy(source.members[0].folder(), &backup.0);
    source.members[0].start();
    source.primary().await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.coll("c").insert_one(doc! {"_id": "lost by the restore"}).await.unwrap();
    world.caught_up(&sync).await;
    sync.stop().await;

    source.members[0].kill9();
    let folder = source.members[0].folder().to_owned();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    copy(&backup.0, &folder);
    source.members[0].start();
    source.primary().await;
    world.coll("c").insert_one(doc! {"_id": "written after the restore"}).await.unwrap();
    let sync = world.start();
    let report = sync.stalled(Reason::SourceRewound).await;
    assert!(report.message.contains("restart"), "{}", report.message);
    sync.stop().await;
}

#[tokio::test]
async fn syncs_of_one_process_clone_one_after_the_other() {
    let (first, second) = (World::shared("queue_a").await, World::shared("queue_b").await);
    first.fill("c", 4_000, 1_000).await;
    second.fill("c", 100, 10).await;
    let share = Share::new(1, 0);
    let mut slow = first.config();
    slow.limits.bytes_per_second = 1 << 20;
    let one = Sync::start_within(slow, Desired::default(), &share);
    one.phase(Phase::Cloning).await;
    let other = Sync::start_within(second.config(), Desired::default(), &share);
    let queued = other.until("queued", |report| report.reason == Some(Reason::Queued)).await;
    assert_eq!(queued.phase, Phase::Pending);
    assert!(queued.message.contains("(1)"), "{}", queued.message);
    // While it waits, it does what it is told.
    other.want(DesiredState::Paused);
    other.phase(Phase::Paused).await;
    other.want(DesiredState::Running);
    other.until("queued again", |report| report.reason == Some(Reason::Queued)).await;
    assert_eq!(one.report().phase, Phase::Cloning);
    // A rest gives the slot away.
    one.want(DesiredState::Paused);
    other.phase(Phase::Streaming).await;
    one.want(DesiredState::Running);
    one.phase(Phase::Streaming).await;
    first.assert_identical(true).await;
    second.assert_identical(true).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_sync_that_is_created_paused_begins_when_it_is_resumed() {
    let world = World::shared("later").await;
    world.fill("c", 50, 10).await;
    let paused = Desired { state: DesiredState::Paused, ..Desired::default() };
    let sync = Sync::start_with(world.config(), paused);
    let report = sync.phase(Phase::Paused).await;
    assert_eq!(report.replication.checkpoint_time, None, "nothing is fixed that the oplog could outrun");
    world.coll("new").insert_one(doc! {"_id": 1}).await.unwrap();
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// An owner that froze before the state was deleted must not find its epoch again in the state that began anew.
#[tokio::test]
async fn a_state_that_begins_anew_has_no_epoch_of_before() {
    use clustersync::sync::endpoint::Endpoint;
    use clustersync::sync::endpoint::client::Side;
    use clustersync::sync::state::{Store, owner};

    let world = World::shared("epochs").await;
    let target = Endpoint::connect(Side::Target, &world.config().target).await.unwrap();
    let acquire = async || {
        owner::acquire(Store::new(target.clone(), "clustersync", "epochs"), &holder()).await.unwrap()
    };
    let old = acquire().await;
    owner::release(&old).await.unwrap();
    lifecycle::delete_state(&world.config()).await.unwrap();
    let new = acquire().await;
    assert!(new.epoch() > old.epoch());
    assert_eq!(owner::renew(&old).await.unwrap_err().reason(), Reason::OwnershipLost);
    owner::renew(&new).await.unwrap();
}
