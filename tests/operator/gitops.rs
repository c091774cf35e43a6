//! A manifest applied again changes nothing, and nothing that the operator writes shows as drift.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::site::{Site, cluster_sync, fill, secrets, succeed};

fn run(site: &Site, args: &[&str], manifest: &str) -> Output {
    site.plane.kubectl_as(&site.plane.kubeconfig, &[&["-n", &site.namespace], args].concat(), manifest)
}

fn live(site: &Site, name: &str) -> Value {
    site.json(&["get", "csync", name, "--show-managed-fields"])
}

/// The managers that own anything outside of the status.
fn others(object: &Value) -> Vec<&Value> {
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    managers.iter().filter(|manager| manager["subresource"] != "status").collect()
}

/// Between two looks at it the status may be written: that is no drift, but another version.
fn until_quiet(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..10 {
        match holds() {
            Ok(()) => return,
            Err(error) => last = error,
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    panic!("{what}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_manifest_again_changes_nothing() {
    let site = Site::new("gitops");
    let (source, _) = secrets(&site).await;
    let _operator = site.operator(&[]);
    // As people write it: fields left out, one at its default, a policy that needs a finalizer.
    let manifest = |name: &str| {
        let mut sync = cluster_sync(name, name);
        sync["spec"]["deletionPolicy"] = json!("Delete");
        sync["spec"]["initialSync"] = json!({"onExistingData": "Fail"});
        sync["metadata"]["labels"] = json!({"team": "a"});
        sync.to_string()
    };
    let ways: [(&str, &[&str], &[&str]); 2] = [
        ("server", &["apply", "--server-side", "-f", "-"], &["diff", "--server-side", "-f", "-"]),
        ("client", &["apply", "-f", "-"], &["diff", "-f", "-"]),
    ];
    for (name, apply, _) in ways {
        fill(&source, name, 50).await;
        succeed(run(&site, apply, &manifest(name)));
    }
    for (name, apply, diff) in ways {
        let before = site.phase(name, "Streaming");
        assert!(before["metadata"]["finalizers"].is_array(), "the operator has added its finalizer");
        until_quiet("kubectl diff", || {
            let output = run(&site, diff, &manifest(name));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.code() == Some(0) { Ok(()) } else { Err(said) }
        });
        until_quiet("kubectl apply", || {
            let before = live(&site, name);
            let said = succeed(run(&site, apply, &manifest(name)));
            let after = live(&site, name);
            assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"], "{said}");
            assert_eq!(before["spec"], after["spec"]);
            assert_eq!(after["metadata"]["generation"], 1, "nobody has written the spec since");
            assert_eq!(others(&before), others(&after));
            let version = |object: &Value| object["metadata"]["resourceVersion"].to_string();
            if version(&before) == version(&after) { Ok(()) } else { Err("another version".to_owned()) }
        });

        let object = live(&site, name);
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        let mut of_status: Vec<&str> = managers
            .iter()
            .filter(|manager| manager["subresource"] == "status")
            .map(|manager| manager["manager"].as_str().unwrap())
            .collect();
        of_status.sort_unstable();
        assert_eq!(of_status, ["clustersync-controller", "clustersync-worker"]);
        for manager in managers.iter().filter(|manager| manager["subresource"] == "status") {
            let fields: Vec<_> = manager["fieldsV1"].as_object().unwrap().keys().collect();
            assert_eq!(fields, ["f:status"], "{manager:#}");
        }
        for manager in others(&object) {
            let kubectl = manager["manager"].as_str().unwrap().starts_with("kubectl");
            let fields = &manager["fieldsV1"];
            assert!(fields["f:status"].is_null(), "{manager:#}");
            if !kubectl {
                let owned: Vec<_> = fields["f:metadata"].as_object().unwrap().keys().collect();
                assert_eq!(
                    owned,
                    ["f:finalizers"],
                    "beside the status, the operator owns its finalizer: {manager:#}"
                );
                assert!(fields["f:spec"].is_null(), "{manager:#}");
            }
        }
    }

    // What Git says wins, without a conflict: no field of the spec is anybody else's.
    let changed =
        manifest("server").replace(r#""checkpointIntervalSeconds":1"#, r#""checkpointIntervalSeconds":2"#);
    succeed(run(&site, ways[0].1, &changed));
    assert_eq!(run(&site, &["diff", "--server-side", "-f", "-"], &manifest("server")).status.code(), Some(1));
    site.until("server", "judged anew", |object| object["status"]["observedGeneration"] == 2);
}
