//! Names at the limits of Kubernetes.

use std::time::Duration;

use serde_json::json;

use crate::site::{Site, cluster_sync, fill, secrets, succeed};

/// `length` characters, with a dot at each place where a cut would leave an invalid name.
fn long(length: usize) -> String {
    let mut name = "sync-".to_owned();
    while name.len() < length - 3 {
        name.push_str("a.b-c");
    }
    name.truncate(length - 3);
    name.push_str("end");
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_names_work_like_any_other() {
    let site = Site::new(&format!("limits-{}", "n".repeat(56)));
    assert_eq!(site.namespace.len(), 63);
    let (source, target) = secrets(&site).await;
    let secret = long(253);
    let uri = crate::site::sets().await.0.uri();
    site.secret(&secret, &uri);
    fill(&source, "limits", 10).await;
    let operator = site.operator(&[]);
    let name = long(253);
    let mut sync = cluster_sync(&name, "limits");
    sync["spec"]["source"]["uriSecretRef"]["name"] = json!(secret);
    sync["spec"]["syncID"] = json!("s".repeat(128));
    sync["spec"]["metadataDatabase"] = json!("m".repeat(38));
    sync["spec"]["deletionPolicy"] = json!("Delete");
    succeed(site.apply(&sync));
    site.phase(&name, "Streaming");
    assert!(operator.http("/metrics").contains(&format!(r#"clustersync_lanes{{name="{name}""#)));
    // Events are sent behind the status.
    std::thread::sleep(Duration::from_secs(1));
    let events = site.events(&name);
    assert!(events.contains(&"Streaming".to_owned()), "{events:?}\n{}", operator.log());
    assert!(site.kubectl(&["describe", "csync", &name]).contains("Following the source."));
    // The same again counts the event up.
    for _ in 0..2 {
        site.set_state(&name, "Paused");
        site.phase(&name, "Paused");
        site.set_state(&name, "Running");
        site.phase(&name, "Streaming");
    }
    std::thread::sleep(Duration::from_secs(1));
    let all = site.json(&["get", "events.events.k8s.io"]);
    let paused: Vec<_> =
        all["items"].as_array().unwrap().iter().filter(|event| event["reason"] == "Paused").collect();
    assert_eq!(paused.len(), 1, "{paused:#?}");
    assert_eq!(paused[0]["series"]["count"], 2, "{paused:#?}");
    assert_eq!(paused[0]["reportingController"], "clustersync-operator");
    site.kubectl(&["delete", "csync", &name, "--wait=false"]);
    site.gone(&name);
    let left = target.database(&"m".repeat(38)).list_collection_names().await.unwrap();
    assert!(left.is_empty() || state_is_gone(&target, &left).await, "{left:?}");

    // One character more is refused by the apiserver, in its words.
    let too_long = site.apply(&cluster_sync(&long(254), "limits"));
    assert!(String::from_utf8_lossy(&too_long.stderr).contains("no more than 253"));
}

async fn state_is_gone(target: &mongodb::Client, names: &[String]) -> bool {
    let database = target.database(&"m".repeat(38));
    for name in names {
        let left = database.collection::<mongodb::bson::Document>(name);
        if left.count_documents(mongodb::bson::doc! {}).await.unwrap() > 0 {
            return false;
        }
    }
    true
}
