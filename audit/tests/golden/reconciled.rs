//! A pair of logs with what the keystores wrote down beside it: an audit device of Vault, and a trail of CloudTrail.
//!
//! In scope: one honest story with a lost answer, a refusal and a kill, which must be verified; the same with a signature of a thief and
//! with an entry taken away, which must not; the reports of both. The entries are in the forms that are documented: "Audit log entry
//! schema" of Vault, "Sign" under "Logging AWS KMS API calls with AWS CloudTrail". Out of scope: other stories, which the tests of
//! `verify::reconcile` make up.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Cursor, Write as _};
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::backend::Backend;
use claviger_audit::event::*;
use claviger_audit::jwks;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::Hash;
use claviger_audit::record::Record;
use claviger_audit::report;
use claviger_audit::trust::Policy;
use claviger_audit::verify::reconcile::BackendLog;
use claviger_audit::verify::{Input, LogFiles, MinSize, Options, Report, Segment, verify};
use serde_json::{Value, json};

use super::builder::{Files, ORIGIN, Writer, at, kid, name, public, timing, verifier_key};
use super::{command, log_files, testdata};

const LEAD: u64 = 940;
/// When the key in KMS takes over from the key in Vault.
const MOVE: u64 = 1_200;
/// When the daemon is killed.
const KILL: u64 = 5_000;
const END: u64 = 9_000;
const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "111122223333";
const TRAIL: &str =
    "aws/AWSLogs/111122223333/CloudTrail/eu-central-1/2026/01/01/111122223333_CloudTrail_eu-central-1_20260101T0005Z_e1.json";

struct Tale {
    keys: Writer,
    uses: Writer,
    keyrings: Keyrings,
    trail: Vec<Value>,
    vault: Vec<Value>,
    /// The size of the key log that the use log names.
    seen: u64,
}

fn arn(number: u32) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/0987dcba-09fe-87dc-65ba-ab098765432{number}")
}

fn locator(number: u32) -> String {
    if number == 1 { format!("transit/{}/1", name(1)) } else { arn(number) }
}

fn request(seconds: u64) -> String {
    format!("8d0b35e0-46cf-48b9-be99-{seconds:012}")
}

impl Tale {
    fn keys(&mut self, seconds: u64, event: Event) {
        let record = self.keys.append(seconds, event);
        self.keyrings.apply(&record).unwrap();
    }

    fn key(&mut self, seconds: u64, number: u32, keystore: &str) {
        let (key, kid, keystore) = (name(number), kid(number), keystore.to_owned());
        self.keys(seconds, Event::KeyRequested(KeyRequested { key, keyring: "access".into(), keystore, algorithm: Algorithm::EdDSA }));
        self.entry(seconds, number, None);
        let (key, jwk, attributes) = (name(number), public(number), BTreeMap::new());
        let (locator, self_test) = (locator(number), Some(request(seconds)));
        let created = KeyCreated { key, kid: kid.clone(), jwk, locator, attributes, backend_request: None, self_test };
        self.keys(seconds + 1, Event::KeyCreated(created));
        self.keys(seconds + 1, Event::KeyPublished(KeyPublished { kid, earliest_activation: at(seconds + 1 + LEAD), timing: 3 }));
        if number > 1 {
            self.served(seconds + 2);
        }
    }

    fn served(&mut self, seconds: u64) {
        for set in self.keyrings.sets() {
            let sha256 = Hash::digest(&jwks::body(&self.keyrings, &set).unwrap());
            let size = self.keys.frontier.size();
            self.keys(seconds, Event::JwksServed(JwksServed { set: set.to_string(), size, sha256 }));
        }
    }

    fn activated(&mut self, seconds: u64, from: Option<u32>, to: u32) {
        let reason = if from.is_some() { RotationReason::OnDemand } else { RotationReason::Bootstrap };
        let withdraw_after = from.map(|_| at(seconds + 962));
        let (keyring, next_rotation) = ("access".to_owned(), at(seconds + 30 * 86_400));
        let (from, to, note) = (from.map(kid), kid(to), None);
        self.keys(
            seconds,
            Event::KeyRotated(KeyRotated { keyring, from, to, reason, forced: false, note, withdraw_after, next_rotation, timing: 3 }),
        );
        self.served(seconds + 1);
    }

