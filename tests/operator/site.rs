//! A namespace with the rights of `deploy/base`, and operators that run in it.

use std::path::Path;
use std::process::Output;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::lab::control_plane::ControlPlane;
use crate::lab::mongod::{ReplicaSet, pair};
use crate::lab::process::{Folder, Process};

pub const ACCOUNT: &str = "clustersync-operator";
pub const CRD: &str = include_str!("../../crds/clustersyncs.clustersync.dev.yaml");

/// One control plane for all tests that leave the definition alone.
pub fn plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| {
        let plane = ControlPlane::start();
        succeed(plane.apply(CRD));
        established(&plane);
        plane
    })
}

pub fn established(plane: &ControlPlane) {
    plane.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/clustersyncs.clustersync.dev",
        "--timeout=30s",
    ]);
}

pub fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One pair of replica sets for all tests; each has databases of its own.
pub async fn sets() -> &'static (ReplicaSet, ReplicaSet) {
    static PAIR: OnceCell<(ReplicaSet, ReplicaSet)> = OnceCell::const_new();
    PAIR.get_or_init(pair).await
}

pub async fn fill(client: &Client, db: &str, documents: i32) {
    let all: Vec<Document> =
        (0..documents).map(|n| doc! {"_id": n, "n": n % 7, "text": "x".repeat(100)}).collect();
    client.database(db).collection::<Document>("items").insert_many(all).await.unwrap();
}

pub async fn count(client: &Client, db: &str) -> u64 {
    client.database(db).collection::<Document>("items").count_documents(doc! {}).await.unwrap()
}

/// A namespace with the rights of `deploy/base`.
pub struct Site {
    pub namespace: String,
    pub plane: &'static ControlPlane,
}

impl Site {
    pub fn new(namespace: &str) -> Self {
        Self::on(plane(), namespace)
    }

    pub fn on(plane: &'static ControlPlane, namespace: &str) -> Self {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base");
        let manifests = plane.kubectl(&["kustomize", base]).replace("clustersync-system", namespace);
        succeed(plane.apply(&manifests));
        Self { namespace: namespace.to_owned(), plane }
    }

    /// Without any rights in it.
    pub fn empty(plane: &'static ControlPlane, namespace: &str) -> Self {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        succeed(plane.apply(&object.to_string()));
        Self { namespace: namespace.to_owned(), plane }
    }

    pub fn operator(&self, args: &[&str]) -> Operator {
        let folder = Folder::new(&format!("operator-{}", self.namespace));
        let kubeconfig = self.plane.kubeconfig_for(&self.namespace, ACCOUNT);
        let port = crate::lab::free_port();
        let mut all =
            vec!["operator".to_owned(), format!("--listen=127.0.0.1:{port}"), "--log-no-color".to_owned()];
        all.extend(args.iter().map(ToString::to_string));
        let env = [
            ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
            ("POD_NAMESPACE".to_owned(), self.namespace.clone()),
        ];
        let process =
            Process::start(Path::new(env!("CARGO_BIN_EXE_clustersync")), &all, &env, &folder.0, "operator");
        Operator { process, port, _folder: folder }
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.plane.kubectl(&[&["-n", &self.namespace], args].concat())
    }

    pub fn apply(&self, object: &Value) -> Output {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.namespace);
        self.plane.apply(&object.to_string())
    }

    /// A Secret with the key `uri`.
    pub fn secret(&self, name: &str, uri: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"uri": uri}});
        succeed(self.apply(&secret));
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    pub fn get(&self, name: &str) -> Value {
        self.json(&["get", "clustersync", name])
    }

    pub fn set_state(&self, name: &str, state: &str) {
        let patch = json!({"spec": {"state": state}}).to_string();
        self.kubectl(&["patch", "clustersync", name, "--type=merge", "-p", &patch]);
    }

    /// Wait until the resource is as expected; panics with what it is.
    pub fn until(&self, name: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let object = self.get(name);
            if reached(&object) {
                return object;
            }
            let status = serde_json::to_string_pretty(&object["status"]).unwrap();
            assert!(Instant::now() < deadline, "{name} is not {what}: {status}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    pub fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |object| object["status"]["phase"] == phase && judged(object))
    }

    /// Wait until it is `Stalled` or waits for this reason.
    pub fn reason(&self, name: &str, reason: &str) -> Value {
        self.until(name, reason, |object| condition(object, "Ready")["reason"] == reason)
    }

    pub fn gone(&self, name: &str) {
        self.kubectl(&["wait", "--for=delete", &format!("clustersync/{name}"), "--timeout=60s"]);
    }

    /// Reasons of the events about a resource.
    pub fn events(&self, name: &str) -> Vec<String> {
        let events = self.json(&["get", "events.events.k8s.io"]);
        let about =
            events["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == name);
        about.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }
}

/// Every condition speaks about the present generation.
pub fn judged(object: &Value) -> bool {
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .is_some_and(|all| !all.is_empty() && all.iter().all(|c| c["observedGeneration"] == *generation))
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|c| c["type"] == kind)).unwrap_or(&Value::Null)
}

/// A running operator.
pub struct Operator {
    pub process: Process,
    pub port: u16,
    _folder: Folder,
}

impl Operator {
    pub fn running(process: Process, port: u16, folder: Folder) -> Self {
        Self { process, port, _folder: folder }
    }

    pub fn log(&self) -> String {
        self.process.output()
    }

    pub fn until_log(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "the log does not say '{text}':\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn http(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// A resource whose ends are the Secrets `source` and `target`, with one database in scope.
pub fn cluster_sync(name: &str, db: &str) -> Value {
    json!({
        "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": name},
        "spec": {
            "source": {"uriSecretRef": {"name": "source", "key": "uri"}},
            "target": {"uriSecretRef": {"name": "target", "key": "uri"}},
            "scope": {"include": [format!("{db}.*")]},
            "replication": {"checkpointIntervalSeconds": 1},
        }
    })
}

/// The Secrets that [`cluster_sync`] names.
pub async fn secrets(site: &Site) -> (Client, Client) {
    let (source, target) = sets().await;
    site.secret("source", &source.uri());
    site.secret("target", &target.uri());
    (source.client().await, target.client().await)
}
