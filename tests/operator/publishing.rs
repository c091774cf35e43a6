//! Who writes a status, and what when somebody else does: publishers of the operator on the real apiserver.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use clustersync::api::ClusterSyncStatus;
use clustersync::operator::events::Events;
use clustersync::operator::launch::{Course, Key, Launcher};
use clustersync::operator::patch::{Incarnation, StatusClient};
use clustersync::operator::publish::{Publisher, Shared, Subject, SubjectState};
use clustersync::operator::requests::Requests;
use clustersync::resource::{Asked, Unusable};
use clustersync::sync::{Phase, Reason, Report, Share};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::site::{Site, cluster_sync, condition, succeed};

async fn client(site: &Site) -> kube::Client {
    crate::lab::crypto();
    let kubeconfig = Kubeconfig::read_from(&site.plane.kubeconfig).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap().to_owned()
}

/// A publisher that has read `object`.
fn publisher(client: &kube::Client, site: &Site, object: &Value) -> Publisher {
    let requests = Arc::new(Requests::new(20.0));
    Publisher {
        client: StatusClient::new(client.clone(), &site.namespace),
        events: Events::start(client.clone(), "test", requests.clone()),
        requests,
        regarding: ObjectReference::default(),
        incarnation: Incarnation {
            namespace: site.namespace.clone(),
            name: text(object, "name"),
            uid: text(object, "uid"),
            resource_version: text(object, "resourceVersion"),
        },
        written: serde_json::from_value::<Option<ClusterSyncStatus>>(object["status"].clone())
            .unwrap()
            .unwrap_or_default(),
    }
}

fn subject(state: SubjectState) -> Subject {
    Subject { generation: 1, asked: Asked::default(), state, restarts: 0, notice: None, behind: None }
}

/// A publisher that runs, and the report that it watches.
struct Running {
    report: watch::Sender<Report>,
    _subject: watch::Sender<Subject>,
    stop: CancellationToken,
}

impl Running {
    fn start(publisher: Publisher, report: Report) -> Self {
        let report = watch::Sender::new(report);
        let subject = watch::Sender::new(subject(SubjectState::Running(report.subscribe())));
        let stop = CancellationToken::new();
        let shared = Shared { crowd: Arc::new(AtomicUsize::new(1)), phase: Arc::default() };
        tokio::spawn(publisher.run(subject.subscribe(), stop.clone(), shared));
        Self { report, _subject: subject, stop }
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn report(holder: &str, epoch: i64, phase: Phase) -> Report {
    Report { holder: holder.into(), epoch, phase, sync_id: "s".into(), ..Report::default() }
}

fn owned_elsewhere(report: &mut Report) {
    report.reason = Some(Reason::OwnedElsewhere);
    report.message = "held by another".into();
}

fn shows(site: &Site, name: &str, phase: &str, holder: &str) {
    site.until(name, &format!("{phase} by {holder}"), |object| {
        object["status"]["phase"] == phase && object["status"]["worker"]["holder"] == holder
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_the_read_and_the_first_write_costs_one_more_read() {
    let site = Site::new("relabelled");
    let client = client(&site).await;
    succeed(site.apply(&cluster_sync("sync", "relabelled")));
    let object = site.get("sync");
    site.kubectl(&["label", "csync", "sync", "changed=meanwhile"]);
    let publisher = publisher(&client, &site, &object);
    let requests = publisher.requests.clone();
    let _running = Running::start(publisher, report("a", 1, Phase::Streaming));
    tokio::task::block_in_place(|| shows(&site, "sync", "Streaming", "a"));
    // Two seconds' worth of requests were there at first: not even those were used up.
    let began = std::time::Instant::now();
    for _ in 0..20 {
        requests.turn().await;
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_own_a_sync_leaves_its_status_to_the_owner() {
    let site = Site::new("two-writers");
    let client = client(&site).await;
    succeed(site.apply(&cluster_sync("sync", "two-writers")));
    let owner =
        Running::start(publisher(&client, &site, &site.get("sync")), report("a", 3, Phase::Streaming));
    tokio::task::block_in_place(|| shows(&site, "sync", "Streaming", "a"));

    // Another operator watches the same namespace. That the owner is alive it learns from its next write.
    let other = Running::start(publisher(&client, &site, &site.get("sync")), report("b", 0, Phase::Pending));
    tokio::task::block_in_place(|| shows(&site, "sync", "Pending", "a"));
    owner.change(|report| report.phase = Phase::CatchingUp);
    tokio::task::block_in_place(|| shows(&site, "sync", "CatchingUp", "a"));
    other.change(owned_elsewhere);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.get("sync")["status"]["phase"], "CatchingUp");
    for n in 0..4 {
        owner.change(|report| report.phase = if n % 2 == 0 { Phase::Streaming } else { Phase::CatchingUp });
        tokio::time::sleep(Duration::from_secs(1)).await;
        // What would be written at once.
        let reason = if n % 2 == 0 { Reason::TargetUnreachable } else { Reason::OwnedElsewhere };
        other.change(|report| report.reason = Some(reason));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let expected = if n % 2 == 0 { "Streaming" } else { "CatchingUp" };
        assert_eq!(site.get("sync")["status"]["phase"], expected);
        assert_eq!(condition(&site.get("sync"), "Ready")["reason"], expected);
    }

    // The other takes over, and then the first one again: each writes while it owns the sync.
    other.change(|report| *report = self::report("b", 4, Phase::Streaming));
    tokio::task::block_in_place(|| shows(&site, "sync", "Streaming", "b"));
    owner.change(|report| report.phase = Phase::Paused);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.get("sync")["status"]["phase"], "Streaming", "written by one that was overtaken");
    owner.change(|report| report.epoch = 5);
    tokio::task::block_in_place(|| shows(&site, "sync", "Paused", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_whose_publisher_ended_is_published_again() {
    let site = Site::new("republished");
    let client = client(&site).await;
    succeed(site.apply(&cluster_sync("sync", "republished")));
    let object = site.get("sync");
    let key =
        Key { namespace: site.namespace.clone(), name: text(&object, "name"), uid: text(&object, "uid") };
    let launcher = Launcher::new(Share::new(1, 1 << 20));
    launcher.open();
    let missing = Unusable::missing("Secret a does not exist.");
    let published = std::cell::Cell::new(0);
    let make = |uid: &str| {
        published.set(published.get() + 1);
        let mut publisher = publisher(&client, &site, &object);
        publisher.incarnation.uid = uid.to_owned();
        publisher.incarnation.resource_version = "1".to_owned();
        publisher
    };
    // Its resource seems to be another one: it ends.
    launcher.publish(&key, subject(SubjectState::Waiting(missing)), || make("another"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(site.get("sync")["status"].is_null());
    let course = Course { generation: 1, asked: Asked::default(), notice: None, behind: None };
    launcher.steer(&key, course.clone(), || make(&key.uid));
    tokio::task::block_in_place(|| site.reason("sync", "CredentialsMissing"));
    launcher.steer(&key, course, || make(&key.uid));
    assert_eq!(published.get(), 2, "one that runs is left alone");
    launcher.stop_all(false).await;
}
