//! What a user sees who got something wrong.

use std::time::Duration;

use crate::site::{Site, cluster_sync, condition, fill, secrets, sets, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_waited_for() {
    let site = Site::new("missing");
    let (source, target) = sets().await;
    fill(&source.client().await, "missing", 10).await;
    site.secret("source", &source.uri());
    let _operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("missing", "missing")));
    let waiting = site.reason("missing", "CredentialsMissing");
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert_eq!(condition(&waiting, "Reconciling")["status"], "True");
    assert_eq!(condition(&waiting, "Stalled")["status"], "False");
    let message = condition(&waiting, "Ready")["message"].as_str().unwrap();
    assert!(message.contains("Secret target does not exist"), "{message}");
    site.secret("target", &target.uri());
    site.phase("missing", "Streaming");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_appears_nowhere_and_is_corrected() {
    const PASSWORD: &str = "hunter2-is-no-password";
    let site = Site::new("password");
    let (source, _) = secrets(&site).await;
    fill(&source, "password", 10).await;
    let uri = sets().await.1.uri();
    site.secret("target", &uri.replace("mongodb://", &format!("mongodb://nobody:{PASSWORD}@")));
    let operator = site.operator(&["--log-level=debug"]);
    succeed(site.apply(&cluster_sync("password", "password")));
    let refused = site.reason("password", "AuthenticationFailed");
    std::thread::sleep(Duration::from_secs(1));
    let seen = [
        ("resource", refused.to_string()),
        ("log", operator.log()),
        ("metrics", operator.http("/metrics")),
        ("events", site.kubectl(&["get", "events", "-o", "json"])),
    ];
    for (place, text) in seen {
        assert!(!text.contains(PASSWORD), "the password is in the {place}");
        assert!(!text.contains("nobody:"), "the connection string is in the {place}");
    }
    assert!(site.events("password").contains(&"AuthenticationFailed".to_owned()));
    site.secret("target", &uri);
    let streaming = site.phase("password", "Streaming");
    assert_eq!(streaming["status"]["worker"]["restarts"], 1, "the new Secret restarted the worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_option_and_an_unusable_filter_stall() {
    let site = Site::new("invalid");
    let (source, _) = secrets(&site).await;
    fill(&source, "invalid", 10).await;
    let _operator = site.operator(&[]);
    site.secret("odd", "mongodb://u:s3cr3t-word@127.0.0.1:1/?tlsInsecure=true");
    let mut odd = cluster_sync("odd", "invalid");
    odd["spec"]["target"]["uriSecretRef"]["name"] = "odd".into();
    succeed(site.apply(&odd));
    let stalled = site.reason("odd", "InvalidConfiguration");
    assert_eq!(condition(&stalled, "Stalled")["status"], "True");
    let message = condition(&stalled, "Stalled")["message"].as_str().unwrap();
    assert!(message.to_lowercase().contains("tlsinsecure") && message.contains("Secret odd"), "{message}");
    assert!(!stalled.to_string().contains("s3cr3t-word"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_the_required_label_is_as_good_as_missing() {
    let site = Site::new("labels");
    let (source, _) = secrets(&site).await;
    fill(&source, "labels", 10).await;
    let _operator = site.operator(&["--require-secret-label"]);
    succeed(site.apply(&cluster_sync("labels", "labels")));
    let waiting = site.reason("labels", "CredentialsMissing");
    let message = condition(&waiting, "Ready")["message"].as_str().unwrap();
    assert!(message.contains("clustersync.dev/use=true"), "{message}");
    site.kubectl(&["label", "secret", "source", "target", "clustersync.dev/use=true"]);
    site.phase("labels", "Streaming");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_sync_of_a_target_namespace_is_refused() {
    let site = Site::new("claims");
    let (source, _) = secrets(&site).await;
    fill(&source, "claims", 10).await;
    let _operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("one", "claims")));
    site.phase("one", "Streaming");
    let mut two = cluster_sync("two", "claims");
    two["spec"]["initialSync"] = serde_json::json!({"onExistingData": "Drop"});
    succeed(site.apply(&two));
    let stalled = site.reason("two", "TargetInUse");
    assert_eq!(condition(&stalled, "Stalled")["status"], "True");
    assert_eq!(site.get("one")["status"]["phase"], "Streaming", "the first is not touched");
}
