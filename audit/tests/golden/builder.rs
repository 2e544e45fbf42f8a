//! Makes a small pair of logs with fixed keys and fixed times, so that the same bytes come out every time.
//!
//! In scope: one true story, short and busy (a first key, a standby, a rotation, a withdrawal, and signatures by both keys), and the ways
//! in which a signer could tell it wrongly. Out of scope: what somebody could do to the bytes, without the log key (`defects`, `forms`) or
//! with it (`forge`).

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_audit::event::*;
use claviger_audit::jwk::PublicKey;
use claviger_audit::jwks;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::names::KeyName;
use claviger_audit::record::{Asked, Record};
use claviger_audit::{Algorithm, Timestamp};
use ed25519_dalek::SigningKey;

#[path = "settings.rs"]
mod settings;
#[path = "signing.rs"]
pub(crate) mod signing;

pub(crate) use settings::{keyring, timing};
use signing::{cosigned, note_by, secret, witness};
pub(crate) use signing::{note, verifier_key};

/// Files by path below the folder.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) const ORIGIN: &str = "example.org/claviger";
pub(crate) const FIRST: &str = "00000000000000000000.jsonl";
/// From these the two log keys are made: their secret bytes, 32 times.
pub(crate) const KEYS_SEED: u8 = 1;
pub(crate) const USES_SEED: u8 = 2;
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
    /// Both log keys are rotated, that of the use log twice.
    LogKeyRotated,
    /// The same, and the keys before go on signing.
    OldLogKeySigns,
    /// Two of three witnesses saw the log shortly before its end.
    Witnessed,
    /// Only one of them did.
    QuorumMissing,
    /// The first segment of the use log was pruned.
    Pruned,
    /// The same, and the key log does not say so.
    UnrecordedPruning,
    LateRotation,
    NeverWithdrawn,
    WrongRecords,
    /// True as well, with more than fifty use records in three segments, which became durable four at a time.
    Busy,
}

impl Story {
    fn is_legal(self) -> bool {
        use Story::{Busy, LogKeyRotated, Pruned, Valid, Witnessed};
        matches!(self, Valid | Busy | LogKeyRotated | Witnessed | Pruned)
    }
}

/// A log that is being written.
pub(crate) struct Writer {
    pub(crate) kind: LogKind,
    pub(crate) origin: String,
    /// The key that signs, after those that did.
    pub(crate) secrets: Vec<SigningKey>,
    pub(crate) prev: Hash,
    pub(crate) frontier: Frontier,
    pub(crate) segments: Vec<(String, Vec<u8>)>,
    /// How many records become durable at once.
    batch: u64,
    pub(crate) boot: String,
}

/// Seconds after the start of 2026.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600) + Duration::from_secs(seconds)
}

impl Writer {
    pub(crate) fn new(kind: LogKind, origin: String, seed: u8, seconds: u64) -> Self {
        let secret = secret(seed);
        let key = verifier_key(&origin, &secret).to_string();
        let prev = genesis_prev(&origin, &key);
        let (frontier, segments, boot) = (Frontier::new(), vec![(FIRST.to_owned(), Vec::new())], "5f0c".to_owned());
        let mut log = Self { kind, origin: origin.clone(), secrets: vec![secret], prev, frontier, segments, batch: 1, boot };
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
            durable: self.frontier.size() / self.batch * self.batch,
            node: "a".into(),
            boot: self.boot.clone(),
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

    pub(crate) fn roll(&mut self, seconds: u64, sha256: impl Fn(&[u8]) -> Hash) {
        let (_, bytes) = self.segments.last().unwrap();
        let event = LogSegment { last: self.prev, size: bytes.len() as u64, sha256: sha256(bytes) };
        self.segments.push((format!("{:020}.jsonl", self.frontier.size()), Vec::new()));
        self.append(seconds, Event::LogSegment(event));
    }

    /// By the newest key alone.
    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        self.signed_by(&[self.secrets.last().unwrap()])
    }

