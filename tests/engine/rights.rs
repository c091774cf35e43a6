//! With access control: the documented rights are enough, and what is missing is named.

use std::os::unix::fs::PermissionsExt;

use clustersync::sync::endpoint::Credentials;
use clustersync::sync::{DesiredState, Phase, Reason};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, IndexOptions};

use crate::clone::index;
use crate::lab::mongod::{Options, ReplicaSet};
use crate::lab::process::Folder;
use crate::world::{Sync, World};

const PASSWORD: &str = "correct-horse";

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
    let key = folder.0.join("key");
    std::fs::write(&key, "c2hhcmVkLWJ5LXRoZS1tZW1iZXJz").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut options = Options::new(name);
    options.extra = vec!["--auth".to_owned(), "--keyFile".to_owned(), key.display().to_string()];
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
