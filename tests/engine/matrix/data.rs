//! What is done to documents.

use futures::FutureExt;
use mongodb::Database;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Decimal128, Document, RawDocumentBuf, Timestamp, doc};

use super::values::{ZERO, ids, values};
use super::{Case, case, insert, name, numbered};

#[allow(clippy::too_many_lines)]
pub fn cases() -> Vec<(&'static str, Case)> {
    vec![
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
