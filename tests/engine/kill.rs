//! Sudden ends: SIGKILL and SIGSTOP of a real process that runs a sync.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clustersync::sync::endpoint::Feature;
use clustersync::sync::stream::token;
use clustersync::sync::{Desired, DesiredState, Phase, Report, Share, spawn};
use futures::StreamExt;
use mongodb::bson::{Bson, Document, doc, serialize_to_vec};
use tokio::sync::watch;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::lab::process::{Folder, Process};
use crate::world::{World, holder};

/// A process that runs a sync: this test binary, started again to run `worker_process` only.
pub struct Worker {
    process: Process,
    folder: Folder,
}

impl Worker {
    pub fn start(world: &World, bytes_per_second: u64) -> Self {
        let folder = Folder::new("worker");
        let env = [
            ("CLUSTERSYNC_TEST_WORKER", folder.0.display().to_string()),
            ("CLUSTERSYNC_TEST_SOURCE", world.source_uri.clone()),
            ("CLUSTERSYNC_TEST_TARGET", world.target_uri.clone()),
            ("CLUSTERSYNC_TEST_DB", world.db.clone()),
            ("CLUSTERSYNC_TEST_LIMIT", bytes_per_second.to_string()),
            ("CLUSTERSYNC_TEST_AVOID", format!("{:?}", world.avoid)),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let args = ["kill::worker_process", "--exact", "--ignored", "--nocapture"].map(str::to_owned);
        let process = Process::start(&std::env::current_exe().unwrap(), &args, &env, &folder.0, "worker");
        Self { process, folder }
    }

    /// Fields of the last report: `name=value` lines.
    pub fn field(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.0.join("report")).unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        line.unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }

