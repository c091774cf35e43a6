//! Collections, views and indexes: what the source has, what the target gets, what is deferred until completion.

pub mod bounds;
pub mod build;
pub mod create;
pub mod index;
pub mod listing;
pub mod live;
pub mod options;
pub mod read;
pub mod views;

pub use live::{Catalog, Collection};
