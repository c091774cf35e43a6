//! A byte budget: queues take a share before they hold something and give it back when they let go.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes to one permit: a semaphore counts in 32 bits, and a kilobyte is exact enough.
const UNIT: u64 = 1 << 10;

/// Bytes that may be held at a time. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    units: u32,
    within: Option<Arc<Budget>>,
}

/// A share of a budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    _permit: Option<OwnedSemaphorePermit>,
    _within: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from((bytes / UNIT).max(1)).unwrap_or(u32::MAX >> 4);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, within: None }
    }

    /// A budget of `bytes` whose shares count against `whole` too.
    pub fn within(whole: &Budget, bytes: u64) -> Self {
        Self { within: Some(Arc::new(whole.clone())), ..Self::new(bytes) }
    }

    /// Wait for a share of `bytes`, first come, first served. More than the whole budget is granted when nothing
    /// else is held, so that the largest document always passes.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let own = self.acquire(bytes).await;
        let within = match &self.within {
            Some(whole) => whole.acquire(bytes).await,
            None => None,
        };
        Reservation { _permit: own, _within: within }
    }

    async fn acquire(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.permits).acquire_many_owned(units).await.ok()
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        (u64::from(self.units) - self.permits.available_permits() as u64) * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_share_waits_until_another_is_given_back() {
        let budget = Budget::new(10 * UNIT);
        let first = budget.reserve(8 * UNIT).await;
        assert_eq!(budget.used(), 8 * UNIT);
        assert!(timeout(Duration::from_secs(1), budget.reserve(4 * UNIT)).await.is_err());
        drop(first);
        assert!(timeout(Duration::from_secs(1), budget.reserve(4 * UNIT)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_everything_passes_alone() {
        let budget = Budget::new(10 * UNIT);
        let small = budget.reserve(1).await;
        assert!(timeout(Duration::from_secs(1), budget.reserve(100 * UNIT)).await.is_err());
        drop(small);
        let large = timeout(Duration::from_secs(1), budget.reserve(100 * UNIT)).await;
        assert!(large.is_ok());
        assert!(timeout(Duration::from_secs(1), budget.reserve(1)).await.is_err());
    }
}
