//! The charts before the tools that read them: the program and Helm.

use std::path::Path;

use serde_json::json;

use crate::helm::{DEFINITION, OPERATOR, render, run, said};
use crate::lab;

/// Exit code 2 is a wrong command line: the charts' flags are those of the program.
#[test]
fn the_program_knows_what_the_chart_tells_it() {
    let program = env!("CARGO_BIN_EXE_clustersync");
    let values = json!({"watchNamespaces": ["a", "b"], "requireSecretLabel": true});
    let rendered = render(OPERATOR, "clustersync", &values).unwrap();
    let nowhere = [("KUBECONFIG", Path::new("/nonexistent"))];
    let operator = run(program.into(), &rendered.args(), "", &nowhere);
    assert_eq!(operator.status.code(), Some(1), "{}", said(&operator));
    assert!(said(&operator).contains("no Kubernetes cluster"), "{}", said(&operator));
    let address = format!("http://127.0.0.1:{}/readyz", lab::free_port());
    let probe = &rendered.the("Pod")["spec"]["containers"][0]["args"];
    let probe = probe.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let probe: Vec<&str> = probe.map(|arg| if arg.contains("://") { &address } else { arg }).collect();
    let probed = run(program.into(), &probe, "", &[]);
    assert_eq!(probed.status.code(), Some(1), "{}", said(&probed));
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for chart in [OPERATOR, DEFINITION] {
        let args = ["lint", "--strict", "--kube-version", "1.35", chart];
        let output = run(lab::tool("CLUSTERSYNC_HELM"), &args, "", &[]);
        let said = said(&output);
        assert!(
            output.status.success() && !said.contains("[WARNING]") && !said.contains("[ERROR]"),
            "{said}"
        );
    }
}
