//! Kind to both ends: when the source answers slowly, or a replica set lags behind its primary, the sync slows down, and
//! takes up speed again when that is over.
//!
//! The clone's reading is slowed for every cause. The stream is slowed for the target's lag alone, and only while the
//! source's oplog leaves it time. Limits are on bytes a second: a part of what went through when it began.

pub mod law;
pub mod overdue;
pub mod watch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::law::Law;
use crate::sync::config::Limits;
use crate::sync::progress::{Progress, Times, lag_seconds};
use crate::sync::report::{SlowedBy, ThrottlingReport};
use crate::sync::throttle::Throttle;

/// What the clone reads a second however slow it is to be.
const READ_FLOOR: f64 = (1 << 20) as f64;

/// What the stream writes a second however slow it is to be.
const WRITE_FLOOR: f64 = (256 << 10) as f64;

/// Full speed, where nothing went through yet.
const UNKNOWN: f64 = (64 << 20) as f64;

/// Looks over which full speed is taken.
const RECENT: usize = 10;

/// What a change costs beside its bytes.
const CHANGE: u64 = 128;

/// Lag of the stream up to which it may be slowed, if it is not known how far the oplog reaches back.
const UNKNOWN_ROOM: i64 = 600;

/// A stream that is less behind than this is not in danger: a shorter oplog is one that has just begun.
const LEAST_ROOM: i64 = 30;

/// What was measured; none where it is not asked for, or was not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Round trip of a small read at the source.
    pub source_latency: Option<Duration>,
    /// How long the oldest write waits that the source's majority, or the member that is read, does not have.
    pub source_lag: Option<Duration>,
    /// How long the oldest write waits that the target's majority does not have.
    pub target_lag: Option<Duration>,
}

/// What may be slowed at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The clone has something to read.
    pub copying: bool,
    /// The stream is far from the end of the source's oplog.
    pub streaming: bool,
}

impl Room {
    /// A quarter of the oplog is the stream's.
    pub fn of(copying: bool, times: Times) -> Self {
        let room = times.oplog_window_seconds.map_or(UNKNOWN_ROOM, |window| (window / 4).max(LEAST_ROOM));
        Self { copying, streaming: lag_seconds(times).is_none_or(|lag| lag <= room) }
    }
}

/// Slows a sync down. What it holds back it shows in the progress.
#[derive(Debug)]
pub struct Pace {
    limits: Limits,
    progress: Arc<Progress>,
    read: Arc<Throttle>,
    write: Throttle,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read: Gear,
    write: Gear,
    shown: Option<ThrottlingReport>,
}

impl Pace {
    /// `read` is what the clone's reading goes through.
    pub fn new(limits: &Limits, read: Arc<Throttle>, progress: Arc<Progress>) -> Self {
        let state = State { read: Gear::new(READ_FLOOR), write: Gear::new(WRITE_FLOOR), shown: None };
        Self { limits: limits.clone(), progress, read, write: Throttle::new(0), state: Mutex::new(state) }
    }

    /// Wait until the stream may write a batch.
    pub async fn write(&self, changes: usize, bytes: usize) {
        self.write.take(bytes as u64 + CHANGE * changes as u64).await;
    }

