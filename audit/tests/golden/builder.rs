//! Makes a small pair of logs with fixed keys and fixed times, so that the same bytes come out every time.
//!
//! In scope: one story (a first key, a standby, a rotation, a withdrawal, and signatures by both keys), and the ways in which a signer
//! could tell it wrongly. Out of scope: what somebody without the log key could do to the bytes (`defects`).

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::*;
use claviger_audit::jwk::PublicKey;
use claviger_audit::jwks;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::names::KeyName;
use claviger_audit::note::{VerifierKey, signed_note};
use claviger_audit::record::{Asked, Record};
use claviger_audit::timing::Timing;
use claviger_audit::{Algorithm, Timestamp};
use ed25519_dalek::{Signer as _, SigningKey};

/// Files by path below the folder.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) const ORIGIN: &str = "example.org/claviger";
pub(crate) const FIRST: &str = "00000000000000000000.jsonl";
/// Where the second segment of the use log begins.
pub(crate) const SECOND: &str = "00000000000000000005.jsonl";

/// A way to tell the story; the default is the true one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Story {
    #[default]
    Valid,
    EarlyActivation,
    RetiredKeySigns,
    LongToken,
    WrongJwksHash,
    WrongOrigin,
    WrongSeal,
    ForeignCheckpoint,
}

/// A log that is being written.
pub(crate) struct Writer {
    pub(crate) kind: LogKind,
    pub(crate) origin: String,
    pub(crate) secret: SigningKey,
    pub(crate) prev: Hash,
    pub(crate) frontier: Frontier,
    pub(crate) segments: Vec<(String, Vec<u8>)>,
}

/// Seconds after the start of 2026.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600) + Duration::from_secs(seconds)
}

pub(crate) fn verifier_key(name: &str, secret: &SigningKey) -> VerifierKey {
    VerifierKey::from_jwk(name, &PublicKey::from_ed25519(secret.verifying_key().as_bytes())).unwrap()
}

impl Writer {
    pub(crate) fn new(kind: LogKind, origin: String, seed: u8, seconds: u64) -> Self {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        let key = verifier_key(&origin, &secret).to_string();
        let prev = genesis_prev(&origin, &key);
        let mut log = Self { kind, origin: origin.clone(), secret, prev, frontier: Frontier::new(), segments: Vec::new() };
        log.segments.push((FIRST.to_owned(), Vec::new()));
        let created = LogCreated {
            origin,
            key,
            keystore: "hsm".into(),
            locator: format!("slot/1/{}", kind.name()),
            installation: "prod".into(),
            version: "0.1.0".into(),
        };
        log.append(seconds, Event::LogCreated(created));
        log
    }

    fn record(&self, seconds: u64, event: Event) -> Record {
        let caller = matches!(event, Event::Sign(_) | Event::SignDenied(_)).then(|| "spiffe://example.org/issuer".to_owned());
        Record {
            log: self.kind,
            seq: self.frontier.size(),
            time: at(seconds),
            prev: self.prev,
            durable: self.frontier.size(),
            node: "a".into(),
            boot: "5f0c".into(),
            asked: Asked { caller, ..Asked::default() },
            event,
        }
    }

    pub(crate) fn append(&mut self, seconds: u64, event: Event) -> Record {
        let record = self.record(seconds, event);
        let line = record.to_line().unwrap();
        self.prev = leaf_hash(&line);
        self.frontier.push(self.prev);
        let (_, bytes) = self.segments.last_mut().unwrap();
        bytes.extend([line.as_slice(), b"\n"].concat());
        record
    }

    fn roll(&mut self, seconds: u64, sha256: impl Fn(&[u8]) -> Hash) {
        let (_, bytes) = self.segments.last().unwrap();
        let event = LogSegment { last: self.prev, size: bytes.len() as u64, sha256: sha256(bytes) };
        self.segments.push((format!("{:020}.jsonl", self.frontier.size()), Vec::new()));
        self.append(seconds, Event::LogSegment(event));
    }

    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        note(&self.origin, self.frontier.size(), self.frontier.root(), &self.secret)
    }

    pub(crate) fn head(&self) -> UsesHead {
        UsesHead { of: "a".into(), origin: self.origin.clone(), size: self.frontier.size(), root: self.frontier.root() }
    }
}

/// A checkpoint signed by any key, in the name of the log.
pub(crate) fn note(origin: &str, size: u64, root: Hash, secret: &SigningKey) -> Vec<u8> {
    let text = Checkpoint::new(origin, size, root).to_string();
    let signature = secret.sign(text.as_bytes()).to_bytes();
    signed_note(&text, &[(&verifier_key(origin, secret), signature)]).unwrap().to_string().into_bytes()
}

