//! The recorded catalogue, and the sums of what earlier runs copied of it.

use std::sync::Arc;

use mongodb::bson::doc;

use crate::sync::catalog::{Catalog, Collection};
use crate::sync::error::Result;
use crate::sync::progress::Progress;
use crate::sync::state::record::Copied;
use crate::sync::state::slot::{PARTITION, PartitionRecord};
use crate::sync::state::store::SLOTS;
use crate::sync::state::{CollectionState, Store, SyncRecord};

/// What is recorded of collections and views; `progress` begins anew with their sums.
pub async fn catalog(store: &Store, record: &SyncRecord, progress: &Arc<Progress>) -> Result<Arc<Catalog>> {
    let collections = store.collections().await?;
    progress.restart();
    progress.collections_total.set(collections.len() as u64);
    let checkpoint = record.checkpoint.as_ref().map(|checkpoint| checkpoint.time);
    progress.update_times(|times| (times.applied, times.checkpoint) = (checkpoint, checkpoint));
    for collection in &collections {
        progress.documents_total.add(u64::try_from(collection.documents).unwrap_or(0));
        progress.bytes_total.add(u64::try_from(collection.bytes).unwrap_or(0));
        if collection.state == CollectionState::Cloned {
            progress.collections_done.add(1);
        }
    }
    let catalog = Arc::new(Catalog::new(collections, store.views().await?));
    add_finished(store, &catalog, progress).await?;
    progress.follow(&catalog);
    tracing::debug!(stage = ?record.stage, "resuming");
    Ok(catalog)
}

/// The sums of what earlier runs finished, with partitions and without: no task will report them.
async fn add_finished(store: &Store, catalog: &Catalog, progress: &Progress) -> Result<()> {
    let add = |copied: Copied, collection: Option<Arc<Collection>>| {
        let documents = u64::try_from(copied.documents).unwrap_or(0);
        let bytes = u64::try_from(copied.bytes).unwrap_or(0);
        progress.documents.add(documents);
        progress.bytes.add(bytes);
        let Some(collection) = collection else { return };
        collection.found(documents, bytes);
        if collection.state() == CollectionState::Cloned {
            progress.partitions_total.add(1);
            progress.partitions_done.add(1);
        }
    };
    let filter = doc! {"sync": store.sync(), "kind": PARTITION, "done": true};
    for partition in store.find_latest::<PartitionRecord>(SLOTS, filter).await? {
        let copied = Copied { documents: partition.documents, bytes: partition.bytes };
        add(copied, catalog.get(partition.collection));
    }
    for collection in catalog.all() {
        let whole = collection.record().whole;
        if let Some(copied) = whole {
            add(copied, Some(collection));
        }
    }
    Ok(())
}
