//! `make demo`: the main job on real databases, from an empty machine to a cutover, with accidents on the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod flights;
mod stage;
mod writer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::compare::{Judge, compare};
use lab::control_plane::ControlPlane;
use lab::mongod::{Options, ReplicaSet};
use serde_json::{Value, json};
use stage::{Cluster, NAMESPACE, Operator, SYNC, Teller};
use writer::Writer;

const PATIENCE: Duration = Duration::from_secs(150);

/// The clone's limit, so that it lasts long enough to be killed in the middle.
const LIMIT: u64 = 9 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    let interrupted = async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut a, mut b) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        tokio::select! { _ = a.recv() => {} _ = b.recv() => {} }
    };
    tokio::select! {
        code = demo() => code,
        () = interrupted => {
            println!("interrupted: everything that was started is being stopped");
            ExitCode::from(130)
        }
    }
}

async fn demo() -> ExitCode {
    let teller = Teller::new();
    teller.say("starting a source and a target replica set, and a Kubernetes API");
    let (source, target, cluster) = tokio::join!(
        ReplicaSet::start(Options::new("source")),
        ReplicaSet::start(Options::new("target")),
        tokio::task::spawn_blocking(cluster)
    );
    let cluster = cluster.unwrap();
    let (source_client, target_client) = (source.client().await, target.client().await);

    install(&cluster);
    teller.say("applied crds/ and deploy/base");
    let archive = lab::tool("CLUSTERSYNC_FLIGHTS").join("flights.csv.zip");
    let count = flights::load(&source_client, &archive).await;
    teller.say(&format!("loaded {count} flights into the source, with three indexes, one of them unique"));
    let writer = Writer::start(source_client.clone());

    let mut operator = Operator::start(&cluster);
    teller
        .say("started the operator under its own service account; someone writes to the source all the time");
    create_sync(&cluster, &source, &target);
    teller.say("applied the Secrets and the ClusterSync first-sync of deploy/samples, limited to 9 MiB/s");

    let mut watch = Watch { cluster: &cluster, teller: &teller, last: String::new() };
    watch
        .until("half of the clone", &operator, |_| operator.metric("clone_partitions_done").unwrap_or(0) >= 3)
        .await;
    let done = operator.metric("clone_partitions_done").unwrap();
    operator.kill();
    teller
        .say(&format!("SIGKILL of the operator in the middle of the clone: {done} partitions were finished"));
    operator = Operator::start(&cluster);
    teller.say("started it again; it waits for the Lease of the dead one to run out");
    watch.until("Streaming", &operator, phase("Streaming")).await;
    let (copied, total) = (
        operator.metric("clone_partitions_copied_total").unwrap(),
        operator.metric("clone_partitions").unwrap(),
    );
    teller.say(&format!(
        "this operator copied {copied} of {total} partitions: none of the {done} finished ones again"
    ));
    if copied + done > total {
        teller.say("but that is more than were left: a finished partition was copied again");
        return ExitCode::FAILURE;
    }

    operator.kill();
    teller.say("SIGKILL of the operator while streaming");
    operator = Operator::start(&cluster);
    watch
        .until("following again", &operator, |status| {
            phase("Streaming")(status) && operator.metric("events_applied_total").unwrap_or(0) > 100
        })
        .await;
    cluster.patch(&json!({"state": "Paused"}));
    watch.until("Paused", &operator, phase("Paused")).await;
    cluster.patch(&json!({"state": "Running"}));
    watch.until("Streaming", &operator, phase("Streaming")).await;

    let operations = writer.stop().await;
    teller.say(&format!("the writer stopped after {operations} operations; cutting over"));
    cluster.patch(&json!({"state": "Completed"}));
    watch.until("Completed", &operator, phase("Completed")).await;

    let differences = compare(
        &source_client,
        &target_client,
        &Judge { databases: vec!["demo".into()], ..Judge::default() },
    )
    .await;
    for difference in &differences {
        println!("{difference}");
    }
    if differences.is_empty() {
        teller.say("identical: type, options, indexes and every document's bytes");
    }
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        keep_running(&cluster, &source, &target, &operator).await;
    }
    if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cluster() -> Cluster {
    match std::env::var_os("DEMO_KUBECONFIG") {
        Some(path) => Cluster::Named(path.into(), lab::process::Folder::new("demo")),
        None => Cluster::Own(ControlPlane::start()),
    }
}