    fn sign(&mut self, seconds: u64, number: u32) {
        self.entry(seconds, number, None);
        let size = self.keys.frontier.size();
        if size > self.seen {
            self.uses.append(seconds, Event::KeysSeen(KeysSeen { size, leaf: self.keys.prev }));
            self.seen = size;
        }
        let sign = Sign {
            keyring: "access".into(),
            kid: kid(number),
            alg: Algorithm::EdDSA,
            input: Hash::digest(format!("input {seconds}").as_bytes()),
            typ: Some("at+jwt".into()),
            jti: None,
            subject: None,
            iat: Some(at(seconds).seconds()),
            exp: at(seconds + 900).seconds(),
            size,
            policy: vec!["issuers-may-sign".into()],
            backend_request: Some(request(seconds)),
        };
        self.uses.append(seconds, Event::Sign(sign));
    }

    fn failed(&mut self, seconds: u64, number: u32) {
        let (keyring, kid, code) = ("access".to_owned(), kid(number), "retry".to_owned());
        self.uses.append(seconds, Event::SignFailed(SignFailed { keyring, kid, code, reason: None, of: None, backend_request: None }));
    }

    /// What the keystore writes down of a request.
    fn entry(&mut self, seconds: u64, number: u32, error: Option<&str>) {
        if number == 1 { self.vault.extend(audited(seconds, error)) } else { self.trail.push(event(seconds, number, error)) }
    }

    /// What others do there.
    fn traffic(&mut self, seconds: u64) {
        let login = json!({"time": at(seconds).to_string(), "type": "request", "auth": {"token_type": "default"}, "request": {"id": request(seconds + 1),
            "operation": "update", "namespace": {"id": "root"}, "path": "auth/approle/login", "remote_address": "192.0.2.8"}});
        self.vault.push(login);
        self.trail.push(json!({"eventVersion": "1.08", "userIdentity": {"type": "AWSService", "invokedBy": "cloudtrail.amazonaws.com"},
            "eventTime": at(seconds).to_string().replace(".000", ""), "eventSource": "kms.amazonaws.com", "eventName": "GenerateDataKey",
            "awsRegion": REGION, "requestParameters": {"keySpec": "AES_256", "keyId": arn(9)}, "responseElements": null,
            "requestID": request(seconds + 2), "eventID": request(seconds + 3), "recipientAccountId": ACCOUNT}));
    }

    fn told(&mut self) {
        self.traffic(0);
        self.keys(1, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: false, in_flight: 512 }));
        let keyring = KeyringCreated {
            keyring: "access".into(),
            purpose: Purpose::Jwt,
            issuer: Some("main".into()),
            issuer_url: Some("https://auth.example.org".into()),
            typ: Some("at+jwt".into()),
            algorithm: Algorithm::EdDSA,
            keystore: "vault".into(),
            standby_keystore: None,
        };
        self.keys(1, Event::KeyringCreated(keyring));
        self.keys(1, Event::KeyringTiming(KeyringTiming { keyring: "access".into(), timing: timing() }));
        self.key(3, 1, "vault");
        self.activated(6, None, 1);
        let (keyring, algorithm, keystore) = ("access".to_owned(), Algorithm::EdDSA, "aws".to_owned());
        self.keys(10, Event::KeyringChanged(KeyringChanged { keyring, algorithm, keystore, standby_keystore: None }));
        self.key(11, 2, "aws");
        for seconds in [100, 200, 300] {
            self.sign(seconds, 1);
        }
        // The answer is lost; a second call, later, is refused.
        self.entry(400, 1, None);
        self.uses.append(402, Event::SignUnanswered(SignUnanswered { keyring: "access".into(), kid: kid(1), count: 1 }));
        self.entry(500, 1, Some("1 error occurred:\n\t* permission denied\n\n"));
        self.failed(500, 1);
        self.activated(MOVE, Some(1), 2);
        self.key(MOVE + 10, 3, "aws");
        let withdrawn = KeyWithdrawn { kid: kid(1), destroy_after: at(MOVE + 970 + 7 * 86_400) };
        self.keys(MOVE + 970, Event::KeyWithdrawn(withdrawn));
        self.served(MOVE + 971);
        for seconds in [3_000, 3_600, 4_200] {
            self.sign(seconds, 2);
        }
        self.entry(4_300, 2, Some("ThrottlingException"));
        self.failed(4_300, 2);
        self.uses.append(KILL - 20, Event::LogHeartbeat(LogHeartbeat {}));
        self.entry(KILL, 2, None);
        (self.keys.boot, self.uses.boot) = ("77aa".to_owned(), "77aa".to_owned());
        self.uses.append(KILL + 60, Event::LogRecovered(LogRecovered { bytes: 17, sha256: Hash::digest(b"a torn tail") }));
        self.keys(KILL + 61, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: true, in_flight: 512 }));
        self.sign(6_000, 2);
        self.keys(END, Event::UsesHead(self.uses.head()));
        self.uses.append(END, Event::LogHeartbeat(LogHeartbeat {}));
        self.traffic(END);
    }

    fn files(&self) -> Files {
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
        self.backends("", &mut files);
        files
    }

    fn backends(&self, folder: &str, files: &mut Files) {
        files.insert(format!("{folder}{TRAIL}"), (text(&json!({ "Records": self.trail })) + "\n").into_bytes());
        // The device was rotated in the middle.
        let (old, new) = self.vault.split_at(5);
        for (name, entries) in [("audit.log.1", old), ("audit.log", new)] {
            let lines: Vec<String> = entries.iter().map(text).collect();
            files.insert(format!("{folder}vault/{name}"), (lines.join("\n") + "\n").into_bytes());
        }
    }

    /// Somebody signs with both keys beside the daemon, takes an entry away, and tries to take a key out of Vault.
    fn stolen(&mut self) {
        self.entry(2_000, 1, None);
        self.entry(2_001, 2, None);
        self.trail.retain(|event| event["requestID"] != request(3_600));
        for (seconds, error) in [(7_000, Some("1 error occurred")), (7_001, None)] {
            let [_, mut answered] = audited(seconds, error);
            answered["request"]["path"] = format!("transit/backup/{}", name(1)).into();
            self.vault.push(answered);
        }
    }
}

