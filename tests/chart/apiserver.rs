//! Releases on a real apiserver. No pod runs there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::{Value, json};

use crate::helm::{DEFINITION, OPERATOR, read, render, run, said};
use crate::lab;
use crate::lab::control_plane::ControlPlane;
use crate::lab::process::{Folder, Process};

const CRD: &str = "clustersyncs.clustersync.dev";
const KEEP: &str = "crd/clustersyncs.clustersync.dev";

struct Site {
    plane: &'static ControlPlane,
    /// The definition is the cluster's: one test at a time.
    _turn: MutexGuard<'static, ()>,
}

fn site() -> Site {
    static PLANE: OnceLock<(ControlPlane, Process)> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (plane, _) = PLANE.get_or_init(|| {
        let plane = ControlPlane::start();
        // Fills view, edit and admin.
        let controllers = plane.controllers("clusterrole-aggregation-controller");
        (plane, controllers)
    });
    let site = Site { plane, _turn: turn };
    site.plane.kubectl(&["delete", "crd", CRD, "--ignore-not-found", "--timeout=30s"]);
    site
}

impl Site {
    fn try_helm_as(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let home = self.plane.folder();
        run(lab::tool("CLUSTERSYNC_HELM"), args, "", &[("KUBECONFIG", kubeconfig), ("HOME", home)])
    }

    fn try_helm(&self, args: &[&str]) -> Output {
        self.try_helm_as(&self.plane.kubeconfig, args)
    }

    fn helm(&self, args: &[&str]) -> String {
        let output = self.try_helm(args);
        assert!(output.status.success(), "helm {args:?}: {}", said(&output));
        said(&output)
    }

    /// Refused, for a reason that holds these words.
    fn refused(&self, args: &[&str], words: &[&str]) {
        refused(&self.try_helm(args), words);
    }

    fn namespace(&self, name: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        self.apply(&object);
    }

    fn apply(&self, object: &Value) {
        let output = self.plane.apply(&object.to_string());
        assert!(output.status.success(), "{}", said(&output));
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.plane.kubectl(&[args, &["-o", "json"]].concat())).unwrap()
    }

    fn there(&self, namespace: &str, what: &str) -> bool {
        self.plane.try_kubectl(&["-n", namespace, "get", what]).status.success()
    }

    fn established(&self) {
        self.plane.kubectl(&["wait", "--for=condition=Established", KEEP, "--timeout=30s"]);
    }

    /// A sync; what it has beside the least is given.
    fn sync(&self, namespace: &str, metadata: Value, spec: Value) {
        let mut object = json!({
            "apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": "x"},
            "spec": {
                "source": {"uriSecretRef": {"name": "s", "key": "uri"}},
                "target": {"uriSecretRef": {"name": "t", "key": "uri"}},
            },
        });
        merge(&mut object["metadata"], metadata);
        merge(&mut object["spec"], spec);
        object["metadata"]["namespace"] = json!(namespace);
        self.apply(&object);
    }
}

fn merge(into: &mut Value, more: Value) {
    into.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}

fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert!(!output.status.success(), "accepted: {said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
}

/// A copy of the operator's chart whose definition has one more field: a later version.
fn later(folder: &Folder) -> PathBuf {
    let to = folder.0.join("clustersync");
    let copied = run("cp".into(), &["-r", OPERATOR, to.to_str().unwrap()], "", &[]);
    assert!(copied.status.success(), "{}", said(&copied));
    let edit = |path: &str, from: &str, into: &str| {
        let text = fs::read_to_string(to.join(path)).unwrap();
        assert!(text.contains(from), "{path}: {from}");
        fs::write(to.join(path), text.replacen(from, into, 1)).unwrap();
    };
    edit("Chart.yaml", "\nversion: ", "\nversion: 9");
    edit(
        "templates/crd.yaml",
        "              deletionPolicy:\n",
        "              later:\n                type: string\n              deletionPolicy:\n",
    );
    to
}

