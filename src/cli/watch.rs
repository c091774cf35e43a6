//! `status --watch` at a terminal: a bar for the clone and one for each collection that is being copied.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

/// Collections shown at a time.
const MOST: usize = 12;

/// The bars.
pub struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    whole: ProgressBar,
    collections: HashMap<String, ProgressBar>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Bars {
    /// None yet.
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        let bar = style("{prefix:30!} {wide_bar} {bytes:>11} of {total_bytes:>11} {msg}");
        let whole = all.add(ProgressBar::new(0).with_style(bar).with_prefix("clone"));
        Self { all, head, whole, collections: HashMap::new() }
    }

    /// Show a status.
    pub fn show(&mut self, status: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.head.set_message(format!(
            "{} · {} · lag {} s · {} events applied · {}",
            text(&status["state"]),
            text(&status["phase"]),
            status["lagTimeSeconds"],
            status["eventsApplied"],
            text(status.get("error").unwrap_or(&status["info"])),
        ));
        self.head.tick();
        let clone = &status["initialSync"];
        self.whole.set_length(number(&clone["estimatedCloneSizeBytes"]));
        self.whole.set_position(number(&clone["clonedSizeBytes"]));
        let copying: Vec<&Value> = status["progress"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["state"] == "cloning")
            .take(MOST)
            .collect();
        self.collections.retain(|name, bar| {
            let still = copying.iter().any(|one| one["namespace"] == **name);
            if !still {
                bar.finish_and_clear();
            }
            still
        });
        for one in copying {
            let name = text(&one["namespace"]);
            let bar = self.collections.entry(name.clone()).or_insert_with(|| {
                let bar = style("  {prefix:28!} {wide_bar} {bytes:>11} of {total_bytes:>11} {msg}");
                self.all.add(ProgressBar::new(0).with_style(bar).with_prefix(name))
            });
            bar.set_length(number(&one["estimatedSizeBytes"]));
            bar.set_position(number(&one["clonedSizeBytes"]));
            if let Some(eta) = one["etaSeconds"].as_u64() {
                bar.set_message(format!("{eta} s"));
            }
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}
