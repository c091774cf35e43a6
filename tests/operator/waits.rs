//! The `kubectl wait` examples of the documentation: each is run when it must hold and when it must not.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::site::{Operator, Site, cluster_sync, fill, secrets, succeed};

/// The resource that the examples speak of.
const NAME: &str = "first-sync";

/// Every `kubectl wait` for a `ClusterSync` in the README and under docs/, as words.
fn examples() -> Vec<Vec<String>> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut pages = vec![format!("{root}/README.md")];
    for entry in std::fs::read_dir(format!("{root}/docs")).unwrap() {
        pages.push(entry.unwrap().path().display().to_string());
    }
    let mut found = Vec::new();
    for page in pages.iter().filter(|page| page.ends_with(".md")) {
        for line in std::fs::read_to_string(page).unwrap().lines() {
            let line = line.trim().trim_start_matches("$ ");
            if !line.starts_with("kubectl") || !line.contains(" wait ") || !line.contains("csync") {
                continue;
            }
            let command = line.split(" #").next().unwrap();
            let words = command.split_whitespace().skip(1).map(|word| word.replace('\'', ""));
            found.push(words.collect::<Vec<_>>());
        }
    }
    found.sort();
    found.dedup();
    found
}

fn target(example: &[String]) -> &str {
    example.iter().find_map(|word| word.strip_prefix("--for=")).expect("a --for")
}

/// The example as it stands, but for the time that it may take.
fn wait(site: &Site, example: &[String], seconds: u32) -> Output {
    let timeout = format!("--timeout={seconds}s");
    let words = example.iter().filter(|word| !word.starts_with("--timeout=") && *word != "-n");
    let words = words.map(String::as_str).filter(|word| *word != "clustersync-system");
    let args: Vec<&str> =
        ["-n", &site.namespace].into_iter().chain(words).chain([timeout.as_str()]).collect();
    site.plane.try_kubectl(&args)
}

/// What holds in one stage of the life of a sync, and what does not.
struct Stage {
    holds: &'static [&'static str],
    fails: &'static [&'static str],
}

const MISSING: Stage = Stage {
    holds: &["condition=Stalled=False"],
    fails: &["condition=Ready", "condition=InitialSyncComplete"],
};
const STREAMING: Stage = Stage {
    holds: &[
        "condition=Ready",
        "condition=InitialSyncComplete",
        "condition=Lagging=False",
        "condition=Stalled=False",
    ],
    fails: &["condition=Completed", "delete", "jsonpath={.status.phase}=Paused"],
};
const PAUSED: Stage =
    Stage { holds: &["condition=Ready", "jsonpath={.status.phase}=Paused"], fails: &["condition=Completed"] };
const COMPLETED: Stage =
    Stage { holds: &["condition=Completed", "condition=Ready"], fails: &["jsonpath={.status.phase}=Paused"] };
const DELETED: Stage = Stage { holds: &["delete"], fails: &[] };

fn check(site: &Site, examples: &[Vec<String>], stage: &Stage, proven: &mut Vec<String>) {
    for example in examples {
        let aim = target(example);
        if stage.holds.contains(&aim) {
            let output = wait(site, example, 60);
            assert!(output.status.success(), "{example:?}: {}", String::from_utf8_lossy(&output.stderr));
            proven.push(aim.to_owned());
        }
        if stage.fails.contains(&aim) {
            assert!(!wait(site, example, 1).status.success(), "{example:?} holds too early");
        }
    }
}

/// While the operator sees nothing of a change, what held before must not count as an answer to it.
fn yesterday(site: &Site, operator: &Operator, state: &str, condition: &str) {
    let wait = |timeout: &str| {
        let aim = format!("--for=condition={condition}");
        let args = ["-n", &site.namespace, "wait", "csync/first-sync", &aim, timeout];
        let began = Instant::now();
        (site.plane.try_kubectl(&args).status.success(), began.elapsed())
    };
    assert!(wait("--timeout=5s").0, "{condition} holds before");
    operator.process.signal("STOP");
    site.set_state(NAME, state);
    let (held, took) = wait("--timeout=2s");
    operator.process.signal("CONT");
    assert!(!held, "{condition} was yesterday's word, told after {took:?}");
    assert!(wait("--timeout=60s").0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_of_the_documentation_waits_for_what_it_says() {
    let examples = examples();
    let site = Site::new("waits");
    let (source, _) = secrets(&site).await;
    fill(&source, "waits", 100).await;
    let uri = crate::site::sets().await.1.uri();
    site.kubectl(&["delete", "secret", "target"]);
    let operator = site.operator(&[]);
    succeed(site.apply(&cluster_sync(NAME, "waits")));
    site.reason(NAME, "CredentialsMissing");
    let mut proven = Vec::new();
    check(&site, &examples, &MISSING, &mut proven);

    site.secret("target", &uri);
    site.phase(NAME, "Streaming");
    check(&site, &examples, &STREAMING, &mut proven);

    yesterday(&site, &operator, "Paused", "Ready");
    assert_eq!(site.get(NAME)["status"]["phase"], "Paused", "Ready means paused once that was asked for");
    check(&site, &examples, &PAUSED, &mut proven);

    yesterday(&site, &operator, "Running", "Ready");
    assert_eq!(site.get(NAME)["status"]["phase"], "Streaming");
    yesterday(&site, &operator, "Completed", "Ready");
    assert_eq!(site.get(NAME)["status"]["phase"], "Completed");
    check(&site, &examples, &COMPLETED, &mut proven);

    site.kubectl(&["delete", "csync", NAME]);
    check(&site, &examples, &DELETED, &mut proven);
    std::thread::sleep(Duration::from_millis(100));

    for example in &examples {
        let aim = target(example);
        assert!(proven.iter().any(|proven| proven == aim), "no stage of this test proves {example:?}");
    }
    assert!(proven.len() >= 5, "{proven:?}");
}
