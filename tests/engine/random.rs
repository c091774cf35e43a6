//! Random workloads while a sync clones and streams, from a seed that is printed and can be replayed with
//! `SEED=n cargo test --test engine random`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clustersync::sync::{DesiredState, Phase};
use futures::StreamExt;
use mongodb::bson::doc;

use crate::kill::Worker;
use crate::workload::{Random, step};
use crate::world::World;

/// How hard a seed is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub clients: u32,
    pub length: Duration,
    /// SIGKILLs of the process that runs the sync.
    pub kills: u32,
}

/// Change the source at random while the sync is killed again and again, then complete and compare. Says how many
/// operations the source did.
pub async fn run(world: &World, seed: u64, trial: Trial) -> u64 {
    println!("seed {seed}");
    let mut random = Random(seed);
    for n in 0..600 {
        let key = doc! {"_id": n};
        let set = doc! {"$set": {"v": random.value(), "f1": random.value(), "list": [1, 2]}};
        world.coll("main").update_one(key, set).upsert(true).await.unwrap();
    }
    world.fill("bulk", 6_000, 400).await;
    let until = Instant::now() + trial.length;
    let (db, operations) = (Arc::new(world.src()), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..trial.clients)
        .map(|client| {
            let (db, mut random) = (db.clone(), Random(seed * 31 + u64::from(client)));
            let operations = Arc::clone(&operations);
            tokio::spawn(async move {
                while Instant::now() < until {
                    let done = step(&db, &mut random, client).await;
                    operations.fetch_add(done.into(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..trial.kills {
        let worker = Worker::start(world, 1 << 20);
        tokio::time::sleep(Duration::from_millis(600 + u64::from(random.next(1_500)))).await;
        worker.kill();
    }
    let sync = world.start();
    for writer in writers {
        writer.await.unwrap();
    }
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
    operations.load(Ordering::Relaxed)
}

/// A number that the user gave.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One seed in `SEED`, or as many as `SEEDS` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_workloads_end_identical() {
    let seeds = match number("SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SEEDS").unwrap_or(20)).collect(),
    };
    let trial = Trial { clients: 3, length: Duration::from_secs(8), kills: 2 };
    // Most of the time is spent waiting for the leases of killed owners.
    let mut runs = futures::stream::iter(seeds)
        .map(|seed| async move {
            let one = async move {
                let world = World::shared(&format!("random{seed}")).await;
                run(&world, seed, trial).await
            };
            (seed, tokio::spawn(one).await)
        })
        .buffer_unordered(7);
    let mut failed = Vec::new();
    while let Some((seed, outcome)) = runs.next().await {
        if outcome.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "replay with SEED=n: {failed:?}");
}
