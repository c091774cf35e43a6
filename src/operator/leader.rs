//! Which replica reconciles: leader election on a Lease, with client-go's timing.
//!
//! The Lease decides only who reconciles; who writes data is decided on the target. So a leader that cannot
//! renew because the apiserver is away goes on streaming and merely stops reconciling; it stops its syncs
//! when it sees that another has become leader.
//!
//! No clock is compared with another machine's: a Lease has expired when it has not changed for its
//! duration, as observed here. Writes carry the version that was read (compare and swap).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::sync::config::LeaseTerm;

/// As client-go has them.
const LEASE_SECONDS: i32 = 15;
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// No single request may use up the deadline.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Whether this process leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Another leads, or nobody yet.
    #[default]
    Standby,
    /// This process leads.
    Leading {
        /// The election and its term.
        term: LeaseTerm,
        /// The Lease was renewed within the deadline: reconciling is safe.
        renewed: bool,
    },
}

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: watch::Sender<Leadership>,
    answered: Arc<AtomicBool>,
    /// What was read last, and since when it has not changed.
    observed: Option<(LeaseSpec, Instant)>,
    /// The Lease's version when it was last read or written.
    version: Option<u64>,
    /// The highest number of transitions that was read or written.
    transitions: i32,
    renewed: Instant,
}

/// What one look at the Lease led to.
enum Turn {
    /// We hold it.
    Held(LeaseTerm),
    /// Another holds it.
    Theirs,
    /// Somebody was faster.
    Lost,
}

impl Candidate {
    /// `identity` must be unique to this process; `answered` is set once it is known who leads.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        identity: &str,
        answered: Arc<AtomicBool>,
    ) -> (Self, watch::Receiver<Leadership>) {
        let (leadership, receiver) = watch::channel(Leadership::Standby);
        let candidate = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            leadership,
            answered,
            observed: None,
            version: None,
            transitions: 0,
            renewed: Instant::now(),
        };
        (candidate, receiver)
    }

    /// Stand for election until `resign`, then give the Lease back so that a standby takes over at once.
    pub async fn run(mut self, resign: CancellationToken) {
        let mut complained = false;
        while !resign.is_cancelled() {
            match timeout(TIMEOUT, self.turn()).await {
                Ok(Ok(Turn::Held(term))) => {
                    complained = false;
                    self.answered.store(true, Ordering::Relaxed);
                    self.renewed = Instant::now();
                    self.lead(term);
                }
                Ok(Ok(Turn::Theirs)) => {
                    complained = false;
                    self.answered.store(true, Ordering::Relaxed);
                    self.follow();
                }
                Ok(Ok(Turn::Lost)) => {}
                Ok(Err(error)) => self.unanswered(&mut complained, &error.to_string()),
                Err(_) => self.unanswered(&mut complained, "no answer"),
            }
            tokio::select! {
                () = sleep(self.pause()) => {}
                () = resign.cancelled() => {}
            }
        }
        match timeout(TIMEOUT, self.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "lease not released; it will expire"),
            Err(_) => tracing::warn!("lease not released in time; it will expire"),
        }
        self.leadership.send_replace(Leadership::Standby);
    }

    async fn turn(&mut self) -> Result<Turn, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.record(0, None)),
            };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return self.settle(created);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        self.transitions = self.transitions.max(transitions);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() && !self.expired(&spec) {
            self.version = None;
            return Ok(Turn::Theirs);
        }
        // Older than it was: etcd has been restored from a backup. Watches would go on from versions that are yet to
        // come and miss what happens until they do; a new term reads everything anew. The restored Lease may name a
        // former leader that is long expired, so a term must be new among those that were, not only among those it knows.
        let rewound = version(&lease).zip(self.version).is_some_and(|(present, before)| present < before);
        let next = if ours && !rewound {
            self.record(transitions, spec.acquire_time.clone())
        } else {
            self.record(self.transitions.saturating_add(1), None)
        };
        let lease = Lease { spec: Some(next), ..lease };
        if rewound {
            tracing::warn!("restored from a backup? the Lease is older than it was: reading everything anew");
        }
        let written = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        self.settle(written)
    }

    /// Until the next look: at the latest the moment at which the Lease that was seen expires.
    fn pause(&self) -> Duration {
        let expires = self
            .observed
            .as_ref()
            .map(|(spec, since)| (*since + duration(spec)).saturating_duration_since(Instant::now()));
        match expires {
            Some(left) if !left.is_zero() && *self.leadership.borrow() == Leadership::Standby => {
                RETRY.min(left + Duration::from_millis(10))
            }
            _ => RETRY,
        }
    }

    /// Whether the Lease has not changed for its duration, as seen from here.
    fn expired(&mut self, spec: &LeaseSpec) -> bool {
        match &self.observed {
            Some((seen, since)) if seen == spec => since.elapsed() > duration(spec),
            _ => {
                self.observed = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn settle(&mut self, written: Result<Lease, kube::Error>) -> Result<Turn, kube::Error> {
        match written {
            Ok(lease) => {
                self.version = version(&lease);
                let transitions = lease.spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
                self.transitions = self.transitions.max(transitions);
                Ok(Turn::Held(LeaseTerm {
                    lease: lease.metadata.uid.unwrap_or_default(),
                    term: i64::from(transitions),
                }))
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Turn::Lost),
            Err(error) => Err(error),
        }
    }

    fn record(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn lead(&self, term: LeaseTerm) {
        let next = Leadership::Leading { term, renewed: true };
        self.leadership.send_if_modified(|leadership| {
            if *leadership == next {
                return false;
            }
            if *leadership == Leadership::Standby {
                tracing::info!(identity = self.identity, "leading");
            }
            *leadership = next;
            true
        });
    }

    fn follow(&self) {
        self.leadership.send_if_modified(|leadership| {
            let led = *leadership != Leadership::Standby;
            if led {
                tracing::warn!("another replica leads now");
            }
            *leadership = Leadership::Standby;
            led
        });
    }

    fn unanswered(&self, complained: &mut bool, error: &str) {
        if !*complained {
            if *self.leadership.borrow() == Leadership::Standby {
                tracing::warn!(
                    error,
                    "the lease cannot be read or taken: until it can, this replica does nothing"
                );
            } else {
                tracing::warn!(error, "the lease cannot be read or renewed; syncs go on");
            }
            *complained = true;
        }
        if self.renewed.elapsed() < RENEW_DEADLINE {
            return;
        }
        self.leadership.send_if_modified(|leadership| match leadership {
            Leadership::Leading { renewed, .. } if *renewed => {
                tracing::warn!("reconciling rests until the lease is renewed; syncs go on");
                *renewed = false;
                true
            }
            _ => false,
        });
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        // The number of transitions stays: a successor's term must be higher than ours.
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..self.record(spec.lease_transitions.unwrap_or(0), spec.acquire_time)
        };
        let lease = Lease { spec: Some(spec), ..lease };
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn version(lease: &Lease) -> Option<u64> {
    lease.metadata.resource_version.as_deref()?.parse().ok()
}