#[test]
fn a_release_from_install_to_uninstall() {
    let site = site();
    site.namespace("whole");
    site.helm(&["install", "clustersync", OPERATOR, "-n", "whole"]);
    site.established();
    site.sync("whole", json!({}), json!({}));
    let before = site.json(&["-n", "whole", "get", "csync", "x"]);

    site.helm(&["upgrade", "clustersync", OPERATOR, "-n", "whole", "--set", "replicas=2"]);
    let deployment = || site.json(&["-n", "whole", "get", "deployment", "clustersync-operator"]);
    assert_eq!(deployment()["spec"]["strategy"]["type"], "RollingUpdate");
    assert!(site.there("whole", "pdb/clustersync-operator"));

    site.helm(&["rollback", "clustersync", "1", "-n", "whole"]);
    assert_eq!(deployment()["spec"]["replicas"], 1);
    assert_eq!(
        deployment()["spec"]["strategy"],
        json!({"type": "Recreate"}),
        "nothing of rollingUpdate stays"
    );
    assert!(!site.there("whole", "pdb/clustersync-operator"));
    let after = site.json(&["-n", "whole", "get", "csync", "x"]);
    assert_eq!(after["metadata"], before["metadata"], "no release touches a resource");

    // The same again changes nothing.
    let generation = deployment()["metadata"]["generation"].clone();
    site.helm(&["upgrade", "clustersync", OPERATOR, "-n", "whole"]);
    assert_eq!(deployment()["metadata"]["generation"], generation);

    site.helm(&["uninstall", "clustersync", "-n", "whole"]);
    for gone in ["deployment", "service", "role", "rolebinding", "serviceaccount"] {
        assert!(!site.there("whole", &format!("{gone}/clustersync-operator")), "{gone}");
    }
    assert!(site.there("whole", KEEP) && site.there("whole", "csync/x"), "crds.keep");

    // What stayed belongs to the release that left it: that one takes it up again, another only when told to.
    site.namespace("other");
    site.refused(
        &["install", "clustersync", OPERATOR, "-n", "other"],
        &[CRD, "invalid ownership metadata", "release-namespace"],
    );
    site.helm(&["install", "clustersync", OPERATOR, "-n", "whole"]);
    site.helm(&["uninstall", "clustersync", "-n", "whole"]);
    site.helm(&["install", "clustersync", OPERATOR, "-n", "other", "--take-ownership"]);
    assert!(site.there("whole", "csync/x"));

    // Without keep all of it goes.
    site.helm(&["upgrade", "clustersync", OPERATOR, "-n", "other", "--set", "crds.keep=false"]);
    site.helm(&["uninstall", "clustersync", "-n", "other", "--wait", "--timeout=30s"]);
    assert!(!site.there("whole", KEEP));
}

