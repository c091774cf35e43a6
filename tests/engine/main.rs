//! The engine on real replica sets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../lab/mod.rs"]
mod lab;

mod bad_input;
mod border;
mod clone;
mod compare;
mod ddl;
mod failover;
mod index;
mod kill;
mod matrix;
mod members;
mod pace;
mod random;
mod requests;
mod rights;
mod soak;
mod state;
mod target;
mod tls;
mod transactions;
mod updates;
mod whole;
mod workload;
mod world;
