//! What a database does, case by case: each is done before, during and after the clone, on one pair of servers, and
//! compared before and after completion.

mod data;
mod ddl;
mod values;

use clustersync::sync::{DesiredState, Phase};
use futures::future::BoxFuture;
use mongodb::Database;
use mongodb::bson::{Document, doc};

use crate::world::{Sync, World};

/// A case on a database; `prefix` tells its collections from those of the other moments.
type Case = fn(Database, String) -> BoxFuture<'static, ()>;

async fn run(db: &Database, command: Document) {
    db.run_command(command.clone()).await.unwrap_or_else(|error| panic!("{command}: {error}"));
}

async fn insert(db: &Database, name: &str, documents: Vec<Document>) {
    db.collection::<Document>(name).insert_many(documents).await.unwrap();
}

fn numbered(from: i32, to: i32) -> Vec<Document> {
    (from..to).map(|n| doc! {"_id": n, "a": n, "b": format!("{n}"), "list": [n, n + 1]}).collect()
}
macro_rules! case {
    ($db:ident, $p:ident, $body:block) => {
        |$db: Database, $p: String| async move { $body }.boxed()
    };
}

fn name(prefix: &str, rest: &str) -> String {
    format!("{prefix}_{rest}")
}

use case;

async fn all(db: &Database, prefix: &str) {
    for (what, case) in ddl::cases().into_iter().chain(data::cases()) {
        if std::env::var("CASE").is_ok_and(|only| !what.contains(&only)) {
            continue;
        }
        let began = std::time::Instant::now();
        case(db.clone(), prefix.to_owned()).await;
        if began.elapsed().as_secs() > 5 {
            eprintln!("{what}: {:?}", began.elapsed());
        }
    }
}

pub fn config(world: &World) -> clustersync::sync::SyncConfig {
    let mut config = world.config();
    config.scope = clustersync::sync::scope::Scope::new(&[format!("{}*.*", world.db)], &[]).unwrap();
    config
}

async fn judge(world: &World, before_completion: bool) {
    let mut databases: Vec<String> = world.source.list_database_names().await.unwrap();
    databases.extend(world.target.list_database_names().await.unwrap());
    databases.retain(|db| db.starts_with(&world.db));
    databases.sort();
    databases.dedup();
    let judge = crate::lab::compare::Judge { databases, before_completion };
    // Indexes are built in the background.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let differences = crate::lab::compare::compare(&world.source, &world.target, &judge).await;
        if differences.is_empty() {
            return;
        }
        assert!(before_completion && std::time::Instant::now() < deadline, "{}", differences.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Each case before, during and after the clone.
pub async fn around_the_clone(world: &World) {
    all(&world.src(), "before").await;
    world.fill("ballast", 20_000, 1_000).await;
    let mut config = config(world);
    config.limits.bytes_per_second = 8 << 20;
    let sync = Sync::start(config);
    sync.phase(Phase::Cloning).await;
    all(&world.src(), "during").await;
    sync.phase(Phase::Streaming).await;
    all(&world.src(), "after").await;
    world.caught_up(&sync).await;
    judge(world, true).await;
    sync.want(DesiredState::Completed);
    let report = sync.phase(Phase::Completed).await;
    let missing = report.completion.unwrap().unsuccessful_indexes;
    assert!(missing.is_empty(), "{missing:?}");
    judge(world, false).await;
    sync.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_database_does_before_during_and_after_the_clone() {
    let (source, target) = crate::lab::mongod::pair().await;
    around_the_clone(&World::on(&source, &target, "matrix").await).await;
}
