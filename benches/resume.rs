//! A process that is killed, and the next one that goes on where it was.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use futures::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};

use crate::document::{document, fill, scaled};
use crate::engine::Engine;
use crate::load::{Load, Shape};
use crate::rig::Rig;
use crate::row::{Figure, Row, median};

const DOCUMENTS: i32 = 500_000;

/// Events a second that go on while the stream's process is killed and started again.
const EVENTS: f64 = 10_000.0;

/// The bar, in seconds.
const BAR: f64 = 2.0;

/// A process's way from its start to its first write.
struct Resumed {
    /// Without the time for which it was told to wait for the dead owner's record to age.
    seconds: f64,
    awaited: f64,
}

pub async fn run(rounds: usize) -> Row {
    let (mut clones, mut streams) = (Vec::new(), Vec::new());
    let (mut twice, mut finished) = (0, Vec::new());
    for _ in 0..rounds {
        let rig = Rig::standard().await;
        let clone = in_the_clone(&rig).await;
        twice += clone.twice;
        finished.push(clone.finished as f64);
        clones.push(clone.resumed);
        streams.push(in_the_stream(&rig).await);
    }
    let of = |all: &[Resumed], what: fn(&Resumed) -> f64| median(all.iter().map(what).collect());
    let mut figures = vec![
        Figure::under("clone: first write after the restart", of(&clones, |one| one.seconds), "s", BAR),
        Figure::plain("clone: wait for the dead owner's record to age", of(&clones, |one| one.awaited), "s"),
        Figure::plain("clone: partitions that were finished before the kill", median(finished), ""),
        Figure::under("clone: finished partitions copied twice", f64::from(twice), "", 1.0),
        Figure::under("stream: first write after the restart", of(&streams, |one| one.seconds), "s", BAR),
        Figure::plain(
            "stream: wait for the dead owner's record to age",
            of(&streams, |one| one.awaited),
            "s",
        ),
    ];
    for figure in &mut figures {
        if figure.name.ends_with("twice") {
            figure.bar = Some("none".to_owned());
        }
    }
    Row {
        slug: "resume".to_owned(),
        title: "Resume after SIGKILL, at 50 % of a clone and while streaming 10,000 events/s".to_owned(),
        measured: "From the start of the next process until a slot's document on the target has moved, which it does in the transaction that writes data; the time between its first log line of waiting for ownership and the line of having it is taken off.".to_owned(),
        bar: "within 2 s; no finished partition copied twice".to_owned(),
        figures,
        ..Row::default()
    }
}

/// The slots' moves, by key; of partitions also whether they are done.
async fn slots(target: &Client, kind: &str) -> HashMap<String, (i64, bool)> {
    let slots = target.database("clustersync").collection::<Document>("slots");
    let found: Vec<Document> = slots.find(doc! {"kind": kind}).await.unwrap().try_collect().await.unwrap();
    let of = |slot: &Document| {
        let id = slot.get_str("_id").unwrap().to_owned();
        (id, (slot.get_i64("seq").unwrap(), slot.get_bool("done").unwrap_or(false)))
    };
    found.iter().map(of).collect()
}

/// Start the next process, and wait until it has moved a slot.
async fn restart(rig: &Rig, kind: &str) -> (Engine, Resumed) {
    // What the dead process had sent lands or is thrown away.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = slots(&rig.target_client, kind).await;
    let (began, at) = (Instant::now(), SystemTime::now());
    let engine = Engine::serve(rig).await;
    loop {
        let now = slots(&rig.target_client, kind).await;
        if now.iter().any(|(id, (seq, _))| before.get(id).is_none_or(|(then, _)| seq > then)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written:\n{}", engine.log());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let log = engine.log();
    let owned = logged(&log, "owner of the sync", at).expect("it says when it owns the sync");
    let waited = logged(&log, "waiting for ownership", at).filter(|from| *from < owned);
    let awaited = waited.map_or(0.0, |from| owned - from);
    (engine, Resumed { seconds: seconds - awaited, awaited })
}

/// Seconds from `since` to the first line that says `what`.
pub fn logged(log: &str, what: &str, since: SystemTime) -> Option<f64> {
    let line = log.lines().find(|line| line.contains(what))?;
    let time: mongodb::bson::DateTime =
        mongodb::bson::DateTime::parse_rfc3339_str(line.split_whitespace().next()?).ok()?;
    let since = since.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    Some(time.timestamp_millis() as f64 / 1000.0 - since)
}

struct Clone {
    resumed: Resumed,
    finished: usize,
    twice: i32,
}

async fn in_the_clone(rig: &Rig) -> Clone {
    let documents = scaled(DOCUMENTS);
    fill(&rig.source_client, "documents0", documents, document).await;
    rig.settle().await;
    let engine = Engine::serve(rig).await;
    engine.start(&["bench.*"]);
    let copied = rig.target_client.database("bench").collection::<Document>("documents0");
    while copied.estimated_document_count().await.unwrap() < documents as u64 / 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.kill9();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let killed = slots(&rig.target_client, "partition").await;
    let (engine, resumed) = restart(rig, "partition").await;
    engine.until_streaming().await;
    let now = slots(&rig.target_client, "partition").await;
    let finished: Vec<_> = killed.iter().filter(|(_, (_, done))| *done).collect();
    let again = finished.iter().filter(|(id, (seq, _))| now.get(*id).is_none_or(|(after, _)| after != seq));
    let twice = again.count() as i32;
    assert_eq!(copied.count_documents(doc! {}).await.unwrap(), documents as u64);
    engine.stop();
    Clone { resumed, finished: finished.len(), twice }
}

async fn in_the_stream(rig: &Rig) -> Resumed {
    let engine = Engine::serve(rig).await;
    engine.until_streaming().await;
    let shape = Shape { rate: EVENTS, collections: 1, documents: scaled(DOCUMENTS), inserts: 30 };
    let load = Load::start(&rig.source_client, shape);
    tokio::time::sleep(Duration::from_secs(5)).await;
    engine.kill9();
    let (engine, resumed) = restart(rig, "lane").await;
    let (_, rate) = load.end().await;
    println!("  … {rate:.0} events/s were written");
    engine.stop();
    resumed
}
