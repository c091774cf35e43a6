//! What the operator's account is refused when it tries, and what an operator does in namespaces that are not its own.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::control_plane::ControlPlane;
use crate::lab::process::{Folder, Process};
use crate::site::{
    ACCOUNT, CRD, Operator, Site, cluster_sync, condition, established, fill, secrets, succeed,
};

#[test]
fn what_it_may_not_do_is_refused() {
    let (site, other) = (Site::new("attempts"), Site::new("attempts-other"));
    for site in [&site, &other] {
        site.secret("precious", "mongodb://a.example");
        succeed(site.apply(&cluster_sync("sync", "attempts")));
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "database", "namespace": "attempts"},
        "spec": {"containers": [{"name": "mongod", "image": "mongod", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}});
    succeed(site.plane.apply(&pod.to_string()));
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    succeed(site.apply(&lease("kube-scheduler")));

    let kubeconfig = site.plane.kubeconfig_for(&site.namespace, ACCOUNT);
    let attempt = |args: &[&str], input: &str| site.plane.kubectl_as(&kubeconfig, args, input);
    // Its daily work, so that a refusal below is not one of everything.
    succeed(attempt(&["get", "secret", "precious"], ""));
    succeed(attempt(&["get", "csync", "sync"], ""));

    let all_of = |verbs: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "more"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": [verbs]}]})
        .to_string()
    };
    let bind = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "attempts"}]}).to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}}).to_string();
    let patched = r#"{"metadata": {"labels": {"clustersync.dev/use": "true"}}}"#;
    let attempts: &[(&[&str], &str)] = &[
        (&["get", "secrets"], ""),
        (&["get", "secrets", "--watch-only", "--request-timeout=5s"], ""),
        (&["get", "configmaps"], ""),
        (&["get", "secrets", "--all-namespaces"], ""),
        (&["create", "-f", "-"], &secret),
        (&["patch", "secret", "precious", "-p", patched], ""),
        (&["delete", "secret", "precious"], ""),
        // Another namespace, in every way in which its own is open to it.
        (&["-n", "attempts-other", "get", "secret", "precious"], ""),
        (&["-n", "attempts-other", "get", "csync", "sync"], ""),
        (&["get", "csync", "--all-namespaces"], ""),
        (
            &[
                "-n",
                "attempts-other",
                "patch",
                "csync",
                "sync",
                "--type=merge",
                "-p",
                "{\"spec\":{\"state\":\"Paused\"}}",
            ],
            "",
        ),
        (
            &[
                "-n",
                "attempts-other",
                "patch",
                "csync",
                "sync",
                "--subresource=status",
                "--type=merge",
                "-p",
                "{\"status\":{}}",
            ],
            "",
        ),
        // What it runs for others is not its to make or to remove.
        (&["delete", "csync", "sync"], ""),
        (&["delete", "csync", "--all"], ""),
        (
            &["create", "-f", "-"],
            r#"{"apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": "own"},
            "spec": {"source": {"uri": "mongodb://a"}, "target": {"uri": "mongodb://b"}}}"#,
        ),
        (
            &["replace", "-f", "-"],
            r#"{"apiVersion": "clustersync.dev/v1alpha1", "kind": "ClusterSync", "metadata": {"name": "sync"},
            "spec": {"state": "Paused", "source": {"uri": "mongodb://a"}, "target": {"uri": "mongodb://b"}}}"#,
        ),
        // Pods, and what makes pods.
        (&["get", "pods"], ""),
        (&["exec", "database", "--", "true"], ""),
        (&["logs", "database"], ""),
        (&["port-forward", "database", "1"], ""),
        (&["run", "mine", "--image=x"], ""),
        (&["create", "deployment", "mine", "--image=x"], ""),
        (&["scale", "deployment", "clustersync-operator", "--replicas=0"], ""),
        // The leases of others.
        (&["get", "lease", "kube-scheduler"], ""),
        (&["delete", "lease", "kube-scheduler"], ""),
        (
            &[
                "patch",
                "lease",
                "kube-scheduler",
                "--type=merge",
                "-p",
                "{\"spec\":{\"holderIdentity\":\"me\"}}",
            ],
            "",
        ),
        (&["get", "leases"], ""),
        // More rights.
        (&["create", "-f", "-"], &all_of("*")),
        (
            &[
                "patch",
                "role",
                "clustersync-operator",
                "--type=json",
                "-p",
                "[{\"op\":\"remove\",\"path\":\"/rules/0\"}]",
            ],
            "",
        ),
        (&["create", "-f", "-"], &bind),
        (&["create", "token", ACCOUNT], ""),
        (&["create", "token", "default"], ""),
        (&["get", "secret", "precious", "--as=system:admin"], ""),
        (&["get", "secret", "precious", "--as=system:serviceaccount:kube-system:default"], ""),
        // The cluster.
        (&["get", "nodes"], ""),
        (&["get", "namespaces"], ""),
        (&["get", "crd", "clustersyncs.clustersync.dev"], ""),
        (&["get", "events"], ""),
    ];
    for (args, input) in attempts {
        let output = attempt(args, input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "it may {args:?}");
        assert!(said.contains("forbidden") || said.contains("Forbidden"), "{args:?}: {said}");
    }
    assert_eq!(other.get("sync")["spec"]["state"], "Running");
}

