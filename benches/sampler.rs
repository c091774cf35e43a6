//! Numbers over time, taken beside a program while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::Document;
use tokio::task::JoinHandle;

use crate::usage::Usage;

/// Takes a sample every so often until it is told to end.
pub struct Sampler {
    end: Arc<AtomicBool>,
    task: JoinHandle<Vec<[f64; 2]>>,
}

impl Sampler {
    fn start<F: Future<Output = Option<f64>> + Send>(
        every: Duration,
        take: impl Fn() -> F + Send + 'static,
    ) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let task = tokio::spawn(async move {
            let (began, mut points) = (Instant::now(), Vec::new());
            let mut interval = tokio::time::interval(every);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                // What is sampled may be gone since.
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                if let Some(value) = take().await {
                    points.push([began.elapsed().as_secs_f64(), value]);
                }
            }
            points
        });
        Self { end, task }
    }

    /// How many documents `bench.NAME` has, every 100 ms.
    pub fn count(client: &Client, name: &str) -> Self {
        let collection = client.database("bench").collection::<Document>(name);
        Self::start(Duration::from_millis(100), move || {
            let collection = collection.clone();
            async move { collection.estimated_document_count().await.ok().map(|count| count as f64) }
        })
    }

    /// MiB that a process holds.
    pub fn memory(pid: &str, every: Duration) -> Self {
        let pid = pid.to_owned();
        Self::start(every, move || {
            let held = std::fs::exists(format!("/proc/{pid}/status")).unwrap_or(false);
            let value = held.then(|| Usage::of(&pid).resident_mib);
            async move { value }
        })
    }

    /// No sample begins any more. Nothing is waited for, so that whoever takes the time need not.
    pub fn stop(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Seconds since it began, and what was seen.
    pub async fn end(self) -> Vec<[f64; 2]> {
        self.stop();
        self.task.await.unwrap()
    }
}

/// From a count over time to its rate, over half a second each: documents come in batches.
pub fn rates(counts: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let rate = |from: [f64; 2], to: [f64; 2]| [to[0], (to[1] - from[1]) / (to[0] - from[0])];
    counts.windows(6).map(|some| rate(some[0], some[5])).collect()
}