/// As text, the same whatever another package of the build asks of maps: members are sorted.
fn text(value: &Value) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<&String, &Value> = members.iter().collect();
            Value::Object(members.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// An event as "Sign" under "Logging AWS KMS API calls with AWS CloudTrail" has it.
fn event(seconds: u64, number: u32, error: Option<&str>) -> Value {
    let time = at(seconds).to_string().replace(".000", "");
    let role = "arn:aws:sts::111122223333:assumed-role/claviger/i-0abc";
    let mut event = json!({"eventVersion": "1.08", "userIdentity": {"type": "AssumedRole", "principalId": "AROAEXAMPLE:i-0abc", "arn": role,
        "accountId": ACCOUNT, "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/claviger"}}},
        "eventTime": time, "eventSource": "kms.amazonaws.com", "eventName": "Sign", "awsRegion": REGION, "sourceIPAddress": "192.0.2.7",
        "userAgent": "aws-sdk-rust", "requestParameters": {"messageType": "RAW", "keyId": arn(number), "signingAlgorithm": "ED25519_SHA_512"},
        "responseElements": null, "requestID": request(seconds), "eventID": request(seconds + 5), "readOnly": true,
        "resources": [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": arn(number)}], "eventType": "AwsApiCall",
        "managementEvent": true, "recipientAccountId": ACCOUNT, "eventCategory": "Management"});
    if let Some(error) = error {
        event["errorCode"] = error.into();
        event["errorMessage"] = "Rate exceeded".into();
    }
    event
}

/// A request and its response as "Audit log entry schema" of Vault has them.
fn audited(seconds: u64, error: Option<&str>) -> [Value; 2] {
    let auth = json!({"accessor": "hmac-sha256:11", "client_token": "hmac-sha256:22", "display_name": "approle", "entity_id": "7a",
        "metadata": {"role_name": "claviger"}, "policies": ["claviger", "default"], "token_type": "service"});
    let request = json!({"client_token": "hmac-sha256:22", "data": {"input": "hmac-sha256:33", "key_version": 1, "prehashed": false},
        "id": request(seconds), "mount_point": "transit/", "mount_type": "transit", "namespace": {"id": "root"}, "operation": "update",
        "path": format!("transit/sign/{}", name(1)), "remote_address": "192.0.2.8"});
    let time = at(seconds).to_string().replace(".000", ".123456789");
    let asked = json!({"auth": auth, "request": request, "time": time, "type": "request"});
    let mut answered = json!({"auth": auth, "request": request, "time": time, "type": "response"});
    match error {
        Some(error) => answered["error"] = error.into(),
        None => answered["response"] = json!({"data": {"key_version": 1, "signature": "hmac-sha256:44"}, "mount_type": "transit"}),
    }
    [asked, answered]
}

