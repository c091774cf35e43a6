//! The published report: phases at once, numbers every half second, a log line every ten seconds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::bson::Timestamp;
use tokio::sync::watch;

use crate::sync::config::{Desired, SyncConfig};
use crate::sync::endpoint::client::Side;
use crate::sync::error::{Error, Reason};
use crate::sync::progress::{Progress, lag_seconds};
use crate::sync::report::{Phase, Report};

/// How often numbers are published.
const PUBLISH_MILLIS: u64 = 500;

/// Publications between two log lines.
const LOG_EVERY: u32 = 20;

/// Publications over which a rate is taken.
const RATE_OVER: usize = 10;

/// Writes the report. Cheap to clone; clones write the same one.
#[derive(Clone, Debug)]
pub struct Publisher {
    report: Arc<watch::Sender<Report>>,
    progress: Arc<Progress>,
    failed_at: Arc<Mutex<Option<Place>>>,
}

/// How far a sync was when an attempt failed: while that is all, it has not got past the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    checkpoint: Option<Timestamp>,
    bytes_copied: u64,
}

impl Publisher {
    /// A publisher and where its reports are read.
    pub fn new(config: &SyncConfig, progress: Arc<Progress>) -> (Self, watch::Receiver<Report>) {
        let report = Report {
            sync_id: config.id.clone(),
            holder: config.holder.id.clone(),
            phase_since: jiff::Timestamp::now(),
            message: "starting".to_owned(),
            ..Report::default()
        };
        let (sender, receiver) = watch::channel(report);
        (Self { report: Arc::new(sender), progress, failed_at: Arc::default() }, receiver)
    }

    /// Change the report; watchers wake.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(|report| {
            change(report);
            self.refresh(report);
        });
    }

    /// Be in a phase. Says nothing when it is the same with the same message.
    pub fn enter(&self, phase: Phase, message: &str) {
        self.report.send_if_modified(|report| {
            if report.phase == phase && report.message == message && report.reason.is_none() {
                return false;
            }
            if report.phase != phase {
                tracing::info!(from = %report.phase, to = %phase, "{message}");
                report.phase = phase;
                report.phase_since = jiff::Timestamp::now();
            }
            report.reason = None;
            message.clone_into(&mut report.message);
            if matches!(phase, Phase::Paused | Phase::Completed) {
                self.recovered(report);
            }
            self.refresh(report);
            true
        });
    }

    /// An attempt failed.
    pub fn failed(&self) {
        let place = self.place();
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(place);
        self.report.send_modify(|report| {
            report.failing_since.get_or_insert_with(jiff::Timestamp::now);
        });
    }

    /// Whether the last failure was not got past yet, as far as is known.
    pub fn is_failing(&self) -> bool {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn place(&self) -> Place {
        Place { checkpoint: self.progress.times().checkpoint, bytes_copied: self.progress.bytes_copied.get() }
    }

    fn recovered(&self, report: &mut Report) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        report.failing_since = None;
        report.replication.last_error = None;
    }

    /// Take what is new into the report: numbers, and that a failure was got past. Whether anything changed.
    fn merge(&self, report: &mut Report, rate: u64) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let past = failed_at.is_some_and(|place| self.is_past(place));
        if past {
            self.recovered(report);
        }
        merge(report, &self.progress, rate) || past
    }

    fn is_past(&self, failed: Place) -> bool {
        let now = self.place();
        now.checkpoint > failed.checkpoint || now.bytes_copied > failed.bytes_copied
    }

    /// A report that tells of a transition has the numbers of that moment.
    fn refresh(&self, report: &mut Report) {
        let rate = report.initial_sync.bytes_per_second;
        self.merge(report, rate);
    }

    /// Wait for something that is not an error, before the data path runs.
    pub fn wait(&self, reason: Reason, message: &str) {
        self.enter(Phase::Pending, message);
        self.update(|report| report.reason = Some(reason));
    }

    /// Be stalled.
    pub fn stall(&self, error: &Error) {
        self.update(|report| {
            report.phase = Phase::Stalled;
            report.phase_since = jiff::Timestamp::now();
            report.reason = Some(error.reason());
            report.message = error.explain();
        });
    }

    /// These ends answer.
    pub fn connected(&self, sides: &[Side]) {
        self.update(|report| {
            for side in sides {
                let side = match side {
                    Side::Source => &mut report.source,
                    Side::Target => &mut report.target,
                };
                if side.connected != Some(true) {
                    side.connected = Some(true);
                    side.connected_since = jiff::Timestamp::now();
                }
            }
        });
    }

    /// Whether the user asks to clone anew and that was not done yet.
    pub fn restart_wanted(&self, desired: &Desired) -> bool {
        !desired.restart.is_empty() && desired.restart != self.report.borrow().handled_restart
    }

    /// Whether the user asks to try again and that was not done yet.
    pub fn retry_wanted(&self, desired: &Desired) -> bool {
        !desired.retry.is_empty() && desired.retry != self.report.borrow().handled_retry
    }

    /// Publish numbers for ever.
    pub async fn tick(self) {
        let mut interval = tokio::time::interval(Duration::from_millis(PUBLISH_MILLIS));
        let mut history: VecDeque<u64> = VecDeque::new();
        for number in 1_u32.. {
            interval.tick().await;
            history.push_back(self.progress.bytes_copied.get());
            if history.len() > RATE_OVER {
                history.pop_front();
            }
            let rate = rate(&history);
            self.report.send_if_modified(|report| self.merge(report, rate));
            if number % LOG_EVERY == 0 {
                log(&self.report.borrow());
            }
        }
    }
}

