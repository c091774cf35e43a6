//! Collections and indexes: what the source has, what the target gets, what is deferred until completion.

pub mod build;
pub mod create;
pub mod index;
pub mod live;
pub mod read;

pub use live::{Catalog, Collection};
