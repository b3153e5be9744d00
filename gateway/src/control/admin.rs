//! The operator's HTTP port: metrics, health, status, sessions, drain and reload. Plain tokio types on the control thread, inside
//! tokio-uring's runtime where the host allows a ring.
//!
//! Nobody is asked who they are. The default address is loopback; whoever gives another one decides who can reach it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use net_io::clock;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::plane::{CommandError, Plane};
use super::question::{GlobalId, NotAnId};
use super::reload::ReloadError;
use super::sessions::{AskError, Census, ListQuery};
use crate::metrics::Metrics;
use crate::shard::stats::{DropReason, EndReason, Stat};

/// Serves HTTP at `listener` until `stopped`.
pub(super) async fn serve(
    router: Router,
    listener: TcpListener,
    connections_max: u16,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(connections_max.into()));
    let mut connections = JoinSet::new();
    loop {
        // Beyond the bound, clients wait in the backlog.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            _ = &mut stopped => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // Out of descriptors, or gone again before it was accepted. Neither ends the server.
            Err(error) => {
                tracing::warn!(%error, "admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    let finish = async { while connections.join_next().await.is_some() {} };
    // Idle connections never finish: they are cut.
    let _ = tokio::time::timeout(STOP_GRACE, finish).await;
    Ok(())
}

/// Serves one connection for a bounded time.
async fn connection(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    if tokio::time::timeout(CONNECTION_LIFE, served.as_mut()).await.is_err() {
        // Its client may come again; a scraper that keeps connections does so unharmed.
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(HEADER_TIMEOUT, served).await;
    }
}

#[derive(Clone)]
struct Context {
    plane: Arc<Plane>,
    metrics: Metrics,
    census: Arc<Census>,
}

/// Everything there is to ask for.
pub(super) fn router(plane: Arc<Plane>, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/shards", get(shards))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{id}", get(session))
        .route("/api/v1/sessions/{id}/close", post(close_session))
        .route("/api/v1/backends", get(backends))
        .route("/api/v1/backends/{name}/drain", post(drain_backend))
        .route("/api/v1/backends/{name}/undrain", post(undrain_backend))
        .route("/api/v1/config", get(config))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/undrain", post(undrain))
        .route("/api/v1/reload", post(reload))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(same_origin))
        .with_state(Context { plane, metrics, census: Arc::new(Census::new()) })
}

/// Refuses changes that a page of another site makes an operator's browser ask for.
async fn same_origin(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_ours(request.headers()) {
        next.run(request).await
    } else {
        problem(StatusCode::FORBIDDEN, "asked for by a page of another site")
    }
}

fn is_ours(headers: &HeaderMap) -> bool {
    match (headers.get(header::ORIGIN), headers.get(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => {
            origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes())
        }
        (Some(_), None) => false,
    }
}

/// Every error of the API looks like this.
fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({ "error": error.into() }))).into_response()
}

