//! Row: one collection of 3 GB with random `_id`, several times as large as either cache.

use futures::StreamExt;
use mongodb::Client;
use mongodb::bson::{RawDocumentBuf, doc, rawdoc};

use crate::bare::Work;
use crate::document::{fill, random, scaled, uuid};
use crate::rig::{OPLOG_MB, Rig};
use crate::row::{Round, Row};
use crate::{bare, clone, copy};

const DOCUMENTS: i32 = 3_400_000;

/// Gigabytes of either cache.
const CACHE_GB: f32 = 0.5;

/// Inserts at a time.
const INSERTERS: usize = 4;

/// Of text that does not shrink much on disk.
fn document(number: i32) -> RawDocumentBuf {
    let text: String = (0..52).map(|_| format!("{:016x}", random())).collect();
    rawdoc! {"_id": uuid(), "n": number, "text": text}
}

/// `bench bare natural … NAME`: one scan in natural order, several inserts at a time.
pub async fn natural(source: &Client, target: &Client, args: &[String]) -> Work {
    let [name] = args else { panic!("natural NAME") };
    let collection = source.database("bench").collection::<RawDocumentBuf>(name);
    let find = collection.find(doc! {}).sort(doc! {"$natural": 1}).batch_size(copy::BATCH);
    let batches = find.batch().await.unwrap();
    let inserts = batches.map(|batch| {
        let documents = batch.unwrap().doc_slices().unwrap().to_owned();
        let (target, name) = (target.clone(), name.clone());
        tokio::spawn(async move {
            if documents.is_empty() {
                Work::default()
            } else {
                copy::insert(&target, None, &name, documents).await
            }
        })
    });
    let mut work = Work::default();
    let mut running = inserts.buffer_unordered(INSERTERS);
    while let Some(done) = running.next().await {
        work += done.unwrap();
    }
    work
}

pub async fn run(rounds: usize) -> Row {
    let rig = Rig::start(CACHE_GB, OPLOG_MB).await;
    let documents = scaled(DOCUMENTS);
    fill(&rig.source_client, "documents", documents, document).await;
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        rig.clear_target().await;
        rig.settle().await;
        let round: Round = bare::run(&rig, "natural", &["documents"]).await;
        bare.push(round);
        rig.clear_target().await;
        rig.settle().await;
        let done = async |engine: &crate::engine::Engine| {
            engine.until_cloned().await;
        };
        engine.push(clone::engine(&rig, documents, round.bytes.unwrap(), done).await);
    }
    let gigabytes = bare[0].bytes.unwrap() / 1e9;
    let mut figures = clone::cpu_figures(&bare, &engine);
    figures.push(clone::memory_figure(&engine));
    Row {
        slug: "clone-random-large".to_owned(),
        title: format!(
            "clone, one collection of {gigabytes:.1} GB with random `_id`, caches of {CACHE_GB} GB"
        ),
        measured: "From the call of `/start` until `/status` says that the clone is complete.".to_owned(),
        ceiling: "one scan in natural order, four inserts at a time".to_owned(),
        bar: "at least 0.9 of it".to_owned(),
        least_ratio: Some(0.9),
        unit: "documents".to_owned(),
        bare,
        engine,
        figures,
        ..Row::default()
    }
}
