//! A sync's hold on its target namespaces: two syncs never write into one collection.

use std::collections::BTreeSet;

use mongodb::bson::{Document, doc};

use super::record::{Stage, SyncRecord};
use super::store::{CLAIMS, SYNCS, Store};
use super::transaction::Operation;
use crate::sync::endpoint::failure;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::scope::Scope;

/// An operation that claims `namespaces`; it fails the transaction if one of them is held.
pub fn claim(store: &Store, namespaces: &[Namespace]) -> Result<Operation> {
    let documents: Vec<Document> =
        namespaces.iter().map(|ns| doc! {"_id": ns.to_string(), "sync": store.sync()}).collect();
    Operation::new(store.db(), &doc! {"insert": CLAIMS, "documents": documents})
}

/// An operation that gives namespaces back.
pub fn release(store: &Store, namespaces: &[Namespace]) -> Result<Operation> {
    let names: Vec<String> = namespaces.iter().map(ToString::to_string).collect();
    store.remove(CLAIMS, doc! {"_id": {"$in": names}})
}

/// Turn the duplicate key of a claim into who holds it.
pub async fn explain(store: &Store, namespaces: &[Namespace], error: Error) -> Error {
    if error.code() != Some(failure::DUPLICATE_KEY) {
        return error;
    }
    match check(store, namespaces).await {
        Err(in_use) => in_use,
        Ok(()) => error.as_reason(Reason::Interrupted),
    }
}

/// Fail with `TargetInUse` if another sync holds one of `namespaces`, or would write to it.
pub async fn check(store: &Store, namespaces: &[Namespace]) -> Result<()> {
    let names: BTreeSet<String> = namespaces.iter().map(ToString::to_string).collect();
    let held: Vec<Document> = store.find(CLAIMS, doc! {"sync": {"$ne": store.sync()}}).await?;
    for claim in held {
        let (Ok(namespace), Ok(sync)) = (claim.get_str("_id"), claim.get_str("sync")) else { continue };
        if names.contains(namespace) {
            return Err(in_use(namespace, sync));
        }
    }
    let others: Vec<SyncRecord> = store.find(SYNCS, doc! {"_id": {"$ne": store.sync()}}).await?;
    for other in others {
        if matches!(other.stage, Stage::Planning | Stage::Completed | Stage::Restoring) {
            continue;
        }
        let Ok(scope) = Scope::new(&other.include, &other.exclude) else { continue };
        if let Some(taken) = namespaces.iter().find(|ns| scope.contains(&ns.db, &ns.coll)) {
            return Err(in_use(&taken.to_string(), &other.id));
        }
    }
    Ok(())
}

fn in_use(namespace: &str, sync: &str) -> Error {
    Error::new(Reason::TargetInUse, format!("the target's {namespace} belongs to sync '{sync}'"))
}
