//! A key log and a use log of a million signatures, made without a daemon, and what signs for them.
//!
//! In scope: legal records of the size and variety that a busy issuer writes, in segments of the usual size. Out of scope: checkpoints of the
//! use log, which the journal makes itself (`start`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use claviger::journal::SEGMENT_BYTES;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::{
    Event, KeyCreated, KeyPublished, KeyRequested, KeyRotated, KeyringCreated, KeyringTiming, KeysSeen, LogCreated, LogKind, LogSegment,
    RotationReason, Sign,
};
use claviger_audit::jwk::PublicKey;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::{Frontier, Hash, SegmentHasher};
use claviger_audit::names::KeyName;
use claviger_audit::note::{VerifierKey, signed_note};
use claviger_audit::record::{Asked, Record};
use claviger_audit::{Algorithm, Timestamp};

use crate::{Outcome, folder_of, settings};

/// The node of the use log.
pub(crate) const NODE: &str = "a";
const KEYRING: &str = "access-tokens";
/// How long before now the first record was written: longer than a million signatures take.
const AGO: Duration = Duration::from_hours(2);
/// Signatures in a millisecond.
const PER_MILLISECOND: u64 = 4;

/// How large the use log is.
pub(crate) struct Made {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// Segments.
    pub(crate) segments: usize,
}

/// The key of a log: this one signs nothing but the checkpoints of this bench.
pub(crate) fn log_key(kind: LogKind) -> Outcome<Ed25519KeyPair> {
    let seed = if kind == LogKind::Keys { 7 } else { 8 };
    Ok(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).map_err(|_| "a seed has 32 bytes")?)
}

/// The verifier key of a log in its text form.
pub(crate) fn verifier_key(kind: LogKind) -> Outcome<VerifierKey> {
    let public = PublicKey::from_ed25519(log_key(kind)?.public_key().as_ref().try_into()?);
    Ok(VerifierKey::from_jwk(&origin(kind), &public)?)
}

/// The origin of a log.
pub(crate) fn origin(kind: LogKind) -> String {
    format!("localhost/claviger/{}", kind.name())
}

/// The first record of a log.
pub(crate) fn created(kind: LogKind) -> Outcome<LogCreated> {
    let text = |text: &str| text.to_owned();
    let key = verifier_key(kind)?.to_string();
    Ok(LogCreated {
        origin: origin(kind),
        key,
        keystore: text("hsm"),
        locator: text("01"),
        installation: text("bench"),
        version: text("0"),
    })
}

/// A signature as an issuer of access tokens records it; `number` varies what varies.
pub(crate) fn sign(number: u64, time: Timestamp, kid: &str, size: u64) -> (Asked, Event) {
    let pseudonym = |of: &str| Some(format!("hmac-2026:{}", &Hash::digest(format!("{of}{}", number % 1000).as_bytes()).to_string()[..22]));
    let event = Sign {
        keyring: KEYRING.to_owned(),
        kid: kid.to_owned(),
        alg: Algorithm::EdDSA,
        input: Hash::digest(&number.to_be_bytes()),
        typ: Some("at+jwt".to_owned()),
        jti: Some(Hash::digest(&number.to_le_bytes())),
        subject: None,
        iat: Some(time.seconds()),
        exp: time.seconds() + 900,
        size,
        policy: vec!["issuers-sign".to_owned()],
        backend_request: None,
    };
    let request = Hash::digest(format!("request {number}").as_bytes()).to_string()[..16].to_owned();
    let caller = Some(format!("token:issuer-{}", number % 17));
    (Asked { caller, src: pseudonym("src"), agent: pseudonym("agent"), request: Some(request) }, Event::Sign(event))
}

/// Makes both logs in `folder`, a key log with one active key and a use log of `signatures`.
pub(crate) fn make(folder: &Path, now: Timestamp, signatures: u64) -> Outcome<Made> {
    let begin = now - AGO;
    let mut keys = Writer::create(LogKind::Keys, folder, begin)?;
    let kid = key_events(&mut keys, begin)?;
    keys.checkpoint()?;
    let size = keys.frontier.size();
    let mut uses = Writer::create(LogKind::Uses, folder, begin)?;
    uses.append(begin, (Asked::default(), Event::KeysSeen(KeysSeen { size, leaf: keys.prev })))?;
    for number in 0..signatures {
        let time = begin + Duration::from_millis(number / PER_MILLISECOND);
        uses.append(time, sign(number, time, &kid, size))?;
    }
    uses.file.flush()?;
    Ok(Made { records: uses.frontier.size(), bytes: uses.bytes, segments: uses.segments })
}

