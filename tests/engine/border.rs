//! What crosses the border of the scope, and sources that offer less.

use clustersync::sync::endpoint::Feature;
use clustersync::sync::scope::Scope;
use clustersync::sync::{DesiredState, Phase};
use mongodb::bson::{Document, Timestamp, doc};

use crate::lab::compare::{Judge, compare};
use crate::world::{Sync, World};

async fn names(world: &World) -> Vec<String> {
    let mut names = world.tgt().list_collection_names().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn renames_and_out_across_the_border() {
    let world = World::shared("border").await;
    for name in ["in_kept", "in_leaves", "in_replaced", "out_enters", "out_replaces", "out_stays"] {
        world.fill(name, 50, 10).await;
    }
    let mut config = world.config();
    config.scope = Scope::new(&["border.in_*".to_owned()], &["border.in_secret*".to_owned()]).unwrap();
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    let admin = world.source.database("admin");
    let rename = |from: &str, to: &str, drop: bool| {
        doc! {"renameCollection": format!("border.{from}"), "to": format!("border.{to}"), "dropTarget": drop}
    };
    for command in [
        rename("in_leaves", "out_left", false),
        rename("out_enters", "in_entered", false),
        rename("out_replaces", "in_replaced", true),
        rename("out_stays", "out_stayed", false),
    ] {
        admin.run_command(command).await.unwrap();
    }
    world.coll("in_entered").insert_one(doc! {"_id": "more"}).await.unwrap();
    world.coll("in_replaced").update_one(doc! {"_id": 1}, doc! {"$set": {"x": 1}}).await.unwrap();
    world.coll("out_left").insert_one(doc! {"_id": "unseen"}).await.unwrap();
    world.coll("in_secret").insert_one(doc! {"_id": 1}).await.unwrap();
    world.fill("in_later", 5, 10).await;
    let out = vec![doc! {"$match": {"_id": {"$lt": 5}}}, doc! {"$out": "in_out"}];
    world.src().run_command(doc! {"aggregate": "out_stayed", "pipeline": out, "cursor": {}}).await.unwrap();
    world.caught_up(&sync).await;
    let expected = ["in_entered", "in_kept", "in_later", "in_out", "in_replaced"];
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    assert_eq!(names(&world).await, expected);
    for name in expected {
        let differences = differences(&world, name).await;
        assert!(differences.is_empty(), "{differences:?}");
    }
    sync.stop().await;
}

/// Out of the scope and back while it waits for its clone: what came back is cloned, under the name that it has then.
#[tokio::test]
async fn out_of_the_scope_and_back_before_its_clone() {
    let world = World::shared("out_and_back").await;
    for name in ["c0", "c1", "c2"] {
        world.fill(name, 12_000, 800).await;
    }
    let mut config = world.config();
    config.scope = Scope::new(&["out_and_back.c*".to_owned()], &[]).unwrap();
    config.limits.bytes_per_second = 12 << 20;
    config.initial_sync.parallel_collections = 1;
    let sync = Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.documents > 2_000).await;
    let admin = world.source.database("admin");
    for (from, to) in [("c2", "tmp"), ("tmp", "c_back")] {
        let (from, to) = (format!("out_and_back.{from}"), format!("out_and_back.{to}"));
        admin.run_command(doc! {"renameCollection": from, "to": to}).await.unwrap();
    }
    world.coll("c_back").update_many(doc! {"n": 3}, doc! {"$set": {"late": 1}}).await.unwrap();
    sync.phase(Phase::Streaming).await;
    world.coll("c_back").insert_one(doc! {"_id": "after"}).await.unwrap();
    world.caught_up(&sync).await;
    assert_eq!(names(&world).await, ["c0", "c1", "c_back"]);
    world.assert_identical(true).await;
    sync.stop().await;
}

/// Of one collection: the others are on one side only.
async fn differences(world: &World, name: &str) -> Vec<String> {
    let judge = Judge { databases: vec![world.db.clone()], before_completion: false };
    let mut all = compare(&world.source, &world.target, &judge).await;
    all.retain(|line| line.contains(&format!("{}.{name} ", world.db)));
    all
}

