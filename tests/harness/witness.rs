//! A witness that follows C2SP tlog-witness: a real server on loopback that keeps state, checks proofs and signs cosignatures.
//!
//! In scope: `add-checkpoint` with every answer of the specification, and the ways in which a witness can be bad. Out of scope: persistence: a
//! witness lives as long as its test, and longer than any daemon.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Hash, verify_consistency};
use claviger_audit::note::{Note, VerifierKey};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How a witness behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    /// As the specification says.
    Honest,
    /// Takes requests and never answers, until its temper changes.
    Hanging,
    /// Signs something else than it was given.
    Lying,
    /// Says that every proof is wrong.
    Refusing,
    /// Says that it knows this many records.
    Claiming(u64),
}

/// One request that came in, and what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) origin: String,
    pub(crate) old: u64,
    pub(crate) size: u64,
    pub(crate) proof: usize,
    pub(crate) status: u16,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, VerifierKey>,
    /// What was cosigned last, by origin.
    known: HashMap<String, (u64, Hash)>,
    heard: Vec<Heard>,
}

struct Shared {
    key: VerifierKey,
    pair: Ed25519KeyPair,
    temper: watch::Sender<Temper>,
    state: Mutex<State>,
}

/// A running witness.
pub(crate) struct Witness {
    pub(crate) name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Witness {
    /// Starts one on a free port. It knows no log yet.
    pub(crate) fn start(name: &str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes");
        let key = cosigner_key(&format!("{name}.example/witness"), &pair);
        let shared = Arc::new(Shared { key, pair, temper: watch::Sender::new(Temper::Honest), state: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                let service = service_fn(move |request| answer(shared.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { name: name.to_owned(), address, shared, _runtime: runtime }
    }

    /// Its line in a C2SP tlog-policy.
    pub(crate) fn line(&self) -> String {
        format!("witness {} {} http://{}/w/\n", self.name, self.shared.key, self.address)
    }

    /// Its verifier key.
    pub(crate) fn key(&self) -> &VerifierKey {
        &self.shared.key
    }

    /// Makes it trust the logs of these verifier keys, named by their origins.
    pub(crate) fn trust(&self, keys: &[VerifierKey]) {
        self.shared.lock().keys.extend(keys.iter().map(|key| (key.name().to_owned(), key.clone())));
    }

    /// Changes how it behaves; whoever hangs is answered.
    pub(crate) fn set(&self, temper: Temper) {
        self.shared.temper.send_replace(temper);
    }

    /// The size that it cosigned last for the log whose origin ends so.
    pub(crate) fn size(&self, origin: &str) -> u64 {
        self.shared.lock().known.iter().find(|(name, _)| name.ends_with(origin)).map_or(0, |(_, (size, _))| *size)
    }

    /// All that it cosigned, to be put back later as a witness's own lost state would be.
    pub(crate) fn memory(&self) -> HashMap<String, (u64, Hash)> {
        self.shared.lock().known.clone()
    }

    /// Puts a memory back.
    pub(crate) fn remember(&self, memory: HashMap<String, (u64, Hash)>) {
        self.shared.lock().known = memory;
    }

    /// Every request so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.lock().heard.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cosigner_key(name: &str, pair: &Ed25519KeyPair) -> VerifierKey {
    let key = [&[0x04], pair.public_key().as_ref()].concat();
    let id = Hash::digest(&[name.as_bytes(), b"\n", &key].concat()).to_string();
    format!("{name}+{}+{}", &id[..8], STANDARD.encode(&key)).parse().expect("a cosigner's key")
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    // The sender lives in `shared`, so that the wait ends by a change alone.
    let _ = shared.temper.subscribe().wait_for(|temper| *temper != Temper::Hanging).await;
    let (status, kind, text) = if path == "/w/add-checkpoint" { judge(&shared, &body) } else { (404, "text/plain", String::new()) };
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(Full::new(Bytes::from(text)));
    Ok(response.expect("a response"))
}

type Said = (u16, &'static str, String);

fn plain(status: u16, text: &str) -> Said {
    (status, "text/plain; charset=utf-8", text.to_owned())
}

/// The checks of the specification, in its order.
fn judge(shared: &Shared, body: &[u8]) -> Said {
    let Some((old, proof, note)) = parse(body) else { return plain(400, "not a request\n") };
    let Ok(claimed) = note.text().parse::<Checkpoint>() else { return plain(400, "not a checkpoint\n") };
    let mut state = shared.lock();
    let said = decide(shared, &mut state, &claimed, (old, &proof), &note);
    let heard = Heard { origin: claimed.origin, old, size: claimed.size, proof: proof.len(), status: said.0 };
    state.heard.push(heard);
    said
}

fn decide(shared: &Shared, state: &mut State, claimed: &Checkpoint, (old, proof): (u64, &[Hash]), note: &Note) -> Said {
    let temper = *shared.temper.borrow();
    let Some(key) = state.keys.get(&claimed.origin) else { return plain(404, "an unknown log\n") };
    if Checkpoint::from_note(note, &claimed.origin, std::slice::from_ref(key)).is_err() {
        return plain(403, "not signed by the log\n");
    }
    if old > claimed.size {
        return plain(400, "the old size is larger\n");
    }
    let (size, root) = state.known.get(&claimed.origin).copied().unwrap_or((0, Hash::EMPTY_ROOT));
    let size = if let Temper::Claiming(size) = temper { size } else { size };
    if old != size {
        return (409, "text/x.tlog.size", format!("{size}\n"));
    }
    let proved = verify_consistency(old, &root, claimed.size, &claimed.root, proof);
    if temper == Temper::Refusing || proved.is_err() {
        return plain(422, "the proof does not verify\n");
    }
    let text = if temper == Temper::Lying { note.text().replace('\n', "\n\n") } else { note.text().to_owned() };
    if temper != Temper::Lying {
        state.known.insert(claimed.origin.clone(), (claimed.size, claimed.root));
    }
    plain(200, &cosign(shared, &text, claimed.size))
}

fn parse(body: &[u8]) -> Option<(u64, Vec<Hash>, Note)> {
    let text = std::str::from_utf8(body).ok()?;
    let (head, note) = text.split_once("\n\n")?;
    let mut lines = head.lines();
    let old = lines.next()?.strip_prefix("old ")?.parse().ok()?;
    let hash = |line: &str| Some(Hash::from_bytes(STANDARD.decode(line).ok()?.try_into().ok()?));
    let proof: Vec<Hash> = lines.map(hash).collect::<Option<_>>()?;
    (proof.len() <= 63).then_some((old, proof, Note::parse(note.as_bytes()).ok()?))
}

/// A witness's time only needs to be one; no test depends on it.
const EPOCH: u64 = 1_800_000_000;

fn cosign(shared: &Shared, text: &str, size: u64) -> String {
    let time = EPOCH + size;
    let signature = shared.pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let bytes = [shared.key.id().as_bytes(), time.to_be_bytes().as_slice(), signature.as_ref()].concat();
    format!("\u{2014} {} {}\n", shared.key.name(), STANDARD.encode(bytes))
}