/// The two logs while the story is told.
struct Teller {
    story: Story,
    keys: Writer,
    uses: Writer,
    keyrings: Keyrings,
    files: Files,
}

fn timing() -> Timing {
    Timing {
        jwks_max_age_ms: 300_000,
        jwks_stale_ms: 0,
        verifier_poll_ms: 600_000,
        propagation_ms: 10_000,
        token_ttl_ms: 900_000,
        clock_skew_ms: 30_000,
        signing_lease_ms: 0,
        deadline_ms: 2_000,
        rotate_every_ms: 30 * 86_400_000,
        provisioning_budget_ms: 600_000,
        max_exposure_ms: 3_600_000,
        destroy_after_ms: 7 * 86_400_000,
    }
}

const DAY: u64 = 86_400;
/// When the second key takes over.
const ROTATION: u64 = 30 * DAY + 2;
/// When the last record is written.
pub(crate) const END: u64 = ROTATION + 2_000;

fn public(number: u32) -> PublicKey {
    let secret = SigningKey::from_bytes(&[100 + u8::try_from(number).unwrap(); 32]);
    PublicKey::from_ed25519(secret.verifying_key().as_bytes())
}

pub(crate) fn kid(number: u32) -> String {
    public(number).thumbprint()
}

fn name(number: u32) -> KeyName {
    KeyName::new("prod", "access", number, 0xc1a1_0000 + number).unwrap()
}

impl Teller {
    fn keys(&mut self, seconds: u64, event: Event) {
        let record = self.keys.append(seconds, event);
        // A wrong story is illegal at some point; it is told to its end nevertheless.
        let legal = self.keyrings.apply(&record);
        assert!(legal.is_ok() || self.story != Story::Valid, "{legal:?}");
    }

    fn key(&mut self, seconds: u64, number: u32) {
        let (key, kid) = (name(number), kid(number));
        let requested = KeyRequested { key: key.clone(), keyring: "access".into(), keystore: "hsm".into(), algorithm: Algorithm::EdDSA };
        self.keys(seconds, Event::KeyRequested(requested));
        let attributes = BTreeMap::from([("sensitive".to_owned(), "true".to_owned())]);
        let locator = format!("slot/1/{key}");
        let created = KeyCreated { key, kid: kid.clone(), jwk: public(number), locator, attributes, backend_request: None };
        self.keys(seconds + 1, Event::KeyCreated(created));
        let published = KeyPublished { kid, earliest_activation: at(seconds + 1 + 940), timing: 4 };
        self.keys(seconds + 1, Event::KeyPublished(published));
    }

    fn served(&mut self, seconds: u64) {
        for set in self.keyrings.sets() {
            let mut sha256 = Hash::digest(&jwks::body(&self.keyrings, &set).unwrap());
            if self.story == Story::WrongJwksHash && seconds > ROTATION {
                sha256 = Hash::digest(b"another body");
            }
            let size = self.keys.frontier.size();
            self.keys(seconds, Event::JwksServed(JwksServed { set: set.to_string(), size, sha256 }));
        }
    }

    fn seen(&mut self, seconds: u64) {
        let seen = KeysSeen { size: self.keys.frontier.size(), leaf: self.keys.prev };
        self.uses.append(seconds, Event::KeysSeen(seen));
    }

    fn sign(&mut self, seconds: u64, number: u32, size: u64) {
        let life = if self.story == Story::LongToken { 86_400 } else { 900 };
        let time = at(seconds).seconds();
        let sign = Sign {
            keyring: "access".into(),
            kid: kid(number),
            alg: Algorithm::EdDSA,
            input: Hash::digest(format!("header{number}.claims{seconds}").as_bytes()),
            typ: Some("at+jwt".into()),
            jti: Some(Hash::digest(format!("jti-{seconds}").as_bytes())),
            subject: None,
            iat: Some(time),
            exp: time + life,
            size,
            policy: vec!["issuers-may-sign".into()],
            backend_request: None,
        };
        self.uses.append(seconds, Event::Sign(sign));
    }

