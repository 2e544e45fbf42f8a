//! A fault proxy for HTTP/1.1: it stands between a client and a real server, forwards, and misbehaves where a rule says so.
//!
//! In scope: what an emulator or a healthy server never shows: refusals, throttling, delays, hangs, answers that are lost after the server did the
//! work, cut or outdated ones; and what was asked, for who wants to count. Out of scope: TLS: a connection is served over any stream, so
//! that an acceptor can stand before it; both sides are plain TCP on loopback here.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Which requests a rule is for: those that fit everything that is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Match {
    method: Option<Method>,
    path: Option<String>,
    headers: Vec<(HeaderName, String)>,
    body: Option<String>,
}

impl Match {
    /// Every request.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// Requests of an API whose operations are named by `x-amz-target`, such as `TrentService.Sign`; the name after the dot is enough.
    pub(crate) fn target(operation: &str) -> Self {
        Self::any().header("x-amz-target", operation)
    }

    /// Requests of this method.
    pub(crate) fn method(self, method: Method) -> Self {
        Self { method: Some(method), ..self }
    }

    /// Requests whose path starts so.
    pub(crate) fn path(self, prefix: &str) -> Self {
        Self { path: Some(prefix.to_owned()), ..self }
    }

    /// Requests with a header whose value ends so.
    pub(crate) fn header(mut self, name: &'static str, ends: &str) -> Self {
        self.headers.push((HeaderName::from_static(name), ends.to_owned()));
        self
    }

    /// Requests whose body has this text in it.
    pub(crate) fn body(self, text: &str) -> Self {
        Self { body: Some(text.to_owned()), ..self }
    }

    fn fits(&self, asked: &Asked) -> bool {
        let has = |(name, ends): &(HeaderName, String)| asked.header(name).is_some_and(|value| value.ends_with(ends.as_str()));
        self.method.as_ref().is_none_or(|method| *method == asked.method)
            && self.path.as_ref().is_none_or(|prefix| asked.path.starts_with(prefix.as_str()))
            && self.headers.iter().all(has)
            && self.body.as_ref().is_none_or(|text| String::from_utf8_lossy(&asked.body).contains(text.as_str()))
    }
}

/// A change of an answer.
pub(crate) type Edit = dyn Fn(&mut Response<Bytes>) + Send + Sync;

/// What is done with a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Forwards it: for rules that only count.
    Pass,
    /// Answers in the server's place, which never sees the request.
    Answer(Response<Bytes>),
    /// Forwards it after this long, or as soon as the rule is taken away.
    Delay(Duration),
    /// Takes the request and says nothing, until the rule is taken away; then the connection ends. The server never sees the request.
    Hang,
    /// Ends the connection; the server never sees the request.
    LoseRequest,
    /// Forwards the request, then ends the connection: the server did what was asked, and nobody hears of it.
    LoseAnswer,
    /// Forwards the request and gives the head of the answer and so many octets of its body; then the connection ends.
    CutAnswer(usize),
    /// Gives the answer that the very same request got when it came first, as a server does that has not heard of a change yet.
    Older,
    /// Forwards the request and changes the answer.
    Edit(Arc<Edit>),
}

/// A request that came in, as far as rules and tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// With the query, if there is one.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The operation that `x-amz-target` names.
    pub(crate) fn operation(&self) -> Option<&str> {
        let target = self.header(&HeaderName::from_static("x-amz-target"))?;
        Some(target.rsplit_once('.').map_or(target, |(_, operation)| operation))
    }
}

/// A rule that was added. It is in force until it is [taken away](Proxy::remove) or has acted as often as it may.
#[derive(Clone)]
pub(crate) struct Rule {
    matching: Match,
    act: Act,
    /// How many requests that fit are let pass first.
    skip: u64,
    /// On how many it acts after that.
    times: u64,
    fitted: Arc<AtomicU64>,
    /// Turns true when the rule is taken away: whoever hangs is let go.
    over: watch::Sender<bool>,
}

impl Rule {
    /// Does this with every request that fits.
    pub(crate) fn new(matching: Match, act: Act) -> Self {
        Self { matching, act, skip: 0, times: u64::MAX, fitted: Arc::default(), over: watch::Sender::new(false) }
    }

    /// Answers every request that fits.
    pub(crate) fn answer(matching: Match, status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let answer = Response::builder().status(status).header(header::CONTENT_TYPE, content_type).body(body.into());
        Self::new(matching, Act::Answer(answer.expect("a response")))
    }

    /// Answers every request that fits with an error as AWS's JSON protocols write it.
    pub(crate) fn aws_error(matching: Match, status: u16, code: &str, message: &str) -> Self {
        Self::answer(matching, status, "application/x-amz-json-1.1", format!("{{\"__type\":\"{code}\",\"message\":\"{message}\"}}"))
    }

    /// Lets so many requests pass first.
    pub(crate) fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Acts on so many requests, then never again.
    pub(crate) fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// On how many requests it has acted.
    pub(crate) fn acted(&self) -> u64 {
        self.fitted.load(Ordering::Acquire).saturating_sub(self.skip).min(self.times)
    }

    /// Whether it acts on this request; counts it.
    fn takes(&self, asked: &Asked) -> bool {
        if !self.matching.fits(asked) {
            return false;
        }
        let before = self.fitted.fetch_add(1, Ordering::AcqRel);
        before >= self.skip && before - self.skip < self.times
    }

