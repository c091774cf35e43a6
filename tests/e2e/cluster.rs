//! The cluster, the two replica sets that its pods reach, and releases of the chart.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::lab::compare::{Judge, compare};
use crate::lab::mongod::{Options, ReplicaSet};

/// Where the node is, inside its own network.
const NODE: &str = "10.99.0.1";

pub struct Cluster {
    pub source: Client,
    pub target: Client,
    pub source_uri: String,
    pub target_uri: String,
    /// Repository and tag.
    pub image: (String, String),
    /// Whether the node is ours, to take apart as we like.
    pub ours: bool,
    _sets: Option<(ReplicaSet, ReplicaSet)>,
}

/// Run a test on the cluster, one at a time: takeovers are measured. All share one runtime, to which clients belong.
pub fn on_cluster(test: impl AsyncFnOnce(&'static Cluster)) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    RUNTIME.block_on(async { test(CLUSTER.get_or_init(Cluster::reach).await).await });
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Cluster {
    async fn reach() -> Self {
        crate::lab::crypto();
        let image = variable("IMAGE").expect("IMAGE names the operator's image: use `make e2e`");
        let (repository, tag) = image.rsplit_once(':').expect("IMAGE has a tag");
        let ours = variable("E2E_KUBECONFIG").is_none();
        let (source_uri, target_uri, sets) = if ours {
            let options = |name: &str| Options { host: NODE.to_owned(), oplog: 2_000, ..Options::new(name) };
            let (source, target) =
                tokio::join!(ReplicaSet::start(options("src")), ReplicaSet::start(options("tgt")));
            (source.uri(), target.uri(), Some((source, target)))
        } else {
            let given =
                |name: &str| variable(name).unwrap_or_else(|| panic!("{name} is needed with E2E_KUBECONFIG"));
            (given("SOURCE_URI"), given("TARGET_URI"), None)
        };
        let client = async |uri: &str| Client::with_uri_str(uri).await.unwrap();
        let cluster = Self {
            source: client(&source_uri).await,
            target: client(&target_uri).await,
            source_uri,
            target_uri,
            image: (repository.to_owned(), tag.to_owned()),
            ours,
            _sets: sets,
        };
        cluster.kubectl(&["get", "nodes"]);
        cluster
    }

    fn command(&self, program: PathBuf, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let kubeconfig = variable("E2E_KUBECONFIG").or_else(|| variable("KUBECONFIG")).unwrap();
        let mut child = Command::new(program)
            .env("KUBECONFIG", kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.command(crate::lab::tool("CLUSTERSYNC_KUBECTL"), args, "")
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        succeeded(&format!("kubectl {args:?}"), &self.try_kubectl(args))
    }

    pub fn try_helm(&self, args: &[&str]) -> Output {
        self.command(crate::lab::tool("CLUSTERSYNC_HELM"), args, "")
    }

    pub fn helm(&self, args: &[&str]) -> String {
        succeeded(&format!("helm {args:?}"), &self.try_helm(args))
    }

    pub fn apply(&self, object: &Value) {
        let kubectl = crate::lab::tool("CLUSTERSYNC_KUBECTL");
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        succeeded("kubectl apply", &self.command(kubectl, &args, &object.to_string()));
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    /// The definition, as kubectl applies it: releases of these tests leave it alone.
    pub fn definition(&self) {
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            concat!(env!("CARGO_MANIFEST_DIR"), "/crds"),
        ]);
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/clustersyncs.clustersync.dev",
            "--timeout=30s",
        ]);
    }
}

