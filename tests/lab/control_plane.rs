//! A real Kubernetes control plane: etcd and apiserver, on loopback, with RBAC.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::process::{Folder, Process};

/// etcd and an apiserver; gone when dropped.
#[derive(Debug)]
pub struct ControlPlane {
    pub kubeconfig: PathBuf,
    port: u16,
    etcd: Vec<String>,
    apiserver: Vec<String>,
    /// The apiserver, then etcd: they are stopped in this order.
    running: Mutex<Vec<Process>>,
    folder: Folder,
}

fn run(program: &str, args: &[&str], folder: &Path) {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl ControlPlane {
    pub fn start() -> Self {
        super::crypto();
        let folder = Folder::new("control-plane");
        let dir = folder.0.clone();
        certificates(&dir);
        let path = |name: &str| dir.join(name).display().to_string();
        let (client_port, peer_port, port) = (super::free_port(), super::free_port(), super::free_port());
        let etcd = vec![
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client_port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client_port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let apiserver = vec![
            format!("--etcd-servers=http://127.0.0.1:{client_port}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--tls-cert-file={}", path("api.crt")),
            format!("--tls-private-key-file={}", path("api.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        let kubeconfig = dir.join("admin.kubeconfig");
        let user = format!("client-certificate: {}, client-key: {}", path("admin.crt"), path("admin.key"));
        write_kubeconfig(&kubeconfig, port, &dir, &user, "default");
        let plane = Self { kubeconfig, port, etcd, apiserver, running: Mutex::default(), folder };
        plane.run();
        plane
    }

    fn run(&self) {
        let assets = super::tool("CLUSTERSYNC_CONTROL_PLANE");
        let dir = &self.folder.0;
        let etcd = Process::start(&assets.join("etcd"), &self.etcd, &[], dir, "etcd");
        let apiserver =
            Process::start(&assets.join("kube-apiserver"), &self.apiserver, &[], dir, "apiserver");
        let log = apiserver.log.clone();
        self.running.lock().unwrap().extend([apiserver, etcd]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.try_kubectl(&["get", "--raw", "/readyz"]).status.success() {
            assert!(
                Instant::now() < deadline,
                "the apiserver does not become ready: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stop both, do something to the data while they are, and start them again.
    fn while_stopped(&self, act: impl FnOnce(&Path)) {
        for mut process in self.running.lock().unwrap().drain(..) {
            process.kill();
        }
        act(&self.folder.0);
        self.run();
    }

    /// Copy etcd's data, as a backup does.
    pub fn back_up(&self) {
        self.while_stopped(|dir| {
            run("cp", &["-a", "etcd", "backup"], dir);
        });
    }

    /// Go back to the copy that [`Self::back_up`] made.
    pub fn restore(&self) {
        self.while_stopped(|dir| {
            fs::remove_dir_all(dir.join("etcd")).unwrap();
            run("cp", &["-a", "backup", "etcd"], dir);
        });
    }

    /// Run some of the controller manager's controllers, such as `namespace-controller`, until dropped.
    pub fn controllers(&self, names: &str) -> Process {
        let assets = super::tool("CLUSTERSYNC_CONTROL_PLANE");
        Process::start(
            &assets.join("kube-controller-manager"),
            &[
                format!("--kubeconfig={}", self.kubeconfig.display()),
                format!("--controllers={names}"),
                "--leader-elect=false".to_owned(),
                format!("--secure-port={}", super::free_port()),
                "--bind-address=127.0.0.1".to_owned(),
            ],
            &[],
            &self.folder.0,
            "controllers",
        )
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Run kubectl as admin; panics with its words if it fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_as(&self.kubeconfig, args, "")
    }

    /// `kubectl apply --server-side -f -`.
    pub fn apply(&self, manifest: &str) -> Output {
        self.kubectl_as(
            &self.kubeconfig,
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            manifest,
        )
    }

    pub fn kubectl_as(&self, kubeconfig: &Path, args: &[&str], input: &str) -> Output {
        Self::run_kubectl(kubeconfig, &self.folder.0, args, input)
    }

    pub fn run_kubectl(kubeconfig: &Path, home: &Path, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(super::tool("CLUSTERSYNC_KUBECTL"))
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", home)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A kubeconfig with a token of that service account, and its namespace.
    pub fn kubeconfig_for(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", account, "-n", namespace, "--duration=2h"]);
        let path = self.folder.0.join(format!("{namespace}-{account}.kubeconfig"));
        write_kubeconfig(&path, self.port, &self.folder.0, &format!("token: {}", token.trim()), namespace);
        path
    }
}

fn write_kubeconfig(path: &Path, port: u16, dir: &Path, user: &str, namespace: &str) {
    let ca = dir.join("ca.crt").display().to_string();
    fs::write(
        path,
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: l, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {ca}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\ncontexts: [{{name: l, context: {{cluster: l, user: u, namespace: {namespace}}}}}]\ncurrent-context: l\n"
        ),
    )
    .unwrap();
}

fn certificates(dir: &Path) {
    run("openssl", &["genrsa", "-out", "sa.key", "2048"], dir);
    run("openssl", &["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"], dir);
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=lab-ca",
            "-days",
            "30",
        ],
        dir,
    );
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
    for (name, subject) in [("api", "/CN=kube-apiserver"), ("admin", "/O=system:masters/CN=admin")] {
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        run(
            "openssl",
            &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &csr, "-subj", subject],
            dir,
        );
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &csr,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "30",
                "-out",
                &crt,
                "-extfile",
                "san",
            ],
            dir,
        );
    }
}
