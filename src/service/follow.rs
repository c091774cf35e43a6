//! Several processes may serve one sync, of which one owns it; what is asked of that one must be done by the next. So
//! whoever does not own the sync looks at what is saved, and acts on nothing before it has looked as the owner.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::Document;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::control::{Control, EFFECT, Known, LOOK_AGAIN};
use super::wish::{self, Asked, Wish};
use crate::sync::{Desired, DesiredState, Error, Phase, Reason, Report, lifecycle};

/// Between two looks of a process whose sync nobody has started.
const IDLE: Duration = Duration::from_secs(5);

/// Whether a run goes on after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// With what is saved.
    Kept,
    /// Another run, or none, has taken its place.
    Replaced,
    /// The target did not say.
    Failed,
}

impl Control {
    /// Find what was asked before, and go on with it; or forget it, where `reset` says so. Tries until it succeeds; then
    /// looks, while nothing is started here, whether another process was asked.
    pub async fn recover(self: Arc<Self>, reset: bool, stop: CancellationToken) {
        let recovering = async {
            self.until_found(reset).await;
            loop {
                tokio::time::sleep(IDLE).await;
                let idle = self.running().is_none();
                if idle && matches!(self.saved().await, Some((Some(_), _))) {
                    let _turn = self.turn.lock().await;
                    self.refresh().await;
                }
            }
        };
        tokio::select! {
            () = recovering => {}
            () = stop.cancelled() => {}
        }
    }

    async fn until_found(self: &Arc<Self>, reset: bool) {
        loop {
            let found = async {
                if reset {
                    lifecycle::delete_state(&self.base).await?;
                    tracing::info!(sync = self.base.id, "this sync's durable state is forgotten");
                    return Ok((None, String::new()));
                }
                self.load().await
            };
            match found.await {
                Ok((saved, handled)) => {
                    let _turn = self.turn.lock().await;
                    self.adopt(saved, &handled, false).await;
                    return;
                }
                Err(error) => self.not_yet(&error),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn not_yet(&self, error: &Error) {
        let why = error.explain();
        let _ = self.known.send_if_modified(|known| match known {
            Known::NotYet(before) if *before == why => false,
            _ => {
                tracing::warn!(reason = %error.reason(), %error, "what was asked before is not known yet");
                *known = Known::NotYet(why);
                true
            }
        });
    }

    /// What is saved, and which start was done last.
    async fn load(&self) -> Result<(Option<Document>, String), Error> {
        match lifecycle::load_wish(&self.base).await? {
            Some(saved) => Ok((Some(saved), wish::handled_restart(&self.base).await?)),
            None => Ok((None, String::new())),
        }
    }

    /// The same, if the target says so in time.
    async fn saved(&self) -> Option<(Option<Document>, String)> {
        match tokio::time::timeout(EFFECT, self.load()).await {
            Ok(Ok(saved)) => Some(saved),
            Ok(Err(error)) => {
                tracing::debug!(%error, "what was asked last cannot be read");
                None
            }
            Err(_) => None,
        }
    }

    /// Look at what is saved, in a turn of one's own, where another process may have been asked meanwhile.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let other_may_own = self.running().as_ref().is_none_or(|running| {
            let phase = running.handle.report.borrow().phase;
            running.waits || matches!(phase, Phase::Pending | Phase::Stalled)
        });
        if other_may_own && let Some((saved, handled)) = self.saved().await {
            self.adopt(saved, &handled, false).await;
        }
    }

