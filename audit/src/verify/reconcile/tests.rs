//! A small world: a daemon with keys in AWS KMS and in Vault, what it records, and what the two write down. Honest worlds have no difference,
//! whatever befalls them; whoever changes one entry or one record makes one.

use std::collections::BTreeMap;
use std::io::{BufRead, Cursor};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Algorithm;
use crate::event::*;
use crate::jwk::PublicKey;
use crate::merkle::Hash;
use crate::names::KeyName;
use crate::record::{Asked, Record};
use crate::verify::chain::Visit as _;
use crate::verify::{Finding, Findings, Verdict};

/// Keys 0 and 1 live in KMS, 2 and 3 in Vault.
const KEYS: usize = 4;
const TRAIL: &str = "111122223333";
/// A day: longer than all margins together.
const BEGIN: u64 = 1_800_000_000;
const END: u64 = BEGIN + 86_400;

#[derive(Clone)]
struct World {
    keys: Vec<Record>,
    uses: Vec<Record>,
    trail: Vec<serde_json::Value>,
    vault: Vec<String>,
    requests: u64,
    boot: u32,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds.cast_signed())
}

fn name(key: usize) -> KeyName {
    KeyName::new("prod", if key == KEYS { "log" } else { "access" }, u32::try_from(key).unwrap() + 1, 0xc1a1_0000).unwrap()
}

fn kid(key: usize) -> String {
    format!("kid-{key}")
}

fn arn(key: usize) -> String {
    format!("arn:aws:kms:eu-central-1:{TRAIL}:key/0987dcba-0000-0000-0000-00000000000{key}")
}

fn locator(key: usize) -> String {
    if key < 2 { arn(key) } else { format!("team/transit/{}/1", name(key)) }
}

impl World {
    fn new() -> Self {
        let mut world = Self { keys: Vec::new(), uses: Vec::new(), trail: Vec::new(), vault: Vec::new(), requests: 0, boot: 1 };
        for (kind, log_key) in [(LogKind::Keys, KEYS), (LogKind::Uses, 9)] {
            let (origin, key, version) = (format!("example.org/{}", kind.name()), "key".to_owned(), "1".to_owned());
            let locator = format!("team/transit/{}/1", name(log_key));
            let created = LogCreated { origin, key, keystore: "vault".into(), locator, installation: "prod".into(), version };
            world.record(kind, BEGIN, Event::LogCreated(created));
        }
        world.traffic(BEGIN);
        world.started(BEGIN, false);
        for key in 0..KEYS {
            let keystore = if key < 2 { "aws" } else { "vault" };
            let requested =
                KeyRequested { key: name(key), keyring: "access".into(), keystore: keystore.into(), algorithm: Algorithm::EdDSA };
            world.record(LogKind::Keys, BEGIN + 5, Event::KeyRequested(requested));
            let self_test = Some(world.signed(BEGIN + 6, key));
            let (kid, jwk) = (kid(key), PublicKey::from_ed25519(&[1; 32]));
            let (attributes, locator) = (BTreeMap::new(), locator(key));
            let created = KeyCreated { key: name(key), kid, jwk, locator, attributes, backend_request: None, self_test };
            world.record(LogKind::Keys, BEGIN + 7, Event::KeyCreated(created));
        }
        world
    }

    /// Time goes on to its end, and the daemon with it.
    fn ended(mut self) -> Self {
        self.traffic(END);
        self.record(LogKind::Uses, END, Event::LogHeartbeat(LogHeartbeat {}));
        self
    }

    fn record(&mut self, log: LogKind, seconds: u64, event: Event) {
        let records = if log == LogKind::Keys { &mut self.keys } else { &mut self.uses };
        let (seq, boot, asked) = (records.len() as u64, format!("boot-{}", self.boot), Asked::default());
        let (time, prev, node) = (at(seconds), Hash::EMPTY_ROOT, "a".to_owned());
        records.push(Record { log, seq, time, prev, durable: seq, node, boot, asked, event });
    }

