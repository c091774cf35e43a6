//! `make bench`: the engine against bare programs that do the same without checkpoints or promises, round by round in
//! turn, on the same servers. Ratios count; absolute numbers are this machine's. `bench bare NAME …` is one of the
//! bare programs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

#[path = "../tests/lab/mod.rs"]
mod lab;

mod backlog;
mod bare;
mod catch_up;
mod clone;
mod clone_int;
mod clone_large;
mod clone_many;
mod clone_uuid;
mod copy;
mod copy_index;
mod document;
mod engine;
mod guard;
mod hot;
mod hour;
mod lag;
mod load;
mod picture;
mod report;
mod results;
mod resume;
mod rig;
mod row;
mod sampler;
mod scope;
mod usage;
mod workload;

use results::{Machine, Results};
use row::Row;

/// All rows in the order of the table, and their rounds where `ROUNDS` says nothing.
pub const ROWS: [(&str, usize); 17] = [
    ("clone-int", 5),
    ("clone-uuid", 5),
    ("clone-many", 5),
    ("clone-random-large", 3),
    ("backlog", 5),
    ("hot-document", 5),
    ("hot-ten", 5),
    ("backlog-5k", 5),
    ("backlog-100k", 5),
    ("backlog-5m", 5),
    ("backlog-transactions", 5),
    ("backlog-namespaces", 5),
    ("backlog-scope", 5),
    ("lag", 3),
    ("resume", 3),
    ("catch-up", 3),
    ("hour", 0),
];

async fn run(slug: &str, rounds: usize) -> Row {
    match slug {
        "clone-int" => clone_int::run(rounds).await,
        "clone-uuid" => clone_uuid::run(rounds).await,
        "clone-many" => clone_many::run(rounds).await,
        "clone-random-large" => clone_large::run(rounds).await,
        "hot-document" => hot::document(rounds).await,
        "hot-ten" => hot::ten(rounds).await,
        "backlog-scope" => scope::run(rounds).await,
        "lag" => lag::run(rounds).await,
        "resume" => resume::run(rounds).await,
        "catch-up" => catch_up::run(rounds).await,
        "hour" => hour::run().await,
        backlog if backlog.starts_with("backlog") => backlog::run(backlog, rounds).await,
        _ => unreachable!("{slug}"),
    }
}

/// What `ROWS` and `ROUNDS` chose.
fn chosen() -> Vec<(&'static str, usize)> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let rounds = variable("ROUNDS").map(|rounds| rounds.parse().expect("ROUNDS is a number"));
    let wanted = variable("ROWS");
    let wanted: Option<Vec<&str>> = wanted.as_deref().map(|rows| rows.split(',').map(str::trim).collect());
    for slug in wanted.iter().flatten() {
        let known: Vec<&str> = ROWS.iter().map(|(slug, _)| *slug).collect();
        assert!(known.contains(slug), "no row is named {slug}; there are {}", known.join(", "));
    }
    // A row of no rounds is measured only when it is named.
    let chosen = ROWS
        .iter()
        .filter(|(slug, rounds)| wanted.as_ref().map_or(*rounds > 0, |wanted| wanted.contains(slug)));
    chosen.map(|(slug, default)| (*slug, rounds.unwrap_or(*default))).collect()
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", ..] => bare::main(&args[1..]).await,
        ["guard"] => guard::run().await,
        ["report"] => report::write(&Results::read()),
        [] => measure().await,
        _ => panic!("bench, bench guard, bench report, or bench bare NAME …; ROWS and ROUNDS choose"),
    }
}

async fn measure() {
    let machine = Machine::this();
    for (slug, rounds) in chosen() {
        println!("{slug}, {rounds} rounds");
        let row = run(slug, rounds).await;
        print(&row);
        // Read anew and written at once: what was measured stays when a later row fails.
        let mut results = Results::read();
        results.rows.insert(slug.to_owned(), results::keep(row, rounds, &machine));
        results.write();
        report::write(&results);
    }
}

fn print(row: &Row) {
    for (name, rounds) in [("bare", &row.bare), ("clustersync", &row.engine)] {
        for round in rounds {
            println!(
                "  {name:<12} {:>9.0} {}/s  {:>7.2} s  {:>6.2} CPU s  peak {:>4.0} MiB",
                round.rate(),
                row.unit,
                round.seconds,
                round.cpu_seconds,
                round.peak_mib
            );
        }
    }
    if let Some(ratio) = row.ratio() {
        println!("  ratio {ratio:.2}  bar: {}", row.bar);
    }
    for figure in &row.figures {
        let bar = figure.bar.as_ref().map(|bar| format!("  bar: {bar}")).unwrap_or_default();
        println!("  {} {:.2} {}{bar}", figure.name, figure.value, figure.unit);
    }
    match row.met() {
        Some(true) => println!("  met"),
        Some(false) => println!("  NOT met"),
        None => {}
    }
}