    /// Go on with what is saved. `owner`: this process owns the sync now, so that it may act on it.
    async fn adopt(self: &Arc<Self>, saved: Option<Document>, handled: &str, owner: bool) -> Look {
        let Some(saved) = saved else {
            if self.running().is_some() {
                tracing::warn!(
                    sync = self.base.id,
                    "its state was forgotten by another process: nothing is started"
                );
            }
            self.replace(None).await;
            self.known.send_replace(Known::Yes);
            return Look::Replaced;
        };
        let read = Wish::read(saved).and_then(|(wish, request)| {
            let config = self.config(&request).map_err(|error| error.to_string())?;
            Ok((wish.not_before(handled), request, config))
        });
        let (wish, request, config) = match read {
            Ok(read) => read,
            Err(why) => {
                self.replace(None).await;
                let _ = self.known.send_if_modified(|known| {
                    let news = !matches!(known, Known::Unusable(before) if *before == why);
                    if news {
                        tracing::error!("{why}");
                        *known = Known::Unusable(why);
                    }
                    news
                });
                return Look::Replaced;
            }
        };
        let same_run = self.running().as_ref().is_some_and(|running| running.wish.restart == wish.restart);
        let look = if same_run {
            self.update(wish, owner);
            Look::Kept
        } else {
            tracing::info!(sync = config.id, state = ?wish.state, "going on with what was asked before");
            self.replace(Some((config, wish, request))).await;
            Look::Replaced
        };
        self.known.send_replace(Known::Yes);
        look
    }

    fn update(&self, wish: Wish, owner: bool) {
        if let Some(running) = self.running().as_mut() {
            if running.wish != wish {
                tracing::info!(state = ?wish.state, "another process was asked: going on with that");
            }
            running.wish = wish;
            running.waits &= !owner;
            if !running.waits {
                running.tell(running.wish.desired());
            }
        }
    }

    /// Act on nothing until what is saved was looked at as the owner.
    fn hold(&self) {
        if let Some(running) = self.running().as_mut() {
            running.waits = true;
            running.tell(Desired { state: DesiredState::Paused, ..Desired::default() });
        }
    }

    /// As long as a run goes on: hold it while another process owns the sync, and look at what is saved.
    pub(super) async fn keep_up(self: Arc<Self>, mut report: watch::Receiver<Report>, run: String) {
        let (mut seen, mut done) = (0, None);
        loop {
            let (epoch, lost) = {
                let report = report.borrow_and_update();
                (report.epoch, lost_at(&report))
            };
            let owner = epoch != seen;
            if owner || (lost.is_some() && lost != done) {
                match self.look(&run, owner).await {
                    Look::Replaced => return,
                    Look::Kept if owner => {
                        (seen, done) = (epoch, lost);
                        continue;
                    }
                    Look::Kept | Look::Failed => {}
                }
                let again = report.wait_for(|report| !owner && report.epoch != seen);
                if matches!(tokio::time::timeout(LOOK_AGAIN, again).await, Ok(Err(_))) {
                    return;
                }
            } else if report.changed().await.is_err() {
                return;
            }
        }
    }

    async fn look(self: &Arc<Self>, run: &str, owner: bool) -> Look {
        let _turn = self.turn.lock().await;
        if self.running().as_ref().is_none_or(|running| running.wish.restart != run) {
            return Look::Replaced;
        }
        if !owner {
            self.hold();
        }
        match self.saved().await {
            Some((saved, handled)) => self.adopt(saved, &handled, owner).await,
            None => Look::Failed,
        }
    }

    /// `pauseOnInitialSync`: rest as soon as the target is consistent, once.
    pub(super) async fn rest_once(self: Arc<Self>, mut report: watch::Receiver<Report>, run: String) {
        while report.borrow_and_update().initial_sync.completed_at.is_none() {
            if report.changed().await.is_err() {
                return;
            }
        }
        loop {
            let turn = self.turn.lock().await;
            // It may have rested under another owner, and gone on.
            if let Some((saved, handled)) = self.saved().await
                && self.adopt(saved, &handled, false).await == Look::Kept
            {
                let (wish, waits) = match self.running().as_ref() {
                    Some(running) if running.wish.restart == run => (running.wish.clone(), running.waits),
                    _ => return,
                };
                if wish.rested {
                    return;
                }
                if !waits {
                    let state = if wish.state == Asked::Running { Asked::Paused } else { wish.state };
                    match self.wish(Wish { state, rested: true, ..wish }).await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::warn!(%error, "the pause after the initial sync is tried again");
                        }
                    }
                }
            }
            drop(turn);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// When an attempt last found that another process owns the sync.
fn lost_at(report: &Report) -> Option<Timestamp> {
    let elsewhere = [Reason::OwnedElsewhere.as_str(), Reason::OwnershipLost.as_str()];
    let error = report.replication.last_error.as_ref()?;
    elsewhere.contains(&error.reason.as_str()).then_some(error.at)
}
