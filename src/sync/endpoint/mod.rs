//! One end of a sync: how to reach it and what it can do.

pub mod uri;

pub use uri::{Credentials, EndpointConfig, ReadPreference, UriError};
