//! Memory over an hour of streaming.

use std::time::Duration;

use crate::document::{document, fill};
use crate::engine::Engine;
use crate::load::{Load, Shape};
use crate::rig::Rig;
use crate::row::{Figure, Picture, Row, Series};
use crate::sampler::Sampler;

const DOCUMENTS: i32 = 50_000;

/// Events a second.
const EVENTS: f64 = 1_000.0;

const EVERY: Duration = Duration::from_secs(5);

/// The load is there before the first sample.
const WARM_UP: Duration = Duration::from_secs(10);

/// MiB an hour that count as flat: less than a percent of the bound.
const FLAT: f64 = 2.0;

pub async fn run() -> Row {
    let minutes: f64 = std::env::var("MINUTES").ok().map_or(60.0, |minutes| minutes.parse().unwrap());
    let rig = Rig::standard().await;
    fill(&rig.source_client, "documents0", DOCUMENTS, document).await;
    let engine = Engine::serve(&rig).await;
    engine.start(&["bench.*"]);
    engine.until_streaming().await;
    let shape = Shape { rate: EVENTS, collections: 1, documents: DOCUMENTS, inserts: 10 };
    let load = Load::start(&rig.source_client, shape);
    // What the clone used is given back once the stream is at work: that peak is not this row's.
    tokio::time::sleep(WARM_UP).await;
    let before = engine.mark();
    let memory = Sampler::memory(&engine.pid(), EVERY);
    tokio::time::sleep(Duration::from_secs_f64(minutes * 60.0)).await;
    let points = memory.end().await;
    let used = engine.usage().since(before);
    let (_, rate) = load.end().await;
    engine.until(|status| status["lagTimeSeconds"] == 0).await;
    engine.stop();
    let second_half = &points[points.len() / 2..];
    let held = second_half.iter().map(|point| point[1]).sum::<f64>() / second_half.len() as f64;
    Row {
        slug: "hour".to_owned(),
        title: format!("Memory over {minutes} minutes of streaming"),
        measured: "Resident memory of the process every 5 s; the slope is a linear fit over the second half."
            .to_owned(),
        bar: "flat".to_owned(),
        figures: vec![
            Figure::under("growth", slope(second_half) * 3600.0, "MiB an hour", FLAT),
            Figure::plain("memory, mean of the second half", held, "MiB"),
            Figure::under("peak memory", used.peak_mib, "MiB", 128.0),
            Figure::plain("events", rate, "per second"),
            Figure::plain("CPU per million events", used.cpu_seconds / (minutes * 60.0 * rate) * 1e6, "s"),
        ],
        series: vec![Series::new(Picture::Memory, "an hour of streaming", points)],
        ..Row::default()
    }
}

/// Of the line that fits best.
fn slope(points: &[[f64; 2]]) -> f64 {
    let amount = points.len() as f64;
    let mean = |axis: usize| points.iter().map(|point| point[axis]).sum::<f64>() / amount;
    let (x, y) = (mean(0), mean(1));
    let above: f64 = points.iter().map(|point| (point[0] - x) * (point[1] - y)).sum();
    let below: f64 = points.iter().map(|point| (point[0] - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}
