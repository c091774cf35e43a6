//! clustersync
use clap::Parser;
use clustersync::cli::operator::{self, OperatorArgs};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
enum Command {
    Crd,
    Operator(OperatorArgs),
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Command::parse() {
        Command::Crd => print!("{}", clustersync::api::crd::yaml().unwrap_or_default()),
        Command::Operator(args) => {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .init();
            let shutdown = CancellationToken::new();
            let stop = shutdown.clone();
            tokio::spawn(async move {
                let mut term =
                    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
                tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
                stop.cancel();
            });
            if let Err(error) = operator::run(args, Default::default(), shutdown).await {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
    }
}
