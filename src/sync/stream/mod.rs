//! Reading the source's change stream: open or resume it, decode the head of each event, hand batches on.

pub mod event;
pub mod reader;
pub mod token;

pub use event::{Event, Kind};
