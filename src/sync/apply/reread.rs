//! Reading one document again from the source: the answer to an error inside a replay window.

use mongodb::bson::{Bson, RawDocumentBuf, Timestamp, doc};

use crate::sync::catalog::{Collection, read};
use crate::sync::clone::source_time;
use crate::sync::context::Context;
use crate::sync::endpoint::cursor::Fetch;
use crate::sync::endpoint::{failure, raw};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;

/// The document with that key, or none, as of the returned time, which is at or after `not_before`.
pub async fn reread(
    ctx: &Context,
    collection: &Collection,
    key: &[u8],
    not_before: Timestamp,
) -> Result<(Option<Vec<u8>>, Timestamp)> {
    let id: Bson = raw::document(key)
        .and_then(|key| key.get("_id").ok().flatten())
        .and_then(|id| Bson::try_from(id).ok())
        .ok_or_else(|| Error::new(Reason::Internal, "an event's documentKey has no _id"))?;
    let mut namespace = collection.record().source_namespace();
    loop {
        match find(ctx, collection, &namespace, &id, not_before).await {
            // The source may be ahead of us: renamed since, or dropped. Only the UUID tells.
            Err(error)
                if matches!(
                    error.code(),
                    Some(
                        failure::NAMESPACE_NOT_FOUND
                            | failure::COLLECTION_UUID_MISMATCH
                            | failure::QUERY_PLAN_KILLED
                    )
                ) =>
            {
                let now = source_time(ctx).await?.max(not_before);
                match read::locate(&ctx.source, collection.uuid, now).await? {
                    Some(present) => namespace = present,
                    // Nothing that happened to it up to now has left anything.
                    None => return Ok((None, now)),
                }
            }
            other => return other,
        }
    }
}

async fn find(
    ctx: &Context,
    collection: &Collection,
    namespace: &Namespace,
    id: &Bson,
    not_before: Timestamp,
) -> Result<(Option<Vec<u8>>, Timestamp)> {
    let command = doc! {
        "find": &namespace.coll,
        "filter": {"_id": {"$eq": id.clone()}},
        "collectionUUID": collection.uuid,
        "limit": 1,
        "readConcern": {"level": "majority", "afterClusterTime": not_before},
    };
    let command = RawDocumentBuf::try_from(&command)
        .map_err(|error| Error::new(Reason::Internal, format!("a command cannot be encoded: {error}")))?;
    let mut cursor = ctx.source.cursor(&namespace.db, command, Fetch::default()).await?;
    let mut time = not_before;
    while let Some(batch) = cursor.next().await? {
        time = time.max(batch.operation_time().unwrap_or(not_before));
        if let Some(document) = batch.documents().next() {
            return Ok((Some(document.to_vec()), time));
        }
    }
    Ok((None, time))
}
