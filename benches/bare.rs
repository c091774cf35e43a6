//! Bare programs: the ceilings. They do a row's work without checkpoints or promises, each as a process of its own
//! (`bench bare NAME SOURCE TARGET …`), so that its CPU and memory are its alone.

use std::process::Stdio;
use std::time::Instant;

use mongodb::Client;
use mongodb::options::ClientOptions;

use crate::rig::Rig;
use crate::row::Round;
use crate::usage::{self, Usage};
use crate::{backlog, clone_large, clone_many, copy, copy_index, hot, lag, scope};

/// What a bare program did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Documents, or events.
    pub amount: u64,
    /// BSON bytes, if it counts them.
    pub bytes: Option<u64>,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.amount += other.amount;
        self.bytes = self.bytes.into_iter().chain(other.bytes).reduce(|one, other| one + other);
    }
}

/// In the child: which program `name` is.
async fn program(name: &str, source: Client, target: Client, args: &[String]) -> Work {
    match name {
        "copy" => copy::copy(&source, &target, args).await,
        "copy-in-transactions" => copy::copy_in_transactions(&source, &target, args).await,
        "copy-then-index" => copy_index::after(&source, &target, args).await,
        "copy-in-transactions-then-index" => copy_index::after_transactions(&source, &target, args).await,
        "copy-into-indexes" => copy_index::before(&source, &target, args).await,
        "many" => clone_many::many(&source, &target).await,
        "natural" => clone_large::natural(&source, &target, args).await,
        "bulks" => backlog::bulks(&target, args).await,
        "one-by-one" => hot::one_by_one(&target, args).await,
        "filter" => scope::filter(&source, args).await,
        "relay" => lag::relay(&source, &target, args).await,
        _ => panic!("no bare program is named {name}"),
    }
}

/// In the child: run one, and say what it took as JSON.
pub async fn main(args: &[String]) {
    let [name, source, target, rest @ ..] = args else { panic!("bench bare NAME SOURCE TARGET …") };
    crate::lab::crypto();
    let (source, target) = (connect(source).await, connect(target).await);
    usage::forget_peak("self");
    let (began, before) = (Instant::now(), Usage::of("self"));
    let work = program(name, source, target, rest).await;
    let (seconds, used) = (began.elapsed().as_secs_f64(), Usage::of("self").since(before));
    let round = Round {
        seconds,
        amount: work.amount as f64,
        bytes: work.bytes.map(|bytes| bytes as f64),
        cpu_seconds: used.cpu_seconds,
        peak_mib: used.peak_mib,
    };
    println!("{}", serde_json::to_string(&round).unwrap());
}

async fn connect(uri: &str) -> Client {
    let client = Client::with_options(ClientOptions::parse(uri).await.unwrap()).unwrap();
    client.database("admin").run_command(mongodb::bson::doc! {"ping": 1}).await.unwrap();
    client
}

/// In the parent: run one between the two sides of a rig. Only its work is timed, not its start.
pub async fn run(rig: &Rig, name: &str, args: &[&str]) -> Round {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["bare", name, &rig.source_uri(), &rig.target_uri()])
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "the bare program {name} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}
