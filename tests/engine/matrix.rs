//! What a database does, case by case: each is done before, during and after the clone, on one pair of servers, and
//! compared before and after completion.

use clustersync::sync::{DesiredState, Phase};
use futures::FutureExt;
use futures::future::BoxFuture;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::cstr;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp,
    doc,
};

use crate::world::{Sync, World};

/// A case on a database; `prefix` tells its collections from those of the other moments.
type Case = fn(Database, String) -> BoxFuture<'static, ()>;

async fn run(db: &Database, command: Document) {
    db.run_command(command.clone()).await.unwrap_or_else(|error| panic!("{command}: {error}"));
}

async fn insert(db: &Database, name: &str, documents: Vec<Document>) {
    db.collection::<Document>(name).insert_many(documents).await.unwrap();
}

fn numbered(from: i32, to: i32) -> Vec<Document> {
    (from..to).map(|n| doc! {"_id": n, "a": n, "b": format!("{n}"), "list": [n, n + 1]}).collect()
}

const ZERO: Bson = Bson::Timestamp(Timestamp { time: 0, increment: 0 });

fn binary(subtype: BinarySubtype) -> Bson {
    Bson::Binary(Binary { subtype, bytes: vec![1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] })
}

/// One of each kind that may be an `_id`, and what compares close to each other.
fn ids() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        1.into(),
        2_i64.into(),
        2.5.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        f64::NEG_INFINITY.into(),
        0.0.into(),
        f64::MIN_POSITIVE.into(),
        i64::MAX.into(),
        9_007_199_254_740_993_i64.into(),
        9_007_199_254_740_992.0.into(),
        decimal("3.10"),
        decimal("1E-6176"),
        decimal("9007199254740993.5"),
        "text".into(),
        "".into(),
        "te\u{0}xt".into(),
        Bson::Symbol("symbol".to_owned()),
        doc! {}.into(),
        doc! {"a": 1, "b": [1, {"c": 2}]}.into(),
        doc! {"b": [1], "a": 1}.into(),
        binary(BinarySubtype::Generic),
        binary(BinarySubtype::Uuid),
        binary(BinarySubtype::UuidOld),
        binary(BinarySubtype::UserDefined(0x80)),
        ObjectId::from_bytes([7; 12]).into(),
        true.into(),
        false.into(),
        DateTime::from_millis(-62_135_596_800_000).into(),
        DateTime::from_millis(1).into(),
        Bson::Timestamp(Timestamp { time: 7, increment: 9 }),
        ZERO,
        Bson::JavaScriptCode("f()".to_owned()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
            code: "f(x)".to_owned(),
            scope: doc! {"x": 1},
        }),
    ]
}

/// One of each kind of value.
fn values() -> Document {
    let decimals = ["NaN", "Infinity", "-Infinity", "-0", "0E+3", "1.0", "1.00", "1E+3"];
    let decimals: Vec<Bson> = decimals.iter().map(|text| Bson::Decimal128(text.parse().unwrap())).collect();
    let regex = Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() };
    doc! {
        "int": 1, "long": 1_i64, "double": 1.0, "minus": -0.0, "nan": f64::NAN, "inf": f64::INFINITY,
        "decimals": decimals, "string": "same", "symbol": Bson::Symbol("same".to_owned()),
        "undefined": Bson::Undefined, "null": Bson::Null, "regex": Bson::RegularExpression(regex),
        "code": Bson::JavaScriptCode("f()".to_owned()), "min": Bson::MinKey, "max": Bson::MaxKey,
        "list": [1, 1_i64, 1.0, [], {}, [[1]]], "date": DateTime::from_millis(i64::MAX), "zero": ZERO,
        "nested": {"zero": ZERO}, "bytes": binary(BinarySubtype::Md5), "empty": "",
    }
}

macro_rules! case {
    ($db:ident, $p:ident, $body:block) => {
        |$db: Database, $p: String| async move { $body }.boxed()
    };
}

fn name(prefix: &str, rest: &str) -> String {
    format!("{prefix}_{rest}")
}

