//! The judge is judged: each kind of difference is found.

use mongodb::bson::doc;
use mongodb::options::IndexOptions;
use mongodb::{Client, IndexModel};

use crate::world::World;

async fn same_on_both(world: &World) {
    for client in [&world.source, &world.target] {
        let db = client.database(&world.db);
        db.drop().await.unwrap();
        db.create_collection("c").await.unwrap();
        let c = db.collection("c");
        c.insert_many((0..50).map(|n| doc! {"_id": n, "a": n, "b": "x"})).await.unwrap();
        c.insert_one(doc! {"_id": "text", "a": 1_i64}).await.unwrap();
        let options = IndexOptions::builder().name("a_1".to_owned()).build();
        db.run_command(doc! {"create": "view", "viewOn": "c", "pipeline": [{"$match": {"a": 1}}]})
            .await
            .unwrap();
        db.run_command(doc! {"create": "capped", "capped": true, "size": 4_096}).await.unwrap();
        db.collection("capped")
            .insert_many([doc! {"_id": 1}, doc! {"_id": 2}, doc! {"_id": 3}])
            .await
            .unwrap();
        c.create_index(IndexModel::builder().keys(doc! {"a": 1}).options(options).build()).await.unwrap();
    }
}

#[tokio::test]
async fn every_kind_of_difference_is_found() {
    let world = World::shared("judge").await;
    same_on_both(&world).await;
    world.assert_identical(false).await;
    let damages: [(&str, mongodb::bson::Document); 9] = [
        (
            "one flipped value",
            doc! {"update": "c", "updates": [{"q": {"_id": 7}, "u": {"$set": {"b": "y"}}}]},
        ),
        (
            "another number type",
            doc! {"update": "c", "updates": [{"q": {"_id": 7}, "u": {"$set": {"a": 7_i64}}}]},
        ),
        ("one missing", doc! {"delete": "c", "deletes": [{"q": {"_id": 7}, "limit": 1}]}),
        ("one extra", doc! {"insert": "c", "documents": [{"_id": 1000}]}),
        (
            "fields in another order",
            doc! {"update": "c", "updates": [{"q": {"_id": 7}, "u": {"_id": 7, "b": "x", "a": 7}}]},
        ),
        ("a lost index", doc! {"dropIndexes": "c", "index": "a_1"}),
        ("a hidden index", doc! {"collMod": "c", "index": {"name": "a_1", "hidden": true}}),
        ("another view", doc! {"collMod": "view", "viewOn": "c", "pipeline": [{"$match": {"a": 2}}]}),
        ("another cap", doc! {"collMod": "capped", "cappedSize": 8_192}),
    ];
    for (what, damage) in damages {
        same_on_both(&world).await;
        world.target.database(&world.db).run_command(damage).await.unwrap();
        assert!(!world.differences(false).await.is_empty(), "{what} was not found");
    }
    same_on_both(&world).await;
    let changed = doc! {"collMod": "c", "validator": {"a": {"$exists": true}}};
    world.target.database(&world.db).run_command(changed).await.unwrap();
    assert!(!world.differences(false).await.is_empty(), "a changed option was not found");
    same_on_both(&world).await;
    let capped = world.target.database(&world.db).collection::<mongodb::bson::Document>("capped");
    capped.delete_one(doc! {"_id": 2}).await.unwrap();
    capped.insert_one(doc! {"_id": 2}).await.unwrap();
    assert!(!world.differences(false).await.is_empty(), "another order in a capped collection was not found");
    same_on_both(&world).await;
    create(&world.target, &world.db, "extra").await;
    assert!(!world.differences(false).await.is_empty(), "an extra collection was not found");
}

async fn create(client: &Client, db: &str, name: &str) {
    client.database(db).create_collection(name).await.unwrap();
}