    fn started(&mut self, seconds: u64, unclean: bool) {
        let start = DaemonStart { version: "1".into(), unclean, in_flight: 2 };
        self.record(LogKind::Keys, seconds, Event::DaemonStart(start));
    }

    /// What others do in the same account and in the same Vault.
    fn traffic(&mut self, seconds: u64) {
        self.trail.push(
            json!({"eventSource": "s3.amazonaws.com", "eventName": "ListBuckets", "eventTime": time(seconds), "awsRegion": "eu-central-1",
            "recipientAccountId": TRAIL, "requestID": "other", "requestParameters": [1], "resources": "none", "userIdentity": null}),
        );
        self.vault.push(json!({"time": time(seconds), "type": "response", "request": {"id": "other", "path": "sys/health"}}).to_string());
    }

    fn next(&mut self) -> String {
        self.requests += 1;
        format!("8d0b35e0-46cf-48b9-be99-{:012}", self.requests)
    }

    /// The keystore signs; gives the request id.
    fn signed(&mut self, seconds: u64, key: usize) -> String {
        let request = self.next();
        self.entry(seconds, key, &request, None);
        request
    }

    fn entry(&mut self, seconds: u64, key: usize, request: &str, error: Option<&str>) {
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

    fn sign(&mut self, seconds: u64, key: usize) {
        let request = self.signed(seconds, key);
        self.sign_record(seconds, key, &request);
    }

    fn sign_record(&mut self, seconds: u64, key: usize, request: &str) {
        let (keyring, alg, input) = ("access".to_owned(), Algorithm::EdDSA, Hash::EMPTY_ROOT);
        let (typ, jti, subject, iat, policy) = (None, None, None, None, Vec::new());
        let (kid, backend_request) = (kid(key), Some(request.to_owned()));
        let sign = Sign { keyring, kid, alg, input, typ, jti, subject, iat, exp: 0, size: 1, policy, backend_request };
        self.record(LogKind::Uses, seconds, Event::Sign(sign));
    }

    /// The keystore signs, and nobody gets the answer.
    fn unanswered(&mut self, seconds: u64, key: usize) {
        self.signed(seconds, key);
        let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(key), count: 1 };
        self.record(LogKind::Uses, seconds + 3, Event::SignUnanswered(unanswered));
    }

    fn refused(&mut self, seconds: u64, key: usize) {
        let request = self.next();
        self.entry(seconds, key, &request, Some("ThrottlingException"));
        let (keyring, kid, code) = ("access".to_owned(), kid(key), "retry".to_owned());
        let failed = SignFailed { keyring, kid, code, reason: None, of: None, backend_request: None };
        self.record(LogKind::Uses, seconds, Event::SignFailed(failed));
    }

    /// The keystore signs, the answer cannot be used, and a record says so.
    fn unusable(&mut self, seconds: u64, key: usize) {
        let request = self.signed(seconds, key);
        let (keyring, kid, code) = ("access".to_owned(), kid(key), "unusable".to_owned());
        let failed = SignFailed { keyring, kid, code, reason: None, of: None, backend_request: Some(request) };
        self.record(LogKind::Uses, seconds, Event::SignFailed(failed));
    }

    /// Killed in the middle of a call; started again after an hour.
    fn killed(&mut self, seconds: u64, key: usize) {
        self.record(LogKind::Uses, seconds - 1, Event::LogHeartbeat(LogHeartbeat {}));
        self.signed(seconds, key);
        self.boot += 1;
        self.record(LogKind::Uses, seconds + 3_600, Event::LogRecovered(LogRecovered { bytes: 1, sha256: Hash::EMPTY_ROOT }));
        self.started(seconds + 3_600, true);
    }