    fn signed_by(&self, secrets: &[&SigningKey]) -> Vec<u8> {
        note_by(&self.origin, self.frontier.size(), self.frontier.root(), secrets)
    }

    /// The next key signs from the record of this event on.
    fn key_rotation(&mut self, seed: u8) -> Event {
        let text = |secret: &SigningKey| verifier_key(&self.origin, secret).to_string();
        let (old, new) = (text(self.secrets.last().unwrap()), text(&secret(seed)));
        self.secrets.push(secret(seed));
        Event::LogKeyRotated(LogKeyRotated { old, new, keystore: "hsm".into(), locator: format!("slot/2/{seed}") })
    }

    /// By the newest key and the one before it.
    fn handover(&self) -> Vec<u8> {
        let count = self.secrets.len();
        self.signed_by(&[&self.secrets[count - 2], &self.secrets[count - 1]])
    }

    pub(crate) fn head(&self) -> UsesHead {
        UsesHead { of: "a".into(), origin: self.origin.clone(), size: self.frontier.size(), root: self.frontier.root() }
    }
}

/// The two logs while the story is told.
struct Teller {
    story: Story,
    keys: Writer,
    uses: Writer,
    keyrings: Keyrings,
    /// What the key log tells while the rotation is due.
    meanwhile: Vec<(u64, Event)>,
    /// When the second key took over.
    rotated: u64,
    files: Files,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// When the second key takes over.
const ROTATION: u64 = 30 * DAY + 2;
/// When the last record is written.
pub(crate) const END: u64 = ROTATION + 2_000;

pub(crate) fn public(number: u32) -> PublicKey {
    let secret = secret(100 + u8::try_from(number).unwrap());
    PublicKey::from_ed25519(secret.verifying_key().as_bytes())
}

pub(crate) fn kid(number: u32) -> String {
    public(number).thumbprint()
}

pub(crate) fn name(number: u32) -> KeyName {
    KeyName::new("prod", "access", number, 0xc1a1_0000 + number).unwrap()
}

impl Teller {
    fn keys(&mut self, seconds: u64, event: Event) {
        let record = self.keys.append(seconds, event);
        // A wrong story is illegal at some point; it is told to its end nevertheless.
        let legal = self.keyrings.apply(&record);
        assert!(legal.is_ok() || !self.story.is_legal(), "{legal:?}");
    }

    fn key(&mut self, seconds: u64, number: u32) {
        let (key, kid) = (name(number), kid(number));
        let requested = KeyRequested { key: key.clone(), keyring: "access".into(), keystore: "hsm".into(), algorithm: Algorithm::EdDSA };
        self.keys(seconds, Event::KeyRequested(requested));
        let attributes = BTreeMap::from([("sensitive".to_owned(), "true".to_owned())]);
        let (locator, backend_request, self_test) = (format!("slot/1/{key}"), None, None);
        let created = KeyCreated { key, kid: kid.clone(), jwk: public(number), locator, attributes, backend_request, self_test };
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
        self.keys(1, Event::KeyringCreated(keyring()));
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
        let seconds = match self.story {
            Story::EarlyActivation => 160,
            Story::LateRotation => ROTATION + 3 * HOUR,
            _ => ROTATION,
        };
        let story = self.story;
        for (seconds, event) in std::mem::take(&mut self.meanwhile) {
            self.keys(seconds, event);
        }
        self.file(&format!("log/uses/{FIRST}.checkpoint"), self.uses.checkpoint());
        self.uses.roll(seconds, |bytes| Hash::digest(if story == Story::WrongSeal { b"other" } else { bytes }));
        if matches!(story, Story::LogKeyRotated | Story::OldLogKeySigns) {
            self.rotate_log_keys(seconds);
        }
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
        self.rotated = if story == Story::EarlyActivation { ROTATION } else { seconds };
        let size = self.keys.frontier.size();
        self.sign(seconds + 1, 1, 11);
        self.seen(seconds + 2);
        self.sign(seconds + 3, 2, size);
        if story == Story::RetiredKeySigns {
            self.sign(seconds + 4, 1, size);
        }
        self.sign(seconds + 20, 2, size);
    }

