//! `clustersync operator`: run the syncs that `ClusterSync` resources ask for.

use std::env;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::operator::launch::Launcher;
use crate::operator::{self, OperatorError, Options};
use crate::service::health::{self, Metrics, NotReady};
use crate::sync::Share;
use crate::telemetry::metrics::{self, Labels};

/// Namespaces are at most this long, and pod names too for our purposes.
const MAX_HOST: usize = 253;

/// Flags of `clustersync operator`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // `--help` shows these texts as they are.
pub struct OperatorArgs {
    /// Namespaces whose ClusterSyncs are run: a comma-separated list, or * for all. Default: the operator's
    /// own namespace (environment variable POD_NAMESPACE, else that of the kubeconfig's context).
    #[arg(long, value_name = "LIST", value_delimiter = ',', env = "WATCH_NAMESPACES")]
    pub watch_namespaces: Vec<String>,

    /// Namespace of the Lease that elects one replica. Default: the operator's own namespace.
    #[arg(long, value_name = "NAMESPACE", env = "LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of that Lease. Two operators that watch different namespaces need different names, or different
    /// namespaces for their Leases.
    #[arg(long, value_name = "NAME", default_value = "clustersync-operator", env = "LEASE_NAME")]
    pub lease_name: String,

    /// Read only Secrets that carry the label clustersync.dev/use: "true". Without it, whoever may create a
    /// ClusterSync can use every Secret of that namespace.
    #[arg(long, env = "REQUIRE_SECRET_LABEL")]
    pub require_secret_label: bool,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", env = "LISTEN")]
    pub listen: SocketAddr,

    /// Syncs that clone at a time in this process; the others wait (phase Pending, reason Queued).
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256), env = "MAX_CLONES")]
    pub max_clones: u16,

    /// Memory that all syncs together may hold in queues and commands, in MiB, beyond what clones hold (32 MiB
    /// each). One sync alone holds 114 MiB at most.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(128..=1_048_576), env = "QUEUE_MEMORY_MIB")]
    pub queue_memory_mib: u64,

    /// Requests a second to the apiserver, on average.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = rate, env = "REQUESTS_PER_SECOND")]
    pub requests_per_second: f64,
}

/// Run until `shutdown`.
pub async fn run(args: OperatorArgs, shutdown: CancellationToken) -> Result<(), OperatorCommandError> {
    let share = Share::new(args.max_clones.into(), args.queue_memory_mib << 20);
    let launcher = Arc::new(Launcher::new(share));
    let config = kube::Config::infer().await?;
    let own = env::var("POD_NAMESPACE")
        .ok()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| config.default_namespace.clone());
    let options = Options {
        namespaces: watched(&args.watch_namespaces, &own),
        lease_namespace: args.lease_namespace.unwrap_or(own),
        lease_name: args.lease_name,
        identity: identity(),
        require_secret_label: args.require_secret_label,
        requests_per_second: args.requests_per_second,
        answered: Arc::default(),
    };
    tracing::info!(
        identity = options.identity,
        namespaces =
            if options.namespaces.is_empty() { "*".to_owned() } else { options.namespaces.join(",") },
        "operator started"
    );
    let reports = Arc::clone(&launcher);
    let metrics: Metrics = Arc::new(move || {
        let labelled = reports.reports().into_iter();
        let labelled =
            labelled.map(|(key, report)| (Labels { namespace: key.namespace, name: key.name }, report));
        metrics::render(&labelled.collect::<Vec<_>>())
    });
    // Once only: a leader or a standby that is cut off later has nothing that it could do better.
    let elections = options.answered.clone();
    let not_ready: NotReady = Arc::new(move || {
        (!elections.load(Ordering::Relaxed))
            .then_some("the Lease has not been read and written yet; see the log")
    });
    let served = health::spawn_when(args.listen, metrics, not_ready, shutdown.clone())
        .map_err(|error| OperatorCommandError::Listen(args.listen, error))?;
    let operated = operator::run(config, options, launcher, shutdown.clone());
    tokio::pin!(operated);
    tokio::select! {
        outcome = &mut operated => outcome?,
        served = served => {
            if let Ok(Err(error)) = served {
                tracing::error!(%error, "health and metrics are not served any more");
            }
            operated.await?;
        }
    }
    Ok(())
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorCommandError {
    /// Neither in a pod nor with a kubeconfig.
    #[error("no Kubernetes cluster to talk to: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// The port is taken, or may not be used.
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, std::io::Error),
    /// The operator itself.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

/// Empty means all.
fn watched(wish: &[String], own: &str) -> Vec<String> {
    let mut namespaces: Vec<String> =
        wish.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if namespaces.iter().any(|name| name == "*") {
        return Vec::new();
    }
    namespaces.sort();
    namespaces.dedup();
    if namespaces.is_empty() { vec![own.to_owned()] } else { namespaces }
}

/// The pod's or host's name, and a part that tells two processes of one pod apart.
pub fn identity() -> String {
    let host = env::var("POD_NAME")
        .or_else(|_| env::var("HOSTNAME"))
        .ok()
        .or_else(|| fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok())
        .map(|name| name.trim().chars().take(MAX_HOST).collect::<String>())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "clustersync".to_owned());
    let random = RandomState::new().hash_one(std::process::id());
    format!("{host}_{random:016x}")
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number between 0.1 and 10000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{identity, watched};

    #[test]
    fn namespaces_are_the_own_one_a_list_or_all() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(watched(&[], "own"), list(&["own"]));
        assert_eq!(watched(&list(&["b", " a", "b", ""]), "own"), list(&["a", "b"]));
        assert!(watched(&list(&["a", "*"]), "own").is_empty());
    }

    #[test]
    fn no_two_processes_have_one_identity() {
        assert_ne!(identity(), identity());
    }
}