/// An operator in `clustersync-system`, with the rights and the arguments of an overlay.
fn overlay(plane: &'static ControlPlane, name: &str) -> Operator {
    let path = format!("{}/deploy/overlays/{name}", env!("CARGO_MANIFEST_DIR"));
    let rendered = plane.kubectl(&["kustomize", &path]);
    succeed(plane.apply(&rendered));
    let get = ["-n", "clustersync-system", "get", "deployment", "clustersync-operator", "-o", "json"];
    let deployment: Value = serde_json::from_str(&plane.kubectl(&get)).unwrap();
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let mut args: Vec<String> = serde_json::from_value(args).unwrap();
    let port = crate::lab::free_port();
    args.extend([format!("--listen=127.0.0.1:{port}"), "--log-no-color".to_owned()]);
    let folder = Folder::new(name);
    let kubeconfig = plane.kubeconfig_for("clustersync-system", ACCOUNT);
    let env = [
        ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
        ("POD_NAMESPACE".to_owned(), "clustersync-system".to_owned()),
    ];
    let process =
        Process::start(Path::new(env!("CARGO_BIN_EXE_clustersync")), &args, &env, &folder.0, "operator");
    Operator::running(process, port, folder)
}

/// With the admission policy the operator's account changes finalizers and nothing else of a resource.
fn what_rbac_cannot_say(plane: &'static ControlPlane, site: &Site) {
    let kubeconfig = plane.kubeconfig_for("clustersync-system", ACCOUNT);
    let patch = |patch: &str| {
        let args = ["-n", &site.namespace, "patch", "csync", "sync", "--type=merge", "-p", patch];
        plane.kubectl_as(&kubeconfig, &args, "")
    };
    // A policy holds a moment after it is stored.
    let deadline = Instant::now() + Duration::from_secs(30);
    while patch(r#"{"metadata": {"labels": {"a": "b"}}}"#).status.success() {
        assert!(Instant::now() < deadline, "the admission policy has no effect");
        site.kubectl(&["label", "csync", "sync", "a-"]);
        std::thread::sleep(Duration::from_millis(500));
    }
    for refused in [
        r#"{"spec": {"state": "Paused"}}"#,
        r#"{"spec": {"limits": {"bytesPerSecond": 1}}}"#,
        r#"{"metadata": {"annotations": {"a": "b"}}}"#,
        r#"{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "a", "uid": "b"}]}}"#,
    ] {
        let output = patch(refused);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("clustersync-operator-finalizers-only"),
            "{refused}: {said}"
        );
    }
    succeed(patch(r#"{"metadata": {"finalizers": ["example.net/a"]}}"#));
    succeed(patch(r#"{"metadata": {"finalizers": []}}"#));
    // Others are not concerned.
    site.kubectl(&["annotate", "csync", "sync", "a=b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_in_the_namespaces_that_it_was_given() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    succeed(plane.apply(CRD));
    established(plane);
    let teams = ["team-a", "team-b", "team-c"].map(|name| Site::empty(plane, name));
    for site in &teams {
        let (source, _) = secrets(site).await;
        fill(&source, &site.namespace, 10).await;
        succeed(site.apply(&cluster_sync("sync", &site.namespace)));
    }
    {
        let operator = overlay(plane, "namespaces");
        for site in &teams[..2] {
            site.phase("sync", "Streaming");
        }
        assert!(teams[2].get("sync")["status"].is_null(), "team-c is not on the list");
        let kubeconfig = plane.kubeconfig_for("clustersync-system", ACCOUNT);
        for question in ["get secrets -n team-c", "get secrets -n clustersync-system", "list clustersyncs -A"]
        {
            let words: Vec<&str> = ["auth", "can-i"].into_iter().chain(question.split(' ')).collect();
            assert!(!plane.kubectl_as(&kubeconfig, &words, "").status.success(), "it may {question}");
        }
        let log = operator.log();
        assert!(!log.contains("orbidden"), "{log}");
    }
    let operator = overlay(plane, "all-namespaces");
    teams[2].phase("sync", "Streaming");
    what_rbac_cannot_say(plane, &teams[2]);
    let patch = r#"{"spec": {"deletionPolicy": "Delete"}}"#;
    teams[2].kubectl(&["patch", "csync", "sync", "--type=merge", "-p", patch]);
    teams[2].until("sync", "given its finalizer", |object| object["metadata"]["finalizers"].is_array());
    teams[2].kubectl(&["delete", "csync", "sync", "--wait=false"]);
    teams[2].gone("sync");
    for site in &teams[..2] {
        site.until("sync", "streaming under its next owner", |object| {
            object["status"]["phase"] == "Streaming" && object["status"]["worker"]["epoch"].as_i64() > Some(1)
        });
    }
    let log = operator.log();
    assert!(!log.contains("orbidden"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_taken_away_stops_nothing_and_is_told() {
    let site = Site::new("unlabelled");
    let (source, _) = secrets(&site).await;
    fill(&source, "unlabelled", 10).await;
    let operator = site.operator(&["--require-secret-label"]);
    // Any other value counts for nothing.
    site.kubectl(&["label", "secret", "source", "clustersync.dev/use=true"]);
    site.kubectl(&["label", "secret", "target", "clustersync.dev/use=false"]);
    succeed(site.apply(&cluster_sync("sync", "unlabelled")));
    let waiting = site.reason("sync", "CredentialsMissing");
    let message = condition(&waiting, "Ready")["message"].as_str().unwrap();
    assert!(message.contains("Secret target is not labelled clustersync.dev/use=true"), "{message}");
    site.kubectl(&["label", "secret", "target", "--overwrite", "clustersync.dev/use=true"]);
    site.phase("sync", "Streaming");

    site.kubectl(&["label", "secret", "source", "clustersync.dev/use-"]);
    // Any change of the resource has the Secrets looked at again.
    site.kubectl(&["annotate", "csync", "sync", "look=again"]);
    let told = site.until("sync", "told of the label", |object| {
        object["status"]["warnings"].to_string().contains("Secret source is not labelled")
    });
    assert_eq!(told["status"]["phase"], "Streaming");
    drop(operator);
    // A new process has nothing that it has read before.
    let _operator = site.operator(&["--require-secret-label"]);
    site.reason("sync", "CredentialsMissing");
}
