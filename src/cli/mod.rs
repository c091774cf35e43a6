//! Subcommands, one file each.

pub mod operator;