fn install(cluster: &Cluster) {
    let root = env!("CARGO_MANIFEST_DIR");
    cluster.kubectl(&["apply", "--server-side", "-f", &format!("{root}/crds")], "").expect("crds");
    let established =
        ["wait", "--for=condition=Established", "crd/clustersyncs.clustersync.dev", "--timeout=30s"];
    cluster.kubectl(&established, "").expect("the definition is established");
    let base = cluster.kubectl(&["kustomize", &format!("{root}/deploy/base")], "").expect("kustomize");
    // The operator runs as a process here: everything but its Deployment.
    let rights: Vec<&str> =
        base.split("\n---\n").filter(|object| !object.contains("kind: Deployment")).collect();
    let args = ["apply", "--server-side", "-f", "-"];
    cluster.kubectl(&args, &rights.join("\n---\n")).expect("deploy/base");
}

fn create_sync(cluster: &Cluster, source: &ReplicaSet, target: &ReplicaSet) {
    for (name, uri) in [("source", source.uri()), ("target", target.uri())] {
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"uri": uri}}));
    }
    let sample = format!("{}/deploy/samples/first-sync.yaml", env!("CARGO_MANIFEST_DIR"));
    let text =
        cluster.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", &sample], "").expect("sample");
    let mut sync: Value = serde_json::from_str(&text).expect("sample");
    sync["spec"]["limits"] = json!({"bytesPerSecond": LIMIT});
    sync["metadata"] = json!({"name": SYNC});
    cluster.apply(&sync);
}

fn phase(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["phase"] == wanted
}

/// Shows the resource's status as it changes.
struct Watch<'a> {
    cluster: &'a Cluster,
    teller: &'a Teller,
    last: String,
}

impl Watch<'_> {
    async fn until(&mut self, what: &str, operator: &Operator, reached: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.cluster.status();
            let line = line(&status);
            if line != self.last && !line.is_empty() {
                self.teller.say(&format!("  {line}"));
                self.last = line;
            }
            if reached(&status) {
                return;
            }
            let stuck = Instant::now() > deadline || status["phase"] == "Stalled";
            if stuck {
                println!("{status:#}\n{}", operator.log());
                panic!("{what} was not reached");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

fn line(status: &Value) -> String {
    let Some(phase) = status["phase"].as_str() else { return String::new() };
    let (clone, stream) = (&status["initialSync"], &status["replication"]);
    let mut parts = vec![phase.to_owned()];
    if phase == "Cloning" {
        parts.push(clone["progress"].as_str().unwrap_or("0 %").to_owned());
        parts.push(format!("{} documents", clone["documents"].as_i64().unwrap_or(0)));
        if let Some(rate) = clone["bytesPerSecond"].as_i64() {
            parts.push(format!("{:.1} MiB/s", rate as f64 / f64::from(1 << 20)));
        }
        if let Some(eta) = clone["etaSeconds"].as_i64() {
            parts.push(format!("{eta} s to go"));
        }
    } else {
        if let Some(lag) = stream["lagSeconds"].as_i64() {
            parts.push(format!("lag {lag} s"));
        }
        if let Some(events) = stream["eventsApplied"].as_i64() {
            parts.push(format!("{events} events applied"));
        }
    }
    parts.join(" · ")
}

async fn keep_running(cluster: &Cluster, source: &ReplicaSet, target: &ReplicaSet, operator: &Operator) {
    if let Cluster::Own(plane) = cluster {
        println!("\n  export KUBECONFIG={}", plane.kubeconfig.display());
    }
    println!(
        "  kubectl -n {NAMESPACE} get clustersync {SYNC} -o yaml\n  source {}\n  target {}",
        source.uri(),
        target.uri()
    );
    println!("  operator: pid {}, log {}\nCtrl-C ends it.", operator.pid(), operator.log_path().display());
    std::future::pending::<()>().await;
}
