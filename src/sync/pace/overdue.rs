//! How long the oldest write has waited that the others do not have yet, by our own clock.

use std::collections::VecDeque;
use std::time::Duration;

use mongodb::bson::Timestamp;
use tokio::time::Instant;

/// Writes that are remembered: an hour of looks.
const MOST: usize = 3_600;

/// Writes that were seen on a primary and wait. The difference of two optimes would not do: on an idle set they lie ten
/// seconds apart, between a write and its way to the others.
#[derive(Debug, Default)]
pub struct Overdue {
    seen: VecDeque<(Timestamp, Instant)>,
}

impl Overdue {
    /// `newest`: what the primary has. `reached`: up to where the others have it.
    pub fn observe(&mut self, newest: Timestamp, reached: Timestamp, now: Instant) -> Duration {
        // Rolled back.
        while self.seen.back().is_some_and(|(time, _)| *time > newest) {
            self.seen.pop_back();
        }
        if self.seen.len() < MOST && self.seen.back().is_none_or(|(time, _)| *time < newest) {
            self.seen.push_back((newest, now));
        }
        while self.seen.front().is_some_and(|(time, _)| *time <= reached) {
            self.seen.pop_front();
        }
        self.seen.front().map_or(Duration::ZERO, |(_, since)| now.duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    #[test]
    fn a_lag_is_as_old_as_what_is_missing() {
        let (mut overdue, start) = (Overdue::default(), Instant::now());
        let mut look = |newest, reached, second| {
            overdue.observe(at(newest), at(reached), start + Duration::from_secs(second)).as_secs()
        };
        assert_eq!(look(100, 100, 0), 0);
        assert_eq!(look(110, 100, 10), 0, "it was written this moment");
        assert_eq!(look(110, 110, 11), 0);
        assert_eq!(look(120, 110, 20), 0);
        assert_eq!(look(123, 110, 23), 3);
        assert_eq!(look(123, 110, 90), 70, "nothing is written and nothing comes over");
        assert_eq!(look(191, 120, 91), 68);
        assert_eq!(look(192, 191, 92), 0);
    }

    #[test]
    fn what_was_rolled_back_is_not_waited_for() {
        let (mut overdue, start) = (Overdue::default(), Instant::now());
        overdue.observe(at(200), at(100), start);
        assert_eq!(overdue.observe(at(150), at(150), start + Duration::from_secs(50)), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut overdue, start) = (Overdue::default(), Instant::now());
        for second in 1..10_000_u32 {
            overdue.observe(at(second), at(0), start + Duration::from_secs(second.into()));
        }
        assert_eq!(overdue.seen.len(), MOST);
    }
}
