//! `clustersync serve` and the command line, as processes against real replica sets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../lab/mod.rs"]
mod lab;

mod api;
mod back;
mod command_line;
mod life;
mod scripts;
mod secure;
mod stand;
mod two;
