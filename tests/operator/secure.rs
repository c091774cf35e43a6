//! TLS, certificates and compression by Secrets and `ConfigMaps`.

use mongodb::bson::doc;
use serde_json::json;

use crate::lab::compare::{Judge, compare};
use crate::lab::secure::{Authority, KEY_PASSWORD, PASSWORD, SUBJECT, compressed, start};
use crate::site::{Site, fill, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_a_password_out_of_secrets() {
    let site = Site::new("secure");
    let authority = Authority::new("op-secure", &[]);
    let reader = doc! {"createUser": SUBJECT, "roles": [
        {"role": "readAnyDatabase", "db": "admin"}, {"role": "clusterMonitor", "db": "admin"},
    ]};
    let writer = doc! {"createUser": "writer", "pwd": PASSWORD, "mechanisms": ["SCRAM-SHA-256"],
    "roles": ["readWriteAnyDatabase", "clusterMonitor", "restore"]};
    let (readers, writers) = ([("$external", reader)], [("admin", writer)]);
    let ((source, source_root), (target, target_root)) =
        tokio::join!(start("opsrc", &authority, &readers), start("optgt", &authority, &writers));
    fill(&source_root, "secure", 2_000).await;

    let secret = |name: &str, data: serde_json::Value| {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        succeed(site.apply(&secret));
    };
    secret("login", json!({"authMechanism": "MONGODB-X509"}));
    secret("writer", json!({"username": "writer", "password": PASSWORD, "authMechanism": "SCRAM-SHA-256"}));
    secret("ca", json!({"ca.crt": authority.text("ca.crt")}));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"},
        "data": {"bundle.pem": authority.text("ca.crt")}});
    succeed(site.apply(&map));
    let sync = json!({
        "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": "secure"},
        "spec": {
            "source": {
                "uri": source.uri(), "credentialsSecretRef": {"name": "login"}, "compressors": ["zstd"],
                "tls": {"ca": {"configMapRef": {"name": "ca", "key": "bundle.pem"}}},
            },
            "target": {
                "uri": target.uri(), "credentialsSecretRef": {"name": "writer"}, "compressors": ["snappy", "zlib"],
                "tls": {"ca": {"secretRef": {"name": "ca"}}},
            },
            "scope": {"include": ["secure.*"]},
            "replication": {"checkpointIntervalSeconds": 1},
        }
    });
    succeed(site.apply(&sync));
    let operator = site.operator(&[]);
    let refused = site.reason("secure", "InvalidConfiguration");
    let message = refused["status"]["conditions"].to_string();
    assert!(message.contains("tls.clientCertSecretRef"), "{message}");

    let patch = json!({"spec": {"source": {"tls": {"clientCertSecretRef": {"name": "client"}}}}}).to_string();
    site.kubectl(&["patch", "clustersync", "secure", "--type=merge", "-p", &patch]);
    let missing = site.reason("secure", "CredentialsMissing");
    assert!(missing["status"]["conditions"].to_string().contains("Secret client"), "{missing:#}");
    secret(
        "client",
        json!({"tls.crt": authority.text("client.crt"), "tls.key": authority.text("client.enc.key"),
            "tls.keyPassword": KEY_PASSWORD}),
    );
    site.phase("secure", "Streaming");
    let items = source_root.database("secure").collection::<mongodb::bson::Document>("items");
    items.update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    assert!(compressed(&source_root, "zstd").await > 0, "the source was not read compressed");
    assert!(compressed(&target_root, "snappy").await > 0, "the target was not written compressed");
    site.set_state("secure", "Completed");
    site.phase("secure", "Completed");
    let judge = Judge { databases: vec!["secure".to_owned()], before_completion: false };
    let differences = compare(&source_root, &target_root, &judge).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for secret in [PASSWORD, KEY_PASSWORD, "PRIVATE KEY"] {
        assert!(!operator.log().contains(secret));
        assert!(!site.kubectl(&["get", "clustersync,events", "-o", "yaml"]).contains(secret));
    }
}