#[tokio::test]
async fn a_database_that_is_dropped_takes_only_what_is_in_scope() {
    let world = World::shared("droppeddb").await;
    world.fill("c", 10, 10).await;
    world.fill("excluded", 10, 10).await;
    world
        .tgt()
        .collection::<Document>("excluded")
        .insert_one(doc! {"_id": "the target's own"})
        .await
        .unwrap();
    let mut config = world.config();
    config.scope = Scope::new(&["droppeddb.*".to_owned()], &["droppeddb.excluded".to_owned()]).unwrap();
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.src().drop().await.unwrap();
    world.fill("again", 3, 10).await;
    world.caught_up(&sync).await;
    assert_eq!(names(&world).await, ["again", "excluded"]);
    sync.stop().await;
}

async fn with_less(db: &str, features: &[Feature]) -> Vec<String> {
    let world = World { avoid: features.to_vec(), ..World::shared(db).await };
    world.fill("c", 500, 10).await;
    world.src().run_command(doc! {"create": "v", "viewOn": "c", "pipeline": []}).await.unwrap();
    world.src().run_command(doc! {"create": "cap", "capped": true, "size": 4096}).await.unwrap();
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"n": 1}, "name": "n", "hidden": true}]};
    world.src().run_command(index).await.unwrap();
    let sync = world.start();
    let writer = {
        let collection = world.coll("c");
        tokio::spawn(async move {
            for n in 0..400 {
                let set = doc! {"$set": {"x": n, "list.1": n}, "$unset": {"n": 1}};
                collection.update_one(doc! {"_id": n % 50}, set).await.unwrap();
                if n % 7 == 0 {
                    collection.delete_one(doc! {"_id": n + 50}).await.unwrap();
                }
            }
        })
    };
    let warnings = sync.phase(Phase::Streaming).await.warnings;
    writer.await.unwrap();
    let admin = world.source.database("admin");
    admin.run_command(doc! {"renameCollection": format!("{db}.c"), "to": format!("{db}.d")}).await.unwrap();
    world.src().run_command(doc! {"convertToCapped": "d", "size": 1 << 20}).await.unwrap();
    world.coll("d").update_one(doc! {"_id": 3}, doc! {"$set": {"last": 1}}).await.unwrap();
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
    warnings
}

#[tokio::test]
async fn a_source_without_raw_updates() {
    let warnings = with_less("no_raw", &[Feature::RawUpdates]).await;
    assert!(warnings.iter().any(|warning| warning.contains("raw updates")), "{warnings:?}");
}

#[tokio::test]
async fn a_source_without_a_catalogue_at_one_time() {
    let warnings = with_less("no_catalogue", &[Feature::ListCatalog]).await;
    assert!(warnings.iter().any(|warning| warning.contains("$listCatalog")), "{warnings:?}");
}

#[tokio::test]
async fn two_indexes_with_the_same_keys() {
    let world = World::shared("twins").await;
    world.fill("c", 100, 10).await;
    let indexes = doc! {"createIndexes": "c", "indexes": [
        {"key": {"u": 1}, "name": "plain"}, {"key": {"u": 1}, "name": "unique", "unique": true},
        {"key": {"u": 1}, "name": "sparse", "sparse": true},
    ]};
    world.src().run_command(indexes).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    assert!(report.completion.unwrap().unsuccessful_indexes.is_empty());
    world.assert_identical(false).await;
    sync.stop().await;
}

/// An index that the source drops while its collection is copied must not keep a document away that came after.
#[tokio::test]
async fn an_index_that_refuses_a_document_gives_way() {
    let world = World::shared("gives_way").await;
    // Small enough for its indexes to be built before its data.
    world.fill("c", 4_000, 800).await;
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1, "b": 1}, "name": "pair"}, {"key": {"geo": "2dsphere"}, "name": "geo"}]};
    world.src().run_command(index).await.unwrap();
    let mut config = world.config();
    config.limits.bytes_per_second = 1 << 20;
    let sync = Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.documents > 10).await;
    world.src().run_command(doc! {"dropIndexes": "c", "index": "*"}).await.unwrap();
    world
        .coll("c")
        .insert_one(doc! {"_id": 100_000, "a": [1, 2], "b": [3, 4], "geo": "nowhere"})
        .await
        .unwrap();
    world
        .coll("c")
        .update_one(doc! {"_id": 3_990}, doc! {"$set": {"a": [1, 2], "b": [3, 4], "geo": 7}})
        .await
        .unwrap();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// Patterns (`#` stands for the test's name), and what of the databases `#a` and `#b` they let through.
