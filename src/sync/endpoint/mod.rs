//! One end of a sync: how to reach it, what it is, and raw commands and cursors.

pub mod client;
pub mod config;
pub mod cursor;
pub mod failure;
pub mod identity;
pub mod oplog;
pub mod raw;
pub mod together;
pub mod uri;

pub use client::Endpoint;
pub use config::{Compression, Credentials, EndpointConfig, Feature, ReadPreference};
pub use uri::UriError;
