//! What a user asked for over a control API, kept beside the durable state: Kubernetes keeps wishes in resources, a
//! process by itself keeps them here, so that a restart goes on with what was asked. Opaque to the engine, and not
//! fenced: it changes nothing but what a process asks of its own sync.

use mongodb::bson::{Bson, Document, doc};

use super::store::Store;
use super::transaction::{write_error, write_failure};
use crate::sync::error::Result;

/// One document a sync.
pub const WISHES: &str = "wishes";

/// The last wish that was saved.
pub async fn load(store: &Store) -> Result<Option<Document>> {
    let found: Vec<Document> = store.find(WISHES, doc! {"_id": store.sync()}).await?;
    Ok(found.into_iter().next().and_then(|mut wish| match wish.remove("wish") {
        Some(Bson::Document(wish)) => Some(wish),
        _ => None,
    }))
}

/// Save a wish in place of the last, majority-committed.
pub async fn save(store: &Store, wish: Document) -> Result<()> {
    let command = doc! {
        "update": WISHES,
        "updates": [{"q": {"_id": store.sync()}, "u": {"_id": store.sync(), "wish": wish}, "upsert": true}],
        "writeConcern": {"w": "majority"},
    };
    let reply = store.target().command(store.db(), command).await?;
    match write_error(&reply) {
        None => Ok(()),
        Some(error) => Err(write_failure("the wish of the sync", &error)),
    }
}

/// Forget it.
pub async fn remove(store: &Store) -> Result<()> {
    let command = doc! {
        "delete": WISHES, "deletes": [{"q": {"_id": store.sync()}, "limit": 1}], "writeConcern": {"w": "majority"},
    };
    store.target().command(store.db(), command).await.map(|_| ())
}
