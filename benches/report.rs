//! `docs/benchmarks.md`, wholly from what is kept.

use std::fmt::Write;
use std::path::Path;

use crate::picture::{self, FRAMES};
use crate::results::{Kept, Machine, Results};
use crate::row::{Figure, Round, Row, grouped, median_of, peak};

const HEAD: &str = "\
<!-- Written by `make bench`. Not edited by hand. -->
# Benchmarks

Each workload is done by clustersync and by a bare program in turn, round by round on the same servers, and the median counts. The bare program does the same without checkpoints or promises: it is the ceiling that the databases set. **Ratios count**; absolute numbers are those of the machine below, whose cores two mongods and the program under test share.
";

/// The document and its pictures.
pub fn write(results: &Results) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = docs.join("benchmarks");
    std::fs::create_dir_all(&folder).unwrap();
    let drawn: Vec<_> = FRAMES.iter().filter(|frame| picture::draw(frame, results, &folder)).collect();

    let rows = in_order(results);
    let mut text = HEAD.to_owned();
    machines(&mut text, &rows);
    text += "\nAll of it: `make bench`. Some of it: `make bench ROWS=clone-int,clone-many ROUNDS=3`. Raw numbers: [results.json](benchmarks/results.json).\n";
    table(&mut text, &rows);
    for frame in drawn {
        write!(text, "\n![{}](benchmarks/{})\n", frame.title, frame.file).unwrap();
    }
    text += "\n## Row by row\n";
    for kept in &rows {
        section(&mut text, kept);
    }
    std::fs::write(docs.join("benchmarks.md"), text).unwrap();
}

/// As the table has them; a row that is not measured any more comes last.
fn in_order(results: &Results) -> Vec<&Kept> {
    let place = |slug: &str| crate::ROWS.iter().position(|(known, _)| *known == slug).unwrap_or(usize::MAX);
    let mut rows: Vec<&Kept> = results.rows.values().collect();
    rows.sort_by_key(|kept| place(&kept.row.slug));
    rows
}

fn machines(text: &mut String, rows: &[&Kept]) {
    let mut told: Vec<&Machine> = Vec::new();
    for kept in rows {
        let machine = &kept.machine;
        if told.contains(&machine) {
            continue;
        }
        told.push(machine);
        let same = rows.iter().filter(|kept| kept.machine == *machine);
        let slugs: Vec<&str> = same.map(|kept| kept.row.slug.as_str()).collect();
        let which =
            if slugs.len() == rows.len() { String::new() } else { format!(" ({})", slugs.join(", ")) };
        let Machine { processor, cores, memory_gib, kernel, mongod } = machine;
        write!(
            text,
            "\n* Machine{which}: {cores} cores of {processor}, {memory_gib} GiB of memory, {kernel}, mongod {mongod}"
        )
        .unwrap();
    }
    text.push('\n');
}

fn table(text: &mut String, rows: &[&Kept]) {
    text.push_str(
        "\n| workload | ceiling | bare | clustersync | ratio | bar | met | CPU, bare → clustersync | peak memory |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for Kept { row, .. } in rows {
        let rate = |rounds: &[Round]| {
            median_of(rounds, Round::rate)
                .map_or("–".to_owned(), |rate| format!("{} {}/s", grouped(rate), row.unit))
        };
        let figures = row.figures.iter().filter(|one| one.bar.is_some()).map(|one| {
            let mark = if one.met == Some(true) { "" } else { " ✗" };
            format!("{}: {}{mark}", one.name, value(one))
        });
        let ratio = row.ratio().map(|ratio| format!("**{ratio:.2}**"));
        let ratio: Vec<String> = ratio.into_iter().chain(figures).collect();
        let bars = row.figures.iter().filter_map(|one| Some(format!("{} {}", one.name, one.bar.as_ref()?)));
        let bars: Vec<String> =
            [row.bar.clone()].into_iter().filter(|bar| !bar.is_empty()).chain(bars).collect();
        let memory =
            if row.engine.is_empty() { "–".to_owned() } else { format!("{:.0} MiB", peak(&row.engine)) };
        let ceiling = if row.ceiling.is_empty() { "–" } else { &row.ceiling };
        writeln!(
            text,
            "| [{}](#{}) | {ceiling} | {} | {} | {} | {} | {} | {} | {memory} |",
            row.title,
            row.slug,
            rate(&row.bare),
            rate(&row.engine),
            ratio.join("<br>"),
            bars.join("<br>"),
            met(row.met()),
            cpu(row),
        )
        .unwrap();
    }
}

fn section(text: &mut String, kept: &Kept) {
    let row = &kept.row;
    write!(text, "\n### {}\n\n{}.\n\n{}", row.slug, capital(&row.title), row.measured).unwrap();
    if !row.ceiling.is_empty() {
        write!(text, " Ceiling: {}.", row.ceiling).unwrap();
    }
    text.push_str("\n\n");
    for (name, rounds) in [("bare", &row.bare), ("clustersync", &row.engine)] {
        if !rounds.is_empty() {
            let seconds: Vec<String> = rounds.iter().map(|one| format!("{:.2}", one.seconds)).collect();
            writeln!(text, "* {name}: {} s", seconds.join(", ")).unwrap();
        }
    }
    for one in &row.figures {
        let bar = one.bar.as_ref().map(|bar| format!(" (bar: {bar}; {})", met(one.met)));
        writeln!(text, "* {}: {}{}", one.name, value(one), bar.unwrap_or_default()).unwrap();
    }
    for note in &row.notes {
        writeln!(text, "* {note}").unwrap();
    }
    writeln!(text, "* {}, commit {}: `{}`", kept.date, kept.commit, kept.command).unwrap();
}

fn capital(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

fn met(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "–",
    }
}

/// By GB where a row counts bytes, else by million.
fn cpu(row: &Row) -> String {
    let by = |rounds: &[Round]| {
        median_of(rounds, |one| match one.bytes {
            Some(bytes) => one.cpu_seconds / bytes * 1e9,
            None => one.cpu_seconds / one.amount * 1e6,
        })
        .map_or("–".to_owned(), |seconds| format!("{seconds:.1}"))
    };
    let Some(first) = row.engine.first() else { return "–".to_owned() };
    let what = if first.bytes.is_some() { "GB".to_owned() } else { format!("million {}", row.unit) };
    format!("{} → {} s per {what}", by(&row.bare), by(&row.engine))
}

fn value(figure: &Figure) -> String {
    let number = match figure.value {
        large if large >= 1_000.0 => grouped(large),
        middle if middle >= 100.0 => format!("{middle:.0}"),
        small => format!("{small:.2}"),
    };
    format!("{number} {}", figure.unit).trim().to_owned()
}
