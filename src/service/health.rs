//! `/livez`, `/readyz` and `/metrics`, on a thread of their own: whatever the syncs do, a probe is answered.
//! Liveness never depends on a database or the apiserver: a restart would not mend them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Makes the text of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> Result<String, prometheus::Error> + Send + Sync>;

/// Why `/readyz` has to say no, until the shutdown; none if it is ready.
pub type NotReady = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// As [`spawn_when`], ready from the first moment.
pub fn spawn(
    address: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    spawn_when(address, metrics, Arc::new(|| None), shutdown)
}

/// Serve until `shutdown`; once that begins, `/readyz` says so. Fails at once if the address cannot be had; the
/// receiver tells how it ended.
pub fn spawn_when(
    address: SocketAddr,
    metrics: Metrics,
    not_ready: NotReady,
    shutdown: CancellationToken,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("health".to_owned()).spawn(move || {
        let _ = end.send(runtime.block_on(serve(listener, metrics, not_ready, shutdown)));
    })?;
    Ok(ended)
}

async fn serve(
    listener: std::net::TcpListener,
    metrics: Metrics,
    not_ready: NotReady,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = router(metrics, not_ready, shutdown.clone());
    axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.cancelled().await }).await
}

fn router(metrics: Metrics, not_ready: NotReady, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(move || async move {
                let why_not = if shutdown.is_cancelled() { Some("stopping") } else { not_ready() };
                why_not.map_or((StatusCode::OK, "ok"), |why| (StatusCode::SERVICE_UNAVAILABLE, why))
            }),
        )
        .route("/metrics", get(exposition))
        .with_state(metrics)
}

async fn exposition(State(metrics): State<Metrics>) -> axum::response::Response {
    match metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn free() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Nothing here lends the probes a runtime: this test's thread is busy all the time.
    #[test]
    fn probes_are_answered_whatever_the_process_does() {
        let (address, shutdown) = (free(), CancellationToken::new());
        let metrics: Metrics = Arc::new(|| Ok("clustersync_up 1\n".to_owned()));
        let mut ended = spawn(address, metrics, shutdown.clone()).unwrap();
        for (path, body) in [("/livez", "ok"), ("/readyz", "ok"), ("/metrics", "clustersync_up 1\n")] {
            let answer = get(address, path);
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(body), "{answer}");
        }
        assert!(get(address, "/else").starts_with("HTTP/1.1 404"));
        shutdown.cancel();
        for _ in 0..100 {
            if matches!(ended.try_recv(), Ok(Ok(()))) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("still serving after the shutdown");
    }

    #[test]
    fn it_is_ready_once_it_says_so_and_alive_all_the_time() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (address, shutdown) = (free(), CancellationToken::new());
        let ready = Arc::new(AtomicBool::new(false));
        let heard = ready.clone();
        let not_ready: NotReady = Arc::new(move || (!heard.load(Ordering::Relaxed)).then_some("not yet"));
        let _ended =
            spawn_when(address, Arc::new(|| Ok(String::new())), not_ready, shutdown.clone()).unwrap();
        for (now, expected) in [(false, "503"), (true, "200")] {
            ready.store(now, Ordering::Relaxed);
            assert!(get(address, "/readyz").starts_with(&format!("HTTP/1.1 {expected}")));
            assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
        }
        shutdown.cancel();
    }

    #[test]
    fn a_taken_port_is_said_at_once() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics: Metrics = Arc::new(|| Ok(String::new()));
        let refused = spawn(taken.local_addr().unwrap(), metrics, CancellationToken::new());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
