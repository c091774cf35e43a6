//! What the rows of the clone share: a round of the engine, and the bars on CPU and memory.

use std::time::{Duration, Instant};

use mongodb::bson::doc;

use crate::copy_index;
use crate::engine::Engine;
use crate::rig::Rig;
use crate::row::{Figure, Round, median, median_of, peak};

/// A round of the engine, from an empty target to `done`; `amount` and `bytes` are what it has to copy. The time
/// begins with the call of `/start`.
pub async fn engine(rig: &Rig, amount: i32, bytes: f64, done: impl AsyncFnOnce(&Engine)) -> Round {
    let engine = Engine::serve(rig).await;
    let (began, before) = (Instant::now(), engine.mark());
    engine.start(&["bench.*"]);
    done(&engine).await;
    let seconds = began.elapsed().as_secs_f64();
    let used = engine.usage().since(before);
    engine.stop();
    let found = rig.target_client.database("bench").run_command(doc! {"dbStats": 1}).await.unwrap();
    let found = found.get("objects").and_then(|found| found.as_i64().or(found.as_i32().map(i64::from)));
    assert_eq!(found, Some(i64::from(amount)), "all documents are on the target");
    Round {
        seconds,
        amount: f64::from(amount),
        bytes: Some(bytes),
        cpu_seconds: used.cpu_seconds,
        peak_mib: used.peak_mib,
    }
}

/// As [`engine`], until the data are copied and `indexes` of them are ready on the target.
pub async fn indexed(rig: &Rig, amount: i32, bytes: f64, indexes: i64) -> Round {
    let done = async |engine: &Engine| {
        engine.until_cloned().await;
        while copy_index::ready(&rig.target_client).await < indexes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    self::engine(rig, amount, bytes, done).await
}

/// CPU by GB against its bar, and the bare program's beside it.
pub fn cpu_figures(bare: &[Round], engine: &[Round]) -> Vec<Figure> {
    let by_gb = |rounds| median_of(rounds, |one| one.cpu_seconds / one.bytes.unwrap_or(f64::NAN) * 1e9);
    let mut figures = vec![Figure::under("CPU", by_gb(engine).unwrap(), "s per GB", 3.0)];
    if let Some(bare) = by_gb(bare) {
        figures.push(Figure::plain("CPU of the bare program", bare, "s per GB"));
    }
    figures
}

/// What stands between the ceiling and the engine: what fences a batch of the engine is its transaction, so that the same
/// bare program with each batch in a transaction is measured beside it, and the CPU of the target's server under each of
/// the three, in this order.
pub fn fence_figures(
    bare: &[Round],
    fenced: &[Round],
    engine: &[Round],
    target: [Vec<f64>; 3],
) -> Vec<Figure> {
    let rate = |rounds| median_of(rounds, Round::rate).unwrap();
    let (plain, fenced, engine) = (rate(bare), rate(fenced), rate(engine));
    let of_ceiling = "the bare copy with each batch in a transaction, of the ceiling";
    let mut figures = vec![
        Figure::plain(of_ceiling, fenced / plain, ""),
        Figure::plain("the engine, of the bare copy in transactions", engine / fenced, ""),
    ];
    let programs = ["the bare copy", "the bare copy in transactions", "the engine"];
    for (program, seconds) in programs.into_iter().zip(target) {
        let name = format!("CPU of the target's server under {program}");
        figures.push(Figure::plain(&name, median(seconds), "s"));
    }
    figures
}

/// The peak of memory against its bar, for documents of up to 100 KB.
pub fn memory_figure(engine: &[Round]) -> Figure {
    Figure::under("peak memory", peak(engine), "MiB", 128.0)
}
