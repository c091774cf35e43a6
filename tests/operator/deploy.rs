//! What is in `deploy/` is rendered and taken by the real apiserver.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::site::{plane, succeed};

fn deploy(path: &str) -> String {
    format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn entries(path: &str) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(deploy(path)).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries
}

fn documents(yaml: &str) -> Vec<Value> {
    let plane = plane();
    let args = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
    let text = succeed(plane.kubectl_as(&plane.kubeconfig, &args, yaml));
    serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .flat_map(|document| match document.unwrap() {
            Value::Object(mut list) if list.get("kind") == Some(&json!("List")) => {
                list["items"].as_array_mut().unwrap().drain(..).collect()
            }
            one => vec![one],
        })
        .collect()
}

fn namespace(name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    succeed(plane().apply(&object.to_string()));
}

/// Stands for the Prometheus operator's definition.
fn service_monitors() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        }
    });
    succeed(plane().apply(&definition.to_string()));
    let wait =
        ["wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com", "--timeout=30s"];
    plane().kubectl(&wait);
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name).collect()
}

#[test]
fn each_overlay_is_rendered_and_accepted() {
    for name in ["clustersync-system", "team-a", "team-b"] {
        namespace(name);
    }
    service_monitors();
    let mut overlays = entries("overlays");
    overlays.push(deploy("base").into());
    overlays.push(deploy("rights").into());
    for overlay in overlays {
        let name = overlay.file_name().unwrap().to_str().unwrap().to_owned();
        let rendered = plane().kubectl(&["kustomize", overlay.to_str().unwrap()]);
        let args = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
        let output = plane().kubectl_as(&plane().kubeconfig, &args, &rendered);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // Pod security does not refuse a Deployment, it only warns.
        let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!warnings.contains("Warning"), "{name}: {warnings}");

        let objects = documents(&rendered);
        let (roles, cluster_roles) = (
            find(&objects, "Role", "clustersync-operator"),
            find(&objects, "ClusterRole", "clustersync-operator"),
        );
        let namespaces: Vec<&str> =
            roles.iter().map(|r| r["metadata"]["namespace"].as_str().unwrap()).collect();
        let expected: (&[&str], usize) = match name.as_str() {
            "all-namespaces" => (&[], 1),
            "namespaces" => (&["team-a", "team-b"], 0),
            _ => (&["clustersync-system"], 0),
        };
        assert_eq!((namespaces.as_slice(), cluster_roles.len()), expected, "{name}");
        let bindings = objects.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("RoleBinding"));
        for binding in bindings {
            let subject = &binding["subjects"][0];
            assert_eq!(subject["namespace"], "clustersync-system", "{name}: {binding:#}");
            let role = binding["roleRef"]["kind"].as_str().unwrap();
            let named = find(&objects, role, binding["roleRef"]["name"].as_str().unwrap());
            assert!(
                named.iter().any(|r| r["metadata"]["namespace"] == binding["metadata"]["namespace"]),
                "{name}: {binding:#}"
            );
        }
        let deployment = find(&objects, "Deployment", "clustersync-operator");
        let watched = match name.as_str() {
            "rights" => continue,
            "all-namespaces" => json!(["operator", "--watch-namespaces=*"]),
            "namespaces" => json!(["operator", "--watch-namespaces=team-a,team-b"]),
            _ => json!(["operator"]),
        };
        assert_eq!(deployment[0]["spec"]["template"]["spec"]["containers"][0]["args"], watched, "{name}");
        assert_eq!(deployment[0]["spec"]["replicas"], if name == "two-replicas" { 2 } else { 1 });
    }
}

#[test]
fn its_pods_are_restricted() {
    namespace("restricted");
    for overlay in ["base", "overlays/two-replicas"] {
        let objects = documents(&plane().kubectl(&["kustomize", &deploy(overlay)]));
        let template = &find(&objects, "Deployment", "clustersync-operator")[0]["spec"]["template"];
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "operator", "namespace": "restricted"}, "spec": template["spec"]});
        let apply = |pod: &Value| {
            let args = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
            plane().kubectl_as(&plane().kubeconfig, &args, &pod.to_string())
        };
        succeed(apply(&pod));
        // The namespace does refuse: without this the test could not fail.
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let refused = apply(&pod);
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("violates PodSecurity"));
    }
}

#[test]
fn each_sample_is_accepted() {
    namespace("samples");
    let plane = plane();
    let mut names = Vec::new();
    let mut secrets = Vec::new();
    let mut used = Vec::new();
    for path in entries("samples") {
        let yaml = std::fs::read_to_string(&path).unwrap();
        // Strict: an unknown field is an error, not a warning.
        let args = ["-n", "samples", "apply", "--server-side", "--validate=strict", "-f", "-"];
        let output = plane.kubectl_as(&plane.kubeconfig, &args, &yaml);
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        for object in documents(&yaml) {
            if object["kind"] == "Secret" {
                assert_eq!(object["metadata"]["labels"]["clustersync.dev/use"], "true", "{}", path.display());
                secrets.push(object["metadata"]["name"].clone());
            } else {
                assert_eq!(object["kind"], "ClusterSync");
                for end in ["source", "target"] {
                    for reference in ["uriSecretRef", "credentialsSecretRef"] {
                        used.push(object["spec"][end][reference]["name"].clone());
                    }
                }
            }
        }
    }
    for name in used.iter().filter(|name| !name.is_null()) {
        assert!(secrets.contains(name), "no sample has the Secret {name}");
    }
    let expected =
        ["atlas-to-percona", "filters", "first-sync", "in-cluster", "reverse", "secrets", "standby"];
    assert_eq!(names, expected);
}
