//! Who may write: the owner document. Its age is judged by the target's clock, never by ours.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};

use super::store::{OWNERS, SLOTS, SYNCS, Store};
use super::transaction::Session;
use crate::sync::config::Holder;
use crate::sync::endpoint::failure;
use crate::sync::error::{Error, Reason, Result};

/// How long an owner that does not renew is left alone. Longer than an election of the target takes, so that a
/// failover does not look like a dead owner.
pub const OWNER_TTL: Duration = Duration::from_secs(10);

/// How often an owner renews: four chances within [`OWNER_TTL`].
pub const RENEW_INTERVAL: Duration = Duration::from_millis(2_500);

/// Take the sync: raises the epoch everywhere before anything is read. Fails with `OwnedElsewhere` while a fresh
/// owner holds it.
pub async fn acquire(store: Store, holder: &Holder) -> Result<Store> {
    let session = Session::open(store.target()).await?;
    let (epoch, former) = take(&store, holder, session.id()).await?;
    raise(&store, epoch, former).await?;
    store.owned(epoch, session)
}

/// The new epoch, and the former owner's session.
async fn take(store: &Store, holder: &Holder, session: &Document) -> Result<(i64, Option<Bson>)> {
    let target = store.target();
    let ttl = i64::try_from(OWNER_TTL.as_millis()).unwrap_or(i64::MAX);
    let mut may_take = vec![
        doc! {"holder": &holder.id},
        doc! {"holder": ""},
        doc! {"$expr": {"$lt": ["$renewedAt", {"$dateSubtract": {"startDate": "$$NOW", "unit": "millisecond", "amount": ttl}}]}},
    ];
    if let Some(term) = &holder.term {
        may_take.push(doc! {"lease": &term.lease, "term": {"$lt": term.term}});
    }
    let fields = |epoch: Bson| {
        let (lease, term) =
            holder.term.as_ref().map_or((String::new(), 0), |term| (term.lease.clone(), term.term));
        doc! {"epoch": epoch, "holder": {"$literal": &holder.id}, "lease": {"$literal": lease}, "term": term,
        "session": {"$literal": session.clone()}, "renewedAt": "$$NOW"}
    };
    let raise = doc! {
        "findAndModify": OWNERS,
        "query": {"_id": store.sync(), "$or": may_take},
        "update": [{"$set": fields(doc! {"$add": ["$epoch", 1_i64]}.into())}],
        "new": false,
        "writeConcern": {"w": "majority"},
    };
    let reply = target.command(store.db(), raise).await?;
    if let Ok(former) = reply.get_document("value") {
        let epoch = former.get_i64("epoch").map_err(|_| {
            Error::new(
                Reason::StateMismatch,
                format!("the owner document of '{}' has no epoch", store.sync()),
            )
        })?;
        return Ok((epoch + 1, former.get("session").cloned()));
    }
    // The target's time, in milliseconds: where the state was deleted and begins anew, the epochs of before, which an owner
    // that froze then may still hold, must not come again.
    let first = doc! {"$toLong": "$$NOW"};
    let create = doc! {
        "findAndModify": OWNERS,
        "query": {"_id": store.sync(), "epoch": {"$exists": false}},
        "update": [{"$set": fields(first.into())}],
        "upsert": true,
        "new": true,
        "writeConcern": {"w": "majority"},
    };
    match target.command(store.db(), create).await {
        Ok(reply) => {
            let epoch = reply.get_document("value").ok().and_then(|owner| owner.get_i64("epoch").ok());
            let unread = || Error::new(Reason::Internal, "the owner document was created without an epoch");
            Ok((epoch.ok_or_else(unread)?, None))
        }
        Err(error) if error.code() == Some(failure::DUPLICATE_KEY) => Err(held(store).await),
        Err(error) => Err(error.context("the owner document")),
    }
}

async fn held(store: &Store) -> Error {
    let owner = store.find::<Document>(OWNERS, doc! {"_id": store.sync()}).await.unwrap_or_default();
    let holder = owner.first().and_then(|owner| owner.get_str("holder").ok()).unwrap_or("another process");
    Error::new(Reason::OwnedElsewhere, format!("sync '{}' is held by {holder}", store.sync()))
}

/// Raise the epoch in the sync's document and in every slot. An old owner's open transaction would make this wait,
/// so its sessions are killed first.
async fn raise(store: &Store, epoch: i64, former: Option<Bson>) -> Result<()> {
    let mut last = None;
    for _ in 0..10 {
        kill_sessions(store, former.as_ref()).await?;
        let sync = doc! {"q": {"_id": store.sync()}, "u": {"$set": {"epoch": epoch}}};
        let slots = doc! {"q": {"sync": store.sync()}, "u": {"$set": {"epoch": epoch}}, "multi": true};
        let raised = match raise_in(store, SYNCS, sync).await {
            Ok(()) => raise_in(store, SLOTS, slots).await,
            Err(error) => Err(error),
        };
        match raised {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| store.lost()))
}

async fn raise_in(store: &Store, collection: &str, update: Document) -> Result<()> {
    let raise = doc! {
        "update": collection, "updates": [update], "maxTimeMS": 2_000, "writeConcern": {"w": "majority"},
    };
    let reply = store.target().command(store.db(), raise).await?;
    match super::transaction::write_error(&reply) {
        None => Ok(()),
        Some(error) => Err(super::transaction::write_failure("the durable state", &error)),
    }
}

async fn kill_sessions(store: &Store, former: Option<&Bson>) -> Result<()> {
    let slots = store
        .find_latest::<Document>(SLOTS, doc! {"sync": store.sync(), "session": {"$exists": true}})
        .await?;
    let mut sessions: Vec<Bson> = former.cloned().into_iter().collect();
    for slot in slots {
        if let Some(session) = slot.get("session").filter(|session| !sessions.contains(session)) {
            sessions.push(session.clone());
        }
    }
    if sessions.is_empty() {
        return Ok(());
    }
    // Everyone may kill sessions of their own user; another user's transaction ends by its lifetime limit.
    if let Err(error) = store.target().command("admin", doc! {"killSessions": sessions}).await {
        tracing::debug!(%error, "the former owner's sessions were not killed");
    }
    Ok(())
}

/// Say that we are alive. Fails with `OwnershipLost` when overtaken.
pub async fn renew(store: &Store) -> Result<()> {
    let renew = doc! {
        "update": OWNERS,
        "updates": [{"q": {"_id": store.sync(), "epoch": store.epoch()}, "u": [{"$set": {"renewedAt": "$$NOW"}}]}],
    };
    let reply = store.target().command(store.db(), renew).await?;
    if reply.get_i32("n").ok() == Some(1) { Ok(()) } else { Err(store.lost()) }
}

/// Give the sync up, so that the next owner need not wait.
pub async fn release(store: &Store) -> Result<()> {
    let release = doc! {
        "update": OWNERS,
        "updates": [{"q": {"_id": store.sync(), "epoch": store.epoch()}, "u": {"$set": {"holder": ""}}}],
        "writeConcern": {"w": "majority"},
    };
    store.target().command(store.db(), release).await.map(|_| ())
}

/// Remove the owner document, last of all.
pub async fn remove(store: &Store) -> Result<()> {
    let remove = doc! {
        "delete": OWNERS,
        "deletes": [{"q": {"_id": store.sync(), "epoch": store.epoch()}, "limit": 1}],
        "writeConcern": {"w": "majority"},
    };
    store.target().command(store.db(), remove).await.map(|_| ())
}