    fn compare(&self) -> (Reconciliation, Vec<Finding>) {
        let vault = self.vault.join("\n") + "\n";
        let trail = json!({ "Records": self.trail }).to_string();
        let log = |name: &str, backend, text: String| {
            let open = move || Ok(Box::new(Cursor::new(text.clone().into_bytes())) as Box<dyn BufRead>);
            let files = vec![Segment { name: format!("{name} file"), open: Box::new(open) }];
            BackendLog { name: name.to_owned(), backend, keystore: None, files }
        };
        let backends = [log("trail", Backend::CloudTrail, trail), log("audit", Backend::Vault, vault)];
        let (mut account, mut findings) = (Account::open(&backends, None).unwrap(), Findings::default());
        for records in [&self.keys, &self.uses] {
            account.begin(None);
            for record in records {
                let at = Location { file: record.log.name().to_owned(), line: record.seq + 1, seq: record.seq, offset: 0 };
                account.record(record, &at, &mut findings);
            }
            account.end(records.len() as u64, records.last().map(|record| record.time), false);
        }
        let result = account.settle(&mut findings);
        (result, findings.list().to_vec())
    }

    fn differences(&self) -> Vec<String> {
        let (result, findings) = self.compare();
        assert_eq!(result.differing, findings.len() as u64);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Differs), "{findings:#?}");
        findings.into_iter().map(|finding| format!("{} / {}", finding.text, finding.found.unwrap_or_default())).collect()
    }
}

fn time(seconds: u64) -> String {
    at(seconds).to_string().replace(".000Z", "Z")
}

/// What happens to a request: how, and by which key.
fn happenings(most: u8) -> impl Strategy<Value = Vec<(u8, usize)>> {
    proptest::collection::vec((0..most, 0..KEYS), 1..40)
}

fn told(happenings: &[(u8, usize)]) -> World {
    let mut world = World::new();
    // An hour in, so that neither end is near: more than every margin.
    let mut seconds = BEGIN + 3_600;
    for (what, key) in happenings {
        match what {
            0..=3 => world.sign(seconds, *key),
            4 => world.unanswered(seconds, *key),
            5 => world.refused(seconds, *key),
            6 => world.unusable(seconds, *key),
            _ => {
                world.killed(seconds, *key);
                seconds += 3_600;
            }
        }
        seconds += 7;
    }
    world.ended()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_honest_world_differs_in_nothing(happened in happenings(8).prop_filter("one day", |h| h.iter().filter(|(what, _)| *what == 7).count() < 12)) {
        let world = told(&happened);
        let (result, findings) = world.compare();
        prop_assert_eq!(findings, Vec::new());
        let count = |what: &[u8]| happened.iter().filter(|(happening, _)| what.contains(happening)).count() as u64;
        prop_assert_eq!((result.matched, result.allowed_count), (KEYS as u64 + count(&[0, 1, 2, 3, 6]), count(&[4, 7])));
        prop_assert_eq!((result.foreign, result.too_new, result.too_old, result.log_keys), (0, 0, 0, 0));
    }

    #[test]
    fn an_entry_that_is_taken_away_is_missed(happened in happenings(7), place in any::<prop::sample::Index>()) {
        let mut world = told(&happened);
        let signed: Vec<&Record> = world.uses.iter().filter(|record| matches!(&record.event, Event::Sign(_))).collect();
        prop_assume!(!signed.is_empty());
        let Event::Sign(Sign { backend_request: Some(request), .. }) = &place.get(&signed).event else { unreachable!() };
        let request = request.clone();
        world.trail.retain(|event| event["requestID"] != request);
        world.vault.retain(|line| !line.contains(&request));
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        prop_assert!(differences[0].starts_with("the keystore's own record shows no signature"), "{differences:?}");
    }

    #[test]
    fn a_record_that_is_taken_away_is_missed(happened in happenings(7), place in any::<prop::sample::Index>()) {
        let mut world = told(&happened);
        let explains = |record: &&Record| matches!(&record.event, Event::Sign(_) | Event::SignUnanswered(_))
            || matches!(&record.event, Event::SignFailed(failed) if failed.backend_request.is_some());
        let seqs: Vec<u64> = world.uses.iter().filter(explains).map(|record| record.seq).collect();
        prop_assume!(!seqs.is_empty());
        let gone = *place.get(&seqs);
        world.uses.retain(|record| record.seq != gone);
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        prop_assert!(differences[0].contains("that no record explains"), "{differences:?}");
    }

    #[test]
    fn an_id_or_a_kid_that_is_changed_is_seen(happened in happenings(7), place in any::<prop::sample::Index>(), other in 0..KEYS) {
        let world = told(&happened);
        let signs: Vec<usize> = world.uses.iter().enumerate().filter(|(_, record)| matches!(record.event, Event::Sign(_))).map(|(i, _)| i).collect();
        prop_assume!(!signs.is_empty());
        let change = |change: &dyn Fn(&mut Sign)| {
            let mut world = world.clone();
            let Event::Sign(sign) = &mut world.uses[*place.get(&signs)].event else { unreachable!() };
            change(sign);
            world.differences()
        };
        prop_assert_eq!(change(&|sign| sign.backend_request = Some("8d0b35e0-0000-0000-0000-000000000000".into())).len(), 2);
        let same = change(&|sign| sign.kid = kid(other));
        let Event::Sign(sign) = &world.uses[*place.get(&signs)].event else { unreachable!() };
        prop_assert_eq!(same.len(), usize::from(sign.kid != kid(other)), "{:?}", same);
    }

    #[test]
    fn a_signature_of_somebody_else_is_seen(happened in happenings(7), key in 0..KEYS, later in 0_u64..80_000) {
        let mut world = told(&happened);
        let request = world.next();
        world.entry(BEGIN + 3_600 + later, key, &request, None);
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        // Beside an honest call without an answer nobody can say which of the two was counted; one of them is told.
        prop_assert!(differences[0].contains(if key < 2 { "assumed-role/claviger" } else { "approle role claviger from 192.0.2.8" }), "{differences:?}");
    }
}

