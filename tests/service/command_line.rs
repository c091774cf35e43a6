//! The command line: exit codes, one line for what is wrong, JSON on stdout.

use std::process::{Command, Output};

use serde_json::Value;

use crate::stand::Stand;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clustersync")).args(args).env_clear().output().unwrap()
}

#[test]
fn what_is_wrong_with_it_is_one_line_and_exit_code_2() {
    let uri = "mongodb://localhost:1/?replicaSet=x";
    for (args, named) in [
        (&["serve"][..], "--source"),
        (&["serve", "--source", uri], "--target"),
        (&["serve", "--source", "localhost:27017", "--target", uri], "--source"),
        (&["serve", "--source", "mongodb://u:geheim@h:99999/", "--target", uri], "--source"),
        (&["serve", "--source", "mongodb://u:geheim@h/?tlsInsecure=true", "--target", uri], "tlsInsecure"),
        (&["--source", uri, "--target", "http://x"], "--target"),
        (&["serve", "--source", uri, "--target", uri, "--port", "99999"], "--port"),
        (&["serve", "--source", uri, "--target", uri, "--sync-id", "a/b"], "--sync-id"),
        (&["serve", "--source", uri, "--target", uri, "--metadata-database", "admin"], "--metadata-database"),
        (&["serve", "--source", uri, "--target", uri, "--auth-token-file", "/nowhere"], "--auth-token-file"),
        (&["serve", "--source", uri, "--target", uri, "--tls-cert", "x"], "--tls-key"),
        (&["serve", "--source", uri, "--target", uri, "--mongodb-operation-timeout", "soon"], "timeout"),
        (&["reset"], "--target"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains(named) && !text.contains("geheim"), "{args:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn nobody_there_is_said() {
    let port = crate::lab::free_port().to_string();
    for call in ["status", "start", "pause", "resume", "finalize"] {
        let output = run(&[call, "--port", &port]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("clustersync serve") && text.trim_end().lines().count() == 1, "{text}");
    }
}

#[test]
fn help_teaches() {
    for args in [&["--help"][..], &["serve", "--help"], &["start", "--help"]] {
        let output = run(args);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().len() > 500, "{args:?}");
    }
    assert!(String::from_utf8(run(&["start", "--help"]).stdout).unwrap().contains("--clone-segment-size"));
    assert!(String::from_utf8(run(&["version"]).stdout).unwrap().starts_with("clustersync 0."));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_life_by_commands() {
    let stand = Stand::new("commands").await;
    stand.fill("c", 200, 10).await;
    let serve = stand.serve(&[]);
    let port = serve.port.to_string();
    let call = |args: &[&str]| {
        let output = run(&[args, &["--port", &port]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), answer)
    };
    assert_eq!(call(&["status"]).1["state"], "idle");
    assert_eq!(call(&["pause"]).0, 1);
    let (code, answer) =
        call(&["start", "--include-namespaces", "commands.*", "--clone-segment-size", "1GiB"]);
    assert_eq!((code, &answer["ok"]), (0, &Value::Bool(true)));
    serve.until_streaming();
    assert_eq!(call(&["start"]).1["error"], "already running");
    assert_eq!(call(&["pause"]).0, 0);
    assert_eq!(call(&["resume"]).0, 0);
    assert_eq!(call(&["finalize"]).0, 0);
    serve.until_state("finalized");
    let watched = run(&["status", "--watch", "--port", &port]);
    assert!(watched.status.success());
    let line = String::from_utf8(watched.stdout).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(line.trim()).unwrap()["state"],
        "finalized",
        "a line each, off a terminal"
    );
    stand.assert_identical(false).await;
    assert!(serve.process.output().contains("cloneSegmentSize"), "a knob without use is said in the log");
    let taken =
        run(&["serve", "--source", &stand.source_uri, "--target", &stand.target_uri, "--port", &port]);
    assert_eq!(taken.status.code(), Some(1), "a port in use");
    assert!(String::from_utf8(taken.stderr).unwrap().contains(&port));
}
