//! The one sync of a process: started, steered and remembered. What is asked is saved on the target before it is
//! answered, so that a process that is killed goes on with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::request::{self, StartRequest};
use super::standing::{Call, Standing, State, allowed, state};
use super::status::Status;
use super::wish::{self, Asked, Wish};
use crate::sync::progress::Progress;
use crate::sync::{Desired, Handle, Phase, Report, Share, SyncConfig, lifecycle};

/// Every call is answered within five seconds.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// How long a call that takes effect at once in the usual case is waited for.
pub(super) const EFFECT: Duration = Duration::from_millis(3_500);

/// Between two looks for what was recorded, while the target does not answer.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The sync that was started.
pub(super) struct Running {
    pub(super) handle: Handle,
    desired: watch::Sender<Desired>,
    pub(super) wish: Wish,
    config: SyncConfig,
    /// Another process owns it: nothing is acted on until what that one was asked is known.
    pub(super) waits: bool,
}

impl Running {
    /// Wakes the engine only with news.
    pub(super) fn tell(&self, wanted: Desired) {
        self.desired.send_if_modified(|desired| {
            let news = *desired != wanted;
            *desired = wanted;
            news
        });
    }

    /// While it waits, its engine rests, or refuses what is not asked any more: neither is the sync's state.
    fn report(&self) -> Report {
        let mut report = self.handle.report.borrow().clone();
        if self.waits && matches!(report.phase, Phase::Paused | Phase::Stalled) {
            report.phase = Phase::Pending;
            report.reason = None;
            "taken over: looking at what was asked last".clone_into(&mut report.message);
        }
        report
    }
}

/// Whether it is known what was asked before.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Not yet, for this reason.
    NotYet(String),
    Yes,
    /// It is, but cannot be used, for this reason.
    Unusable(String),
}

