//! A limit of bytes a second, as a debt: what is taken now is paid for before the next.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How much may be taken at once after a rest: small, so that the limit holds over short times too.
const BURST: Duration = Duration::from_millis(250);

/// What one take may cost at most: a batch has 16 MB, so only a limit of some bytes a second comes here.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Limits a rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When everything taken so far is paid for.
    paid: Mutex<Instant>,
}

impl Throttle {
    /// `0` means no limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(Instant::now()) }
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.bytes_per_second > 0
    }

    /// Wait until `bytes` may be taken; who asks first goes first.
    #[allow(clippy::cast_precision_loss)]
    pub async fn take(&self, bytes: u64) {
        if !self.is_limited() {
            return;
        }
        let mut paid = self.paid.lock().await;
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = (*paid).max(earliest);
        let owed = (bytes as f64 / self.bytes_per_second as f64).min(LONGEST.as_secs_f64());
        *paid = start + Duration::from_secs_f64(owed);
        let wait = *paid;
        tokio::time::sleep_until(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds_for(throttle: &Throttle, takes: &[u64]) -> f64 {
        let start = Instant::now();
        for &bytes in takes {
            throttle.take(bytes).await;
        }
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_for_small_and_large_takes() {
        let throttle = Throttle::new(1_000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let spent = seconds_for(&throttle, &[100; 100]).await;
        assert!((9.7..=10.1).contains(&spent), "{spent}");
        let spent = seconds_for(&throttle, &[20_000]).await;
        assert!((19.7..=20.3).contains(&spent), "{spent}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_smallest_limit_and_the_largest_take_end() {
        let spent = seconds_for(&Throttle::new(1), &[u64::MAX]).await;
        assert!((spent - LONGEST.as_secs_f64()).abs() < 1.0, "{spent}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        assert!(seconds_for(&Throttle::new(0), &[u64::MAX; 10]).await < 0.001);
    }
}
