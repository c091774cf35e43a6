//! What a user can get wrong, and what they are told.

use clustersync::sync::endpoint::{Credentials, EndpointConfig};
use clustersync::sync::{Phase, Reason};
use mongodb::bson::doc;

use crate::lab::mongod::{Options, ReplicaSet, Standalone};
use crate::world::{Sync, World};

async fn pending(
    world: &World,
    change: impl FnOnce(&mut clustersync::sync::SyncConfig),
    reason: Reason,
) -> String {
    let mut config = world.config();
    change(&mut config);
    let sync = Sync::start(config);
    let report = sync.until("explained", |report| report.reason == Some(reason)).await;
    assert_eq!(report.phase, Phase::Pending);
    sync.stop().await;
    report.message
}

#[tokio::test]
async fn an_address_where_nothing_answers() {
    let world = World::shared("nothing").await;
    let nowhere =
        EndpointConfig::parse("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500", false).unwrap();
    let message = pending(&world, |config| config.source = nowhere, Reason::SourceUnreachable).await;
    assert!(message.contains("127.0.0.1:1") && message.contains("refused"), "{message}");
    let no_name =
        EndpointConfig::parse("mongodb://no-such-host.invalid/?serverSelectionTimeoutMS=500", false).unwrap();
    pending(&world, |config| config.target = no_name, Reason::TargetUnreachable).await;
}

#[tokio::test]
async fn the_same_set_on_both_sides_and_a_standalone() {
    let world = World::shared("same").await;
    let mut config = world.config();
    config.target = EndpointConfig::parse(&world.source_uri, false).unwrap();
    let sync = Sync::start(config);
    sync.stalled(Reason::SameReplicaSet).await;
    sync.stop().await;
    let standalone = Standalone::start().await;
    let mut config = world.config();
    config.source =
        EndpointConfig::parse(&format!("mongodb://127.0.0.1:{}/", standalone.port), false).unwrap();
    let sync = Sync::start(config);
    let report = sync.stalled(Reason::NotAReplicaSet).await;
    assert!(report.message.contains("standalone"), "{}", report.message);
    sync.stop().await;
}

fn encrypted(name: &str) -> mongodb::bson::Document {
    let field = doc! {"keyId": mongodb::bson::Uuid::new(), "path": "secret", "bsonType": "string"};
    doc! {"create": name, "encryptedFields": {
        "escCollection": format!("enxcol_.{name}.esc"), "ecocCollection": format!("enxcol_.{name}.ecoc"),
        "eccCollection": format!("enxcol_.{name}.ecc"), "fields": [field],
    }}
}

#[tokio::test]
async fn what_is_not_supported_is_named_before_data_moves() {
    let world = World::shared("unsupported").await;
    world.fill("plain", 5, 10).await;
    let series = doc! {"create": "series", "timeseries": {"timeField": "t"}};
    world.src().run_command(series).await.unwrap();
    let sync = world.start();
    let report = sync.stalled(Reason::Unsupported).await;
    assert!(report.message.contains("unsupported.series (a time-series collection)"), "{}", report.message);
    assert!(world.tgt().list_collection_names().await.unwrap().is_empty());
    sync.stop().await;
    // Left out when asked, with a warning, and so is what appears later.
    let mut config = world.config();
    config.initial_sync.skip_unsupported = true;
    let sync = crate::world::Sync::start(config);
    let report = sync.phase(Phase::Streaming).await;
    assert!(
        report.warnings.iter().any(|warning| warning.contains("unsupported.series")),
        "{:?}",
        report.warnings
    );
    world.src().run_command(doc! {"create": "more", "timeseries": {"timeField": "t"}}).await.unwrap();
    world.coll("more").insert_one(doc! {"t": mongodb::bson::DateTime::now()}).await.unwrap();
    world.coll("more").drop().await.unwrap();
    // One whose changes come under its own name.
    world.src().run_command(encrypted("encrypted")).await.unwrap();
    world.coll("encrypted").insert_one(doc! {"_id": 1}).await.unwrap();
    world.coll("encrypted").insert_one(doc! {"_id": 2}).await.unwrap();
    world.fill("after", 5, 10).await;
    world.caught_up(&sync).await;
    assert_eq!(
        world.tgt().collection::<mongodb::bson::Document>("after").count_documents(doc! {}).await.unwrap(),
        5
    );
    sync.stop().await;
}

#[tokio::test]
async fn a_filter_that_matches_nothing_is_a_warning_and_waits() {
    let world = World::shared("no_match").await;
    let sync = world.start();
    let report = sync.phase(Phase::Streaming).await;
    assert!(
        report.warnings.iter().any(|warning| warning.contains("matches no collection")),
        "{:?}",
        report.warnings
    );
    world.fill("appears", 5, 10).await;
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}

#[tokio::test]
async fn a_source_with_old_features_is_refused() {
    let source = ReplicaSet::start(Options::new("oldfcv")).await;
    let (_, target) = crate::world::shared().await;
    let world = World::on(&source, target, "old_fcv").await;
    world.source.database("admin").run_command(doc! {"setFeatureCompatibilityVersion": "5.0"}).await.unwrap();
    let sync = world.start();
    let report = sync.stalled(Reason::UnsupportedVersion).await;
    assert!(report.message.contains("5.0"), "{}", report.message);
    sync.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_appears_nowhere() {
    let world = World::shared("password").await;
    let credentials = Credentials {
        username: "nobody".into(),
        password: "hunter2secret".into(),
        auth_source: None,
        auth_mechanism: None,
    };
    let mut config = world.config();
    config.source = config.source.with_credentials(credentials).unwrap();
    let sync = Sync::start(config);
    let report = sync.until("refused", |report| report.reason == Some(Reason::AuthenticationFailed)).await;
    assert!(!format!("{report:?}").contains("hunter2secret"));
    sync.stop().await;
}

#[tokio::test]
async fn an_old_patch_level_works_with_a_warning() {
    let mut options = Options::new("old605");
    options.old = true;
    let source = ReplicaSet::start(options).await;
    let (_, target) = crate::world::shared().await;
    let world = World::on(&source, target, "old_patch").await;
    world.fill("c", 300, 20).await;
    let sync = world.start();
    let report = sync.phase(Phase::Streaming).await;
    assert!(report.warnings.iter().any(|warning| warning.contains("6.0.5")), "{:?}", report.warnings);
    world.coll("c").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    world.coll("c").delete_one(doc! {"_id": 7}).await.unwrap();
    world.coll("d").insert_one(doc! {"_id": 1}).await.unwrap();
    world.caught_up(&sync).await;
    world.assert_identical(true).await;
    sync.stop().await;
}
