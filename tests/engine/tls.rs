//! TLS with a private certificate authority.

use std::path::Path;
use std::process::Command;

use clustersync::sync::endpoint::EndpointConfig;
use clustersync::sync::{Phase, Reason};
use mongodb::bson::doc;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::lab::process::Folder;
use crate::world::{Sync, World, shared};

fn openssl(folder: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `ca.crt`, and `server.pem` that it signed for loopback.
fn certificates(folder: &Path, authority: &str) {
    let subject = format!("/CN={authority}");
    let ca = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
        "-subj",
    ];
    openssl(folder, &[&ca[..], &[&subject]].concat());
    openssl(
        folder,
        &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "s.key", "-out", "s.csr", "-subj", "/CN=mongod"],
    );
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        "s.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
    ];
    openssl(folder, &[&sign[..], &["-out", "s.crt", "-extfile", "san"]].concat());
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    std::fs::write(folder.join("server.pem"), [read("s.crt"), read("s.key")].concat()).unwrap();
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_another_is_not() {
    let (folder, other) = (Folder::new("tls"), Folder::new("tls-other"));
    certificates(&folder.0, "lab authority");
    certificates(&other.0, "somebody else");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let mut options = Options::new("tls");
    // The lab itself speaks without TLS; the engine is made to use it by its CA.
    options.extra = vec![
        "--tlsMode=preferTLS".to_owned(),
        format!("--tlsCertificateKeyFile={}", path("server.pem")),
        format!("--tlsCAFile={}", path("ca.crt")),
        "--tlsAllowConnectionsWithoutCertificates".to_owned(),
    ];
    let source = ReplicaSet::start(options).await;
    let (_, target) = shared().await;
    let world = World::on(&source, target, "tls").await;
    world.fill("c", 50, 10).await;

    let with_ca = |folder: &Folder| {
        let uri = format!("{}&serverSelectionTimeoutMS=1500", world.source_uri);
        let config = EndpointConfig::parse(&uri, false).unwrap();
        config.with_ca(&std::fs::read(folder.0.join("ca.crt")).unwrap()).unwrap()
    };
    let mut config = world.config();
    config.source = with_ca(&other);
    let sync = Sync::start(config);
    let report = sync.until("refused", |report| report.reason == Some(Reason::SourceUnreachable)).await;
    assert!(report.message.to_lowercase().contains("certificate"), "{}", report.message);
    sync.stop().await;

    let mut config = world.config();
    config.source = with_ca(&folder);
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    let status = world.source.database("admin").run_command(doc! {"serverStatus": 1}).await.unwrap();
    let versions = status.get_document("transportSecurity").unwrap();
    let used: i64 = ["1.2", "1.3"].iter().map(|version| versions.get_i64(version).unwrap_or(0)).sum();
    assert!(used > 0, "no connection used TLS: {versions}");
    world.assert_identical(true).await;
    sync.stop().await;
}
