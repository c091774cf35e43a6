//! What updates of fields leave on the target, byte for byte: types, order, names that look like paths.

use clustersync::sync::Phase;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId};

use mongodb::options::UpdateModifications;

use crate::world::World;

fn values() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    vec![
        Bson::Int32(1),
        Bson::Int64(1),
        Bson::Double(1.0),
        decimal("1"),
        decimal("1.00"),
        Bson::Boolean(true),
        Bson::Double(0.0),
        Bson::Double(-0.0),
        Bson::Double(f64::NAN),
        decimal("NaN"),
        Bson::Null,
        Bson::String("$a.b".to_owned()),
        Bson::Symbol("$a.b".to_owned()),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::Timestamp(Timestamp { time: 0, increment: 1 }),
        Bson::Timestamp(Timestamp { time: 1, increment: 0 }),
        Bson::RegularExpression(Regex { pattern: "a".try_into().unwrap(), options: "i".try_into().unwrap() }),
        Bson::ObjectId(ObjectId::new()),
        Bson::MinKey,
        doc! {"a": 1}.into(),
        doc! {"$set": 1, "a.b": 2}.into(),
        vec![Bson::Int32(1), Bson::Int64(2)].into(),
        Bson::Array(Vec::new()),
        Document::new().into(),
    ]
}

/// By a pipeline, which takes any value and name.
async fn put(world: &World, id: &Bson, path: &str, value: &Bson) {
    let set = doc! {"$set": {path: {"$literal": value}}};
    world.coll("c").update_one(doc! {"_id": id}, vec![set]).await.unwrap();
}

#[tokio::test]
async fn a_field_becomes_any_value_after_any_other() {
    let world = World::shared("updates_values").await;
    let values = values();
    let nested = || doc! {"0": 1, "b": {"1": 1, "c": 1}, "last": 1};
    let documents = (0..values.len()).map(|n| {
        doc! {"_id": i32::try_from(n).unwrap(), "first": 1, "v": values[n].clone(), "n": nested(), "7": 1, "last": 1}
    });
    world.coll("c").insert_many(documents).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    for step in 1..values.len() {
        for document in 0..values.len() {
            let value = &values[(document + step) % values.len()];
            let id = Bson::from(i32::try_from(document).unwrap());
            let paths = ["v", "n.0", "n.b.1", "n.b.c", "7"];
            put(&world, &id, paths[step % 2 * (step % paths.len())], value).await;
        }
        if step % 8 == 0 {
            world.caught_up(&sync).await;
            world.assert_identical(true).await;
        }
    }
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn fields_that_change_go_and_come_keep_their_order() {
    let world = World::shared("updates_order").await;
    let fields = || (0..12).map(|n| (format!("f{n}"), Bson::from(n))).collect::<Document>();
    let documents =
        (0..40).map(|id| doc! {"_id": id, "n": fields(), "m": {"0": fields()}, "a": [fields(), 1]});
    world.coll("c").insert_many(documents).await.unwrap();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    for id in 0..40 {
        let (one, other) = (format!("f{}", id % 12), format!("f{}", (id * 5 + 3) % 12));
        // New fields in another order than their names', and one that moves to the end.
        let moves = [
            vec![doc! {"$set": {"new_z": 1}}, doc! {"$set": {"new_y": 1}}],
            vec![doc! {"$unset": "n"}, doc! {"$set": {"n": 1}}],
            // The same number by value, of another type.
            vec![doc! {"$set": {"_id": {"$toDouble": "$_id"}}}],
        ];
        let updates = [
            doc! {"$set": {format!("n.{one}"): 7_i64, format!("m.0.{other}"): "x"}},
            doc! {"$unset": {format!("n.{one}"): "", format!("m.0.{other}"): ""}},
            // What was removed comes again, at the end, and others before it in the alphabet.
            doc! {"$set": {format!("n.{one}"): 8, "n.b": 1, "n.a": 2, "zero": Timestamp { time: 0, increment: 1 }}},
            doc! {"$set": {"a.0.f3": 9, "a.1": 2}, "$unset": {"m.0.f5": ""}},
            doc! {"$rename": {"n.f11": "n.f12", "m": "k"}},
            doc! {"$inc": {"n.a": 1}, "$set": {"n.b": -0.0}, "$unset": {"a": ""}},
            doc! {"$set": {"n": {"whole": id}}},
        ];
        let updates = updates.into_iter().map(UpdateModifications::from);
        for update in updates.chain(moves.into_iter().map(UpdateModifications::from)) {
            world.coll("c").update_one(doc! {"_id": id}, update).await.unwrap();
            if id % 10 == 0 {
                // By itself: several updates of one document would share a statement.
                world.caught_up(&sync).await;
                world.assert_identical(true).await;
            }
        }
    }
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
