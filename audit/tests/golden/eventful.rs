//! A pair of logs in which everything happens once: each event of the format stands in some golden log.
//!
//! In scope: a legal story with the events that the other stories lack, and small changes that make it illegal. Out of scope: bytes and
//! signatures, which the other stories have.

use std::collections::{BTreeMap, BTreeSet};

use claviger_audit::Algorithm;
use claviger_audit::event::*;
use claviger_audit::jwks;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::Hash;
use claviger_audit::record::Record;
use claviger_audit::trust::Policy;
use claviger_audit::verify::{MinSize, Options, Verdict};

use super::builder::{Files, ORIGIN, Writer, at, keyring, kid, name, public, timing, verifier_key};
use super::{check, testdata, tree};

/// What goes wrong, if anything does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twist {
    Nothing,
    ErasedTwice,
    SuspendedKeySigns,
    CompromisedKeySigns,
}

struct Tale {
    twist: Twist,
    keys: Writer,
    uses: Writer,
    keyrings: Keyrings,
}

/// Seconds after which a key that was served may sign, with the settings of all stories.
const LEAD: u64 = 940;
/// When the second key takes over from the compromised first.
const THEFT: u64 = 1_200;
const DAY: u64 = 86_400;

impl Tale {
    fn keys(&mut self, seconds: u64, event: Event) {
        let record = self.keys.append(seconds, event);
        let legal = self.keyrings.apply(&record);
        assert!(legal.is_ok() || self.twist != Twist::Nothing, "{legal:?}");
    }

    fn request(&mut self, seconds: u64, number: u32) {
        let requested = KeyRequested { key: name(number), keyring: "access".into(), keystore: "hsm".into(), algorithm: Algorithm::EdDSA };
        self.keys(seconds, Event::KeyRequested(requested));
    }

    fn publish(&mut self, seconds: u64, number: u32) {
        let attributes = BTreeMap::from([("sensitive".to_owned(), "true".to_owned())]);
        let (key, kid, locator) = (name(number), kid(number), format!("slot/1/{number}"));
        let backend_request = Some(format!("request-{number}"));
        let created = KeyCreated { key, kid: kid.clone(), jwk: public(number), locator, attributes, backend_request, self_test: None };
        self.keys(seconds, Event::KeyCreated(created));
        let published = KeyPublished { kid, earliest_activation: at(seconds + LEAD), timing: 6 };
        self.keys(seconds, Event::KeyPublished(published));
    }

    fn served(&mut self, seconds: u64) {
        for set in self.keyrings.sets() {
            let sha256 = Hash::digest(&jwks::body(&self.keyrings, &set).unwrap());
            let size = self.keys.frontier.size();
            self.keys(seconds, Event::JwksServed(JwksServed { set: set.to_string(), size, sha256 }));
        }
    }

    /// A signature that has seen the key log as it is now.
    fn sign(&mut self, seconds: u64, number: u32) {
        let size = self.keys.frontier.size();
        self.uses.append(seconds, Event::KeysSeen(KeysSeen { size, leaf: self.keys.prev }));
        let sign = Sign {
            keyring: "access".into(),
            kid: kid(number),
            alg: Algorithm::EdDSA,
            input: Hash::digest(format!("input {seconds}").as_bytes()),
            typ: Some("at+jwt".into()),
            jti: Some(Hash::digest(format!("jti {seconds}").as_bytes())),
            subject: Some("hmac-2026:AAECAwQFBgcICQoLDA0ODw".into()),
            iat: Some(at(seconds).seconds()),
            exp: at(seconds + 900).seconds(),
            size,
            policy: vec!["issuers-may-sign".into()],
            backend_request: Some(format!("request-{seconds}")),
        };
        self.uses.append(seconds, Event::Sign(sign));
    }