    /// Act on what was measured.
    pub fn observe(&self, measured: &Measured, room: Room) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = load(measured.source_latency, self.limits.max_source_latency);
        let source = load(measured.source_lag, self.limits.max_replication_lag);
        let target = load(measured.target_lag, self.limits.max_replication_lag);
        let loads = [
            (SlowedBy::SourceLatency, latency.filter(|_| room.copying)),
            (SlowedBy::SourceReplicationLag, source.filter(|_| room.copying)),
            (SlowedBy::TargetReplicationLag, target),
        ];
        let known = loads.iter().filter_map(|&(by, load)| Some((by, load?)));
        let highest = known.max_by(|one, other| one.1.total_cmp(&other.1));
        let mut pace = 1.0_f64;
        if room.copying {
            pace = pace.min(state.read.turn(&self.read, highest.map(|(_, load)| load)));
        } else {
            state.read.release(&self.read);
        }
        if room.streaming {
            pace = pace.min(state.write.turn(&self.write, target));
        } else {
            state.write.release(&self.write);
        }
        let over = highest.filter(|(_, load)| *load > 1.0).map(|(by, _)| by);
        let before = state.shown.take();
        state.shown = (pace < 1.0).then(|| {
            let by = over.or(before.as_ref().map(|shown| shown.by)).unwrap_or(SlowedBy::TargetReplicationLag);
            ThrottlingReport {
                by,
                since: before.as_ref().map_or_else(jiff::Timestamp::now, |shown| shown.since),
                pace_percent: percent(pace),
                message: self.message(by, measured, room, percent(pace)),
            }
        });
        match (&before, &state.shown) {
            (None, Some(now)) => {
                tracing::warn!(
                    reason = by_name(now),
                    pace = now.pace_percent,
                    "slowing down: {}",
                    now.message
                );
            }
            (Some(before), None) => tracing::info!(reason = by_name(before), "at full speed again"),
            _ => {}
        }
        self.progress.throttle(state.shown.clone());
    }

    /// Nothing is watched any more: nothing is held back.
    pub fn release(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read.release(&self.read);
        state.write.release(&self.write);
        if let Some(shown) = state.shown.take() {
            tracing::info!(reason = by_name(&shown), "not slowed down any more: the run ends");
        }
        self.progress.throttle(None);
    }

    fn message(&self, by: SlowedBy, measured: &Measured, room: Room, percent: u32) -> String {
        let lag = self.limits.max_replication_lag.as_secs();
        let seconds = |lag: Option<Duration>| lag.map_or(0, |lag| lag.as_secs());
        let why = match by {
            SlowedBy::SourceLatency => format!(
                "the source answers a small read in {} ms, and limits.maxSourceLatencyMs is {}",
                measured.source_latency.map_or(0, |latency| latency.as_millis()),
                self.limits.max_source_latency.as_millis()
            ),
            SlowedBy::SourceReplicationLag => format!(
                "replication on the source is {} s behind, and limits.maxReplicationLagSeconds is {lag}",
                seconds(measured.source_lag)
            ),
            SlowedBy::TargetReplicationLag => format!(
                "replication on the target is {} s behind, and limits.maxReplicationLagSeconds is {lag}",
                seconds(measured.target_lag)
            ),
        };
        let what = if room.copying { "the clone reads" } else { "changes are applied" };
        format!("{why}: {what} at {percent} % of full speed")
    }
}

fn by_name(report: &ThrottlingReport) -> &'static str {
    report.by.as_str()
}

/// As a part of its limit; 0 is no limit.
fn load(measured: Option<Duration>, limit: Duration) -> Option<f64> {
    (!limit.is_zero()).then(|| Some(measured?.as_secs_f64() / limit.as_secs_f64())).flatten()
}

/// Never 0, and 100 only at full speed.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percent(pace: f64) -> u32 {
    ((pace * 100.0) as u32).clamp(1, 100)
}

/// A law, and the throttle that it moves.
#[derive(Debug)]
struct Gear {
    law: Law,
    floor: f64,
    recent: VecDeque<f64>,
    taken: u64,
    at: Instant,
}