/// Starts and steers one sync.
pub struct Control {
    pub(super) base: SyncConfig,
    share: Share,
    defaults: Map<String, Value>,
    lenient: bool,
    running: Mutex<Option<Running>>,
    closed: AtomicBool,
    pub(super) known: watch::Sender<Known>,
    /// One call that changes something at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Control {
    /// For the sync of `base`, whose scope and options are those of `/start`. `defaults` are its fields where a call
    /// does not give them; `lenient` ignores unknown ones.
    pub fn new(base: SyncConfig, defaults: Map<String, Value>, lenient: bool) -> Arc<Self> {
        Arc::new(Self {
            base,
            share: Share::single(),
            defaults,
            lenient,
            running: Mutex::default(),
            closed: AtomicBool::new(false),
            known: watch::channel(Known::NotYet("the target was not asked yet".to_owned())).0,
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether unknown fields are ignored.
    pub fn is_lenient(&self) -> bool {
        self.lenient
    }

    pub(super) fn config(&self, request: &StartRequest) -> Result<SyncConfig, request::RequestError> {
        let mut config = self.base.clone();
        config.scope = request::scope(request)?;
        config.initial_sync.on_existing_data = request.on_existing_data;
        config.initial_sync.skip_unsupported = request.skip_unsupported;
        config.initial_sync.parallel_collections = request.parallel_collections;
        config.initial_sync.readers_per_collection = request.readers;
        config.replication.lanes = request.lanes;
        config.limits.max_source_latency = request.max_source_latency;
        config.limits.max_replication_lag = request.max_replication_lag;
        Ok(config)
    }

    /// Stop what runs, and run this in its place.
    pub(super) async fn replace(self: &Arc<Self>, next: Option<(SyncConfig, Wish, StartRequest)>) {
        let before = self.running().take();
        if let Some(before) = before {
            before.handle.stop().await;
        }
        if let Some((config, wish, request)) = next {
            self.spawn(config, wish, &request);
        }
    }

    fn spawn(self: &Arc<Self>, config: SyncConfig, wish: Wish, request: &StartRequest) {
        let mut running = self.running();
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let (desired, receiver) = watch::channel(wish.desired());
        let handle = lifecycle::spawn(config.clone(), receiver, &self.share);
        tokio::spawn(Arc::clone(self).keep_up(handle.report.clone(), wish.restart.clone()));
        if request.pause_on_initial_sync && !wish.rested {
            tokio::spawn(Arc::clone(self).rest_once(handle.report.clone(), wish.restart.clone()));
        }
        *running = Some(Running { handle, desired, wish, config, waits: false });
    }

    /// Save a wish, then let it take effect.
    pub(super) async fn wish(&self, wish: Wish) -> Result<(), Refused> {
        let config =
            self.running().as_ref().map_or_else(|| self.base.clone(), |running| running.config.clone());
        wish::save(&config, &wish, EFFECT).await?;
        if let Some(running) = self.running().as_mut() {
            running.tell(wish.desired());
            running.wish = wish;
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        let running = self.running();
        let Some(running) = running.as_ref() else { return Standing::default() };
        let report = running.report();
        Standing {
            state: state(&running.wish.desired(), report.phase, report.reason),
            phase: Some(report.phase),
            asked_to_rest: running.wish.state == Asked::Paused,
            consistent: report.initial_sync.completed_at.is_some(),
            doing: report
                .replication
                .last_error
                .as_ref()
                .map_or_else(|| report.message.clone(), |error| error.message.clone()),
        }
    }

    /// Judged by what the sync is, also right after this process began: a finalized sync says so only once its state was
    /// read.
    async fn check(self: &Arc<Self>, call: Call) -> Result<Wish, Refused> {
        self.refresh().await;
        if call != Call::Start
            && self.running().is_none()
            && let Known::Unusable(why) = &*self.known.borrow()
        {
            return Err(Refused(format!("not started: {why}")));
        }
        self.settled(|report| report.phase != Phase::Pending || report.reason.is_some()).await;
        let standing = self.standing();
        let waits = self.running().as_ref().is_some_and(|running| running.waits);
        if waits && call != Call::Start {
            return Err(Refused(format!("not the owner of this sync: {}", standing.doing)));
        }
        allowed(call, &standing).map_err(Refused)?;
        Ok(self.running().as_ref().map(|running| running.wish.clone()).unwrap_or_default())
    }

    /// Answer within [`PATIENCE`], whatever the databases do. What was begun is finished all the same.
    async fn in_turn<F, T>(self: &Arc<Self>, call: impl FnOnce(Arc<Self>) -> F) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, Refused>> + Send + 'static,
        T: Send + 'static,
    {
        let (control, call) = (Arc::clone(self), call(Arc::clone(self)));
        let done = tokio::spawn(async move {
            // Outside of the turn, in which what was asked before is taken up.
            control.until_known().await?;
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
        let yes = known.wait_for(|known| !matches!(known, Known::NotYet(_)));
        let _ = tokio::time::timeout(EFFECT, yes).await;
        self.not_ready().map_or(Ok(()), |why| Err(Refused(why)))
    }

    /// Why nothing can be asked yet, if so.
    pub fn not_ready(&self) -> Option<String> {
        match &*self.known.borrow() {
            Known::NotYet(why) => Some(format!("not ready: {why}")),
            Known::Yes | Known::Unusable(_) => None,
        }
    }

    /// `/start`; what its caller should know, if anything.
    pub async fn start(self: &Arc<Self>, body: &Map<String, Value>) -> Result<Option<String>, Refused> {
        let body = request::with_defaults(body, &self.defaults);
        let request = request::parse(&body, self.lenient).map_err(|error| Refused(error.to_string()))?;
        let config = self.config(&request).map_err(|error| Refused(error.to_string()))?;
        let body = Value::Object(body).to_string();
        self.in_turn(|control| async move {
            let before = control.check(Call::Start).await?;
            let wish = Wish { body, restart: wish::token_after(&before.restart), ..Wish::default() };
            wish::save(&config, &wish, EFFECT).await?;
            if !request.without_use.is_empty() {
                let fields = request.without_use.join(", ");
                tracing::info!(fields, "accepted, but this engine has no use for them");
            }
            control.replace(Some((config, wish, request))).await;
            match control.known.send_replace(Known::Yes) {
                Known::Unusable(why) => Ok(Some(format!("replaced: {why}"))),
                _ => Ok(None),
            }
        })
        .await
    }

    /// `/pause`.
    pub async fn pause(self: &Arc<Self>) -> Result<(), Refused> {
        self.in_turn(|control| async move {
            let wish = control.check(Call::Pause).await?;
            control.wish(Wish { state: Asked::Paused, ..wish }).await?;
            control.settled(|report| report.phase != Phase::Streaming).await;
            Ok(())
        })
        .await
    }

    /// `/resume`.
    pub async fn resume(self: &Arc<Self>, from_failure: bool) -> Result<(), Refused> {
        self.in_turn(move |control| async move {
            let wish = control.check(Call::Resume { from_failure }).await?;
            let failed = control.standing().state == State::Failed;
            let state =
                if failed && wish.state == Asked::Completed { Asked::Completed } else { Asked::Running };
            let retry = if failed { wish::token_after(&wish.retry) } else { wish.retry.clone() };
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
            let again = control.standing().state == State::Finalized;
            let retry = if again { wish::token_after(&wish.retry) } else { wish.retry.clone() };
            control.wish(Wish { state: Asked::Completed, retry, ..wish }).await?;
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
        let state = self.standing().state;
        match self.running().as_ref() {
            None => Status::idle(match &*self.known.borrow() {
                Known::Yes => None,
                Known::NotYet(why) => Some(format!("not ready: {why}")),
                Known::Unusable(why) => Some(why.clone()),
            }),
            Some(running) => {
                let report = running.report();
                Status::of(state, &report, &running.handle.collections())
            }
        }
    }

    /// The report and the live numbers, once started.
    pub fn report(&self) -> Option<(Report, Arc<Progress>)> {
        let running = self.running();
        let running = running.as_ref()?;
        Some((running.report(), running.handle.progress()))
    }

    /// The sync's id.
    pub fn sync_id(&self) -> &str {
        &self.base.id
    }

    /// Stop cleanly, with a checkpoint. Nothing is started any more.
    pub async fn stop(&self) {
        let running = {
            let mut running = self.running();
            self.closed.store(true, Ordering::Relaxed);
            running.take()
        };
        if let Some(running) = running {
            running.handle.stop().await;
        }
    }
}
