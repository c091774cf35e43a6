//! What Argo CD and Flux make of a `ClusterSync` in each state of the table in `docs/architecture.md`. Their scripts are
//! run by interpreters, on objects made by the functions that write the status.

use clustersync::api::ClusterSyncStatus;
use clustersync::resource::status::{controller_status, worker_status};
use clustersync::resource::{Asked, Judged, Outcome, Unusable};
use clustersync::sync::report::{CompletionReport, SideReport, UnsuccessfulIndex};
use clustersync::sync::{Desired, DesiredState, Phase, Reason, Report};
use jiff::{SignedDuration, Timestamp};
use mlua::LuaSerdeExt;
use serde_json::{Value, json};

const GENERATION: i64 = 3;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// The resource as it is stored once both managers have written.
pub fn object(state: DesiredState, outcome: Outcome<'_>) -> Value {
    let asked = Asked { desired: Desired { state, ..Desired::default() }, max_lag_seconds: 60 };
    let judged = Judged { generation: GENERATION, asked, outcome };
    let controller = controller_status(&judged, &ClusterSyncStatus::default(), now());
    let mut status = worker_status(&judged, &ClusterSyncStatus::default(), 0, None, now());
    status.observed_generation = controller.observed_generation;
    status.conditions.extend(controller.conditions);
    json!({
        "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync",
        "metadata": {"name": "sync", "namespace": "team", "generation": GENERATION},
        "spec": {"state": format!("{state:?}")}, "status": status,
    })
}

pub fn lost(seconds: i64) -> SideReport {
    SideReport {
        connected: Some(false),
        connected_since: now().checked_sub(SignedDuration::from_secs(seconds)).unwrap(),
        ..SideReport::default()
    }
}

/// State, object, Argo CD's word, Flux's word.
pub fn table() -> Vec<(String, Value, &'static str, &'static str)> {
    use DesiredState::{Completed, Paused, Running};
    let at = |phase| Report { phase, epoch: 1, ..Report::default() };
    let pending = |reason| Report { reason: Some(reason), ..at(Phase::Pending) };
    let mut lagging = at(Phase::Streaming);
    lagging.replication.lag_seconds = Some(3600);
    let index = vec![UnsuccessfulIndex::default()];
    let missing = CompletionReport { unsuccessful_indexes: index, ..CompletionReport::default() };
    let (progressing, healthy, degraded) =
        (("Progressing", "InProgress"), ("Healthy", "Current"), ("Degraded", "Failed"));
    let suspended = ("Suspended", "Current");
    let reports = [
        ("waits for ownership", Running, at(Phase::Pending), progressing),
        ("waits for another owner", Running, pending(Reason::OwnedElsewhere), progressing),
        ("waits for a slot", Running, pending(Reason::Queued), progressing),
        ("waits for a server", Running, pending(Reason::TargetUnreachable), progressing),
        ("checks", Running, at(Phase::Preflight), progressing),
        ("clones", Running, at(Phase::Cloning), progressing),
        ("catches up", Running, at(Phase::CatchingUp), progressing),
        ("streams", Running, at(Phase::Streaming), healthy),
        ("lags", Running, lagging, healthy),
        ("retries", Running, Report { source: lost(30), ..at(Phase::Streaming) }, healthy),
        ("is cut off", Running, Report { target: lost(61), ..at(Phase::Streaming) }, progressing),
        ("is about to pause", Paused, at(Phase::Streaming), progressing),
        ("rests", Paused, at(Phase::Paused), suspended),
        ("is about to resume", Running, at(Phase::Paused), progressing),
        ("is about to cut over", Completed, at(Phase::Streaming), progressing),
        ("cuts over", Completed, at(Phase::Completing), progressing),
        ("is done", Completed, at(Phase::Completed), healthy),
        ("misses indexes", Completed, Report { completion: Some(missing), ..at(Phase::Completed) }, degraded),
        ("has stopped", Running, Report { reason: Some(Reason::OplogLost), ..at(Phase::Stalled) }, degraded),
    ];
    let mut table: Vec<_> = reports
        .iter()
        .map(|(what, state, report, (argo, flux))| {
            ((*what).to_owned(), object(*state, Outcome::Running(report)), *argo, *flux)
        })
        .collect();
    // Each reason why a sync stops.
    for reason in Reason::ALL {
        let report = Report { reason: Some(*reason), message: "why".into(), ..at(Phase::Stalled) };
        let object = object(Running, Outcome::Running(&report));
        table.push((format!("stopped with {reason}"), object, degraded.0, degraded.1));
    }
    let (absent, wrong) =
        (Unusable::missing("Secret a does not exist."), Unusable::invalid("spec.scope: no."));
    table.push((
        "waits for a Secret".into(),
        object(Running, Outcome::Waiting(&absent)),
        progressing.0,
        progressing.1,
    ));
    table.push(("cannot be used".into(), object(Running, Outcome::Refused(&wrong)), degraded.0, degraded.1));
    table.push((
        "cannot be read".into(),
        object(Running, Outcome::Undecodable("no")),
        degraded.0,
        degraded.1,
    ));

    let mut fresh = object(Running, Outcome::Waiting(&absent));
    fresh.as_object_mut().unwrap().remove("status");
    table.push(("is new".into(), fresh, progressing.0, progressing.1));
    let streaming = at(Phase::Streaming);
    let mut half = object(Running, Outcome::Running(&streaming));
    half["status"].as_object_mut().unwrap().remove("conditions");
    table.push(("has no conditions yet".into(), half, progressing.0, progressing.1));
    // Good and bad news of an older spec count for nothing.
    let stopped = at(Phase::Stalled);
    for (what, report) in [("good", &streaming), ("bad", &stopped)] {
        let mut stale = object(Running, Outcome::Running(report));
        stale["metadata"]["generation"] = json!(GENERATION + 1);
        table.push((format!("has {what} news of yesterday"), stale, progressing.0, progressing.1));
    }
    table
}

