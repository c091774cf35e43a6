//! What the syncs of one process share: bytes in flight, and how many clone at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::Budget;
use super::context::{CLONE_BYTES, STREAM_BYTES, WRITE_BYTES};

/// Bounds over all syncs of a process. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Share {
    clones: Arc<Semaphore>,
    limit: usize,
    stream: Budget,
    write: Budget,
}

/// The right to clone; given back when dropped.
#[derive(Debug)]
pub struct CloneSlot {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The byte budgets of one sync, each within the process's.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// What the clone's queues may hold.
    pub clone: Budget,
    /// What the stream's queues may hold.
    pub stream: Budget,
    /// What commands on their way may hold.
    pub write: Budget,
}

impl Share {
    /// At most `clones` syncs clone at a time (at least one), and queues and commands of all hold about `bytes`.
    /// A sync that clones keeps its share of the stream's bytes until it has cloned: there is always more than
    /// that, so that the others go on.
    pub fn new(clones: usize, bytes: u64) -> Self {
        let clones = clones.max(1);
        let waiting = STREAM_BYTES * clones as u64;
        Self {
            clones: Arc::new(Semaphore::new(clones)),
            limit: clones,
            stream: Budget::new((bytes / 2).max(waiting + STREAM_BYTES)),
            write: Budget::new((bytes / 2).max(WRITE_BYTES)),
        }
    }

    /// For a process that runs one sync.
    pub fn single() -> Self {
        Self::new(1, 0)
    }

    /// How many syncs clone at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A slot, if one is free and nobody waits for it.
    pub fn try_clone_slot(&self) -> Option<CloneSlot> {
        let permit = Arc::clone(&self.clones).try_acquire_owned().ok()?;
        Some(CloneSlot { _permit: Some(permit) })
    }

    /// Wait for a slot; who asks first gets one first.
    pub async fn clone_slot(&self) -> CloneSlot {
        CloneSlot { _permit: Arc::clone(&self.clones).acquire_owned().await.ok() }
    }

    /// The budgets of one sync.
    pub fn budgets(&self) -> Budgets {
        Budgets {
            clone: Budget::new(CLONE_BYTES),
            stream: Budget::within(&self.stream, STREAM_BYTES),
            write: Budget::within(&self.write, WRITE_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clone_waits_for_one_of_the_slots() {
        let share = Share::new(2, 0);
        let first = share.clone_slot().await;
        let _second = share.clone_slot().await;
        assert!(share.try_clone_slot().is_none());
        assert!(timeout(Duration::from_secs(1), share.clone_slot()).await.is_err());
        drop(first);
        assert!(timeout(Duration::from_secs(1), share.clone_slot()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn syncs_that_wait_for_their_clone_leave_bytes_for_the_others() {
        let share = Share::new(3, 0);
        let cloning: Vec<Budgets> = (0..3).map(|_| share.budgets()).collect();
        let mut held = Vec::new();
        for budgets in &cloning {
            held.push(budgets.stream.reserve(STREAM_BYTES).await);
        }
        let streaming = share.budgets();
        assert!(timeout(Duration::from_secs(1), streaming.stream.reserve(STREAM_BYTES)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn commands_of_all_syncs_are_bounded_together() {
        let share = Share::new(1, 0);
        let (one, other) = (share.budgets(), share.budgets());
        let held = one.write.reserve(WRITE_BYTES).await;
        assert!(timeout(Duration::from_secs(1), other.write.reserve(WRITE_BYTES)).await.is_err());
        drop(held);
        assert!(timeout(Duration::from_secs(1), other.write.reserve(WRITE_BYTES)).await.is_ok());
    }
}