fn tale() -> Tale {
    let keys = Writer::new(LogKind::Keys, format!("{ORIGIN}/keys"), 41, 0);
    let uses = Writer::new(LogKind::Uses, format!("{ORIGIN}/uses/a"), 42, 0);
    let mut keyrings = Keyrings::default();
    keyrings.apply(&Record::parse(keys.segments[0].1.trim_ascii_end()).unwrap()).unwrap();
    let mut tale = Tale { keys, uses, keyrings, trail: Vec::new(), vault: Vec::new(), seen: 0 };
    tale.told();
    tale
}

/// The arguments, and what they name.
fn arguments(folder: &str) -> [(Backend, String); 2] {
    [(Backend::CloudTrail, format!("{folder}aws")), (Backend::Vault, format!("{folder}vault"))]
}

fn compared(files: &Files, folder: &str) -> Report {
    let files: Files = files.iter().map(|(name, bytes)| (format!("reconciled/{name}"), bytes.clone())).collect();
    let backends = arguments(&format!("reconciled/{folder}")).into_iter().map(|(backend, path)| {
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            let bytes = bytes.clone();
            Segment { name: name.clone(), open: Box::new(move || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn BufRead>)) }
        };
        let within = files.iter().filter(|(name, _)| name.starts_with(&format!("{path}/"))).map(file).collect();
        BackendLog { name: format!("{}:{path}", backend.name()), backend, keystore: None, files: within }
    });
    // Named as the command names a folder.
    let log = |name: &str| LogFiles { name: name.to_owned(), ..log_files(&files, &format!("{name}/")) };
    let (keys, uses) = (log("reconciled/log/keys"), log("reconciled/log/uses"));
    let input = Input { keys: Some(keys), uses: vec![uses], former: Vec::new(), backends: backends.collect() };
    let trust = Some(Policy::parse(&files["reconciled/trust"]).unwrap());
    let options =
        Options { trust, min_sizes: vec![MinSize { origin: None, size: 1 }], reconcile_margin: Some(Duration::ZERO), ..Options::default() };
    verify(&input, &options, at(END + 60)).unwrap()
}

/// The golden folder `reconciled`.
pub(crate) fn all() -> Files {
    let mut tale = tale();
    let mut files = tale.files();
    tale.stolen();
    tale.backends("stolen/", &mut files);
    for folder in ["", "stolen/"] {
        let report = compared(&files, folder);
        files.insert(format!("{folder}report.txt"), report::text(&report, false).into_bytes());
        files.insert(format!("{folder}report.github"), report::github(&report).into_bytes());
        files.insert(format!("{folder}report.json"), report::json(&report, false).unwrap().into_bytes());
    }
    files
}

fn run(folder: &str, format: &str, more: &[&str]) -> (i32, String) {
    let now = at(END + 60).to_string();
    let standard = ["verify", "reconciled/log", "--trust", "reconciled/trust", "--min-size", "1", "--now", &now, "--format", format];
    let backends = arguments(folder).map(|(backend, path)| format!("{}:{path}", backend.name()));
    let reconcile = ["--reconcile", &backends[0], "--reconcile", &backends[1]];
    command(&[&standard[..], &reconcile, more].concat())
}

#[test]
fn the_command_compares_with_what_keystores_wrote_down() {
    for (folder, code) in [("", 0), ("stolen/", 17)] {
        for (format, file) in [("text", "report.txt"), ("github", "report.github"), ("json", "report.json")] {
            let golden = fs::read_to_string(testdata().join(format!("reconciled/{folder}{file}"))).unwrap();
            let (found, text) = run(&format!("reconciled/{folder}"), format, &["--reconcile-margin", "0s"]);
            assert_eq!((found, text), (code, golden), "{folder}{file}");
        }
    }
}

#[test]
fn the_thief_is_named_and_the_lost_answer_is_told() {
    let honest = compared(&tale().files(), "").reconciliation.unwrap();
    let because: Vec<&str> = honest.allowed.iter().map(|allowed| allowed.because.split(' ').next().unwrap()).collect();
    assert_eq!((honest.matched, because, honest.differing), (10, vec!["record", "daemon.start"], 0));
    let text = fs::read_to_string(testdata().join("reconciled/stolen/report.txt")).unwrap();
    assert!(text.starts_with("differs (exit 17): 4 findings"), "{text}");
    for words in [
        "approle role claviger from 192.0.2.8",
        "assumed-role/claviger/i-0abc from 192.0.2.7",
        &request(2_000),
        &request(3_600),
        &request(7_001),
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("hmac-sha256"), "{text}");
}

