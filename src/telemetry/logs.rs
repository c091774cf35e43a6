//! Log lines: to stderr, for people at a terminal or as JSON for machines, through the redaction.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::redact::redact;

/// How lines look and which are written.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `trace`, `debug`, `info`, `warn`, `error` or `fatal`.
    pub level: String,
    /// One JSON object a line.
    pub json: bool,
    /// No colours, even at a terminal.
    pub no_color: bool,
}

/// Install the process's log. Later calls do nothing.
pub fn install(options: &LogOptions) {
    let level = match options.level.as_str() {
        "fatal" => "error",
        level => level,
    };
    // Dependencies speak only when something is wrong, or when asked to by RUST_LOG. The Kubernetes client would warn with
    // the whole answer when it cannot decode one, and that may be a Secret.
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("warn,kube_client=error,clustersync={level}")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Redacting);
    let _ = if options.json {
        builder.json().flatten_event(true).with_ansi(false).try_init()
    } else {
        builder.with_ansi(!options.no_color && io::stderr().is_terminal()).try_init()
    };
}

/// Makes writers that redact.
#[derive(Clone, Copy, Debug)]
struct Redacting;

/// Collects one event, and writes it redacted when it is complete.
#[derive(Debug, Default)]
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::default()
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.0);
        let _ = io::stderr().lock().write_all(redact(&text).as_bytes());
    }
}