#[allow(clippy::too_many_lines)]
fn cases() -> Vec<(&'static str, Case)> {
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
        (
            "transactions",
            case!(db, p, {
                let (one, other, made) = (name(&p, "t1"), name(&p, "t2"), name(&p, "t_made"));
                insert(&db, &one, numbered(0, 10)).await;
                insert(&db, &other, numbered(0, 10)).await;
                let mut session = db.client().start_session().await.unwrap();
                for commit in [true, false] {
                    session.start_transaction().await.unwrap();
                    for n in 0..30 {
                        let id = if commit { n } else { n + 1_000 };
                        db.collection::<Document>(&one)
                            .update_one(doc! {"_id": id}, doc! {"$set": {"t": n}})
                            .upsert(true)
                            .session(&mut session)
                            .await
                            .unwrap();
                        db.collection::<Document>(&other)
                            .delete_one(doc! {"_id": n})
                            .session(&mut session)
                            .await
                            .unwrap();
                    }
                    db.collection::<Document>(&format!("{made}_{commit}"))
                        .insert_one(doc! {"_id": 1})
                        .session(&mut session)
                        .await
                        .unwrap();
                    if commit {
                        session.commit_transaction().await.unwrap()
                    } else {
                        session.abort_transaction().await.unwrap()
                    }
                }
            }),
        ),
        (
            "updates of every shape",
            case!(db, p, {
                let updated = name(&p, "updates");
                let collection = db.collection::<Document>(&updated);
                insert(&db, &updated, (0..40).map(|n| doc! {"_id": n, "a": 1, "b": {"c": 1, "d": [1, 2, 3]}, "list": [{"k": 1, "v": 1}, {"k": 2, "v": 2}], "0": "zero", "n": {"0": 1, "1": 2}}).collect()).await;
                for (n, update) in [
                    doc! {"$inc": {"a": 1}},
                    doc! {"$mul": {"a": 2.5}},
                    doc! {"$min": {"a": 0}},
                    doc! {"$max": {"b.c": 9}},
                    doc! {"$rename": {"a": "z"}},
                    doc! {"$unset": {"b.c": ""}},
                    doc! {"$push": {"b.d": {"$each": [9, 8], "$position": 1, "$slice": 4}}},
                    doc! {"$pull": {"b.d": 2}},
                    doc! {"$pop": {"b.d": -1}},
                    doc! {"$addToSet": {"b.d": 7}},
                    doc! {"$currentDate": {"now": true}},
                    doc! {"$bit": {"a": {"or": 6}}},
                    doc! {"$set": {"list.1.v": 5, "list.5": 1}},
                    doc! {"$set": {"n.0": "x", "0": 1}},
                    doc! {"$set": {"list.$[].v": 0}},
                    doc! {"$push": {"list": {"$each": [], "$sort": {"k": -1}}}},
                    doc! {"$set": {"a": Bson::Int64(1)}},
                    doc! {"$set": {"a": 1.0}},
                    doc! {"$set": {"a": Bson::Decimal128("1.00".parse::<Decimal128>().unwrap())}},
                    doc! {"$set": {"t": Timestamp { time: 0, increment: 0 }}},
                ]
                .into_iter()
                .enumerate()
                {
                    collection.update_one(doc! {"_id": n as i32}, update).await.unwrap();
                }
                collection
                    .update_one(doc! {"_id": 20, "list.k": 2}, doc! {"$set": {"list.$.v": 77}})
                    .await
                    .unwrap();
                collection
                    .update_one(doc! {"_id": 21}, doc! {"$set": {"list.$[x].v": 99}})
                    .array_filters([doc! {"x.k": 1}])
                    .await
                    .unwrap();
                for (n, pipeline) in [
                vec![doc! {"$set": {"new": "$a", "b": {"x": "$b.c"}}}, doc! {"$unset": "list"}],
                vec![doc! {"$replaceWith": {"_id": "$_id", "z": "$b", "a": "$list"}}],
                vec![doc! {"$set": {"b": {"$setField": {"field": "do.t", "input": "$b", "value": 1}}}}],
                vec![doc! {"$replaceWith": {"$setField": {"field": {"$literal": "$price"}, "input": "$$ROOT", "value": 2}}}],
                vec![doc! {"$set": {"list": {"$reverseArray": "$list"}}}],
            ].into_iter().enumerate() {
                collection.update_one(doc! {"_id": 22 + n as i32}, pipeline).await.unwrap();
            }
                let many: Document = (0..3_000).map(|n| (format!("f{n}"), Bson::Int32(n))).collect();
                collection.update_one(doc! {"_id": 30}, doc! {"$set": many}).await.unwrap();
                let large: Vec<String> = (0..300).map(|n| format!("{n}").repeat(10_000)).collect();
                collection.update_one(doc! {"_id": 31}, doc! {"$set": {"large": large}}).await.unwrap();
                collection
                    .update_one(doc! {"_id": 31}, doc! {"$set": {"large.7": "short", "large.300": "more"}})
                    .await
                    .unwrap();
                collection.replace_one(doc! {"_id": 32}, doc! {"other": 1}).await.unwrap();
            }),
        ),
        (
            "documents of every type",
            case!(db, p, {
                let typed = name(&p, "types");
                let ids = ids();
                for id in &ids {
                    let mut document = doc! {"_id": id.clone()};
                    document.extend(values());
                    db.collection::<Document>(&typed).insert_one(document).await.unwrap();
                }
                for (n, id) in ids.iter().enumerate() {
                    let one = doc! {"_id": {"$eq": id.clone()}};
                    let collection = db.collection::<Document>(&typed);
                    match n % 5 {
                        0 => collection.delete_one(one).await.map(drop).unwrap(),
                        1 => collection
                            .replace_one(one, doc! {"_id": id.clone(), "t": ZERO, "b": {"t": ZERO}})
                            .await
                            .map(drop)
                            .unwrap(),
                        2 => collection
                            .update_one(one, doc! {"$set": {"int": 1_i64, "double": 1, "list.1": 1.0}})
                            .await
                            .map(drop)
                            .unwrap(),
                        3 => collection
                            .update_one(
                                one,
                                vec![doc! {"$set": {"zero": {"$literal": ZERO}}}, doc! {"$unset": "int"}],
                            )
                            .await
                            .map(drop)
                            .unwrap(),
                        _ => {}
                    }
                }
                // One document, whatever the number's type.
                let numbers = db.collection::<Document>(&name(&p, "numbers"));
                numbers.insert_one(doc! {"_id": 1, "n": "int"}).await.unwrap();
                numbers.update_one(doc! {"_id": 1.0}, doc! {"$set": {"n": "by double"}}).await.unwrap();
                numbers.delete_one(doc! {"_id": 1_i64}).await.unwrap();
                numbers.insert_one(doc! {"_id": 1.0, "n": "double"}).await.unwrap();
                numbers.insert_one(doc! {"_id": Bson::Decimal128("2.00".parse().unwrap())}).await.unwrap();
                numbers.update_one(doc! {"_id": 2}, doc! {"$set": {"n": -0.0}}).await.unwrap();
                numbers.insert_one(doc! {"_id": -0.0}).await.unwrap();
                numbers.update_one(doc! {"_id": 0}, doc! {"$set": {"n": f64::NEG_INFINITY}}).await.unwrap();
            }),
        ),
        (
            "names of fields",
            case!(db, p, {
                let named = name(&p, "names");
                let mut twice = RawDocumentBuf::new();
                twice.append(cstr!("_id"), 1);
                twice.append(cstr!("a"), 1);
                twice.append(cstr!("b"), 2);
                twice.append(cstr!("a"), 3);
                twice.append(cstr!(""), 4);
                twice.append(cstr!("x.y"), 5);
                twice.append(cstr!("$z"), 6);
                db.collection::<RawDocumentBuf>(&named).insert_one(twice).await.unwrap();
                let collection = db.collection::<Document>(&named);
                insert(
                    &db,
                    &named,
                    vec![doc! {"_id": 2, "n": {"": {"": 1}, "a.b": {"$c": 1}, "$d": [{"e.f": 1}]}}],
                )
                .await;
                collection.update_one(doc! {"_id": 1}, doc! {"$set": {"later": 1}}).await.unwrap();
                let pipelines = [
                    vec![
                        doc! {"$replaceWith": {"$setField": {"field": "n.m", "input": "$$ROOT", "value": {"$literal": {"$o": 1}}}}},
                    ],
                    vec![doc! {"$set": {"n": {"$setField": {"field": "a.b", "input": "$n", "value": 2}}}}],
                    vec![
                        doc! {"$replaceWith": {"$unsetField": {"field": {"$literal": "$z"}, "input": "$$ROOT"}}},
                    ],
                ];
                for pipeline in pipelines {
                    collection.update_many(doc! {}, pipeline).await.unwrap();
                }
            }),
        ),
        (
            "GridFS",
            case!(db, p, {
                use futures::AsyncWriteExt;
                let options = mongodb::options::GridFsBucketOptions::builder()
                    .bucket_name(name(&p, "fs"))
                    .chunk_size_bytes(1_000_u32)
                    .build();
                let bucket = db.gridfs_bucket(options);
                let mut upload = bucket.open_upload_stream("file").await.unwrap();
                upload.write_all(&vec![7; 10_000]).await.unwrap();
                upload.close().await.unwrap();
            }),
        ),
        (
            "large documents and large ids",
            case!(db, p, {
                let large = name(&p, "large");
                let collection = db.collection::<Document>(&large);
                collection.insert_one(doc! {"_id": 1, "x": "y".repeat((16 << 20) - 60)}).await.unwrap();
                collection
                    .insert_one(doc! {"_id": "i".repeat(3_000_000), "x": "y".repeat(1_000_000)})
                    .await
                    .unwrap();
                collection
                    .update_one(doc! {"_id": 1}, doc! {"$set": {"x": "z".repeat((16 << 20) - 60)}})
                    .await
                    .unwrap();
                collection.delete_one(doc! {"_id": "i".repeat(3_000_000)}).await.unwrap();
            }),
        ),
    ]
}

