//! The one sync of a process: started, steered and remembered. What is asked is saved on the target before it is
//! answered, so that a process that is killed goes on with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::{deserialize_from_document, serialize_to_document};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::request::{self, StartRequest};
use super::standing::{Call, State, allowed, state};
use super::status::Status;
use crate::sync::progress::Progress;
use crate::sync::{
    Desired, DesiredState, Error, Handle, Phase, Reason, Report, Share, SyncConfig, lifecycle,
};

/// Every call is answered within five seconds.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// How long a call that takes effect at once in the usual case is waited for.
const EFFECT: Duration = Duration::from_millis(3_500);

/// Between two looks for what was recorded, while the target does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What was asked, as it is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wish {
    /// The body of `/start`, as JSON.
    body: String,
    state: Standing,
    retry: String,
    restart: String,
    /// The rest of `pauseOnInitialSync` was taken.
    rested: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    #[default]
    Running,
    Paused,
    Completed,
}

impl Wish {
    fn desired(&self) -> Desired {
        let state = match self.state {
            Standing::Running => DesiredState::Running,
            Standing::Paused => DesiredState::Paused,
            Standing::Completed => DesiredState::Completed,
        };
        Desired { state, retry: self.retry.clone(), restart: self.restart.clone() }
    }
}

/// The sync that was started.
struct Running {
    handle: Handle,
    desired: watch::Sender<Desired>,
    wish: Wish,
    config: SyncConfig,
}

/// Whether it is known what was asked before this process began.
#[derive(Clone, Debug)]
enum Known {
    /// Not yet, for this reason.
    NotYet(String),
    Yes,
}