fn argo(script: &str, object: &Value) -> (String, String) {
    let lua = mlua::Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let answer: mlua::Table = lua.load(script).eval().unwrap();
    (answer.get("status").unwrap(), answer.get("message").unwrap())
}

#[test]
fn argo_cd_shows_each_state() {
    let script = read("argocd/health.lua");
    let table = table();
    for (what, object, expected, _) in &table {
        let (status, message) = argo(&script, object);
        assert_eq!(status, *expected, "{what}: {message}");
        assert!(!message.is_empty(), "{what}");
    }
    let find = |what: &str| &table.iter().find(|row| row.0 == what).unwrap().1;
    let mut deleted = find("streams").clone();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(argo(&script, &deleted).0, "Progressing");
    assert_eq!(argo(&script, find("stopped with OplogLost")).1, "OplogLost: why");
    assert_eq!(argo(&script, find("waits for a Secret")).1, "CredentialsMissing: Secret a does not exist.");
}

#[test]
fn the_snippet_for_argo_cd_holds_the_script() {
    let snippet: Value = serde_saphyr::from_str(&read("argocd/argocd-cm.yaml")).unwrap();
    let data = snippet["data"]["resource.customizations.health.clustersync.dev_ClusterSync"].as_str();
    assert_eq!(data, Some(read("argocd/health.lua").as_str()));
}

/// As kustomize-controller does it: the generation first, then the three expressions in this order; one that cannot be
/// evaluated is looked at again later.
fn flux(expressions: &Value, object: &Value) -> &'static str {
    let observed = object["status"]["observedGeneration"].as_i64();
    if observed.is_some_and(|observed| Some(observed) != object["metadata"]["generation"].as_i64()) {
        return "InProgress";
    }
    let mut context = cel::Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable_from_value(name.as_str(), cel::to_value(value).unwrap());
    }
    for (field, verdict) in [("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")] {
        let program = cel::Program::compile(expressions[field].as_str().unwrap()).unwrap();
        match program.execute(&context) {
            Ok(cel::Value::Bool(false)) => {}
            Ok(cel::Value::Bool(true)) => return verdict,
            Err(error) if object.get("status").is_none() => {
                assert!(error.to_string().contains("status"), "{error}");
                return "InProgress";
            }
            other => panic!("{field}: {other:?}"),
        }
    }
    "InProgress"
}

#[test]
fn flux_sees_each_state() {
    let kustomization: Value = serde_saphyr::from_str(&read("flux/clustersyncs.yaml")).unwrap();
    let expressions = &kustomization["spec"]["healthCheckExprs"][0];
    assert_eq!(expressions["apiVersion"], "clustersync.dev/v1alpha1");
    assert_eq!(expressions["kind"], "ClusterSync");
    for (what, object, _, expected) in table() {
        assert_eq!(flux(expressions, &object), expected, "{what}");
    }
}
