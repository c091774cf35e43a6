//! Bare programs: the ceiling. Raw batches copied, plain parallel bulks; no checkpoints, no promises.

use futures::StreamExt;
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};

const STREAMS: i32 = 4;

fn document(id: i32) -> RawDocumentBuf {
    rawdoc! {"_id": id, "n": id % 1000, "a": 1, "b": 2, "c": 3, "text": "x".repeat(820)}
}

pub async fn fill(source: &Client, documents: i32) {
    let collection = source.database("bench").collection::<RawDocumentBuf>("documents");
    for start in (0..documents).step_by(10_000) {
        collection.insert_many((start..start + 10_000).map(document)).await.unwrap();
    }
}

/// Four streams, each a range of `_id`, whole batches as they come.
pub async fn copy(source: &Client, target: &Client) {
    let database = source.database("bench");
    let total = database.collection::<Document>("documents").estimated_document_count().await.unwrap();
    let slice = i32::try_from(total).unwrap() / STREAMS + 1;
    target.database("bench").create_collection("documents").await.unwrap();
    let streams = (0..STREAMS).map(|number| {
        let (source, target) = (source.clone(), target.clone());
        tokio::spawn(async move {
            let range = doc! {"_id": {"$gte": number * slice, "$lt": (number + 1) * slice}};
            let collection = source.database("bench").collection::<RawDocumentBuf>("documents");
            let mut batches = collection.find(range).batch_size(5_000).batch().await.unwrap();
            while let Some(batch) = batches.next().await {
                let batch = batch.unwrap();
                let documents = batch.doc_slices().unwrap();
                if documents.is_empty() {
                    continue;
                }
                let insert =
                    rawdoc! {"insert": "documents", "ordered": false, "documents": documents.to_owned()};
                target.database("bench").run_raw_command(insert).await.unwrap();
            }
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
}

/// 30 % inserts, 60 % updates of three fields, 10 % deletes, in bulks of 1,000 from four clients, each on documents of
/// its own. `round` keeps the inserted and deleted ones of two calls apart.
pub async fn mixed(client: &Client, operations: i32, round: usize) {
    let base = 1_000_000 + i32::try_from(round).unwrap() * 1_000_000;
    let clients = (0..STREAMS).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let each = operations / STREAMS;
            for start in (0..each).step_by(1_000) {
                let id = |n: i32| base + number * each + start + n;
                let old = |n: i32| number * 100_000 + (start * 7 + n * 13) % 50_000;
                let inserts: Vec<RawDocumentBuf> = (0..300).map(|n| document(id(n))).collect();
                let updates: Vec<Document> = (0..600)
                    .map(|n| doc! {"q": {"_id": old(n)}, "u": {"$set": {"a": n, "b": start, "c": n + start}}})
                    .collect();
                let deletes: Vec<Document> =
                    (0..100).map(|n| doc! {"q": {"_id": id(n)}, "limit": 1}).collect();
                let database = client.database("bench");
                database
                    .collection::<RawDocumentBuf>("documents")
                    .insert_many(inserts)
                    .ordered(false)
                    .await
                    .unwrap();
                let update = doc! {"update": "documents", "updates": updates, "ordered": false};
                database.run_command(update).await.unwrap();
                let delete = doc! {"delete": "documents", "deletes": deletes, "ordered": false};
                database.run_command(delete).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}
