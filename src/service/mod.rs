//! HTTP handlers: health and metrics.

pub mod health;
