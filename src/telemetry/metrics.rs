//! Metrics, made from the reports at each scrape: what is gone leaves no series behind.

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::sync::error::Reason;
use crate::sync::report::{Phase, Report};

/// Which sync a report is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The resource's namespace; empty without Kubernetes.
    pub namespace: String,
    /// The resource's name, or the sync's id without Kubernetes.
    pub name: String,
}

const LABELS: &[&str] = &["namespace", "name"];

const PHASES: [Phase; 9] = [
    Phase::Pending,
    Phase::Preflight,
    Phase::Cloning,
    Phase::CatchingUp,
    Phase::Streaming,
    Phase::Paused,
    Phase::Completing,
    Phase::Completed,
    Phase::Stalled,
];

type Number = fn(&Report) -> Option<f64>;

/// Gauges: name, help, value.
const GAUGES: &[(&str, &str, Number)] = &[
    ("lag_seconds", "How far the target is behind the source.", |r| r.replication.lag_seconds.map(float)),
    ("checkpoint_timestamp_seconds", "Source time up to which everything is applied and durable.", |r| {
        r.replication.checkpoint_time.map(|time| f64::from(time.seconds))
    }),
    ("applied_timestamp_seconds", "Source time up to which everything is applied.", |r| {
        r.replication.applied_time.map(|time| f64::from(time.seconds))
    }),
    ("source_oplog_window_seconds", "Seconds that the source's oplog holds.", |r| {
        r.source.oplog_window_seconds.map(float)
    }),
    ("clone_collections", "Collections in scope at the start.", |r| count(r.initial_sync.collections_total)),
    ("clone_collections_done", "Collections wholly copied.", |r| count(r.initial_sync.collections_done)),
    ("clone_partitions", "Partitions planned so far.", |r| count(r.initial_sync.partitions_total)),
    ("clone_partitions_done", "Partitions wholly copied, over all runs.", |r| {
        count(r.initial_sync.partitions_done)
    }),
    ("clone_documents", "Documents copied, over all runs.", |r| count(r.initial_sync.documents)),
    ("clone_documents_expected", "Documents expected, by statistics.", |r| {
        count(r.initial_sync.documents_total)
    }),
    ("clone_bytes", "BSON bytes copied, over all runs.", |r| count(r.initial_sync.bytes)),
    ("clone_bytes_expected", "BSON bytes expected, by statistics.", |r| count(r.initial_sync.bytes_total)),
    ("queued_bytes", "Bytes held in queues.", |r| count(r.replication.queued_bytes)),
    ("pace_ratio", "How fast the sync goes; below 1 while it spares the source or the target.", |r| {
        Some(r.throttling.as_ref().map_or(1.0, |throttling| f64::from(throttling.pace_percent) / 100.0))
    }),
    ("lanes", "Lanes that apply events in parallel.", |r| Some(f64::from(r.replication.lanes))),
    ("owner_epoch", "The number that fences; grows with each take-over.", |r| Some(float(r.epoch))),
    ("source_connected", "Whether the source answers.", |r| {
        r.source.connected.map(|yes| f64::from(u8::from(yes)))
    }),
    ("target_connected", "Whether the target answers.", |r| {
        r.target.connected.map(|yes| f64::from(u8::from(yes)))
    }),
    ("unsuccessful_indexes", "Indexes that the cutover could not restore.", |r| {
        r.completion.as_ref().and_then(|completion| count(completion.unsuccessful_indexes.len() as u64))
    }),
];

type Count = fn(&Report) -> u64;

/// Counters of this process: name, help, value.
const COUNTERS: &[(&str, &str, Count)] = &[
    ("events_read_total", "Change events read from the source.", |r| r.replication.events_read),
    ("events_applied_total", "Change events applied to the target.", |r| r.replication.events_applied),
    ("clone_partitions_copied_total", "Partitions that this process finished.", |r| {
        r.initial_sync.partitions_copied
    }),
    ("clone_documents_copied_total", "Documents that this process copied.", |r| {
        r.initial_sync.documents_copied
    }),
    ("clone_bytes_copied_total", "BSON bytes that this process copied.", |r| r.initial_sync.bytes_copied),
];

