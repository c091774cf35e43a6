//! Every value is in values.yaml with a comment, in the schema with a description, and in the README with its default.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helm::{DEFINITION, OPERATOR, read, yaml};

/// What the schema names and values.yaml does not: a parent chart's, and one that nobody needs by default.
const WITHOUT_DEFAULT: [&str; 2] = ["global", "resources.claims"];

/// Path and schema of each value that has no values below it.
fn leaves<'a>(path: &str, schema: &'a Value, into: &mut BTreeMap<String, &'a Value>) {
    let Some(properties) = schema["properties"].as_object() else {
        into.insert(path.to_owned(), schema);
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path} takes anything");
    for (name, below) in properties {
        assert!(
            below["description"].as_str().is_some_and(|text| text.ends_with(['.', '…', ':'])),
            "{path}.{name}"
        );
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        leaves(&path, below, into);
    }
}

fn default<'a>(values: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(values, |value, part| &value[part])
}

fn count(value: &Value, schema: &Value) -> usize {
    match (value, schema["properties"].as_object()) {
        (Value::Object(object), Some(properties)) => {
            let below = object.iter().map(|(name, value)| {
                count(value, properties.get(name).unwrap_or_else(|| panic!("{name} is not in the schema")))
            });
            below.sum()
        }
        _ => 1,
    }
}

#[test]
fn every_value_is_documented() {
    for chart in [OPERATOR, DEFINITION] {
        let text = read(&format!("{chart}/values.yaml"));
        let values = yaml(&text);
        let schema: Value = serde_json::from_str(&read(&format!("{chart}/values.schema.json"))).unwrap();
        let readme = read(&format!("{chart}/README.md"));
        let mut all = BTreeMap::new();
        leaves("", &schema, &mut all);
        all.retain(|path, _| !WITHOUT_DEFAULT.contains(&path.as_str()));
        assert_eq!(count(&values, &schema), all.len(), "{chart}: values without a default");
        for path in all.keys() {
            let row = format!("| `{path}` | `{}` | ", default(&values, path));
            assert!(readme.contains(&row), "{chart}/README.md lacks: {row}");
        }
        assert_eq!(
            readme.matches("\n| `").count(),
            all.len(),
            "{chart}/README.md names values that are none"
        );
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let deeper =
                |other: &&str| other.len() - other.trim_start().len() > line.len() - line.trim_start().len();
            let parent = line.trim_end().ends_with(':') && lines.get(number + 1).is_some_and(deeper);
            let inside = ["    cpu", "    memory", "      grafana_dashboard"]
                .iter()
                .any(|start| line.starts_with(start))
                || ["  requests:", "  limits:"].contains(line);
            let commented = line.trim_start().starts_with('#')
                || lines[number.saturating_sub(1)].trim_start().starts_with('#');
            assert!(commented || parent || inside, "{chart}/values.yaml: no comment above: {line}");
        }
    }
}

#[test]
fn the_charts_have_one_version() {
    let of = |chart: &str| yaml(&read(&format!("{chart}/Chart.yaml")));
    let (operator, definition) = (of(OPERATOR), of(DEFINITION));
    assert_eq!(operator["version"], definition["version"]);
    for chart in [operator, definition] {
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}
