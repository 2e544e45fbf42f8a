//! What the tests share: a clock that is set by hand, a log key, and drafts.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use claviger_audit::event::{DaemonStart, DaemonStop, Event, LogCreated, LogKeyRotated, LogKind, Sign, SignDenied};
use claviger_audit::jwk::PublicKey;
use claviger_audit::merkle::Hash;
use claviger_audit::note::VerifierKey;
use claviger_audit::record::{Asked, Record};
use claviger_audit::{Algorithm, Timestamp};

use super::fake::FakeDisk;
use crate::clock::{Clock, Monotonic};
use crate::journal::disk::Disk;
use crate::journal::{Draft, KeyLog, LogKey, Opened, Opening, SignNote, Signers, UseLog, create};

/// A clock that stands until it is moved; both of its clocks move together.
pub(super) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(super) fn start() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000_000)))
    }

    pub(super) fn pass(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::at(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

pub(super) const ORIGIN: &str = "test.example/claviger/keys";
pub(super) const USES_ORIGIN: &str = "test.example/claviger/uses/n1";

/// The size of a small segment.
pub(super) const SMALL: u64 = 1200;

/// The log key that `created` names, and where it is.
pub(super) const FIRST_KEY: u8 = 7;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub(super) fn verifier_key(origin: &str) -> VerifierKey {
    verifier_key_of(FIRST_KEY, origin)
}

pub(super) fn verifier_key_of(seed: u8, origin: &str) -> VerifierKey {
    VerifierKey::from_jwk(origin, &PublicKey::from_ed25519(pair(seed).public_key().as_ref().try_into().unwrap())).unwrap()
}

/// A keystore that signs, with the key whose locator names its seed.
pub(super) fn signer() -> Signers {
    Arc::new(|key: &LogKey| {
        let seed = key.locator.parse().unwrap();
        Arc::new(move |text: Vec<u8>| Box::pin(async move { Ok(pair(seed).sign(&text).as_ref().to_vec()) }) as _)
    })
}

/// A keystore that is dead while the flag is set.
pub(super) fn failing_signer(dead: Arc<Mutex<bool>>) -> Signers {
    only_some(move |_| !*dead.lock().unwrap())
}

/// A keystore that signs with the keys that answer.
pub(super) fn only_some(answers: impl Fn(u8) -> bool + Send + Sync + 'static) -> Signers {
    let answers = Arc::new(answers);
    Arc::new(move |key: &LogKey| {
        let (answers, seed, sign) = (Arc::clone(&answers), key.locator.parse().unwrap(), signer()(key));
        let sign: SignNote = Arc::new(move |text| if answers(seed) { sign(text) } else { Box::pin(async { Err("no answer".to_owned()) }) });
        sign
    })
}

pub(super) fn opening(kind: LogKind, folder: &Path, clock: &Arc<ManualClock>) -> Opening {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    Opening::local(kind, folder.join(kind.name()), clock, "n1".to_owned(), "b00t".to_owned())
}

pub(super) fn on_disk(disk: Arc<dyn Disk>, kind: LogKind, folder: &Path, clock: &Arc<ManualClock>) -> Opening {
    Opening { disk, ..opening(kind, folder, clock) }
}

/// On a fake disk, with segments so small that two or three records roll them.
pub(super) fn in_small_segments(disk: &FakeDisk, kind: LogKind, clock: &Arc<ManualClock>) -> Opening {
    Opening { segment_bytes: SMALL, ..on_disk(Arc::new(disk.clone()), kind, Path::new("/log"), clock) }
}

pub(super) fn created(kind: LogKind) -> LogCreated {
    let origin = if kind == LogKind::Keys { ORIGIN } else { USES_ORIGIN };
    LogCreated {
        origin: origin.to_owned(),
        key: verifier_key(origin).to_string(),
        keystore: "soft".to_owned(),
        locator: FIRST_KEY.to_string(),
        installation: "test".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

/// The hand-over from one key to another.
pub(super) fn key_rotated(origin: &str, old: u8, new: u8) -> Event {
    let [old, new_key] = [old, new].map(|seed| verifier_key_of(seed, origin).to_string());
    Event::LogKeyRotated(LogKeyRotated { old, new: new_key, keystore: "soft".to_owned(), locator: new.to_string() })
}

pub(super) fn make(opening: &Opening, kind: LogKind) {
    create(opening, kind, Asked::default(), created(kind)).unwrap();
}

/// Both logs, made and opened.
pub(super) struct Logs {
    pub(super) clock: Arc<ManualClock>,
    pub(super) keys: Opened<KeyLog>,
    pub(super) uses: Opened<UseLog>,
}

pub(super) fn both(folder: &Path) -> Logs {
    let clock = ManualClock::start();
    make(&opening(LogKind::Keys, folder, &clock), LogKind::Keys);
    make(&opening(LogKind::Uses, folder, &clock), LogKind::Uses);
    reopen(folder, clock)
}

pub(super) fn reopen(folder: &Path, clock: Arc<ManualClock>) -> Logs {
    let keys = KeyLog::open(&opening(LogKind::Keys, folder, &clock)).unwrap();
    let uses = UseLog::open(&opening(LogKind::Uses, folder, &clock), keys.log.clone()).unwrap();
    Logs { clock, keys, uses }
}

pub(super) fn denied(code: &str) -> Draft {
    let event = Event::SignDenied(SignDenied { keyring: "api".to_owned(), code: code.to_string(), reason: None });
    Draft { asked: Asked { caller: Some("spiffe://test/a".to_owned()), ..Asked::default() }, event }
}

/// A signature for a token that expires then.
pub(super) fn signed(kid: &str, exp: Timestamp) -> Draft {
    let event = Event::Sign(Sign {
        keyring: "api".to_owned(),
        kid: kid.to_owned(),
        alg: Algorithm::ES256,
        input: Hash::digest(b"input"),
        typ: None,
        jti: None,
        subject: None,
        iat: None,
        exp: exp.seconds(),
        size: 1,
        policy: Vec::new(),
        backend_request: None,
    });
    Draft { asked: Asked::default(), event }
}

pub(super) fn started() -> Event {
    Event::DaemonStart(DaemonStart { version: "0.1.0".to_owned(), unclean: false, in_flight: 0 })
}

pub(super) fn stopped(reason: &str) -> Event {
    Event::DaemonStop(DaemonStop { reason: reason.to_owned() })
}

/// Waits until the log has `size` records; it is an error if the log dies first.
pub(super) async fn until(log: &UseLog, size: u64) {
    let mut changed = log.changed();
    changed.wait_for(|now| *now >= size || log.poisoned().is_some()).await.unwrap();
    assert_eq!(log.poisoned(), None);
}

/// Every record of the lines in `bytes`.
pub(super) fn records(bytes: &[u8]) -> Vec<Record> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| Record::parse(line.strip_suffix(b"\n").unwrap()).unwrap()).collect()
}