    /// Waits until the rule is taken away.
    async fn is_over(&self) {
        // The sender lives in `self`, so that the wait ends by a change alone.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped with the proxy: that ends its thread.
    _stop: oneshot::Sender<()>,
}

struct Shared {
    upstream: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Asked>>,
    /// The first answer to each request, by everything that makes a request.
    first: Mutex<HashMap<String, Response<Bytes>>>,
}

impl Proxy {
    /// Starts one on a free port of loopback, in front of a server.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared { upstream, rules: Mutex::default(), asked: Mutex::default(), first: Mutex::default() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of our own");
        let address = listener.local_addr().expect("it is bound");
        let (serving, (stop, stopped)) = (shared.clone(), oneshot::channel());
        // A runtime on a thread of its own, so that a test may use the proxy within one.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket of our own");
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, _stop: stop }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule. Of several that fit a request, the one that was added last acts.
    pub(crate) fn add(&self, rule: Rule) -> Rule {
        lock(&self.shared.rules).push(rule.clone());
        rule
    }

    /// Takes a rule away; requests that it holds are let go.
    pub(crate) fn remove(&self, rule: &Rule) {
        lock(&self.shared.rules).retain(|other| !Arc::ptr_eq(&other.fitted, &rule.fitted));
        rule.over.send_replace(true);
    }

    /// Takes all rules away.
    pub(crate) fn clear(&self) {
        for rule in lock(&self.shared.rules).drain(..) {
            rule.over.send_replace(true);
        }
    }

    /// Every request so far, in the order in which they came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    // A connection that ends early is what some rules are for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Ends the connection without another octet.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends here, as a rule says")]
struct Ended;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Said>, Ended> {
    let (Parts { method, uri, headers, .. }, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Ended)?.to_bytes();
    let path = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
    let asked = Asked { method, path, headers, body };
    lock(&shared.asked).push(asked.clone());

    // The newest rule comes first; those behind it do not count a request that they never see.
    let rule = lock(&shared.rules).iter().rev().find(|rule| rule.takes(&asked)).cloned();
    let Some(rule) = rule else { return shared.forward(&asked).await.map(whole) };
    match &rule.act {
        Act::Pass => shared.forward(&asked).await.map(whole),
        Act::Answer(answer) => Ok(whole(answer.clone())),
        Act::Delay(span) => {
            let _ = timeout(*span, rule.is_over()).await;
            shared.forward(&asked).await.map(whole)
        }
        Act::Hang => {
            rule.is_over().await;
            Err(Ended)
        }
        Act::LoseRequest => Err(Ended),
        Act::LoseAnswer => shared.forward(&asked).await.and(Err(Ended)),
        Act::CutAnswer(octets) => Ok(shared.forward(&asked).await?.map(|body| Said::cut(&body, *octets))),
        Act::Older => {
            let first = lock(&shared.first).get(&identity(&asked)).cloned();
            match first {
                Some(first) => Ok(whole(first)),
                None => shared.forward(&asked).await.map(whole),
            }
        }
        Act::Edit(edit) => {
            let mut answer = shared.forward(&asked).await?;
            edit(&mut answer);
            Ok(whole(answer))
        }
    }
}

/// What makes two requests the same: not when, nor by whom they were signed.
fn identity(asked: &Asked) -> String {
    format!("{} {} {:?} {}", asked.method, asked.path, asked.operation(), String::from_utf8_lossy(&asked.body))
}

impl Shared {
    /// The server's answer, to a connection of its own. A server that is away ends the client's connection, too.
    async fn forward(&self, asked: &Asked) -> Result<Response<Bytes>, Ended> {
        let mut request = Request::builder().method(asked.method.clone()).uri(&asked.path);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&asked.headers);
            remove_hops(headers);
        }
        let request = request.body(Full::new(asked.body.clone())).map_err(|_| Ended)?;
        let stream = TcpStream::connect(self.upstream).await.map_err(|_| Ended)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Ended)?;
        tokio::spawn(connection);
        let (mut head, body) = sender.send_request(request).await.map_err(|_| Ended)?.into_parts();
        let body = body.collect().await.map_err(|_| Ended)?.to_bytes();
        remove_hops(&mut head.headers);
        let answer = Response::from_parts(head, body);
        lock(&self.first).entry(identity(asked)).or_insert_with(|| answer.clone());
        Ok(answer)
    }
}

/// What belongs to one connection, and lengths, which are counted anew (RFC 9110 section 7.6.1).
fn remove_hops(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::UPGRADE, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
}

fn whole(answer: Response<Bytes>) -> Response<Said> {
    answer.map(|body| Said { length: body.len(), part: Some(body), ends_well: true, sent: false })
}

/// The body of an answer, or the beginning of one.
struct Said {
    part: Option<Bytes>,
    /// What the head says.
    length: usize,
    ends_well: bool,
    /// Whether the connection had a turn to send what came before the end.
    sent: bool,
}

impl Said {
    fn cut(body: &Bytes, octets: usize) -> Self {
        let part = body.slice(..octets.min(body.len().saturating_sub(1)));
        Self { part: Some(part), length: body.len(), ends_well: false, sent: false }
    }
}

impl Body for Said {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        if let Some(part) = self.part.take() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        if self.ends_well {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.sent, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Ended)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
