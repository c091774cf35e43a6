//! How long a write that a majority of the source has takes to be readable on the target.

use std::time::{Duration, Instant};

use futures::StreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::backlog;
use crate::bare::{self, Work};
use crate::document::{document, fill, random, scaled};
use crate::engine::Engine;
use crate::load::{Load, Shape};
use crate::rig::Rig;
use crate::row::{Figure, Picture, Row, Series, quantile};
use crate::usage::Machine;
use crate::workload::Mix;

/// Documents that the load updates.
const DOCUMENTS: i32 = 50_000;

/// Probes in a round.
const PROBES: i32 = 400;

/// From one probe to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The load is there before the first probe.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long the load without a limit is watched.
const SATURATED: Duration = Duration::from_secs(15);

/// What one load made of the engine's lag and of the bare program's.
#[derive(Default)]
struct Measured {
    name: &'static str,
    /// Updates a second.
    rate: f64,
    /// Whether the bars are meant for it.
    asked: bool,
    engine: Vec<f64>,
    bare: Vec<f64>,
    written: Vec<f64>,
    /// The machine's idle share, with the engine and with the bare program.
    idle: [Vec<f64>; 2],
}

pub async fn run(rounds: usize) -> Row {
    let rig = Rig::standard().await;
    let saturation = saturation(&rig).await;
    let backlog = backlog::engine(&rig, &Mix::plain(scaled(60_000) as u32)).await.round.rate();
    let load = |name, rate, asked| Measured { name, rate, asked, ..Measured::default() };
    let mut all = [
        load("at 300 updates/s", 300.0, true),
        load("at half of the saturation", saturation / 2.0, true),
        // Where the source writes as much as that beside all else, the machine is full.
        load("at half of a backlog's rate", backlog / 2.0, false),
    ];
    for _ in 0..rounds {
        for measured in &mut all {
            let (lags, _, idle) = bare(&rig, measured.rate).await;
            measured.bare.extend(lags);
            measured.idle[1].push(idle);
            let (lags, written, idle) = engine(&rig, measured.rate).await;
            measured.engine.extend(lags);
            measured.written.push(written);
            measured.idle[0].push(idle);
        }
    }
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for one in &mut all {
        let (name, bare, engine) = (one.name, &mut one.bare, &mut one.engine);
        for (word, share, bar) in [("p50", 0.5, 15.0), ("p99", 0.99, 100.0)] {
            let (words, value) = (format!("{word} {name}"), quantile(engine, share));
            figures.push(match one.asked {
                true => Figure::under(&words, value, "ms", bar),
                false => Figure::plain(&words, value, "ms"),
            });
        }
        figures.push(Figure::plain(&format!("largest {name}"), quantile(engine, 1.0), "ms"));
        for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
            figures.push(Figure::plain(&format!("{word} {name}, bare program"), quantile(bare, share), "ms"));
        }
        let written = crate::row::median(one.written.clone());
        figures.push(Figure::plain(&format!("updates that the source took {name}"), written, "per second"));
        for (words, idle) in ["", ", bare program"].into_iter().zip(&one.idle) {
            let idle = crate::row::median(idle.clone()) * 100.0;
            figures.push(Figure::plain(&format!("idle time of the machine {name}{words}"), idle, "%"));
        }
        series.push(Series::new(Picture::Lag, &format!("clustersync {name}"), distribution(engine)));
        series.push(Series::new(Picture::Lag, &format!("bare program {name}"), distribution(bare)));
    }
    Row {
        slug: "lag".to_owned(),
        title: "Lag from the source's majority acknowledgement to readable on the target".to_owned(),
        measured: format!(
            "Twenty documents a second are inserted among the load with `w: majority`; each is looked for on the target every millisecond from its acknowledgement on. {PROBES} a round and load. The saturation was measured first: beside a load without a limit {saturation:.0} updates a second were applied. A backlog, which nobody adds to, is caught up with at {backlog:.0} events a second: half of that beside the load that writes it is shown too."
        ),
        ceiling: "a change stream on that one collection and one insert".to_owned(),
        bar: "p50 under 15 ms, p99 under 100 ms".to_owned(),
        unit: "ms".to_owned(),
        figures,
        series,
        ..Row::default()
    }
}

/// Share of the probes that were there by then.
fn distribution(sorted: &[f64]) -> Vec<[f64; 2]> {
    sorted.iter().enumerate().map(|(number, lag)| [*lag, (number + 1) as f64 / sorted.len() as f64]).collect()
}

