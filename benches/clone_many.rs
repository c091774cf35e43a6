//! Row: many small collections, an index each.

use futures::StreamExt;
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::bare::Work;
use crate::document::{document, scaled};
use crate::rig::Rig;
use crate::row::{Figure, Row, median, median_of};
use crate::{bare, clone, copy, copy_index};

const COLLECTIONS: i32 = 600;

/// Documents in each.
const DOCUMENTS: i32 = 166;

/// Collections at a time.
const AT_ONCE: usize = 8;

/// How many times as long as the bare program the engine may take.
const LONGEST: f64 = 1.2;

async fn fill(source: &Client, collections: i32) {
    let all = (0..collections).map(|number| async move {
        let name = format!("c{number:04}");
        let documents = (0..DOCUMENTS).map(document);
        source.database("bench").collection::<RawDocumentBuf>(&name).insert_many(documents).await.unwrap();
        copy_index::create(source, &name, &[doc! {"key": {"n": 1}, "name": "n_1"}]).await;
    });
    futures::stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// `bench bare many`: of each collection create, index, insert; eight at a time.
pub async fn many(source: &Client, target: &Client) -> Work {
    let names = source.database("bench").list_collection_names().await.unwrap();
    let all = names.into_iter().map(|name| {
        let (source, target) = (source.clone(), target.clone());
        tokio::spawn(async move {
            let indexes = copy_index::indexes(&source, &name).await;
            target.database("bench").create_collection(&name).await.unwrap();
            copy_index::create(&target, &name, &indexes).await;
            copy::stream(source, target, name, Document::new()).await
        })
    });
    let mut work = Work::default();
    let mut running = futures::stream::iter(all).buffer_unordered(AT_ONCE);
    while let Some(done) = running.next().await {
        work += done.unwrap();
    }
    work
}

pub async fn run(rounds: usize) -> Row {
    let mut rig = Rig::standard().await;
    let collections = scaled(COLLECTIONS);
    fill(&rig.source_client, collections).await;
    let wanted = copy_index::ready(&rig.source_client).await;
    let (mut bare, mut engine, mut target) = (Vec::new(), Vec::new(), [const { Vec::new() }; 2]);
    for _ in 0..rounds {
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        let round = bare::run(&rig, "many", &[]).await;
        bare.push(round);
        target[0].push(rig.target_cpu().await - before);
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        let documents = collections * DOCUMENTS;
        engine.push(clone::indexed(&rig, documents, round.bytes.unwrap(), wanted).await);
        target[1].push(rig.target_cpu().await - before);
    }
    let seconds = |rounds| median_of(rounds, |one| one.seconds).unwrap();
    let [beside_bare, beside_engine] = target;
    let figures = vec![
        Figure::plain("against the bare program's time", seconds(&engine) / seconds(&bare), "times"),
        Figure::plain("the bare program", seconds(&bare), "s"),
        Figure::plain("clustersync", seconds(&engine), "s"),
        Figure::plain("CPU of the target's server under the bare program", median(beside_bare), "s"),
        Figure::plain("CPU of the target's server under clustersync", median(beside_engine), "s"),
        clone::memory_figure(&engine),
    ];
    Row {
        slug: "clone-many".to_owned(),
        title: format!("clone, {collections} collections of {DOCUMENTS} documents of 0.9 KB, an index each"),
        measured: "From the call of `/start` until `/status` says that the clone is complete and all indexes are ready on the target. Each program gets a target that never held anything.".to_owned(),
        ceiling: "the same by a bare program: create, index, insert, 8 at a time".to_owned(),
        bar: format!("under {LONGEST} times its time"),
        least_ratio: Some(1.0 / LONGEST),
        unit: "documents".to_owned(),
        bare,
        engine,
        figures,
        ..Row::default()
    }
}
