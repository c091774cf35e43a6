//! Each rule of the schema, accepted and rejected by the real apiserver.

use std::collections::BTreeSet;

use clustersync::api::rules;
use serde_json::{Value, json};

use crate::site::{plane, succeed};

const NAMESPACE: &str = "admission";

fn object(name: &str, change: impl Fn(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"source": {"uri": "mongodb://a.example"}, "target": {"uri": "mongodb://b.example"}}
    });
    change(&mut object["spec"]);
    object
}

/// The refusal's words; none if it is accepted. Nothing is stored.
fn dry_run(object: &Value) -> Option<String> {
    let plane = plane();
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let output = plane.kubectl_as(&plane.kubeconfig, &args, &object.to_string());
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

fn namespace() {
    succeed(plane().apply(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string(),
    ));
}

type Change = fn(&mut Value);

/// Rule, accepted, rejected: at creation.
const CREATION: &[(rules::CelRule, Change, Change)] = &[
    (
        rules::ONE_URI,
        |s| s["source"] = json!({"uriSecretRef": {"name": "a", "key": "uri"}}),
        |s| s["source"]["uriSecretRef"] = json!({"name": "a", "key": "uri"}),
    ),
    (rules::ONE_URI, |s| s["target"]["uri"] = json!("mongodb+srv://x.example"), |s| s["target"] = json!({})),
    (
        rules::NO_CREDENTIALS_IN_URI,
        |s| s["source"]["uri"] = json!("mongodb://a.example/?replicaSet=x"),
        |s| s["source"]["uri"] = json!("mongodb://user:secret@a.example"),
    ),
    (
        rules::NO_CREDENTIALS_IN_URI,
        |s| s["target"]["credentialsSecretRef"] = json!({"name": "x"}),
        |s| s["target"]["uri"] = json!("mongodb://user@b.example"),
    ),
    (
        rules::ONE_CA,
        |s| s["source"]["tls"] = json!({"ca": {"configMapRef": {"name": "ca"}}}),
        |s| s["source"]["tls"] = json!({"ca": {"configMapRef": {"name": "ca"}, "secretRef": {"name": "ca"}}}),
    ),
    (rules::ONE_CA, |s| s["target"]["tls"] = json!({}), |s| s["target"]["tls"] = json!({"ca": {}})),
    (
        rules::METADATA_DATABASE_NOT_SYSTEM,
        |s| s["metadataDatabase"] = json!("admins"),
        |s| s["metadataDatabase"] = json!("Config"),
    ),
    (
        rules::SCOPE_NOT_SYSTEM,
        |s| s["scope"] = json!({"include": ["shop.*"], "exclude": ["shop.local"]}),
        |s| s["scope"] = json!({"include": ["local.*"]}),
    ),
    (
        rules::SCOPE_NOT_SYSTEM,
        |s| s["scope"] = json!({"include": ["administration.*"]}),
        |s| s["scope"] = json!({"exclude": ["admin"]}),
    ),
];

/// Rule, what is there, an accepted change of it, a rejected one.
const TRANSITION: &[(rules::CelRule, Change, Change, Change)] = &[
    (rules::SYNC_ID_IMMUTABLE, |_| (), |s| s["syncID"] = json!(""), |s| s["syncID"] = json!("mine")),
    (
        rules::METADATA_DATABASE_IMMUTABLE,
        |_| (),
        |s| s["metadataDatabase"] = json!("clustersync"),
        |s| s["metadataDatabase"] = json!("other"),
    ),
    (
        rules::SCOPE_IMMUTABLE,
        |s| s["scope"] = json!({"include": ["a.*"]}),
        |s| s["scope"] = json!({"include": ["a.*"], "exclude": []}),
        |s| s["scope"] = json!({"include": ["a.*", "b.*"]}),
    ),
    // A field rule would be passed by leaving the whole field out.
    (
        rules::SCOPE_IMMUTABLE,
        |s| s["scope"] = json!({"exclude": ["a.*"]}),
        |s| s["scope"] = json!({"exclude": ["a.*"], "include": []}),
        |_| (),
    ),
    (
        rules::TARGET_IMMUTABLE,
        |_| (),
        |s| {
            s["source"]["uri"] = json!("mongodb://other.example");
            s["target"]["credentialsSecretRef"] = json!({"name": "new"});
        },
        |s| s["target"]["uri"] = json!("mongodb://other.example"),
    ),
    (
        rules::TARGET_IMMUTABLE,
        |s| s["target"] = json!({"uriSecretRef": {"name": "t", "key": "uri"}}),
        |s| {
            s["target"] = json!({"uriSecretRef": {"name": "t", "key": "uri"}});
            s["limits"] =
                json!({"bytesPerSecond": 5, "maxSourceLatencyMs": 60_000, "maxReplicationLagSeconds": 3_600});
        },
        |s| s["target"] = json!({"uriSecretRef": {"name": "t", "key": "other"}}),
    ),
];

#[test]
fn each_rule_accepts_and_rejects() {
    namespace();
    let mut seen = BTreeSet::new();
    for (rule, accepted, rejected) in CREATION {
        assert_eq!(dry_run(&object("new", accepted)), None, "{}", rule.expression);
        let refusal =
            dry_run(&object("new", rejected)).unwrap_or_else(|| panic!("accepted: {}", rule.expression));
        assert!(refusal.contains(rule.message), "{refusal}");
        seen.insert(rule.message);
    }
    for (number, (rule, present, accepted, rejected)) in TRANSITION.iter().enumerate() {
        let name = format!("present-{number}");
        succeed(plane().apply(&object(&name, present).to_string()));
        assert_eq!(dry_run(&object(&name, accepted)), None, "{}", rule.expression);
        let refusal =
            dry_run(&object(&name, rejected)).unwrap_or_else(|| panic!("accepted: {}", rule.expression));
        assert!(refusal.contains(rule.message), "{refusal}");
        seen.insert(rule.message);
    }
    seen.insert(rules::COMPLETED_IS_FINAL.message); // Below.
    let all: BTreeSet<_> = rules::ALL.iter().map(|rule| rule.message).collect();
    assert_eq!(seen, all, "every rule has its cases");
}

#[test]
fn a_committed_cutover_cannot_be_taken_back() {
    namespace();
    let wish = |state: Value| object("cutover", move |spec| spec["state"] = state.clone());
    succeed(plane().apply(&wish(json!("Completed")).to_string()));
    assert_eq!(dry_run(&wish(json!("Running"))), None, "before the commit it may go back");
    let status = json!({"status": {"completion": {"committedAt": "2026-01-01T00:00:00Z"}}}).to_string();
    let patch =
        ["-n", NAMESPACE, "patch", "csync", "cutover", "--subresource=status", "--type=merge", "-p", &status];
    plane().kubectl(&patch);
    for state in [json!("Running"), json!("Paused"), Value::Null] {
        let refusal = dry_run(&wish(state)).expect("refused");
        assert!(refusal.contains(rules::COMPLETED_IS_FINAL.message), "{refusal}");
    }
    let still = object("cutover", |spec| {
        spec["state"] = json!("Completed");
        spec["requests"] = json!({"retry": "1"});
    });
    assert_eq!(dry_run(&still), None);
}

#[test]
fn the_schema_defaults_and_refuses() {
    namespace();
    succeed(plane().apply(&object("defaults", |_| ()).to_string()));
    let stored =
        plane().kubectl(&["-n", NAMESPACE, "get", "csync", "defaults", "-o", "jsonpath={.spec.state}"]);
    assert_eq!(stored, "Running");
    let refused: &[Change] = &[
        |s| s["state"] = json!("running"),
        |s| s["source"] = Value::Null,
        |s| s["source"]["uri"] = json!("http://a.example"),
        |s| s["syncID"] = json!("a/b"),
        |s| s["syncID"] = json!("x".repeat(129)),
        |s| s["scope"] = json!({"include": [".x"]}),
        |s| s["scope"] = json!({"include": vec!["a.*"; 257]}),
        |s| s["limits"] = json!({"bytesPerSecond": -1}),
        |s| s["limits"] = json!({"maxSourceLatencyMs": 60_001}),
        |s| s["limits"] = json!({"maxSourceLatencyMs": -1}),
        |s| s["limits"] = json!({"maxReplicationLagSeconds": 3_601}),
        |s| s["limits"] = json!({"maxReplicationLagSeconds": "5s"}),
        |s| s["replication"] = json!({"checkpointIntervalSeconds": 0}),
        |s| s["deletionPolicy"] = json!("Drop"),
        |s| s["metadataDatabase"] = json!("a.b"),
        |s| s["unknown"] = json!(1),
        |s| s["source"]["unknown"] = json!(1),
        |s| s["target"] = Value::Null,
        |s| s["target"]["uri"] = json!(format!("mongodb://{}", "x".repeat(2040))),
        // No Secret of another namespace can be named.
        |s| s["source"] = json!({"uriSecretRef": {"name": "other/secret", "key": "uri"}}),
        |s| s["source"] = json!({"uriSecretRef": {"name": "secret", "namespace": "other", "key": "uri"}}),
        |s| s["source"]["credentialsSecretRef"] = json!({"name": "../secret"}),
        |s| s["source"]["credentialsSecretRef"] = json!({"name": "x".repeat(254)}),
        |s| s["source"] = json!({"uriSecretRef": {"name": "secret", "key": "a/b"}}),
        |s| s["source"] = json!({"uriSecretRef": {"name": "secret", "key": ""}}),
        |s| s["source"]["readPreference"] = json!("secondary"),
        |s| s["source"]["compressors"] = json!(["lz4"]),
        |s| s["source"]["compressors"] = json!(["zstd", "zstd", "zstd", "zstd"]),
        |s| s["target"]["readPreference"] = json!("Primary"),
        |s| s["scope"] = json!({"exclude": ["x".repeat(256)]}),
        |s| s["scope"] = json!({"include": [""]}),
        |s| s["scope"] = json!({"include": ["a.$cmd"]}),
        |s| s["initialSync"] = json!({"onExistingData": "Merge"}),
        |s| s["initialSync"] = json!({"parallelCollections": 65}),
        |s| s["initialSync"] = json!({"readersPerCollection": -1}),
        |s| s["initialSync"] = json!({"skipUnsupported": "yes"}),
        |s| s["replication"] = json!({"lanes": 65}),
        |s| s["replication"] = json!({"checkpointIntervalSeconds": 301}),
        |s| s["replication"] = json!({"maxLagSeconds": 0}),
        |s| s["limits"] = json!({"bytesPerSecond": 1.5}),
        |s| s["metadataDatabase"] = json!(""),
        |s| s["metadataDatabase"] = json!("x".repeat(39)),
        |s| s["requests"] = json!({"retry": "x".repeat(65)}),
        |s| s["requests"] = json!({"restart": 1}),
    ];
    for (number, change) in refused.iter().enumerate() {
        let object = object("refused", change);
        assert!(dry_run(&object).is_some(), "case {number} is accepted: {object}");
    }
}
