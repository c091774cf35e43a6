//! How many batches the target works on at a time.
//!
//! More than its cores can take are only in each other's way: on two cores, four transactions of 1 MB at a time cost the
//! server a tenth more CPU than three do. Meanwhile readers fetch what comes next, and the batches of lanes that wait grow:
//! a batch over many collections has a few commands for each of them, however few changes these hold. For the same reason
//! a new sync has no more lanes than write at a time: each takes its share of the few changes that come at once, in a
//! transaction of its own.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::sync::endpoint::Endpoint;

/// What a batch takes of one core of the target, about.
const BATCH_TIME: Duration = Duration::from_millis(10);

/// Round trips of a transaction of the clone: its slot, its documents, its commit.
const ROUND_TRIPS: u32 = 3;

/// Round trips of a lane's, which has commands of their own for each of its collections, about.
const ROUND_TRIPS_OF_LANE: u32 = 10;

/// Pings, of which the shortest counts: the others met something else on their way. A far target gets the fewer.
const PINGS: usize = 8;
const FEWEST_PINGS: usize = 3;
const PINGING: Duration = Duration::from_millis(5);

/// Who has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lanes that write at a time at least: one prepares its batch while the target works on the other's.
const FEWEST_LANES: usize = 2;

/// Lanes of a new sync at most, unless the user asks for more: a change stream's cursor does not feed as many.
const MOST_LANES: usize = 8;

/// Lanes of a new sync whose target does not say what it has.
const LANES: usize = 4;

/// What the target can take at a time, asked for when it is first needed.
#[derive(Debug)]
pub struct Writers {
    target: Endpoint,
    /// Lanes that the user asked for; 0: none in particular.
    asked: usize,
    power: OnceCell<Option<Power>>,
    turns: OnceCell<Semaphore>,
}

/// What a target has, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Power {
    cores: usize,
    round_trip: Duration,
}

impl Writers {
    /// Of this target, for a user who asked for so many lanes (0: automatic).
    pub fn new(target: &Endpoint, asked: usize) -> Self {
        Self { target: target.clone(), asked, power: OnceCell::new(), turns: OnceCell::new() }
    }

    async fn power(&self) -> Option<Power> {
        let asking = async {
            let asked = tokio::time::timeout(PATIENCE, ask(&self.target)).await;
            asked.unwrap_or_else(|_| {
                tracing::debug!("the target does not say in time how many cores it has");
                None
            })
        };
        *self.power.get_or_init(|| asking).await
    }

    /// How many batches of a clone the target may work on; without a limit where it does not say what it has.
    pub async fn at_a_time(&self) -> usize {
        self.power().await.map_or(Semaphore::MAX_PERMITS, Power::batches)
    }

    /// How many lanes a new sync has; 1 at least.
    pub async fn lanes(&self) -> usize {
        match self.asked {
            0 => of_a_new_sync(self.power().await),
            asked => asked,
        }
    }

    /// A lane's turn to write, given back when dropped. None is no limit.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turns = || async {
            let power = self.power().await;
            Semaphore::new(power.map_or(Semaphore::MAX_PERMITS, Power::lanes).max(self.asked))
        };
        self.turns.get_or_init(turns).await.acquire().await.ok()
    }
}

impl Power {
    /// One for each core and one that has just arrived, and what is on the wire meanwhile.
    fn batches(self) -> usize {
        self.busy(ROUND_TRIPS).saturating_add(1).min(Semaphore::MAX_PERMITS)
    }

    /// Lanes that write at a time. None need have just arrived: a lane that waits here collects a larger batch.
    fn lanes(self) -> usize {
        self.busy(ROUND_TRIPS_OF_LANE).clamp(FEWEST_LANES, Semaphore::MAX_PERMITS)
    }

    /// Transactions of so many round trips that keep every core busy.
    fn busy(self, round_trips: u32) -> usize {
        let wire = self.round_trip.saturating_mul(round_trips).as_micros() / BATCH_TIME.as_micros().max(1);
        self.cores.saturating_mul(usize::try_from(wire).unwrap_or(usize::MAX).saturating_add(1))
    }
}

