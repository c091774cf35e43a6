//! `/livez`, `/readyz` and `/metrics`. Liveness never depends on a database or the apiserver: a restart would not
//! mend them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

/// Makes the text of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> Result<String, prometheus::Error> + Send + Sync>;

/// Serve until `shutdown`; once that begins, `/readyz` says so.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    let ready = shutdown.clone();
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready.is_cancelled() {
                    (StatusCode::SERVICE_UNAVAILABLE, "stopping")
                } else {
                    (StatusCode::OK, "ok")
                }
            }),
        )
        .route("/metrics", get(exposition))
        .with_state(metrics);
    axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.cancelled().await }).await
}

async fn exposition(State(metrics): State<Metrics>) -> axum::response::Response {
    match metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