async fn exposition(State(context): State<Context>) -> Response {
    match context.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Whether the process is worth keeping: it answers, and no shard has died.
async fn healthz(State(Context { plane, .. }): State<Context>) -> Response {
    match plane.life.failure() {
        None => "ok\n".into_response(),
        Some(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, failure.to_string()),
    }
}

/// Whether new clients should be sent here.
async fn readyz(State(Context { plane, .. }): State<Context>) -> Response {
    match plane.not_ready() {
        None => ready(&plane).into_response(),
        Some(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Says what the prober found. A probe that fails does not end readiness: what it found wrong may be wrong everywhere, and
/// alerts watch it.
fn ready(plane: &Plane) -> String {
    let mut text = "ready\n".to_owned();
    if plane.is_probed() {
        text.extend(plane.probes.read().iter().map(|probe| probe.line() + "\n"));
    }
    text
}

async fn status(State(Context { plane, .. }): State<Context>) -> Response {
    Json(plane.status()).into_response()
}

async fn shards(State(Context { plane, .. }): State<Context>) -> Response {
    let shard = |(index, link): (usize, &super::plane::ShardLink)| {
        let stats = link.stats.read();
        let drops = DropReason::ALL.iter().map(|r| (r.label(), stats.drops(*r)));
        let ends = EndReason::ALL.iter().map(|r| (r.label(), stats.ends(*r)));
        json!({
            "shard": index,
            "core": link.core,
            "alive": !plane.life.is_dead(index),
            "stats": object(Stat::ALL.iter().map(|s| (s.label(), stats.get(*s)))),
            "drops": object(drops),
            "ended": object(ends),
        })
    };
    let shards: Vec<Value> = plane.shards().iter().enumerate().map(shard).collect();
    Json(shards).into_response()
}

/// The list of sessions, a page at a time.
async fn sessions(
    State(Context { plane, census, .. }): State<Context>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let wanted = match query.understand() {
        Ok(wanted) => wanted,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match census.list(&plane, &wanted).await {
        Ok(list) => Json(list).into_response(),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn session(State(context): State<Context>, Path(id): Path<String>) -> Response {
    one_session(&context, &id, false).await
}

async fn close_session(State(context): State<Context>, Path(id): Path<String>) -> Response {
    one_session(&context, &id, true).await
}

async fn one_session(Context { plane, census, .. }: &Context, id: &str, close: bool) -> Response {
    let outcome = match id.parse::<GlobalId>() {
        Ok(id) => census.one(plane, id, close).await,
        Err(error @ NotAnId) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match outcome {
        Ok(Some(portrait)) => {
            if close {
                tracing::info!(session = id, client = %portrait.address, "closed by the operator");
            }
            Json(portrait).into_response()
        }
        Ok(None) => problem(StatusCode::NOT_FOUND, "no such session, or no longer"),
        Err(error @ (AskError::Command(_) | AskError::Silent(_))) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
    }
}

fn object(numbers: impl Iterator<Item = (&'static str, u64)>) -> Map<String, Value> {
    numbers.map(|(name, n)| (name.to_owned(), n.into())).collect()
}

async fn backends(State(Context { plane, .. }): State<Context>) -> Response {
    match plane.backends() {
        Some(directory) => {
            let numbers = |id| plane.numbers(id);
            Json(directory.registry().view(clock::monotonic(), &numbers)).into_response()
        }
        None => problem(StatusCode::NOT_FOUND, NO_BACKENDS),
    }
}

async fn drain_backend(State(context): State<Context>, Path(name): Path<String>) -> Response {
    empty_backend(&context.plane, &name, true).await
}

async fn undrain_backend(State(context): State<Context>, Path(name): Path<String>) -> Response {
    empty_backend(&context.plane, &name, false).await
}

async fn empty_backend(plane: &Plane, name: &str, drained: bool) -> Response {
    match plane.backends() {
        Some(directory) if directory.drain(name, drained).await => {
            tracing::info!(backend = %name, drained, "the operator asked");
            Json(json!({ "name": name, "drained": drained })).into_response()
        }
        Some(_) => problem(StatusCode::NOT_FOUND, format!("no backend is called {name:?}")),
        None => problem(StatusCode::NOT_FOUND, NO_BACKENDS),
    }
}

async fn config(State(Context { plane, .. }): State<Context>) -> Response {
    let (config, sizes) = {
        let current = plane.current();
        (Arc::clone(&current.config), Arc::clone(&current.sizes))
    };
    Json(json!({
        "file": plane.config_file(),
        "config": config.to_json(),
        "resolved": {
            "shards.count": sizes.shards,
            "shards.store_bytes_max": sizes.store_bytes_per_shard,
            "session.max": sizes.sessions_max,
            "sessions_per_shard": sizes.sessions_per_shard,
            "memory_bytes": sizes.memory,
        },
    }))
    .into_response()
}

async fn drain(State(Context { plane, .. }): State<Context>) -> Response {
    commanded(&plane, plane.drain())
}

async fn undrain(State(Context { plane, .. }): State<Context>) -> Response {
    commanded(&plane, plane.undrain())
}

fn commanded(plane: &Plane, outcome: Result<(), CommandError>) -> Response {
    match outcome {
        Ok(()) => Json(plane.status()).into_response(),
        Err(error @ CommandError::State(_)) => problem(StatusCode::CONFLICT, error.to_string()),
        Err(error @ (CommandError::Stuck(_) | CommandError::Dead(_))) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
    }
}

async fn reload(State(Context { plane, .. }): State<Context>) -> Response {
    match plane.reload() {
        Ok(changes) => Json(json!({ "changed": changes })).into_response(),
        Err(error) => {
            let status = match &error {
                ReloadError::NoSource | ReloadError::NeedsRestart(_) => StatusCode::CONFLICT,
                ReloadError::Broken(_) => StatusCode::UNPROCESSABLE_ENTITY,
                ReloadError::Command(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, error.to_string())
        }
    }
}

/// Time for a whole request head, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked to end after this long, so that none holds its place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
const STOP_GRACE: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HEADER_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 64 << 10;
const NO_BACKENDS: &str = "this gateway has no backends: its upstream is echo or NATS";
