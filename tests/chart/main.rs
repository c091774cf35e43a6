//! The charts: what they render, what they refuse, what their alerts and dashboard say, and what a real apiserver makes
//! of them. That their pods run is tested on a node (`tests/e2e`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::pedantic, missing_docs)]

#[path = "../lab/mod.rs"]
mod lab;

mod apiserver;
mod documented;
mod helm;
mod monitoring;
mod refused;
mod schemas;
mod switches;
mod tools;