/// Starts and steers one sync.
pub struct Control {
    base: SyncConfig,
    share: Share,
    lenient: bool,
    running: Mutex<Option<Running>>,
    known: watch::Sender<Known>,
    /// One call that changes something at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Control {
    /// For the sync of `base`, whose scope and options are those of `/start`. `lenient` ignores unknown fields.
    pub fn new(base: SyncConfig, lenient: bool) -> Arc<Self> {
        Arc::new(Self {
            base,
            share: Share::single(),
            lenient,
            running: Mutex::default(),
            known: watch::channel(Known::NotYet("the target was not asked yet".to_owned())).0,
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Find what was asked before, and go on with it; or forget it, where `reset` says so. Tries until it succeeds.
    pub async fn recover(self: Arc<Self>, reset: bool, stop: CancellationToken) {
        loop {
            let found = async {
                if reset {
                    lifecycle::delete_state(&self.base).await?;
                    tracing::info!(sync = self.base.id, "this sync's durable state is forgotten");
                    return Ok(None);
                }
                lifecycle::load_wish(&self.base).await
            };
            let outcome: Result<_, Error> = tokio::select! {
                found = found => found,
                () = stop.cancelled() => return,
            };
            match outcome {
                Ok(None) => break,
                Ok(Some(wish)) => {
                    match deserialize_from_document::<Wish>(wish) {
                        Ok(wish) => self.take_up(wish),
                        Err(error) => tracing::error!(%error, "what was asked before cannot be read"),
                    }
                    break;
                }
                Err(error) => {
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
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
        let _ = self.known.send_replace(Known::Yes);
    }

    fn take_up(self: &Arc<Self>, wish: Wish) {
        let body: Map<String, Value> = serde_json::from_str(&wish.body).unwrap_or_default();
        match request::parse(&body, true).and_then(|request| Ok((self.config(&request)?, request))) {
            Ok((config, request)) => {
                tracing::info!(sync = config.id, state = ?wish.state, "going on with what was asked before");
                self.spawn(config, wish, &request);
            }
            Err(error) => tracing::error!(%error, "what was asked before cannot be used"),
        }
    }

    fn config(&self, request: &StartRequest) -> Result<SyncConfig, request::RequestError> {
        let mut config = self.base.clone();
        config.scope = request::scope(request)?;
        config.initial_sync.on_existing_data = request.on_existing_data;
        config.initial_sync.skip_unsupported = request.skip_unsupported;
        config.initial_sync.parallel_collections = request.parallel_collections;
        config.initial_sync.readers_per_collection = request.readers;
        config.replication.lanes = request.lanes;
        Ok(config)
    }

    fn spawn(self: &Arc<Self>, config: SyncConfig, wish: Wish, request: &StartRequest) {
        let (desired, receiver) = watch::channel(wish.desired());
        let handle = lifecycle::spawn(config.clone(), receiver, &self.share);
        if request.pause_on_initial_sync && !wish.rested {
            tokio::spawn(Arc::clone(self).rest_once(handle.report.clone()));
        }
        *self.running() = Some(Running { handle, desired, wish, config });
    }

    /// `pauseOnInitialSync`: rest as soon as the target is consistent, once.
    async fn rest_once(self: Arc<Self>, mut report: watch::Receiver<Report>) {
        while report.borrow_and_update().initial_sync.completed_at.is_none() {
            if report.changed().await.is_err() {
                return;
            }
        }
        loop {
            let turn = self.turn.lock().await;
            let Some(wish) = self.running().as_ref().map(|running| running.wish.clone()) else { return };
            if wish.rested {
                return;
            }
            let state = if wish.state == Standing::Running { Standing::Paused } else { wish.state };
            match self.wish(Wish { state, rested: true, ..wish }).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the pause after the initial sync is tried again"),
            }
            drop(turn);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Save a wish, then let it take effect.
    async fn wish(&self, wish: Wish) -> Result<(), Refused> {
        let config =
            self.running().as_ref().map_or_else(|| self.base.clone(), |running| running.config.clone());
        save(&config, &wish).await?;
        if let Some(running) = self.running().as_mut() {
            running.desired.send_replace(wish.desired());
            running.wish = wish;
        }
        Ok(())
    }

    fn standing(&self) -> (State, Option<Phase>, bool) {
        let running = self.running();
        let Some(running) = running.as_ref() else { return (State::Idle, None, false) };
        let report = running.handle.report.borrow();
        let consistent = report.initial_sync.completed_at.is_some();
        (state(&running.wish.desired(), report.phase), Some(report.phase), consistent)
    }

    /// Judged by what the sync is, also right after this process began: a finalized sync says so only once its state was
    /// read.
    async fn check(&self, call: Call) -> Result<Wish, Refused> {
        self.settled(|report| report.phase != Phase::Pending || report.reason.is_some()).await;
        let (state, phase, consistent) = self.standing();
        allowed(call, state, phase, consistent).map_err(|why| Refused(why.to_owned()))?;
        Ok(self.running().as_ref().map(|running| running.wish.clone()).unwrap_or_default())
    }

    /// Answer within [`PATIENCE`], whatever the databases do. What was begun is finished all the same.
    async fn in_turn<F>(self: &Arc<Self>, call: impl FnOnce(Arc<Self>) -> F) -> Result<(), Refused>
    where
        F: Future<Output = Result<(), Refused>> + Send + 'static,
    {
        let (control, call) = (Arc::clone(self), call(Arc::clone(self)));
        let done = tokio::spawn(async move {
            let _turn = control.turn.lock().await;
            call.await
        });
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(ended)) => Err(Refused(format!("the call ended unexpectedly: {ended}"))),
            Err(_) => {
                Err(Refused("the databases did not answer in time; see /status, and try again".to_owned()))
            }
        }
    }

    async fn until_known(&self) -> Result<(), Refused> {
        let mut known = self.known.subscribe();
        let yes = known.wait_for(|known| matches!(known, Known::Yes));
        if tokio::time::timeout(EFFECT, yes).await.is_ok() {
            return Ok(());
        }
        match &*self.known.borrow() {
            Known::Yes => Ok(()),
            Known::NotYet(why) => Err(Refused(format!("not ready: {why}"))),
        }
    }

    /// `/start`.
    pub async fn start(self: &Arc<Self>, body: &Map<String, Value>) -> Result<(), Refused> {
        let request = request::parse(body, self.lenient).map_err(|error| Refused(error.to_string()))?;
        let config = self.config(&request).map_err(|error| Refused(error.to_string()))?;
        let body = Value::Object(body.clone()).to_string();
        self.in_turn(|control| async move {
            control.until_known().await?;
            control.check(Call::Start).await?;
            let wish = Wish { body, restart: token(), ..Wish::default() };
            save(&config, &wish).await?;
            if !request.without_use.is_empty() {
                let fields = request.without_use.join(", ");
                tracing::info!(fields, "accepted, but this engine has no use for them");
            }
            let before = control.running().take();
            if let Some(before) = before {
                before.handle.stop().await;
            }
            control.spawn(config, wish, &request);
            Ok(())
        })
        .await
    }

    /// `/pause`.
    pub async fn pause(self: &Arc<Self>) -> Result<(), Refused> {
        self.in_turn(|control| async move {
            let wish = control.check(Call::Pause).await?;
            control.wish(Wish { state: Standing::Paused, ..wish }).await?;
            control.settled(|report| report.phase != Phase::Streaming).await;
            Ok(())
        })
        .await
    }

    /// `/resume`.
    pub async fn resume(self: &Arc<Self>, from_failure: bool) -> Result<(), Refused> {
        self.in_turn(move |control| async move {
            let wish = control.check(Call::Resume { from_failure }).await?;
            let failed = control.standing().0 == State::Failed;
            let state = if failed && wish.state == Standing::Completed {
                Standing::Completed
            } else {
                Standing::Running
            };
            let retry = if failed { token() } else { wish.retry.clone() };
            control.wish(Wish { state, retry, ..wish }).await?;
            control.settled(|report| !matches!(report.phase, Phase::Stalled | Phase::Paused)).await;
            Ok(())
        })
        .await
    }

    /// `/finalize`: works on in the background.
    pub async fn finalize(self: &Arc<Self>) -> Result<(), Refused> {
        self.in_turn(|control| async move {
            let wish = control.check(Call::Finalize).await?;
            let again = control.standing().0 == State::Finalized;
            let retry = if again { token() } else { wish.retry.clone() };
            control.wish(Wish { state: Standing::Completed, retry, ..wish }).await?;
            if again {
                control.settled(|report| report.phase != Phase::Completed).await;
            }
            Ok(())
        })
        .await
    }

    /// Give a wish the time that it usually needs to be seen in the report.
    async fn settled(&self, seen: impl Fn(&Report) -> bool) {
        let report = self.running().as_ref().map(|running| running.handle.report.clone());
        if let Some(mut report) = report {
            let _ =
                tokio::time::timeout(Duration::from_secs(1), report.wait_for(|report| seen(report))).await;
        }
    }

    /// `/status`.
    pub fn status(&self) -> Status {
        let (state, ..) = self.standing();
        match self.running().as_ref() {
            None => Status::idle(match &*self.known.borrow() {
                Known::Yes => None,
                Known::NotYet(why) => Some(format!("not ready: {why}")),
            }),
            Some(running) => {
                let report = running.handle.report.borrow().clone();
                Status::of(state, &report, &running.handle.collections())
            }
        }
    }

    /// The report and the live numbers, once started.
    pub fn report(&self) -> Option<(Report, Arc<Progress>)> {
        let running = self.running();
        let handle = &running.as_ref()?.handle;
        let report = handle.report.borrow().clone();
        Some((report, handle.progress()))
    }

    /// The sync's id.
    pub fn sync_id(&self) -> &str {
        &self.base.id
    }

    /// Stop cleanly, with a checkpoint.
    pub async fn stop(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.handle.stop().await;
        }
    }
}

async fn save(config: &SyncConfig, wish: &Wish) -> Result<(), Refused> {
    let wish = serialize_to_document(wish).map_err(|error| Refused(error.to_string()))?;
    match tokio::time::timeout(EFFECT, lifecycle::save_wish(config, wish)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Refused(error.explain())),
        Err(_) => Err(Refused(format!("the target does not answer. {}", Reason::TargetUnreachable.remedy()))),
    }
}

/// A token that was never used before.
fn token() -> String {
    jiff::Timestamp::now().to_string()
}
