//! A steady load on the source, of so many operations a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use tokio::task::JoinHandle;

use crate::document::{document, random};

/// How often what is due is written.
const TICK: Duration = Duration::from_millis(5);

/// Operations in a command at most: what is behind is caught up with in steps.
const MOST: u64 = 500;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Operations a second.
    pub rate: f64,
    /// Over so many collections `bench.documents0`, …
    pub collections: u32,
    /// Documents in each, with the `_id`s from 0 on.
    pub documents: i32,
    /// Percent that are inserts; the rest are updates of three fields.
    pub inserts: u64,
}

/// Goes on until it is told to end.
pub struct Load {
    end: Arc<AtomicBool>,
    task: JoinHandle<u64>,
    began: Instant,
}

impl Load {
    pub fn start(source: &Client, shape: Shape) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (source, ended) = (source.clone(), Arc::clone(&end));
        let task = tokio::spawn(async move { write(&source, &shape, &ended).await });
        Self { end, task, began: Instant::now() }
    }

    /// Operations written, and how many a second that were.
    pub async fn end(self) -> (u64, f64) {
        self.end.store(true, Ordering::Relaxed);
        let written = self.task.await.unwrap();
        (written, written as f64 / self.began.elapsed().as_secs_f64())
    }
}

async fn write(source: &Client, shape: &Shape, ended: &AtomicBool) -> u64 {
    let database = source.database("bench");
    let (began, mut written, mut inserted) = (Instant::now(), 0_u64, 10_000_000);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !ended.load(Ordering::Relaxed) {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * shape.rate) as u64;
        while written < due && !ended.load(Ordering::Relaxed) {
            let amount = (due - written).min(MOST);
            let name = format!("documents{}", random() % u64::from(shape.collections));
            let (mut inserts, mut updates): (Vec<RawDocumentBuf>, Vec<Document>) = (Vec::new(), Vec::new());
            for _ in 0..amount {
                let random = random();
                if random % 100 < shape.inserts {
                    inserted += 1;
                    inserts.push(document(inserted));
                    continue;
                }
                let id = ((random >> 8) % shape.documents as u64) as i32;
                let value = (random >> 40) as i32;
                updates.push(
                    doc! {"q": {"_id": id}, "u": {"$set": {"a": value, "b": value / 2, "c": value % 1_000}}},
                );
            }
            if !updates.is_empty() {
                let update = doc! {"update": &name, "updates": updates, "ordered": false};
                database.run_command(update).await.unwrap();
            }
            if !inserts.is_empty() {
                let collection = database.collection::<RawDocumentBuf>(&name);
                collection.insert_many(inserts).ordered(false).await.unwrap();
            }
            written += amount;
        }
    }
    written
}