#[test]
fn without_keep_a_finalizer_hangs_the_uninstall() {
    let site = site();
    site.namespace("hangs");
    site.helm(&["install", "clustersync", OPERATOR, "-n", "hangs", "--set", "crds.keep=false"]);
    site.established();
    site.sync(
        "hangs",
        json!({"finalizers": ["clustersync.dev/durable-state"]}),
        json!({"deletionPolicy": "Delete"}),
    );
    site.refused(&["uninstall", "clustersync", "-n", "hangs", "--wait", "--timeout=4s"], &["deadline"]);
    let definition = site.json(&["get", KEEP]);
    assert!(!definition["metadata"]["deletionTimestamp"].is_null(), "it waits for the resource");
    assert!(!site.there("hangs", "deployment/clustersync-operator"), "which nobody is there to let go");
    site.plane.kubectl(&[
        "-n",
        "hangs",
        "patch",
        "csync",
        "x",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    site.plane.kubectl(&["wait", "--for=delete", KEEP, "--timeout=30s"]);
}

#[test]
fn a_definition_that_kubectl_applied_is_taken_over_when_told_to() {
    let site = site();
    for (number, chart) in [OPERATOR, DEFINITION].into_iter().enumerate() {
        let namespace = format!("over-{number}");
        site.namespace(&namespace);
        let output = site.plane.apply(&read("crds/clustersyncs.clustersync.dev.yaml"));
        assert!(output.status.success(), "{}", said(&output));
        site.established();
        site.sync(&namespace, json!({}), json!({}));
        let install = ["install", "clustersync", chart, "-n", &namespace];
        site.refused(&install, &[CRD, "invalid ownership metadata", "meta.helm.sh/release-name"]);
        site.helm(&[&install[..], &["--take-ownership"]].concat());
        assert!(site.there(&namespace, "csync/x"));
        site.helm(&["uninstall", "clustersync", "-n", &namespace]);
        site.plane.kubectl(&["delete", KEEP, "--timeout=30s"]);
    }
}

#[test]
fn a_second_release_and_its_limits() {
    let site = site();
    for namespace in ["first", "second"] {
        site.namespace(namespace);
    }
    site.helm(&["install", "clustersync", OPERATOR, "-n", "first"]);
    site.refused(&["install", "clustersync", OPERATOR, "-n", "second"], &[CRD, "ownership"]);
    let second = ["install", "clustersync", OPERATOR, "-n", "second", "--set", "crds.enabled=false"];
    site.helm(&[&second[..], &["--set", "rbac.aggregate=true"]].concat());
    for namespace in ["first", "second"] {
        assert!(site.there(namespace, "deployment/clustersync-operator"));
        let own = format!("system:serviceaccount:{namespace}:clustersync-operator");
        for (place, may) in [("first", namespace == "first"), ("second", namespace == "second")] {
            for question in [["get", "secrets"], ["update", "leases/clustersync-operator"]] {
                let args = [&["auth", "can-i", "-n", place, "--as", &own], &question[..]].concat();
                assert_eq!(site.plane.try_kubectl(&args).status.success(), may, "{namespace}: {args:?}");
            }
        }
    }
    site.helm(&["uninstall", "clustersync", "-n", "second"]);
    assert!(site.there("first", KEEP) && site.there("first", "deployment/clustersync-operator"));

    // Two operators on one namespace would steer the same resources.
    let both = [&second[..], &["--set", "watchNamespaces={first,second}"]].concat();
    site.refused(&both, &["clustersync-operator", "in namespace \"first\"", "ownership"]);
    site.helm(&["uninstall", "clustersync", "-n", "first"]);
}

#[test]
fn the_admin_of_a_namespace_installs_what_the_cluster_allows() {
    let site = site();
    for namespace in ["definition", "tenant"] {
        site.namespace(namespace);
    }
    site.plane.kubectl(&["-n", "tenant", "create", "serviceaccount", "admin"]);
    site.plane.kubectl(&[
        "-n",
        "tenant",
        "create",
        "rolebinding",
        "admin",
        "--clusterrole=admin",
        "--serviceaccount=tenant:admin",
    ]);
    let admin = site.plane.kubeconfig_for("tenant", "admin");
    let may = |who: &str, question: &[&str]| {
        let args = [&["auth", "can-i", "-n", "tenant", "--as", who], question].concat();
        site.plane.try_kubectl(&args).status.success()
    };
    let install = ["install", "clustersync", OPERATOR, "-n", "tenant"];
    refused(&site.try_helm_as(&admin, &install), &["customresourcedefinitions", "forbidden"]);
    site.helm(&["install", "crds", DEFINITION, "-n", "definition"]);
    site.established();
    let without = [&install[..], &["--set", "crds.enabled=false"]].concat();
    refused(
        &site.try_helm_as(&admin, &without),
        &["attempting to grant RBAC permissions not currently held"],
    );
    site.try_helm_as(&admin, &["uninstall", "clustersync", "-n", "tenant"]);

    // Roles by somebody else.
    let apart = [&without[..], &["--set", "rbac.create=false"]].concat();
    let output = site.try_helm_as(&admin, &apart);
    assert!(output.status.success(), "{}", said(&output));
    site.try_helm_as(&admin, &["uninstall", "clustersync", "-n", "tenant"]);

    // Or what the admin needs, aggregated.
    let who = "system:serviceaccount:tenant:admin";
    assert!(!may(who, &["create", "clustersyncs"]));
    site.helm(&["upgrade", "crds", DEFINITION, "-n", "definition", "--set", "rbac.aggregate=true"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !(may(who, &["create", "clustersyncs"])
        && may(who, &["patch", "clustersyncs", "--subresource=status"]))
    {
        assert!(std::time::Instant::now() < deadline, "the roles are not aggregated");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let output = site.try_helm_as(&admin, &without);
    assert!(output.status.success(), "{}", said(&output));
    for (role, may_create) in [("view", false), ("edit", true)] {
        site.plane.kubectl(&[
            "-n",
            "tenant",
            "create",
            "rolebinding",
            role,
            &format!("--clusterrole={role}"),
            &format!("--user={role}"),
        ]);
        assert!(may(role, &["get", "clustersyncs"]) && may(role, &["watch", "clustersyncs"]));
        assert_eq!(may(role, &["create", "clustersyncs"]), may_create, "{role}");
        assert!(!may(role, &["patch", "clustersyncs", "--subresource=status"]), "{role}");
        assert_eq!(may(role, &["get", "secrets"]), may_create, "who may create a sync uses Secrets: {role}");
    }
    let output = site.try_helm_as(&admin, &["uninstall", "clustersync", "-n", "tenant"]);
    assert!(output.status.success(), "{}", said(&output));
    site.helm(&["uninstall", "crds", "-n", "definition"]);
}

/// What the README says about the way back.
#[test]
fn a_rollback_keeps_the_newer_definition() {
    let site = site();
    let folder = Folder::new("later");
    let later = later(&folder);
    let later = later.to_str().unwrap();
    site.namespace("back");
    let known = || {
        !site.json(&["get", KEEP])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"].is_null()
    };
    let kept = || {
        // Any write prunes.
        site.plane.kubectl(&["-n", "back", "annotate", "csync", "x", "--overwrite", "n=1"]);
        site.json(&["-n", "back", "get", "csync", "x"])["spec"]["later"] == "a"
    };
    site.helm(&["install", "clustersync", OPERATOR, "-n", "back"]);
    site.helm(&["upgrade", "clustersync", later, "-n", "back"]);
    site.established();
    assert!(known());
    site.sync("back", json!({}), json!({"later": "a"}));

    site.helm(&[
        "upgrade",
        "clustersync",
        OPERATOR,
        "-n",
        "back",
        "--reset-then-reuse-values",
        "--set",
        "crds.enabled=false",
    ]);
    assert!(known() && kept(), "the older chart, the newer definition");

    site.helm(&[
        "upgrade",
        "clustersync",
        later,
        "-n",
        "back",
        "--reset-then-reuse-values",
        "--set",
        "crds.enabled=true",
    ]);
    assert!(known() && kept(), "taken back without --take-ownership");

    site.helm(&["rollback", "clustersync", "1", "-n", "back"]);
    assert!(!known(), "this is why");
    let pruned = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while kept() {
        assert!(std::time::Instant::now() < pruned, "it is pruned");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    site.helm(&["uninstall", "clustersync", "-n", "back"]);
}

#[test]
fn the_pods_are_admitted_under_the_restricted_profile() {
    let site = site();
    site.namespace("strict");
    let rendered = render(OPERATOR, "clustersync", &json!({"crds": {"enabled": false}})).unwrap();
    let pods = [("operator", rendered.pod()), ("test", &rendered.the("Pod")["spec"])];
    for (name, spec) in pods {
        let pod = |spec: &Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "strict"}, "spec": spec});
        let admitted = |spec: &Value| {
            let args = ["create", "--dry-run=server", "-f", "-"];
            site.plane.kubectl_as(&site.plane.kubeconfig, &args, &pod(spec).to_string())
        };
        let output = admitted(spec);
        assert!(output.status.success(), "{}", said(&output));
        let mut loose = spec.clone();
        loose["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        refused(&admitted(&loose), &["PodSecurity", "allowPrivilegeEscalation"]);
    }
}

#[test]
fn an_operator_is_held_to_the_finalizers() {
    let site = site();
    site.namespace("held");
    site.helm(&["install", "clustersync", OPERATOR, "-n", "held", "--set", "rbac.finalizersOnly=true"]);
    site.established();
    site.sync("held", json!({}), json!({}));
    let operator = site.plane.kubeconfig_for("held", "clustersync-operator");
    let patch = |patch: Value| {
        let args = ["-n", "held", "patch", "csync", "x", "--type=merge", "-p", &patch.to_string()];
        site.plane.kubectl_as(&operator, &args, "")
    };
    // A policy holds a moment after it is stored.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut number = 0;
    while patch(json!({"spec": {"limits": {"bytesPerSecond": number}}})).status.success() {
        assert!(std::time::Instant::now() < deadline, "the policy has no effect");
        std::thread::sleep(std::time::Duration::from_millis(300));
        number += 1;
    }
    refused(
        &patch(json!({"spec": {"state": "Paused"}})),
        &["held.clustersync-operator", "what is asked for"],
    );
    refused(
        &patch(json!({"metadata": {"labels": {"a": "b"}}})),
        &["held.clustersync-operator", "finalizers only"],
    );
    let output = patch(json!({"metadata": {"finalizers": ["clustersync.dev/durable-state"]}}));
    assert!(output.status.success(), "{}", said(&output));
    assert!(patch(json!({"metadata": {"finalizers": null}})).status.success());
    site.plane.kubectl(&[
        "-n",
        "held",
        "patch",
        "csync",
        "x",
        "--type=merge",
        "-p",
        r#"{"spec":{"state":"Paused"}}"#,
    ]);
    site.helm(&["uninstall", "clustersync", "-n", "held"]);
}
