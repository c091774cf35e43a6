//! What managed providers ask for: `mongodb+srv`, TLS, a login by certificate or by password, compression.

use mongodb::bson::doc;
use serde_json::json;

use crate::lab::dns::{CLUSTER, Dns, HOST, possible};
use crate::lab::secure::{Authority, PASSWORD, SUBJECT, compressed, start};
use crate::stand::{Serve, Stand};

#[tokio::test(flavor = "multi_thread")]
async fn from_a_cluster_behind_srv_with_a_certificate_to_one_with_a_password() {
    if !possible() {
        println!("not run: a name server and a resolver file of one's own need root");
        return;
    }
    let (here, there) = (Authority::new("secure-src", &[HOST]), Authority::new("secure-tgt", &[]));
    let reader = doc! {"createUser": SUBJECT, "roles": [
        {"role": "readAnyDatabase", "db": "admin"}, {"role": "clusterMonitor", "db": "admin"},
    ]};
    let writer = doc! {"createUser": "writer", "pwd": PASSWORD, "mechanisms": ["SCRAM-SHA-256"],
    "roles": ["readWriteAnyDatabase", "clusterMonitor", "restore"]};
    let (readers, writers) = ([("$external", reader)], [("admin", writer)]);
    let ((source, source_root), (target, target_root)) =
        tokio::join!(start("secsrc", &here, &readers), start("sectgt", &there, &writers));
    let dns = Dns::start(source.members[0].port, "authSource=admin&replicaSet=secsrc");
    let stand = Stand {
        source: source_root,
        target: target_root,
        source_uri: format!(
            "mongodb+srv://{CLUSTER}/?authSource=%24external&authMechanism=MONGODB-X509&retryWrites=true&w=majority"
        ),
        target_uri: format!(
            "{}&authMechanism=SCRAM-SHA-256&tls=true&tlsCAFile={}&compressors=zstd,zlib",
            target.uri().replace("mongodb://", &format!("mongodb://writer:{PASSWORD}@")),
            there.path("ca.crt").display()
        ),
        db: "secure".to_owned(),
    };
    stand.fill("c", 1_000, 300).await;
    let args = vec![
        "serve".to_owned(),
        format!("--source={}", stand.source_uri),
        format!("--source-ca-file={}", here.path("ca.crt").display()),
        format!("--source-certificate-file={}", here.path("client.pem").display()),
        format!("--target={}", stand.target_uri),
        "--sync-id=secure".to_owned(),
    ];
    let serve = Serve::start_by(
        |program, args| {
            let (wrapper, args) = dns.wrap(program, &args);
            (wrapper.into(), args)
        },
        &args,
    );
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    stand.coll("c").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    stand.caught_up(&serve).await;
    assert!(compressed(&stand.target, "zstd").await > 0, "nothing came compressed");
    serve.done("/finalize", &json!({}));
    serve.until_state("finalized");
    stand.assert_identical(false).await;
    let log = serve.process.output();
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_certificate_without_one_is_refused_at_once() {
    let program = env!("CARGO_BIN_EXE_clustersync");
    let source = "mongodb://127.0.0.1:1/?authMechanism=MONGODB-X509";
    let output = std::process::Command::new(program)
        .args(["serve", "--source", source, "--target", "mongodb://127.0.0.1:2/"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("client certificate") && said.lines().count() == 1, "{said}");
}
