//! How much the operator writes.

use std::time::Duration;

use crate::site::{Site, cluster_sync, fill, secrets, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_resource_writes_nothing_for_a_minute() {
    let site = Site::new("quiet");
    let (source, _) = secrets(&site).await;
    fill(&source, "quiet", 100).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("quiet", "quiet")));
    site.phase("quiet", "Streaming");
    // The last figures of the clone, and a first lag, may follow within a progress interval.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let before = site.get("quiet");
    tokio::time::sleep(Duration::from_secs(61)).await;
    let after = site.get("quiet");
    assert_eq!(
        before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"],
        "before {:#}\nafter {:#}",
        before["status"], after["status"]
    );
    assert!(operator.http("/livez").starts_with("HTTP/1.1 200"));
    assert!(operator.http("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = operator.http("/metrics");
    assert!(
        metrics.contains(r#"clustersync_phase{name="quiet",namespace="quiet",phase="Streaming"} 1"#),
        "{metrics}"
    );
}
