//! The engine: one sync from a source replica set to a target replica set.
//!
//! A caller builds a [`SyncConfig`], calls [`spawn`](lifecycle::spawn), steers it by a
//! [`Desired`](config::Desired) and reads its [`Report`]. Everything the engine must remember is on the
//! target (`state`); nothing is kept on disk.

pub mod apply;
pub mod budget;
pub mod catalog;
pub mod clone;
pub mod completion;
pub mod config;
pub mod context;
pub mod endpoint;
pub mod error;
pub mod lifecycle;
pub mod lookups;
pub mod namespace;
pub mod pace;
pub mod preflight;
pub mod progress;
pub mod report;
pub mod retry;
pub mod run;
pub mod scope;
pub mod share;
pub mod state;
pub mod stream;
pub mod throttle;
pub mod writers;

pub use config::{Desired, DesiredState, SyncConfig};
pub use error::{Class, Error, Reason};
pub use lifecycle::{Handle, spawn};
pub use report::{Phase, Report};
pub use share::Share;
