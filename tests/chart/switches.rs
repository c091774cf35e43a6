//! Each switch, off and on: what is there, what is not, and that every Kubernetes version takes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::helm::{DEFINITION, OPERATOR, Rendering, read, render, run, said, yaml};
use crate::lab;
use crate::schemas::wrong;

const NAME: &str = "clustersync-operator";

struct Case {
    values: Value,
    /// Beside what there is by default.
    added: &'static [&'static str],
    removed: &'static [&'static str],
    look: fn(&Rendering),
}

fn case(
    values: Value,
    added: &'static [&'static str],
    removed: &'static [&'static str],
    look: fn(&Rendering),
) -> Case {
    Case { values, added, removed, look }
}

/// Neither more nor less; only how it looks.
fn only(values: Value, look: fn(&Rendering)) -> Case {
    case(values, &[], &[], look)
}

const DEFAULT: &[&str] = &[
    "CustomResourceDefinition clustersyncs.clustersync.dev",
    "Deployment clustersync-operator",
    "Pod clustersync-operator-test",
    "Role clustersync-operator",
    "Role clustersync-operator-leader",
    "RoleBinding clustersync-operator",
    "RoleBinding clustersync-operator-leader",
    "Service clustersync-operator",
    "ServiceAccount clustersync-operator",
];

