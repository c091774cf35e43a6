//! Replica sets of real mongods on loopback.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use super::process::{Folder, Process};

/// How a replica set is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    /// The address that members listen on and know each other by.
    pub host: String,
    pub members: usize,
    /// Megabytes.
    pub oplog: u32,
    /// Gigabytes of the server's cache.
    pub cache: f32,
    /// The older patch level.
    pub old: bool,
    pub extra: Vec<String>,
}

impl Options {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: "127.0.0.1".to_owned(),
            members: 1,
            // More than all tests on a shared pair write while one of them holds a sync still.
            oplog: 4_096,
            cache: 0.5,
            old: false,
            extra: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub struct Member {
    pub host: String,
    pub port: u16,
    process: Option<Process>,
    args: Vec<String>,
    program: std::path::PathBuf,
    folder: std::path::PathBuf,
}

impl Member {
    fn start_process(&mut self) {
        self.process = Some(Process::start(&self.program, &self.args, &[], &self.folder, "mongod"));
    }

    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn start(&mut self) {
        self.start_process();
    }

    /// Its data folder, to be copied while it is down.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Only this member, whatever its state.
    pub async fn direct(&self) -> Client {
        let uri = format!(
            "mongodb://{}:{}/?directConnection=true&serverSelectionTimeoutMS=5000",
            self.host, self.port
        );
        Client::with_options(ClientOptions::parse(uri).await.unwrap()).unwrap()
    }
}

/// A replica set; gone when dropped.
#[derive(Debug)]
pub struct ReplicaSet {
    pub name: String,
    pub members: Vec<Member>,
    _folders: Vec<Folder>,
}

impl ReplicaSet {
    pub async fn start(options: Options) -> Self {
        super::crypto();
        let program = super::tool(if options.old { "CLUSTERSYNC_MONGOD_OLD" } else { "CLUSTERSYNC_MONGOD" });
        let (mut members, mut folders) = (Vec::new(), Vec::new());
        for number in 0..options.members {
            let folder = Folder::new(&format!("{}-{number}", options.name));
            let port = super::free_port();
            let mut args: Vec<String> = [
                "--replSet",
                &options.name,
                "--port",
                &port.to_string(),
                "--bind_ip",
                &options.host,
                "--dbpath",
                &folder.0.display().to_string(),
                "--wiredTigerCacheSizeGB",
                &options.cache.to_string(),
                "--oplogSize",
                &options.oplog.to_string(),
                "--setParameter",
                "enableTestCommands=1",
                "--setParameter",
                "diagnosticDataCollectionEnabled=false",
                "--nounixsocket",
            ]
            .map(str::to_owned)
            .to_vec();
            args.extend(options.extra.iter().cloned());
            let mut member = Member {
                host: options.host.clone(),
                port,
                process: None,
                args,
                program: program.clone(),
                folder: folder.0.clone(),
            };
            member.start_process();
            members.push(member);
            folders.push(folder);
        }
        let set = Self { name: options.name, members, _folders: folders };
        set.initiate().await;
        set
    }

    async fn initiate(&self) {
        let hosts: Vec<Document> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| doc! {"_id": number as i32, "host": format!("{}:{}", member.host, member.port), "priority": if number == 0 { 2 } else { 1 }})
            .collect();
        let config = doc! {"_id": &self.name, "members": hosts, "settings": {"electionTimeoutMillis": 2000}};
        let admin = self.members[0].direct().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) =
            admin.database("admin").run_command(doc! {"replSetInitiate": config.clone()}).await
        {
            assert!(Instant::now() < deadline, "the replica set cannot be initiated: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.primary().await;
    }

    pub fn uri(&self) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("{}:{}", member.host, member.port)).collect();
        format!("mongodb://{}/?replicaSet={}", hosts.join(","), self.name)
    }

    pub async fn client(&self) -> Client {
        let mut options = ClientOptions::parse(self.uri()).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(20));
        Client::with_options(options).unwrap()
    }

    /// The number of the member that is primary and can be written to.
    pub async fn primary(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            for (number, member) in self.members.iter().enumerate() {
                if member.process.is_none() {
                    continue;
                }
                let hello = member.direct().await.database("admin").run_command(doc! {"hello": 1}).await;
                if hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "no primary in {}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A server without a replica set.
#[derive(Debug)]
pub struct Standalone {
    pub port: u16,
    _process: Process,
    _folder: Folder,
}

impl Standalone {
    pub async fn start() -> Self {
        super::crypto();
        let folder = Folder::new("standalone");
        let port = super::free_port();
        let args: Vec<String> = [
            "--port",
            &port.to_string(),
            "--bind_ip",
            "127.0.0.1",
            "--dbpath",
            &folder.0.display().to_string(),
            "--nounixsocket",
        ]
        .map(str::to_owned)
        .to_vec();
        let process = Process::start(&super::tool("CLUSTERSYNC_MONGOD"), &args, &[], &folder.0, "mongod");
        let server = Self { port, _process: process, _folder: folder };
        let client =
            Client::with_uri_str(format!("mongodb://127.0.0.1:{port}/?directConnection=true")).await.unwrap();
        client.database("admin").run_command(doc! {"ping": 1}).await.unwrap();
        server
    }
}

/// A source and a target, started together.
pub async fn pair() -> (ReplicaSet, ReplicaSet) {
    tokio::join!(ReplicaSet::start(Options::new("src")), ReplicaSet::start(Options::new("tgt")))
}
