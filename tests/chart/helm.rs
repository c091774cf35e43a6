//! Helm, and what it renders.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::lab;

pub const OPERATOR: &str = "charts/clustersync";
pub const DEFINITION: &str = "charts/clustersync-crds";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

pub fn run(program: PathBuf, args: &[&str], input: &str, env: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What it wrote to both ends.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `helm template` with these values, in the namespace `apart`; the other is its refusal.
pub fn render(chart: &str, release: &str, values: &Value) -> Result<Rendering, String> {
    let args = ["template", release, chart, "-n", "apart", "--kube-version", "1.35", "-f", "-"];
    let output = run(lab::tool("CLUSTERSYNC_HELM"), &args, &values.to_string(), &[]);
    if !output.status.success() {
        return Err(said(&output));
    }
    Ok(Rendering::new(String::from_utf8(output.stdout).unwrap()))
}

pub struct Rendering {
    pub text: String,
    pub objects: Vec<Value>,
}

impl Rendering {
    pub fn new(text: String) -> Self {
        let documents = text.split("\n---").map(str::trim).filter(|document| document.contains("kind:"));
        let objects = documents.map(yaml).collect();
        Self { text, objects }
    }

    /// `Kind name`, or `Kind namespace/name` where the namespace is not the release's.
    pub fn names(&self) -> BTreeSet<String> {
        let name = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let place = object["metadata"]["namespace"].as_str().filter(|place| *place != "apart");
            let place = place.map(|place| format!("{place}/")).unwrap_or_default();
            format!("{} {place}{name}", object["kind"].as_str().unwrap())
        };
        let names: BTreeSet<String> = self.objects.iter().map(name).collect();
        assert_eq!(names.len(), self.objects.len(), "two objects of one name: {names:?}");
        names
    }

    /// The only one of its kind.
    pub fn the(&self, kind: &str) -> &Value {
        let all: Vec<&Value> = self.objects.iter().filter(|object| object["kind"] == kind).collect();
        assert_eq!(all.len(), 1, "{kind}: {:?}", self.names());
        all[0]
    }

    pub fn pod(&self) -> &Value {
        &self.the("Deployment")["spec"]["template"]["spec"]
    }

    pub fn args(&self) -> Vec<&str> {
        self.pod()["containers"][0]["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| arg.as_str().unwrap())
            .collect()
    }
}