async fn all(db: &Database, prefix: &str) {
    for (what, case) in cases() {
        if std::env::var("CASE").is_ok_and(|only| !what.contains(&only)) {
            continue;
        }
        let began = std::time::Instant::now();
        case(db.clone(), prefix.to_owned()).await;
        if began.elapsed().as_secs() > 5 {
            eprintln!("{what}: {:?}", began.elapsed());
        }
    }
}

pub fn config(world: &World) -> clustersync::sync::SyncConfig {
    let mut config = world.config();
    config.scope = clustersync::sync::scope::Scope::new(&[format!("{}*.*", world.db)], &[]).unwrap();
    config
}

async fn judge(world: &World, before_completion: bool) {
    let mut databases: Vec<String> = world.source.list_database_names().await.unwrap();
    databases.extend(world.target.list_database_names().await.unwrap());
    databases.retain(|db| db.starts_with(&world.db));
    databases.sort();
    databases.dedup();
    let judge = crate::lab::compare::Judge { databases, before_completion };
    // Indexes are built in the background.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let differences = crate::lab::compare::compare(&world.source, &world.target, &judge).await;
        if differences.is_empty() {
            return;
        }
        assert!(before_completion && std::time::Instant::now() < deadline, "{}", differences.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Each case before, during and after the clone.
pub async fn around_the_clone(world: &World) {
    all(&world.src(), "before").await;
    world.fill("ballast", 20_000, 1_000).await;
    let mut config = config(world);
    config.limits.bytes_per_second = 8 << 20;
    let sync = Sync::start(config);
    sync.phase(Phase::Cloning).await;
    all(&world.src(), "during").await;
    sync.phase(Phase::Streaming).await;
    all(&world.src(), "after").await;
    world.caught_up(&sync).await;
    judge(world, true).await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    let missing = report.completion.unwrap().unsuccessful_indexes;
    assert!(missing.is_empty(), "{missing:?}");
    judge(world, false).await;
    sync.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_database_does_before_during_and_after_the_clone() {
    let (source, target) = crate::lab::mongod::pair().await;
    around_the_clone(&World::on(&source, &target, "matrix").await).await;
}
