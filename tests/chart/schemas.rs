//! What is rendered and what is committed, against the schemas of three Kubernetes versions.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::helm::{read, root, run, said, yaml};
use crate::lab;

const VERSIONS: [&str; 3] = ["1.33", "1.34", "1.35"];

/// The schema of `ClusterSync` comes from this checkout, not from the tools' cache.
fn own() -> &'static Path {
    static OWN: OnceLock<()> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    OWN.get_or_init(|| {
        let definition = yaml(&read("crds/clustersyncs.clustersync.dev.yaml"));
        let mut schema = strict(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        for (field, what) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            schema["properties"][field] = json!({"type": what});
        }
        fs::write(folder.join("clustersync-clustersync-v1alpha1.json"), schema.to_string()).unwrap();
    });
    folder
}

/// A field that is not named is refused.
fn strict(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => {
            let mut out: Map<String, Value> =
                object.iter().map(|(key, part)| (key.clone(), strict(part))).collect();
            if object.get("properties").is_some_and(Value::is_object) && object.contains_key("type") {
                out.insert("additionalProperties".to_owned(), json!(false));
            }
            Value::Object(out)
        }
        Value::Array(list) => list.iter().map(strict).collect(),
        other => other.clone(),
    }
}

/// What is wrong with it, in any version.
pub fn wrong(manifests: &str) -> Option<String> {
    let schemas = lab::tool("CLUSTERSYNC_SCHEMAS");
    let file = "{{.ResourceKind}}{{.KindSuffix}}.json";
    for version in VERSIONS {
        let theirs = format!("{}/{file}", schemas.join(version).display());
        let ours = format!("{}/{file}", own().display());
        let args = ["-strict", "-schema-location", &theirs, "-schema-location", &ours, "-"];
        let output = run(lab::tool("CLUSTERSYNC_KUBECONFORM"), &args, manifests, &[]);
        if !output.status.success() {
            return Some(format!("{version}: {}", said(&output)));
        }
    }
    None
}

#[test]
fn what_is_committed_is_valid_in_every_version() {
    assert_eq!(wrong(&read("deploy/install.yaml")), None);
    for entry in fs::read_dir(root().join("deploy/samples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            assert_eq!(wrong(&fs::read_to_string(&path).unwrap()), None, "{}", path.display());
        }
    }
}

#[test]
fn what_kustomize_makes_is_valid_in_every_version() {
    let overlays = fs::read_dir(root().join("deploy/overlays")).unwrap();
    let overlays = overlays.map(|entry| entry.unwrap().path().display().to_string());
    for folder in overlays.chain(["deploy/base".to_owned()]) {
        let made = run(lab::tool("CLUSTERSYNC_KUBECTL"), &["kustomize", &folder], "", &[]);
        assert!(made.status.success(), "{folder}: {}", said(&made));
        assert_eq!(wrong(&String::from_utf8(made.stdout).unwrap()), None, "{folder}");
    }
}

/// Else the tests above could not fail.
#[test]
fn an_unknown_field_is_wrong() {
    let install = read("deploy/install.yaml");
    for (right, bad, words) in [
        ("  replicas: 1", "  replicaz: 1", "replicaz"),
        ("verbs: [create]", "verbs: create", "want array"),
        ("publishNotReadyAddresses: true", "publishNotReadyAddresses: yes please", "want boolean"),
    ] {
        assert!(install.contains(right), "{right}");
        let said = wrong(&install.replace(right, bad)).expect(bad);
        assert!(said.contains(words), "{said}");
    }
    let sample = read("deploy/samples/first-sync.yaml");
    assert!(
        wrong(&sample.replace("state: Running", "stait: Running")).is_some_and(|said| said.contains("stait"))
    );
}
