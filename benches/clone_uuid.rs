//! Row: one collection, random UUIDs as `_id`, a unique and three other indexes, one of them multikey.

use mongodb::bson::{RawDocumentBuf, doc, rawdoc};

use crate::document::{fill, random, scaled, uuid};
use crate::rig::Rig;
use crate::row::{Figure, Row, grouped, median_of};
use crate::{bare, clone, copy_index};

const DOCUMENTS: i32 = 500_000;

fn document(number: i32) -> RawDocumentBuf {
    let tag = |place: u32| i32::from_le_bytes((random() as u32).to_le_bytes()).rotate_left(place) % 10_000;
    let text = "x".repeat(760);
    rawdoc! {"_id": uuid(), "number": number, "group": number % 1000, "at": random() as i64 >> 8, "tags": [tag(0), tag(5), tag(9)], "text": text}
}

pub async fn run(rounds: usize) -> Row {
    let mut rig = Rig::standard().await;
    let documents = scaled(DOCUMENTS);
    fill(&rig.source_client, "documents", documents, document).await;
    let indexes = [
        doc! {"key": {"number": 1}, "name": "number_1", "unique": true},
        doc! {"key": {"group": 1}, "name": "group_1"},
        doc! {"key": {"at": 1}, "name": "at_1"},
        doc! {"key": {"tags": 1}, "name": "tags_1"},
    ];
    copy_index::create(&rig.source_client, "documents", &indexes).await;
    let wanted = copy_index::ready(&rig.source_client).await;

    let (mut bare, mut fenced, mut built, mut engine) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut target = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        let round = bare::run(&rig, "copy-then-index", &["documents", "uuid"]).await;
        bare.push(round);
        target[0].push(rig.target_cpu().await - before);
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        fenced.push(bare::run(&rig, "copy-in-transactions-then-index", &["documents", "uuid"]).await);
        target[1].push(rig.target_cpu().await - before);
        rig.renew_target().await;
        let before = rig.target_cpu().await;
        engine.push(clone::indexed(&rig, documents, round.bytes.unwrap(), wanted).await);
        target[2].push(rig.target_cpu().await - before);
        rig.renew_target().await;
        built.push(bare::run(&rig, "copy-into-indexes", &["documents", "uuid"]).await);
    }
    let rate = |rounds| median_of(rounds, crate::row::Round::rate).unwrap();
    let mut figures = vec![
        Figure::plain("inserting into built indexes", rate(&built), "documents/s"),
        Figure::at_least("against inserting into built indexes", rate(&engine) / rate(&built), "times", 1.5),
    ];
    figures.extend(clone::cpu_figures(&bare, &engine));
    figures.push(clone::memory_figure(&engine));
    figures.extend(clone::fence_figures(&bare, &fenced, &engine, target));
    Row {
        slug: "clone-uuid".to_owned(),
        title: format!(
            "clone, {} documents of 0.9 KB, random UUID `_id`, a unique and three other indexes, one multikey", grouped(f64::from(documents))
        ),
        measured: "From the call of `/start` until `/status` says that the clone is complete and all indexes are ready on the target.".to_owned(),
        ceiling: "bare copy, then one createIndexes".to_owned(),
        bar: "at least 0.95 of it".to_owned(),
        least_ratio: Some(0.95),
        unit: "documents".to_owned(),
        bare,
        engine,
        figures,
        ..Row::default()
    }
}
