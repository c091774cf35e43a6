//! The released program as people run it: a process of its own, steered over HTTP.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::process::Process;
use crate::rig::Rig;
use crate::usage::{self, Usage};

/// How often [`Engine::until`] asks.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// `clustersync serve` between the two sides of a rig. Killed when dropped.
pub struct Engine {
    process: Process,
    port: u16,
    agent: ureq::Agent,
}

/// `target/release/clustersync`, beside `target/release/examples/bench`.
fn program() -> PathBuf {
    let bench = std::env::current_exe().unwrap();
    let program = bench.parent().unwrap().parent().unwrap().join("clustersync");
    assert!(program.exists(), "{} is not there: `make bench` builds it", program.display());
    program
}

impl Engine {
    /// Returns once it listens. What ran on this rig before and was not cleared goes on by itself.
    pub async fn serve(rig: &Rig) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let port = crate::lab::free_port();
        let args = [
            "serve".to_owned(),
            format!("--source={}", rig.source_uri()),
            format!("--target={}", rig.target_uri()),
            format!("--port={port}"),
            "--log-no-color".to_owned(),
        ];
        let name = format!("engine-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut process = Process::start(&program(), &args, &[], &rig.folder.0, &name);
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build().into();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.is_running(), "{}", process.output());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Self { process, port, agent }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        // A GET with a body that the server does not read can cost the connection.
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .body(body)
            .unwrap();
        let answer = tokio::task::block_in_place(|| self.agent.run(request)?.body_mut().read_to_string());
        match answer {
            Ok(answer) => serde_json::from_str(&answer).unwrap(),
            Err(error) => panic!("{path}: {error}\n{}", self.process.output()),
        }
    }

    fn done(&self, path: &str, body: &Value) {
        let answer = self.call("POST", path, body);
        assert_eq!(answer["ok"], true, "{path}: {answer}\n{}", self.process.output());
    }

    /// What is in scope, such as `bench.*`.
    pub fn start(&self, include: &[&str]) {
        self.start_with(&json!({"includeNamespaces": include}));
    }

    /// With the whole body of `/start`.
    pub fn start_with(&self, body: &Value) {
        self.done("/start", body);
    }

    pub fn pause(&self) {
        self.done("/pause", &json!({}));
    }

    pub fn resume(&self) {
        self.done("/resume", &json!({}));
    }

    pub fn status(&self) -> Value {
        self.call("GET", "/status", &Value::Null)
    }

    /// Ask until it is so, at first every 20 ms, later as seldom as half a percent of the time allows, since answers cost the
    /// engine CPU; panics when the sync has failed. A long wait is told.
    pub async fn until(&self, reached: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut told = began;
        loop {
            let status = self.status();
            assert!(status["state"] != "failed", "{status:#}\n{}", self.process.output());
            if reached(&status) {
                return status;
            }
            if told.elapsed() > Duration::from_secs(20) {
                println!("  … {} {}", status["phase"], status["info"]);
                told = Instant::now();
            }
            tokio::time::sleep(ASK_EVERY.max(began.elapsed() / 200)).await;
        }
    }

    /// The data are copied.
    pub async fn until_cloned(&self) -> Value {
        self.until(|status| status["initialSync"]["cloneCompleted"] == true).await
    }

    /// The initial sync is complete, and the stream goes on.
    pub async fn until_streaming(&self) -> Value {
        self.until(|status| status["phase"] == "Streaming").await
    }

    /// Its process, as `/proc` names it.
    pub fn pid(&self) -> String {
        self.process.pid.to_string()
    }

    pub fn usage(&self) -> Usage {
        Usage::of(&self.pid())
    }

    /// Its peak memory counts from now on; what it used until now, to be taken off later.
    pub fn mark(&self) -> Usage {
        usage::forget_peak(&self.pid());
        self.usage()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    pub fn kill9(mut self) {
        self.process.kill();
    }

    /// SIGTERM, and wait.
    pub fn stop(mut self) {
        tokio::task::block_in_place(|| self.process.stop());
    }
}
