//! Alerts and dashboard: promtool has the engine of Prometheus, so what it answers is what a Prometheus answers.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::helm::{read, root, run, said, yaml};
use crate::lab;
use crate::lab::process::Folder;

const ALERTS: &str = "charts/clustersync/files/alerts.yaml";
const DASHBOARD: &str = "charts/clustersync/files/dashboard.json";

fn promtool(args: &[&str]) -> (bool, String) {
    let output = run(lab::tool("CLUSTERSYNC_PROMTOOL"), args, "", &[]);
    (output.status.success(), said(&output))
}

/// Metrics that a query names.
fn metrics(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("clustersync_")).map(ToOwned::to_owned).collect()
}

fn assert_documented(query: &str) {
    let reference = read("docs/metrics.md");
    for metric in metrics(query) {
        let known = ["`", "{"].iter().any(|end| reference.contains(&format!("`{metric}{end}")));
        assert!(known, "{metric} is not in docs/metrics.md: {query}");
    }
}

#[test]
fn each_alert_fires_and_does_not() {
    let alerts = yaml(&read(ALERTS));
    let tests = read("tests/chart/alerts_test.yaml");
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert_documented(rule["expr"].as_str().unwrap());
        let quiet = format!("alertname: {name}}}");
        assert!(tests.matches(&quiet).count() >= 2, "{name} is never quiet in the tests");
        assert!(
            tests.contains(&format!("alertname: {name}\n        exp_alerts:")),
            "{name} never fires in the tests"
        );
        for part in ["summary", "description"] {
            assert!(
                rule["annotations"][part].as_str().is_some_and(|text| text.ends_with(['.', '}'])),
                "{name}: {part}"
            );
        }
    }
    let (right, said) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS]);
    assert!(right, "{said}");
    let (right, said) = promtool(&["test", "rules", "tests/chart/alerts_test.yaml"]);
    assert!(right, "{said}");
}

/// Else the test above could not fail.
#[test]
fn promtool_notices_a_changed_alert() {
    let folder = Folder::new("alerts");
    let changed = read(ALERTS).replace("clustersync_lag_seconds) > 300", "clustersync_lag_seconds) > 200");
    fs::write(folder.0.join("alerts.yaml"), changed).unwrap();
    let tests = read("tests/chart/alerts_test.yaml").replace("../../charts/clustersync/files/", "");
    let path = folder.0.join("alerts_test.yaml");
    fs::write(&path, tests).unwrap();
    let (right, said) = promtool(&["test", "rules", path.to_str().unwrap()]);
    assert!(!right && said.contains("ClusterSyncLagging"), "{said}");
}

/// Panels with a query; rows have none.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

fn queries(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = all.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "an id is there twice");
    let mut taken = BTreeSet::new();
    for panel in all {
        let at = |key: &str| panel["gridPos"][key].as_i64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
    for panel in panels(&dashboard) {
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{}", panel["title"]);
    }
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "namespace", "name"]);
    let mut shown = BTreeSet::new();
    for query in queries(&dashboard) {
        assert_documented(query);
        shown.extend(metrics(query));
        if !query.contains("build_info") {
            let chosen = r#"{namespace=~"$namespace",name=~"$name""#;
            assert_eq!(query.matches(chosen).count(), query.matches("clustersync_").count(), "{query}");
        }
    }
    let reference = read("docs/metrics.md");
    let first = reference.split("## ").next().unwrap();
    let documented: BTreeSet<String> = first
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| metrics(line.split(" | ").next().unwrap()))
        .collect();
    let hidden: Vec<_> = documented.difference(&shown).collect();
    assert_eq!(hidden, ["clustersync_clone_partitions_copied_total"], "what the dashboard does not show");
}

/// Two replicas, one of which was the leader before: each query answers, with one series a sync and not one a pod.
#[test]
fn each_query_of_the_dashboard_answers() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let queries = queries(&dashboard);
    let mut series = Vec::new();
    for metric in queries.iter().flat_map(|query| metrics(query)).collect::<BTreeSet<_>>() {
        let label = match metric.as_str() {
            "clustersync_phase" => r#", phase="Streaming""#,
            "clustersync_last_error_attempts" => r#", reason="Interrupted""#,
            _ => "",
        };
        let value = if metric == "clustersync_phase" { "1x30" } else { "1+1x30" };
        for pod in ["p0", "p1"] {
            let sync = if metric == "clustersync_build_info" {
                r#"version="1""#
            } else {
                r#"namespace="a", name="x""#
            };
            series.push(
                json!({"series": format!(r#"{metric}{{{sync}, pod="{pod}"{label}}}"#), "values": value}),
            );
        }
    }
    series.push(json!({"series": r#"clustersync_phase{namespace="a", name="y", pod="p0", phase="Stalled"}"#, "values": "1x30"}));
    let asked: Vec<Value> = queries
        .iter()
        .map(|query| {
            let query =
                query.replace("$namespace", ".*").replace("$name", "x|y").replace("$__rate_interval", "5m");
            json!({"expr": query, "eval_time": "20m"})
        })
        .collect();
    let test = json!({"evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]});
    let folder = Folder::new("dashboard");
    let path = folder.0.join("test.yaml");
    fs::write(&path, test.to_string()).unwrap();
    // It is told to expect nothing, so it complains about each answer, and lists it.
    let (_, said) = promtool(&["test", "rules", path.to_str().unwrap()]);
    let answers: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("got: ")).collect();
    assert_eq!(answers.len(), queries.len(), "a query has no answer, or is none: {said}");
    for (query, answer) in queries.iter().zip(answers) {
        let syncs = answer.matches(r#"name="x""#).count();
        assert!(syncs <= 1 && !answer.contains("pod="), "{query} counts pods: {answer}");
    }
    assert!(root().join(DASHBOARD).exists());
}
