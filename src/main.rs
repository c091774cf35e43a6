//! The program: see the library for what it does.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // One TLS provider for the driver and the Kubernetes client; neither may choose its own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("clustersync: another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    clustersync::cli::main().await
}
