//! A backlog: a sync that streams is paused, the source goes on, and what it wrote meanwhile is caught up with.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};

use crate::bare::{self, Work};
use crate::document::{random, scaled};
use crate::engine::Engine;
use crate::rig::Rig;
use crate::row::{Figure, Round, Row, median, peak};
use crate::workload::{self, Mix};

/// Documents that show how far the target is. Lanes are chosen by the hash of a document's key: so many, of random keys,
/// meet every lane.
const MARKERS: i64 = 64;

/// One backlog, caught up with.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    pub round: Round,
    /// From the first change on the target to the last.
    pub from_first: f64,
    /// Memory that the process held before: what the clone left, which the peak cannot be below.
    pub held_mib: f64,
}

impl Pass {
    /// Events a second, the resumption left out.
    pub fn applied_rate(&self) -> f64 {
        self.round.amount / self.from_first
    }
}

/// Markers on the source; what a target has of them tells how far it is.
pub struct Markers(Vec<i64>);

impl Markers {
    pub async fn write(source: &Client) -> Self {
        let ids: Vec<i64> = (0..MARKERS).map(|_| (random() >> 1) as i64).collect();
        let markers = source.database("bench").collection::<Document>("markers");
        markers.insert_many(ids.iter().map(|id| doc! {"_id": id})).await.unwrap();
        Self(ids)
    }

    /// Until one of them is on the target.
    pub async fn any(&self, target: &Client) {
        self.found(target, doc! {"_id": {"$in": &self.0}}).await;
    }

    /// Until all are.
    pub async fn all(&self, target: &Client) {
        for id in &self.0 {
            self.found(target, doc! {"_id": id}).await;
        }
    }

