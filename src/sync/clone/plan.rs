//! Partitions: slices of a collection by `_id`, so that several readers share it and a restart repeats little.

use mongodb::bson::RawDocumentBuf;

use crate::sync::catalog::bounds;
use crate::sync::catalog::read::Size;
use crate::sync::context::Context;
use crate::sync::error::Result;
use crate::sync::state::CollectionRecord;
use crate::sync::state::record::binary;
use crate::sync::state::slot::{PARTITION, PartitionRecord};

/// Divide a collection.
pub async fn plan(ctx: &Context, record: &CollectionRecord) -> Result<Vec<PartitionRecord>> {
    let bounds = if let Some(found) = ctx.early.take(record.uuid).await {
        found
    } else {
        let size = Size { documents: record.documents, bytes: record.bytes };
        bounds::find(&ctx.source, &record.source_namespace(), size).await?
    };
    if bounds.is_empty() {
        return Ok(whole(ctx, record, false));
    }
    let mut planned = Vec::with_capacity(bounds.len() + 1);
    let mut lower: Option<RawDocumentBuf> = None;
    for upper in bounds.into_iter().map(Some).chain([None]) {
        planned.push(partition(ctx, record, planned.len(), lower.as_ref(), upper.as_ref()));
        lower = upper;
    }
    Ok(planned)
}

/// One partition for all of it, which is recorded when a batch shows that more follow. A capped collection's always is: no
/// transaction may write to it, and its progress is recorded after the fact.
pub fn whole(ctx: &Context, record: &CollectionRecord, capped: bool) -> Vec<PartitionRecord> {
    vec![PartitionRecord { unrecorded: !capped, ..partition(ctx, record, 0, None, None) }]
}

fn partition(
    ctx: &Context,
    record: &CollectionRecord,
    number: usize,
    lower: Option<&RawDocumentBuf>,
    upper: Option<&RawDocumentBuf>,
) -> PartitionRecord {
    PartitionRecord {
        id: PartitionRecord::key(ctx.store.sync(), record.uuid, &number.to_string()),
        sync: ctx.store.sync().to_owned(),
        kind: PARTITION.to_owned(),
        collection: record.uuid,
        epoch: ctx.store.epoch(),
        seq: 0,
        lower: lower.map(|bound| binary(bound.as_bytes())),
        upper: upper.map(|bound| binary(bound.as_bytes())),
        last: None,
        documents: 0,
        bytes: 0,
        done: false,
        unrecorded: false,
    }
}
