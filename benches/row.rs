//! What one row of the table holds, as it is kept in `docs/benchmarks/results.json`.

use serde::{Deserialize, Serialize};

/// Points of a series at most.
const MOST_POINTS: usize = 300;

/// A workload, measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub slug: String,
    /// The workload, in one phrase.
    pub title: String,
    /// What exactly is timed, in sentences.
    pub measured: String,
    /// The bare program, in one phrase; empty where there is none.
    pub ceiling: String,
    /// The bar in words.
    pub bar: String,
    /// The ratio (the engine's rate by the bare program's) that the bar asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_ratio: Option<f64>,
    /// What a round's amount counts: `documents`, `events`.
    pub unit: String,
    pub bare: Vec<Round>,
    pub engine: Vec<Round>,
    /// Further numbers, each with its own bar or none.
    pub figures: Vec<Figure>,
    pub series: Vec<Series>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// One round of one program.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    pub seconds: f64,
    pub amount: f64,
    /// BSON bytes, where CPU is told by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
    pub cpu_seconds: f64,
    pub peak_mib: f64,
}

/// A number besides the ratio.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// Which picture a series belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Picture {
    /// Seconds → units a second.
    CloneThroughput,
    /// Milliseconds → share of writes, 0 to 1.
    Lag,
    /// Seconds → MiB, of a clone.
    CloneMemory,
    /// Seconds → MiB, of a stream.
    Memory,
}

/// A line in a picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    pub picture: Picture,
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

impl Round {
    pub fn rate(&self) -> f64 {
        self.amount / self.seconds
    }
}

impl Figure {
    /// With nothing asked of it.
    pub fn plain(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), value, unit: unit.to_owned(), bar: None, met: None }
    }

    pub fn under(name: &str, value: f64, unit: &str, bar: f64) -> Self {
        let (words, met) = (Some(format!("under {bar} {unit}").trim().to_owned()), Some(value < bar));
        Self { bar: words, met, ..Self::plain(name, value, unit) }
    }

    pub fn at_least(name: &str, value: f64, unit: &str, bar: f64) -> Self {
        let (words, met) = (Some(format!("at least {bar} {unit}").trim().to_owned()), Some(value >= bar));
        Self { bar: words, met, ..Self::plain(name, value, unit) }
    }
}

impl Series {
    /// Thinned out evenly to what a picture can show; the last point stays.
    pub fn new(picture: Picture, name: &str, points: Vec<[f64; 2]>) -> Self {
        let step = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
        let kept = points.iter().enumerate().filter(|(number, _)| number % step == 0 || *number == last);
        let points = kept.map(|(_, [x, y])| [rounded(*x), rounded(*y)]).collect();
        Self { picture, name: name.to_owned(), points }
    }
}

impl Row {
    pub fn bare_rate(&self) -> Option<f64> {
        median_of(&self.bare, Round::rate)
    }

    pub fn engine_rate(&self) -> Option<f64> {
        median_of(&self.engine, Round::rate)
    }

    /// The engine's rate by the bare program's.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.engine_rate()? / self.bare_rate()?)
    }

    /// Whether the ratio and all figures meet their bars; none if nothing has one.
    pub fn met(&self) -> Option<bool> {
        let ratio = self.least_ratio.and_then(|least| Some(self.ratio()? >= least));
        let all: Vec<bool> = ratio.into_iter().chain(self.figures.iter().filter_map(|one| one.met)).collect();
        (!all.is_empty()).then(|| all.iter().all(|met| *met))
    }
}

/// The median of something of each round.
pub fn median_of(rounds: &[Round], what: impl Fn(&Round) -> f64) -> Option<f64> {
    (!rounds.is_empty()).then(|| median(rounds.iter().map(what).collect()))
}

/// The largest peak of memory of all rounds, in MiB.
pub fn peak(rounds: &[Round]) -> f64 {
    rounds.iter().map(|round| round.peak_mib).fold(0.0, f64::max)
}

/// The middle one; of two middle ones their mean.
pub fn median(mut all: Vec<f64>) -> f64 {
    assert!(!all.is_empty(), "a median of nothing");
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}

/// The value below which `share` (0 to 1) of all lie.
pub fn quantile(all: &mut [f64], share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let place = (all.len() as f64 * share).ceil() as usize;
    all[place.clamp(1, all.len()) - 1]
}

/// With commas between groups of thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
