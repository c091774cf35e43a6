//! A release's life: over a definition that kubectl applied, tested, upgraded and rolled back under a running sync,
//! uninstalled and installed again, beside a second one.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::cluster::{CHART, Release, assert_identical, on_cluster};
use crate::writer::Writer;

/// The chart before this one, as it was packaged.
const PREVIOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/clustersync-0.1.0.tgz");

fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_release_is_upgraded_and_rolled_back_under_a_running_sync() {
    on_cluster(async |cluster| {
        cluster.definition();
        let release = Release::namespace(cluster, "upgrade");
        let over = refused(&cluster.try_helm(&["install", "clustersync", PREVIOUS, "-n", "upgrade"]));
        assert!(over.contains("invalid ownership metadata"), "{over}");
        let (repository, tag) = &cluster.image;
        cluster.helm(&[
            "install",
            "clustersync",
            PREVIOUS,
            "-n",
            "upgrade",
            "--wait",
            "--timeout=120s",
            "--take-ownership",
            "--set",
            &format!("image.repository={repository},image.tag={tag}"),
        ]);
        let writer = Writer::start(cluster, "upgrade");
        release.sync("stream", "upgrade", 0);
        let first = release.phase("stream", "Streaming");
        let cloned = first["status"]["initialSync"]["documents"].clone();

        release.helm("upgrade", CHART, &["replicas=2", "metrics.service.enabled=true"]);
        release.ready();
        println!(
            "release: after the upgrade changes arrive within {:?}",
            writer.arrives(cluster, Duration::from_secs(30)).await
        );
        print!("{}", cluster.helm(&["test", "clustersync", "-n", "upgrade", "--timeout=60s", "--logs"]));

        cluster.helm(&["rollback", "clustersync", "1", "-n", "upgrade", "--wait", "--timeout=120s"]);
        release.ready();
        println!(
            "release: after the rollback changes arrive within {:?}",
            writer.arrives(cluster, Duration::from_secs(30)).await
        );

        // The definition stays, and with it every resource: a new release goes on with them.
        cluster.helm(&["uninstall", "clustersync", "-n", "upgrade", "--wait"]);
        let left = release.get("stream");
        assert_eq!(left["metadata"]["uid"], first["metadata"]["uid"]);
        release.helm("install", CHART, &["crds.enabled=false"]);
        release.ready();
        writer.arrives(cluster, Duration::from_secs(30)).await;
        let after = release.phase("stream", "Streaming");
        assert_eq!(after["status"]["initialSync"]["documents"], cloned, "nothing was cloned again");
        assert_eq!(
            after["status"]["initialSync"]["completedAt"],
            first["status"]["initialSync"]["completedAt"]
        );
        writer.stop(cluster).await;
        assert_identical(cluster, "upgrade", true).await;
        release.remove();
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn two_releases_live_side_by_side() {
    on_cluster(async |cluster| {
        let one = Release::install(cluster, "side-a", &[]);
        let other = Release::install(cluster, "side-b", &["requireSecretLabel=true"]);
        for (release, db) in [(&one, "side_a"), (&other, "side_b")] {
            crate::cluster::fill(&cluster.source, db, 2).await;
            release.sync("copy", db, 0);
        }
        one.phase("copy", "Streaming");
        // Each runs what is in its own namespace, by its own rules.
        let waiting = other.until("copy", "waiting for a label", |object| {
            object["status"]["conditions"].to_string().contains("clustersync.dev/use")
        });
        assert_eq!(waiting["status"]["phase"], "Pending");
        other.kubectl(&["label", "secret", "source", "target", "clustersync.dev/use=true"]);
        other.phase("copy", "Streaming");
        assert!(one.holder() != other.holder() && !other.holder().is_empty());
        for db in ["side_a", "side_b"] {
            assert_identical(cluster, db, true).await;
        }
        other.remove();
        one.phase("copy", "Streaming");
        one.remove();
    });
}

/// In this order nothing hangs: resources, then the release with its definition.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn uninstalled_with_its_definition_nothing_is_left() {
    on_cluster(async |cluster| {
        if !cluster.ours {
            println!("skipped: the definition of a cluster that is not ours stays");
            return;
        }
        cluster.kubectl(&[
            "delete",
            "crd",
            "clustersyncs.clustersync.dev",
            "--ignore-not-found",
            "--timeout=60s",
        ]);
        let release = Release::namespace(cluster, "leaves");
        release.helm("install", CHART, &["crds.keep=false"]);
        release.ready();
        crate::cluster::fill(&cluster.source, "leaves", 1).await;
        release.sync("copy", "leaves", 0);
        release.phase("copy", "Streaming");
        release.kubectl(&[
            "patch",
            "clustersync",
            "copy",
            "--type=merge",
            "-p",
            r#"{"spec": {"deletionPolicy": "Delete"}}"#,
        ]);
        release.until("copy", "guarded", |object| object["metadata"]["finalizers"].is_array());
        release.kubectl(&["delete", "clustersync", "copy", "--timeout=60s"]);
        cluster.helm(&["uninstall", "clustersync", "-n", "leaves", "--wait", "--timeout=60s"]);
        assert!(!cluster.try_kubectl(&["get", "crd", "clustersyncs.clustersync.dev"]).status.success());
        // A pod takes a moment to end. The Lease is the operator's own; it holds nothing and may stay for the next one.
        let kept = ["default", "kube-root-ca.crt", "source", "target", "clustersync-operator"];
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let kinds = "all,serviceaccounts,roles,rolebindings,configmaps,secrets,leases";
            let owned = release.json(&["get", kinds]);
            let names = owned["items"].as_array().unwrap().iter();
            let names: Vec<&str> = names.map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
            if names.iter().all(|name| kept.contains(name)) {
                break;
            }
            assert!(Instant::now() < deadline, "{names:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
        release.remove();
    });
}