    fn beginning(&mut self) {
        self.keys(1, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: false, in_flight: 0 }));
        self.keys(1, Event::ConfigLoaded(ConfigLoaded { sha256: Hash::digest(b"configuration") }));
        let keyring = KeyringCreated {
            keyring: "access".into(),
            purpose: Purpose::Jwt,
            issuer: Some("main".into()),
            issuer_url: Some("https://auth.example.org".into()),
            typ: Some("at+jwt".into()),
            algorithm: Algorithm::EdDSA,
            keystore: "hsm".into(),
        };
        self.keys(1, Event::KeyringCreated(keyring));
        self.keys(1, Event::KeyringTiming(KeyringTiming { keyring: "access".into(), timing: timing() }));
        self.key(1, 1);
        let bootstrap = KeyRotated {
            keyring: "access".into(),
            from: None,
            to: kid(1),
            reason: RotationReason::Bootstrap,
            forced: false,
            note: None,
            withdraw_after: None,
            next_rotation: at(2 + 30 * DAY),
            timing: 4,
        };
        self.keys(2, Event::KeyRotated(bootstrap));
        self.served(3);
        self.seen(3);
        self.sign(4, 1, 11);
        let denied = SignDenied { keyring: "access".into(), code: "policy".into(), reason: Some("audience".into()) };
        self.uses.append(5, Event::SignDenied(denied));
        self.uses.append(65, Event::LogHeartbeat(LogHeartbeat {}));
        self.keys(70, Event::UsesHead(self.uses.head()));
        self.key(100, 2);
        self.served(102);
        self.file("head/keys", self.keys.checkpoint());
        self.file("head/uses-a", self.uses.checkpoint());
    }

    fn rotation(&mut self) {
        let seconds = if self.story == Story::EarlyActivation { 160 } else { ROTATION };
        let story = self.story;
        self.file(&format!("log/uses/{FIRST}.checkpoint"), self.uses.checkpoint());
        self.uses.roll(seconds, |bytes| Hash::digest(if story == Story::WrongSeal { b"other" } else { bytes }));
        let rotated = KeyRotated {
            keyring: "access".into(),
            from: Some(kid(1)),
            to: kid(2),
            reason: RotationReason::Scheduled,
            forced: false,
            note: None,
            withdraw_after: Some(at(seconds + 962)),
            next_rotation: at(seconds + 30 * DAY),
            timing: 4,
        };
        self.keys(seconds, Event::KeyRotated(rotated));
        let size = self.keys.frontier.size();
        self.sign(seconds + 1, 1, 11);
        self.seen(seconds + 2);
        self.sign(seconds + 3, 2, size);
        if story == Story::RetiredKeySigns {
            self.sign(seconds + 4, 1, size);
        }
        self.sign(seconds + 20, 2, size);
    }

    fn end(&mut self) {
        let withdrawn = KeyWithdrawn { kid: kid(1), destroy_after: at(ROTATION + 970 + 7 * DAY) };
        self.keys(ROTATION + 970, Event::KeyWithdrawn(withdrawn));
        self.served(ROTATION + 971);
        self.seen(ROTATION + 972);
        self.sign(ROTATION + 1_000, 2, self.keys.frontier.size());
        self.keys(END, Event::UsesHead(self.uses.head()));
        self.keys(END, Event::DaemonStop(DaemonStop { reason: "asked to".into() }));
        self.seen(END);
    }

    fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_owned(), bytes);
    }

    fn finish(mut self) -> Files {
        for log in [&self.keys, &self.uses] {
            for (segment, bytes) in &log.segments {
                self.files.insert(format!("log/{}/{segment}", log.kind.name()), bytes.clone());
            }
            let foreign = SigningKey::from_bytes(&[9; 32]);
            let checkpoint = match self.story {
                Story::ForeignCheckpoint => note(&log.origin, log.frontier.size(), log.frontier.root(), &foreign),
                _ => log.checkpoint(),
            };
            self.files.insert(format!("log/{}/checkpoint", log.kind.name()), checkpoint);
        }
        let trust: Vec<String> = [&self.keys, &self.uses].map(|log| format!("log {}\n", verifier_key(&log.origin, &log.secret))).to_vec();
        self.file("trust", format!("# The logs of the golden files.\n{}quorum none\n", trust.concat()).into_bytes());
        let body = jwks::body(&self.keyrings, &"issuer/main".parse().unwrap()).unwrap();
        self.file("jwks.json", body);
        let receipt = format!(r#"{{"leaf":"{}","log":"{}","seq":{}}}"#, self.uses.prev, self.uses.origin, self.uses.frontier.size() - 1);
        self.file("receipt.json", receipt.into_bytes());
        self.files
    }
}

/// Tells a story to its end: the logs under `log/`, and what a verifier of the true story brings along.
pub(crate) fn build(story: Story) -> Files {
    let origin = if story == Story::WrongOrigin { "example.net/other" } else { ORIGIN };
    let keys = Writer::new(LogKind::Keys, format!("{origin}/keys"), 1, 0);
    let uses = Writer::new(LogKind::Uses, format!("{origin}/uses/a"), 2, 0);
    let mut keyrings = Keyrings::default();
    let line = keys.segments[0].1.trim_ascii_end();
    keyrings.apply(&Record::parse(line).unwrap()).unwrap();
    let mut teller = Teller { story, keys, uses, keyrings, files: Files::new() };
    teller.beginning();
    teller.rotation();
    teller.end();
    teller.finish()
}
