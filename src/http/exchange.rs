//! What all handlers share: request ids, bodies with limits, deadlines, identities, and the answers to what is not there.
//!
//! In scope: the frame of a request. Out of scope: what it asks for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::caller::Accepts;
use super::listener::Peer;
use super::{App, problem};
use crate::policy::{Caller, Origin};
use crate::refusal::{Code, Refusal};
use crate::signer::Ask;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("claviger-deadline-ms");
/// Longest request id that is taken from a caller; longer ones, and other characters, could forge log lines.
const LONGEST_REQUEST_ID: usize = 64;
/// Random bytes of a request id that we make.
const REQUEST_ID_BYTES: usize = 12;
/// How much of a refused body is read and thrown away, in bytes: more than the largest batch, so that whoever sends too much by mistake
/// learns so; whoever sends without end is cut off.
const LARGEST_DISCARD: usize = 8 * 1024 * 1024;
/// How long the rest of a refused body may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Largest body of a single request, in bytes.
    pub body: usize,
    /// Largest body of a batch, in bytes.
    pub batch_body: usize,
    /// The longest a request may take.
    pub deadline: Duration,
}

/// The answer to a request, before it is dressed with its id.
pub(super) type Answer = Result<Response<Body>, Refusal>;

/// An authenticated request with its body.
pub(super) struct Exchange {
    pub(super) ask: Ask,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) query: Option<String>,
}

/// Runs a handler that needs an identity, and turns its refusal into a problem document.
pub(super) async fn identified<F, H>(app: App, request: Request, body_limit: usize, handle: H) -> Response<Body>
where
    F: Future<Output = Answer>,
    H: FnOnce(App, Exchange) -> F,
{
    let id = request_id(request.headers());
    let answer = match open(&app, request, &id, body_limit).await {
        Ok(exchange) => handle(app, exchange).await,
        Err((refusal, caller)) => {
            app.signer.count_refusal(&refusal, caller.as_deref().map(Caller::id));
            Err(refusal)
        }
    };
    dress(answer, &id)
}

/// Turns an answer into a response that carries the request id.
pub(super) fn dress(answer: Answer, id: &str) -> Response<Body> {
    let mut response = answer.unwrap_or_else(|refusal| problem::response(&refusal, id));
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

type Early = (Refusal, Option<Arc<Caller>>);

async fn open(app: &App, request: Request, id: &str, body_limit: usize) -> Result<Exchange, Early> {
    let started = app.clock.monotonic();
    let (parts, mut body) = request.into_parts();
    let opened = async {
        let not_ready = || (Refusal::new(Code::NotReady, "the listener did not say who the peer is"), None);
        let peer = parts.extensions.get::<Peer>().ok_or_else(not_ready)?;
        let accepts = parts.extensions.get::<Accepts>().copied().unwrap_or_default();
        let caller = app.callers.load().identify(accepts, peer, &parts.headers).map_err(|refusal| (refusal, None))?;
        let with_caller = |refusal| (refusal, Some(caller.clone()));
        let limit = deadline(&parts.headers, app.limits.deadline).map_err(with_caller)?;
        // A body that trickles in may not hold its slot for longer than the request may take.
        let late = |_| Refusal::new(Code::Malformed, "the body did not arrive within the deadline");
        let bytes = tokio::time::timeout(limit, read(&mut body, body_limit)).await.map_err(late).flatten().map_err(with_caller)?;
        Ok((peer, caller, started.plus(limit), bytes))
    };
    let opened = opened.await;
    if opened.is_err() {
        // Whether the rest came or not, the refusal is the answer.
        let _ = tokio::time::timeout(DISCARD_PATIENCE, discard(&mut body)).await;
    }
    let (peer, caller, deadline, body) = opened?;
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let origin = Origin { source_address: address(peer), user_agent: agent.map(str::to_owned) };
    let ask = Ask { caller: caller.clone(), origin, request: id.to_owned(), deadline, batch: false };
    Ok(Exchange { ask, headers: parts.headers, body, query: parts.uri.query().map(str::to_owned) })
}

/// Reads a body of at most `limit` bytes.
async fn read(body: &mut Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(Code::Malformed, "the body ended before it was whole"))?;
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > limit {
            return Err(Refusal::new(Code::TooLarge, format!("the body has more than {limit} bytes")));
        }
        read.extend_from_slice(data);
    }
    Ok(Bytes::from(read))
}

/// Throws away the rest of a refused body. A connection that is closed with bytes unread is reset, and a peer that is still sending would
/// lose the answer (RFC 9112 section 9.6).
async fn discard(body: &mut Body) {
    let mut discarded = 0;
    while discarded <= LARGEST_DISCARD
        && let Some(Ok(frame)) = body.frame().await
    {
        discarded += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn address(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix { .. } => None,
    }
}

fn deadline(headers: &HeaderMap, longest: Duration) -> Result<Duration, Refusal> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(longest) };
    let millis = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|millis| *millis > 0);
    let millis = millis.ok_or_else(|| Refusal::new(Code::Malformed, "Claviger-Deadline-Ms is not a positive number of milliseconds"))?;
    Ok(longest.min(Duration::from_millis(millis)))
}

/// The caller's own id if it is harmless, else a random one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let harmless = |id: &&str| (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    given.filter(harmless).map_or_else(random_id, str::to_owned)
}

fn random_id() -> String {
    use base64::Engine as _;
    let mut bytes = [0; REQUEST_ID_BYTES];
    // Without randomness the id is a row of zeros: requests go on, only their ids do not differ.
    let _ = getrandom::fill(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).replace('_', "-")
}

/// A JSON body with one reading only: strict text, an object, and the right content type.
pub(super) fn json_object(exchange: &Exchange) -> Result<Map<String, Value>, Refusal> {
    let kind = exchange.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(Code::UnsupportedMediaType, "send the request as application/json"));
    }
    let malformed = |what: String| Refusal::new(Code::Malformed, format!("the body is not a JSON object with one reading: {what}"));
    claviger_audit::json::check_request(&exchange.body).map_err(|defect| malformed(defect.to_string()))?;
    match serde_json::from_slice(&exchange.body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("it is another JSON value".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// A JSON answer that no cache keeps.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) async fn not_found(request: Request) -> Response<Body> {
    let refusal = Refusal::new(Code::NotFound, "nothing is served at this address");
    dress(Err(refusal), &request_id(request.headers()))
}

pub(super) async fn method_not_allowed(request: Request) -> Response<Body> {
    let refusal = Refusal::new(Code::MethodNotAllowed, "this address does not take this method");
    dress(Err(refusal), &request_id(request.headers()))
}
