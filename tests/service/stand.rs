//! A pair of replica sets, and `serve` processes between them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::lab::compare::{Judge, compare};
use crate::lab::mongod::{ReplicaSet, pair};
use crate::lab::process::{Folder, Process};

async fn sets() -> &'static (ReplicaSet, ReplicaSet) {
    static PAIR: OnceCell<(ReplicaSet, ReplicaSet)> = OnceCell::const_new();
    PAIR.get_or_init(pair).await
}

/// A database of one's own on the shared pair.
pub struct Stand {
    pub source: Client,
    pub target: Client,
    pub source_uri: String,
    pub target_uri: String,
    pub db: String,
}

impl Stand {
    pub async fn new(db: &str) -> Self {
        let (source, target) = sets().await;
        Self {
            source: source.client().await,
            target: target.client().await,
            source_uri: source.uri(),
            target_uri: target.uri(),
            db: db.to_owned(),
        }
    }

    pub fn coll(&self, name: &str) -> Collection<Document> {
        self.source.database(&self.db).collection(name)
    }

    pub async fn fill(&self, name: &str, documents: i32, size: usize) {
        let filler = "x".repeat(size);
        for chunk in (0..documents).collect::<Vec<_>>().chunks(2_000) {
            let some: Vec<Document> =
                chunk.iter().map(|&n| doc! {"_id": n, "n": n % 97, "filler": &filler}).collect();
            self.coll(name).insert_many(some).await.unwrap();
        }
    }

    /// `serve` for this stand's own sync.
    pub fn serve(&self, more: &[&str]) -> Serve {
        self.serve_as(&self.db, more)
    }

    pub fn serve_as(&self, sync_id: &str, more: &[&str]) -> Serve {
        Serve::start(&self.arguments(sync_id, more))
    }

    /// The arguments of such a `serve`.
    pub fn arguments(&self, sync_id: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec![
            "serve".to_owned(),
            format!("--source={}", self.source_uri),
            format!("--target={}", self.target_uri),
            format!("--sync-id={sync_id}"),
            "--log-no-color".to_owned(),
        ];
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    /// The body of a start of this stand's database.
    pub fn scope(&self) -> Value {
        json!({"includeNamespaces": [format!("{}.*", self.db)]})
    }

    pub async fn assert_identical(&self, before_completion: bool) {
        let judge = Judge { databases: vec![self.db.clone()], before_completion };
        let differences = compare(&self.source, &self.target, &judge).await;
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// Wait until everything that the source holds now is applied.
    pub async fn caught_up(&self, serve: &Serve) {
        let hello = self.source.database("admin").run_command(doc! {"hello": 1}).await.unwrap();
        let now = hello
            .get_document("lastWrite")
            .unwrap()
            .get_document("opTime")
            .unwrap()
            .get_timestamp("ts")
            .unwrap();
        serve.until("caught up", |status| {
            let ts = status["lastReplicatedOpTime"]["ts"].as_str().unwrap_or("0.0").to_owned();
            let (seconds, increment) = ts.split_once('.').unwrap();
            (seconds.parse::<u32>().unwrap(), increment.parse::<u32>().unwrap()) >= (now.time, now.increment)
        });
    }
}

pub struct Serve {
    pub process: Process,
    pub port: u16,
    _folder: Folder,
}

impl Serve {
    /// With its port appended; returns once it listens.
    pub fn start(args: &[String]) -> Self {
        Self::start_by(|program, args| (program.to_owned(), args), args)
    }

    /// With variables in its environment.
    pub fn start_in(environment: &[(&str, &str)], args: &[String]) -> Self {
        let variables: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Self::start_by(
            |program, args| {
                let program = program.display().to_string();
                ("env".into(), [variables, vec![program], args].concat())
            },
            args,
        )
    }

    /// Started as `wrap` says.
    pub fn start_by(
        wrap: impl FnOnce(&Path, Vec<String>) -> (PathBuf, Vec<String>),
        args: &[String],
    ) -> Self {
        let port = crate::lab::free_port();
        let mut all = args.to_vec();
        all.push(format!("--port={port}"));
        let folder = Folder::new("serve");
        let (program, all) = wrap(Path::new(env!("CARGO_BIN_EXE_clustersync")), all);
        let mut process = Process::start(&program, &all, &[], &folder.0, "serve");
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.is_running(), "{}", process.output());
            assert!(began.elapsed() < Duration::from_secs(2), "the port is open within two seconds");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, port, _folder: folder }
    }

    pub fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            .build()
            .into()
    }

    /// The status code and the body of a call; every answer comes within five seconds.
    pub fn raw(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let began = Instant::now();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .body(body.to_owned())
            .unwrap();
        let mut answer = Self::agent().run(request).unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{path} was answered after {:?}", began.elapsed());
        (answer.status().as_u16(), text)
    }

    /// The code and the whole answer of a request without a body, of these headers.
    pub fn with_headers(&self, method: &str, path: &str, headers: &[&str]) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (code, text) = self.raw("POST", path, &body.to_string());
        assert_eq!(code, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A call that must be done.
    pub fn done(&self, path: &str, body: &Value) {
        let answer = self.post(path, body);
        assert_eq!(answer, json!({"ok": true}), "{path}\n{}", self.process.output());
    }

    /// A call that must be refused; why.
    pub fn refused(&self, path: &str, body: &Value) -> String {
        let answer = self.post(path, body);
        assert_eq!(answer["ok"], false, "{path} {body}");
        answer["error"].as_str().unwrap().to_owned()
    }

    pub fn status(&self) -> Value {
        let (code, text) = self.raw("GET", "/status", "");
        assert_eq!(code, 200);
        serde_json::from_str(&text).unwrap()
    }

    pub fn state(&self) -> String {
        self.status()["state"].as_str().unwrap().to_owned()
    }

    pub fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let status = self.status();
            if reached(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "not {what}: {status:#}\n{}", self.process.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn until_state(&self, state: &str) -> Value {
        self.until(state, |status| {
            assert!(status["state"] != "failed" || state == "failed", "{status:#}");
            status["state"] == state
        })
    }

    pub fn until_streaming(&self) -> Value {
        self.until("streaming", |status| {
            assert!(status["state"] != "failed", "{status:#}");
            status["phase"] == "Streaming"
        })
    }
}