    pub async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !reached(self) {
            assert!(self.process.is_running(), "the worker ended: {}", self.process.output());
            assert!(Instant::now() < deadline, "not {what}: {}", self.process.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn kill(mut self) {
        self.process.kill();
        if std::env::var("RUST_LOG").is_ok() {
            println!("--- worker\n{}", self.process.output());
        }
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by other tests as a process"]
async fn worker_process() {
    let Ok(folder) = std::env::var("CLUSTERSYNC_TEST_WORKER") else { return };
    let get = |name: &str| std::env::var(format!("CLUSTERSYNC_TEST_{name}")).unwrap();
    crate::lab::crypto();
    clustersync::telemetry::logs::install(&clustersync::telemetry::logs::LogOptions {
        level: "info".into(),
        json: false,
        no_color: true,
    });
    let client = || async { mongodb::Client::with_uri_str(get("SOURCE")).await.unwrap() };
    let world = World {
        source_uri: get("SOURCE"),
        target_uri: get("TARGET"),
        source: client().await,
        target: client().await,
        db: get("DB"),
        avoid: [Feature::RawUpdates, Feature::ListCatalog]
            .into_iter()
            .filter(|feature| get("AVOID").contains(&format!("{feature:?}")))
            .collect(),
    };
    let mut config = world.config();
    config.limits.bytes_per_second = get("LIMIT").parse().unwrap();
    config.holder = holder();
    let (sender, receiver) = watch::channel(Desired::default());
    let handle = spawn(config, receiver, &Share::single());
    let path = PathBuf::from(folder);
    loop {
        let report = handle.report.borrow().clone();
        std::fs::write(path.join("report.new"), lines(&report)).unwrap();
        std::fs::rename(path.join("report.new"), path.join("report")).unwrap();
        if std::fs::read_to_string(path.join("desired")).is_ok_and(|state| state == "Completed") {
            sender.send_modify(|desired| desired.state = DesiredState::Completed);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn lines(report: &Report) -> String {
    let clone = &report.initial_sync;
    format!(
        "phase={}\ndocuments={}\ncopied={}\npartitions={}\npartitions_done={}\npartitions_copied={}\napplied={}\nepoch={}\n",
        report.phase,
        clone.documents,
        clone.documents_copied,
        clone.partitions_total,
        clone.partitions_done,
        clone.partitions_copied,
        report.replication.events_applied,
        report.epoch
    )
}

#[tokio::test]
async fn killed_in_the_clone_and_while_streaming_it_goes_on_where_it_was() {
    let world = World::shared("killed").await;
    world.fill("big", 60_000, 900).await;
    world.fill("small", 50, 10).await;
    let mut worker = Worker::start(&world, 14 << 20);
    worker.until("half cloned", |worker| worker.number("partitions_done") >= 4).await;
    let (done, documents) = (worker.number("partitions_done"), worker.number("documents"));
    worker.kill();
    for n in 0..500 {
        world.coll("big").update_one(doc! {"_id": n * 100}, doc! {"$set": {"while": "down"}}).await.unwrap();
    }
    let mut worker = Worker::start(&world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    let total = worker.number("partitions");
    assert_eq!(worker.number("partitions_done"), total);
    assert!(worker.number("partitions_copied") <= total - done, "a finished partition was copied again");
    assert!(worker.number("copied") <= 60_050 - documents, "documents were copied twice");
    // Kill while events are being applied.
    let writer = {
        let coll = world.coll("big");
        tokio::spawn(async move {
            for n in 0..4_000_i32 {
                let id = n % 900;
                coll.update_one(doc! {"_id": id}, doc! {"$inc": {"count": 1}, "$push": {"log": n}})
                    .await
                    .unwrap();
            }
        })
    };
    worker.until("applying", |worker| worker.number("applied") > 300).await;
    worker.kill();
    writer.await.unwrap();
    let mut worker = Worker::start(&world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    std::fs::write(worker.folder.0.join("desired"), "Completed").unwrap();
    worker.until("completed", |worker| worker.field("phase") == "Completed").await;
    world.assert_identical(false).await;
}

/// A process is frozen, another takes over, the first wakes: the target's server refuses its writes.
async fn wakes_late(db: &str, in_the_clone: bool) {
    let world = World::shared(db).await;
    world.fill("big", if in_the_clone { 60_000 } else { 500 }, 900).await;
    let mut old = Worker::start(&world, if in_the_clone { 10 << 20 } else { 0 });
    if in_the_clone {
        old.until("cloning", |worker| worker.number("documents") > 5_000).await;
    } else {
        old.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    }
    let running = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let writer = {
        let (coll, running) = (world.coll("big"), running.clone());
        tokio::spawn(async move {
            let mut n = 0_i32;
            while running.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                coll.update_one(doc! {"_id": n % 400}, doc! {"$push": {"log": n}}).await.unwrap();
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    old.signal("STOP");
    let first_epoch = old.number("epoch");
    let new = world.start();
    let report = new.phase(Phase::Streaming).await;
    assert!(report.epoch > i64::try_from(first_epoch).unwrap());
    old.signal("CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(old.output().contains("overtaken") || old.output().contains("held by"), "{}", old.output());
    assert_eq!(new.report().epoch, report.epoch, "the sleeper took the sync back");
    running.store(false, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    world.caught_up(&new).await;
    world.assert_identical(true).await;
    let slots: Vec<Document> = futures::TryStreamExt::try_collect(
        world
            .target
            .database("clustersync")
            .collection::<Document>("slots")
            .find(doc! {"sync": db})
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    assert!(slots.iter().all(|slot| slot.get_i64("epoch").unwrap() == report.epoch), "{slots:?}");
    old.kill();
    new.stop().await;
}

#[tokio::test]
async fn a_stopped_owner_that_wakes_late_is_refused_in_the_stream() {
    wakes_late("late_stream", false).await;
}

#[tokio::test]
async fn a_stopped_owner_that_wakes_late_is_refused_in_the_clone() {
    wakes_late("late_clone", true).await;
}

/// Killed once it drains, and again while it restores what was deferred: the cutover is finished by whoever is next.
#[tokio::test]
async fn killed_while_completing_it_completes() {
    let world = World::shared("killed_completing").await;
    for number in 0..40 {
        let name = format!("c{number}");
        world.fill(&name, 40, 10).await;
        let unique = mongodb::options::IndexOptions::builder().unique(true).build();
        crate::clone::index(&world, &name, doc! {"u": 1}, unique).await;
    }
    let mut worker = Worker::start(&world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    let syncs = world.target.database("clustersync").collection::<Document>("syncs");
    for stage in ["Completing", "Restoring"] {
        std::fs::write(worker.folder.0.join("desired"), "Completed").unwrap();
        loop {
            let record = syncs.find_one(doc! {"_id": "killed_completing"}).await.unwrap().unwrap();
            let now = record.get_str("stage").unwrap().to_owned();
            if now == stage || now == "Restoring" || now == "Completed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        worker.kill();
        worker = Worker::start(&world, 0);
    }
    std::fs::write(worker.folder.0.join("desired"), "Completed").unwrap();
    worker.until("completed", |worker| worker.field("phase") == "Completed").await;
    world.assert_identical(false).await;
    let claims = world.target.database("clustersync").collection::<Document>("claims");
    assert_eq!(claims.count_documents(doc! {"sync": "killed_completing"}).await.unwrap(), 0, "claims stayed");
}

impl Worker {
    /// The most memory that the process ever had, in MiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
    }
}

#[tokio::test]
async fn large_documents_fit_into_256_mebibytes() {
    let world = World::shared("large").await;
    let filler = "x".repeat(15 << 20);
    for n in 0..24 {
        world.coll("c").insert_one(doc! {"_id": n, "filler": &filler}).await.unwrap();
    }
    let mut worker = Worker::start(&world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    println!("after the clone: {} MiB", worker.peak_memory());
    for n in 0..24 {
        world.coll("c").replace_one(doc! {"_id": n}, doc! {"n": n, "filler": &filler}).await.unwrap();
    }
    let applied = |worker: &Worker| worker.number("applied") >= 24;
    worker.until("applied", applied).await;
    let peak = worker.peak_memory();
    println!("after the stream: {peak} MiB");
    assert!(peak < 256, "{peak} MiB");
    worker.kill();
}

/// What was read again is of a later time than its event: an owner that comes after must know up to when.
#[tokio::test]
async fn killed_after_documents_were_read_again_it_meets_what_they_became() {
    let world = World { avoid: vec![Feature::RawUpdates], ..World::shared("read_again").await };
    world.fill("c", 12_000, 10).await;
    let mut worker = Worker::start(&world, 0);
    worker.until("streaming", |worker| worker.field("phase") == "Streaming").await;
    worker.kill();
    world.coll("c").update_many(doc! {}, doc! {"$set": {"x": 1}}).await.unwrap();
    for n in 0..2_000 {
        world.coll("c").replace_one(doc! {"_id": n}, doc! {"replaced": n}).await.unwrap();
    }
    world.coll("c").delete_many(doc! {"n": {"$ne": 5}}).await.unwrap();
    let mut worker = Worker::start(&world, 0);
    worker.until("in the middle", |worker| worker.number("applied") > 3_000).await;
    assert!(worker.number("applied") < 12_000, "not in the middle any more");
    worker.kill();
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// A batch of large events makes the engine ask anew for fewer at a time, after an event whose key is no ordinary number.
#[tokio::test]
async fn it_resumes_after_events_of_64_bit_keys() {
    let world = World::shared("long_keys").await;
    world.fill("c", 10, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Paused);
    sync.phase(Phase::Paused).await;
    let filler = "x".repeat(5 << 20);
    for n in 0..12_i64 {
        world.coll("c").insert_one(doc! {"_id": (1_i64 << 60) + n, "filler": &filler}).await.unwrap();
    }
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

/// What is kept of a token is enough for the server to find its event, whatever the event's key is.
#[tokio::test]
async fn the_token_of_any_event_is_kept_whole() {
    let world = World::shared("any_token").await;
    let coll = world.coll("c");
    let number = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let keys = [
        Bson::Int32(1),
        Bson::Int64(2),
        Bson::Int64((1 << 53) + 1),
        Bson::Int64(i64::MIN + 1),
        Bson::Double(-0.0),
        Bson::Double(3.5),
        Bson::Double(1e300),
        Bson::Double(f64::NAN),
        number("4.50"),
        number("1E+6000"),
        Bson::Symbol("s".into()),
        Bson::String("t".into()),
        Bson::Document(doc! {"a": 5_i64 << 55, "b": {"c": Bson::Double(7.0)}}),
        Bson::DateTime(mongodb::bson::DateTime::from_millis(-1)),
        Bson::Null,
        Bson::MinKey,
    ];
    let watch = doc! {"aggregate": "c", "pipeline": [{"$changeStream": {}}], "cursor": {}};
    let mut events = world.src().run_cursor_command(watch.clone()).await.unwrap();
    for key in keys {
        coll.insert_one(doc! {"_id": key.clone()}).await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        let kept = token::text(&serialize_to_vec(event.get_document("_id").unwrap()).unwrap()).unwrap();
        let mut resumed = watch.clone();
        resumed.insert("pipeline", vec![doc! {"$changeStream": {"resumeAfter": token::document(&kept)}}]);
        let resumed = world.src().run_command(resumed).await;
        assert!(resumed.is_ok(), "{key:?}: {resumed:?}");
    }
}

/// A server of 6.0.5 closes the connection over a reply that does not fit: with a token as long as its key is, an event
/// of less than 16 MB makes one.
#[tokio::test]
async fn an_older_source_that_closes_the_connection_over_a_large_event_is_followed() {
    let old = |name: &str| ReplicaSet::start(Options { old: true, ..Options::new(name) });
    let (source, target) = tokio::join!(old("cutsrc"), old("cuttgt"));
    let world = World::on(&source, &target, "cut_off").await;
    world.fill("c", 10, 10).await;
    let sync = world.start();
    sync.phase(Phase::Streaming).await;
    sync.want(DesiredState::Paused);
    sync.phase(Phase::Paused).await;
    let key = "i".repeat(3_000_000);
    world.coll("c").insert_one(doc! {"_id": &key, "x": "y".repeat(1_000_000)}).await.unwrap();
    sync.want(DesiredState::Running);
    sync.phase(Phase::Streaming).await;
    sync.until("applied", |report| {
        assert!(
            report.failing_since.is_none(),
            "it was not followed at once: {:?}",
            report.replication.last_error
        );
        report.replication.events_applied > 0
    })
    .await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
