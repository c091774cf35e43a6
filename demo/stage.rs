//! What the demo runs on: two replica sets, a Kubernetes API, an operator under its own service account.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::control_plane::ControlPlane;
use crate::lab::process::{Folder, Process};

pub const NAMESPACE: &str = "clustersync-system";
pub const SYNC: &str = "first-sync";

/// Prints with the time since the beginning.
pub struct Teller(Instant);

impl Teller {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn say(&self, text: &str) {
        println!("{:>6.1}s  {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Where resources are written to and read from.
pub enum Cluster {
    Own(ControlPlane),
    /// A cluster that the user named.
    Named(PathBuf, Folder),
}

impl Cluster {
    pub fn kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let output = match self {
            Self::Own(plane) => plane.kubectl_as(&plane.kubeconfig, args, input),
            Self::Named(path, _) => ControlPlane::run_kubectl(path, Path::new("."), args, input),
        };
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(NAMESPACE);
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl(&args, &object.to_string()).expect("apply");
    }

    pub fn patch(&self, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        let args = ["-n", NAMESPACE, "patch", "clustersync", SYNC, "--type=merge", "-p", &patch];
        self.kubectl(&args, "").expect("patch");
    }

    pub fn status(&self) -> Value {
        let args = ["-n", NAMESPACE, "get", "clustersync", SYNC, "-o", "json"];
        let text = self.kubectl(&args, "").unwrap_or_default();
        serde_json::from_str::<Value>(&text).map(|object| object["status"].clone()).unwrap_or_default()
    }

    /// A kubeconfig with nothing but the operator's own rights.
    pub fn operator_kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(plane) => plane.kubeconfig_for(NAMESPACE, "clustersync-operator"),
            Self::Named(path, folder) => {
                let token = self
                    .kubectl(&["-n", NAMESPACE, "create", "token", "clustersync-operator"], "")
                    .expect("token");
                let copy = folder.0.join("operator.kubeconfig");
                let flat = ControlPlane::run_kubectl(
                    path,
                    Path::new("."),
                    &["config", "view", "--minify", "--flatten", "-o", "json"],
                    "",
                );
                let mut config: Value = serde_json::from_slice(&flat.stdout).expect("kubeconfig");
                config["users"][0]["user"] = json!({"token": token.trim()});
                config["contexts"][0]["context"]["namespace"] = json!(NAMESPACE);
                std::fs::write(&copy, config.to_string()).unwrap();
                copy
            }
        }
    }
}

/// The operator, as a process.
pub struct Operator {
    process: Process,
    port: u16,
    _folder: Folder,
}

impl Operator {
    pub fn start(cluster: &Cluster) -> Self {
        let folder = Folder::new("operator");
        let port = crate::lab::free_port();
        let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("clustersync");
        let args = ["operator".to_owned(), format!("--listen=127.0.0.1:{port}"), "--log-no-color".to_owned()];
        let env = [
            ("KUBECONFIG".to_owned(), cluster.operator_kubeconfig().display().to_string()),
            ("POD_NAMESPACE".to_owned(), NAMESPACE.to_owned()),
        ];
        let process = Process::start(&binary, &args, &env, &folder.0, "operator");
        Self { process, port, _folder: folder }
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn log(&self) -> String {
        self.process.output()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    pub fn log_path(&self) -> &Path {
        &self.process.log
    }

    /// A metric of the demo's sync.
    pub fn metric(&self, name: &str) -> Option<u64> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let line = text.lines().find(|line| line.starts_with(&format!("clustersync_{name}{{")))?;
        line.rsplit(' ').next()?.parse::<f64>().ok().map(|number| number as u64)
    }
}
