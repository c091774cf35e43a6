//! What single members of a set do not show, or take back: lagging secondaries, and primaries that step down.

use std::time::Duration;

use clustersync::sync::catalog::read;
use clustersync::sync::endpoint::client::Side;
use clustersync::sync::endpoint::{Endpoint, EndpointConfig, Feature};
use clustersync::sync::error::Class;
use clustersync::sync::scope::Scope;
use clustersync::sync::{Desired, DesiredState, Phase};
use futures::StreamExt;
use mongodb::bson::{Document, doc};

use crate::lab::mongod::{Options, ReplicaSet};
use crate::world::{World, shared, uuid_of};

/// "Not there" on a member that lags would be "dropped", and the collection would be left out for ever.
#[tokio::test]
async fn a_collection_is_looked_up_on_a_member_that_has_caught_up() {
    let mut options = Options::new("lagging");
    options.members = 3;
    let set = ReplicaSet::start(options).await;
    let client = set.client().await;
    let db = client.database("lagging");
    db.create_collection("early").await.unwrap();
    let secondaries = async |mode: &str| {
        for member in &set.members[1..] {
            let point = doc! {"configureFailPoint": "rsSyncApplyStop", "mode": mode};
            member.direct().await.database("admin").run_command(point).await.unwrap();
        }
    };
    set.primary().await;
    secondaries("alwaysOn").await;
    let create = db.run_command(doc! {"create": "late", "writeConcern": {"w": 1}}).await.unwrap();
    let time = create.get_timestamp("operationTime").unwrap();
    let uuid = uuid_of(&db, "late").await;
    // Read from secondaries, unless told otherwise.
    let config = EndpointConfig::parse(&set.uri(), false).unwrap();
    let endpoint = Endpoint::connect(Side::Source, &config).await.unwrap();
    let looking = tokio::spawn(async move { read::by_uuid(&endpoint, uuid, time).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!looking.is_finished(), "it waits for the member");
    secondaries("off").await;
    assert!(looking.await.unwrap().unwrap().is_some(), "it is there");
}

/// A primary that steps down answers that a command was done, and that no majority has it: that is no success.
#[tokio::test]
async fn what_no_majority_has_is_done_again() {
    let (source, target) = tokio::join!(
        ReplicaSet::start(Options::new("concernsrc")),
        ReplicaSet::start(Options::new("concerntgt"))
    );
    let world = World::on(&source, &target, "concern").await;
    let admin = world.target.database("admin");
    let point = |mode: Document| {
        doc! {"configureFailPoint": "failCommand", "mode": mode, "data": {
            "failCommands": ["create", "drop", "findAndModify"], "namespace": "concern.c",
            "writeConcernError": {"code": 11602, "errmsg": "stepped down"},
        }}
    };
    let config = EndpointConfig::parse(&target.uri(), false).unwrap();
    let endpoint = Endpoint::connect(Side::Target, &config).await.unwrap();
    admin.run_command(point(doc! {"times": 1})).await.unwrap();
    let error = endpoint.command("concern", doc! {"create": "c"}).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Transient, Some(11602)));
    world.target.database("concern").drop().await.unwrap();

    world.fill("c", 10, 10).await;
    admin.run_command(point(doc! {"times": 2})).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A stream begins behind the last operation that was applied. A creation that was numbered before it and is committed
