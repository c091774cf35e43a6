//! What the operator's service account may do, and what it may not.

use crate::site::{ACCOUNT, Site};

#[test]
fn the_service_account_may_do_its_work_and_nothing_else() {
    let site = Site::new("rights");
    let kubeconfig = site.plane.kubeconfig_for(&site.namespace, ACCOUNT);
    let may = |question: &str, namespace: &str| {
        let words: Vec<&str> =
            ["auth", "can-i", "-n", namespace].into_iter().chain(question.split(' ')).collect();
        site.plane.kubectl_as(&kubeconfig, &words, "").status.success()
    };
    let allowed = [
        "get clustersyncs",
        "list clustersyncs",
        "watch clustersyncs",
        "patch clustersyncs",
        "patch clustersyncs --subresource=status",
        "get secrets",
        "get configmaps",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
        "create leases",
        "get leases/clustersync-operator",
        "update leases/clustersync-operator",
    ];
    for question in allowed {
        assert!(may(question, &site.namespace), "may not {question}");
    }
    let denied = [
        "list secrets",
        "watch secrets",
        "create secrets",
        "update secrets",
        "patch secrets",
        "delete secrets",
        "list configmaps",
        "patch configmaps",
        "create clustersyncs",
        "delete clustersyncs",
        "update clustersyncs",
        "update leases/another",
        "get leases/another",
        "delete leases/clustersync-operator",
        "get pods",
        "create pods",
        "create pods --subresource=exec",
        "create deployments.apps",
        "create serviceaccounts",
        "create serviceaccounts --subresource=token",
        "create rolebindings",
        "impersonate users",
        "escalate roles",
    ];
    for question in denied {
        assert!(!may(question, &site.namespace), "may {question}");
    }
    for question in ["get secrets", "get clustersyncs", "list clustersyncs --all-namespaces", "create leases"]
    {
        assert!(!may(question, "kube-system"), "may {question} elsewhere");
    }
    assert!(!may("get nodes", "default") && !may("list namespaces", "default"));
}
