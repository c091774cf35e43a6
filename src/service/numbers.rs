//! `/metrics` of a process that runs one sync: our own names, and those that dashboards of this API query.

use std::fmt::Write;

use crate::sync::Report;
use crate::sync::progress::{BATCH_BOUNDS, Counter, LaneNumbers, MILLIS_BOUNDS, Progress};
use crate::telemetry::metrics::{self, Labels};

const PREFIX: &str = "percona_clustersync_mongodb_";

/// The whole text.
pub fn render(
    sync_id: &str,
    sync: Option<&(Report, std::sync::Arc<Progress>)>,
) -> Result<String, prometheus::Error> {
    let labels = || Labels { namespace: String::new(), name: sync_id.to_owned() };
    let reports: Vec<(Labels, Report)> =
        sync.map(|(report, _)| (labels(), report.clone())).into_iter().collect();
    let mut text = metrics::render(&reports)?;
    match sync {
        Some((report, progress)) => of_sync(&mut text, report, progress),
        None => of_sync(&mut text, &Report::default(), &Progress::default()),
    }
    Ok(text)
}

fn of_sync(text: &mut String, report: &Report, progress: &Progress) {
    let clone = &report.initial_sync;
    let lag = report.replication.lag_seconds.unwrap_or(0);
    let initial_lag = if clone.completed_at.is_some() { 0 } else { lag };
    let waiting = progress.events_read.get().saturating_sub(progress.events_applied.get());
    for (name, help, value) in [
        ("events_read_total", "Events read from the source.", progress.events_read.get()),
        ("events_applied_total", "Events applied to the target.", progress.events_applied.get()),
        ("copy_read_size_bytes_total", "Bytes that the clone read.", progress.bytes_read.get()),
        ("copy_insert_size_bytes_total", "Bytes that the clone wrote.", progress.bytes_copied.get()),
        ("copy_read_document_total", "Documents that the clone read.", progress.documents_read.get()),
        ("copy_insert_document_total", "Documents that the clone wrote.", progress.documents_copied.get()),
    ] {
        sample(text, name, "counter", help, value);
    }
    sample(text, "estimated_total_size_bytes", "gauge", "Bytes to clone, by statistics.", clone.bytes_total);
    sample(text, "lag_time_seconds", "gauge", "How far the target is behind the source.", lag);
    let help = "How far it was behind before the initial sync was complete.";
    sample(text, "initial_sync_lag_time_seconds", "gauge", help, initial_lag);
    let help = "How long the clone's last batch took to read.";
    sample(text, "copy_read_batch_duration_seconds", "gauge", help, seconds(&progress.read_micros));
    let help = "How long the clone's last batch took to write.";
    sample(text, "copy_insert_batch_duration_seconds", "gauge", help, seconds(&progress.write_micros));
    sample(text, "repl_event_queue_size", "gauge", "Events read and not applied.", waiting);
    of_lanes(text, &progress.lanes());
}

fn of_lanes(text: &mut String, lanes: &[std::sync::Arc<LaneNumbers>]) {
    head(text, "repl_worker_event_queue_size", "gauge", "Changes that wait in a lane.");
    for (number, lane) in lanes.iter().enumerate() {
        let waiting = lane.queued.get().saturating_sub(lane.applied.get());
        let _ = writeln!(text, "{PREFIX}repl_worker_event_queue_size{{worker=\"{number}\"}} {waiting}");
    }
    head(text, "repl_worker_events_applied_total", "counter", "Changes that a lane applied.");
    for (number, lane) in lanes.iter().enumerate() {
        let applied = lane.applied.get();
        let _ = writeln!(text, "{PREFIX}repl_worker_events_applied_total{{worker=\"{number}\"}} {applied}");
    }
    let sizes: Vec<String> = BATCH_BOUNDS.iter().map(ToString::to_string).collect();
    head(text, "repl_worker_flush_batch_size", "histogram", "Changes in a lane's batches.");
    for (number, lane) in lanes.iter().enumerate() {
        let sum = lane.applied.get().to_string();
        histogram(text, "repl_worker_flush_batch_size", number, &sizes, &lane.batches, &sum);
    }
    #[allow(clippy::cast_precision_loss)] // Small constants.
    let times: Vec<String> = MILLIS_BOUNDS.iter().map(|millis| (*millis as f64 / 1e3).to_string()).collect();
    head(text, "repl_worker_flush_duration_seconds", "histogram", "How long a lane's batches took.");
    for (number, lane) in lanes.iter().enumerate() {
        let sum = seconds(&lane.micros).to_string();
        histogram(text, "repl_worker_flush_duration_seconds", number, &times, &lane.durations, &sum);
    }
}

#[allow(clippy::cast_precision_loss)] // Microseconds of a process's life.
fn seconds(micros: &Counter) -> f64 {
    micros.get() as f64 / 1e6
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
}

fn sample(text: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(text, name, kind, help);
    let _ = writeln!(text, "{PREFIX}{name} {value}");
}

fn histogram(text: &mut String, name: &str, worker: usize, bounds: &[String], counts: &[Counter], sum: &str) {
    let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
    for (bound, count) in bounds.zip(counts) {
        let count = count.get();
        let _ = writeln!(text, "{PREFIX}{name}_bucket{{worker=\"{worker}\",le=\"{bound}\"}} {count}");
    }
    let all = counts.last().map_or(0, Counter::get);
    let _ = writeln!(text, "{PREFIX}{name}_sum{{worker=\"{worker}\"}} {sum}");
    let _ = writeln!(text, "{PREFIX}{name}_count{{worker=\"{worker}\"}} {all}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_name_that_dashboards_query_is_there_from_the_start() {
        let text = render("default", None).unwrap();
        for name in [
            "events_read_total",
            "events_applied_total",
            "copy_read_size_bytes_total",
            "copy_insert_size_bytes_total",
            "copy_read_document_total",
            "copy_insert_document_total",
            "estimated_total_size_bytes",
            "lag_time_seconds",
            "initial_sync_lag_time_seconds",
            "copy_read_batch_duration_seconds",
            "copy_insert_batch_duration_seconds",
            "repl_event_queue_size",
        ] {
            assert!(text.contains(&format!("\n{PREFIX}{name} 0\n")), "{name}: {text}");
        }
    }

    #[test]
    fn a_lanes_histograms_are_cumulative() {
        let progress = Arc::new(Progress::default());
        progress.lane(0).queued.add(900);
        progress.lane(0).add(7, Duration::from_millis(3));
        progress.lane(0).add(700, Duration::from_millis(300));
        let text = render("default", Some(&(Report::default(), progress))).unwrap();
        for line in [
            "repl_worker_flush_batch_size_bucket{worker=\"0\",le=\"5\"} 0",
            "repl_worker_flush_batch_size_bucket{worker=\"0\",le=\"10\"} 1",
            "repl_worker_flush_batch_size_bucket{worker=\"0\",le=\"+Inf\"} 2",
            "repl_worker_flush_batch_size_count{worker=\"0\"} 2",
            "repl_worker_flush_duration_seconds_bucket{worker=\"0\",le=\"0.005\"} 1",
            "repl_worker_flush_duration_seconds_bucket{worker=\"0\",le=\"0.5\"} 2",
            "repl_worker_event_queue_size{worker=\"0\"} 193",
            "repl_worker_events_applied_total{worker=\"0\"} 707",
        ] {
            assert!(text.contains(&format!("{PREFIX}{line}\n")), "{line}: {text}");
        }
    }
}
