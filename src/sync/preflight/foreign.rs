//! The durable state of other syncs on the source, of those that wrote to it: it belongs to them and never travels.

use mongodb::bson::doc;

use crate::sync::catalog::listing;
use crate::sync::endpoint::identity::Identity;
use crate::sync::endpoint::{Endpoint, raw};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::scope::SYSTEM_DATABASES;
use crate::sync::state::store::SYNCS;

/// The databases in which some sync keeps its state.
pub async fn state_databases(source: &Endpoint) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for db in listing::databases(source).await? {
        if !SYSTEM_DATABASES.contains(&db.as_str()) && holds_state(source, &db).await? {
            found.push(db);
        }
    }
    Ok(found)
}

/// Refuse a loop: a sync recorded in one of `databases` on the source that writes to the source from our target.
pub async fn check_loop(source: &Endpoint, databases: &[String], target: &Identity) -> Result<()> {
    let find = doc! {
        "find": SYNCS,
        "filter": {"source.setId": &target.set_id, "stage": {"$nin": ["Planning", "Restoring", "Completed"]}},
        "projection": {"_id": 1},
        "limit": 1,
    };
    for db in databases {
        let found = source.collect_from_primary(db, find.clone()).await?;
        if let Some(id) = found.first().and_then(|opposite| raw::get(opposite, "_id")?.as_str()) {
            let what = format!("sync '{id}' (its state is in {db}) writes from this target to this source");
            return Err(Error::new(Reason::SyncLoop, what));
        }
    }
    Ok(())
}

async fn holds_state(source: &Endpoint, db: &str) -> Result<bool> {
    let number = doc! {"$type": "number"};
    let find = doc! {
        "find": SYNCS,
        "filter": {
            "format": &number, "epoch": &number, "writes": &number,
            "source.setId": {"$exists": true}, "target.setId": {"$exists": true},
        },
        "projection": {"_id": 1},
        "limit": 1,
    };
    Ok(!source.collect_from_primary(db, find).await?.is_empty())
}