fn rate(history: &VecDeque<u64>) -> u64 {
    let (Some(first), Some(last)) = (history.front(), history.back()) else { return 0 };
    let millis = PUBLISH_MILLIS * (history.len() as u64).saturating_sub(1).max(1);
    last.saturating_sub(*first) * 1000 / millis
}

/// Put the live numbers into the report; whether anything changed.
fn merge(report: &mut Report, progress: &Progress, rate: u64) -> bool {
    let before = report.clone();
    let clone = &mut report.initial_sync;
    clone.collections_total = progress.collections_total.get();
    clone.collections_done = progress.collections_done.get();
    clone.partitions_total = progress.partitions_total.get();
    clone.partitions_done = progress.partitions_done.get();
    clone.partitions_copied = progress.partitions_copied.get();
    clone.documents = progress.documents.get();
    clone.documents_total = progress.documents_total.get().max(clone.documents);
    clone.bytes = progress.bytes.get();
    clone.bytes_total = progress.bytes_total.get().max(clone.bytes);
    clone.documents_copied = progress.documents_copied.get();
    clone.bytes_copied = progress.bytes_copied.get();
    let cloning = report.phase == Phase::Cloning;
    clone.bytes_per_second = if cloning { rate } else { 0 };
    clone.eta_seconds = (cloning && rate > 0).then(|| (clone.bytes_total - clone.bytes) / rate);
    let times = progress.times();
    let stream = &mut report.replication;
    stream.applied_time = times.applied.map(Into::into);
    stream.checkpoint_time = times.checkpoint.map(Into::into);
    // After the cutover the source goes its own way: there is nothing to be behind of.
    stream.lag_seconds = lag_seconds(times).filter(|_| report.phase != Phase::Completed);
    stream.events_read = progress.events_read.get();
    stream.events_applied = progress.events_applied.get();
    stream.queued_bytes = progress.queued_bytes.get();
    report.throttling = progress.throttling();
    report.source.oplog_window_seconds = times.oplog_window_seconds;
    for warning in progress.warnings() {
        if !report.warnings.contains(&warning) {
            report.warnings.push(warning);
        }
    }
    *report != before
}

fn log(report: &Report) {
    if matches!(report.phase, Phase::Stalled | Phase::Paused | Phase::Completed) {
        return;
    }
    let clone = &report.initial_sync;
    tracing::info!(
        phase = %report.phase,
        collections = format!("{}/{}", clone.collections_done, clone.collections_total),
        documents = clone.documents,
        bytes = clone.bytes,
        bytes_per_second = clone.bytes_per_second,
        events_applied = report.replication.events_applied,
        lag_seconds = report.replication.lag_seconds,
        checkpoint = report.replication.checkpoint_time.map(|time| time.to_string()),
        "progress"
    );
}