    fn beginning(&mut self) {
        self.keys(1, Event::InitIntent(InitIntent { keys: vec![name(1), name(2)] }));
        self.keys(2, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: false, in_flight: 0 }));
        self.keys(2, Event::ConfigLoaded(ConfigLoaded { sha256: Hash::digest(b"configuration") }));
        self.keys(2, Event::PolicyLoaded(PolicyLoaded { sha256: Hash::digest(b"policies"), policies: 7 }));
        self.keys(2, Event::KeyringCreated(keyring()));
        self.keys(2, Event::KeyringTiming(KeyringTiming { keyring: "access".into(), timing: timing() }));
        self.request(3, 1);
        self.publish(4, 1);
        let (keyring, to) = ("access".to_owned(), kid(1));
        let (reason, next_rotation) = (RotationReason::Bootstrap, at(5 + 30 * DAY));
        let first =
            KeyRotated { keyring, from: None, to, reason, forced: false, note: None, withdraw_after: None, next_rotation, timing: 6 };
        self.keys(5, Event::KeyRotated(first));
        self.served(6);
        self.sign(7, 1);
    }

    /// What befalls a daemon that goes on all the same.
    fn troubles(&mut self) {
        let (keyring, until, reason) = ("access".to_owned(), at(2 * DAY), "from the issuer before".to_owned());
        let imported = KeyImported { keyring, kid: "old-1".into(), jwk: public(9), algorithm: Algorithm::EdDSA, until, reason };
        self.keys(20, Event::KeyImported(imported));
        self.served(21);
        self.request(30, 2);
        self.keys(31, Event::KeystoreLost(KeystoreLost { keystore: "hsm".into(), reason: "no answer".into() }));
        self.keys(33, Event::KeystoreWedged(KeystoreWedged { keystore: "hsm".into(), hung: 4 }));
        self.keys(34, Event::DaemonStop(DaemonStop { reason: "keystore".into() }));
        self.keys(35, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: false, in_flight: 0 }));
        self.keys(40, Event::KeystoreRecovered(KeystoreRecovered { keystore: "hsm".into() }));
        let rejected = KeystoreRejected { keystore: "hsm".into(), key: Some(name(2)), reason: "no room".into() };
        self.keys(41, Event::KeystoreRejected(rejected));
        let (keystore, reason) = ("hsm".to_owned(), "the session handle is invalid".to_owned());
        self.keys(45, Event::KeystoreReopened(KeystoreReopened { keystore, sessions: 3, logins: 1, modules: 0, reason }));
        self.publish(50, 2);
        self.served(51);
        self.keys(60, Event::ClockStepped(ClockStepped { keyring_skew_ms: 30_000, difference_ms: -40_000 }));
        self.keys(90, Event::ClockSettled(ClockSettled { difference_ms: 10 }));
        self.keys(92, Event::ClockStepped(ClockStepped { keyring_skew_ms: 30_000, difference_ms: 31_000 }));
        self.keys(95, Event::ClockConfirmed(ClockConfirmed { difference_ms: 31_000, reason: "the time service was wrong before".into() }));
        let denied = AdminDenied { verb: "compromise".into(), resource: "access".into(), code: "denied".into() };
        self.keys(100, Event::AdminDenied(denied));
        self.drifted(110, "extractable is true, was false");
        self.drifted(120, "extractable is true, was false; no public key is found");
        self.keys(200, Event::KeySuspended(KeySuspended { kid: kid(1), reason: "a doubt".into() }));
        if self.twist == Twist::SuspendedKeySigns {
            self.sign(210, 1);
        }
        self.keys(300, Event::KeyResumed(KeyResumed { kid: kid(1), reason: "no doubt".into() }));
    }

    /// It goes on signing: what becomes of it is for an operator to say.
    fn drifted(&mut self, seconds: u64, found: &str) {
        let drifted = KeyDrifted { keyring: "access".into(), kid: kid(1), found: found.into() };
        self.keys(seconds, Event::KeyDrifted(drifted));
    }

    fn refusals(&mut self) {
        self.sign(400, 1);
        let of = self.uses.frontier.size() - 1;
        let denied = SignDenied { keyring: "access".into(), code: "profile".into(), reason: Some("exp: too late".into()) };
        self.uses.append(410, Event::SignDenied(denied));
        self.uses.append(411, Event::SignRefused(SignRefused { code: "rate_limited".into(), count: 317 }));
        let (keyring, code, reason) = ("access".to_owned(), "wrong_signature".to_owned(), Some("it does not verify".to_owned()));
        self.uses.append(412, Event::SignFailed(SignFailed { keyring, kid: kid(1), code, reason, of: Some(of), backend_request: None }));
        self.uses.append(413, Event::SignUnanswered(SignUnanswered { keyring: "access".into(), kid: kid(1), count: 2 }));
        self.uses.append(420, Event::LogRecovered(LogRecovered { bytes: 17, sha256: Hash::digest(b"a torn tail") }));
        self.uses.append(480, Event::LogHeartbeat(LogHeartbeat {}));
    }

    fn theft(&mut self) {
        self.keys(500, Event::KeyConforms(KeyConforms { keyring: "access".into(), kid: kid(1) }));
        let (since, next_rotation) = (at(1_000), Some(at(THEFT + 30 * DAY)));
        let stolen = KeyCompromised { kid: kid(1), since, to: Some(kid(2)), reason: "stolen".into(), next_rotation, timing: 6 };
        self.keys(THEFT, Event::KeyCompromised(stolen));
        self.served(THEFT + 1);
        if self.twist == Twist::CompromisedKeySigns {
            self.sign(THEFT + 2, 1);
        }
        self.keys(THEFT + 3, Event::KeyDestroyed(KeyDestroyed { key: name(1), deleted_on: None }));
        self.sign(THEFT + 4, 2);
        self.request(THEFT + 5, 3);
        self.keys(THEFT + 6, Event::KeyAbandoned(KeyAbandoned { key: name(3), reason: "its keystore goes".into() }));
        self.keys(THEFT + 7, Event::KeyDestroyed(KeyDestroyed { key: name(3), deleted_on: None }));
        let standby_keystore = Some("vault".into());
        let changed = KeyringChanged { keyring: "access".into(), algorithm: Algorithm::ES256, keystore: "hsm".into(), standby_keystore };
        self.keys(THEFT + 8, Event::KeyringChanged(changed));
    }

    fn end(&mut self) {
        let retired = KeyringRetired { keyring: "access".into(), reason: "moved".into(), withdraw_after: Some(at(THEFT + 100 + 962)) };
        self.keys(THEFT + 100, Event::KeyringRetired(retired));
        self.served(THEFT + 101);
        let withdrawn = KeyWithdrawn { kid: kid(2), destroy_after: at(THEFT + 1_070 + 7 * DAY) };
        self.keys(THEFT + 1_070, Event::KeyWithdrawn(withdrawn));
        self.served(THEFT + 1_071);
        let erased = || Event::SubjectErased(SubjectErased { of: "a".into(), year: 2025, reason: "the law says so".into() });
        self.keys(THEFT + 1_100, erased());
        if self.twist == Twist::ErasedTwice {
            self.keys(THEFT + 1_101, erased());
        }
        self.keys(THEFT + 1_200, Event::LogHeartbeat(LogHeartbeat {}));
        self.uses.append(THEFT + 1_200, Event::LogHalt(LogHalt { reason: "no space is left".into() }));
        self.keys(THEFT + 1_201, Event::UsesHead(self.uses.head()));
        self.keys(THEFT + 1_202, Event::DaemonStop(DaemonStop { reason: "log".into() }));
    }

    fn files(self) -> Files {
        let mut files = Files::new();
        let mut trust = String::new();
        for log in [&self.keys, &self.uses] {
            for (segment, bytes) in &log.segments {
                files.insert(format!("log/{}/{segment}", log.kind.name()), bytes.clone());
            }
            files.insert(format!("log/{}/checkpoint", log.kind.name()), log.checkpoint());
            trust += &format!("log {}\n", verifier_key(&log.origin, log.secrets.last().unwrap()));
        }
        files.insert("trust".to_owned(), (trust + "quorum none\n").into_bytes());
        files
    }
}

