//! Bad values: each is refused, and the message names it.

use serde_json::{Value, json};

use crate::helm::{DEFINITION, OPERATOR, render};

#[test]
fn a_bad_value_is_refused_by_name() {
    let cases: Vec<(Value, &[&str])> = vec![
        // By themselves.
        (json!({"replica": 2}), &["replica"]),
        (json!({"image": {"repo": "x"}}), &["image", "repo"]),
        (json!({"image": {"repository": ""}}), &["/image/repository"]),
        (json!({"image": {"pullPolicy": "always"}}), &["/image/pullPolicy", "IfNotPresent"]),
        (json!({"imagePullSecrets": [{"name": "x"}]}), &["/imagePullSecrets/0"]),
        (json!({"replicas": -1}), &["/replicas", "minimum"]),
        (json!({"replicas": "two"}), &["/replicas", "want integer"]),
        (json!({"replicas": 1.5}), &["/replicas"]),
        (json!({"replicas": 11}), &["/replicas", "maximum"]),
        (json!({"watchNamespaces": "shop"}), &["/watchNamespaces", "want array"]),
        (json!({"watchNamespaces": ["Shop"]}), &["/watchNamespaces/0"]),
        (json!({"watchNamespaces": ["a", "a"]}), &["/watchNamespaces"]),
        (json!({"watchNamespaces": ["a,b"]}), &["/watchNamespaces/0"]),
        (json!({"requireSecretLabel": "yes"}), &["/requireSecretLabel", "want boolean"]),
        (json!({"crds": {"install": true}}), &["/crds", "install"]),
        (json!({"maxClones": 0}), &["/maxClones", "minimum"]),
        (json!({"queueMemoryMib": 127}), &["/queueMemoryMib", "minimum"]),
        (json!({"requestsPerSecond": 0}), &["/requestsPerSecond", "minimum"]),
        (json!({"resources": {"limit": {}}}), &["/resources", "limit"]),
        (json!({"log": {"level": "verbose"}}), &["/log/level", "debug"]),
        (
            json!({"serviceAccount": {"annotations": {"a": 1}}}),
            &["/serviceAccount/annotations/a", "want string"],
        ),
        (json!({"rbac": {"aggregate": "true"}}), &["/rbac/aggregate", "want boolean"]),
        (json!({"metrics": {"service": {"port": 9}}}), &["/metrics/service", "port"]),
        (json!({"metrics": {"serviceMonitor": {"interval": "30"}}}), &["/metrics/serviceMonitor/interval"]),
        (
            json!({"metrics": {"serviceMonitor": {"scrapeTimeout": "0s"}}}),
            &["/metrics/serviceMonitor/scrapeTimeout"],
        ),
        (
            json!({"networkPolicy": {"ingressFrom": [{"pods": {}}]}}),
            &["/networkPolicy/ingressFrom/0", "pods"],
        ),
        (
            json!({"networkPolicy": {"egress": {"mongodb": {"ports": []}}}}),
            &["/networkPolicy/egress/mongodb/ports", "minItems"],
        ),
        (
            json!({"networkPolicy": {"egress": {"dns": {"ports": [0]}}}}),
            &["/networkPolicy/egress/dns/ports/0", "minimum"],
        ),
        (json!({"podDisruptionBudget": {"enabled": "yes"}}), &["/podDisruptionBudget/enabled", "auto"]),
        (json!({"podLabels": {"a": true}}), &["/podLabels/a", "want string"]),
        (json!({"tolerations": {"operator": "Exists"}}), &["/tolerations", "want array"]),
        // Together.
        (json!({"watchNamespaces": ["*", "shop"]}), &["watchNamespaces: \"*\""]),
        (json!({"serviceAccount": {"create": false}}), &["serviceAccount.name", "serviceAccount.create"]),
        (json!({"rbac": {"create": false, "aggregate": true}}), &["rbac.aggregate", "rbac.create"]),
        (
            json!({"metrics": {"service": {"enabled": false}, "serviceMonitor": {"enabled": true}}}),
            &["metrics.serviceMonitor.enabled", "metrics.service.enabled"],
        ),
        (
            json!({"metrics": {"serviceMonitor": {"interval": "1m", "scrapeTimeout": "61s"}}}),
            &["metrics.serviceMonitor.scrapeTimeout: 61s", "metrics.serviceMonitor.interval, 1m"],
        ),
        (json!({"podDisruptionBudget": {"enabled": true}}), &["podDisruptionBudget.enabled", "replicas"]),
        (
            json!({"podDisruptionBudget": {"enabled": true}, "replicas": 0}),
            &["podDisruptionBudget.enabled", "replicas"],
        ),
        (json!({"podLabels": {"app.kubernetes.io/name": "x"}}), &["podLabels: app.kubernetes.io/name"]),
        (
            json!({"resources": {"limits": {"memory": "640Mi"}}}),
            &["resources.limits.memory: 640Mi", "640 MiB", "queueMemoryMib (512)", "maxClones (4"],
        ),
        (json!({"maxClones": 16}), &["resources.limits.memory: 1Gi", "maxClones (16"]),
        (json!({"queueMemoryMib": 2048}), &["resources.limits.memory: 1Gi", "queueMemoryMib (2048)"]),
    ];
    for (values, words) in cases {
        let Err(said) = render(OPERATOR, "clustersync", &values) else { panic!("accepted: {values}") };
        for word in words {
            assert!(said.contains(word), "{values}: '{word}' is not in: {said}");
        }
    }
    for (values, word) in
        [(json!({"crds": {"enabled": true}}), "enabled"), (json!({"replicas": 1}), "replicas")]
    {
        let Err(said) = render(DEFINITION, "crds", &values) else { panic!("accepted: {values}") };
        assert!(said.contains(word), "{said}");
    }
}
