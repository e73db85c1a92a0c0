//! What can be asked for, and the answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use super::Shared;
use super::exposition;
use super::guard::{IsTrusted, guard};
use super::page;

/// How soon a page comes back that has lost us.
const RETRY: Duration = Duration::from_secs(1);

/// All of it, guarded.
pub(super) fn all(shared: &Arc<Shared>) -> Router {
    let page = page::FILES.iter().fold(Router::new(), |router, page::File { path, kind, text }| {
        router.route(path, get(move || async move { ([(header::CONTENT_TYPE, *kind)], *text) }))
    });
    page.route("/status.json", get(status))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here: / is the page\n") })
        .method_not_allowed_fallback(|| async {
            let allowed = [(header::ALLOW, "GET,HEAD")];
            (StatusCode::METHOD_NOT_ALLOWED, allowed, "here one can only look: GET and HEAD\n")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(shared), guard))
        .with_state(Arc::clone(shared))
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let json = shared.snapshot().to_string();
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.watcher().metrics(shared.connections());
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
}

/// Whether the process does its job. A server that is away is no reason to be started anew.
async fn healthz(
    State(shared): State<Arc<Shared>>,
    Extension(is_trusted): Extension<IsTrusted>,
) -> Response {
    verdict(&shared.watcher().ills(), is_trusted, "unhealthy")
}

/// Whether it can make progress.
async fn readyz(
    State(shared): State<Arc<Shared>>,
    Extension(is_trusted): Extension<IsTrusted>,
) -> Response {
    verdict(&shared.watcher().not_ready(), is_trusted, "not ready")
}

/// The reasons why not, one a line, for those who may know them.
fn verdict(reasons: &[String], IsTrusted(is_trusted): IsTrusted, no: &str) -> Response {
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let text = if is_trusted { reasons.join("\n") } else { no.to_owned() };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")).into_response()
}

/// Where a connection to `/events` is.
struct Following {
    shared: Arc<Shared>,
    newest: watch::Receiver<Arc<str>>,
    sent: u64,
}

/// The snapshot of now, then each new one. Whoever reads slowly gets fewer, not older ones.
async fn events(
    State(shared): State<Arc<Shared>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let newest = shared.events.subscribe();
    let following = Following { shared, newest, sent: 0 };
    Sse::new(stream::unfold(following, |mut following| async move {
        let json = if following.sent == 0 {
            following.shared.snapshot()
        } else {
            following.newest.changed().await.ok()?;
            Arc::clone(&following.newest.borrow_and_update())
        };
        following.sent += 1;
        let event = Event::default().data(&*json).id(following.sent.to_string()).retry(RETRY);
        Some((Ok(event), following))
    }))
}
