//! Which collections and partitions are copied at a time. Small collections are bound by round trips: many at a time.
//! Large ones go one after another, each with every reader that it can use: the stream waits for those that are begun,
//! so that as few as possible are.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::partition::{self, Outcome};
use super::{begin, done, gone, restart};
use crate::sync::catalog::Collection;
use crate::sync::config::InitialSync;
use crate::sync::context::Context;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::state::record::Copied;

/// Collections in flight when the user does not say: enough small ones to keep the servers busy.
const AUTO_COLLECTIONS: usize = 32;

/// Small collections that are announced together: after a crash, the stream may wait for so many more.
const ANNOUNCED: usize = 64;

/// Partitions in flight over all large collections when the user does not say, at most: no more than the target works on.
const AUTO_READERS: usize = 4;

/// What may be in flight at a time. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Places {
    collections: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    readers_of_one: usize,
    writers: Arc<Semaphore>,
}

impl Places {
    /// As the user asked, or as is good where the target works on so many batches at a time.
    pub fn new(asked: &InitialSync, at_a_time: usize) -> Self {
        let or = |asked: usize, automatic: usize| if asked == 0 { automatic } else { asked };
        let automatic = AUTO_READERS.min(at_a_time);
        let readers_of_one = or(asked.readers_per_collection, automatic);
        let readers = match asked.parallel_collections {
            0 => readers_of_one.max(automatic),
            collections => collections * readers_of_one,
        };
        // Who asks for more readers wants what they read to be written.
        let writers = if readers > automatic { at_a_time.max(readers) } else { at_a_time };
        Self {
            collections: Arc::new(Semaphore::new(or(asked.parallel_collections, AUTO_COLLECTIONS))),
            readers: Arc::new(Semaphore::new(readers)),
            readers_of_one,
            writers: Arc::new(Semaphore::new(writers)),
        }
    }

    async fn collection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.collections).acquire_owned().await.ok()
    }

    async fn reader(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).acquire_owned().await.ok()
    }
}

/// Copy these collections; false if told to stop before the end.
pub async fn copy_all(
    ctx: &Context,
    collections: Vec<Arc<Collection>>,
    places: &Places,
    cancel: &CancellationToken,
) -> Result<bool> {
    let is_small = |collection: &Arc<Collection>| collection.record().bytes <= begin::INDEX_FIRST_BYTES;
    let (small, large): (Vec<_>, Vec<_>) = collections.into_iter().partition(is_small);
    let turns = Arc::new(Mutex::new(()));
    let (small, large) = tokio::try_join!(
        copy_each(ctx, small, places, None, cancel),
        copy_each(ctx, large, places, Some(&turns), cancel),
    )?;
    Ok(small && large)
}

/// As there are places. With `turns`, each begins when every partition of the one before it has a reader.
async fn copy_each(
    ctx: &Context,
    collections: Vec<Arc<Collection>>,
    places: &Places,
    turns: Option<&Arc<Mutex<()>>>,
    cancel: &CancellationToken,
) -> Result<bool> {
    let mut copies = JoinSet::new();
    for (number, collection) in collections.iter().enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        if turns.is_none() && number % ANNOUNCED == 0 {
            begin::announce(ctx, &collections[number..collections.len().min(number + ANNOUNCED)]).await?;
        }
        let turn = match turns {
            Some(turns) => Some(Arc::clone(turns).lock_owned().await),
            None => None,
        };
        // The reader last: who has a place, and turns out to be large, waits for one.
        let place = places.collection().await;
        let turn = match turn {
            Some(turn) => Some((turn, places.reader().await)),
            None => None,
        };
        while let Some(ended) = copies.try_join_next() {
            flat(ended)?;
        }
        if cancel.is_cancelled() {
            break;
        }
        let (ctx, places, cancel) = (ctx.clone(), places.clone(), cancel.clone());
        let collection = Arc::clone(collection);
        copies.spawn(async move {
            let _place = place;
            Box::pin(copy(&ctx, &collection, &places, turn, &cancel)).await
        });
    }
    let mut all = !cancel.is_cancelled();
    while let Some(ended) = copies.join_next().await {
        all &= flat(ended)?;
    }
    Ok(all)
}

