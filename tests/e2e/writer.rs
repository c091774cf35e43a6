//! A writer that changes the source all the time, and numbers what it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, coll};

/// Writes to `<db>.live` until stopped.
pub struct Writer {
    db: String,
    written: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Documents that it goes round.
const DOCUMENTS: i64 = 500;

impl Writer {
    /// A few hundred operations a second of every shape; each is numbered in a document of its own, too.
    pub fn start(cluster: &'static Cluster, db: &str) -> Self {
        let (written, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (number, end, name) = (written.clone(), stop.clone(), db.to_owned());
        let task = tokio::spawn(async move {
            let live = coll(&cluster.source, &name, "live");
            while !end.load(Ordering::Relaxed) {
                let n = number.load(Ordering::Relaxed) + 1;
                let key = doc! {"_id": n % DOCUMENTS};
                let set = doc! {"$set": {"n": n, format!("f{}", n % 7): n, "d.e": n}, "$push": {"list": {"$each": [n], "$slice": -5}}};
                live.update_one(key, set).upsert(true).await.unwrap();
                if n % 5 == 0 {
                    live.delete_one(doc! {"_id": (n * 31) % DOCUMENTS}).await.unwrap();
                }
                if n % 3 == 0 {
                    live.insert_one(doc! {"_id": format!("i{n}"), "n": n}).await.unwrap();
                }
                live.update_one(doc! {"_id": "last"}, doc! {"$set": {"n": n}}).upsert(true).await.unwrap();
                number.store(n, Ordering::Release);
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        });
        Self { db: db.to_owned(), written, stop, task }
    }

    /// The number of the last operation that the source has.
    pub fn written(&self) -> i64 {
        self.written.load(Ordering::Acquire)
    }

    /// The number of the last operation that the target has.
    pub async fn arrived(&self, cluster: &Cluster) -> i64 {
        let last = coll(&cluster.target, &self.db, "live").find_one(doc! {"_id": "last"}).await.unwrap();
        last.map_or(0, |last| last.get_i64("n").unwrap())
    }

    /// How long it takes until something that is written from now on is on the target.
    pub async fn arrives(&self, cluster: &Cluster, limit: Duration) -> Duration {
        let (began, now) = (Instant::now(), self.written() + 2);
        while self.arrived(cluster).await < now {
            assert!(began.elapsed() < limit, "{}: nothing arrives for {limit:?}", self.db);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    }

    /// Stop, and wait until all of it is on the target.
    pub async fn stop(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let last = self.written.load(Ordering::Acquire);
        let (began, live) = (Instant::now(), coll(&cluster.target, &self.db, "live"));
        loop {
            let found = live.find_one(doc! {"_id": "last"}).await.unwrap();
            if found.is_some_and(|found| found.get_i64("n").unwrap() >= last) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{}: not caught up", self.db);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
