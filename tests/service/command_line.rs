//! The command line: exit codes, one line for what is wrong, JSON on stdout.

use std::io::{BufRead, BufReader};
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
        (&["serve", "--source", uri, "--target", uri, "--metadata-database", "Local"], "--metadata-database"),
        (
            &["serve", "--source", uri, "--target", uri, "--metadata-database", &"m".repeat(39)],
            "metadata-database",
        ),
        (
            &["serve", "--source", uri, "--target", uri, "--tls-cert", "/no/crt", "--tls-key", "/no/key"],
            "--tls-cert: /no/crt",
        ),
        (
            &["serve", "--source", uri, "--target", uri, "--tls-cert", "Cargo.toml", "--tls-key", "/no/key"],
            "--tls-key: /no/key",
        ),
        (
            &[
                "serve",
                "--source",
                uri,
                "--target",
                uri,
                "--tls-cert",
                "Cargo.toml",
                "--tls-key",
                "Cargo.toml",
            ],
            "--tls-key",
        ),
        (&["reset"], "--target"),
        (&["frobnicate"], "frobnicate"),
        (&["mongodb://u:geheim@h/x"], "***@h/x"),
        (&["serve", "--source", uri, "mongodb://u:geheim@h/x"], "***@h/x"),
        (&["reset", "mongodb://u:geheim@h/x"], "***@h/x"),
    ] {
        let output = run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains(named) && !text.contains("geheim"), "{args:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

fn run_in(environment: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clustersync"))
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn a_variable_that_cannot_be_used_is_named() {
    let uri = "mongodb://localhost:1/?replicaSet=x";
    let serve = ["--source", uri, "--target", uri];
    for (name, value) in [
        ("PORT", "99999"),
        ("PORT", "http"),
        ("HOST", "no such host"),
        ("LOG_LEVEL", "loud"),
        ("LOG_JSON", "perhaps"),
        ("LOG_NO_COLOR", "2"),
        ("MONGODB_OPERATION_TIMEOUT", "soon"),
        ("CLONE_NUM_PARALLEL_COLLECTIONS", "many"),
        ("CLONE_NUM_READ_WORKERS", "-1"),
        ("CLONE_NUM_INSERT_WORKERS", "1.5"),
        ("CLONE_SEGMENT_SIZE", "big"),
        ("CLONE_READ_BATCH_SIZE", "1XB"),
        ("REPL_NUM_WORKERS", "257"),
        ("REPL_CHANGE_STREAM_BATCH_SIZE", "x"),
        ("REPL_EVENT_QUEUE_SIZE", "x"),
        ("REPL_WORKER_QUEUE_SIZE", "x"),
        ("REPL_BULK_OPS_SIZE", "x"),
        ("REPL_WORKER_FLUSH_INTERVAL", "soon"),
        ("REPL_WORKER_BULK_QUEUE_SIZE", "x"),
        ("USE_COLLECTION_BULK_WRITE", "maybe"),
    ] {
        for prefix in ["CLUSTERSYNC", "PCSM"] {
            let name = format!("{prefix}_{name}");
            let output = run_in(&[(&name, value)], &serve);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}: {text}");
            assert!(text.starts_with(&format!("clustersync: {name}: ")), "{name}: {text}");
            assert_eq!(text.trim_end().lines().count(), 1, "{name}: {text}");
        }
    }
    for (variables, named) in [
        (&[("PCSM_SOURCE_URI", "mongodb://u:geheim@h:99999/")][..], "PCSM_SOURCE_URI: "),
        (
            &[("PCSM_SOURCE_URI", uri), ("CLUSTERSYNC_TARGET_URI", "http://u:geheim@x")],
            "CLUSTERSYNC_TARGET_URI: ",
        ),
        (&[("PCSM_SOURCE_URI", uri)], "--target (or CLUSTERSYNC_TARGET_URI)"),
    ] {
        let output = run_in(variables, &["--port", "3000"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(named), "{variables:?}: {text}");
        assert!(text.trim_end().lines().count() == 1 && !text.contains("geheim"), "{text}");
    }
    let called = run_in(&[("PCSM_PORT", "x")], &["status"]);
    assert_eq!(called.status.code(), Some(2));
    assert!(String::from_utf8(called.stderr).unwrap().starts_with("clustersync: PCSM_PORT: "));
    // What is given by a flag is not looked up.
    let called = run_in(&[("PCSM_PORT", "x")], &["status", "--port", &crate::lab::free_port().to_string()]);
    assert_eq!(called.status.code(), Some(1));
    for harmless in [&["version"][..], &["crd"], &["--help"]] {
        assert!(run_in(&[("PCSM_LOG_LEVEL", "loud"), ("PCSM_PORT", "x")], harmless).status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_alone_means_serve() {
    let stand = Stand::new("environment").await;
    let port = crate::lab::free_port().to_string();
    let folder = crate::lab::process::Folder::new("environment");
    let variables = [
        ("PCSM_SOURCE_URI", stand.source_uri.as_str()),
        ("PCSM_TARGET_URI", &stand.target_uri),
        // As Kubernetes sets it where a Service is named like us.
        ("CLUSTERSYNC_PORT", "tcp://10.0.0.7:2242"),
        ("PCSM_PORT", &port),
    ];
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_clustersync"));
    // The id is no subcommand.
    let args = ["--log-no-color".to_owned(), "--sync-id".to_owned(), "start".to_owned()];
    let process = crate::lab::process::Process::start(program, &args, &variables, &folder.0, "serve");
    let began = std::time::Instant::now();
    let answer = loop {
        let output = run(&["status", "--port", &port]);
        if output.status.success() {
            break output;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{}", process.output());
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(String::from_utf8(answer.stdout).unwrap().contains("\"idle\""));
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

/// As `status --watch | head -1`.
fn a_watch_ends_with_its_reader(port: &str) {
    let mut watching = Command::new(env!("CARGO_BIN_EXE_clustersync"))
        .args(["status", "--watch", "--port", port])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("running"), "{line}");
    let began = std::time::Instant::now();
    while watching.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
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
    a_watch_ends_with_its_reader(&port);
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
