//! A small world: a daemon with keys in AWS KMS and in Vault, what it records, and what the two write down.
//!
//! Out of scope: what is made of it (the tests).

use std::collections::BTreeMap;
use std::io::{BufRead, Cursor};

use serde_json::json;

use super::super::*;
use crate::Algorithm;
use crate::event::*;
use crate::jwk::PublicKey;
use crate::merkle::Hash;
use crate::names::KeyName;
use crate::record::{Asked, Record};
use crate::verify::chain::Visit as _;
use crate::verify::{Finding, Findings, Verdict};

/// Keys 0 and 1 live in KMS, 2 and 3 in Vault.
pub(super) const KEYS: usize = 4;
pub(super) const TRAIL: &str = "111122223333";
/// A day: longer than all margins together.
pub(super) const BEGIN: u64 = 1_800_000_000;
pub(super) const END: u64 = BEGIN + 86_400;

#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) keys: Vec<Record>,
    pub(super) uses: Vec<Record>,
    pub(super) trail: Vec<serde_json::Value>,
    pub(super) vault: Vec<String>,
    pub(super) requests: u64,
    pub(super) boot: u32,
    /// What a start names.
    pub(super) in_flight: u64,
    /// How many of the last records of each log nobody signed for yet.
    pub(super) unsigned: BTreeMap<LogKind, u64>,
    /// The use log of another node.
    pub(super) other: Vec<Record>,
    /// Whether the beginning of the use log was pruned.
    pub(super) pruned: bool,
    /// Whose record the audit device keeps.
    pub(super) keystore: Option<String>,
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds.cast_signed())
}

pub(super) fn name(key: usize) -> KeyName {
    KeyName::new("prod", if key == KEYS { "log" } else { "access" }, u32::try_from(key).unwrap() + 1, 0xc1a1_0000).unwrap()
}

pub(super) fn kid(key: usize) -> String {
    format!("kid-{key}")
}

pub(super) fn arn(key: usize) -> String {
    format!("arn:aws:kms:eu-central-1:{TRAIL}:key/0987dcba-0000-0000-0000-00000000000{key}")
}