fn cases() -> Vec<Case> {
    vec![
        only(json!({}), defaults),
        only(
            json!({"image": {"repository": "r.example/c", "tag": "1@sha256:ab", "pullPolicy": "Always"}, "imagePullSecrets": ["key"]}),
            |r| {
                for pod in [r.pod(), &r.the("Pod")["spec"]] {
                    assert_eq!(pod["containers"][0]["image"], "r.example/c:1@sha256:ab");
                    assert_eq!(pod["containers"][0]["imagePullPolicy"], "Always");
                    assert_eq!(pod["imagePullSecrets"], json!([{"name": "key"}]));
                }
            },
        ),
        only(json!({"replicas": 0}), |r| assert_eq!(r.the("Deployment")["spec"]["replicas"], 0)),
        case(json!({"replicas": 2}), &["PodDisruptionBudget clustersync-operator"], &[], |r| {
            assert_eq!(r.the("Deployment")["spec"]["strategy"]["type"], "RollingUpdate");
            assert_eq!(r.the("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
            let spread = &r.pod()["affinity"]["podAntiAffinity"];
            assert!(spread["requiredDuringSchedulingIgnoredDuringExecution"].is_null());
            let term = &spread["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
            assert_eq!(term["labelSelector"], r.the("Deployment")["spec"]["selector"]);
        }),
        only(json!({"replicas": 2, "podDisruptionBudget": {"enabled": false}}), |_| ()),
        case(
            json!({"replicas": 2, "podDisruptionBudget": {"enabled": true}, "affinity": {"nodeAffinity": {}}}),
            &["PodDisruptionBudget clustersync-operator"],
            &[],
            |r| assert_eq!(r.pod()["affinity"], json!({"nodeAffinity": {}})),
        ),
        case(
            json!({"watchNamespaces": ["shop", "crm"]}),
            &[
                "Role crm/clustersync-operator",
                "Role shop/clustersync-operator",
                "RoleBinding crm/clustersync-operator",
                "RoleBinding shop/clustersync-operator",
            ],
            &["Role clustersync-operator", "RoleBinding clustersync-operator"],
            |r| assert!(r.args().contains(&"--watch-namespaces=crm,shop")),
        ),
        case(
            json!({"watchNamespaces": ["*"]}),
            &["ClusterRole apart:clustersync-operator", "ClusterRoleBinding apart:clustersync-operator"],
            &["Role clustersync-operator", "RoleBinding clustersync-operator"],
            |r| assert!(r.args().contains(&"--watch-namespaces=*")),
        ),
        only(json!({"requireSecretLabel": true}), |r| assert!(r.args().contains(&"--require-secret-label"))),
        case(
            json!({"crds": {"enabled": false}}),
            &[],
            &["CustomResourceDefinition clustersyncs.clustersync.dev"],
            |_| (),
        ),
        only(json!({"crds": {"keep": false}}), |r| {
            assert!(r.the("CustomResourceDefinition")["metadata"]["annotations"].is_null());
        }),
        only(
            json!({"maxClones": 9, "queueMemoryMib": 1_048_576, "requestsPerSecond": 0.5, "resources": {"limits": null}}),
            |r| {
                for arg in ["--max-clones=9", "--queue-memory-mib=1048576", "--requests-per-second=0.5"] {
                    assert!(r.args().contains(&arg), "{arg}: {:?}", r.args());
                }
            },
        ),
        only(json!({"requestsPerSecond": 10_000, "log": {"level": "debug", "json": false}}), |r| {
            assert!(
                r.args().contains(&"--requests-per-second=10000") && r.args().contains(&"--log-level=debug")
            );
            assert!(!r.args().contains(&"--log-json"));
        }),
        only(json!({"resources": {"limits": {"memory": "4Gi", "cpu": 2}}}), |r| {
            let resources = &r.pod()["containers"][0]["resources"];
            assert_eq!(resources["limits"], json!({"memory": "4Gi", "cpu": 2}));
            assert_eq!(resources["requests"]["memory"], "256Mi", "the rest stays");
        }),
        case(
            json!({"serviceAccount": {"name": "mine", "annotations": {"a/b": "c"}}}),
            &["ServiceAccount mine"],
            &["ServiceAccount clustersync-operator"],
            |r| {
                assert_eq!(r.the("ServiceAccount")["metadata"]["annotations"], json!({"a/b": "c"}));
                everywhere(r, "mine");
            },
        ),
        case(
            json!({"serviceAccount": {"create": false, "name": "theirs"}, "watchNamespaces": ["*"]}),
            &["ClusterRole apart:clustersync-operator", "ClusterRoleBinding apart:clustersync-operator"],
            &[
                "ServiceAccount clustersync-operator",
                "Role clustersync-operator",
                "RoleBinding clustersync-operator",
            ],
            |r| everywhere(r, "theirs"),
        ),
        case(
            json!({"rbac": {"create": false}}),
            &[],
            &[
                "Role clustersync-operator",
                "Role clustersync-operator-leader",
                "RoleBinding clustersync-operator",
                "RoleBinding clustersync-operator-leader",
            ],
            |_| (),
        ),
        case(
            json!({"rbac": {"aggregate": true}}),
            &[
                "ClusterRole apart:clustersync-operator:admin",
                "ClusterRole apart:clustersync-operator:edit",
                "ClusterRole apart:clustersync-operator:view",
            ],
            &[],
            user_roles,
        ),
        case(
            json!({"rbac": {"finalizersOnly": true}, "serviceAccount": {"name": "mine"}}),
            &[
                "ServiceAccount mine",
                "ValidatingAdmissionPolicy apart.clustersync-operator",
                "ValidatingAdmissionPolicyBinding apart.clustersync-operator",
            ],
            &["ServiceAccount clustersync-operator"],
            |r| {
                let spec = &r.the("ValidatingAdmissionPolicy")["spec"];
                let who = "request.userInfo.username == 'system:serviceaccount:apart:mine'";
                assert_eq!(spec["matchConditions"][0]["expression"], who);
                let source = Rendering::new(read("deploy/components/finalizers-only/policy.yaml"));
                let source = &source.the("ValidatingAdmissionPolicy")["spec"];
                for part in ["failurePolicy", "matchConstraints", "validations"] {
                    assert_eq!(spec[part], source[part], "{part}");
                }
                let name = &r.the("ValidatingAdmissionPolicy")["metadata"]["name"];
                assert_eq!(r.the("ValidatingAdmissionPolicyBinding")["spec"]["policyName"], *name);
            },
        ),
        case(
            json!({"metrics": {"service": {"enabled": false}}}),
            &[],
            &["Service clustersync-operator", "Pod clustersync-operator-test"],
            |_| (),
        ),
        only(json!({"metrics": {"service": {"annotations": {"prometheus.io/scrape": "true"}}}}), |r| {
            assert_eq!(r.the("Service")["metadata"]["annotations"], json!({"prometheus.io/scrape": "true"}));
        }),
        case(
            json!({"metrics": {"serviceMonitor": {"enabled": true, "labels": {"release": "kps"}, "interval": "1m", "scrapeTimeout": "60s"}}}),
            &["ServiceMonitor clustersync-operator"],
            &[],
            |r| {
                let monitor = r.the("ServiceMonitor");
                assert_eq!(monitor["metadata"]["labels"]["release"], "kps");
                let endpoint = &monitor["spec"]["endpoints"][0];
                assert_eq!(endpoint["honorLabels"], true);
                assert_eq!(
                    (&endpoint["interval"], &endpoint["scrapeTimeout"]),
                    (&json!("1m"), &json!("60s"))
                );
                let service = r.the("Service");
                assert!(selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
                assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);
            },
        ),
        case(
            json!({"metrics": {"prometheusRule": {"enabled": true, "labels": {"release": "kps"}}}}),
            &["PrometheusRule clustersync-operator"],
            &[],
            |r| {
                let rule = r.the("PrometheusRule");
                assert_eq!(rule["metadata"]["labels"]["release"], "kps");
                let tested = yaml(&read("charts/clustersync/files/alerts.yaml"));
                assert_eq!(rule["spec"], tested, "what promtool tests is what is rendered");
            },
        ),
        case(
            json!({"metrics": {"dashboard": {"enabled": true, "annotations": {"grafana_folder": "MongoDB"}}}}),
            &["ConfigMap clustersync-operator-dashboard"],
            &[],
            |r| {
                let map = r.the("ConfigMap");
                assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
                assert_eq!(map["metadata"]["annotations"], json!({"grafana_folder": "MongoDB"}));
                let rendered: Value =
                    serde_json::from_str(map["data"]["clustersync.json"].as_str().unwrap()).unwrap();
                let tested: Value =
                    serde_json::from_str(&read("charts/clustersync/files/dashboard.json")).unwrap();
                assert_eq!(rendered, tested, "what is tested is what is rendered");
            },
        ),
        case(
            json!({"networkPolicy": {"enabled": true}}),
            &["NetworkPolicy clustersync-operator"],
            &[],
            |r| {
                let spec = &r.the("NetworkPolicy")["spec"];
                assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
                assert_eq!(spec["ingress"], json!([{"ports": [{"protocol": "TCP", "port": "http"}]}]));
                let ports = |rule: usize| {
                    let ports = spec["egress"][rule]["ports"].as_array().unwrap().iter();
                    ports.map(|port| port["port"].as_i64().unwrap()).collect::<Vec<_>>()
                };
                assert_eq!((ports(0), ports(1), ports(2)), (vec![53, 53], vec![443, 6443], vec![27017]));
                assert!(selects(&spec["podSelector"]["matchLabels"], labels(r)));
            },
        ),
        case(
            json!({"networkPolicy": {
                "enabled": true,
                "ingressFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
                "egress": {
                    "dns": {"to": [{"namespaceSelector": {}}]},
                    "apiServer": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [443]},
                    "mongodb": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [27017, 27018]},
                },
            }}),
            &["NetworkPolicy clustersync-operator"],
            &[],
            |r| {
                let spec = &r.the("NetworkPolicy")["spec"];
                let from = spec["ingress"][0]["from"].as_array().unwrap();
                assert_eq!(from.len(), 2);
                assert!(selects(&from[0]["podSelector"]["matchLabels"], &r.the("Pod")["metadata"]["labels"]));
                assert_eq!(spec["egress"][1]["to"], json!([{"ipBlock": {"cidr": "10.0.0.1/32"}}]));
                assert_eq!(spec["egress"][2]["ports"].as_array().unwrap().len(), 2);
            },
        ),
        case(
            json!({"networkPolicy": {"enabled": true, "egress": {"enabled": false}}}),
            &["NetworkPolicy clustersync-operator"],
            &[],
            |r| {
                let spec = &r.the("NetworkPolicy")["spec"];
                assert_eq!(spec["policyTypes"], json!(["Ingress"]));
                assert!(spec["egress"].is_null());
            },
        ),
        only(
            json!({
                "podLabels": {"team": "data"}, "podAnnotations": {"a/b": "c"}, "priorityClassName": "high",
                "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            }),
            |r| {
                let template = &r.the("Deployment")["spec"]["template"];
                assert_eq!(template["metadata"]["labels"]["team"], "data");
                assert_eq!(template["metadata"]["annotations"], json!({"a/b": "c"}));
                assert_eq!(r.pod()["priorityClassName"], "high");
                assert_eq!(r.pod()["topologySpreadConstraints"][0]["topologyKey"], "zone");
                for pod in [r.pod(), &r.the("Pod")["spec"]] {
                    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
                    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
                }
            },
        ),
        only(json!({"global": {"any": "thing"}}), |_| ()),
    ]
}

/// Labels of the operator's pods.
fn labels(r: &Rendering) -> &Value {
    &r.the("Deployment")["spec"]["template"]["metadata"]["labels"]
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

fn defaults(r: &Rendering) {
    let spec = &r.the("Deployment")["spec"];
    assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(1), &json!("Recreate")));
    assert!(r.args().contains(&"--watch-namespaces=apart"));
    assert!(r.args().contains(&"--lease-name=clustersync-operator"));
    assert!(!r.args().contains(&"--require-secret-label"));
    assert!(r.pod()["affinity"].is_null());
    let definition = r.the("CustomResourceDefinition");
    assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let service = r.the("Service");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    let test = r.the("Pod");
    assert_eq!(test["metadata"]["annotations"]["helm.sh/hook"], "test");
    let policy = &test["metadata"]["annotations"]["helm.sh/hook-delete-policy"];
    assert_eq!(policy, "before-hook-creation", "helm test --logs reads the pod after the test");
    let args = json!(["probe", "--url", "http://clustersync-operator:8080/readyz"]);
    assert_eq!(test["spec"]["containers"][0]["args"], args);
    everywhere(r, NAME);
}

/// The service account is the one that runs and the one that is bound; tokens go where they are needed.
fn everywhere(r: &Rendering, account: &str) {
    assert_eq!(r.pod()["serviceAccountName"], account);
    assert_eq!(r.pod()["automountServiceAccountToken"], true);
    assert_eq!(r.the("Pod")["spec"]["automountServiceAccountToken"], false);
    let bindings = r.objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding"));
    let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": "apart"}]);
    assert_eq!(bindings.map(|binding| assert_eq!(binding["subjects"], subject)).count(), 2);
}

fn user_roles(r: &Rendering) {
    let verbs = |name: &str| {
        let role = r
            .objects
            .iter()
            .find(|object| object["metadata"]["name"] == format!("apart:{NAME}:{name}"))
            .unwrap();
        let to = ["view", "edit", "admin"];
        let to: Vec<&str> = to
            .into_iter()
            .filter(|to| {
                role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true"
            })
            .collect();
        (role["rules"][0]["verbs"].clone(), to)
    };
    assert_eq!(verbs("view"), (json!(["get", "list", "watch"]), vec!["view", "edit", "admin"]));
    let (edit, to) = verbs("edit");
    assert!(edit.as_array().unwrap().contains(&json!("create")) && to == ["edit", "admin"]);
    assert_eq!(verbs("admin").1, ["admin"], "reading Secrets is nothing for view");
}

/// True of every rendering.
fn always(r: &Rendering) {
    let deployment = &r.the("Deployment")["spec"];
    let tests: Vec<&Value> = r.objects.iter().filter(|object| object["kind"] == "Pod").collect();
    assert!(selects(&deployment["selector"]["matchLabels"], labels(r)));
    for object in &r.objects {
        let selector = match object["kind"].as_str().unwrap() {
            "Service" => &object["spec"]["selector"],
            "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            "Deployment" => &object["spec"]["selector"]["matchLabels"],
            _ => continue,
        };
        assert!(selects(selector, labels(r)));
        for test in &tests {
            assert!(!selects(selector, &test["metadata"]["labels"]), "the test's pod is no operator");
        }
    }
    for pod in [r.pod()].into_iter().chain(tests.iter().map(|test| &test["spec"])) {
        let security = &pod["securityContext"];
        assert_eq!(
            (&security["runAsNonRoot"], &security["seccompProfile"]["type"]),
            (&json!(true), &json!("RuntimeDefault"))
        );
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
    }
    let lease = format!("--lease-name={}", r.the("Deployment")["metadata"]["name"].as_str().unwrap());
    assert!(r.args().contains(&lease.as_str()));
}

#[test]
fn each_switch_adds_and_removes_what_it_says() {
    for Case { values, added, removed, look } in cases() {
        println!("{values}");
        let rendered =
            render(OPERATOR, "clustersync", &values).unwrap_or_else(|error| panic!("{values}: {error}"));
        let mut expected: BTreeSet<String> = DEFAULT.iter().map(ToString::to_string).collect();
        for name in removed {
            assert!(expected.remove(*name), "{name} is there by default");
        }
        expected.extend(added.iter().map(ToString::to_string));
        assert_eq!(rendered.names(), expected, "{values}");
        always(&rendered);
        look(&rendered);
        assert_eq!(wrong(&rendered.text), None, "{values}");
    }
}

#[test]
fn the_definition_has_a_chart_of_its_own() {
    let by_both = |values: Value| {
        let theirs = render(OPERATOR, "clustersync", &values).unwrap();
        let own = render(DEFINITION, "crds", &values).unwrap();
        assert_eq!(theirs.the("CustomResourceDefinition"), own.the("CustomResourceDefinition"));
        assert_eq!(wrong(&own.text), None);
        own
    };
    let own = by_both(json!({}));
    assert_eq!(own.objects.len(), 1);
    assert_eq!(own.objects[0]["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    assert!(by_both(json!({"crds": {"keep": false}})).objects[0]["metadata"]["annotations"].is_null());
    let roles = render(DEFINITION, "crds", &json!({"rbac": {"aggregate": true}})).unwrap();
    let names = roles.names();
    for name in ["view", "edit", "admin"] {
        assert!(names.contains(&format!("ClusterRole apart:crds:{name}")), "{names:?}");
    }
    assert_eq!(names.len(), 4);
    assert_eq!(wrong(&roles.text), None);
}

/// Whatever it is called and wherever it is.
#[test]
fn two_releases_share_nothing() {
    let values = json!({
        "crds": {"enabled": false}, "watchNamespaces": ["*"], "rbac": {"aggregate": true, "finalizersOnly": true}, "replicas": 2,
        "networkPolicy": {"enabled": true},
        "metrics": {"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}},
    });
    let mut all = BTreeSet::new();
    // `a` + `b-clustersync` and `a-b` + `clustersync` would meet if the two were joined by a dash.
    for (namespace, release) in
        [("a", "b-clustersync"), ("a-b", "clustersync"), ("a", "clustersync"), ("a", "other")]
    {
        let args = ["template", release, OPERATOR, "-n", namespace, "--kube-version", "1.35", "-f", "-"];
        let output = run(lab::tool("CLUSTERSYNC_HELM"), &args, &values.to_string(), &[]);
        assert!(output.status.success(), "{}", said(&output));
        let rendered = Rendering::new(String::from_utf8(output.stdout).unwrap());
        always(&rendered);
        for object in rendered.objects {
            let place = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let id = format!("{} {place} {}", object["kind"], object["metadata"]["name"]);
            assert!(all.insert(id.clone()), "{id} is in two releases");
        }
    }
}

#[test]
fn long_names_stay_within_the_limits() {
    let rendered = render(OPERATOR, &"x".repeat(53), &json!({})).unwrap();
    // Of a Service and of what becomes a label; other names may have 253.
    for kind in ["Service", "Deployment"] {
        let name = rendered.the(kind)["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63, "{name}");
    }
    for (_, value) in labels(&rendered).as_object().unwrap() {
        assert!(value.as_str().unwrap().len() <= 63, "{value}");
    }
    always(&rendered);
    assert_eq!(wrong(&rendered.text), None);
}
