//! The operator: reconciles `ClusterSync` resources by running their syncs in this process.
//!
//! One replica leads ([`leader`]); it watches resources ([`controller`]), decides ([`decide`]) and runs
//! syncs ([`launch`]). Each resource has a task that keeps its status ([`publish`], [`cadence`], [`patch`])
//! and [`events`]. The election runs on a thread of its own: the engine's load must not starve a renewal.

pub mod cadence;
pub mod cleanup;
pub mod controller;
pub mod decide;
pub mod dereference;
pub mod events;
pub mod launch;
pub mod leader;
pub mod patch;
pub mod publish;
pub mod requests;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{oneshot, watch as watched};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::sync::config::LeaseTerm;

use self::controller::Context;
use self::events::Events;
use self::launch::Launcher;
use self::leader::{Candidate, Leadership};
use self::requests::Requests;

/// How long reconciles under way may take to finish when the operator stops.
const LAST_RECONCILES: Duration = Duration::from_secs(1);

/// What the operator is told by its flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces to watch; empty means all.
    pub namespaces: Vec<String>,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// Unique to this process: pod or host name and a random part.
    pub identity: String,
    /// Read only Secrets that carry the label.
    pub require_secret_label: bool,
    /// Requests a second to the apiserver, on average.
    pub requests_per_second: f64,
    /// Set once the election has had an answer: this process leads, or another does.
    pub answered: Arc<AtomicBool>,
}

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No usable kubeconfig or service account, or TLS cannot be set up.
    #[error("no way to the apiserver: {0}")]
    Client(#[from] kube::Error),
    /// The operating system gave no thread or runtime.
    #[error("the election cannot be run: {0}")]
    Thread(#[from] std::io::Error),
    /// The election's thread ended.
    #[error("the election ended unexpectedly")]
    ElectionEnded,
    /// The controllers ended while this process led.
    #[error("the controllers ended unexpectedly; another replica, or a restart, takes over")]
    ControllersEnded,
}

/// Run until `shutdown`: then stop the syncs cleanly, and give the Lease back.
pub async fn run(
    config: kube::Config,
    options: Options,
    launcher: Arc<Launcher>,
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let client = kube::Client::try_from(config.clone())?;
    let requests = Arc::new(Requests::new(options.requests_per_second));
    let resign = CancellationToken::new();
    let mut election = Election::start(config, &options, resign.clone()).await?;
    let outcome = loop {
        let Some(term) = election.won(&shutdown).await? else { break Ok(()) };
        let events = Events::start(client.clone(), &options.identity, requests.clone());
        let context = Arc::new(Context::new(
            client.clone(),
            requests.clone(),
            launcher.clone(),
            events,
            options.identity.clone(),
            term.clone(),
            election.leadership.clone(),
            options.require_secret_label,
        ));
        launcher.open();
        let over = CancellationToken::new();
        let controllers = tokio::spawn(watch_all(options.namespaces.clone(), context, over.clone()));
        let deposed = reign(controllers, election.lost(&term, &shutdown), &over).await;
        // A successor's engine fences ours anyway; stopping first spares it the wait.
        launcher.stop_all(matches!(deposed, Ok(Deposed::Shutdown))).await;
        match deposed {
            Ok(Deposed::Shutdown) => break Ok(()),
            Ok(Deposed::ByAnother) => {}
            Err(error) => break Err(error),
        }
    };
    resign.cancel();
    election.ended().await;
    outcome
}

/// Lead until that is `lost`. Afterwards nothing of the controllers runs. Should they end by themselves, as only a bug can
/// make them, that is an error: a leader that does nothing would keep others from leading.
async fn reign(
    mut controllers: JoinHandle<()>,
    lost: impl Future<Output = Result<Deposed, OperatorError>>,
    over: &CancellationToken,
) -> Result<Deposed, OperatorError> {
    tokio::select! {
        deposed = lost => {
            over.cancel();
            if timeout(LAST_RECONCILES, &mut controllers).await.is_err() {
                controllers.abort();
                let _ = controllers.await;
            }
            deposed
        }
        ended = &mut controllers => {
            let error = ended.err().map(|error| error.to_string());
            tracing::error!(error, "the controllers ended by themselves");
            Err(OperatorError::ControllersEnded)
        }
    }
}

/// Until stopped, or until one of them ends before that.
async fn watch_all(namespaces: Vec<String>, context: Arc<Context>, stop: CancellationToken) {
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let mut controllers: FuturesUnordered<_> =
        scopes.into_iter().map(|scope| watch::watch(scope, context.clone(), stop.clone())).collect();
    while controllers.next().await.is_some() && stop.is_cancelled() {}
}

/// How a reign ended.
enum Deposed {
    /// This process is to stop.
    Shutdown,
    /// Another replica leads, or we lead in a later term.
    ByAnother,
}

/// The election's thread.
struct Election {
    leadership: watched::Receiver<Leadership>,
    ended: oneshot::Receiver<()>,
}

impl Election {
    async fn start(
        config: kube::Config,
        options: &Options,
        resign: CancellationToken,
    ) -> Result<Self, OperatorError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let Options { lease_namespace, lease_name, identity, answered, .. } = options.clone();
        thread::Builder::new().name("election".to_owned()).spawn(move || {
            runtime.block_on(async move {
                // A client belongs to the runtime that it was made on.
                let client = match kube::Client::try_from(config) {
                    Ok(client) => client,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let (candidate, leadership) =
                    Candidate::new(client, &lease_namespace, &lease_name, &identity, answered);
                if ready.send(Ok(leadership)).is_ok() {
                    candidate.run(resign).await;
                }
            });
            let _ = end.send(());
        })?;
        let leadership = started.await.map_err(|_| OperatorError::ElectionEnded)??;
        Ok(Self { leadership, ended })
    }

    /// Wait to be leader; none when shutdown comes first.
    async fn won(&mut self, shutdown: &CancellationToken) -> Result<Option<LeaseTerm>, OperatorError> {
        loop {
            if let Leadership::Leading { term, .. } = &*self.leadership.borrow_and_update() {
                return Ok(Some(term.clone()));
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                changed = self.leadership.changed() => {
                    changed.map_err(|_| OperatorError::ElectionEnded)?;
                }
            }
        }
    }

    /// Wait for the end of a term.
    async fn lost(
        &mut self,
        term: &LeaseTerm,
        shutdown: &CancellationToken,
    ) -> Result<Deposed, OperatorError> {
        loop {
            match &*self.leadership.borrow_and_update() {
                Leadership::Leading { term: present, .. } if present == term => {}
                _ => return Ok(Deposed::ByAnother),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Deposed::Shutdown),
                changed = self.leadership.changed() => {
                    changed.map_err(|_| OperatorError::ElectionEnded)?;
                }
            }
        }
    }

    async fn ended(self) {
        // Sent, or dropped with the thread: either way it is over.
        let _ = self.ended.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{Deposed, OperatorError, reign};

    #[tokio::test(start_paused = true)]
    async fn no_reconcile_outlives_the_term() {
        struct Running(Arc<AtomicBool>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.store(false, Ordering::SeqCst);
            }
        }
        let running = Arc::new(AtomicBool::new(true));
        let reconcile = Running(running.clone());
        let controllers = tokio::spawn(async move {
            let _reconcile = reconcile;
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
        let over = CancellationToken::new();
        let deposed = reign(controllers, async { Ok(Deposed::ByAnother) }, &over).await;
        assert!(matches!(deposed, Ok(Deposed::ByAnother)) && over.is_cancelled());
        assert!(!running.load(Ordering::SeqCst), "a reconcile still runs");
    }

    #[tokio::test]
    async fn a_leader_whose_controllers_ended_gives_up() {
        let ended = [tokio::spawn(async { panic!("as a bug would") }), tokio::spawn(async {})];
        for controllers in ended {
            let lost = std::future::pending();
            let given_up = reign(controllers, lost, &CancellationToken::new()).await;
            assert!(matches!(given_up, Err(OperatorError::ControllersEnded)));
        }
    }
}
