//! An object that this version cannot read, and a definition that is not there yet. A control plane of its own,
//! because the definition is changed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::control_plane::ControlPlane;
use crate::site::{CRD, Site, cluster_sync, condition, established, succeed};

#[test]
fn it_is_told_so_and_does_not_stand_in_the_way() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    let site = Site::on(plane, "guarded");
    let operator = site.operator(&[]);
    operator.until_log("CustomResourceDefinition is not installed");

    // As a later version might have it: anything goes.
    let print = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let json = succeed(plane.kubectl_as(&plane.kubeconfig, &print, CRD));
    let mut definition: Value = serde_json::from_str(&json).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    succeed(plane.apply(&definition.to_string()));
    established(plane);

    let mut odd = cluster_sync("odd", "odd");
    odd["spec"]["state"] = json!("Sideways");
    succeed(site.apply(&odd));
    succeed(site.apply(&cluster_sync("good", "good")));
    let good = site.reason("good", "CredentialsMissing");
    assert_eq!(good["status"]["phase"], "Pending");
    let odd = site.reason("odd", "Undecodable");
    assert_eq!(condition(&odd, "Stalled")["status"], "True");
    site.kubectl(&["delete", "csync", "odd", "--wait=false"]);
    site.gone("odd");
    std::thread::sleep(Duration::from_millis(100));
    assert!(operator.log().contains("cannot be read"));
}
