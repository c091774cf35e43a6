//! Logs, metrics and redaction. A leaf: it reads reports, nothing imports back.

pub mod logs;
pub mod metrics;
pub mod redact;
