//! A clone while the source goes on: collections that are done catch up while others are still copied.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use crate::document::{document, fill, scaled};
use crate::engine::Engine;
use crate::load::{Load, Shape};
use crate::rig::Rig;
use crate::row::{Figure, Row, median};
use crate::workload;

const COLLECTIONS: u32 = 20;
const DOCUMENTS: i32 = 25_000;
const EVENTS: f64 = 5_000.0;

pub async fn run(rounds: usize) -> Row {
    let rig = Rig::standard().await;
    let (mut clones, mut gaps, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        rig.clear_target().await;
        rig.clear_source().await;
        let documents = scaled(DOCUMENTS);
        for number in 0..COLLECTIONS {
            fill(&rig.source_client, &format!("documents{number}"), documents, document).await;
        }
        rig.settle().await;
        let shape = Shape { rate: EVENTS, collections: COLLECTIONS, documents, inserts: 30 };
        let load = Load::start(&rig.source_client, shape);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let engine = Engine::serve(&rig).await;
        let began = mongodb::bson::DateTime::now();
        engine.start(&["bench.*"]);
        engine.until(|status| status["initialSync"]["completed"] == true).await;
        let (_, rate) = load.end().await;
        let syncs = rig.target_client.database("clustersync").collection::<Document>("syncs");
        let sync = syncs.find_one(doc! {}).await.unwrap().unwrap();
        // The engine's own record: to the millisecond, where the status is looked at now and then.
        let at = |name: &str| {
            let text = sync.get_str(name).unwrap();
            mongodb::bson::DateTime::parse_rfc3339_str(text).unwrap().timestamp_millis() as f64 / 1000.0
        };
        clones.push(at("clonedAt") - began.timestamp_millis() as f64 / 1000.0);
        gaps.push(at("consistentAt") - at("clonedAt"));
        rates.push(rate);
        let last = crate::backlog::Markers::write(&rig.source_client).await;
        last.all(&rig.target_client).await;
        workload::assert_equal(&rig.source_client, &rig.target_client, "bench").await;
        engine.stop();
    }
    Row {
        slug: "catch-up".to_owned(),
        title: "Catching up: 20 collections cloned under 5,000 events/s".to_owned(),
        measured: "The time from the end of the clone until `initialSync.completed`, by the sync's own record; inserts and updates go to all collections meanwhile.".to_owned(),
        bar: "within 5 s".to_owned(),
        figures: vec![
            Figure::under("from the clone's end to completed", median(gaps), "s", 5.0),
            Figure::plain("the clone", median(clones), "s"),
            Figure::plain("events written meanwhile", median(rates), "per second"),
        ],
        ..Row::default()
    }
}