    fn rotate_log_keys(&mut self, seconds: u64) {
        let event = self.keys.key_rotation(11);
        self.keys(seconds, event);
        self.file("log/keys/rotated.checkpoint", self.keys.handover());
        for seed in [12, 13] {
            let event = self.uses.key_rotation(seed);
            self.uses.append(seconds, event);
            self.file(&format!("log/uses/rotated-{seed}.checkpoint"), self.uses.handover());
        }
    }

    fn busy(&mut self) {
        let size = self.keys.frontier.size();
        for number in 0..40 {
            let seconds = ROTATION + 30 + 20 * number;
            match number {
                20 => {
                    let sealed = format!("log/uses/{}.checkpoint", self.uses.segments.last().unwrap().0);
                    self.file(&sealed, self.uses.checkpoint());
                    self.uses.roll(seconds, Hash::digest);
                }
                sign if sign % 5 == 0 => self.sign(seconds, 2, size),
                _ => drop(self.uses.append(seconds, Event::LogHeartbeat(LogHeartbeat {}))),
            }
        }
    }

    fn end(&mut self) {
        let mut rotated = self.rotated;
        if self.story == Story::NeverWithdrawn {
            self.key(rotated + 100, 3);
            self.served(rotated + 101);
            (1..4).for_each(|hour| self.keys(rotated + hour * HOUR, Event::LogHeartbeat(LogHeartbeat {})));
            rotated += 4 * HOUR;
        } else {
            let withdrawn = KeyWithdrawn { kid: kid(1), destroy_after: at(rotated + 970 + 7 * DAY) };
            self.keys(rotated + 970, Event::KeyWithdrawn(withdrawn));
        }
        let end = rotated + 2_000;
        self.served(rotated + 971);
        self.seen(rotated + 972);
        self.sign(rotated + 1_000, 2, self.keys.frontier.size());
        self.witness();
        self.keys(end, Event::UsesHead(self.uses.head()));
        if self.story == Story::Pruned {
            let (first, root) = self.first_segment();
            let (of, origin, before) = ("a".into(), self.uses.origin.clone(), at(ROTATION));
            self.keys(end, Event::UsesPruned(UsesPruned { of, origin, first, root, before, reason: "ninety days".into() }));
        }
        self.keys(end, Event::DaemonStop(DaemonStop { reason: "asked to".into() }));
        self.seen(end);
    }

    /// Witnesses see the logs as they are now; the records that follow are signed only.
    fn witness(&mut self) {
        let cosigners = match self.story {
            Story::Witnessed => vec![(1, at(END - 900)), (3, at(END - 600))],
            Story::QuorumMissing => vec![(2, at(END - 600))],
            _ => return,
        };
        for (name, note) in [("keys", self.keys.checkpoint()), ("uses", self.uses.checkpoint())] {
            self.file(&format!("log/{name}/witnessed.checkpoint"), cosigned(&note, &cosigners));
        }
    }

    /// How many records the first segment of the use log has, and the root over them.
    fn first_segment(&self) -> (u64, Hash) {
        let mut frontier = Frontier::new();
        frontier.extend(leaves(&self.uses.segments[0].1));
        (frontier.size(), frontier.root())
    }

    /// What `audit prune` leaves of the first segment of the use log.
    fn prune(&mut self) {
        let (_, bytes) = &self.uses.segments[0];
        let hashes: Vec<[u8; 32]> = leaves(bytes).map(|leaf| *leaf.as_bytes()).collect();
        let genesis = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
        self.files.remove(&format!("log/uses/{FIRST}"));
        self.file("log/uses/00000000000000000000.hashes", hashes.concat());
        self.file("log/uses/genesis", genesis);
    }

    fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_owned(), bytes);
    }

    fn finish(mut self) -> Files {
        for log in [&self.keys, &self.uses] {
            for (segment, bytes) in &log.segments {
                self.files.insert(format!("log/{}/{segment}", log.kind.name()), bytes.clone());
            }
            let checkpoint = match self.story {
                Story::ForeignCheckpoint => log.signed_by(&[&secret(9)]),
                Story::OldLogKeySigns => log.signed_by(&[&log.secrets[0]]),
                _ => log.checkpoint(),
            };
            self.files.insert(format!("log/{}/checkpoint", log.kind.name()), checkpoint);
        }
        if matches!(self.story, Story::Pruned | Story::UnrecordedPruning) {
            self.prune();
        }
        let logs = [&self.keys, &self.uses].into_iter().flat_map(|log| log.secrets.iter().map(|secret| verifier_key(&log.origin, secret)));
        let trust: Vec<String> = logs.map(|key| format!("log {key}\n")).collect();
        let quorum = match self.story {
            Story::Witnessed | Story::QuorumMissing => {
                let lines: Vec<String> = (1..4).map(witness).map(|(name, key)| format!("witness {name} {key}\n")).collect();
                format!("{}group two-of-three 2 w1 w2 w3\nquorum two-of-three", lines.concat())
            }
            _ => "quorum none".to_owned(),
        };
        self.file("trust", format!("# The logs of the golden files.\n{}{quorum}\n", trust.concat()).into_bytes());
        let body = jwks::body(&self.keyrings, &"issuer/main".parse().unwrap()).unwrap();
        self.file("jwks.json", body);
        let receipt = format!(r#"{{"leaf":"{}","log":"{}","seq":{}}}"#, self.uses.prev, self.uses.origin, self.uses.frontier.size() - 1);
        self.file("receipt.json", receipt.into_bytes());
        self.files
    }
}

/// The leaf hashes of the lines of a segment.
fn leaves(segment: &[u8]) -> impl Iterator<Item = Hash> {
    segment.split_inclusive(|byte| *byte == b'\n').map(|line| leaf_hash(line.trim_ascii_end()))
}

/// Tells a story to its end: the logs under `log/`, and what a verifier of the true story brings along.
pub(crate) fn build(story: Story) -> Files {
    let hours = if story == Story::LateRotation { 1..4 } else { 0..0 };
    tell(story, hours.map(|hour| (ROTATION + hour * HOUR, Event::LogHeartbeat(LogHeartbeat {}))).collect())
}

/// The late rotation, three hours after it was due, with another reason for it; times are seconds after that date, or before it.
pub(crate) fn build_late(meanwhile: Vec<(i64, Event)>) -> Files {
    tell(Story::LateRotation, meanwhile.into_iter().map(|(seconds, event)| (ROTATION.saturating_add_signed(seconds), event)).collect())
}

/// These records among the others, which is not how it may go on.
pub(crate) fn build_wrong(records: Vec<Event>) -> Files {
    tell(Story::WrongRecords, records.into_iter().map(|event| (ROTATION, event)).collect())
}

fn tell(story: Story, meanwhile: Vec<(u64, Event)>) -> Files {
    let origin = if story == Story::WrongOrigin { "example.net/other" } else { ORIGIN };
    let batch = if story == Story::Busy { 4 } else { 1 };
    let keys = Writer { batch, ..Writer::new(LogKind::Keys, format!("{origin}/keys"), KEYS_SEED, 0) };
    let uses = Writer { batch, ..Writer::new(LogKind::Uses, format!("{origin}/uses/a"), USES_SEED, 0) };
    let mut keyrings = Keyrings::default();
    let line = keys.segments[0].1.trim_ascii_end();
    keyrings.apply(&Record::parse(line).unwrap()).unwrap();
    let mut teller = Teller { story, keys, uses, keyrings, meanwhile, rotated: ROTATION, files: Files::new() };
    teller.beginning();
    teller.rotation();
    if story == Story::Busy {
        teller.busy();
    }
    teller.end();
    teller.finish()
}
