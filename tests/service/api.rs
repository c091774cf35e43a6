//! What the API answers to what is wrong, and what it shows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stand::{Serve, Stand};

#[tokio::test(flavor = "multi_thread")]
async fn each_call_in_each_state() {
    let stand = Stand::new("table").await;
    stand.fill("c", 100, 10).await;
    let serve = stand.serve(&[]);
    for (call, why) in [("/pause", "not started"), ("/resume", "not started"), ("/finalize", "not started")] {
        assert_eq!(serve.refused(call, &json!({})), why);
    }
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    assert_eq!(serve.refused("/start", &stand.scope()), "already running");
    assert!(serve.refused("/resume", &json!({})).contains("not paused"));
    serve.done("/pause", &json!({}));
    assert_eq!(serve.refused("/pause", &json!({})), "already paused");
    assert!(serve.refused("/start", &stand.scope()).contains("paused"));
    serve.done("/resume", &json!({}));
    serve.until_streaming();
    serve.done("/finalize", &json!({}));
    serve.until_state("finalized");
    for call in ["/pause", "/resume"] {
        assert_eq!(serve.refused(call, &json!({})), "already finalized");
    }
    serve.done("/finalize", &json!({}));
    serve.until_state("finalized");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_paused_or_finalized_before_the_initial_sync_is_complete() {
    let stand = Stand::new("early").await;
    stand.fill("c", 60_000, 700).await;
    let serve = stand.serve(&[]);
    serve.done("/start", &stand.scope());
    let status = serve.until("cloning", |status| status["phase"] == "Cloning");
    assert!(serve.refused("/pause", &json!({})).contains("initial sync"));
    assert!(serve.refused("/finalize", &json!({})).contains("initial sync"));
    assert_eq!(status["initialSync"]["completed"], false);
    assert!(status["initialSync"]["estimatedCloneSizeBytes"].as_u64().unwrap() > 40_000_000);
    let shown = serve.until("progress", |status| {
        status["phase"] != "Cloning" || status["progress"][0]["clonedSizeBytes"].as_u64() > Some(0)
    });
    if shown["phase"] == "Cloning" {
        assert_eq!(shown["progress"][0]["namespace"], "early.c");
        assert_eq!(shown["progress"][0]["estimatedDocuments"], 60_000);
    }
    serve.until_streaming();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_methods_that_are_wrong() {
    let stand = Stand::new("bodies").await;
    let serve = stand.serve(&[]);
    for (body, code) in [
        ("{\"includeNamespaces\": [\"a.b\"", 400),
        ("include=a.b", 400),
        ("[1, 2", 400),
        ("\u{1}", 400),
        ("[]", 200),
        ("\"a\"", 200),
        ("7", 200),
    ] {
        for call in ["/start", "/resume", "/pause", "/finalize"] {
            let (got, answer) = serve.raw("POST", call, body);
            assert_eq!(got, code, "{call} {body}: {answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["ok"], false, "{call} {body}");
        }
    }
    let huge = format!("{{\"includeNamespaces\": [\"{}\"]}}", "a".repeat(1 << 20));
    assert_eq!(serve.raw("POST", "/start", &huge).0, 413);
    for (body, named) in [
        (json!({"includeNamespace": ["a.b"]}), "includeNamespace"),
        (json!({"includeNamespaces": "a.b"}), "includeNamespaces"),
        (json!({"includeNamespaces": [1]}), "includeNamespaces"),
        (json!({"cloneNumReadWorkers": -1}), "cloneNumReadWorkers"),
        (json!({"cloneSegmentSize": "big"}), "cloneSegmentSize"),
        (json!({"pauseOnInitialSync": 1}), "pauseOnInitialSync"),
        (json!({"targetWriteConcern": "all"}), "targetWriteConcern"),
    ] {
        let error = serve.refused("/start", &body);
        assert!(error.contains(named), "{body}: {error}");
    }
    assert!(serve.refused("/resume", &json!({"fromFailure": "yes"})).contains("fromFailure"));
    assert!(serve.refused("/resume", &json!({"x": 1})).contains("'x'"));
    assert!(serve.refused("/pause", &json!({"x": 1})).contains("'x'"));
    for (method, path) in [
        ("GET", "/start"),
        ("GET", "/pause"),
        ("POST", "/status"),
        ("PUT", "/start"),
        ("DELETE", "/finalize"),
    ] {
        assert_eq!(serve.raw(method, path, "").0, 405, "{method} {path}");
    }
    assert_eq!(serve.raw("GET", "/nothing", "").0, 404);
    assert_eq!(serve.state(), "idle", "none of it did anything");
    let lenient = stand.serve_as("bodies-lenient", &["--lenient"]);
    let mut body = stand.scope();
    body["somethingNew"] = 1.into();
    lenient.done("/start", &body);
    assert!(!lenient.refused("/resume", &json!({"somethingNew": 1})).contains("somethingNew"));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_harms_nobody() {
    let stand = Stand::new("half").await;
    let serve = stand.serve(&[]);
    for half in
        ["", "POST /start HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a\"", "\0\0\0\0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", serve.port)).unwrap();
        stream.write_all(half.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = stream.read(&mut [0; 64]);
    }
    assert_eq!(serve.state(), "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_health_and_the_page() {
    let stand = Stand::new("numbers").await;
    stand.fill("c", 500, 10).await;
    let serve = stand.serve(&[]);
    assert!(serve.raw("GET", "/metrics", "").1.contains("percona_clustersync_mongodb_events_read_total 0"));
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    stand.fill("d", 40, 10).await;
    stand.caught_up(&serve).await;
    let metrics = serve.raw("GET", "/metrics", "").1;
    for line in [
        "percona_clustersync_mongodb_copy_insert_document_total 500",
        "percona_clustersync_mongodb_repl_worker_events_applied_total{worker=\"1\"}",
        "percona_clustersync_mongodb_lag_time_seconds 0",
        "clustersync_phase{name=\"numbers\",namespace=\"\",phase=\"Streaming\"} 1",
        "clustersync_events_applied_total{name=\"numbers\",namespace=\"\"} 41",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(serve.raw("GET", "/livez", ""), (200, "ok".to_owned()));
    assert_eq!(serve.raw("GET", "/readyz", ""), (200, "ok".to_owned()));
    let (code, page) = serve.raw("GET", "/", "");
    assert!(code == 200 && page.contains("<title>clustersync</title>"));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing comes from elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_do_not_answer_are_said_in_time() {
    let stand = Stand::new("silent").await;
    let dead = format!("mongodb://127.0.0.1:{}/?replicaSet=x", crate::lab::free_port());
    let target = Serve::start(&[
        "serve".to_owned(),
        format!("--source={}", stand.source_uri),
        format!("--target={dead}"),
    ]);
    assert_eq!(target.state(), "idle");
    let (code, why) = target.raw("GET", "/readyz", "");
    assert!(code == 503 && why.starts_with("not ready: "), "{code} {why}");
    assert_eq!(target.raw("GET", "/livez", "").0, 200);
    for call in ["/start", "/pause", "/resume", "/finalize"] {
        let why = target.refused(call, &json!({}));
        assert!(why.starts_with("not ready: ") && why.contains("target"), "{call}: {why}");
    }
    // The source is only asked once it runs: it waits, and says for what.
    let source = Serve::start(&[
        "serve".to_owned(),
        format!("--source={dead}"),
        format!("--target={}", stand.target_uri),
        "--sync-id=silent".to_owned(),
    ]);
    source.done("/start", &stand.scope());
    assert_eq!(source.state(), "running");
    let status = source
        .until("explained", |status| status["info"].as_str().is_some_and(|info| info.contains("source")));
    assert_eq!(status["state"], "running");
    // Whether its initial sync is complete is not known here.
    for call in ["/pause", "/finalize"] {
        let why = source.refused(call, &json!({}));
        assert!(why.contains("not streaming") && why.contains("source"), "{call}: {why}");
    }
    assert_eq!(source.raw("GET", "/readyz", "").0, 200, "what was asked is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_other_sites_are_refused() {
    let stand = Stand::new("pages").await;
    let serve = stand.serve(&[]);
    let here = format!("Host: localhost:{}", serve.port);
    let own = format!("Origin: http://localhost:{}", serve.port);
    for (headers, code) in [
        (&[here.as_str()][..], 200),
        (&["Host: 127.0.0.1"], 200),
        (&[&here, &own, "Sec-Fetch-Site: same-origin"], 200),
        (&[&here, "Sec-Fetch-Site: none"], 200),
        (&[&here, "Origin: http://evil.example"], 403),
        (&[&here, "Origin: null"], 403),
        (&[&here, "Sec-Fetch-Site: cross-site"], 403),
        (&[&here, "Sec-Fetch-Site: same-site"], 403),
        (&["Host: evil.example", "Origin: http://evil.example"], 403),
    ] {
        for (method, path) in [("GET", "/status"), ("GET", "/"), ("GET", "/metrics"), ("POST", "/pause")] {
            let (got, answer) = serve.with_headers(method, path, headers);
            assert_eq!(got, code, "{path} {headers:?}: {answer}");
            assert_eq!(answer.contains("{\"error\":\"forbidden: "), code == 403, "{answer}");
        }
        assert_eq!(serve.with_headers("GET", "/livez", headers).0, 200);
        assert_ne!(serve.with_headers("GET", "/readyz", headers).0, 403);
    }
    let evil = ["Host: evil.example", "Origin: http://evil.example"];
    assert_eq!(serve.with_headers("POST", "/start", &evil).0, 403);
    assert_eq!(serve.state(), "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_a_start_come_from_the_environment() {
    let stand = Stand::new("defaults").await;
    stand.fill("c", 200, 10).await;
    let environment = [
        ("PCSM_REPL_NUM_WORKERS", "7"),
        ("CLUSTERSYNC_REPL_NUM_WORKERS", "2"),
        ("PCSM_CLONE_SEGMENT_SIZE", "1GiB"),
        ("PCSM_USE_COLLECTION_BULK_WRITE", "true"),
        ("PCSM_CLONE_NUM_READ_WORKERS", ""),
    ];
    let mut serve = Serve::start_in(&environment, &stand.arguments("defaults", &[]));
    serve.done("/start", &stand.scope());
    serve.until_streaming();
    let lanes = |serve: &Serve| {
        let metrics = serve.raw("GET", "/metrics", "").1;
        metrics.matches("repl_worker_events_applied_total{worker=").count()
    };
    stand.fill("d", 40, 10).await;
    stand.caught_up(&serve).await;
    assert_eq!(lanes(&serve), 2);
    let log = serve.process.output();
    assert!(log.contains("cloneSegmentSize, useCollectionBulkWrite"), "{log}");
    serve.process.stop();
    // What a start said stays, whatever the environment of the next process is; and a call has the last word.
    let serve = stand.serve(&[]);
    serve.until_streaming();
    serve.done("/finalize", &json!({}));
    serve.until_state("finalized");
    drop(serve);
    let serve = Serve::start_in(&environment, &stand.arguments("defaults", &[]));
    serve.until_state("finalized");
    let mut body = stand.scope();
    body["replNumWorkers"] = 3.into();
    serve.done("/start", &body);
    serve.until_streaming();
    stand.fill("e", 40, 10).await;
    stand.caught_up(&serve).await;
    assert_eq!(lanes(&serve), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_https() {
    let stand = Stand::new("guarded").await;
    let folder = crate::lab::process::Folder::new("https");
    let path = |name: &str| folder.0.join(name).display().to_string();
    std::fs::write(folder.0.join("token"), "secret-token\n").unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            &path("key"),
            "-out",
            &path("crt"),
        ])
        .output()
        .unwrap();
    assert!(made.status.success());
    let token = format!("--auth-token-file={}", path("token"));
    let serve = stand.serve(&[&token]);
    for (method, call) in [("GET", "/status"), ("POST", "/start"), ("GET", "/metrics"), ("GET", "/")] {
        assert_eq!(serve.raw(method, call, "").0, 401, "{call}");
    }
    assert_eq!(serve.raw("GET", "/livez", "").0, 200);
    let with = |token: &str| {
        let call = Serve::agent().get(format!("http://127.0.0.1:{}/status", serve.port));
        call.header("Authorization", format!("Bearer {token}")).call().unwrap().status().as_u16()
    };
    assert_eq!((with("secret-token"), with("secret-tokem"), with("")), (200, 401, 401));
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_clustersync"))
        .args(["status", "--watch", "--port", &serve.port.to_string()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "there is nothing to watch");
    let secure =
        stand.serve(&[&token, &format!("--tls-cert={}", path("crt")), &format!("--tls-key={}", path("key"))]);
    let status = |more: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_clustersync"))
            .args(["status", &format!("--url=https://localhost:{}", secure.port), &token])
            .args(more)
            .output()
            .unwrap()
    };
    let answer = status(&[&format!("--ca-file={}", path("crt"))]);
    assert!(answer.status.success(), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("\"idle\""));
    assert_eq!(status(&[]).status.code(), Some(1), "an unknown authority is not trusted");
}
