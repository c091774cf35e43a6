//! CPU and memory of a process, by `/proc`.

use std::fs;

/// What a process used. Its children do not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Since its start.
    pub cpu_seconds: f64,
    /// Since its start, or since the last [`forget_peak`].
    pub peak_mib: f64,
    /// Now.
    pub resident_mib: f64,
}

impl Usage {
    /// Of a process that runs; `self` for the own one.
    pub fn of(pid: &str) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        Self { cpu_seconds: ticks / 100.0, peak_mib: mib("VmHWM:"), resident_mib: mib("VmRSS:") }
    }

    /// CPU since `before`; the peak stays.
    pub fn since(self, before: Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - before.cpu_seconds, ..self }
    }
}

/// CPU time of the machine since its start, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    idle: f64,
    all: f64,
}

impl Machine {
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let times = stat.lines().next().unwrap().split_whitespace().skip(1).take(8);
        let times: Vec<f64> = times.map(|time| time.parse().unwrap()).collect();
        Self { idle: times[3], all: times.iter().sum() }
    }

    /// Share of the time from then to now that was idle.
    pub fn idle_since(before: Self) -> f64 {
        let now = Self::now();
        (now.idle - before.idle) / (now.all - before.all)
    }
}

/// Let the peak begin anew.
pub fn forget_peak(pid: &str) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
