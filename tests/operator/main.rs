//! The operator as a process under its own service account, on a real control plane and real replica sets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../lab/mod.rs"]
mod lab;

mod admission;
mod apiserver;
mod backup;
mod bad_input;
mod budget;
mod deletion;
mod deploy;
mod explain;
mod fencing;
mod gitops;
mod health;
mod lifecycle;
mod limits;
mod publishing;
mod reference;
mod replicas;
mod rights;
mod secure;
mod site;
mod status;
mod tenancy;
mod trouble;
mod undecodable;
mod waits;
