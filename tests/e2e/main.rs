//! `make e2e`: the operator as it is installed — image, chart, pods — on a real cluster. On a node of our own
//! (`scripts/node.sh`), or on the cluster that `E2E_KUBECONFIG` names, with `IMAGE`, `SOURCE_URI` and `TARGET_URI`.
//! `scripts/e2e.sh` prepares both; without it these tests have nothing to run on and are ignored.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../lab/mod.rs"]
mod lab;

mod availability;
mod cluster;
mod outage;
mod pod;
mod records;
mod release;
mod seen;
mod writer;