pub fn succeeded(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A namespace under restricted pod security, with the Secrets of both ends, and a release in it.
pub struct Release {
    pub cluster: &'static Cluster,
    pub namespace: String,
}

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/clustersync");

impl Release {
    pub fn namespace(cluster: &'static Cluster, namespace: &str) -> Self {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }));
        let release = Self { cluster, namespace: namespace.to_owned() };
        for (name, uri) in [("source", &cluster.source_uri), ("target", &cluster.target_uri)] {
            release.apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"uri": uri},
            }));
        }
        release
    }

    /// Installed and ready, beside a definition that is there already.
    pub fn install(cluster: &'static Cluster, namespace: &str, values: &[&str]) -> Self {
        cluster.definition();
        let release = Self::namespace(cluster, namespace);
        release.helm("install", CHART, &[&["crds.enabled=false"], values].concat());
        release.ready();
        release
    }

    /// `helm install|upgrade` with the image under test; waits until its pods are ready.
    pub fn helm(&self, verb: &str, chart: &str, values: &[&str]) -> String {
        let (repository, tag) = &self.cluster.image;
        let (repository, tag) = (format!("image.repository={repository}"), format!("image.tag={tag}"));
        let mut args = vec![verb, "clustersync", chart, "-n", &self.namespace, "--wait", "--timeout=120s"];
        for value in [repository.as_str(), tag.as_str(), "image.pullPolicy=IfNotPresent", "log.json=false"]
            .iter()
            .chain(values)
        {
            args.extend(["--set", *value]);
        }
        self.cluster.helm(&args)
    }

    pub fn ready(&self) {
        self.kubectl(&[
            "rollout",
            "status",
            "deployment",
            "-l",
            "app.kubernetes.io/name=clustersync",
            "--timeout=120s",
        ]);
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&[&["-n", &self.namespace], args].concat())
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.cluster.json(&[&["-n", &self.namespace], args].concat())
    }

    pub fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.namespace);
        self.cluster.apply(&object);
    }

    /// A sync of one database.
    pub fn sync(&self, name: &str, db: &str, bytes_per_second: i64) {
        self.apply(&json!({
            "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": name},
            "spec": {
                "source": {"uriSecretRef": {"name": "source", "key": "uri"}},
                "target": {"uriSecretRef": {"name": "target", "key": "uri"}},
                "scope": {"include": [format!("{db}.*")]},
                "limits": {"bytesPerSecond": bytes_per_second},
                "initialSync": {"onExistingData": "Drop"},
                "replication": {"checkpointIntervalSeconds": 1},
            }
        }));
    }

    pub fn get(&self, name: &str) -> Value {
        self.json(&["get", "clustersync", name])
    }

    pub fn until(&self, name: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let object = self.get(name);
            if reached(&object) {
                return object;
            }
            let status = serde_json::to_string_pretty(&object["status"]).unwrap();
            assert!(Instant::now() < deadline, "{name} is not {what}: {status}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    pub fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |object| object["status"]["phase"] == phase)
    }

    /// The last lines of every operator.
    pub fn logs(&self) -> String {
        self.kubectl(&[
            "logs",
            "-l",
            "app.kubernetes.io/name=clustersync",
            "--tail=30",
            "--prefix",
            "--ignore-errors",
        ])
    }

    /// Resources, release and namespace go.
    pub fn remove(&self) {
        let _ = self.cluster.try_kubectl(&[
            "-n",
            &self.namespace,
            "delete",
            "clustersync",
            "--all",
            "--timeout=60s",
        ]);
        let _ = self.cluster.try_helm(&[
            "uninstall",
            "clustersync",
            "-n",
            &self.namespace,
            "--wait",
            "--timeout=60s",
        ]);
        let _ = self.cluster.try_kubectl(&["delete", "namespace", &self.namespace, "--timeout=60s"]);
    }
}

pub fn coll(client: &Client, db: &str, name: &str) -> Collection<Document> {
    client.database(db).collection(name)
}

/// `megabytes` of documents of 1 KB.
pub async fn fill(client: &Client, db: &str, megabytes: i32) {
    let filler = "x".repeat(960);
    for some in 0..megabytes {
        let all = (0..1_000).map(|n| doc! {"_id": some * 1_000 + n, "n": n, "filler": &filler});
        coll(client, db, "items").insert_many(all).await.unwrap();
    }
}

/// Identical within the time that what was written last needs to arrive.
pub async fn assert_identical(cluster: &Cluster, db: &str, before_completion: bool) {
    let judge = Judge { databases: vec![db.to_owned()], before_completion };
    let began = Instant::now();
    loop {
        let differences = compare(&cluster.source, &cluster.target, &judge).await;
        if differences.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{}", differences.join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