fn told(twist: Twist) -> Files {
    let keys = Writer::new(LogKind::Keys, format!("{ORIGIN}/keys"), 21, 0);
    let uses = Writer::new(LogKind::Uses, format!("{ORIGIN}/uses/a"), 22, 0);
    let mut keyrings = Keyrings::default();
    keyrings.apply(&Record::parse(keys.segments[0].1.trim_ascii_end()).unwrap()).unwrap();
    let mut tale = Tale { twist, keys, uses, keyrings };
    tale.beginning();
    tale.troubles();
    tale.refusals();
    tale.theft();
    tale.end();
    tale.files()
}

/// As it should be: the golden folder `eventful`.
pub(crate) fn all() -> Files {
    told(Twist::Nothing)
}

fn verdict(files: &Files) -> (Verdict, Vec<String>) {
    let trust = Some(Policy::parse(&files["trust"]).unwrap());
    let report = check(files, &Options { trust, min_sizes: vec![MinSize { origin: None, size: 1 }], ..Options::default() });
    (report.verdict, report.findings.list().iter().map(|finding| finding.text.clone()).collect())
}

#[test]
fn everything_may_happen_once() {
    assert_eq!(verdict(&all()), (Verdict::Verified, Vec::new()));
}

#[test]
fn what_may_not_happen_is_illegal() {
    for (twist, words) in [
        (Twist::ErasedTwice, "was destroyed before"),
        (Twist::SuspendedKeySigns, "which was not active"),
        (Twist::CompromisedKeySigns, "which was not active"),
    ] {
        let (verdict, said) = verdict(&told(twist));
        assert_eq!(verdict, Verdict::Illegal, "{said:?}");
        assert!(said.iter().any(|text| text.contains(words)), "{said:?}");
    }
}

/// The specification's table of events is the list; none of them goes without a line that somebody can look at.
#[test]
fn every_event_stands_in_a_golden_log() {
    let files = tree(&testdata());
    let good = files.iter().filter(|(file, _)| file.strip_suffix(".jsonl").is_some() && !file.starts_with("defect/"));
    let lines = good.flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n')).filter(|line| !line.is_empty());
    let seen: BTreeSet<&str> = lines.map(|line| Record::parse(line).unwrap().event.name()).collect();
    let specification = include_str!("../../README.md");
    let table = specification.split("## Events").nth(1).unwrap().split("Settings, the").next().unwrap();
    let named = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    let missing: Vec<&str> = named.filter(|name| name.contains('.') || *name == "sign").filter(|name| !seen.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(seen.len() > 40, "{} events", seen.len());
}
