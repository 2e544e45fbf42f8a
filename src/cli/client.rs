//! How the command line asks the daemon: HTTP with JSON over a Unix socket.
//!
//! In scope: one request, one answer, and what a refusal means for the exit code. Out of scope: opening state, which only the daemon does.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::exit;
use super::output::Failure;

/// The longest a verb may take: a keystore may have to destroy a key.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: the story of a hundred thousand keys fits.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon behind this socket; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None, TIMEOUT).await
    }

    /// Orders.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(body), TIMEOUT).await
    }

    /// Orders a verb, and, if there is a span to wait, lets the daemon answer only when witnesses have cosigned it or the span is over.
    pub async fn order(&self, path: &str, body: &Value, wait: Option<Duration>) -> Result<Value, Failure> {
        let Some(span) = wait else { return self.post(path, body).await };
        let path = format!("{path}?wait=witnessed&within_ms={}", span.as_millis());
        self.ask(Method::POST, &path, Some(body), TIMEOUT.saturating_add(span)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, patience: Duration) -> Result<Value, Failure> {
        let answer = tokio::time::timeout(patience, self.exchange(method, path, body)).await;
        let (status, body) = answer.map_err(|_| self.unreachable(format_args!("it did not answer within {patience:?}")))??;
        if status.is_success() {
            return Ok(body);
        }
        Err(Failure::new(code(status), refusal_text(status, &body)))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(error))?;
        // The connection ends with the answer; its own error is the answer's.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("claviger/", env!("CARGO_PKG_VERSION")))
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .map_err(|error| Failure::new(exit::DATA, format!("the request cannot be written: {error}")))?;
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|error| self.unreachable(error))?;
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null)))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        let text = format!(
            "cannot ask the daemon at {}: {why}\nIs it running? `claviger serve` starts it; --socket or CLAVIGER_SOCKET names another socket.",
            self.socket.display()
        );
        Failure::new(exit::UNAVAILABLE, text)
    }
}

/// A path segment with everything encoded that is not plainly safe.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn code(status: StatusCode) -> u8 {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => exit::DENIED,
        StatusCode::NOT_FOUND => exit::NOT_FOUND,
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => exit::LATER,
        StatusCode::SERVICE_UNAVAILABLE => exit::UNAVAILABLE,
        _ => exit::DATA,
    }
}

fn refusal_text(status: StatusCode, body: &Value) -> String {
    let member = |name: &str| body.get(name).and_then(Value::as_str);
    let mut text = member("detail").map_or_else(|| format!("the daemon answered {status}"), str::to_owned);
    for broken in body.get("broken").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| broken.get(name).and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!("\n  {}: {} [{}]", part("claim"), part("detail"), part("rule")));
    }
    if let Some(until) = member("until") {
        text.push_str(&format!("\nIt will be allowed at {until}."));
    }
    if let Some(request) = member("request") {
        text.push_str(&format!("\n(request {request})"));
    }
    text
}