pub(super) fn locator(key: usize) -> String {
    if key < 2 { arn(key) } else { format!("team/transit/{}/1", name(key)) }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(2)
    }

    /// Its starts name so many calls.
    pub(super) fn with(in_flight: u64) -> Self {
        let mut world = Self { boot: 1, in_flight, ..Self::default() };
        for (kind, log_key) in [(LogKind::Keys, KEYS), (LogKind::Uses, 9)] {
            let (origin, key, version) = (format!("example.org/{}", kind.name()), "key".to_owned(), "1".to_owned());
            let locator = format!("team/transit/{}/1", name(log_key));
            let created = LogCreated { origin, key, keystore: "vault".into(), locator, installation: "prod".into(), version };
            // Each log is made by a process of its own.
            world.boot = if kind == LogKind::Keys { 98 } else { 99 };
            world.record(kind, BEGIN, Event::LogCreated(created));
        }
        world.boot = 1;
        world.traffic(BEGIN);
        world.started(BEGIN, false);
        for key in 0..KEYS {
            world.made(BEGIN + 5, key);
            world.activated(BEGIN + 9, key);
        }
        world
    }

    /// A key is asked for; it is tested and recorded two seconds later.
    pub(super) fn made(&mut self, seconds: u64, key: usize) {
        let keystore = if key < 2 { "aws" } else { "vault" };
        let (keyring, algorithm) = ("access".to_owned(), Algorithm::EdDSA);
        let requested = KeyRequested { key: name(key), keyring, keystore: keystore.into(), algorithm };
        self.record(LogKind::Keys, seconds, Event::KeyRequested(requested));
        let self_test = Some(self.signed(seconds + 1, key));
        let (kid, jwk) = (kid(key), PublicKey::from_ed25519(&[1; 32]));
        let (attributes, locator) = (BTreeMap::new(), locator(key));
        let created = KeyCreated { key: name(key), kid, jwk, locator, attributes, backend_request: None, self_test };
        self.record(LogKind::Keys, seconds + 2, Event::KeyCreated(created));
    }

    /// The key signs from now on, beside the others: each is the only one of its keyring, as it were.
    pub(super) fn activated(&mut self, seconds: u64, key: usize) {
        let (keyring, reason, note) = ("access".to_owned(), RotationReason::Bootstrap, None);
        let (from, to, withdraw_after, next_rotation) = (None, kid(key), None, at(seconds));
        let rotated = KeyRotated { keyring, from, to, reason, forced: false, note, withdraw_after, next_rotation, timing: 0 };
        self.record(LogKind::Keys, seconds, Event::KeyRotated(rotated));
    }

    /// Time goes on to its end, and the daemon with it.
    pub(super) fn ended(mut self) -> Self {
        self.traffic(END);
        self.record(LogKind::Uses, END, Event::LogHeartbeat(LogHeartbeat {}));
        self
    }

    pub(super) fn record(&mut self, log: LogKind, seconds: u64, event: Event) {
        let records = if log == LogKind::Keys { &mut self.keys } else { &mut self.uses };
        let (seq, boot, asked) = (records.len() as u64, format!("boot-{}", self.boot), Asked::default());
        let (time, prev, node) = (at(seconds), Hash::EMPTY_ROOT, "a".to_owned());
        records.push(Record { log, seq, time, prev, durable: seq, node, boot, asked, event });
    }

    /// The other node records something in its use log.
    pub(super) fn other_record(&mut self, seconds: u64, event: Event) {
        self.record(LogKind::Uses, seconds, event);
        let mut record = self.uses.pop().unwrap();
        record.node = "b".to_owned();
        record.seq = self.other.len() as u64;
        self.other.push(record);
    }

    pub(super) fn started(&mut self, seconds: u64, unclean: bool) {
        let start = DaemonStart { version: "1".into(), unclean, in_flight: self.in_flight };
        self.record(LogKind::Keys, seconds, Event::DaemonStart(start));
    }

    /// What others do in the same account and in the same Vault.
    pub(super) fn traffic(&mut self, seconds: u64) {
        self.trail.push(
            json!({"eventSource": "s3.amazonaws.com", "eventName": "ListBuckets", "eventTime": time(seconds), "awsRegion": "eu-central-1",
            "recipientAccountId": TRAIL, "requestID": "other", "requestParameters": [1], "resources": "none", "userIdentity": null}),
        );
        self.vault.push(json!({"time": time(seconds), "type": "response", "request": {"id": "other", "path": "sys/health"}}).to_string());
    }

    pub(super) fn next(&mut self) -> String {
        self.requests += 1;
        format!("8d0b35e0-46cf-48b9-be99-{:012}", self.requests)
    }

    /// The keystore signs; gives the request id.
    pub(super) fn signed(&mut self, seconds: u64, key: usize) -> String {
        let request = self.next();
        self.entry(seconds, key, &request, None);
        request
    }

    pub(super) fn entry(&mut self, seconds: u64, key: usize, request: &str, error: Option<&str>) {
        if key < 2 {
            let mut event = json!({"eventSource": "kms.amazonaws.com", "eventName": "Sign", "eventTime": time(seconds), "awsRegion": "eu-central-1",
                "recipientAccountId": TRAIL, "requestID": request, "eventID": format!("e-{request}"), "sourceIPAddress": "192.0.2.7",
                "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/claviger/i-1"},
                "requestParameters": {"keyId": arn(key), "messageType": "DIGEST", "signingAlgorithm": "ECDSA_SHA_256"},
                "resources": [{"accountId": TRAIL, "type": "AWS::KMS::Key", "ARN": arn(key)}]});
            if let Some(error) = error {
                event["errorCode"] = error.into();
            }
            self.trail.push(event);
            return;
        }
        let base = json!({"time": time(seconds), "type": "request", "auth": {"display_name": "approle", "metadata": {"role_name": "claviger"}},
            "request": {"id": request, "operation": "update", "mount_type": "transit", "path": format!("transit/sign/{}", name(key)),
            "namespace": {"id": "x", "path": "team/"}, "remote_address": "192.0.2.8", "data": {"input": "hmac-sha256:00"}}});
        let mut answer = base.clone();
        answer["type"] = "response".into();
        match error {
            Some(error) => answer["error"] = error.into(),
            None => answer["response"] = json!({"data": {"signature": "hmac-sha256:00"}}),
        }
        self.vault.extend([base.to_string(), answer.to_string()]);
    }

    pub(super) fn sign(&mut self, seconds: u64, key: usize) {
        let request = self.signed(seconds, key);
        self.sign_record(seconds, key, &request);
    }

    pub(super) fn sign_record(&mut self, seconds: u64, key: usize, request: &str) {
        let (keyring, alg, input) = ("access".to_owned(), Algorithm::EdDSA, Hash::EMPTY_ROOT);
        let (typ, jti, subject, iat, policy) = (None, None, None, None, Vec::new());
        let (kid, backend_request) = (kid(key), Some(request.to_owned()));
        let sign = Sign { keyring, kid, alg, input, typ, jti, subject, iat, exp: 0, size: 1, policy, backend_request };
        self.record(LogKind::Uses, seconds, Event::Sign(sign));
    }

    /// The keystore signs, and nobody gets the answer.
    pub(super) fn unanswered(&mut self, seconds: u64, key: usize) {
        self.signed(seconds, key);
        let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(key), count: 1 };
        self.record(LogKind::Uses, seconds + 3, Event::SignUnanswered(unanswered));
    }

    pub(super) fn refused(&mut self, seconds: u64, key: usize) {
        let request = self.next();
        self.entry(seconds, key, &request, Some("ThrottlingException"));
        let (keyring, kid, code) = ("access".to_owned(), kid(key), "retry".to_owned());
        let failed = SignFailed { keyring, kid, code, reason: None, of: None, backend_request: None };
        self.record(LogKind::Uses, seconds, Event::SignFailed(failed));
    }

    /// The keystore signs, the answer cannot be used, and a record says so.
    pub(super) fn unusable(&mut self, seconds: u64, key: usize) {
        let request = self.signed(seconds, key);
        let (keyring, kid, code) = ("access".to_owned(), kid(key), "unusable".to_owned());
        let failed = SignFailed { keyring, kid, code, reason: None, of: None, backend_request: Some(request) };
        self.record(LogKind::Uses, seconds, Event::SignFailed(failed));
    }

    /// Killed in the middle of a call; started again after an hour.
    pub(super) fn killed(&mut self, seconds: u64, key: usize) {
        self.record(LogKind::Uses, seconds - 1, Event::LogHeartbeat(LogHeartbeat {}));
        self.signed(seconds, key);
        self.boot += 1;
        self.record(LogKind::Uses, seconds + 3_600, Event::LogRecovered(LogRecovered { bytes: 1, sha256: Hash::EMPTY_ROOT }));
        self.started(seconds + 3_600, true);
    }

    pub(super) fn compare(&self) -> (Reconciliation, Vec<Finding>) {
        let vault = self.vault.join("\n") + "\n";
        let trail = json!({ "Records": self.trail }).to_string();
        let log = |name: &str, backend, keystore, text: String| {
            let open = move || Ok(Box::new(Cursor::new(text.clone().into_bytes())) as Box<dyn BufRead>);
            let files = vec![Segment { name: format!("{name} file"), open: Box::new(open) }];
            BackendLog { name: name.to_owned(), backend, keystore, files }
        };
        let backends = [log("trail", Backend::CloudTrail, None, trail), log("audit", Backend::Vault, self.keystore.clone(), vault)];
        let (mut account, mut findings) = (Account::open(&backends, None).unwrap(), Findings::default());
        for records in [&self.keys, &self.uses, &self.other].into_iter().filter(|records| !records.is_empty()) {
            account.begin(None);
            let kind = records[0].log;
            if self.pruned && kind == LogKind::Uses {
                account.pruned();
            }
            for record in records {
                let at = Location { file: record.log.name().to_owned(), line: record.seq + 1, seq: record.seq, offset: 0 };
                account.record(record, &at, &mut findings);
            }
            let unsigned = self.unsigned.get(&kind).copied().unwrap_or_default();
            let signed = records.last().map_or(0, |last| last.seq + 1 - unsigned);
            let last = records.iter().rfind(|record| record.seq < signed);
            account.end(signed, last.map(|record| record.time), false);
        }
        let result = account.settle(&mut findings);
        (result, findings.list().to_vec())
    }

    pub(super) fn differences(&self) -> Vec<String> {
        let (result, findings) = self.compare();
        assert_eq!(result.differing, findings.len() as u64);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Differs), "{findings:#?}");
        findings.into_iter().map(|finding| format!("{} / {}", finding.text, finding.found.unwrap_or_default())).collect()
    }
}

pub(super) fn time(seconds: u64) -> String {
    at(seconds).to_string().replace(".000Z", "Z")
}
