//! What is done to collections, views and indexes.

use futures::FutureExt;
use mongodb::Database;
use mongodb::bson::{Document, doc};

use super::{Case, case, insert, name, numbered, run};

#[allow(clippy::too_many_lines)]
pub fn cases() -> Vec<(&'static str, Case)> {
    vec![
        (
            "views",
            case!(db, p, {
                let (base, view, over) = (name(&p, "vbase"), name(&p, "view"), name(&p, "over"));
                insert(&db, &base, numbered(0, 5)).await;
                run(
                    &db,
                    doc! {"create": &view, "viewOn": &base, "pipeline": [{"$match": {"a": {"$gt": 1}}}]},
                )
                .await;
                run(&db, doc! {"create": &over, "viewOn": &view, "pipeline": []}).await;
                run(&db, doc! {"collMod": &view, "viewOn": &base, "pipeline": [{"$project": {"a": 1}}]})
                    .await;
                let gone = name(&p, "gone");
                run(&db, doc! {"create": &gone, "viewOn": &base, "pipeline": []}).await;
                run(&db, doc! {"drop": &gone}).await;
                let collated = name(&p, "collated_view");
                run(&db, doc! {"create": &collated, "viewOn": name(&p, "nowhere"), "pipeline": [], "collation": {"locale": "de"}}).await;
            }),
        ),
        (
            "a view becomes a collection and back",
            case!(db, p, {
                let (first, second) = (name(&p, "turns"), name(&p, "returns"));
                run(&db, doc! {"create": &first, "viewOn": "x", "pipeline": []}).await;
                run(&db, doc! {"drop": &first}).await;
                insert(&db, &first, numbered(0, 3)).await;
                insert(&db, &second, numbered(0, 3)).await;
                run(&db, doc! {"drop": &second}).await;
                run(&db, doc! {"create": &second, "viewOn": "x", "pipeline": []}).await;
            }),
        ),
        (
            "capped",
            case!(db, p, {
                let capped = name(&p, "capped");
                run(&db, doc! {"create": &capped, "capped": true, "size": 1 << 20, "max": 20}).await;
                insert(&db, &capped, numbered(0, 50)).await;
                db.collection::<Document>(&capped)
                    .update_one(doc! {"_id": 40}, doc! {"$set": {"a": 7}})
                    .await
                    .unwrap();
                insert(&db, &capped, numbered(50, 60)).await;
            }),
        ),
        (
            "capped by size, and changed",
            case!(db, p, {
                let capped = name(&p, "sized");
                run(&db, doc! {"create": &capped, "capped": true, "size": 4096}).await;
                insert(&db, &capped, numbered(0, 200)).await;
                run(&db, doc! {"collMod": &capped, "cappedSize": 8192}).await;
                insert(&db, &capped, numbered(200, 300)).await;
                run(&db, doc! {"collMod": &capped, "cappedMax": 30}).await;
                insert(&db, &capped, numbered(300, 310)).await;
            }),
        ),
        (
            "convertToCapped and cloneCollectionAsCapped",
            case!(db, p, {
                let (plain, copy) = (name(&p, "convert"), name(&p, "copy"));
                insert(&db, &plain, numbered(0, 40)).await;
                run(&db, doc! {"cloneCollectionAsCapped": &plain, "toCollection": &copy, "size": 100_000})
                    .await;
                run(&db, doc! {"convertToCapped": &plain, "size": 100_000}).await;
                insert(&db, &plain, numbered(40, 45)).await;
                insert(&db, &copy, numbered(40, 45)).await;
            }),
        ),
        (
            "clustered",
            case!(db, p, {
                let clustered = name(&p, "clustered");
                run(&db, doc! {"create": &clustered, "clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "by id"}}).await;
                insert(&db, &clustered, numbered(0, 30)).await;
                db.collection::<Document>(&clustered).delete_many(doc! {"_id": {"$lt": 5}}).await.unwrap();
                let expiring = name(&p, "clustered_ttl");
                run(&db, doc! {"create": &expiring, "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_i64}).await;
                insert(&db, &expiring, vec![doc! {"_id": mongodb::bson::DateTime::now()}]).await;
                run(&db, doc! {"collMod": &expiring, "expireAfterSeconds": 2_000_000_i64}).await;
                let both = name(&p, "clustered_capped");
                run(&db, doc! {"create": &both, "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_i64}).await;
                insert(&db, &both, numbered(0, 9)).await;
                run(&db, doc! {"convertToCapped": &both, "size": 100_000}).await;
                insert(&db, &both, numbered(9, 12)).await;
                let off = name(&p, "clustered_off");
                run(&db, doc! {"create": &off, "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_i64}).await;
                run(&db, doc! {"collMod": &off, "expireAfterSeconds": "off"}).await;
            }),
        ),
        (
            "collation",
            case!(db, p, {
                let collated = name(&p, "collation");
                run(&db, doc! {"create": &collated, "collation": {"locale": "en", "strength": 1}}).await;
                insert(
                    &db,
                    &collated,
                    vec![doc! {"_id": "a", "n": 1}, doc! {"_id": "B", "n": 2}, doc! {"_id": 3}],
                )
                .await;
                let collection = db.collection::<Document>(&collated);
                collection.delete_one(doc! {"_id": "A"}).await.unwrap();
                collection.insert_one(doc! {"_id": "A", "n": 3}).await.unwrap();
                collection.update_one(doc! {"_id": "b"}, doc! {"$set": {"n": 9}}).await.unwrap();
                run(
                    &db,
                    doc! {"createIndexes": &collated, "indexes": [
                        {"key": {"n": 1}, "name": "n"},
                        {"key": {"s": 1}, "name": "simple", "collation": {"locale": "simple"}},
                        {"key": {"t": 1}, "name": "german", "collation": {"locale": "de"}},
                    ]},
                )
                .await;
            }),
        ),
        (
            "storage options, validators, images",
            case!(db, p, {
                let options = name(&p, "options");
                run(&db, doc! {"create": &options, "validator": {"a": {"$gte": 0}}, "validationLevel": "moderate", "validationAction": "warn",
                "storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}},
                "indexOptionDefaults": {"storageEngine": {"wiredTiger": {"configString": "prefix_compression=false"}}},
                "changeStreamPreAndPostImages": {"enabled": true}}).await;
                insert(&db, &options, numbered(0, 5)).await;
                run(&db, doc! {"collMod": &options, "validator": {"a": {"$lte": 100}}, "validationAction": "error"}).await;
                run(&db, doc! {"collMod": &options, "changeStreamPreAndPostImages": {"enabled": false}})
                    .await;
                let later = name(&p, "later");
                insert(&db, &later, numbered(0, 3)).await;
                run(&db, doc! {"collMod": &later, "validator": {"$jsonSchema": {"required": ["a"]}}}).await;
                run(&db, doc! {"collMod": &later, "validationLevel": "off"}).await;
            }),
        ),
        (
            "indexes of every kind",
            case!(db, p, {
                let indexed = name(&p, "indexes");
                insert(&db, &indexed, vec![
                doc! {"_id": 1, "a": 1, "b": [1, 2], "text": "some words", "geo": {"type": "Point", "coordinates": [1.0, 2.0]}, "flat": [1.0, 2.0], "w": {"x": 1}},
                doc! {"_id": 2, "a": 2},
            ]).await;
                run(&db, doc! {"createIndexes": &indexed, "indexes": [
                {"key": {"a": 1}, "name": "plain"},
                {"key": {"a": -1, "b": 1}, "name": "compound", "sparse": true},
                {"key": {"a": 1}, "name": "partial", "partialFilterExpression": {"a": {"$gt": 1.0}}, "collation": {"locale": "fr"}},
                {"key": {"text": "text", "more": "text"}, "name": "words", "weights": {"text": 3}, "default_language": "english"},
                {"key": {"geo": "2dsphere"}, "name": "sphere"},
                {"key": {"flat": "2d"}, "name": "flat", "bits": 20, "min": -200.0, "max": 200.0},
                {"key": {"a": "hashed"}, "name": "hashed"},
                {"key": {"w.$**": 1}, "name": "wild"},
                {"key": {"d": 1}, "name": "ttl", "expireAfterSeconds": 3_600},
                {"key": {"h": 1}, "name": "hidden", "hidden": true},
                {"key": {"u": 1}, "name": "unique", "unique": true, "partialFilterExpression": {"u": {"$exists": true}}},
                {"key": {"e": 1, "f": 1}, "name": "unique pair", "unique": true, "sparse": true},
            ]}).await;
                let projected = name(&p, "projected");
                run(
                    &db,
                    doc! {"createIndexes": &projected, "indexes": [
                    {"key": {"$**": 1}, "name": "all but", "wildcardProjection": {"a": 0}}]},
                )
                .await;
                run(&db, doc! {"dropIndexes": &indexed, "index": ["compound", "flat"]}).await;
            }),
        ),
        (
            "indexes changed",
            case!(db, p, {
                let changed = name(&p, "changed");
                insert(&db, &changed, numbered(0, 20)).await;
                run(&db, doc! {"createIndexes": &changed, "indexes": [
                {"key": {"a": 1}, "name": "a"}, {"key": {"b": 1}, "name": "b"}, {"key": {"c": 1}, "name": "c", "expireAfterSeconds": 100_000},
                {"key": {"d": 1}, "name": "d", "hidden": true}, {"key": {"e": 1}, "name": "e"}]}).await;
                run(&db, doc! {"collMod": &changed, "index": {"name": "a", "prepareUnique": true}}).await;
                run(&db, doc! {"collMod": &changed, "index": {"name": "a", "unique": true}}).await;
                run(&db, doc! {"collMod": &changed, "index": {"name": "b", "hidden": true}}).await;
                run(&db, doc! {"collMod": &changed, "index": {"keyPattern": {"c": 1}, "expireAfterSeconds": 200_000}}).await;
                run(&db, doc! {"collMod": &changed, "index": {"name": "d", "hidden": false}}).await;
                run(&db, doc! {"collMod": &changed, "index": {"name": "e", "expireAfterSeconds": 300_000}})
                    .await;
            }),
        ),
        (
            "names: dropped and created again",
            case!(db, p, {
                let again = name(&p, "again");
                for round in 0..3 {
                    insert(&db, &again, numbered(round, round + 10)).await;
                    run(&db, doc! {"createIndexes": &again, "indexes": [{"key": {"a": 1}, "name": "x"}]})
                        .await;
                    run(&db, doc! {"drop": &again}).await;
                }
                insert(&db, &again, numbered(100, 110)).await;
                run(&db, doc! {"createIndexes": &again, "indexes": [{"key": {"b": 1}, "name": "x"}]}).await;
            }),
        ),
        (
            "renames",
            case!(db, p, {
                let admin = db.client().database("admin");
                let full = |rest: &str| format!("{}.{}", db.name(), name(&p, rest));
                insert(&db, &name(&p, "r1"), numbered(0, 10)).await;
                insert(&db, &name(&p, "r2"), numbered(20, 30)).await;
                run(&admin, doc! {"renameCollection": full("r1"), "to": full("r3")}).await;
                run(&admin, doc! {"renameCollection": full("r2"), "to": full("r3"), "dropTarget": true})
                    .await;
                insert(&db, &name(&p, "r1"), numbered(50, 55)).await;
                insert(&db, &name(&p, "r3"), numbered(60, 65)).await;
            }),
        ),
        (
            "a rename into another database",
            case!(db, p, {
                let admin = db.client().database("admin");
                insert(&db, &name(&p, "moves"), numbered(0, 10)).await;
                let other = format!("{}_other", db.name());
                run(&admin, doc! {"renameCollection": format!("{}.{}", db.name(), name(&p, "moves")), "to": format!("{other}.{}", name(&p, "moved"))}).await;
                db.client()
                    .database(&other)
                    .collection::<Document>(&name(&p, "moved"))
                    .insert_one(doc! {"_id": "after"})
                    .await
                    .unwrap();
            }),
        ),
        (
            "$out, $merge and mapReduce",
            case!(db, p, {
                let (base, out, merged) = (name(&p, "base"), name(&p, "out"), name(&p, "merged"));
                insert(&db, &base, numbered(0, 20)).await;
                insert(&db, &out, numbered(90, 95)).await;
                run(&db, doc! {"createIndexes": &out, "indexes": [{"key": {"a": 1}, "name": "kept"}]}).await;
                run(&db, doc! {"aggregate": &base, "pipeline": [{"$match": {"a": {"$lt": 9}}}, {"$out": &out}], "cursor": {}}).await;
                run(
                    &db,
                    doc! {"aggregate": &base, "pipeline": [{"$merge": {"into": &merged}}], "cursor": {}},
                )
                .await;
                run(&db, doc! {"aggregate": &base, "pipeline": [{"$set": {"m": 1}}, {"$merge": {"into": &merged, "whenMatched": "replace"}}], "cursor": {}}).await;
                run(&db, doc! {"mapReduce": &base, "map": "function() { emit(this.a % 3, 1) }", "reduce": "function(k, v) { return Array.sum(v) }", "out": name(&p, "reduced")}).await;
            }),
        ),
        (
            "a database dropped with everything in it",
            case!(db, p, {
                let doomed = db.client().database(&format!("{}_other{p}", db.name()));
                insert(&doomed, "c", numbered(0, 10)).await;
                run(&doomed, doc! {"create": "v", "viewOn": "c", "pipeline": []}).await;
                run(&doomed, doc! {"create": "cap", "capped": true, "size": 4096}).await;
                doomed.drop().await.unwrap();
                insert(&doomed, "c", numbered(5, 8)).await;
            }),
        ),
    ]
}
