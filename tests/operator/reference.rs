//! `docs/resource.md` says what the program says.

use clustersync::api::conditions::reasons;
use clustersync::sync::error::{Class, Reason};

/// The rows of the table of reasons, as the program knows them.
fn rows() -> String {
    let mut rows = String::from("| reason | | what to do |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let class = match reason.class() {
            Class::Transient => "waits",
            Class::Stop => "stops",
        };
        rows.push_str(&format!("| `{reason}` | {class} | {} |\n", reason.remedy().replace('|', "\\|")));
    }
    rows
}

#[test]
fn the_reference_lists_every_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/resource.md");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(&rows()), "the table of reasons in docs/resource.md should be:\n{}", rows());
    for reason in reasons::ALL {
        assert!(text.contains(&format!("`{reason}`")), "docs/resource.md does not explain {reason}");
    }
}

#[test]
fn every_alert_has_its_remedy() {
    let read =
        |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let alerts: serde_json::Value =
        serde_saphyr::from_str(&read("charts/clustersync/files/alerts.yaml")).unwrap();
    let rules =
        alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let rows: Vec<String> = rules
        .map(|rule| {
            let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            format!("| `{}` | {} |", word(&rule["alert"]), word(&rule["labels"]["severity"]))
        })
        .collect();
    let page = read("docs/monitoring.md");
    let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `ClusterSync")).collect();
    assert_eq!(documented.len(), rows.len(), "{rows:#?}");
    for (line, row) in documented.iter().zip(&rows) {
        assert!(line.starts_with(row), "docs/monitoring.md should have {row} and not {line}");
    }
}

/// What the table of `docs/security.md` says of the operator's rights, and the roles that give them.
#[test]
fn every_right_has_its_reason() {
    let read =
        |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut rows = Vec::new();
    for file in ["role", "leader-role"] {
        let text = read(&format!("deploy/base/{file}.yaml"));
        let role: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let rules = role["rules"].as_array().unwrap();
        // A comment stands before each rule.
        let reasons = text.split("\nrules:\n").nth(1).unwrap().lines().collect::<Vec<_>>();
        let begins = reasons.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups"));
        for (number, _) in begins {
            assert!(
                number > 0 && reasons[number - 1].starts_with("  # "),
                "a rule without a reason in {file}.yaml"
            );
        }
        let words =
            |value: &serde_json::Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
        for rule in rules {
            let names = rule["resourceNames"]
                .as_array()
                .map_or_else(String::new, |names| format!("/{}", names[0].as_str().unwrap()));
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    rows.push((format!("{resource}{names}"), verb));
                }
            }
        }
    }
    let page = read("docs/security.md");
    let mut documented = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let right = line.trim_start_matches("| ").split(" |").next().unwrap();
        let Some((resources, verbs)) = right.split_once("`: ").or_else(|| right.split_once("): ")) else {
            continue;
        };
        let resources = resources.split(" (").next().unwrap();
        for resource in resources.split(", ") {
            documented.extend(verbs.split(", ").map(|verb| (resource.replace('`', ""), verb.to_owned())));
        }
    }
    rows.sort();
    documented.sort();
    assert_eq!(documented, rows);
}

/// `docs/reference.md`, made from the definition and from the functions that judge.
mod generated {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write;

    use clustersync::api::conditions::{CONTROLLER_MANAGER, WORKER_MANAGER, types};
    use clustersync::api::crd;
    use clustersync::resource::Outcome;
    use clustersync::sync::error::Class;
    use clustersync::sync::report::{CompletionReport, SideReport, UnsuccessfulIndex};
    use clustersync::sync::{DesiredState, Phase, Reason, Report};
    use serde_json::Value;

    use crate::health;

    /// Each condition, who writes it, and what it means when it is True.
    const CONDITIONS: &[(&str, &str, &str)] = &[
        (
            types::READY,
            CONTROLLER_MANAGER,
            "It does what `spec.state` asks for: it streams, rests or is done.",
        ),
        (
            types::RECONCILING,
            CONTROLLER_MANAGER,
            "It is on its way there, or waits for something that may come by itself.",
        ),
        (types::STALLED, CONTROLLER_MANAGER, "It has stopped; the message says what to do."),
        (types::COMPLETED, CONTROLLER_MANAGER, "The cutover is done."),
        (
            types::INITIAL_SYNC_COMPLETE,
            WORKER_MANAGER,
            "The target was consistent with the source once; every later change is streamed.",
        ),
        (
            types::SOURCE_CONNECTED,
            WORKER_MANAGER,
            "The source answers. An interruption of less than 10 s is not shown.",
        ),
        (
            types::TARGET_CONNECTED,
            WORKER_MANAGER,
            "The target answers. An interruption of less than 10 s is not shown.",
        ),
        (
            types::LAGGING,
            WORKER_MANAGER,
            "The lag is above `spec.replication.maxLagSeconds`; False again at half of it.",
        ),
    ];