async fn prepare(rig: &Rig) {
    rig.clear_target().await;
    rig.clear_source().await;
    fill(&rig.source_client, "documents0", DOCUMENTS, document).await;
    for client in [&rig.source_client, &rig.target_client] {
        client.database("bench").create_collection("probes").await.unwrap();
    }
}

fn load(rig: &Rig, rate: f64) -> Load {
    Load::start(&rig.source_client, Shape { rate, collections: 1, documents: DOCUMENTS, inserts: 0 })
}

/// Updates a second that the engine applies while the source takes as many as it can.
async fn saturation(rig: &Rig) -> f64 {
    prepare(rig).await;
    let engine = Engine::serve(rig).await;
    engine.start(&["bench.*"]);
    engine.until_streaming().await;
    let load = load(rig, f64::from(i32::MAX));
    let applied = || engine.status()["eventsApplied"].as_f64().unwrap();
    tokio::time::sleep(WARM_UP).await;
    let (began, before) = (Instant::now(), applied());
    tokio::time::sleep(SATURATED).await;
    let rate = (applied() - before) / began.elapsed().as_secs_f64();
    load.end().await;
    engine.stop();
    rate
}

async fn engine(rig: &Rig, rate: f64) -> (Vec<f64>, f64, f64) {
    prepare(rig).await;
    let engine = Engine::serve(rig).await;
    engine.start(&["bench.*"]);
    engine.until_streaming().await;
    let load = load(rig, rate);
    tokio::time::sleep(WARM_UP).await;
    let before = Machine::now();
    let lags = probe(rig, PROBES).await;
    let idle = Machine::idle_since(before);
    let (_, written) = load.end().await;
    engine.stop();
    (lags, written, idle)
}

async fn bare(rig: &Rig, rate: f64) -> (Vec<f64>, f64, f64) {
    prepare(rig).await;
    let load = load(rig, rate);
    tokio::time::sleep(WARM_UP).await;
    let probes = PROBES.to_string();
    let arguments = [probes.as_str()];
    let relaying = bare::run(rig, "relay", &arguments);
    let probing = async {
        let ready = rig.target_client.database("bench").collection::<Document>("ready");
        while ready.find_one(doc! {}).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = Machine::now();
        let lags = probe(rig, PROBES).await;
        (lags, Machine::idle_since(before))
    };
    let (_, (lags, idle)) = tokio::join!(relaying, probing);
    let (_, written) = load.end().await;
    (lags, written, idle)
}

/// Milliseconds that each of so many probes took.
pub async fn probe(rig: &Rig, probes: i32) -> Vec<f64> {
    let mut ticks = tokio::time::interval(EVERY);
    let mut tasks = Vec::new();
    for _ in 0..probes {
        ticks.tick().await;
        let (source, target) = (rig.source_client.clone(), rig.target_client.clone());
        tasks.push(tokio::spawn(async move { one(&source, &target).await }));
    }
    let mut lags = Vec::new();
    for task in tasks {
        lags.push(task.await.unwrap());
    }
    lags
}

async fn one(source: &Client, target: &Client) -> f64 {
    let id = (random() >> 1) as i64;
    let probes = |client: &Client| client.database("bench").collection::<Document>("probes");
    probes(source).insert_one(doc! {"_id": id}).write_concern(WriteConcern::majority()).await.unwrap();
    let acknowledged = Instant::now();
    let target = probes(target);
    while target.find_one(doc! {"_id": id}).await.unwrap().is_none() {
        assert!(acknowledged.elapsed() < Duration::from_secs(60), "a probe does not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    acknowledged.elapsed().as_secs_f64() * 1000.0
}

/// In the child: the change stream's own delivery and one write.
pub async fn relay(source: &Client, target: &Client, args: &[String]) -> Work {
    let probes: usize = args[0].parse().unwrap();
    let mut stream = source.database("bench").collection::<Document>("probes").watch().await.unwrap();
    target.database("bench").collection::<Document>("ready").insert_one(doc! {}).await.unwrap();
    let target = target.database("bench").collection::<Document>("probes");
    for _ in 0..probes {
        let event = stream.next().await.unwrap().unwrap();
        target.insert_one(event.full_document.unwrap()).await.unwrap();
    }
    Work { amount: probes as u64, bytes: None }
}
