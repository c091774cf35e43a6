//! The status page: one document without anything from elsewhere, which asks `/status` every two seconds.

/// What `/` answers.
pub const PAGE: &str = include_str!("page.html");
