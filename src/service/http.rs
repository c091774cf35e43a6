//! The control API over HTTP. Logical errors are 200 with `ok: false`, as the users of this API expect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::control::{Control, Refused};
use super::guard::Guard;
use super::{numbers, page, request};

/// The largest body.
const BODY: usize = 1 << 20;

/// How the API is served.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// The name that the address was asked for by.
    pub host: String,
    /// What every call but the health checks must carry as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Certificate chain and key, for HTTPS.
    pub tls: Option<RustlsConfig>,
}

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or may not be used.
    #[error("cannot listen on {0}: {1}; choose another with --port or --host")]
    Listen(SocketAddr, #[source] io::Error),
    /// While serving.
    #[error("the HTTP server ended: {0}")]
    Ended(#[source] io::Error),
}

/// Bind; fails at once if the address cannot be had.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, ServeError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| ServeError::Listen(address, error))
}

/// Serve until `shutdown`.
pub async fn serve(
    listener: std::net::TcpListener,
    control: Arc<Control>,
    serving: Serving,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Ended)?;
    let guard = Guard::new(address.ip(), &serving.host, serving.token.is_some());
    let app = router(control, guard, serving.token, shutdown.clone());
    let handle = axum_server::Handle::new();
    let closing = handle.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        closing.graceful_shutdown(Some(Duration::from_secs(1)));
    });
    let service = app.into_make_service();
    let served = if let Some(config) = serving.tls {
        tracing::info!(%address, "serving the control API over HTTPS");
        let server = axum_server::from_tcp_rustls(listener, config).map_err(ServeError::Ended)?;
        server.handle(handle).serve(service).await
    } else {
        tracing::info!(%address, "serving the control API");
        let server = axum_server::from_tcp(listener).map_err(ServeError::Ended)?;
        server.handle(handle).serve(service).await
    };
    served.map_err(ServeError::Ended)
}

fn router(control: Arc<Control>, guard: Guard, token: Option<String>, shutdown: CancellationToken) -> Router {
    let known = Arc::clone(&control);
    let calls = Router::new()
        .route("/", get(|| async { Html(page::PAGE) }))
        .route("/start", post(start))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/finalize", post(finalize))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let allowed = token.as_ref().is_none_or(|token| carries(&request, token));
            async move {
                if allowed {
                    next.run(request).await
                } else {
                    failure(StatusCode::UNAUTHORIZED, "unauthorized")
                }
            }
        }))
        .layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let refused = guard.refuses(&request);
            async move {
                match refused {
                    None => next.run(request).await,
                    Some(why) => failure(StatusCode::FORBIDDEN, &why),
                }
            }
        }))
        .with_state(control);
    let ready = move || async move {
        if shutdown.is_cancelled() {
            return (StatusCode::SERVICE_UNAVAILABLE, "stopping".to_owned());
        }
        match known.not_ready() {
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
            None => (StatusCode::OK, "ok".to_owned()),
        }
    };
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .merge(calls)
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .layer(DefaultBodyLimit::max(BODY))
}

/// Compared in constant time: how long it takes says nothing about the token.
fn carries(request: &Request, token: &str) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
    let (given, token) = (given.trim().as_bytes(), token.as_bytes());
    given.len() == token.len() && given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn failure(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({"ok": false, "error": why}))).into_response()
}

fn answer(outcome: Result<(), Refused>) -> Response {
    match outcome {
        Ok(()) => Json(json!({"ok": true})).into_response(),
        Err(refused) => Json(json!({"ok": false, "error": refused.to_string()})).into_response(),
    }
}

/// The body as an object; empty means an empty one.
fn object(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, Box<Response>> {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Box::new(failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB")));
        }
        Err(_) => return Err(Box::new(failure(StatusCode::BAD_REQUEST, "the body cannot be read"))),
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Box::new(answer(Err(Refused("the body must be a JSON object".to_owned()))))),
        Err(_) => Err(Box::new(failure(StatusCode::BAD_REQUEST, "the body is not JSON"))),
    }
}

async fn start(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    match object(body) {
        Ok(body) => match control.start(&body).await {
            Ok(Some(info)) => Json(json!({"ok": true, "info": info})).into_response(),
            other => answer(other.map(|_| ())),
        },
        Err(response) => *response,
    }
}

fn no_fields(control: &Control, body: &Map<String, Value>) -> Result<(), Refused> {
    match body.keys().next().filter(|_| !control.is_lenient()) {
        None => Ok(()),
        Some(name) => Err(Refused(format!("unknown field '{}'", request::printable(name)))),
    }
}

async fn pause(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    match object(body) {
        Ok(body) => match no_fields(&control, &body) {
            Ok(()) => answer(control.pause().await),
            refused => answer(refused),
        },
        Err(response) => *response,
    }
}

async fn finalize(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    match object(body) {
        Ok(body) => match no_fields(&control, &body) {
            Ok(()) => answer(control.finalize().await),
            refused => answer(refused),
        },
        Err(response) => *response,
    }
}

async fn resume(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    let mut body = match object(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let from_failure = match body.remove("fromFailure") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => flag,
        Some(_) => return answer(Err(Refused("invalid fromFailure: expected true or false".to_owned()))),
    };
    match no_fields(&control, &body) {
        Ok(()) => answer(control.resume(from_failure).await),
        refused => answer(refused),
    }
}

async fn status(State(control): State<Arc<Control>>) -> Response {
    Json(control.status()).into_response()
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    match numbers::render(control.sync_id(), control.report().as_ref()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
