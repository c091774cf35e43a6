//! DDL while streaming.

use std::time::Duration;

use clustersync::sync::config::OnExistingData;
use clustersync::sync::scope::Scope;
use clustersync::sync::{DesiredState, Phase, Reason, lifecycle};
use futures::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, Timestamp, doc, serialize_to_document};
use mongodb::options::{CreateCollectionOptions, IndexOptions};

use crate::clone::index;
use crate::kill::Worker;
use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::{Sync, World, shared, uuid_of};

#[tokio::test]
async fn ddl_is_followed() {
    let world = World::shared("ddl").await;
    for name in ["a", "b", "c", "d"] {
        world.fill(name, 300, 20).await;
    }
    index(&world, "a", doc! {"n": 1}, IndexOptions::default()).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    // create with options, and data at once
    let options = doc! {"create": "made", "collation": {"locale": "en", "strength": 2}, "validator": {"n": {"$gte": 0}}};
    world.src().run_command(options).await.unwrap();
    world.coll("made").insert_one(doc! {"_id": 1, "n": 5}).await.unwrap();
    // indexes: new, unique, dropped, dropped and made again otherwise
    index(&world, "b", doc! {"n": 1}, IndexOptions::default()).await;
    index(&world, "b", doc! {"u": -1}, IndexOptions::builder().unique(true).build()).await;
    world.coll("a").drop_index("n_1").await.unwrap();
    index(&world, "a", doc! {"n": 1}, IndexOptions::builder().sparse(true).build()).await;
    // rename, rename over another, drop and create again under the same name
    let admin = world.source.database("admin");
    admin.run_command(doc! {"renameCollection": "ddl.a", "to": "ddl.a2"}).await.unwrap();
    world.coll("a2").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    admin.run_command(doc! {"renameCollection": "ddl.c", "to": "ddl.d", "dropTarget": true}).await.unwrap();
    world.coll("d").delete_one(doc! {"_id": 3}).await.unwrap();
    world.coll("b").insert_one(doc! {"_id": "x", "u": "x"}).await.unwrap();
    world.coll("made").drop().await.unwrap();
    world.coll("made").insert_one(doc! {"_id": "again"}).await.unwrap();
    // a transaction that creates
    let mut session = world.source.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    world.coll("in_txn").insert_one(doc! {"_id": 1}).session(&mut session).await.unwrap();
    world
        .coll("a2")
        .update_one(doc! {"_id": 1}, doc! {"$set": {"txn": true}})
        .session(&mut session)
        .await
        .unwrap();
    session.commit_transaction().await.unwrap();
    world.caught_up(&sync).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    world.assert_identical(true).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

#[tokio::test]
async fn ddl_that_is_not_followed_stops_the_sync_by_name() {
    let world = World::shared("ddl_stop").await;
    world.fill("c", 10, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.src().run_command(doc! {"create": "series", "timeseries": {"timeField": "t"}}).await.unwrap();
    let report = sync.stalled(Reason::UnsupportedEvent).await;
    assert!(
        report.message.contains("create") && report.message.contains("ddl_stop.series"),
        "{}",
        report.message
    );
    sync.stop().await;
}

#[tokio::test]
async fn ddl_during_the_clone_is_followed() {
    let world = World::shared("ddl_clone").await;
    for number in 0..6 {
        world.fill(&format!("c{number}"), 12_000, 800).await;
    }
    let mut config = world.config();
    config.limits.bytes_per_second = 12 << 20;
    config.initial_sync.parallel_collections = 2;
    let sync = crate::world::Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.documents > 2_000).await;
    let admin = world.source.database("admin");
    world.coll("c0").drop().await.unwrap();
    admin.run_command(doc! {"renameCollection": "ddl_clone.c1", "to": "ddl_clone.r1"}).await.unwrap();
    admin.run_command(doc! {"renameCollection": "ddl_clone.c5", "to": "ddl_clone.r5"}).await.unwrap();
    world.coll("c4").drop().await.unwrap();
    index(&world, "c3", doc! {"n": 1}, IndexOptions::default()).await;
    world.coll("r5").update_many(doc! {"n": 3}, doc! {"$set": {"late": 1}}).await.unwrap();
    world.fill("new", 30, 10).await;
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A worker that had copied all there is, and ended without a word.
async fn killed_while_streaming(world: &World) {
    let mut worker = Worker::start(world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    worker.kill();
}

/// Killed between a rename on the target and its record, it copies what was renamed anew, since it is capped, before or
/// after it meets the rename again: what stands under the new name is not in the way.
async fn killed_in_a_rename(db: &str, replaced_is_capped: bool, copied_first: bool) {
    let world = World::shared(db).await;
    let capped = CreateCollectionOptions::builder().capped(true).size(1 << 20).build();
    world.src().create_collection("log").with_options(capped.clone()).await.unwrap();
    if replaced_is_capped {
        world.src().create_collection("replaced").with_options(capped).await.unwrap();
    }
    world.fill("log", 20, 10).await;
    world.fill("replaced", 30, 10).await;
    killed_while_streaming(&world).await;
    let rename = async |client: &mongodb::Client| {
        let (from, to) = (format!("{db}.log"), format!("{db}.replaced"));
        let command = doc! {"renameCollection": from, "to": to, "dropTarget": true};
        client.database("admin").run_command(command).await.unwrap();
    };
    let syncs = world.target.database("clustersync").collection::<Document>("syncs");
    syncs.update_one(doc! {"_id": db}, doc! {"$set": {"intent": {"token": ""}}}).await.unwrap();
    rename(&world.target).await;
    if !copied_first {
        rename(&world.source).await;
    }
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    if copied_first {
        rename(&world.source).await;
    }
    world.coll("replaced").insert_one(doc! {"_id": "after"}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn killed_in_a_rename_of_a_capped_collection_it_renames_the_copy() {
    tokio::join!(
        killed_in_a_rename("half_renamed", false, true),
        killed_in_a_rename("half_renamed_onto_capped", true, true)
    );
}

#[tokio::test]
async fn killed_in_a_rename_of_a_capped_collection_it_copies_under_the_new_name() {
    tokio::join!(
        killed_in_a_rename("renamed_half", false, false),
        killed_in_a_rename("renamed_half_onto_capped", true, false)
    );
}

/// Killed in DDL that comes after the fence of then: that is done before the cutover, since nobody would end it later.
#[tokio::test]
async fn a_cutover_ends_ddl_that_is_half_done() {
    let world = World::shared("half_done_at_cutover").await;
    world.fill("c", 10, 10).await;
    killed_while_streaming(&world).await;
    let mut events = world.src().watch().show_expanded_events(true).await.unwrap();
    world.src().create_collection("made").await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    let token = serialize_to_document(&event.id).unwrap().get_str("_data").unwrap().to_owned();
    let long_ago = Timestamp { time: 1, increment: 1 };
    let completing = doc! {"$set": {
        "stage": "Completing",
        "completion": {"requestedAt": "2026-01-01T00:00:00Z", "fence": long_ago, "committedAt": null},
        "intent": {"token": token},
    }};
    let syncs = world.target.database("clustersync").collection::<Document>("syncs");
    syncs.update_one(doc! {"_id": &world.db}, completing).await.unwrap();
    let sync = world.start();
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// Killed when it had created a collection and not recorded its UUID, and the source has it no more: it goes.
#[tokio::test]
async fn what_was_begun_and_is_gone_from_the_source_does_not_stay() {
    let world = World::shared("begun_and_gone").await;
    let capped = CreateCollectionOptions::builder().capped(true).size(1 << 20).build();
    world.src().create_collection("log").with_options(capped).await.unwrap();
    world.fill("other", 20, 10).await;
    killed_while_streaming(&world).await;
    let records = world.target.database("clustersync").collection::<Document>("collections");
    let begun = doc! {"$set": {"state": "Creating", "late": true, "targetUuid": null}};
    let found = records.find_one_and_update(doc! {"target": "begun_and_gone.log"}, begun).await.unwrap();
    assert_eq!(found.unwrap().get_str("state").unwrap(), "Cloned");
    world.coll("log").drop().await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.src().create_collection("log").await.unwrap();
    world.coll("log").insert_one(doc! {"_id": "anew"}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// Killed between a rename on the target and its record, where what is replaced was not copied yet: what stands in its
/// place is the other's copy, not something that is in the way.
#[tokio::test]
async fn killed_in_a_rename_onto_what_waits_for_its_clone_it_keeps_the_copy() {
    let world = World::shared("renamed_onto_pending").await;
    world.fill("copied", 20, 10).await;
    world.fill("waits", 30, 10).await;
    killed_while_streaming(&world).await;
    let state = world.target.database("clustersync");
    let waits = doc! {"$set": {"state": "Pending", "targetUuid": null, "cloneEnd": null}};
    let records = state.collection::<Document>("collections");
    let changed = records.update_one(doc! {"target": "renamed_onto_pending.waits"}, waits).await.unwrap();
    assert_eq!(changed.modified_count, 1);
    let intent = doc! {"$set": {"intent": {"token": ""}, "stage": "Cloning"}};
    state.collection::<Document>("syncs").update_one(doc! {"_id": &world.db}, intent).await.unwrap();
    let rename = async |client: &mongodb::Client| {
        let (from, to) = ("renamed_onto_pending.copied", "renamed_onto_pending.waits");
        let command = doc! {"renameCollection": from, "to": to, "dropTarget": true};
        client.database("admin").run_command(command).await.unwrap();
    };
    rename(&world.target).await;
    let sync = world.start();
    // Not before the clone has met it.
    sync.phase(Phase::Streaming).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let error = sync.report().replication.last_error;
    assert!(error.is_none_or(|error| error.reason != "TargetNotEmpty"), "its own copy is in its way");
    rename(&world.source).await;
    world.coll("waits").insert_one(doc! {"_id": "after"}).await.unwrap();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn renamed_to_where_the_users_own_stands() {
    let world = World::shared("own_stands").await;
    world.fill("c", 20, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.tgt().collection("name").insert_one(doc! {"_id": "precious"}).await.unwrap();
    let rename = doc! {"renameCollection": "own_stands.c", "to": "own_stands.name"};
    world.source.database("admin").run_command(rename).await.unwrap();
    let report = sync.stalled(Reason::TargetNotEmpty).await;
    assert!(report.message.contains("own_stands.name"), "{}", report.message);
    sync.stop().await;
    let mut config = world.config();
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A refusal leaves nothing behind that a later look would take for ours.
#[tokio::test]
async fn what_was_refused_stays_refused() {
    let world = World::shared("refused_twice").await;
    world.fill("c", 5, 10).await;
    let cases = [
        (
            "seen",
            doc! {"create": "seen", "viewOn": "mine", "pipeline": []},
            doc! {"create": "seen", "viewOn": "c", "pipeline": []},
        ),
        ("empty", doc! {"create": "empty", "validator": {"mine": true}}, doc! {"create": "empty"}),
    ];
    for (name, own, theirs) in cases {
        let sync = world.start();
        sync.phase(Phase::Streaming).await;
        world.tgt().run_command(own).await.unwrap();
        let listed = async || {
            let list = doc! {"listCollections": 1, "filter": {"name": name}};
            let reply = world.tgt().run_command(list).await.unwrap();
            reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap().clone()
        };
        let before = listed().await;
        world.src().run_command(theirs).await.unwrap();
        let report = sync.stalled(Reason::TargetNotEmpty).await;
        assert!(report.message.contains(&format!("refused_twice.{name}")), "{}", report.message);
        sync.stop().await;
        let sync = world.start();
        sync.stalled(Reason::TargetNotEmpty).await;
        sync.stop().await;
        assert_eq!(listed().await, before);
        world.tgt().collection::<Document>(name).drop().await.unwrap();
    }
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// Whoever may drop what stands on the target may not drop what another sync keeps there.
#[tokio::test]
async fn a_name_that_another_sync_holds_is_left_alone() {
    let world = World::shared("held").await;
    let source = ReplicaSet::start(Options::new("elsewhere")).await;
    let other = World::on(&source, &shared().await.1, "held").await;
    world.fill("y", 7, 10).await;
    let mut config = world.config();
    config.scope = Scope::new(&["held.y".to_owned()], &[]).unwrap();
    let holds = Sync::start(config);
    holds.phase(Phase::Streaming).await;
    for drops in [doc! {"create": "y"}, doc! {"renameCollection": "held.x", "to": "held.y"}] {
        other.fill("x", 5, 10).await;
        let mut config = other.config();
        config.id = format!("held-{}", drops.keys().next().unwrap());
        config.initial_sync.on_existing_data = OnExistingData::Drop;
        let sync = Sync::start(config.clone());
        sync.phase(Phase::Streaming).await;
        let db = if drops.contains_key("create") { "held" } else { "admin" };
        other.source.database(db).run_command(drops).await.unwrap();
        let report = sync.stalled(Reason::TargetInUse).await;
        assert!(report.message.contains("held.y"), "{}", report.message);
        sync.stop().await;
        lifecycle::delete_state(&config).await.unwrap();
        other.src().drop().await.unwrap();
    }
    world.coll("y").insert_one(doc! {"_id": "later"}).await.unwrap();
    world.caught_up(&holds).await;
    let kept = world.tgt().collection::<Document>("y").count_documents(doc! {}).await.unwrap();
    assert_eq!(kept, 8);
    holds.stop().await;
}

/// A catalogue that is read piece by piece is later than the events that come first: a name may be another collection's by
/// then.
#[tokio::test]
async fn what_came_and_went_while_the_catalogue_was_listed() {
    let world = World::shared("listed_late").await;
    world.fill("c", 5, 10).await;
    world.fill("d", 5, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.stop().await;
    // One that is made, goes, and is made again; and two that are passed through one name.
    world.src().create_collection("made").await.unwrap();
    world.coll("made").drop().await.unwrap();
    world.fill("made", 5, 10).await;
    let rename = async |from: &str, to: &str| {
        let names =
            doc! {"renameCollection": format!("listed_late.{from}"), "to": format!("listed_late.{to}")};
        world.source.database("admin").run_command(names).await.unwrap();
    };
    rename("c", "name").await;
    rename("name", "e").await;
    rename("d", "name").await;

    // As if it had been listed now: `made` and its copy, and what has the name last.
    let copied: Vec<Document> = world.coll("made").find(doc! {}).await.unwrap().try_collect().await.unwrap();
    world.tgt().collection("made").insert_many(copied).await.unwrap();
    let state = world.target.database("clustersync");
    let records = state.collection::<Document>("collections");
    let filter = |name: &str| doc! {"sync": "listed_late", "source": format!("listed_late.{name}")};
    let mut made = records.find_one(filter("c")).await.unwrap().unwrap();
    let uuid = uuid_of(&world.src(), "made").await;
    let far = Timestamp { time: u32::MAX, increment: 1 };
    let now =
        world.src().run_command(doc! {"ping": 1}).await.unwrap().get_timestamp("operationTime").unwrap();
    made.insert("_id", format!("listed_late/{uuid}"));
    made.insert("uuid", uuid);
    made.insert("targetUuid", uuid_of(&world.tgt(), "made").await);
    for side in ["source", "target"] {
        made.insert(side, "listed_late.made");
    }
    made.insert("readTime", now);
    made.insert("cloneEnd", now);
    records.insert_one(made).await.unwrap();
    let admin = world.target.database("admin");
    admin.run_command(doc! {"renameCollection": "listed_late.d", "to": "listed_late.name"}).await.unwrap();
    let name = doc! {"$set": {"source": "listed_late.name", "target": "listed_late.name"}};
    records.update_one(filter("d"), name).await.unwrap();
    let claims =
        ["made", "name"].map(|name| doc! {"_id": format!("listed_late.{name}"), "sync": "listed_late"});
    state.collection::<Document>("claims").insert_many(claims).await.unwrap();
    let listed = doc! {"$set": {"listedUntil": far}};
    state.collection::<Document>("syncs").update_one(doc! {"_id": "listed_late"}, listed).await.unwrap();

    let mut config = world.config();
    config.initial_sync.on_existing_data = OnExistingData::Drop;
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.coll("made").insert_one(doc! {"_id": "later"}).await.unwrap();
    world.coll("name").insert_one(doc! {"_id": "later"}).await.unwrap();
    world.coll("e").insert_one(doc! {"_id": "later"}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// Events that a failover took back come again, and must find their collection: nothing is dropped before it is known that
/// none was taken back.
#[tokio::test]
async fn a_drop_waits_for_what_a_failover_took_back() {
    let world = World::shared("taken_back").await;
    world.fill("c", 10, 10).await;
    let mut config = world.config();
    config.replication.checkpoint_interval = Duration::from_secs(300);
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.coll("c").insert_one(doc! {"_id": "new"}).await.unwrap();
    world.caught_up(&sync).await;
    let slots = world.target.database("clustersync").collection::<Document>("slots");
    let back = doc! {"$inc": {"seq": -1_i64}};
    slots.update_many(doc! {"sync": &world.db, "kind": "lane"}, back).await.unwrap();
    world.coll("c").drop().await.unwrap();
    let holds = |message: &str| message.contains("does not hold batch");
    sync.until("looked at", |report| {
        report.replication.last_error.as_ref().is_some_and(|error| holds(&error.message))
    })
    .await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
