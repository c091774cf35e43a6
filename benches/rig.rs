//! The two replica sets that a row is measured on.

use mongodb::Client;
use mongodb::bson::doc;

use crate::lab::mongod::{Member, Options, ReplicaSet};
use crate::lab::process::Folder;
use crate::usage::Usage;

/// Gigabytes of each server's cache, where a row asks for nothing else.
pub const CACHE_GB: f32 = 3.0;

/// Megabytes of the oplog, where a row asks for nothing else.
pub const OPLOG_MB: u32 = 4_000;

/// A source and a target; gone when dropped.
pub struct Rig {
    pub source: ReplicaSet,
    pub target: ReplicaSet,
    pub source_client: Client,
    pub target_client: Client,
    /// For the logs of programs.
    pub folder: Folder,
    cache_gb: f32,
    oplog_mb: u32,
    /// Former targets, dead. Their files stay until the end: ext4 avoids what was deleted in the last minutes, by a search
    /// that whoever creates files next pays for.
    retired: Vec<ReplicaSet>,
}

impl Rig {
    pub async fn start(cache_gb: f32, oplog_mb: u32) -> Self {
        let side = |name| ReplicaSet::start(options(name, cache_gb, oplog_mb));
        let (source, target) = tokio::join!(side("source"), side("target"));
        let (source_client, target_client) = (source.client().await, target.client().await);
        Self {
            source,
            target,
            source_client,
            target_client,
            folder: Folder::new("bench"),
            cache_gb,
            oplog_mb,
            retired: Vec::new(),
        }
    }

    pub async fn standard() -> Self {
        Self::start(CACHE_GB, OPLOG_MB).await
    }

    /// Another target, which never held anything: a server keeps the files of what was dropped for five minutes, and is
    /// the slower the more it keeps.
    pub async fn renew_target(&mut self) {
        // What it has not written yet, the kernel would write during the next round.
        flush(&self.target_client).await;
        let fresh = ReplicaSet::start(options("target", self.cache_gb, self.oplog_mb)).await;
        let mut former = std::mem::replace(&mut self.target, fresh);
        former.members.iter_mut().for_each(Member::kill9);
        self.retired.push(former);
        self.target_client = self.target.client().await;
        self.settle().await;
    }

    pub fn source_uri(&self) -> String {
        self.source.uri()
    }

    pub fn target_uri(&self) -> String {
        self.target.uri()
    }

    pub async fn clear_source(&self) {
        clear(&self.source_client).await;
    }

    /// The sync's own state goes too: what starts next knows nothing of what was before.
    pub async fn clear_target(&self) {
        clear(&self.target_client).await;
    }

    /// CPU that the target's server used since its start, in seconds.
    pub async fn target_cpu(&self) -> f64 {
        let status = doc! {"serverStatus": 1, "metrics": 0, "wiredTiger": 0};
        let status = self.target_client.database("admin").run_command(status).await.unwrap();
        Usage::of(&status.get_i64("pid").unwrap().to_string()).cpu_seconds
    }

    /// Both sides have written out what they hold, so that no round pays for the one before.
    pub async fn settle(&self) {
        tokio::join!(flush(&self.source_client), flush(&self.target_client));
    }
}

fn options(side: &str, cache: f32, oplog: u32) -> Options {
    Options { oplog, cache, ..Options::new(&format!("bench{side}")) }
}

async fn clear(client: &Client) {
    for name in client.list_database_names().await.unwrap() {
        if !["admin", "local", "config"].contains(&name.as_str()) {
            client.database(&name).drop().await.unwrap();
        }
    }
}

async fn flush(client: &Client) {
    client.database("admin").run_command(doc! {"fsync": 1}).await.unwrap();
}
