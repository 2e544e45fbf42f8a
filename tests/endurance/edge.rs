//! The shared cache that stands between the daemon and its verifiers: one URL that outlives every run of the daemon.
//!
//! In scope: what a content delivery network does with the set, by RFC 9111 (fresh for `max-age`) and RFC 5861 section 4 (stale if the daemon
//! does not answer). Out of scope: any other path, and changing a byte of the set.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use claviger::clock::{Clock as _, Monotonic, SystemClock};

use crate::harness::{Address, Client};

/// The path of the set, here and at the daemon.
pub(crate) const SET: &str = "/.well-known/jwks.json";

/// A running cache.
pub(crate) struct Edge {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

struct Shared {
    clock: SystemClock,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the daemon answers, while there is one.
    daemon: Option<Address>,
    /// Whether this daemon's set was fetched.
    refreshed: bool,
    kept: Option<Kept>,
    /// How long after its freshness the oldest set was handed out.
    most_stale: Duration,
}

struct Kept {
    body: Vec<u8>,
    /// When it was asked for: its age counts from here.
    asked: Monotonic,
    fresh_for: Duration,
}

impl Edge {
    /// Starts one on a free port; it knows no daemon yet.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared { clock: SystemClock::start(), stop: AtomicBool::new(false), state: Mutex::default() });
        let serving = Arc::clone(&shared);
        let server = spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stop.load(Ordering::SeqCst) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A verifier that went away in the middle of an answer is no concern of the cache.
                spawn(move || serving.answer(&stream).unwrap_or_default());
            }
        });
        Self { address, shared, server: Some(server) }
    }

    /// The URL of the set.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{SET}", self.address)
    }

    /// Says where the daemon answers from now on; `None` while there is none.
    pub(crate) fn point(&self, daemon: Option<Address>) {
        self.shared.with_state(|state| {
            state.refreshed = false;
            state.daemon = daemon;
        });
    }

    /// Whether the set of the daemon of now was fetched.
    pub(crate) fn is_refreshed(&self) -> bool {
        self.shared.with_state(|state| state.refreshed)
    }

    /// How long after its freshness the oldest set was handed out.
    pub(crate) fn most_stale(&self) -> Duration {
        self.shared.with_state(|state| state.most_stale)
    }
}

impl Shared {
    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One request, one answer, and the connection ends.
    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut request = BufReader::new(stream).lines();
        while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let body = self.with_state(|state| state.body(&self.clock));
        let status = if body.is_some() { "200 OK" } else { "502 Bad Gateway" };
        let body = body.unwrap_or_default();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat())
    }
}

impl State {
    /// The kept set while it is fresh; else the daemon's; else the kept one, however stale.
    fn body(&mut self, clock: &SystemClock) -> Option<Vec<u8>> {
        let now = clock.monotonic();
        if let Some(kept) = self.kept.as_ref().filter(|kept| now.since(kept.asked) < kept.fresh_for) {
            return Some(kept.body.clone());
        }
        if let Some(fetched) = self.daemon.clone().and_then(|daemon| fetch(daemon, now)) {
            self.refreshed = true;
            self.kept = Some(fetched);
        } else if let Some(kept) = &self.kept {
            self.most_stale = self.most_stale.max(now.since(kept.asked.plus(kept.fresh_for)));
        }
        self.kept.as_ref().map(|kept| kept.body.clone())
    }
}

fn fetch(daemon: Address, asked: Monotonic) -> Option<Kept> {
    let answer = Client::new(daemon).try_get(SET).ok().filter(|answer| answer.status == 200)?;
    let seconds = answer.header("cache-control").split("max-age=").nth(1)?.split(',').next()?.trim().parse().ok()?;
    Some(Kept { body: answer.body, asked, fresh_for: Duration::from_secs(seconds) })
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the server, which looks at the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

#[test]
fn a_set_is_handed_out_while_it_is_fresh_and_however_stale_while_no_daemon_answers() {
    let clock = SystemClock::start();
    let (long, now) = (Duration::from_secs(60), clock.monotonic());
    // Nobody has listened there since the listener went.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut state = State { daemon: Some(Address::Tcp(gone)), ..State::default() };
    assert_eq!(state.body(&clock), None);
    let body = b"{}".to_vec();
    state.kept = Some(Kept { body: body.clone(), asked: now, fresh_for: long });
    assert_eq!((state.body(&clock), state.most_stale), (Some(body.clone()), Duration::ZERO));
    state.kept = Some(Kept { body: body.clone(), asked: now, fresh_for: Duration::ZERO });
    assert_eq!((state.body(&clock), state.most_stale > Duration::ZERO), (Some(body), true));
    assert!(!state.refreshed);
}
