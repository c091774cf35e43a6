//! The clone, the stream after it, pause, completion, filters.

use clustersync::sync::config::{InitialSync, OnExistingData};
use clustersync::sync::scope::Scope;
use clustersync::sync::{DesiredState, Phase};
use mongodb::IndexModel;
use mongodb::bson::{Bson, Document, Timestamp, doc, oid::ObjectId};
use mongodb::options::IndexOptions;

use crate::world::{Sync, World};

pub async fn index(world: &World, name: &str, keys: Document, options: IndexOptions) {
    world.coll(name).create_index(IndexModel::builder().keys(keys).options(options).build()).await.unwrap();
}

fn unique() -> IndexOptions {
    IndexOptions::builder().unique(true).build()
}

#[tokio::test]
async fn a_sync_clones_streams_pauses_and_cuts_over() {
    let world = World::shared("whole").await;
    world.fill("big", 60_000, 600).await;
    world.fill("small", 100, 10).await;
    world.src().create_collection("empty").await.unwrap();
    index(&world, "big", doc! {"n": 1}, IndexOptions::default()).await;
    index(&world, "big", doc! {"u": 1}, unique()).await;
    index(&world, "small", doc! {"u": 1}, unique()).await;
    let ttl = IndexOptions::builder().expire_after(std::time::Duration::from_secs(100_000)).build();
    index(&world, "small", doc! {"at": 1}, ttl).await;
    let sync = world.start();
    for n in 0..200 {
        world
            .coll("big")
            .update_one(doc! {"_id": n * 3}, doc! {"$set": {"s.b": n}, "$inc": {"n": 1}})
            .await
            .unwrap();
        world.coll("big").delete_one(doc! {"_id": 50_000 - n}).await.unwrap();
    }
    let report = sync.phase(Phase::Streaming).await;
    assert_eq!(report.initial_sync.collections_done, 3);
    assert!(report.initial_sync.partitions_done >= 9, "{:?}", report.initial_sync);
    world
        .coll("big")
        .update_many(doc! {"n": 5}, doc! {"$push": {"list": {"$each": [1, 2, 3]}}})
        .await
        .unwrap();
    world.caught_up(&sync).await;
    // Builds run in the background; wait for the last.
    sync.until("caught up", |_| true).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    world.assert_identical(true).await;

    sync.want(DesiredState::Paused);
    sync.phase(Phase::Paused).await;
    world.coll("small").insert_one(doc! {"_id": "while paused", "u": "p"}).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!world.differences(true).await.is_empty(), "a paused sync wrote");
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    let completion = report.completion.unwrap();
    assert!(
        completion.committed_at.is_some() && completion.unsuccessful_indexes.is_empty(),
        "{completion:?}"
    );
    world.assert_identical(false).await;
    sync.stop().await;
}

#[tokio::test]
async fn any_id_and_any_value_travels_unchanged() {
    let world = World::shared("values").await;
    let ids: Vec<Bson> = vec![
        1.into(),
        Bson::Double(1.5),
        Bson::Int64(2),
        Bson::Decimal128("3.10".parse().unwrap()),
        "text".into(),
        "".into(),
        Bson::Null,
        ObjectId::new().into(),
        true.into(),
        doc! {"a": 1, "b": [1]}.into(),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Double(f64::NAN),
        Bson::Timestamp(Timestamp { time: 0, increment: 0 }),
        mongodb::bson::DateTime::from_millis(-5).into(),
    ];
    let values = doc! {
        "zero": Bson::Timestamp(Timestamp { time: 1, increment: 1 }), "minus": -0.0, "inf": f64::INFINITY,
        "nested": {"": 1, "x.y": {"$z": 2}}, "dec": Bson::Decimal128("1E+3".parse().unwrap()), "sym": Bson::Symbol("s".into()),
        "list": [Bson::Undefined, Bson::MinKey],
    };
    let documents: Vec<Document> = ids
        .iter()
        .map(|id| {
            let mut document = doc! {"_id": id.clone()};
            document.extend(values.clone());
            document
        })
        .collect();
    world.coll("before").insert_many(&documents).await.unwrap();
    // Only a pipeline stores a zero timestamp at the top level: a plain insert puts the server's clock there.
    let zero = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
    let stored = vec![doc! {"$set": {"zero": {"$literal": zero.clone()}}}];
    world.coll("before").update_many(doc! {}, stored).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    let whole = vec![doc! {"$replaceWith": {"$literal": {"_id": "zero", "t": zero}}}];
    world
        .coll("replaced")
        .insert_one(doc! {"_id": "zero", "a": 1, "b": "long enough to be replaced"})
        .await
        .unwrap();
    world.coll("replaced").update_one(doc! {"_id": "zero"}, whole).await.unwrap();
    world.coll("after").insert_many(&documents).await.unwrap();
    for (number, id) in ids.iter().enumerate() {
        let filter = doc! {"_id": {"$eq": id.clone()}};
        // An update by pipeline can store what an insert would replace: a zero timestamp.
        let zero = vec![
            doc! {"$set": {"zero": {"$literal": Bson::Timestamp(Timestamp { time: 0, increment: 0 })}, "n": number as i32}},
        ];
        world.coll("before").update_one(filter.clone(), zero).await.unwrap();
        let replaced = vec![
            doc! {"$replaceWith": {"$literal": {"_id": id.clone(), "$dollar": 1, "dot.ted": Bson::Timestamp(Timestamp { time: 0, increment: 0 })}}},
        ];
        let _ = world.coll("after").update_one(filter, replaced).await;
    }
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn filters_keep_the_rest_away() {
    let world = World::shared("filtered").await;
    for name in ["orders", "tmp_1", "customers"] {
        world.fill(name, 50, 10).await;
    }
    let mut config = world.config();
    config.scope =
        Scope::new(&["filtered.*".into()], &["filtered.tmp_*".into(), "filtered.customers".into()]).unwrap();
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.fill("tmp_2", 5, 1).await;
    world.coll("tmp_1").drop().await.unwrap();
    world.fill("later", 5, 1).await;
    world.caught_up(&sync).await;
    let mut names = world.tgt().list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["later", "orders"]);
    sync.stop().await;
}