#[test]
fn two_records_of_one_signature_are_one_too_many() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 2);
    let Event::Sign(Sign { backend_request: Some(request), .. }) = world.uses.last().unwrap().event.clone() else { unreachable!() };
    world.sign_record(BEGIN + 7_201, 2, &request);
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].starts_with("two records name one signature"), "{differences:?}");
}

#[test]
fn a_batch_is_never_ours() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 2);
    let batch = world
        .vault
        .last()
        .unwrap()
        .replace(r#""input":"hmac-sha256:00""#, r#""batch_input":[{"input":"hmac-sha256:00"},{"input":"hmac-sha256:01"}]"#);
    *world.vault.last_mut().unwrap() = batch;
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].contains("signed several inputs"), "{differences:?}");
}

#[test]
fn keys_of_ours_that_no_record_knows_are_seen_and_others_are_not() {
    let mut world = World::new();
    // In Vault the name tells whose it is; in KMS an alias or a tag does.
    let request = world.next();
    world.entry(BEGIN + 7_200, 7, &request, None);
    let foreign = format!("arn:aws:kms:eu-central-1:{TRAIL}:key/00000000-0000-0000-0000-000000000001");
    for (event, parameters) in [
        ("CreateAlias", json!({"aliasName": "alias/prod/access/8-c1a10000", "targetKeyId": foreign})),
        ("Sign", json!({"keyId": foreign})),
        ("Sign", json!({"keyId": "alias/somebody-elses"})),
    ] {
        let request = world.next();
        world.trail.push(
            json!({"eventSource": "kms.amazonaws.com", "eventName": event, "eventTime": time(BEGIN + 7_300), "awsRegion": "eu-central-1",
            "recipientAccountId": TRAIL, "requestID": request, "requestParameters": parameters}),
        );
    }
    world.vault.push(
        json!({"time": time(BEGIN + 7_400), "type": "response", "request": {"id": "x", "path": "transit/sign/somebody-elses"}}).to_string(),
    );
    let world = world.ended();
    let differences = world.differences();
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences.iter().all(|text| text.contains("that no record knows")), "{differences:?}");
    assert_eq!(world.compare().0.foreign, 1);
}

