//! Real parts for tests and the demo: mongods, a Kubernetes control plane, and an independent comparison. It knows
//! nothing of the engine, so that what it says about the engine counts.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

pub mod compare;
pub mod control_plane;
pub mod dns;
pub mod mongod;
pub mod process;
pub mod secure;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Where an installed part is; `scripts/tools.sh` knows.
pub fn tool(variable: &str) -> PathBuf {
    static FOUND: OnceLock<String> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tools.sh");
        let output = Command::new(script).arg("--env").output().expect("scripts/tools.sh runs");
        String::from_utf8(output.stdout).expect("paths are UTF-8")
    });
    let line = found.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
    let path = PathBuf::from(line.unwrap_or_else(|| panic!("tools.sh --env does not say {variable}")));
    assert!(path.exists(), "{} is not there: run `make tools`", path.display());
    path
}

/// A port that is free now, and was not given out before by this process.
pub fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// The TLS provider, once a process.
pub fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