/// Lanes for a user who asked for none in particular.
fn of_a_new_sync(target: Option<Power>) -> usize {
    target.map_or(LANES, |power| power.lanes().min(MOST_LANES))
}

async fn ask(target: &Endpoint) -> Option<Power> {
    let cores = match target.command_anywhere("admin", doc! {"hostInfo": 1}).await {
        Ok(host) => cores(&host)?,
        // Its user may not ask.
        Err(error) => {
            tracing::debug!(%error, "the target does not say how many cores it has");
            return None;
        }
    };
    let asked = Instant::now();
    let mut round_trip = Duration::MAX;
    for ping in 0..PINGS {
        if ping >= FEWEST_PINGS && asked.elapsed() > PINGING {
            break;
        }
        let began = Instant::now();
        if target.command_anywhere("admin", doc! {"ping": 1}).await.is_ok() {
            round_trip = round_trip.min(began.elapsed());
        }
    }
    let power = Power { cores, round_trip };
    tracing::debug!(
        cores,
        ?round_trip,
        batches = power.batches(),
        lanes = power.lanes(),
        "what the target works on at a time"
    );
    Some(power)
}

fn cores(host: &Document) -> Option<usize> {
    let system = host.get_document("system").ok()?;
    // From 7.0 on, what the process may use of them.
    let asked = ["numCoresAvailableToProcess", "numCores"];
    asked.iter().find_map(|name| {
        let number = system.get_i32(name).map(i64::from).or_else(|_| system.get_i64(name)).ok()?;
        usize::try_from(number).ok().filter(|cores| *cores > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(cores: usize, micros: u64) -> Power {
        Power { cores, round_trip: Duration::from_micros(micros) }
    }

    #[test]
    fn a_near_target_gets_one_more_batch_than_it_has_cores_and_as_many_lanes() {
        assert_eq!((power(2, 300).batches(), power(2, 300).lanes()), (3, 2));
        assert_eq!((power(16, 0).batches(), power(16, 0).lanes()), (17, 16));
        assert_eq!((power(1, 0).batches(), power(1, 0).lanes()), (2, FEWEST_LANES));
    }

    #[test]
    fn a_new_sync_has_as_many_lanes_as_write_at_a_time() {
        assert_eq!(of_a_new_sync(Some(power(2, 300))), 2);
        assert_eq!(of_a_new_sync(Some(power(6, 300))), 6);
        assert_eq!(of_a_new_sync(Some(power(64, 300))), MOST_LANES);
        assert_eq!(of_a_new_sync(Some(power(2, 40_000))), MOST_LANES);
        assert_eq!(of_a_new_sync(None), LANES);
    }

    #[test]
    fn a_far_target_gets_what_fills_the_wire() {
        assert_eq!((power(2, 10_000).batches(), power(2, 10_000).lanes()), (9, 22));
        assert!(power(2, 40_000).batches() > 20);
        let without_end = Power { cores: usize::MAX, round_trip: Duration::MAX };
        assert_eq!(without_end.batches(), Semaphore::MAX_PERMITS);
        assert_eq!(without_end.lanes(), Semaphore::MAX_PERMITS);
    }

    #[test]
    fn cores_are_read_whatever_the_version_calls_them() {
        assert_eq!(cores(&doc! {"system": {"numCores": 2}}), Some(2));
        assert_eq!(cores(&doc! {"system": {"numCores": 8_i64, "numCoresAvailableToProcess": 4}}), Some(4));
        let unknown = doc! {"system": {"numCores": 8, "numCoresAvailableToProcess": -1}};
        assert_eq!(cores(&unknown), Some(8));
        assert_eq!(cores(&doc! {"system": {"numCores": 0}}), None);
        assert_eq!(cores(&doc! {}), None);
    }
}
