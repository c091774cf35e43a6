//! A backlog of which only a hundredth is in scope.

use std::time::Instant;

use futures::StreamExt;
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc, rawdoc};

use crate::backlog;
use crate::bare::{self, Work};
use crate::document::scaled;
use crate::rig::Rig;
use crate::row::{Figure, Round, Row, median};
use crate::workload::{self, Mix};

/// Events in scope.
const INSIDE: i32 = 6_000;

/// Events out of scope for each in scope.
const OUTSIDE: i32 = 99;

/// The bar, in events a second.
const BAR: f64 = 300_000.0;

pub async fn run(rounds: usize) -> Row {
    let rig = Rig::standard().await;
    let inside = scaled(INSIDE) / 40 * 40;
    let outside = inside * OUTSIDE;
    let mix = Mix::plain(inside as u32);
    let (mut bulks, mut passes, mut filters) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        bulks.push(backlog::bare(&rig, &mix).await);
        let mut since = None;
        let pass = backlog::pass(&rig, &mix, async |source| {
            since = Some(now(source).await);
            tokio::join!(workload::write(source, "bench", &mix), write_outside(source, outside));
        })
        .await;
        passes.push(pass);
        let since = since.unwrap();
        let (seconds, increment) = (since.time.to_string(), since.increment.to_string());
        filters.push(bare::run(&rig, "filter", &[&seconds, &increment]).await);
    }
    // Both can be under way at a time: the longer one counts.
    let bare_rounds: Vec<Round> = bulks
        .iter()
        .zip(&filters)
        .map(|(bulk, filter)| Round {
            seconds: filter.seconds.max(bulk.seconds),
            cpu_seconds: filter.cpu_seconds + bulk.cpu_seconds,
            ..*bulk
        })
        .collect();
    let rate = |seconds: f64| f64::from(outside) / seconds;
    let passed = median(passes.iter().map(|pass| rate(pass.round.seconds)).collect());
    let filtered = median(filters.iter().map(|round| rate(round.seconds)).collect());
    let mut figures = vec![
        Figure::at_least("events out of scope, from resume to the last", passed, "per second", BAR),
        Figure::plain(
            "events out of scope, by a bare change stream with the same filter",
            filtered,
            "per second",
        ),
        Figure::plain("of the bare change stream's rate", passed / filtered, ""),
        Figure::plain(
            "the operations in scope as plain bulks, with no event read",
            median(bulks.iter().map(|round| round.seconds).collect()),
            "s",
        ),
    ];
    figures.extend(backlog::figures(&passes, 128.0).into_iter().filter(|one| one.name == "peak memory"));
    Row {
        slug: "backlog-scope".to_owned(),
        title: "The backlog with 1 % of the events in scope".to_owned(),
        measured: format!(
            "{outside} events out of scope (small inserts) and {inside} in scope, side by side: from the call of resume until the last of them is on the target."
        ),
        ceiling: "a bare change stream with the same filter, and the operations in scope as plain bulks from four clients".to_owned(),
        bar: "at least 0.6 of it".to_owned(),
        least_ratio: Some(0.6),
        unit: "events".to_owned(),
        bare: bare_rounds,
        engine: passes.iter().map(|pass| pass.round).collect(),
        figures,
        notes: vec![format!(
            "Bulks alone are no ceiling of this row: at its own bar, {BAR} events a second, to read what is out of scope takes {:.1} s.",
            f64::from(outside) / BAR
        )],
        ..Row::default()
    }
}

async fn now(source: &Client) -> Timestamp {
    source
        .database("admin")
        .run_command(doc! {"ping": 1})
        .await
        .unwrap()
        .get_timestamp("operationTime")
        .unwrap()
}

async fn write_outside(source: &Client, amount: i32) {
    let outside = source.database("outside").collection::<RawDocumentBuf>("documents");
    for start in (0..amount).step_by(5_000) {
        let batch = (start..(start + 5_000).min(amount)).map(|id| rawdoc! {"_id": id, "n": id % 1_000});
        outside.insert_many(batch).ordered(false).await.unwrap();
    }
}

/// In the child: nothing but the change stream with a filter like the engine's, until it has passed what is there now.
pub async fn filter(source: &Client, args: &[String]) -> Work {
    let since = Timestamp { time: args[0].parse().unwrap(), increment: args[1].parse().unwrap() };
    let markers = source.database("bench").collection::<Document>("markers");
    markers.insert_one(doc! {"_id": "filtered"}).await.unwrap();
    let began = Instant::now();
    let only = doc! {"$match": {"ns.db": "bench"}};
    let mut stream =
        source.watch().pipeline([only]).start_at_operation_time(since).batch_size(10_000).await.unwrap();
    let mut events = 0;
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        events += 1;
        let key = event.document_key.unwrap_or_default();
        if key.get_str("_id").is_ok_and(|id| id == "filtered") {
            break;
        }
        assert!(began.elapsed().as_secs() < 600, "the stream does not end");
    }
    Work { amount: events, bytes: None }
}