/// A keyring and its first key, active: the kid.
fn key_events(keys: &mut Writer, time: Timestamp) -> Outcome<String> {
    let jwk = PublicKey::from_ed25519(&[9; 32]);
    let (kid, key) = (jwk.thumbprint(), KeyName::new("bench", KEYRING, 1, 1)?);
    let (keyring, keystore) = (|| KEYRING.to_owned(), || "hsm".to_owned());
    let (algorithm, timing) = (Algorithm::EdDSA, settings::timing());
    let events = [
        Event::KeyringCreated(KeyringCreated { keyring: keyring(), ..settings::keyring() }),
        Event::KeyringTiming(KeyringTiming { keyring: keyring(), timing }),
        Event::KeyRequested(KeyRequested { key: key.clone(), keyring: keyring(), keystore: keystore(), algorithm }),
        Event::KeyCreated(KeyCreated {
            key,
            kid: kid.clone(),
            jwk,
            locator: "02".to_owned(),
            attributes: BTreeMap::new(),
            backend_request: None,
            self_test: None,
        }),
        Event::KeyPublished(KeyPublished { kid: kid.clone(), earliest_activation: time + timing.lead(), timing: 2 }),
        Event::KeyRotated(KeyRotated {
            keyring: keyring(),
            from: None,
            to: kid.clone(),
            reason: RotationReason::Bootstrap,
            forced: false,
            note: None,
            withdraw_after: None,
            next_rotation: time + Duration::from_millis(timing.rotate_every_ms),
            timing: 2,
        }),
    ];
    for event in events {
        keys.append(time, (Asked::default(), event))?;
    }
    Ok(kid)
}

/// A log that is being written, segment by segment.
struct Writer {
    kind: LogKind,
    folder: PathBuf,
    file: BufWriter<File>,
    hasher: SegmentHasher,
    in_segment: u64,
    bytes: u64,
    segments: usize,
    prev: Hash,
    frontier: Frontier,
    /// Checks that what the key log says is legal.
    keyrings: Keyrings,
}

impl Writer {
    fn create(kind: LogKind, folder: &Path, time: Timestamp) -> Outcome<Self> {
        let folder = folder_of(folder, kind);
        fs::create_dir_all(&folder)?;
        let first = created(kind)?;
        let (file, prev) = (segment(&folder, 0)?, genesis_prev(&first.origin, &first.key));
        let mut log = Self {
            kind,
            folder,
            file,
            hasher: SegmentHasher::default(),
            in_segment: 0,
            bytes: 0,
            segments: 1,
            prev,
            frontier: Frontier::new(),
            keyrings: Keyrings::default(),
        };
        log.append(time, (Asked::default(), Event::LogCreated(first)))?;
        Ok(log)
    }

    fn append(&mut self, time: Timestamp, (asked, event): (Asked, Event)) -> Outcome<()> {
        if self.in_segment >= SEGMENT_BYTES {
            self.roll(time)?;
        }
        let seq = self.frontier.size();
        let (node, boot) = (NODE.to_owned(), "5f0c8a1be2d94c77".to_owned());
        let record = Record { log: self.kind, seq, time, prev: self.prev, durable: seq, node, boot, asked, event };
        if self.kind == LogKind::Keys {
            self.keyrings.apply(&record)?;
        }
        let line = record.to_line()?;
        self.file.write_all(&line)?;
        self.file.write_all(b"\n")?;
        self.prev = self.hasher.line(&line);
        self.frontier.push(self.prev);
        self.in_segment += line.len() as u64 + 1;
        self.bytes += line.len() as u64 + 1;
        Ok(())
    }

    fn roll(&mut self, time: Timestamp) -> Outcome<()> {
        self.file.flush()?;
        let (size, sha256) = std::mem::take(&mut self.hasher).finish();
        self.file = segment(&self.folder, self.frontier.size())?;
        self.segments += 1;
        self.in_segment = 0;
        self.append(time, (Asked::default(), Event::LogSegment(LogSegment { last: self.prev, size, sha256 })))
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        self.file.flush()?;
        let text = Checkpoint::new(&origin(self.kind), self.frontier.size(), self.frontier.root()).to_string();
        let signature = log_key(self.kind)?.sign(text.as_bytes()).as_ref().try_into()?;
        let note = signed_note(&text, &[(&verifier_key(self.kind)?, signature)])?;
        Ok(fs::write(self.folder.join("checkpoint"), note.to_string())?)
    }
}

fn segment(folder: &Path, first: u64) -> Outcome<BufWriter<File>> {
    Ok(BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("{first:020}.jsonl")))?))
}
