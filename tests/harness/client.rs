//! A small HTTP/1.1 client over TCP and Unix sockets, one kept connection each; blocking, so that a test's threads are its clients.
//!
//! In scope: one request at a time, the answer whole. Out of scope: retries: a lost connection is an error, and the next request opens another.
//! A connection that has rested is not used again: a daemon closes idle ones, perhaps at this moment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use claviger::clock::{Clock as _, Monotonic, SystemClock};
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Longer than any deadline of the daemon: a request that hangs fails the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a connection may have rested to be used again; the daemon closes one after 10 s, unless it is told otherwise.
const RESTED: Duration = Duration::from_secs(2);

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The JSON of an answer that must be 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The `code` of an answer that must be a problem with this status.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        self.json()["code"].as_str().expect("a problem has a code").to_owned()
    }
}

/// One client with one connection.
pub(crate) struct Client {
    address: Address,
    bearer: Option<String>,
    runtime: Runtime,
    clock: SystemClock,
    /// The connection, and when the last answer came on it.
    connection: Option<(SendRequest<Full<Bytes>>, Monotonic)>,
}

impl Client {
    /// A client of this address; it connects with its first request.
    pub(crate) fn new(address: Address) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { address, bearer: None, runtime, clock: SystemClock::start(), connection: None }
    }

    /// With a bearer token.
    pub(crate) fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// GET; panics if no answer comes.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// GET.
    pub(crate) fn try_get(&mut self, path: &str) -> Result<Answer, String> {
        self.send(self.request(Method::GET, path).body(Full::default()).expect("a request"))
    }

    /// POST of JSON; panics if no answer comes.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// POST of JSON.
    pub(crate) fn try_post(&mut self, path: &str, body: &Value) -> Result<Answer, String> {
        self.try_post_bytes(path, "application/json", body.to_string().into_bytes())
    }

    /// POST of any bytes.
    pub(crate) fn try_post_bytes(&mut self, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, String> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, kind);
        self.send(request.body(Full::new(Bytes::from(body))).expect("a request"))
    }

    /// Asks for one token of a `jwt` keyring with ordinary claims.
    pub(crate) fn sign(&mut self, keyring: &str) -> Result<Answer, String> {
        let claims = json!({ "sub": "user-1", "aud": super::setup::AUDIENCE });
        self.try_post("/sign", &json!({ "keyring": keyring, "claims": claims }))
    }

    /// Starts a request with this client's identity, for tests that set headers of their own; [`Client::send`] sends it.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "claviger");
        match &self.bearer {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let now = self.clock.monotonic();
        let fresh = |(connection, last): (SendRequest<_>, Monotonic)| (now.since(last) < RESTED).then_some(connection);
        let (address, kept) = (self.address.clone(), self.connection.take().and_then(fresh));
        let exchange = async move {
            let mut connection = match kept {
                Some(connection) if !connection.is_closed() => connection,
                _ => connect(&address).await?,
            };
            connection.ready().await.map_err(|error| error.to_string())?;
            let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
            Ok((connection, Answer { status: head.status.as_u16(), headers: head.headers, body }))
        };
        let bounded = async { tokio::time::timeout(PATIENCE, exchange).await };
        let (connection, answer) = self.runtime.block_on(bounded).map_err(|_| "no answer in time".to_owned()).flatten()?;
        self.connection = Some((connection, self.clock.monotonic()));
        Ok(answer)
    }
}

async fn connect(address: &Address) -> Result<SendRequest<Full<Bytes>>, String> {
    let failed = |error: std::io::Error| format!("cannot connect to {address:?}: {error}");
    match address {
        Address::Tcp(address) => open(TcpStream::connect(address).await.map_err(failed)?).await,
        Address::Unix(path) => open(UnixStream::connect(path).await.map_err(failed)?).await,
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender; its error reaches the request.
    tokio::spawn(connection);
    Ok(sender)
}
