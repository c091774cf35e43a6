//! A limit of bytes a second, as a debt: what is taken now is paid for before the next. Beside the one that the user set
//! there may be a lower one for a while, to spare an end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// How much may be taken at once after a rest: small, so that the limit holds over short times too.
const BURST: Duration = Duration::from_millis(250);

/// What one take may cost at most: a batch has 16 MB, so only a limit of some bytes a second comes here.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Limits a rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// The limit of the moment; 0 is none.
    eased: AtomicU64,
    changed: Notify,
    taken: AtomicU64,
    /// When everything taken so far is paid for.
    paid: Mutex<Instant>,
}

impl Throttle {
    /// `0` means no limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            eased: AtomicU64::new(0),
            changed: Notify::new(),
            taken: AtomicU64::new(0),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.rate() > 0
    }

    /// Go no faster than this for now; none ends that.
    pub fn ease(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.map_or(0, |rate| rate.max(1));
        if self.eased.swap(rate, Ordering::Relaxed) != rate {
            self.changed.notify_waiters();
        }
    }

    /// Bytes that were asked for so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn rate(&self) -> u64 {
        match (self.bytes_per_second, self.eased.load(Ordering::Relaxed)) {
            (0, eased) => eased,
            (limit, 0) => limit,
            (limit, eased) => limit.min(eased),
        }
    }

    /// Wait until `bytes` may be taken; who asks first goes first. A limit that changes meanwhile counts at once.
    #[allow(clippy::cast_precision_loss)]
    pub async fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        if !self.is_limited() {
            return;
        }
        let mut paid = self.paid.lock().await;
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let (mut from, mut owed) = ((*paid).max(earliest), bytes as f64);
        loop {
            let changed = self.changed.notified();
            let rate = self.rate() as f64;
            if rate == 0.0 {
                *paid = Instant::now();
                return;
            }
            let end = from + Duration::from_secs_f64((owed / rate).min(LONGEST.as_secs_f64()));
            *paid = end;
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = changed => {}
            }
            let now = Instant::now();
            owed = (owed - now.saturating_duration_since(from).as_secs_f64() * rate).max(0.0);
            from = from.max(now);
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_lower_limit_comes_and_goes_and_is_followed_at_once() {
        let throttle = Throttle::new(0);
        assert!(seconds_for(&throttle, &[1_000; 10]).await < 0.001);
        throttle.ease(Some(1_000));
        let spent = seconds_for(&throttle, &[1_000; 10]).await;
        assert!((9.7..=10.1).contains(&spent), "{spent}");
        let waiting = async {
            let start = Instant::now();
            throttle.take(100_000).await;
            start.elapsed().as_secs_f64()
        };
        let changing = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            throttle.ease(Some(90_000));
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            throttle.ease(None);
        };
        let (spent, ()) = tokio::join!(waiting, changing);
        assert!((10.9..=11.6).contains(&spent), "10 s at the low limit, one at the high one: {spent}");
        assert_eq!(throttle.taken(), 10_000 + 10_000 + 100_000);
        let limited = Throttle::new(500);
        for (eased, seconds) in [(Some(1_000), 10.0), (Some(250), 20.0), (None, 10.0)] {
            limited.ease(eased);
            tokio::time::sleep(Duration::from_secs(60)).await;
            let spent = seconds_for(&limited, &[5_000]).await;
            assert!((spent - seconds).abs() < 0.5, "{eased:?}: {spent}");
        }
    }
}
