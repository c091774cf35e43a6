//! `make bench`: the engine against bare programs that do the same without checkpoints or promises, in one run, on
//! the same servers. Ratios count; absolute numbers are this machine's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod bare;

use std::time::{Duration, Instant};

use clustersync::sync::config::{Holder, InitialSync, Limits, Replication};
use clustersync::sync::endpoint::EndpointConfig;
use clustersync::sync::scope::Scope;
use clustersync::sync::{Desired, DesiredState, Handle, Phase, Report, Share, SyncConfig, spawn};
use lab::mongod::{Options, ReplicaSet};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::sync::watch;

const DOCUMENTS: i32 = 500_000;
const EVENTS: i32 = 200_000;

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Peak memory since the last call, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

struct Measured {
    seconds: f64,
    cpu: f64,
    memory: f64,
}

async fn measure(work: impl Future<Output = ()>) -> Measured {
    peak_memory();
    let (began, cpu_before) = (Instant::now(), cpu());
    work.await;
    Measured { seconds: began.elapsed().as_secs_f64(), cpu: cpu() - cpu_before, memory: peak_memory() }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn report(what: &str, unit: &str, amount: f64, gigabytes: f64, bare: &[Measured], engine: &[Measured]) {
    let rate = |all: &[Measured]| median(all.iter().map(|one| amount / one.seconds).collect());
    let (bare_rate, engine_rate) = (rate(bare), rate(engine));
    println!("\n{what}, median of {} rounds", bare.len());
    for (name, all, rate) in [("bare", bare, bare_rate), ("clustersync", engine, engine_rate)] {
        let cpu = median(all.iter().map(|one| one.cpu).collect());
        let memory = all.iter().map(|one| one.memory).fold(0.0, f64::max);
        print!("  {name:<12} {rate:>9.0} {unit}/s   {cpu:>6.2} CPU s");
        if gigabytes > 0.0 {
            print!(" ({:.2} per GB)", cpu / gigabytes);
        }
        println!("   peak {memory:.0} MiB");
    }
    println!("  ratio        {:.2}", engine_rate / bare_rate);
}

struct Sync {
    handle: Handle,
    desired: watch::Sender<Desired>,
}

fn start(source: &ReplicaSet, target: &ReplicaSet, id: &str) -> Sync {
    let config = SyncConfig {
        id: id.to_owned(),
        resource_uid: None,
        source: EndpointConfig::parse(&source.uri(), false).unwrap(),
        target: EndpointConfig::parse(&target.uri(), false).unwrap(),
        metadata_database: "clustersync".to_owned(),
        scope: Scope::new(&["bench.*".to_owned()], &[]).unwrap(),
        initial_sync: InitialSync::default(),
        replication: Replication::default(),
        limits: Limits::default(),
        holder: Holder { id: id.to_owned(), term: None },
    };
    let (desired, receiver) = watch::channel(Desired::default());
    Sync { handle: spawn(config, receiver, &Share::single()), desired }
}

impl Sync {
    async fn until(&self, reached: impl Fn(&Report) -> bool) {
        let mut reports = self.handle.report.clone();
        let mut told = Instant::now();
        while !reached(&reports.borrow_and_update()) {
            let _ = tokio::time::timeout(Duration::from_millis(50), reports.changed()).await;
            let report = reports.borrow();
            assert!(report.phase != Phase::Stalled, "{}", report.message);
            if told.elapsed() > Duration::from_secs(20) {
                println!("  … {} {}", report.phase, report.message);
                told = Instant::now();
            }
        }
    }
}

async fn clear(target: &Client) {
    target.database("bench").drop().await.unwrap();
    target.database("clustersync").drop().await.unwrap();
}

#[tokio::main]
async fn main() {
    let options = |name: &str| Options { oplog: 4_000, cache: 3.0, ..Options::new(name) };
    let (source, target) = tokio::join!(ReplicaSet::start(options("src")), ReplicaSet::start(options("tgt")));
    let (source_client, target_client) = (source.client().await, target.client().await);
    println!("filling the source with {DOCUMENTS} documents of 0.9 KB");
    bare::fill(&source_client, DOCUMENTS).await;
    let gigabytes = f64::from(DOCUMENTS) * 900.0 / 1e9;

    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for round in 0..rounds() {
        clear(&target_client).await;
        bare.push(measure(bare::copy(&source_client, &target_client)).await);
        clear(&target_client).await;
        let sync = start(&source, &target, &format!("clone{round}"));
        engine.push(measure(sync.until(|report| report.initial_sync.cloned_at.is_some())).await);
        sync.handle.stop().await;
    }
    report(
        "Clone of one collection, integer _id, no indexes",
        "documents",
        f64::from(DOCUMENTS),
        gigabytes,
        &bare,
        &engine,
    );

    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for round in 0..rounds() {
        clear(&target_client).await;
        let sync = start(&source, &target, &format!("backlog{round}"));
        sync.until(|report| report.phase == Phase::Streaming).await;
        sync.desired.send_modify(|desired| desired.state = DesiredState::Paused);
        sync.until(|report| report.phase == Phase::Paused).await;
        bare::mixed(&source_client, EVENTS, round).await;
        let last = last_write(&source_client).await;
        sync.desired.send_modify(|desired| desired.state = DesiredState::Running);
        engine.push(
            measure(sync.until(|report| report.replication.applied_time.is_some_and(|at| at >= last.into())))
                .await,
        );
        sync.handle.stop().await;
        // The same again on the target, whose documents are those of before.
        bare.push(measure(bare::mixed(&target_client, EVENTS, rounds() + round)).await);
    }
    report(
        "Backlog of 30 % inserts, 60 % updates, 10 % deletes",
        "events",
        f64::from(EVENTS),
        0.0,
        &bare,
        &engine,
    );
}

async fn last_write(source: &Client) -> mongodb::bson::Timestamp {
    let hello: Document = source.database("admin").run_command(doc! {"hello": 1}).await.unwrap();
    hello.get_document("lastWrite").unwrap().get_document("opTime").unwrap().get_timestamp("ts").unwrap()
}
