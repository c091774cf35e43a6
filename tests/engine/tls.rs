//! TLS with a private certificate authority.

use clustersync::sync::endpoint::EndpointConfig;
use clustersync::sync::{Phase, Reason};
use mongodb::bson::doc;

use crate::lab::mongod::{Options, ReplicaSet};
use crate::lab::secure::Authority;
use crate::world::{Sync, World, shared};

#[tokio::test]
async fn a_private_authority_is_trusted_and_another_is_not() {
    let (known, other) = (Authority::new("tls", &[]), Authority::new("tls-other", &[]));
    let mut options = Options::new("tls");
    // The lab itself speaks without TLS; the engine is made to use it by its CA.
    options.extra = known.prefer_tls();
    let source = ReplicaSet::start(options).await;
    let (_, target) = shared().await;
    let world = World::on(&source, target, "tls").await;
    world.fill("c", 50, 10).await;

    let with_ca = |authority: &Authority| {
        let uri = format!("{}&serverSelectionTimeoutMS=1500", world.source_uri);
        let config = EndpointConfig::parse(&uri, false).unwrap();
        config.with_ca(&authority.read("ca.crt")).unwrap()
    };
    let mut config = world.config();
    config.source = with_ca(&other);
    let sync = Sync::start(config);
    let report = sync.until("refused", |report| report.reason == Some(Reason::SourceUnreachable)).await;
    assert!(report.message.to_lowercase().contains("certificate"), "{}", report.message);
    sync.stop().await;

    let mut config = world.config();
    config.source = with_ca(&known);
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    let status = world.source.database("admin").run_command(doc! {"serverStatus": 1}).await.unwrap();
    let versions = status.get_document("transportSecurity").unwrap();
    let used: i64 = ["1.2", "1.3"].iter().map(|version| versions.get_i64(version).unwrap_or(0)).sum();
    assert!(used > 0, "no connection used TLS: {versions}");
    world.assert_identical(true).await;
    sync.stop().await;
}