/// Without a margin of one's own: half an hour for CloudTrail, a minute for Vault.
#[test]
fn the_usual_margins_are_wide_enough_and_no_wider() {
    let (code, text) = run("reconciled/", "text", &[]);
    // The first keys are made at the very beginning, where either may lack entries; each of these records has its entry nevertheless.
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("reconciled: 10 signatures matched, 2 without a record allowed, 0 differ"), "{text}");
    let (code, text) = run("reconciled/stolen/", "text", &[]);
    assert!(code == 17 && text.contains(&request(3_600)), "{code} {text}");
    // An hour and a half at both ends leaves nothing of two and a half hours: then the record without an entry cannot be missed.
    let (code, text) = run("reconciled/stolen/", "text", &["--reconcile-margin", "90m"]);
    assert!(code == 17 && !text.contains(&request(3_600)) && text.contains("1 records outside of the time"), "{code} {text}");
}

#[test]
fn a_record_may_be_that_of_one_keystore() {
    let now = at(END + 60).to_string();
    let run = |backends: [&str; 2]| {
        let standard = ["verify", "reconciled/log", "--trust", "reconciled/trust", "--min-size", "1", "--now", &now];
        command(&[&standard[..], &["--reconcile", backends[0], "--reconcile", backends[1]]].concat())
    };
    let (code, text) = run(["cloudtrail@aws:reconciled/aws", "vault@vault:reconciled/vault"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(["cloudtrail@aws:reconciled/aws", "vault@vualt:reconciled/vault"]);
    assert_eq!(code, 16, "{text}");
    assert!(
        text.contains("no key of these logs is in a keystore called \"vualt\"; those of this kind are called ") && text.contains("vault"),
        "{text}"
    );
}

#[test]
fn packed_files_digests_and_torn_lines_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for entry in ["aws/2026/01", "aws/CloudTrail-Digest", "vault"] {
        fs::create_dir_all(folder.path().join(entry)).unwrap();
    }
    let golden = tale().files();
    let pack = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    // Twice the same file, as CloudTrail may deliver it.
    put("aws/2026/01/a.json.gz", &pack(&golden[TRAIL]));
    put("aws/2026/b.json", &golden[TRAIL]);
    put(
        "aws/CloudTrail-Digest/c.json.gz",
        &pack(br#"{"awsAccountId":"111122223333","digestStartTime":"2026-01-01T00:00:00Z","logFiles":[]}"#),
    );
    put("aws/README", b"no file of CloudTrail");
    put("vault/audit.log.2.gz", &pack(&golden["vault/audit.log.1"]));
    // A write that a full disk cut short is joined by the entry after it; the last line is cut by the copy.
    let (first, rest) = golden["vault/audit.log"].split_at(40);
    let joined =
        [b"{\"time\":\"2026-01-01T00:0", &b"{\"time\":\"2026-01-01T00:00:00Z\",\"type\":\"request\"}\n"[..], first, rest, first].concat();
    put("vault/audit.log", &joined);
    let (code, text) = run(&format!("{}/", folder.path().display()), "text", &["--reconcile-margin", "0s"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(": 2 files from ") && text.contains("delivered more than once") && text.contains("2 lines torn"), "{text}");
}

#[test]
fn what_is_no_record_of_a_keystore_is_no_verdict() {
    let verify = |reconcile: &str| command(&["verify", "reconciled/log", "--reconcile", reconcile]).0;
    assert_eq!(verify("cloudtrail:reconciled/vault"), 2, "no file of CloudTrail lies there");
    assert_eq!(verify("cloudtrail:reconciled/report.json"), 74);
    assert_eq!(verify("vault:reconciled/trust"), 74);
    assert_eq!(verify("vault:nowhere"), 74);
    assert_eq!(verify("hsm:reconciled/vault"), 2);
    assert_eq!(command(&["verify", "reconciled/log", "--keys-only", "--reconcile", "vault:reconciled/vault"]).0, 2);
    // The record of another keystore shows nothing of these keys, and that is said.
    assert_eq!(
        command(&["verify", "valid/log", "--trust", "valid/trust", "--min-size", "1", "--reconcile", "vault:reconciled/vault"]).0,
        16
    );
}
