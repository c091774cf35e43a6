//! `make soak`: the matrix and random workloads on every pair of server versions, and with every two of the things that
//! a source may not offer, for as long as `MINUTES` says. Prints what was done. A failure is replayed by `ROW=n SEED=n`.

use std::time::{Duration, Instant};

use clustersync::sync::endpoint::Feature;
use futures::StreamExt;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::random::{Trial, number, run};
use crate::world::World;

/// One row of the plan: older source, older target, what is avoided. Each two settings of each two columns are
/// together in some row.
const ROWS: [(bool, bool, &[Feature]); 6] = [
    (false, false, &[]),
    (true, false, &[Feature::RawUpdates]),
    (false, true, &[Feature::ListCatalog]),
    (true, true, &[Feature::RawUpdates, Feature::ListCatalog]),
    (true, true, &[]),
    (false, false, &[Feature::RawUpdates, Feature::ListCatalog]),
];

async fn set(name: &str, old: bool) -> ReplicaSet {
    ReplicaSet::start(Options { old, ..Options::new(name) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make soak"]
async fn soak() {
    let began = Instant::now();
    let whole = Duration::from_secs(60 * number("MINUTES").unwrap_or(12));
    let mut seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()) * 1_000);
    let (mut seeds, mut operations, mut kills, mut failed) = (0, 0, 0, Vec::new());
    let chosen = number("ROW");
    let plan: Vec<_> = ROWS
        .into_iter()
        .enumerate()
        .filter(|(row, _)| chosen.is_none_or(|chosen| chosen == *row as u64))
        .collect();
    for (at, (row, (old_source, old_target, avoid))) in plan.iter().copied().enumerate() {
        let rows = u32::try_from(plan.len() - at).unwrap();
        let until = Instant::now() + whole.saturating_sub(began.elapsed()) / rows;
        println!("row {row}: older source {old_source}, older target {old_target}, without {avoid:?}");
        let (source, target) = tokio::join!(set("soaksrc", old_source), set("soaktgt", old_target));
        let world =
            async |name: String| World { avoid: avoid.to_vec(), ..World::on(&source, &target, &name).await };
        crate::matrix::around_the_clone(&world("matrix".to_owned()).await).await;
        println!("row {row}: the matrix is identical");
        let trial = Trial { clients: 5, length: Duration::from_secs(25), kills: 5 };
        let numbers = futures::stream::iter(seed..).take_while(|_| async { Instant::now() < until });
        let mut runs = Box::pin(numbers)
            .map(|seed| {
                let world = world(format!("random{seed}"));
                async move {
                    let world = world.await;
                    (seed, tokio::spawn(async move { run(&world, seed, trial).await }).await)
                }
            })
            .buffer_unordered(4);
        while let Some((done, outcome)) = runs.next().await {
            seed = seed.max(done + 1);
            (seeds, kills) = (seeds + 1, kills + trial.kills);
            match outcome {
                Ok(done) => operations += done,
                Err(_) => failed.push((row, done)),
            }
        }
    }
    println!("{seeds} seeds, {operations} operations, {kills} kills in {:?}", began.elapsed());
    assert!(failed.is_empty(), "rows and seeds that differ: {failed:?}");
}
