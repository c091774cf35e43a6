//! Seen from outside: a real Prometheus scrapes the pods, and answers every query of the dashboard and of the alerts.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{CHART, Release, on_cluster};
use crate::lab::process::{Folder, Process};
use crate::writer::Writer;

struct Prometheus {
    address: String,
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    fn start(targets: &[String]) -> Self {
        let folder = Folder::new("prometheus");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{CHART}/files/alerts.yaml]\nscrape_configs:\n- job_name: clustersync\n  honor_labels: true\n  static_configs: [{{targets: {targets:?}}}]\n"
        );
        std::fs::write(folder.0.join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", crate::lab::free_port());
        let args = [
            format!("--config.file={}", folder.0.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", folder.0.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let process = Process::start(Path::new("prometheus"), &args, &[], &folder.0, "prometheus");
        Self { address, _process: process, _folder: folder }
    }

    /// The answer's `data.result`; none while it does not answer.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let url = format!("http://{}/api/v1/query?query={}", self.address, percent(query));
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(&url).call().map_err(|error| error.to_string())?;
        let answer: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).map_err(|e| e.to_string())?;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer.to_string()),
        }
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every expression of the dashboard, with Grafana's variables filled in.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{CHART}/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut found, mut todo) = (Vec::new(), vec![&dashboard]);
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(map) => {
                if let Some(expr) = map.get("expr").and_then(Value::as_str) {
                    found.push(expr.to_owned());
                }
                todo.extend(map.values());
            }
            Value::Array(all) => todo.extend(all),
            _ => {}
        }
    }
    let filled = |expr: &String| {
        let mut expr = expr.clone();
        for (variable, value) in [
            ("$__rate_interval", "10s"),
            ("$__interval", "10s"),
            ("$namespace", ".*"),
            ("$name", ".*"),
            ("$job", ".*"),
        ] {
            expr = expr.replace(variable, value);
        }
        expr
    };
    found.iter().map(filled).collect()
}

/// The expressions of the alerts.
fn alerts() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{CHART}/files/alerts.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let groups =
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    groups.map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_real_prometheus_answers_every_query() {
    on_cluster(async |cluster| {
        if !cluster.ours {
            println!("skipped: pods of a cluster that is not ours may not be reached from here");
            return;
        }
        let release = Release::install(cluster, "seen", &["replicas=2"]);
        let writer = Writer::start(cluster, "seen");
        release.sync("stream", "seen", 0);
        crate::cluster::fill(&cluster.source, "seen_done", 1).await;
        release.sync("done", "seen_done", 0);
        release.phase("done", "Streaming");
        release.kubectl(&[
            "patch",
            "clustersync",
            "done",
            "--type=merge",
            "-p",
            r#"{"spec": {"state": "Completed"}}"#,
        ]);
        release.phase("done", "Completed");
        // One that has stopped: both ends are the same set.
        release.apply(&serde_json::json!({
            "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": "broken"},
            "spec": {
                "source": {"uriSecretRef": {"name": "source", "key": "uri"}},
                "target": {"uriSecretRef": {"name": "source", "key": "uri"}},
            }
        }));
        release.phase("broken", "Stalled");
        release.phase("stream", "Streaming");
        let targets: Vec<String> = release.pods().iter().map(|pod| format!("{}:8080", pod.ip)).collect();
        let prometheus = Prometheus::start(&targets);
        let deadline = Instant::now() + Duration::from_secs(60);
        while prometheus
            .query("sum(up{job=\"clustersync\"})")
            .is_ok_and(|r| r.iter().all(|one| one["value"][1] != "2"))
            || prometheus.query("up").is_err()
        {
            assert!(Instant::now() < deadline, "the pods are not scraped: {:?}", prometheus.query("up"));
            std::thread::sleep(Duration::from_millis(500));
        }
        // Rates need some scrapes.
        std::thread::sleep(Duration::from_secs(12));
        let queries = dashboard();
        assert!(queries.len() >= 8, "{queries:?}");
        for query in &queries {
            let result = prometheus.query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert!(!result.is_empty(), "nothing answers: {query}");
        }
        for query in alerts() {
            prometheus.query(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        }
        let labels = prometheus.query("clustersync_phase{name=\"stream\",phase=\"Streaming\"}").unwrap();
        assert_eq!(labels[0]["metric"]["namespace"], "seen", "honor_labels keeps the resource's namespace");
        println!("seen: {} queries of the dashboard answered", queries.len());
        writer.stop(cluster).await;
        release.remove();
    });
}
