//! Someone who keeps changing the source: inserts, updates of several shapes, deletes, and now and then a new
//! collection, a new index, a rename.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::{Client, IndexModel};
use tokio::task::JoinHandle;

/// A writer that runs until it is stopped.
pub struct Writer {
    running: Arc<AtomicBool>,
    pub operations: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    pub fn start(client: Client) -> Self {
        let (running, operations) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (still, count) = (Arc::clone(&running), Arc::clone(&operations));
        let task = tokio::spawn(async move {
            let mut n = 0;
            while still.load(Ordering::Relaxed) {
                write(&client, n).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                n += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
        Self { running, operations, task }
    }

    pub async fn stop(self) -> u64 {
        self.running.store(false, Ordering::Relaxed);
        self.task.await.unwrap();
        self.operations.load(Ordering::Relaxed)
    }
}

async fn write(client: &Client, n: i32) -> mongodb::error::Result<()> {
    let db = client.database("demo");
    let flights = db.collection::<Document>("flights");
    // Spread over all of the collection, in an order that repeats.
    let id = doc! {"_id": (i64::from(n) * 7_919 % 336_776) as i32};
    match n % 8 {
        0 => {
            let new = doc! {"_id": format!("new-{n}"), "carrier": "XX", "flight": n, "origin": "JFK", "time_hour": "2014"};
            flights.insert_one(new).await.map(drop)
        }
        1 => flights.update_one(id, doc! {"$set": {"gate.name": "B7", "gate.n": n}}).await.map(drop),
        2 => flights
            .update_one(id, doc! {"$push": {"notes": {"$each": [n, "late"], "$slice": -4}}})
            .await
            .map(drop),
        3 => {
            flights.update_one(id, doc! {"$inc": {"distance": 1}, "$unset": {"tailnum": ""}}).await.map(drop)
        }
        4 => flights.delete_one(id).await.map(drop),
        5 => {
            let pipeline = vec![doc! {"$set": {"gain": {"$subtract": ["$dep_delay", "$arr_delay"]}}}];
            flights.update_one(id, pipeline).await.map(drop)
        }
        6 => db.collection::<Document>("log").insert_one(doc! {"n": n}).await.map(drop),
        _ => occasionally(client, n).await,
    }
}

async fn occasionally(client: &Client, n: i32) -> mongodb::error::Result<()> {
    let db = client.database("demo");
    let name = format!("day{}", n / 400);
    match n % 400 {
        7 => db.collection::<Document>(&name).insert_many((0..20).map(|n| doc! {"n": n})).await.map(drop),
        15 => {
            let index = IndexModel::builder().keys(doc! {"n": 1}).build();
            db.collection::<Document>(&name).create_index(index).await.map(drop)
        }
        23 => {
            let rename =
                doc! {"renameCollection": format!("demo.{name}"), "to": format!("demo.{name}_closed")};
            client.database("admin").run_command(rename).await.map(drop)
        }
        _ => Ok(()),
    }
}
