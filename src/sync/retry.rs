//! Backoff between attempts.

use std::time::Duration;

/// The first wait: an election or a restart takes longer, a conflict does not.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: a database that comes back is found soon enough.
const LONGEST: Duration = Duration::from_secs(15);

/// Doubling waits with jitter, so that many syncs do not knock together.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
    seed: u64,
}

impl Backoff {
    /// `seed` should differ between syncs.
    pub fn new(seed: u64) -> Self {
        Self { attempts: 0, seed }
    }

    /// Failed attempts in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Count a failed attempt and say how long to wait: between half and all of the doubled time.
    pub fn next_delay(&mut self) -> Duration {
        let full =
            FIRST.saturating_mul(1_u32.checked_shl(self.attempts.min(16)).unwrap_or(u32::MAX)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let half = full / 2;
        half + half.mul_f64(f64::from((self.seed >> 40) as u32) / f64::from(1_u32 << 24))
    }

    /// An attempt got somewhere.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest(seed in any::<u64>(), attempts in 1u32..60) {
            let mut backoff = Backoff::new(seed);
            for attempt in 0..attempts {
                let full = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
                let wait = backoff.next_delay();
                prop_assert!(wait >= full / 2 && wait <= full, "{:?} of {:?}", wait, full);
            }
            prop_assert_eq!(backoff.attempts(), attempts);
            backoff.reset();
            prop_assert!(backoff.next_delay() <= FIRST);
        }
    }
}
