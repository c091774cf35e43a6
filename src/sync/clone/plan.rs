//! Partitions: slices of a collection by `_id`, so that several readers share it and a restart repeats little.

use mongodb::bson::{RawDocumentBuf, doc};

use crate::sync::context::Context;
use crate::sync::endpoint::raw;
use crate::sync::error::Result;
use crate::sync::state::CollectionRecord;
use crate::sync::state::record::binary;
use crate::sync::state::slot::{PARTITION, PartitionRecord};

/// A collection below this is one partition.
const SMALL_BYTES: i64 = 16 << 20;

/// What a partition should hold: many times what its beginning and its end cost.
const PARTITION_BYTES: i64 = 16 << 20;

/// The last partitions are halves, so that readers which find none left do not wait long for the others.
const HALVES: usize = 8;

/// Partitions that a collection is divided into at most.
const MOST: usize = 256;

/// Samples for each half of a partition: the more, the more equal the partitions.
const OVERSAMPLE: i64 = 10;

/// Divide a collection.
pub async fn plan(ctx: &Context, record: &CollectionRecord) -> Result<Vec<PartitionRecord>> {
    let sizes = sizes(how_many(record.bytes, record.documents));
    let halves: usize = sizes.iter().sum();
    if sizes.len() <= 1 {
        return Ok(whole(ctx, record, false));
    }
    let namespace = record.source_namespace();
    let sample = doc! {
        "aggregate": &namespace.coll,
        "pipeline": [
            {"$sample": {"size": i64::try_from(halves).unwrap_or(1) * OVERSAMPLE}},
            {"$project": {"_id": 1}},
            {"$sort": {"_id": 1}},
        ],
        "cursor": {"batchSize": 100_000},
        "allowDiskUse": true,
    };
    let sample = ctx.source.collect(&namespace.db, sample).await?;
    let step = sample.len() / halves;
    if step == 0 {
        return Ok(whole(ctx, record, false));
    }
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end * step)
    });
    let mut bounds: Vec<RawDocumentBuf> =
        ends.take(sizes.len() - 1).filter_map(|end| raw::id_document(sample.get(end)?)).collect();
    bounds.dedup_by(|a, b| a.as_bytes() == b.as_bytes());
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

fn how_many(bytes: i64, documents: i64) -> usize {
    if bytes <= SMALL_BYTES || documents < 1_000 {
        return 1;
    }
    usize::try_from(bytes / PARTITION_BYTES).unwrap_or(MOST).clamp(8, MOST)
}

/// So many partitions, in halves of one.
fn sizes(partitions: usize) -> Vec<usize> {
    if partitions <= HALVES {
        return vec![2; partitions];
    }
    let whole = partitions - HALVES / 2;
    [vec![2; whole], vec![1; HALVES]].concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_collections_are_one_partition_and_large_ones_have_a_bound() {
        assert_eq!(how_many(0, 0), 1);
        assert_eq!(how_many(SMALL_BYTES + 1, 5), 1);
        assert_eq!(how_many(SMALL_BYTES + 1, 1_000_000), 8);
        assert_eq!(how_many(i64::MAX, i64::MAX), MOST);
    }

    #[test]
    fn the_last_partitions_are_halves_of_the_others() {
        assert_eq!(sizes(1), [2]);
        assert_eq!(sizes(8), [2; 8]);
        assert_eq!(sizes(9), [vec![2; 5], vec![1; 8]].concat());
        for partitions in 1..300 {
            assert_eq!(sizes(partitions).iter().sum::<usize>(), 2 * partitions, "of {partitions}");
        }
    }
}
