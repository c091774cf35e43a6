//! Row: one collection, integer `_id`, no indexes.

use crate::document::{document, fill, scaled};
use crate::rig::Rig;
use crate::row::{Picture, Round, Row, Series, grouped};
use crate::sampler::{Sampler, rates};
use crate::{bare, clone};

const DOCUMENTS: i32 = 500_000;

pub async fn run(rounds: usize) -> Row {
    measure(rounds, scaled(DOCUMENTS)).await
}

/// With so many documents.
pub async fn measure(rounds: usize, documents: i32) -> Row {
    let mut rig = Rig::standard().await;
    fill(&rig.source_client, "documents", documents, document).await;
    let (mut bare, mut fenced, mut engine, mut series) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut target = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        series.clear();
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        let counts = Sampler::count(&rig.target_client, "documents");
        let round: Round = bare::run(&rig, "copy", &["documents", "int"]).await;
        series.push(Series::new(Picture::CloneThroughput, "bare copy", rates(&counts.end().await)));
        let bytes = round.bytes.unwrap();
        bare.push(round);
        target[0].push(rig.target_cpu().await - before);

        rig.renew_target().await;
        let before = rig.target_cpu().await;
        fenced.push(bare::run(&rig, "copy-in-transactions", &["documents", "int"]).await);
        target[1].push(rig.target_cpu().await - before);

        rig.renew_target().await;
        let before = rig.target_cpu().await;
        let mut samplers = None;
        let round = clone::engine(&rig, documents, bytes, async |engine| {
            let memory = Sampler::memory(&engine.pid(), std::time::Duration::from_millis(100));
            let count = Sampler::count(&rig.target_client, "documents");
            engine.until_cloned().await;
            count.stop();
            memory.stop();
            samplers = Some((count, memory));
        })
        .await;
        let (count, memory) = samplers.unwrap();
        let (counts, memory) = (count.end().await, memory.end().await);
        series.push(Series::new(Picture::CloneThroughput, "clustersync", rates(&counts)));
        series.push(Series::new(Picture::CloneMemory, "clustersync", memory));
        engine.push(round);
        target[2].push(rig.target_cpu().await - before);
    }
    let mut figures = clone::cpu_figures(&bare, &engine);
    figures.push(clone::memory_figure(&engine));
    figures.extend(clone::fence_figures(&bare, &fenced, &engine, target));
    Row {
        slug: "clone-int".to_owned(),
        title: format!(
            "clone, {} documents of 0.9 KB, one collection, integer `_id`, no indexes",
            grouped(f64::from(documents))
        ),
        measured: "From the call of `/start` until `/status` says that the clone is complete.".to_owned(),
        ceiling: "bare copy in four streams, raw batches".to_owned(),
        bar: "at least 0.95 of it".to_owned(),
        least_ratio: Some(0.95),
        unit: "documents".to_owned(),
        bare,
        engine,
        figures,
        series,
        ..Row::default()
    }
}