#[allow(clippy::cast_precision_loss)]
fn float(number: i64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, clippy::unnecessary_wraps)]
fn count(number: u64) -> Option<f64> {
    Some(number as f64)
}

/// The exposition of these syncs in Prometheus' text format.
pub fn render(syncs: &[(Labels, Report)]) -> Result<String, prometheus::Error> {
    let registry = Registry::new_custom(Some("clustersync".to_owned()), None)?;
    let build = IntGaugeVec::new(Opts::new("build_info", "The version that runs; always 1."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    for (name, help, value) in GAUGES {
        let gauge = GaugeVec::new(Opts::new(*name, *help), LABELS)?;
        for (labels, report) in syncs {
            if let Some(value) = value(report) {
                gauge.with_label_values(&[&labels.namespace, &labels.name]).set(value);
            }
        }
        registry.register(Box::new(gauge))?;
    }
    for (name, help, value) in COUNTERS {
        let counter = IntCounterVec::new(Opts::new(*name, *help), LABELS)?;
        for (labels, report) in syncs {
            counter.with_label_values(&[&labels.namespace, &labels.name]).inc_by(value(report));
        }
        registry.register(Box::new(counter))?;
    }
    states(&registry, syncs)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn states(registry: &Registry, syncs: &[(Labels, Report)]) -> Result<(), prometheus::Error> {
    let phases = IntGaugeVec::new(
        Opts::new("phase", "1 for the phase that the sync is in, 0 for the others."),
        &["namespace", "name", "phase"],
    )?;
    let errors = IntGaugeVec::new(
        Opts::new("last_error_attempts", "Failed attempts in a row, by the reason of the last."),
        &["namespace", "name", "reason"],
    )?;
    for (labels, report) in syncs {
        for phase in PHASES {
            let value = i64::from(report.phase == phase);
            phases.with_label_values(&[&labels.namespace, &labels.name, phase.as_str()]).set(value);
        }
        // Reasons are a bounded set: whatever else stands in the report makes no series.
        if let Some(error) = &report.replication.last_error
            && let Some(reason) = Reason::ALL.iter().find(|reason| reason.as_str() == error.reason)
        {
            let attempts = i64::from(error.attempts);
            errors.with_label_values(&[&labels.namespace, &labels.name, reason.as_str()]).set(attempts);
        }
    }
    registry.register(Box::new(phases))?;
    registry.register(Box::new(errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_has_its_series_and_leaves_none_behind() {
        let labels = Labels { namespace: "ns".into(), name: "a".into() };
        let report = Report { phase: Phase::Streaming, ..Report::default() };
        let text = render(&[(labels, report)]).unwrap();
        assert!(text.contains(r#"clustersync_phase{name="a",namespace="ns",phase="Streaming"} 1"#), "{text}");
        assert!(text.contains(r#"clustersync_events_applied_total{name="a",namespace="ns"} 0"#), "{text}");
        assert!(!text.contains("clustersync_lag_seconds{"), "unknown lag is no number");
        assert!(!render(&[]).unwrap().contains("name="));
    }

    #[test]
    fn every_metric_is_in_the_reference() {
        let reference = include_str!("../../docs/metrics.md");
        let error = crate::sync::report::LastError {
            reason: Reason::Interrupted.as_str().to_owned(),
            ..Default::default()
        };
        let mut report = Report::default();
        report.replication.last_error = Some(error);
        let text = render(&[(Labels { namespace: "n".into(), name: "a".into() }, report)]).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let names: Vec<&str> = names
            .chain(GAUGES.iter().map(|gauge| gauge.0))
            .chain(COUNTERS.iter().map(|counter| counter.0))
            .collect();
        assert!(names.len() > 20);
        for name in names {
            let name = name.strip_prefix("clustersync_").unwrap_or(name);
            let documented =
                ["`", "{"].iter().any(|end| reference.contains(&format!("`clustersync_{name}{end}")));
            assert!(documented, "{name} is not in docs/metrics.md");
        }
    }
}
