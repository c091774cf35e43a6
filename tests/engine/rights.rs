//! With access control: the documented rights are enough, and what is missing is named.

use clustersync::sync::endpoint::Credentials;
use clustersync::sync::{DesiredState, Phase, Reason};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, IndexOptions};

use crate::clone::index;
use crate::lab::mongod::{Options, ReplicaSet};
use crate::lab::process::Folder;
use crate::lab::secure::{PASSWORD, key_file};
use crate::world::{Sync, World, shared};

fn login(username: &str) -> Credentials {
    Credentials {
        username: username.to_owned(),
        password: PASSWORD.to_owned(),
        auth_source: None,
        auth_mechanism: Some("SCRAM-SHA-256".to_owned()),
    }
}

async fn as_root(set: &ReplicaSet) -> Client {
    let mut options = ClientOptions::parse(set.uri()).await.unwrap();
    let credential = Credential::builder().username("root".to_owned()).password(PASSWORD.to_owned()).build();
    options.credential = Some(credential);
    Client::with_options(options).unwrap()
}

async fn create_user(admin: &Client, name: &str, roles: &[&str]) {
    let roles: Vec<&str> = roles.to_vec();
    let create: Document = doc! {"createUser": name, "pwd": PASSWORD, "roles": roles};
    admin.database("admin").run_command(create).await.unwrap();
}

async fn guarded(name: &str, folder: &Folder) -> (ReplicaSet, Client) {
    let mut options = Options::new(name);
    options.extra = vec!["--auth".to_owned(), "--keyFile".to_owned(), key_file(&folder.0)];
    let set = ReplicaSet::start(options).await;
    // The first user may be created from the same host without being one.
    create_user(&set.members[0].direct().await, "root", &["root"]).await;
    let root = as_root(&set).await;
    (set, root)
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_fewer_are_named() {
    let folder = Folder::new("keys");
    let ((source, source_root), (target, target_root)) =
        tokio::join!(guarded("authsrc", &folder), guarded("authtgt", &folder));
    create_user(&source_root, "reader", &["readAnyDatabase", "clusterMonitor"]).await;
    create_user(&source_root, "narrow", &["readAnyDatabase"]).await;
    create_user(&target_root, "writer", &["readWriteAnyDatabase", "clusterMonitor", "restore"]).await;
    let world = World {
        source_uri: source.uri(),
        target_uri: target.uri(),
        source: source_root,
        target: target_root,
        db: "rights".to_owned(),
        avoid: Vec::new(),
    };
    world.fill("c", 300, 50).await;
    index(&world, "c", doc! {"u": 1}, IndexOptions::builder().unique(true).build()).await;

    let mut config = world.config();
    config.source = config.source.with_credentials(login("narrow")).unwrap();
    config.target = config.target.with_credentials(login("writer")).unwrap();
    let sync = Sync::start(config.clone());
    let report = sync.stalled(Reason::NotAuthorized).await;
    assert!(report.message.contains("clusterMonitor"), "{}", report.message);
    sync.stop().await;

    let fresh = world.config();
    config.source = fresh.source.with_credentials(login("reader")).unwrap();
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.coll("c").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    world.coll("new").insert_one(doc! {"_id": 1}).await.unwrap();
    let rename = doc! {"renameCollection": "rights.new", "to": "rights.newer"};
    world.source.database("admin").run_command(rename).await.unwrap();
    world.coll("newer").drop().await.unwrap();
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

/// A role of one's own that holds what is asked for in preflight, but not the right to read `local`.
#[tokio::test]
async fn without_the_right_to_read_local_a_sync_says_what_it_cannot_check() {
    let folder = Folder::new("keys");
    let (source, source_root) = guarded("nolocal", &folder).await;
    let (_, target) = shared().await;
    let everywhere = doc! {"resource": {"db": "", "collection": ""}, "actions": [
        "find", "changeStream", "listCollections", "listIndexes", "collStats",
    ]};
    let cluster = doc! {"resource": {"cluster": true}, "actions": ["listDatabases", "replSetGetConfig"]};
    let role = doc! {"createRole": "copier", "privileges": [everywhere, cluster], "roles": []};
    source_root.database("admin").run_command(role).await.unwrap();
    create_user(&source_root, "reader", &["copier"]).await;
    let world = World {
        source_uri: source.uri(),
        target_uri: target.uri(),
        source: source_root,
        target: target.client().await,
        db: "nolocal".to_owned(),
        avoid: Vec::new(),
    };
    world.fill("c", 300, 50).await;
    let mut config = world.config();
    config.source = config.source.with_credentials(login("reader")).unwrap();
    let sync = Sync::start(config.clone());
    sync.phase(Phase::Streaming).await;
    world.coll("c").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.unwrap();
    world.caught_up(&sync).await;
    let said = |report: &clustersync::sync::Report| {
        report.warnings.iter().any(|warning| warning.contains("may not read 'local'"))
    };
    assert!(said(&sync.report()), "{:?}", sync.report().warnings);
    sync.stop().await;
    // A resume cannot check either, goes on, and says so.
    let sync = Sync::start(config);
    sync.phase(Phase::Streaming).await;
    world.coll("c").delete_many(doc! {"n": {"$lt": 9}}).await.unwrap();
    world.caught_up(&sync).await;
    assert!(said(&sync.report()), "{:?}", sync.report().warnings);
    world.assert_identical(true).await;
    sync.stop().await;
}
