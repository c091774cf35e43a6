//! How many batches the target works on at a time.
//!
//! More than its cores can take are only in each other's way: on two cores, four transactions of 1 MB at a time cost the
//! server a tenth more CPU than three do. Meanwhile readers fetch what comes next, and the batches of lanes that wait grow:
//! a batch over many collections has a few commands for each of them, however few changes these hold.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::sync::endpoint::Endpoint;

/// What a batch takes of one core of the target, about.
const BATCH_TIME: Duration = Duration::from_millis(10);

/// Round trips of a batch's transaction: its slot, its documents, its commit.
const ROUND_TRIPS: u32 = 3;

/// Pings, of which the shortest counts: the others met something else on their way.
const PINGS: usize = 3;

/// Whoever answers later than this is not asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lanes that write at a time at least: one prepares its batch while the target works on the other's.
const FEWEST_LANES: usize = 2;

/// What the target can take at a time, asked for when it is first needed.
#[derive(Debug)]
pub struct Writers {
    target: Endpoint,
    at_a_time: OnceCell<usize>,
    lanes: OnceCell<Semaphore>,
}

impl Writers {
    /// Of this target.
    pub fn new(target: &Endpoint) -> Self {
        Self { target: target.clone(), at_a_time: OnceCell::new(), lanes: OnceCell::new() }
    }

    /// How many batches of a clone the target may work on; without a limit where it does not say what it has.
    pub async fn at_a_time(&self) -> usize {
        *self
            .at_a_time
            .get_or_init(|| async {
                let asked = tokio::time::timeout(PATIENCE, ask(&self.target)).await;
                asked.ok().flatten().unwrap_or(Semaphore::MAX_PERMITS)
            })
            .await
    }

    /// A lane's turn to write, given back when dropped.
    pub async fn lane(&self) -> Option<SemaphorePermit<'_>> {
        let lanes = self.lanes.get_or_init(|| async { Semaphore::new(lanes(self.at_a_time().await)) });
        lanes.await.acquire().await.ok()
    }
}

/// How many lanes write where the target works on so many batches at a time: none that has just arrived, since the batch
/// of one that waits is the larger for it.
fn lanes(at_a_time: usize) -> usize {
    at_a_time.saturating_sub(1).max(FEWEST_LANES)
}

async fn ask(target: &Endpoint) -> Option<usize> {
    let cores = match target.command_anywhere("admin", doc! {"hostInfo": 1}).await {
        Ok(host) => cores(&host)?,
        // Its user may not ask.
        Err(error) => {
            tracing::debug!(%error, "the target does not say how many cores it has");
            return None;
        }
    };
    let mut round_trip = Duration::MAX;
    for _ in 0..PINGS {
        let began = Instant::now();
        if target.command_anywhere("admin", doc! {"ping": 1}).await.is_ok() {
            round_trip = round_trip.min(began.elapsed());
        }
    }
    let batches = at_a_time_on(cores, round_trip);
    tracing::debug!(cores, ?round_trip, batches, "batches that the target works on at a time");
    Some(batches)
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

/// One for each core and one that has just arrived, and what is on the wire meanwhile.
fn at_a_time_on(cores: usize, round_trip: Duration) -> usize {
    let wire = round_trip.saturating_mul(ROUND_TRIPS).as_micros() / BATCH_TIME.as_micros().max(1);
    let wire = usize::try_from(wire).unwrap_or(usize::MAX);
    cores.saturating_mul(wire.saturating_add(1)).saturating_add(1).min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_target_gets_one_more_than_it_has_cores() {
        assert_eq!(at_a_time_on(2, Duration::from_micros(300)), 3);
        assert_eq!(at_a_time_on(16, Duration::ZERO), 17);
    }

    #[test]
    fn a_far_target_gets_what_fills_the_wire() {
        assert_eq!(at_a_time_on(2, Duration::from_millis(10)), 9);
        assert!(at_a_time_on(2, Duration::from_millis(40)) > 20);
        assert_eq!(at_a_time_on(usize::MAX, Duration::MAX), Semaphore::MAX_PERMITS);
    }

    #[test]
    fn as_many_lanes_write_as_there_are_cores() {
        assert_eq!([2, 3, 17].map(lanes), [2, 2, 16]);
        assert!(lanes(Semaphore::MAX_PERMITS) > 1_000);
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
