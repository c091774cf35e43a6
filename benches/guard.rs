//! `make guard`: small ratios that fail only on a clear regression. Its margins are far from what noise reaches; what
//! is fast enough the whole benchmark says.

use crate::row::{Row, peak};
use crate::{backlog, clone_int};

const ROUNDS: usize = 3;

/// Documents of the clone.
const DOCUMENTS: i32 = 150_000;

/// The clone's rate by the bare copy's at least.
const CLONE: f64 = 0.5;

/// Operations of the backlog.
const OPERATIONS: u32 = 60_000;

/// The backlog's rate by that of bare bulks at least.
const BACKLOG: f64 = 0.4;

/// MiB at most.
const MEMORY: f64 = 192.0;

/// Exits with 1 if something has clearly become worse.
pub async fn run() {
    let mut worse = Vec::new();
    judge(&clone_int::measure(ROUNDS, DOCUMENTS).await, CLONE, &mut worse);
    judge(&backlog::small(ROUNDS, OPERATIONS).await, BACKLOG, &mut worse);
    if !worse.is_empty() {
        eprintln!("a clear regression:\n{}", worse.join("\n"));
        std::process::exit(1);
    }
}

fn judge(row: &Row, least: f64, worse: &mut Vec<String>) {
    crate::print(row);
    let (ratio, memory) = (row.ratio().unwrap(), peak(&row.engine));
    if ratio < least {
        worse.push(format!("{}: ratio {ratio:.2}, which should be {least} at least", row.slug));
    }
    if memory > MEMORY {
        worse.push(format!("{}: peak memory {memory:.0} MiB, which should be {MEMORY} at most", row.slug));
    }
}
