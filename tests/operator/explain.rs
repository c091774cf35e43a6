//! `kubectl explain` reads like documentation.

use std::time::{Duration, Instant};

use clustersync::api::crd;
use serde_json::Value;

use crate::site::plane;

/// What a Rust doc comment may say and a user of the resource should not read.
const FOREIGN: &[&str] =
    &["`", "::", "[", "]", "Option", "Vec<", "None", "Some(", "struct", "enum", "TODO", "  ", "\n"];

fn schema() -> Value {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Each field below a schema, with its path.
fn fields(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
    let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.push((path.clone(), field.clone()));
        fields(&path, field, found);
    }
}

fn everything() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        let schema = schema()["properties"][part].clone();
        found.push((format!("csync.{part}"), schema.clone()));
        fields(&format!("csync.{part}"), &schema, &mut found);
    }
    found
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_description_is_a_sentence_for_the_user_of_the_resource() {
    let mut wrong = Vec::new();
    for (path, field) in everything() {
        let text = field["description"].as_str().unwrap_or_default();
        for foreign in FOREIGN.iter().filter(|foreign| text.contains(**foreign)) {
            wrong.push(format!("{path} says {foreign:?}: {text}"));
        }
        let begins = text.starts_with(|c: char| c.is_uppercase());
        if !begins || !text.ends_with('.') || text.starts_with("See ") || text.split(' ').count() < 2 {
            wrong.push(format!("{path} is no sentence: {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The apiserver publishes a definition's documentation a moment after it serves its objects.
fn published() {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !plane().try_kubectl(&["explain", "csync.spec.state"]).status.success() {
        assert!(Instant::now() < deadline, "the definition's documentation does not appear");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn kubectl_explains_every_field() {
    published();
    let all = everything();
    // One call for each object; it shows the fields of that object with their descriptions.
    let objects = all
        .iter()
        .filter(|(_, field)| field["properties"].is_object() || field["items"]["properties"].is_object());
    for (path, field) in objects {
        let raw = plane().kubectl(&["explain", path]);
        let text = one_line(&raw);
        assert!(!text.contains("<no description>"), "{raw}");
        assert!(text.contains(&one_line(field["description"].as_str().unwrap())), "{raw}");
        let prefix = format!("{path}.");
        for (child, field) in &all {
            let Some(name) = child.strip_prefix(&prefix).filter(|name| !name.contains('.')) else { continue };
            let description = one_line(field["description"].as_str().unwrap());
            assert!(text.contains(&format!("{name} <")), "{name} is not in {raw}");
            assert!(text.contains(&description), "{child} is not explained as {description:?} in {raw}");
        }
    }
    let raw = plane().kubectl(&["explain", "csync"]);
    let text = one_line(&raw);
    assert!(text.contains("Keeps a target MongoDB replica set in step with a source"), "{raw}");
    assert!(text.contains("What to sync, and what the sync should be doing now."), "{raw}");
}
