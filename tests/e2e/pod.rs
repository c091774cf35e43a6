//! What can happen to a pod: by the API, and on our own node by its processes, its memory and its network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Release;

/// A pod of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub ip: String,
}

fn pod(object: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Pod {
        name: text(&object["metadata"]["name"]),
        uid: text(&object["metadata"]["uid"]),
        ip: text(&object["status"]["podIP"]),
    }
}

impl Release {
    pub fn pods(&self) -> Vec<Pod> {
        let pods = self.json(&["get", "pods", "-l", "app.kubernetes.io/name=clustersync"]);
        pods["items"].as_array().unwrap().iter().map(pod).collect()
    }

    /// Who holds the Lease: a pod's name and a part of its own.
    pub fn holder(&self) -> String {
        let leases = self.json(&["get", "leases"]);
        let held = leases["items"].as_array().unwrap().iter().find_map(|lease| {
            let holder = lease["spec"]["holderIdentity"].as_str()?;
            (!holder.is_empty()).then(|| holder.to_owned())
        });
        held.unwrap_or_default()
    }

    pub fn leader(&self) -> Pod {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let holder = self.holder();
            if let Some(pod) =
                self.pods().into_iter().find(|pod| holder.starts_with(&format!("{}_", pod.name)))
            {
                return pod;
            }
            assert!(Instant::now() < deadline, "no pod leads: {holder}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How often a pod's container was started again, and why it ended last.
    pub fn restarts(&self, pod: &Pod) -> (i64, String) {
        let object = self.json(&["get", "pod", &pod.name]);
        let status = &object["status"]["containerStatuses"][0];
        let why = status["lastState"]["terminated"]["reason"].as_str().unwrap_or_default().to_owned();
        (status["restartCount"].as_i64().unwrap_or(0), why)
    }
}

impl Pod {
    /// The control group of the operator's container, in version 1 of the hierarchy or in version 2.
    fn group(&self) -> PathBuf {
        let roots = [Path::new("/sys/fs/cgroup/memory/kubepods"), Path::new("/sys/fs/cgroup/kubepods")];
        let name = format!("pod{}", self.uid);
        let mut todo: Vec<PathBuf> =
            roots.iter().filter(|root| root.exists()).map(|root| root.to_path_buf()).collect();
        let mut inside = Vec::new();
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if !path.is_dir() {
                    continue;
                }
                if folder.file_name().is_some_and(|folder| folder.to_string_lossy() == name) {
                    inside.push(path);
                } else {
                    todo.push(path);
                }
            }
        }
        inside
            .into_iter()
            .find(|group| operator(group).is_some())
            .expect("the pod's container has a control group")
    }

    fn signal(&self, signal: &str) {
        let pid = operator(&self.group()).unwrap();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// SIGKILL, as the kernel or a node's operator would.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// No instruction is executed until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Less memory than it has: the kernel ends it for want of memory.
    pub fn starve(&self) {
        let group = self.group();
        let (used, limit) = if group.join("memory.max").exists() {
            ("memory.current", "memory.max")
        } else {
            ("memory.usage_in_bytes", "memory.limit_in_bytes")
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        // It must not be below what is used; so it is pulled after whatever is given back, until something more is asked for.
        while let Ok(used) = fs::read_to_string(group.join(used)) {
            let used: u64 = used.trim().parse().unwrap_or(0);
            let _ = fs::write(group.join(limit), (used.saturating_sub(64 << 10)).to_string())
                .or_else(|_| fs::write(group.join(limit), used.to_string()));
            if operator(&group).is_none() {
                return;
            }
            assert!(Instant::now() < deadline, "not ended for want of memory");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing of it reaches the apiserver any more; the databases are still there.
    pub fn cut_off(&self) {
        self.rule("-I");
    }

    pub fn let_back(&self) {
        self.rule("-D");
    }

    fn rule(&self, what: &str) {
        // After the service's address was translated: the apiserver is on the node itself.
        let args = [what, "INPUT", "-s", &self.ip, "-p", "tcp", "--dport", "6443", "-j", "DROP"];
        assert!(Command::new("iptables").args(args).status().unwrap().success());
    }
}

/// The process id of the operator in a control group.
fn operator(group: &Path) -> Option<String> {
    let processes = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let named = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "clustersync")
    };
    processes.lines().find(named).map(str::to_owned)
}
