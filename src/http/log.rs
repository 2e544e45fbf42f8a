//! `/log/keys/`: the key log for CI and monitors (C2SP tlog-tiles), and its records as they stand on the disk.
//!
//! In scope: addresses, media types, caching, and asking callers who they are where the listener lists some. Out of scope: what is shown
//! (`logbook`). A tile never changes, so that it may be kept for a year; a checkpoint is asked for anew each time.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Response, header};
use axum::routing::get;
use claviger_audit::tiles::Tile;

use super::App;
use super::caller::Accepts;
use super::exchange::{Answer, dress, identified, request_id};
use super::public::LOG_SIZE;
use crate::logbook::{Excerpt, Logbook, MOST_RECORDS};
use crate::refusal::{Code, Refusal};

/// No request here has a body.
const LARGEST_BODY: usize = 0;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/log/keys/checkpoint", get(checkpoint))
        .route("/log/keys/witnessed.checkpoint", get(witnessed))
        .route("/log/keys/tile/{*path}", get(tile))
        .route("/log/keys/records", get(records))
}

async fn checkpoint(State(app): State<App>, request: Request) -> Response<Body> {
    admitted(app, request, async |book: &Logbook| Ok(note(book.checkpoint()?))).await
}

async fn witnessed(State(app): State<App>, request: Request) -> Response<Body> {
    admitted(app, request, async |book: &Logbook| Ok(note(book.witnessed()?.to_string()))).await
}

async fn tile(State(app): State<App>, Path(path): Path<String>, request: Request) -> Response<Body> {
    let tile = format!("tile/{path}").parse::<Tile>();
    admitted(app, request, async move |book: &Logbook| {
        let tile = tile.map_err(|error| Refusal::new(Code::NotFound, error.to_string()))?;
        let mut response = Response::new(Body::from(book.tile(tile).await?.bytes));
        set(&mut response, header::CONTENT_TYPE, "application/octet-stream");
        set(&mut response, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
        Ok(response)
    })
    .await
}

async fn records(State(app): State<App>, request: Request) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    admitted(app, request, async move |book: &Logbook| {
        let (from, limit) = (number(&query, "from")?.unwrap_or(0), number(&query, "limit")?.unwrap_or(MOST_RECORDS));
        let Excerpt { size, bytes } = book.records(from, limit).await?;
        let mut response = Response::new(Body::from(bytes));
        set(&mut response, header::CONTENT_TYPE, "application/jsonl");
        set(&mut response, header::CACHE_CONTROL, "no-cache");
        response.headers_mut().insert(LOG_SIZE, HeaderValue::from(size));
        Ok(response)
    })
    .await
}

/// Answers a reader: whoever reaches a listener without `callers`, else whom a policy permits `readLog`.
async fn admitted(app: App, request: Request, read: impl AsyncFnOnce(&Logbook) -> Answer) -> Response<Body> {
    let accepts = request.extensions().get::<Accepts>().copied().unwrap_or_default();
    if accepts == Accepts::default() {
        let id = request_id(request.headers());
        return dress(shown(&app, read).await, &id);
    }
    identified(app, request, LARGEST_BODY, async |app: App, exchange| {
        app.operator.may_read_log(&exchange.ask).await?;
        shown(&app, read).await
    })
    .await
}

async fn shown(app: &App, read: impl AsyncFnOnce(&Logbook) -> Answer) -> Answer {
    let book = app.logbook.as_ref().ok_or_else(|| Refusal::new(Code::NotFound, "this daemon does not show its log"))?;
    read(book).await
}

fn note(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Refusal> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(given, _)| *given == name) else { return Ok(None) };
    let wrong = || Refusal::new(Code::Malformed, format!("`{name}` is not a whole number"));
    value.parse().map(Some).map_err(|_| wrong())
}
