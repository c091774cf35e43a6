//! A source, a target, a database of one's own, and a sync between them.

use std::time::{Duration, Instant};

use clustersync::sync::config::{Holder, InitialSync, Limits, OnExistingData, Replication};
use clustersync::sync::endpoint::{EndpointConfig, Feature};
use clustersync::sync::scope::Scope;
use clustersync::sync::{Desired, DesiredState, Handle, Phase, Reason, Report, Share, SyncConfig, spawn};
use mongodb::bson::{Bson, Document, Uuid, doc};
use mongodb::{Client, Collection, Database};
use tokio::sync::{OnceCell, watch};

use crate::lab::compare::{Judge, compare};
use crate::lab::mongod::{ReplicaSet, pair};

/// One pair for all tests that do not disturb it.
pub async fn shared() -> &'static (ReplicaSet, ReplicaSet) {
    static PAIR: OnceCell<(ReplicaSet, ReplicaSet)> = OnceCell::const_new();
    PAIR.get_or_init(pair).await
}

/// The UUID that a server gave to a collection.
pub async fn uuid_of(db: &Database, name: &str) -> Uuid {
    let list = doc! {"listCollections": 1, "filter": {"name": name}};
    let reply = db.run_command(list).await.unwrap();
    let first = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].clone();
    let info = first.as_document().unwrap().get_document("info").unwrap();
    let Some(Bson::Binary(uuid)) = info.get("uuid") else { panic!("no uuid") };
    Uuid::from_bytes(uuid.bytes.clone().try_into().unwrap())
}

pub struct World {
    pub source_uri: String,
    pub target_uri: String,
    pub source: Client,
    pub target: Client,
    /// The test's own database.
    pub db: String,
    /// What the source is taken not to offer.
    pub avoid: Vec<Feature>,
}

impl World {
    /// On the shared pair.
    pub async fn shared(db: &str) -> Self {
        let (source, target) = shared().await;
        Self::on(source, target, db).await
    }

    pub async fn on(source: &ReplicaSet, target: &ReplicaSet, db: &str) -> Self {
        Self {
            source_uri: source.uri(),
            target_uri: target.uri(),
            source: source.client().await,
            target: target.client().await,
            db: db.to_owned(),
            avoid: Vec::new(),
        }
    }

    pub fn src(&self) -> Database {
        self.source.database(&self.db)
    }

    pub fn tgt(&self) -> Database {
        self.target.database(&self.db)
    }

    pub fn coll(&self, name: &str) -> Collection<Document> {
        self.src().collection(name)
    }

    /// `documents` numbered documents of about `size` bytes.
    pub async fn fill(&self, name: &str, documents: i32, size: usize) {
        let filler = "x".repeat(size);
        for chunk in (0..documents).collect::<Vec<_>>().chunks(2_000) {
            let some: Vec<Document> = chunk
                .iter()
                .map(|&n| doc! {"_id": n, "n": n % 97, "u": n, "filler": &filler, "s": {"a": n}})
                .collect();
            self.coll(name).insert_many(some).await.unwrap();
        }
    }

    pub fn config(&self) -> SyncConfig {
        let source = EndpointConfig::parse(&self.source_uri, true).unwrap();
        SyncConfig {
            id: self.db.clone(),
            resource_uid: None,
            source: self.avoid.iter().fold(source, |source, feature| source.without(*feature)),
            target: EndpointConfig::parse(&self.target_uri, true).unwrap(),
            metadata_database: "clustersync".to_owned(),
            scope: Scope::new(&[format!("{}.*", self.db)], &[]).unwrap(),
            initial_sync: InitialSync { on_existing_data: OnExistingData::Fail, ..InitialSync::default() },
            replication: Replication {
                checkpoint_interval: Duration::from_millis(300),
                // More than a small machine gets: what lanes may do to each other is tested too.
                lanes: 4,
                ..Replication::default()
            },
            limits: Limits::default(),
            holder: holder(),
        }
    }

    pub fn start(&self) -> Sync {
        Sync::start(self.config())
    }

    /// Wait until the sync has applied everything that the source holds now.
    pub async fn caught_up(&self, sync: &Sync) {
        let hello = self.source.database("admin").run_command(doc! {"hello": 1}).await.unwrap();
        let now = hello
            .get_document("lastWrite")
            .unwrap()
            .get_document("opTime")
            .unwrap()
            .get_timestamp("ts")
            .unwrap();
        sync.until("caught up", |report| report.replication.applied_time.is_some_and(|at| at >= now.into()))
            .await;
    }

    pub async fn differences(&self, before_completion: bool) -> Vec<String> {
        let judge = Judge { databases: vec![self.db.clone()], before_completion };
        compare(&self.source, &self.target, &judge).await
    }

    pub async fn assert_identical(&self, before_completion: bool) {
        let differences = self.differences(before_completion).await;
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

pub fn holder() -> Holder {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Holder { id: format!("test-{}-{number}", std::process::id()), term: None }
}

pub struct Sync {
    pub handle: Handle,
    pub desired: watch::Sender<Desired>,
}

impl Sync {
    pub fn start(config: SyncConfig) -> Self {
        Self::start_with(config, Desired::default())
    }

    pub fn start_with(config: SyncConfig, desired: Desired) -> Self {
        crate::lab::crypto();
        if std::env::var("RUST_LOG").is_ok() {
            clustersync::telemetry::logs::install(&clustersync::telemetry::logs::LogOptions {
                level: "info".into(),
                json: false,
                no_color: true,
            });
        }
        Self::start_within(config, desired, &Share::single())
    }

    pub fn start_within(config: SyncConfig, desired: Desired, share: &Share) -> Self {
        let (sender, receiver) = watch::channel(desired);
        Self { handle: spawn(config, receiver, share), desired: sender }
    }

    pub fn report(&self) -> Report {
        self.handle.report.borrow().clone()
    }

    pub fn want(&self, state: DesiredState) {
        self.desired.send_modify(|desired| desired.state = state);
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + Duration::from_secs(90);
        let mut reports = self.handle.report.clone();
        loop {
            let report = reports.borrow_and_update().clone();
            if reached(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "not {what}: {report:#?}");
            let _ = tokio::time::timeout(Duration::from_millis(200), reports.changed()).await;
        }
    }

    pub async fn phase(&self, phase: Phase) -> Report {
        self.until(phase.as_str(), |report| {
            assert!(
                report.phase != Phase::Stalled || phase == Phase::Stalled,
                "stalled: {:?} {}",
                report.reason,
                report.message
            );
            report.phase == phase
        })
        .await
    }

    pub async fn stalled(&self, reason: Reason) -> Report {
        let report = self.until("stalled", |report| report.phase == Phase::Stalled).await;
        assert_eq!(report.reason, Some(reason), "{}", report.message);
        report
    }

    pub async fn stop(self) {
        let began = Instant::now();
        self.handle.stop().await;
        assert!(began.elapsed() < Duration::from_secs(10), "a stop took {:?}", began.elapsed());
    }
}