/// after it is no event; without `$listCatalog` it was in no listing either.
#[tokio::test]
async fn what_is_being_created_when_the_stream_begins_is_copied() {
    let source = ReplicaSet::start(Options::new("holesource")).await;
    let world =
        World { avoid: vec![Feature::ListCatalog], ..World::on(&source, &shared().await.1, "hole").await };
    world.fill("c", 10, 10).await;
    let admin = source.members[0].direct().await.database("admin");
    let hang = |mode: &str| doc! {"configureFailPoint": "hangBeforeLoggingCreateCollection", "mode": mode};
    let primary = doc! {"w": 1};
    admin.run_command(hang("alwaysOn")).await.unwrap();
    let creating = tokio::spawn({
        let create = doc! {"create": "late", "writeConcern": primary.clone()};
        let db = world.src();
        async move { db.run_command(create).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = doc! {"insert": "c", "documents": [{"_id": "later"}], "writeConcern": primary};
    world.src().run_command(later).await.unwrap();
    let sync = world.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!creating.is_finished(), "it does not hang");
    admin.run_command(hang("off")).await.unwrap();
    creating.await.unwrap().unwrap();
    world.coll("late").insert_one(doc! {"_id": 1}).await.unwrap();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A set whose only secondary has no vote: a majority has what the primary has, however far the secondary is behind.
async fn with_a_follower(name: &str) -> ReplicaSet {
    let mut options = Options::new(name);
    options.members = 2;
    let set = ReplicaSet::start(options).await;
    let admin = set.client().await.database("admin");
    let mut config = admin.run_command(doc! {"replSetGetConfig": 1}).await.unwrap();
    let mut config = config.remove("config").unwrap().as_document().unwrap().clone();
    config.insert("version", config.get_i32("version").unwrap() + 1);
    let follower = config.get_array_mut("members").unwrap()[1].as_document_mut().unwrap();
    follower.extend(doc! {"votes": 0, "priority": 0});
    admin.run_command(doc! {"replSetReconfig": config}).await.unwrap();
    set
}

async fn apply(set: &ReplicaSet, mode: &str) {
    let point = doc! {"configureFailPoint": "rsSyncApplyStop", "mode": mode};
    set.members[1].direct().await.database("admin").run_command(point).await.unwrap();
}

/// A cursor that is opened in the middle of a transaction, on a member that does not have it yet, answers with nothing and
/// with the token that it was given: that is not the transaction's end.
#[tokio::test]
async fn a_member_that_lags_does_not_end_a_transaction() {
    let source = with_a_follower("middlesrc").await;
    let world = World::on(&source, &shared().await.1, "middle").await;
    world.fill("c", 300, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.stop().await;

    let mut events = world.source.watch().show_expanded_events(true).await.unwrap();
    apply(&source, "alwaysOn").await;
    let mut session = world.source.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let update = doc! {"$set": {"in": "the transaction"}};
    world.coll("c").update_many(doc! {}, update.clone()).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
    // As a run leaves it that ended behind the hundredth event: its time is not complete.
    let mut token = Document::new();
    for _ in 0..100 {
        let event = events.next().await.unwrap().unwrap();
        world
            .tgt()
            .collection::<Document>("c")
            .update_one(event.document_key.unwrap(), update.clone())
            .await
            .unwrap();
        token = mongodb::bson::serialize_to_document(&event.id).unwrap();
    }
    let state = world.target.database("clustersync").collection::<Document>("syncs");
    let set = doc! {"$set": {"checkpoint.token": token.get_str("_data").unwrap()}};
    state.update_one(doc! {"_id": "middle"}, set).await.unwrap();

    let completing = Desired { state: DesiredState::Completed, ..Desired::default() };
    let sync = crate::world::Sync::start_with(world.config(), completing);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_ne!(sync.report().phase, Phase::Completed, "200 events are to come");
    apply(&source, "off").await;
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// What was created before the stream began is in no event: a member that lags must not be asked for what there is.
#[tokio::test]
async fn collections_are_listed_on_a_member_that_has_them() {
    let set = with_a_follower("listing").await;
    let db = set.client().await.database("listing");
    db.create_collection("early").await.unwrap();
    apply(&set, "alwaysOn").await;
    let created = db.run_command(doc! {"create": "late"}).await.unwrap();
    let time = created.get_timestamp("operationTime").unwrap();
    let config = EndpointConfig::parse(&set.uri(), false).unwrap().without(Feature::ListCatalog);
    let endpoint = Endpoint::connect(Side::Source, &config).await.unwrap();
    let scope = Scope::new(&["listing.*".to_owned()], &[]).unwrap();
    let listing = read::read(&endpoint, &scope, time);
    let listed =
        tokio::time::timeout(Duration::from_secs(20), listing).await.expect("the primary has it").unwrap();
    let names: Vec<String> = listed.collections.iter().map(|one| one.namespace.coll.clone()).collect();
    assert_eq!(names, ["early", "late"]);
    apply(&set, "off").await;
}
