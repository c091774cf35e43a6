//! Where a collection can be divided by `_id`, as samples tell: into slices of a size, the last ones smaller.

use std::sync::{Mutex, PoisonError};

use mongodb::bson::{RawDocumentBuf, Uuid, doc};
use tokio_util::task::AbortOnDropHandle;

use super::read::Size;
use crate::sync::endpoint::{Endpoint, raw};
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;

/// A collection below this is not divided.
const SMALL_BYTES: i64 = 16 << 20;

/// What a whole slice should hold: many times what its beginning and its end cost.
const SLICE_BYTES: i64 = 16 << 20;

/// Documents that a whole slice has at least.
const SLICE_DOCUMENTS: i64 = 100;

/// Quarters of a slice: what slices are measured in.
const QUARTERS: usize = 4;

/// The last slices are halves, then quarters, so that readers which find none left do not wait long for the others.
const LAST: [usize; 12] = [2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1];

/// Slices of a collection at most, but that the last are parts.
const MOST: usize = 256;

/// Samples for each quarter of a slice: the more, the more equal the slices.
const OVERSAMPLE: i64 = 10;

/// The share of a collection's documents above which the server would not pick the samples, but read everything and
/// sort it: a twentieth (docs of `$sample`). Below that, since the number of documents is an estimate.
const SAMPLED_SHARE: i64 = 22;

/// Whether it is worth to divide a collection of this size.
pub fn is_divided(size: Size) -> bool {
    how_many(size) > 1
}

/// The bounds between the slices of a collection, as `{_id: …}`, in order; none: it stays whole.
pub async fn find(source: &Endpoint, namespace: &Namespace, size: Size) -> Result<Vec<RawDocumentBuf>> {
    let slices = slices(how_many(size));
    let quarters: usize = slices.iter().sum();
    if slices.len() <= 1 {
        return Ok(Vec::new());
    }
    let samples = i64::try_from(quarters).unwrap_or(1) * OVERSAMPLE;
    let sample = doc! {
        "aggregate": &namespace.coll,
        "pipeline": [
            {"$sample": {"size": samples.min(size.documents / SAMPLED_SHARE)}},
            {"$project": {"_id": 1}},
            {"$sort": {"_id": 1}},
        ],
        "cursor": {"batchSize": 100_000},
        "allowDiskUse": true,
    };
    let sample = source.collect(&namespace.db, sample).await?;
    let mut bounds: Vec<RawDocumentBuf> =
        ends(&slices, sample.len()).filter_map(|end| raw::id_document(sample.get(end)?)).collect();
    bounds.dedup_by(|a, b| a.as_bytes() == b.as_bytes());
    Ok(bounds)
}

/// Which of so many samples end the slices, but for the last.
fn ends(slices: &[usize], samples: usize) -> impl Iterator<Item = usize> {
    let quarters: usize = slices.iter().sum();
    let ends = slices.iter().scan(0, |end, quarters| {
        *end += quarters;
        Some(*end)
    });
    // Samples are too few for a bound of their own each where the server has few documents to pick from.
    ends.take(slices.len() - 1).map(move |end| end * samples / quarters).skip_while(|end| *end == 0)
}

fn how_many(size: Size) -> usize {
    if size.bytes <= SMALL_BYTES || size.documents < 1_000 {
        return 1;
    }
    let slices = (size.bytes / SLICE_BYTES).min(size.documents / SLICE_DOCUMENTS);
    usize::try_from(slices).unwrap_or(MOST).clamp(4, MOST)
}

/// The quarters of each slice, where so many whole ones are asked for.
fn slices(whole: usize) -> Vec<usize> {
    if whole <= 1 {
        return vec![QUARTERS];
    }
    let before = whole.saturating_sub(LAST.iter().sum::<usize>() / QUARTERS);
    let mut slices = vec![QUARTERS; before];
    slices.extend(LAST);
    slices
}

/// Bounds of one collection that are looked for before its turn; nobody looks any more when it is dropped.
#[derive(Debug, Default)]
pub struct Early(Mutex<Option<(Uuid, Looking)>>);

type Looking = AbortOnDropHandle<Result<Vec<RawDocumentBuf>>>;

impl Early {
    /// Begin to look.
    pub fn look(source: &Endpoint, collection: Uuid, namespace: Namespace, size: Size) -> Self {
        let source = source.clone();
        let found = tokio::spawn(async move { find(&source, &namespace, size).await });
        Self(Mutex::new(Some((collection, AbortOnDropHandle::new(found)))))
    }

    /// What was found, once; none if nobody looked for those of this collection, or could not: who has its turn looks again.
    pub async fn take(&self, collection: Uuid) -> Option<Vec<RawDocumentBuf>> {
        let looking =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(of, _)| *of == collection);
        looking?.1.await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: i64, documents: i64) -> usize {
        how_many(Size { documents, bytes })
    }

    #[test]
    fn small_collections_stay_whole_and_large_ones_have_a_bound() {
        assert_eq!(asked(0, 0), 1);
        assert_eq!(asked(SMALL_BYTES + 1, 5), 1);
        assert_eq!(asked(SMALL_BYTES + 1, 1_000_000), 4);
        assert_eq!(asked(i64::MAX, i64::MAX), MOST);
    }

    #[test]
    fn the_last_slices_are_parts_of_the_others() {
        assert_eq!(slices(1), [4]);
        assert_eq!(slices(6), [4, 4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
        for whole in 4..300 {
            assert_eq!(slices(whole).iter().sum::<usize>(), QUARTERS * whole, "of {whole}");
        }
    }

    #[test]
    fn no_slice_is_larger_than_its_share_by_more_than_a_sample_however_few_there_are() {
        for documents in (1_000..60_000).step_by(77) {
            let slices = slices(asked(i64::MAX, documents));
            let quarters: usize = slices.iter().sum();
            let samples = usize::try_from(documents / SAMPLED_SHARE).unwrap();
            assert!(samples >= quarters, "{documents} documents, {quarters} quarters");
            let mut from = 0;
            for (share, end) in slices.iter().zip(ends(&slices, samples).chain([samples])) {
                assert!(from < end, "{documents} documents: an empty slice");
                assert!(
                    (end - from) * quarters <= share * samples + quarters,
                    "{documents} documents: {share}"
                );
                from = end;
            }
        }
    }
}
