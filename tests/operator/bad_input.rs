//! What a user sees who got something wrong.

use std::time::Duration;

use serde_json::{Value, json};

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

#[tokio::test(flavor = "multi_thread")]
async fn bad_ones_beside_a_good_one_tell_what_is_wrong_and_disturb_nobody() {
    let site = Site::new("beside");
    let (source, target) = secrets(&site).await;
    fill(&source, "beside", 50).await;
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync("good", "beside")));
    let before = site.phase("good", "Streaming");

    let uri = sets().await.0.uri();
    let secret = |name: &str, data: Value| {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        succeed(site.apply(&object));
    };
    let base64 = |bytes: &[u8]| -> String {
        // By hand, because no other test needs it.
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |word: u32, at: u32| char::from(DIGITS[(word >> at) as usize & 63]);
        let words = bytes.chunks(3).map(|chunk| {
            let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            let mut text: String = [18, 12, 6, 0].iter().map(|at| digit(word, *at)).collect();
            text.replace_range(chunk.len() + 1.., &"==="[..3 - chunk.len()]);
            text
        });
        words.collect()
    };
    secret("empty", json!({}));
    secret("blank", json!({"uri": ""}));
    secret("binary", json!({"uri": base64(&[0xff, 0xfe, 0x00, 0x01])}));
    secret("words", json!({"uri": base64(b"not a connection string")}));
    secret("other-scheme", json!({"uri": base64(b"https://u:s3cr3t-word@a.example")}));
    secret("no-password", json!({"username": base64(b"u")}));
    secret("no-username", json!({"password": base64(b"s3cr3t-word")}));
    secret(
        "odd-mechanism",
        json!({"username": base64(b"u"), "password": base64(b"s3cr3t-word"), "authMechanism": base64(b"PLAIN")}),
    );
    secret("no-pem", json!({"ca.crt": base64(b"s3cr3t-word")}));
    let with_uri = |name: &str, key: &str| json!({"uriSecretRef": {"name": name, "key": key}});
    let plain = uri.clone();
    let with_user = |name: &str| json!({"uri": plain, "credentialsSecretRef": {"name": name}});
    let cases: [(&str, Value, &str, &str); 15] = [
        ("no-secret", with_uri("nowhere", "uri"), "CredentialsMissing", "Secret nowhere does not exist"),
        ("no-key", with_uri("source", "url"), "CredentialsMissing", "Secret source has no key url"),
        ("no-data", with_uri("empty", "uri"), "CredentialsMissing", "Secret empty has no key uri"),
        ("blank", with_uri("blank", "uri"), "CredentialsMissing", "Secret blank, key uri: empty"),
        (
            "binary",
            with_uri("binary", "uri"),
            "InvalidConfiguration",
            "Secret binary, key uri: not valid UTF-8",
        ),
        ("words", with_uri("words", "uri"), "InvalidConfiguration", "Secret words"),
        ("scheme", with_uri("other-scheme", "uri"), "InvalidConfiguration", "Secret other-scheme"),
        (
            "no-password",
            with_user("no-password"),
            "CredentialsMissing",
            "Secret no-password has no key password",
        ),
        (
            "no-username",
            with_user("no-username"),
            "CredentialsMissing",
            "Secret no-username has no key username",
        ),
        ("mechanism", with_user("odd-mechanism"), "InvalidConfiguration", "Secret odd-mechanism"),
        (
            "no-pem",
            json!({"uri": plain, "tls": {"ca": {"secretRef": {"name": "no-pem"}}}}),
            "InvalidConfiguration",
            "tls.ca: the CA bundle holds no certificate in PEM form",
        ),
        (
            "no-map",
            json!({"uri": plain, "tls": {"ca": {"configMapRef": {"name": "no-map"}}}}),
            "CredentialsMissing",
            "ConfigMap no-map does not exist",
        ),
        (
            "tls-off",
            json!({"uri": format!("{plain}&tls=false"), "tls": {}}),
            "InvalidConfiguration",
            "tls=false turns TLS off",
        ),
        // The server speaks no TLS: nothing may be said to it in the open.
        (
            "tls-on",
            json!({"uri": format!("{plain}&serverSelectionTimeoutMS=500"), "tls": {}}),
            "SourceUnreachable",
            "",
        ),
        (
            "nobody",
            json!({"uri": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500"}),
            "SourceUnreachable",
            "",
        ),
    ];
    for (name, end, _, _) in &cases {
        let mut sync = cluster_sync(name, "elsewhere");
        sync["spec"]["source"] = end.clone();
        succeed(site.apply(&sync));
    }
    for (name, _, reason, words) in &cases {
        let object = site.reason(name, reason);
        let ready = condition(&object, "Ready");
        assert_eq!(ready["status"], "False");
        assert!(ready["message"].as_str().unwrap().contains(words), "{name}: {ready:#}");
        let stalled = *reason == "InvalidConfiguration";
        assert_eq!(condition(&object, "Stalled")["status"], if stalled { "True" } else { "False" }, "{name}");
        assert!(!object.to_string().contains("s3cr3t-word"), "{object:#}");
    }
    let items = source.database("beside").collection::<mongodb::bson::Document>("items");
    items.insert_one(mongodb::bson::doc! {"_id": 5000}).await.unwrap();
    for _ in 0..100 {
        if crate::site::count(&target, "beside").await == 51 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(crate::site::count(&target, "beside").await, 51);
    let after = site.get("good");
    assert_eq!(after["status"]["phase"], "Streaming");
    assert_eq!(after["status"]["worker"], before["status"]["worker"]);
    assert!(!operator.log().contains("s3cr3t-word"));
    // And each is corrected or removed like any other.
    let patch =
        json!({"spec": {"source": with_uri("source", "uri"), "requests": {"retry": "1"}}}).to_string();
    site.kubectl(&["patch", "csync", "no-key", "--type=merge", "-p", &patch]);
    site.phase("no-key", "Streaming");
    site.kubectl(&["delete", "csync", "no-secret", "binary", "nobody", "--wait=false"]);
    for name in ["no-secret", "binary", "nobody"] {
        site.gone(name);
    }
}
