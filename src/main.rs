//! The program: see the library for what it does.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// How long freed memory is kept, in milliseconds: longer spares a clone some CPU time, for pages that the kernel clears
/// anew, and costs 15 to 25 MiB (documents of 5 KB and 100 KB).
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "50");

fn main() -> ExitCode {
    give_memory_back_soon();
    run()
}

/// The allocator keeps what is freed for a second, so that what a clone used is held while the stream needs its own. It
/// reads its options from the environment once, as the process starts: the process starts itself anew, in its place.
fn give_memory_back_soon() {
    let (option, value) = PURGE_DELAY;
    if std::env::var_os(option).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut args = std::env::args_os();
    let mut anew = Command::new(program);
    if let Some(name) = args.next() {
        anew.arg0(name);
    }
    // It returns only if that was not possible.
    let _ = anew.args(args).env(option, value).exec();
}

#[tokio::main]
async fn run() -> ExitCode {
    // One TLS provider for the driver and the Kubernetes client; neither may choose its own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("clustersync: another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    clustersync::cli::main().await
}
