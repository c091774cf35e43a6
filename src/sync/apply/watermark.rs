//! How far everything is applied: batches complete in any order, the watermark moves over the complete ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mongodb::bson::Timestamp;

use crate::sync::budget::Reservation;

/// A place in the stream up to which nothing is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Resume token.
    pub token: String,
    /// Everything up to this time is applied.
    pub time: Timestamp,
}

/// Tracks batches of events from routing to commit.
#[derive(Debug)]
pub struct Watermark {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    first: u64,
    open: VecDeque<Entry>,
    mark: Mark,
}

#[derive(Debug)]
struct Entry {
    remaining: usize,
    end: Option<Mark>,
    /// The batch's share of the byte budget, given back when the mark passes it.
    _held: Option<Reservation>,
}

impl Watermark {
    /// Begin at a place where nothing is missing.
    pub fn new(mark: Mark) -> Self {
        Self { inner: Mutex::new(Inner { first: 0, open: VecDeque::new(), mark }) }
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new batch, with what it holds of the byte budget; its number.
    pub fn begin(&self, held: Option<Reservation>) -> u64 {
        let mut inner = self.guard();
        inner.open.push_back(Entry { remaining: 0, end: None, _held: held });
        inner.first + inner.open.len() as u64 - 1
    }

    /// Events of a batch were handed to lanes.
    pub fn add(&self, batch: u64, events: usize) {
        if let Some(entry) = self.guard().entry(batch) {
            entry.remaining += events;
        }
    }

    /// A batch is wholly routed; once its events are applied, `mark` is reached.
    pub fn end(&self, batch: u64, mark: Mark) {
        let mut inner = self.guard();
        if let Some(entry) = inner.entry(batch) {
            entry.end = Some(mark);
        }
        inner.advance();
    }

    /// Events of a batch were committed.
    pub fn complete(&self, batch: u64, events: usize) {
        let mut inner = self.guard();
        if let Some(entry) = inner.entry(batch) {
            entry.remaining = entry.remaining.saturating_sub(events);
        }
        inner.advance();
    }

    /// Where nothing is missing.
    pub fn mark(&self) -> Mark {
        self.guard().mark.clone()
    }
}

impl Inner {
    fn entry(&mut self, batch: u64) -> Option<&mut Entry> {
        let index = usize::try_from(batch.checked_sub(self.first)?).ok()?;
        self.open.get_mut(index)
    }

    fn advance(&mut self) {
        while self.open.front().is_some_and(|entry| entry.remaining == 0 && entry.end.is_some()) {
            if let Some(mark) = self.open.pop_front().and_then(|entry| entry.end) {
                self.mark = mark;
            }
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(n: u32) -> Mark {
        Mark { token: format!("{n:08}"), time: Timestamp { time: n, increment: 1 } }
    }

    #[test]
    fn a_later_batch_waits_for_an_earlier_one() {
        let watermark = Watermark::new(mark(0));
        let (a, b) = (watermark.begin(None), watermark.begin(None));
        watermark.add(a, 2);
        watermark.end(a, mark(1));
        watermark.end(b, mark(2));
        watermark.complete(a, 1);
        assert_eq!(watermark.mark(), mark(0));
        watermark.complete(a, 1);
        assert_eq!(watermark.mark(), mark(2));
    }

    #[test]
    fn an_unfinished_batch_holds_the_mark_even_when_its_events_are_applied() {
        let watermark = Watermark::new(mark(0));
        let batch = watermark.begin(None);
        watermark.add(batch, 1);
        watermark.complete(batch, 1);
        assert_eq!(watermark.mark(), mark(0));
        watermark.end(batch, mark(1));
        assert_eq!(watermark.mark(), mark(1));
    }

    proptest! {
        /// Whatever the order of commits, the mark never passes a batch with an event missing, never goes back, and
        /// reaches the end once all is committed.
        #[test]
        fn the_mark_is_the_longest_complete_prefix(counts in proptest::collection::vec(0usize..4, 1..12), seed in any::<u64>()) {
            let watermark = Watermark::new(mark(0));
            let mut left: Vec<usize> = counts.clone();
            let mut pending = Vec::new();
            for (index, &count) in counts.iter().enumerate() {
                let batch = watermark.begin(None);
                watermark.add(batch, count);
                watermark.end(batch, mark(u32::try_from(index).unwrap() + 1));
                pending.extend(std::iter::repeat_n((index, batch), count));
            }
            let mut state = seed;
            while !pending.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (index, batch) = pending.swap_remove(usize::try_from(state >> 33).unwrap() % pending.len());
                watermark.complete(batch, 1);
                left[index] -= 1;
                let prefix = left.iter().take_while(|&&n| n == 0).count();
                prop_assert_eq!(watermark.mark(), mark(u32::try_from(prefix).unwrap()));
            }
            prop_assert_eq!(watermark.mark(), mark(u32::try_from(counts.len()).unwrap()));
        }
    }
}