    async fn found(&self, target: &Client, filter: Document) {
        let markers = target.database("bench").collection::<Document>("markers");
        let deadline = Instant::now() + Duration::from_secs(600);
        while markers.find_one(filter.clone()).await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "a marker does not come");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

/// Fill the source, let a sync reach the stream, pause it, let `backlog` write, and time from `resume` until all is
/// applied. `mix` says what is there before, and how many operations `backlog` brings in scope.
pub async fn pass(rig: &Rig, mix: &Mix, backlog: impl AsyncFnOnce(&Client)) -> Pass {
    rig.clear_target().await;
    rig.clear_source().await;
    workload::fill(&rig.source_client, "bench", mix).await;
    rig.source_client.database("bench").create_collection("markers").await.unwrap();
    let engine = Engine::serve(rig).await;
    engine.start(&["bench.*"]);
    engine.until_streaming().await;
    engine.pause();
    engine.until(|status| status["state"] == "paused").await;
    let first = Markers::write(&rig.source_client).await;
    backlog(&rig.source_client).await;
    let last = Markers::write(&rig.source_client).await;
    rig.settle().await;

    let before = engine.mark();
    let began = Instant::now();
    engine.resume();
    first.any(&rig.target_client).await;
    let reached = Instant::now();
    last.all(&rig.target_client).await;
    let (seconds, from_first) = (began.elapsed().as_secs_f64(), reached.elapsed().as_secs_f64());
    let used = engine.usage().since(before);

    workload::assert_equal(&rig.source_client, &rig.target_client, "bench").await;
    engine.stop();
    let round = Round {
        seconds,
        amount: f64::from(mix.operations) + 2.0 * MARKERS as f64,
        bytes: None,
        cpu_seconds: used.cpu_seconds,
        peak_mib: used.peak_mib,
    };
    Pass { round, from_first, held_mib: before.resident_mib }
}

/// The backlog of a mix.
pub async fn engine(rig: &Rig, mix: &Mix) -> Pass {
    pass(rig, mix, async |source| workload::write(source, "bench", mix).await).await
}

/// The same operations by the bare program, on a target that holds what they begin with.
pub async fn bare(rig: &Rig, mix: &Mix) -> Round {
    rig.clear_target().await;
    workload::fill(&rig.target_client, "bench", mix).await;
    rig.settle().await;
    bare::run(rig, "bulks", &[&serde_json::to_string(mix).unwrap()]).await
}

/// In the child: plain bulks from four clients.
pub async fn bulks(target: &Client, args: &[String]) -> Work {
    let mix: Mix = serde_json::from_str(&args[0]).unwrap();
    workload::write(target, "bench", &mix).await;
    Work { amount: u64::from(mix.operations), bytes: None }
}

/// A row of backlogs: what the source writes, and the bulks that are its ceiling.
#[derive(Clone, Copy)]
struct Variant {
    slug: &'static str,
    title: &'static str,
    source: Mix,
    bare: Mix,
    least_ratio: f64,
}

/// The backlog that the others are variants of.
pub fn plain() -> Mix {
    Mix::plain(tens(200_000))
}

/// Whole tens for each client.
fn tens(operations: i32) -> u32 {
    (scaled(operations) / 40 * 40).max(40) as u32
}

/// All of them.
fn variants() -> Vec<Variant> {
    let plain = plain();
    let large = |operations, bytes, base, bulk| Mix { bytes, base, bulk, ..Mix::plain(tens(operations)) };
    let variant =
        |slug, title, source, least_ratio| Variant { slug, title, source, bare: source, least_ratio };
    let transactions = Mix { transactions: true, ..plain };
    let namespaces = Mix { collections: 50, ..plain };
    vec![
        variant("backlog", "Backlog of 200,000 events, documents of 0.9 KB", plain, 0.7),
        variant(
            "backlog-5k",
            "The backlog with documents of 5 KB",
            large(200_000, 5_000, 20_000, 1_000),
            0.6,
        ),
        variant(
            "backlog-100k",
            "The backlog with documents of 100 KB",
            large(12_000, 100_000, 1_000, 100),
            0.6,
        ),
        variant("backlog-5m", "The backlog with documents of 5 MB", large(320, 5_000_000, 20, 10), 0.6),
        Variant {
            bare: plain,
            ..variant("backlog-transactions", "The backlog in transactions of 1,000", transactions, 0.6)
        },
        Variant {
            // Bulks of a thousand in one collection, as whoever knows them all beforehand would write them.
            bare: Mix { bulk: 50_000, ..namespaces },
            ..variant("backlog-namespaces", "The backlog over 50 collections", namespaces, 0.6)
        },
    ]
}

/// Measure one of them.
pub async fn run(slug: &str, rounds: usize) -> Row {
    let all = variants();
    measure(rounds, all.iter().find(|one| one.slug == slug).unwrap()).await
}

/// The plain one with so many operations (a multiple of forty).
pub async fn small(rounds: usize, operations: u32) -> Row {
    let all = variants();
    let plain = Mix::plain(operations);
    measure(rounds, &Variant { source: plain, bare: plain, ..all[0] }).await
}

async fn measure(rounds: usize, variant: &Variant) -> Row {
    let rig = &Rig::standard().await;
    let (mut bare_rounds, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare_rounds.push(bare(rig, &variant.bare).await);
        passes.push(engine(rig, &variant.source).await);
    }
    let memory = if variant.source.bytes > 100_000 { 256.0 } else { 128.0 };
    let mut figures = figures(&passes, memory);
    if variant.source.bytes > 10_000 {
        // An event of a large document is not one of a million small ones.
        figures.retain(|figure| figure.name != PER_MILLION);
    }
    Row {
        slug: variant.slug.to_owned(),
        title: variant.title.to_owned(),
        measured: format!(
            "{} operations on the source while a sync is paused: 30 % inserts, 60 % updates of three fields, 10 % deletes. From the call of resume until the last of them is on the target.",
            variant.source.operations
        ),
        ceiling: "the same operations as plain bulks from four clients".to_owned(),
        bar: format!("at least {} of it", variant.least_ratio),
        least_ratio: Some(variant.least_ratio),
        unit: "events".to_owned(),
        bare: bare_rounds,
        engine: passes.iter().map(|pass| pass.round).collect(),
        figures,
        ..Row::default()
    }
}

const PER_MILLION: &str = "CPU per million events";

/// What a row of backlogs tells besides its ratio.
pub fn figures(passes: &[Pass], memory: f64) -> Vec<Figure> {
    let rounds: Vec<Round> = passes.iter().map(|pass| pass.round).collect();
    let of = |what: fn(&Pass) -> f64| median(passes.iter().map(what).collect());
    vec![
        Figure::plain("rate from the first event applied", of(Pass::applied_rate), "events/s"),
        Figure::under(PER_MILLION, of(|pass| pass.round.cpu_seconds / pass.round.amount * 1e6), "s", 8.0),
        Figure::under("peak memory", peak(&rounds), "MiB", memory),
        Figure::plain("memory held while paused", of(|pass| pass.held_mib), "MiB"),
    ]
}