#[tokio::test]
async fn existing_data_is_kept_unless_asked_otherwise() {
    let world = World::shared("existing").await;
    world.fill("c", 20, 10).await;
    world.tgt().collection("c").insert_one(doc! {"_id": "precious"}).await.unwrap();
    let sync = world.start();
    let report = sync.stalled(clustersync::sync::Reason::TargetNotEmpty).await;
    assert!(report.message.contains("existing.c"), "{}", report.message);
    sync.stop().await;
    let kept: Option<Document> =
        world.tgt().collection("c").find_one(doc! {"_id": "precious"}).await.unwrap();
    assert!(kept.is_some());
    let mut config = world.config();
    config.initial_sync = InitialSync { on_existing_data: OnExistingData::Drop, ..InitialSync::default() };
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_pause_in_the_clone_keeps_what_is_done() {
    let world = World::shared("paused_clone").await;
    world.fill("big", 50_000, 900).await;
    let mut config = world.config();
    config.limits.bytes_per_second = 20 << 20;
    let sync = Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.partitions_done >= 2).await;
    sync.want(DesiredState::Paused);
    let report = sync.phase(Phase::Paused).await;
    let copied = report.initial_sync.documents_copied;
    assert!(copied < 50_000, "it was too fast to be paused");
    world.coll("big").update_many(doc! {"n": 3}, doc! {"$set": {"paused": true}}).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(sync.report().initial_sync.documents_copied, copied, "a paused clone went on");
    sync.want(DesiredState::Running);
    let report = sync.phase(Phase::Streaming).await;
    assert_eq!(report.initial_sync.documents_copied, 50_000, "documents were copied twice");
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A clone goes on at the document at which it stopped, which it knows by its bytes.
#[tokio::test]
async fn an_id_that_comes_back_in_other_bytes_where_the_clone_goes_on() {
    let world = World::shared("other_bytes").await;
    let create = doc! {"create": "c", "collation": {"locale": "en", "strength": 2}};
    world.src().run_command(create).await.unwrap();
    let filler = "x".repeat(400_000);
    let document = |id: &str| doc! {"_id": id, "filler": &filler};
    let ids: Vec<String> = (0..16).map(|n| format!("a{n:02}")).collect();
    world.coll("c").insert_many(ids.iter().map(|id| document(id))).await.unwrap();
    let mut config = world.config();
    config.limits.bytes_per_second = 1 << 20;
    let sync = Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.documents_copied > 1).await;
    sync.want(DesiredState::Paused);
    let report = sync.phase(Phase::Paused).await;
    assert!(report.initial_sync.documents_copied < 16, "it was too fast to be paused");
    for id in &ids {
        // Equal to what stands there, under the collation.
        world.coll("c").delete_one(doc! {"_id": id.to_uppercase()}).await.unwrap();
        world.coll("c").insert_one(document(&id.to_uppercase())).await.unwrap();
    }
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