const FILTERS: &[(&[&str], &[&str], &[&str])] = &[
    (&["#a.*"], &[], &["a.x", "a.tmp_x", "a.y.z", "a.late"]),
    (&["#a"], &["#a.tmp_*"], &["a.x", "a.y.z", "a.late"]),
    (&["#a.x", "#b.late"], &[], &["a.x", "b.late"]),
    (&["#?.x"], &["#b.*"], &["a.x"]),
    (&["#*.*x"], &[], &["a.x", "a.tmp_x", "b.x", "b.tmp_x"]),
    (&["#*.y.?"], &["#a.*"], &["b.y.z"]),
    (&["#*.*"], &["#*.x", "#?.late"], &["a.tmp_x", "a.y.z", "b.tmp_x", "b.y.z"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn filters_before_and_after_a_namespace_appears() {
    for (number, (include, exclude, expected)) in FILTERS.iter().enumerate() {
        let world = World::shared(&format!("filter{number}")).await;
        let both =
            |suffix: &str| (world.source.database(&format!("{}{suffix}", world.db)), suffix.to_owned());
        for (db, _) in [both("a"), both("b")] {
            for name in ["x", "tmp_x", "y.z"] {
                db.collection::<Document>(name).insert_one(doc! {"_id": 1}).await.unwrap();
            }
        }
        let patterns = |all: &[&str]| -> Vec<String> {
            all.iter().map(|pattern| pattern.replace('#', &world.db)).collect()
        };
        let mut config = world.config();
        config.scope = Scope::new(&patterns(include), &patterns(exclude)).unwrap();
        let sync = Sync::start(config);
        sync.phase(Phase::Streaming).await;
        let mut found = Vec::new();
        for (db, suffix) in [both("a"), both("b")] {
            for name in ["x", "tmp_x", "y.z", "late"] {
                db.collection::<Document>(name).insert_one(doc! {"_id": 2}).await.unwrap();
            }
            world.caught_up(&sync).await;
            let target = world.target.database(db.name());
            for name in target.list_collection_names().await.unwrap() {
                let documents = target.collection::<Document>(&name).count_documents(doc! {}).await.unwrap();
                assert_eq!(documents, if name == "late" { 1 } else { 2 }, "{}.{name}", db.name());
                found.push(format!("{suffix}.{name}"));
            }
        }
        found.sort();
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "include {include:?}, exclude {exclude:?}");
        sync.stop().await;
    }
}

/// A document that goes and comes again while its capped collection is scanned has two places: the scan says neither.
#[tokio::test]
async fn a_capped_collection_keeps_its_order_while_it_is_scanned() {
    let world = World::shared("scanned").await;
    world.src().run_command(doc! {"create": "c", "capped": true, "size": 64 << 20}).await.unwrap();
    world.fill("c", 6_000, 700).await;
    let mut config = world.config();
    config.limits.bytes_per_second = 1 << 20;
    let sync = Sync::start(config);
    sync.until("cloning", |report| report.initial_sync.documents > 10).await;
    for id in [5, 3_000, 5_900] {
        world.coll("c").delete_one(doc! {"_id": id}).await.unwrap();
        world.coll("c").insert_one(doc! {"_id": id, "again": true}).await.unwrap();
    }
    world.coll("c").insert_one(doc! {"_id": "last"}).await.unwrap();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// What was deleted during the scan is remembered by the process alone: who stops before its stream has caught up with the
/// scan copies again.
#[tokio::test]
async fn a_capped_collection_keeps_its_order_over_a_stop() {
    let world = World::shared("scanned_and_stopped").await;
    world.src().run_command(doc! {"create": "c", "capped": true, "size": 1 << 20}).await.unwrap();
    world.fill("c", 20, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.stop().await;
    let copy = world.tgt().collection::<Document>("c");
    let first = copy.find_one_and_delete(doc! {"_id": 0}).await.unwrap().unwrap();
    copy.insert_one(first).await.unwrap();
    let records = world.target.database("clustersync").collection::<Document>("collections");
    let far = Timestamp { time: u32::MAX, increment: 0 };
    let set = doc! {"$set": {"cloneEnd": far}};
    assert_eq!(records.update_many(doc! {"sync": &world.db}, set).await.unwrap().modified_count, 1);
    let sync = world.start();
    world.coll("c").insert_one(doc! {"_id": "last"}).await.unwrap();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
