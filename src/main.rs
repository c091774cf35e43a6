//! The program: see the library for what it does.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    keep_to_small_pages();
    // One TLS provider for the driver and the Kubernetes client; neither may choose its own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("clustersync: another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    clustersync::cli::main().await
}

/// The allocator asks for pages of 2 MiB. Buffers that come and go leave most of them partly used: 10 to 25 MiB, while what
/// they would save is not measurable.
#[cfg(target_os = "linux")]
fn keep_to_small_pages() {
    // A kernel that refuses has no such pages, or a filter that knows better.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(not(target_os = "linux"))]
fn keep_to_small_pages() {}
