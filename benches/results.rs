//! `docs/benchmarks/results.json`: every row as it was last measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::row::Row;

/// All rows by slug.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub rows: BTreeMap<String, Kept>,
}

/// A row, and how it came about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub date: String,
    pub commit: String,
    pub rounds: usize,
    pub command: String,
    pub machine: Machine,
    #[serde(flatten)]
    pub row: Row,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub mongod: String,
}

fn first_line(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
}

fn said_by(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl Machine {
    pub fn this() -> Self {
        let kib: u64 = first_line("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let version = said_by(&crate::lab::tool("CLUSTERSYNC_MONGOD"), &["--version"]);
        Self {
            processor: first_line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: said_by(Path::new("uname"), &["-sr"]),
            mongod: version.lines().next().unwrap_or_default().trim_start_matches("db version v").to_owned(),
        }
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks/results.json")
}

/// What runs now, as a row is kept with it.
pub fn keep(row: Row, rounds: usize, machine: &Machine) -> Kept {
    // Only what changes the program or the bench counts as changed.
    let changed = said_by(Path::new("git"), &["status", "--porcelain", "--", "src", "benches", "Cargo.lock"]);
    let commit = said_by(Path::new("git"), &["rev-parse", "--short=10", "HEAD"]);
    Kept {
        date: jiff::Timestamp::now().to_string()[..16].replace('T', " ") + " UTC",
        commit: if changed.is_empty() { commit } else { format!("{commit} and changes") },
        rounds,
        command: format!("make bench ROWS={} ROUNDS={rounds}", row.slug),
        machine: machine.clone(),
        row,
    }
}

impl Results {
    pub fn read() -> Self {
        match std::fs::read_to_string(file()) {
            Ok(text) => serde_json::from_str(&text).unwrap(),
            Err(_) => Self::default(),
        }
    }

    /// Points of series each on a line of their own would be most of the file.
    pub fn write(&self) {
        std::fs::create_dir_all(file().parent().unwrap()).unwrap();
        std::fs::write(file(), compact(self) + "\n").unwrap();
    }
}

/// Indented, but with lists of numbers in one line.
fn compact(results: &Results) -> String {
    let mut text = String::new();
    let mut numbers: Vec<String> = Vec::new();
    for line in serde_json::to_string_pretty(results).unwrap().lines() {
        let bare = line.trim();
        let plain = bare.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let inner = !numbers.is_empty() && (plain || matches!(bare, "[" | "]" | "],"));
        if inner || (bare == "[" && numbers.is_empty()) {
            numbers.push(bare.to_owned());
            continue;
        }
        if !numbers.is_empty() {
            let at = line.len() - line.trim_start().len() + 2;
            text += &format!("{}{}\n", " ".repeat(at), numbers.concat());
            numbers.clear();
        }
        text += line;
        text.push('\n');
    }
    text.trim_end().to_owned()
}