#[test]
fn log_keys_are_counted_only() {
    let mut world = World::new();
    for key in [KEYS, 9] {
        let request = world.next();
        world.entry(BEGIN + 7_200, key, &request, None);
    }
    let (result, findings) = world.ended().compare();
    // The second one is named as a key of the keyring, and the use log says that it is its own.
    assert_eq!((result.log_keys, findings), (2, Vec::new()));
}

#[test]
fn what_is_near_an_end_is_not_judged() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 0);
    // CloudTrail has not delivered it yet.
    let request = world.next();
    world.sign_record(END - 600, 0, &request);
    let mut late = world.clone();
    let mut world = world.ended();
    // Nobody can say whether a record is on its way.
    let request = world.next();
    world.entry(END + 60, 3, &request, None);
    let (result, findings) = world.compare();
    assert_eq!((result.too_new, result.outside, findings), (1, 1, Vec::new()));
    // Vault writes at once; and long after the end of the log no record is on its way.
    late.sign_record(END - 600, 2, "none");
    let mut late = late.ended();
    let request = late.next();
    late.entry(END + 600, 3, &request, None);
    late.traffic(END + 700);
    assert_eq!(late.differences().len(), 2);
}

/// Whoever stopped has recorded everything: then nothing waits for its record, up to the last second and after it.
#[test]
fn logs_that_were_stopped_are_judged_to_their_end() {
    let stopped = |world: &mut World| world.record(LogKind::Keys, END, Event::DaemonStop(DaemonStop { reason: "signal".into() }));
    let mut world = World::new().ended();
    let request = world.next();
    world.entry(END + 60, 3, &request, None);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (1, 0));
    stopped(&mut world);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (0, 1));
    // The next one runs.
    world.boot += 1;
    world.started(END + 30, false);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (1, 0));
}

#[test]
fn a_record_of_another_time_or_of_no_key_compares_nothing() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 0);
    world.trail.clear();
    world.traffic(BEGIN - 86_400);
    let (result, findings) = world.compare();
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!((result.differing, findings[0].verdict, texts.len()), (0, Verdict::Unpinned, 1));
    assert!(texts[0].starts_with("nothing was compared with trail"), "{texts:?}");
}

/// The self-test of a key that never came to be: a kid that no record tells, of a key that was asked for.
#[test]
fn a_self_test_that_fails_is_explained() {
    let mut world = World::new();
    let requested = KeyRequested { key: name(5), keyring: "access".into(), keystore: "vault".into(), algorithm: Algorithm::EdDSA };
    world.record(LogKind::Keys, BEGIN + 7_000, Event::KeyRequested(requested));
    let (keyring, code) = ("access".to_owned(), "self_test".to_owned());
    let backend_request = Some(world.signed(BEGIN + 7_100, 5));
    let failed = SignFailed { keyring: keyring.clone(), kid: "new".into(), code, reason: None, of: None, backend_request };
    world.record(LogKind::Uses, BEGIN + 7_100, Event::SignFailed(failed));
    world.signed(BEGIN + 7_200, 5);
    world.record(LogKind::Uses, BEGIN + 7_210, Event::SignUnanswered(SignUnanswered { keyring, kid: "new".into(), count: 1 }));
    let mut thief = world.clone();
    let (result, findings) = world.ended().compare();
    assert_eq!((result.matched, result.allowed_count, findings), (KEYS as u64 + 1, 1, Vec::new()));
    thief.signed(BEGIN + 7_220, 5);
    let differences = thief.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].contains("was never taken into use"), "{differences:?}");
}

#[test]
fn an_allowance_goes_to_whom_only_it_can_cover() {
    let mut world = World::new();
    world.sign(BEGIN + 7_000, 2);
    // Far from the kill, covered by its own count alone; near it, both could cover.
    world.signed(BEGIN + 7_100, 2);
    let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(2), count: 1 };
    world.record(LogKind::Uses, BEGIN + 7_200, Event::SignUnanswered(unanswered));
    world.signed(BEGIN + 7_350, 2);
    world.killed(BEGIN + 7_351, 2);
    let (result, findings) = world.ended().compare();
    assert_eq!((result.allowed_count, findings), (3, Vec::new()));
}