impl Gear {
    fn new(floor: f64) -> Self {
        Self { law: Law::default(), floor, recent: VecDeque::new(), taken: 0, at: Instant::now() }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn turn(&mut self, throttle: &Throttle, load: Option<f64>) -> f64 {
        let (now, taken) = (Instant::now(), throttle.taken());
        let rate =
            taken.saturating_sub(self.taken) as f64 / now.duration_since(self.at).as_secs_f64().max(0.1);
        (self.at, self.taken) = (now, taken);
        // What goes through while it is held back says nothing of full speed.
        if !self.law.acts() {
            self.recent.push_back(rate);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        let pace = self.law.observe(load);
        let full = self.recent.iter().copied().fold(0.0, f64::max);
        let full = if full > 0.0 { full } else { UNKNOWN };
        throttle.ease(self.law.acts().then(|| (full * pace).max(self.floor) as u64));
        pace
    }

    fn release(&mut self, throttle: &Throttle) {
        *self = Self::new(self.floor);
        self.taken = throttle.taken();
        throttle.ease(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Room = Room { copying: true, streaming: true };
    const STREAM: Room = Room { copying: false, streaming: true };

    fn pace() -> (Pace, Arc<Throttle>, Arc<Progress>) {
        let limits = Limits {
            max_source_latency: Duration::from_millis(50),
            max_replication_lag: Duration::from_secs(5),
            ..Limits::default()
        };
        let (read, progress) = (Arc::new(Throttle::new(0)), Arc::new(Progress::default()));
        (Pace::new(&limits, Arc::clone(&read), Arc::clone(&progress)), read, progress)
    }

    fn slow_source() -> Measured {
        Measured { source_latency: Some(Duration::from_millis(120)), ..Measured::default() }
    }

    fn behind(target: u64) -> Measured {
        Measured { target_lag: Some(Duration::from_secs(target)), ..Measured::default() }
    }

    fn calm() -> Measured {
        Measured {
            source_latency: Some(Duration::from_millis(1)),
            source_lag: Some(Duration::ZERO),
            target_lag: Some(Duration::ZERO),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_slows_the_clone_and_not_the_stream() {
        let (pace, read, progress) = pace();
        for _ in 0..5 {
            read.take(8 << 20).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            pace.observe(&calm(), ALL);
        }
        assert!(!read.is_limited() && progress.throttling().is_none());
        for _ in 0..3 {
            pace.observe(&slow_source(), ALL);
        }
        let shown = progress.throttling().unwrap();
        assert_eq!((shown.by, shown.pace_percent), (SlowedBy::SourceLatency, 25));
        assert!(shown.message.contains("120 ms") && shown.message.contains("25 %"), "{}", shown.message);
        assert!(read.is_limited() && !pace.write.is_limited());
        let start = Instant::now();
        read.take(8 << 20).await;
        let took = start.elapsed().as_secs_f64();
        assert!((3.0..=4.5).contains(&took), "8 MiB/s before, a quarter now: {took}");
        for _ in 0..16 {
            pace.observe(&calm(), ALL);
        }
        assert!(!read.is_limited() && progress.throttling().is_none());
        pace.observe(&slow_source(), STREAM);
        assert!(progress.throttling().is_none(), "there is nothing to read");
    }

    #[tokio::test]
    async fn the_targets_lag_slows_both() {
        let (pace, read, progress) = pace();
        pace.observe(&behind(9), ALL);
        assert!(read.is_limited() && pace.write.is_limited());
        assert_eq!(progress.throttling().unwrap().by, SlowedBy::TargetReplicationLag);
        pace.observe(&behind(10), STREAM);
        assert!(!read.is_limited() && pace.write.is_limited(), "the clone is over");
        pace.release();
        assert!(!pace.write.is_limited() && progress.throttling().is_none());
    }

    #[tokio::test]
    async fn the_stream_is_let_go_before_it_falls_off_the_oplog() {
        let (pace, _, progress) = pace();
        pace.observe(&behind(9), STREAM);
        assert!(pace.write.is_limited());
        pace.observe(&behind(10), Room { copying: false, streaming: false });
        assert!(!pace.write.is_limited() && progress.throttling().is_none());
    }

    #[test]
    fn a_quarter_of_the_oplog_is_room() {
        let room = |behind: u32, window: Option<i64>| {
            let time = |time| Some(mongodb::bson::Timestamp { time, increment: 1 });
            let (source, applied) = (time(100_000), time(100_000 - behind));
            Room::of(false, Times { source, applied, oplog_window_seconds: window, ..Times::default() })
                .streaming
        };
        assert!(room(900, Some(3_600)) && !room(901, Some(3_600)));
        assert!(room(600, None) && !room(601, None));
        assert!(room(30, Some(20)) && !room(31, Some(20)), "it has just begun");
    }

    #[test]
    fn limits_that_are_not_set_are_never_reached() {
        let (read, progress) = (Arc::new(Throttle::new(0)), Arc::new(Progress::default()));
        let pace = Pace::new(&Limits::default(), Arc::clone(&read), Arc::clone(&progress));
        let hours = Some(Duration::from_secs(36_000));
        for _ in 0..20 {
            pace.observe(&Measured { source_latency: hours, source_lag: hours, target_lag: hours }, ALL);
        }
        assert!(!read.is_limited() && progress.throttling().is_none());
    }
}