    /// More reasons than these are not listed one by one.
    const FEW: usize = 12;

    fn cell(text: &str) -> String {
        text.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
    }

    fn kind(schema: &Value) -> String {
        match (schema["type"].as_str().unwrap(), schema["format"].as_str()) {
            ("array", _) => format!("list of {}s", kind(&schema["items"])),
            (_, Some("date-time")) => "time".to_owned(),
            (kind, _) => kind.to_owned(),
        }
    }

    /// What the schema fills in, or what the description says that an absent field means.
    fn default(schema: &Value) -> String {
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
            return format!("`{}`", default.as_str().map_or_else(|| default.to_string(), ToOwned::to_owned));
        }
        let text = schema["description"].as_str().unwrap();
        if let Some(at) = text.find(" (default)") {
            return format!("`{}`", text[..at].rsplit(' ').next().unwrap());
        }
        let Some(at) = text.find("Default") else { return String::new() };
        let rest = text[at + "Default".len()..].trim_start_matches([':', ' ']);
        let end = rest.find(". ").unwrap_or(rest.len());
        cell(rest[..end].trim_end_matches('.').split(", which").next().unwrap())
    }

    fn bounds(schema: &Value) -> String {
        let mut bounds = Vec::new();
        let values = schema["enum"].as_array().or(schema["items"]["enum"].as_array());
        if let Some(values) = values {
            bounds.extend(values.iter().map(|v| format!("`{}`", v.as_str().unwrap())));
        }
        let range = |low: &Value, high: &Value| match (low.as_f64(), high.as_f64()) {
            (Some(low), Some(high)) => Some(format!("{low} to {high}")),
            (Some(low), None) => Some(format!("at least {low}")),
            (None, Some(high)) => Some(format!("at most {high}")),
            (None, None) => None,
        };
        bounds.extend(range(&schema["minimum"], &schema["maximum"]));
        bounds.extend(range(&schema["minLength"], &schema["maxLength"]).map(|r| format!("{r} characters")));
        bounds.extend(schema["maxItems"].as_i64().map(|n| format!("at most {n}")));
        let items = &schema["items"];
        bounds
            .extend(range(&items["minLength"], &items["maxLength"]).map(|r| format!("each {r} characters")));
        let pattern = schema["pattern"].as_str().or(items["pattern"].as_str());
        bounds.extend(pattern.map(|p| format!("`{}`", p.replace('|', "\\|"))));
        bounds.join(", ")
    }

    fn rows(path: &str, schema: &Value, text: &mut String) {
        let (schema, path) = if schema["type"] == "array" {
            (&schema["items"], format!("{path}[]"))
        } else {
            (schema, path.to_owned())
        };
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let needed = if required.contains(&Value::from(name.as_str())) { ", required" } else { "" };
            let description = cell(field["description"].as_str().unwrap());
            let row = [format!("`{path}`"), kind(field) + needed, default(field), bounds(field), description];
            writeln!(text, "| {} |", row.join(" | ")).unwrap();
            rows(&path, field, text);
        }
    }

    fn rules(path: &str, schema: &Value, text: &mut String) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let path = if path.is_empty() { "the resource" } else { &format!("`{path}`") };
            writeln!(text, "| {path} | {} |", cell(rule["message"].as_str().unwrap())).unwrap();
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            rules(&path, field, text);
        }
    }

    /// Reports of every phase, with and without what else decides about a condition.
    fn reports() -> Vec<Report> {
        let phases = [
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
        let mut reports = Vec::new();
        for phase in phases {
            let plain = Report { phase, epoch: 1, ..Report::default() };
            let connected = SideReport { connected: Some(true), ..SideReport::default() };
            let mut well = Report { source: connected.clone(), target: connected, ..plain.clone() };
            well.initial_sync.completed_at = Some(health::now());
            well.replication.lag_seconds = Some(1);
            let mut late = Report { source: health::lost(61), target: health::lost(61), ..plain.clone() };
            late.replication.lag_seconds = Some(3600);
            reports.extend([plain.clone(), well, late]);
            // Only these two have a reason of their own: the ones that are waited out, and the ones that stop.
            let class = match phase {
                Phase::Pending => Class::Transient,
                Phase::Stalled => Class::Stop,
                _ => continue,
            };
            let reasons = Reason::ALL.iter().filter(|reason| reason.class() == class);
            reports.extend(reasons.map(|reason| Report { reason: Some(*reason), ..plain.clone() }));
        }
        let completion = CompletionReport {
            unsuccessful_indexes: vec![UnsuccessfulIndex::default()],
            ..CompletionReport::default()
        };
        reports.push(Report { phase: Phase::Completed, completion: Some(completion), ..Report::default() });
        reports
    }

    /// Condition → status → the reasons that come with it, over every state.
    fn reasons() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let mut objects: Vec<Value> = health::table().into_iter().map(|row| row.1).collect();
        for report in reports() {
            for state in [DesiredState::Running, DesiredState::Paused, DesiredState::Completed] {
                objects.push(health::object(state, Outcome::Running(&report)));
            }
        }
        let mut found: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for object in objects {
            for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
                let word = |field: &str| condition[field].as_str().unwrap().to_owned();
                let by_status = found.entry(word("type")).or_default();
                by_status.entry(word("status")).or_default().insert(word("reason"));
            }
        }
        found
    }

    fn conditions(text: &mut String) {
        let found = reasons();
        assert_eq!(
            found.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            CONDITIONS.iter().map(|c| c.0).collect()
        );
        for (name, manager, meaning) in CONDITIONS {
            let reasons = found[*name].iter().map(|(status, reasons)| {
                let reasons = if status == "False" && [types::RECONCILING, types::STALLED].contains(name) {
                    "that of `Ready`".to_owned()
                } else if reasons.len() > FEW {
                    let phase = if *name == types::STALLED { "" } else { "a phase or " };
                    format!("{phase}a reason of [resource.md](resource.md#reasons)")
                } else {
                    reasons.iter().map(|r| format!("`{r}`")).collect::<Vec<_>>().join(", ")
                };
                format!("{status}: {reasons}")
            });
            let reasons = reasons.collect::<Vec<_>>().join("<br>");
            writeln!(text, "| `{name}` | {meaning} | {reasons} | `{manager}` |").unwrap();
        }
    }

    fn page() -> String {
        let definition = serde_json::to_value(crd::definition()).unwrap();
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let mut text = String::from(
            "<!-- Generated by `UPDATE=1 cargo test --test operator -- reference`; do not edit. -->\n\
             # Reference of the ClusterSync resource\n\n\
             `clustersync.dev/v1alpha1`, kind `ClusterSync`, short name `csync`, namespaced. What the fields are for is in \
             [resource.md](resource.md); `kubectl explain csync.spec --recursive` has the same texts.\n",
        );
        for (part, title) in [("spec", "What you ask for"), ("status", "What you are told")] {
            write!(
                text,
                "\n## {title}\n\n| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n"
            )
            .unwrap();
            rows(part, &schema["properties"][part], &mut text);
        }
        text.push_str("\n## Rules\n\nWhat the apiserver refuses beyond the bounds above, in the words that it uses.\n\n| field | rule |\n|---|---|\n");
        rules("", schema, &mut text);
        text.push_str("\n## Conditions\n\nAt most one of `Ready`, `Reconciling` and `Stalled` is True. Each carries the generation that it was judged for.\n\n| condition | True means | reasons | written by |\n|---|---|---|---|\n");
        conditions(&mut text);
        text.push_str("\n## Columns\n\nOf `kubectl get csync`.\n\n| column | shown | from | meaning |\n|---|---|---|---|\n");
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let word = |field: &str| column[field].as_str().unwrap();
            let shown =
                if column["priority"].as_i64().unwrap_or(0) == 0 { "always" } else { "with `-o wide`" };
            writeln!(
                text,
                "| {} | {shown} | `{}` | {} |",
                word("name"),
                word("jsonPath"),
                word("description")
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
        let page = page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == page, "run: UPDATE=1 cargo test --test operator -- reference");
    }
}