/// The turn to begin a large collection, with a reader for its first partition.
type Turn = (OwnedMutexGuard<()>, Option<OwnedSemaphorePermit>);

/// Copy one; false if told to stop before its end.
async fn copy(
    ctx: &Context,
    collection: &Arc<Collection>,
    places: &Places,
    turn: Option<Turn>,
    cancel: &CancellationToken,
) -> Result<bool> {
    let Some(mut partitions) = Box::pin(begin::begin(ctx, collection)).await? else {
        return gone(ctx, collection).await.map(|()| true);
    };
    partitions.retain(|partition| !partition.done);
    let waits = turn.is_some() || partitions.len() > 1;
    let (turn, mut first) = turn.map_or((None, None), |(turn, reader)| (Some(turn), reader));
    let own = Arc::new(Semaphore::new(places.readers_of_one));
    let mut tasks = JoinSet::new();
    let mut ends = Ends::default();
    for partition in partitions {
        let held = async {
            let own = Arc::clone(&own).acquire_owned().await.ok();
            let reader = match first.take() {
                None if waits => places.reader().await,
                first => first,
            };
            (own, reader)
        };
        tokio::pin!(held);
        let held = loop {
            tokio::select! {
                held = &mut held => break held,
                Some(ended) = tasks.join_next() => ends.add(flat(ended)?),
            }
        };
        if cancel.is_cancelled() {
            ends.stopped = true;
            break;
        }
        let (ctx, collection, cancel) = (ctx.clone(), Arc::clone(collection), cancel.clone());
        let writers = Arc::clone(&places.writers);
        tasks.spawn(async move {
            let _held = held;
            Box::pin(partition::copy(&ctx, &collection, partition, &writers, &cancel)).await
        });
    }
    drop((turn, first));
    while let Some(ended) = tasks.join_next().await {
        ends.add(flat(ended)?);
    }
    if ends.stopped {
        return Ok(false);
    }
    if ends.vanished {
        gone(ctx, collection).await?;
    } else if ends.broken {
        tracing::info!(
            namespace = collection.record().source,
            "a scan in natural order was interrupted: again"
        );
        restart(ctx, collection).await?;
    } else {
        done(ctx, collection, ends.whole).await?;
    }
    Ok(true)
}

/// How the partitions of a collection ended.
#[derive(Debug, Default)]
struct Ends {
    vanished: bool,
    stopped: bool,
    broken: bool,
    whole: Option<Copied>,
}

impl Ends {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Copied => {}
            Outcome::CopiedWhole(copied) => self.whole = Some(copied),
            Outcome::Gone => self.vanished = true,
            Outcome::Stopped => self.stopped = true,
            Outcome::Broken => self.broken = true,
        }
    }
}

fn flat<T>(ended: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    ended.unwrap_or_else(|panic| Err(Error::new(Reason::Internal, format!("a copy ended: {panic}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions of one collection, of all, and batches that are written at a time.
    fn at_a_time(asked: &InitialSync, on_target: usize) -> [usize; 3] {
        let places = Places::new(asked, on_target);
        [places.readers_of_one, places.readers.available_permits(), places.writers.available_permits()]
    }

    #[test]
    fn as_many_partitions_are_copied_as_the_target_can_take_unless_the_user_says_more() {
        assert_eq!(at_a_time(&InitialSync::default(), 3), [3, 3, 3]);
        assert_eq!(at_a_time(&InitialSync::default(), 17), [AUTO_READERS, AUTO_READERS, 17]);
        let asked = InitialSync { readers_per_collection: 8, ..InitialSync::default() };
        assert_eq!(at_a_time(&asked, 3), [8, 8, 8]);
        let asked = InitialSync { parallel_collections: 2, ..InitialSync::default() };
        assert_eq!(at_a_time(&asked, 3), [3, 6, 6]);
        let asked = InitialSync { readers_per_collection: 1, ..InitialSync::default() };
        assert_eq!(at_a_time(&asked, 3), [1, 3, 3]);
    }
}
