//! What single members of a set do not show, or take back: lagging secondaries, and primaries that step down.

use std::time::Duration;

use clustersync::sync::Phase;
use clustersync::sync::catalog::read;
use clustersync::sync::endpoint::client::Side;
use clustersync::sync::endpoint::{Endpoint, EndpointConfig, Feature};
use clustersync::sync::error::Class;
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
