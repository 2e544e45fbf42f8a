//! Logs that lost their tail, and those that go on from them.
//!
//! In scope: what an adoption acknowledges and what it does not, of both logs and of the use log alone. Out of scope: making one (the daemon).

use claviger_audit::event::*;
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::record::Record;
use claviger_audit::trust::Policy;
use claviger_audit::verify::{MinSize, NoteFile, Options, Report};
use claviger_audit::{Algorithm, Timestamp};

use super::builder::{END, FIRST, Files, ORIGIN, SECOND, Story, Writer, at, build, kid};
use super::builder::{note, verifier_key};
use super::{check, command, log_files, write};

/// How many records of the key log are lost: `uses.head` and `daemon.stop`.
const LOST: usize = 2;
const KEYS: &str = "log/keys/00000000000000000000.jsonl";
const FORMER_KEYS: &str = "log/former/1/keys/00000000000000000000.jsonl";

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Size and root of a log.
fn tree<'a>(segments: impl IntoIterator<Item = &'a Vec<u8>>) -> (u64, Hash) {
    let mut frontier = Frontier::new();
    for bytes in segments {
        frontier.extend(lines(bytes).into_iter().map(|line| leaf_hash(line.strip_suffix(b"\n").unwrap())));
    }
    (frontier.size(), frontier.root())
}

fn set_aside(files: &mut Files, log: &str) {
    let names: Vec<String> = files.keys().filter(|name| name.starts_with(&format!("log/{log}/"))).cloned().collect();
    for name in names {
        let bytes = files.remove(&name).unwrap();
        files.insert(name.replacen("log/", "log/former/1/", 1), bytes);
    }
}

fn adopting(kind: LogKind, origin: &str, seed: u8, (size, root): (u64, Hash), lost: u64) -> Writer {
    let mut log = Writer::new(kind, format!("{origin}/adopted-2"), seed, END + 5);
    let adopted = LogAdopted { origin: origin.to_owned(), size, root, lost, reason: Some("restored".to_owned()) };
    log.append(END + 5, Event::LogAdopted(adopted));
    log
}

fn put(files: &mut Files, log: &Writer) {
    let folder = format!("log/{}", log.kind.name());
    for (segment, bytes) in &log.segments {
        files.insert(format!("{folder}/{segment}"), bytes.clone());
    }
    files.insert(format!("{folder}/checkpoint"), log.checkpoint());
    let trust = String::from_utf8(files["trust"].clone()).unwrap();
    let line = format!("log {}\nquorum none", verifier_key(&log.origin, log.secrets.last().unwrap()));
    files.insert("trust".to_owned(), trust.replace("quorum none", &line).into_bytes());
}

fn sign(log: &mut Writer, seconds: u64, size: u64) {
    let sign = Sign {
        keyring: "access".into(),
        kid: kid(2),
        alg: Algorithm::EdDSA,
        input: Hash::digest(b"input"),
        typ: None,
        jti: None,
        subject: None,
        iat: None,
        exp: at(seconds + 600).seconds(),
        size,
        policy: Vec::new(),
        backend_request: None,
    };
    log.append(seconds, Event::Sign(sign));
}

fn go_on(files: &mut Files, mut keys: Writer, mut uses: Writer, resumes: bool) {
    keys.append(END + 6, Event::UsesHead(uses.head()));
    keys.append(END + 7, Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: true, in_flight: 1 }));
    if resumes {
        keys.append(END + 8, Event::KeyResumed(KeyResumed { kid: kid(2), reason: "looked into".into() }));
    }
    let size = keys.frontier.size();
    uses.append(END + 9, Event::KeysSeen(KeysSeen { size, leaf: keys.prev }));
    sign(&mut uses, END + 10, size);
    keys.append(END + 11, Event::UsesHead(uses.head()));
    put(files, &keys);
    put(files, &uses);
}

/// The key log lost its tail: both logs end, and others go on.
fn both_with(lost: u64, resumes: bool) -> Files {
    let mut files = build(Story::Valid);
    let kept = lines(&files[KEYS]).len() - LOST;
    let bytes = lines(&files[KEYS])[..kept].concat();
    let ended = tree([&bytes]);
    files.insert(KEYS.to_owned(), bytes);
    let whole = tree([&files[&format!("log/uses/{FIRST}")], &files[&format!("log/uses/{SECOND}")]]);
    set_aside(&mut files, "keys");
    set_aside(&mut files, "uses");
    let keys = adopting(LogKind::Keys, &format!("{ORIGIN}/keys"), 3, ended, lost);
    let uses = adopting(LogKind::Uses, &format!("{ORIGIN}/uses/a"), 4, whole, 0);
    go_on(&mut files, keys, uses, resumes);
    files
}

/// As it should be: the golden folder `adopted`.
pub(crate) fn both() -> Files {
    let mut files = both_with(LOST as u64, true);
    files.retain(|name, _| name.starts_with("log/") || name == "trust");
    files
}

fn options(files: &Files) -> Options {
    let min_sizes = vec![MinSize { origin: None, size: 2 }];
    Options { trust: Some(Policy::parse(&files["trust"]).unwrap()), min_sizes, ..Options::default() }
}

fn exit(report: &Report) -> u8 {
    report.verdict.exit_code()
}

#[test]
fn an_adoption_is_verified_with_the_logs_before_it() {
    let files = both();
    let report = check(&files, &options(&files));
    assert_eq!((report.findings.list(), exit(&report)), (&[][..], 0));
    let told: Vec<_> = report.logs.iter().map(|log| (log.former, log.ended.as_ref().map(|ended| ended.lost))).collect();
    assert_eq!(told, [(false, None), (false, None), (true, Some(2)), (true, Some(0))]);
    assert_eq!(report.rotations.len(), 2);
    let state = report.keyrings.keyring("access").unwrap().active().and_then(|key| key.kid.clone());
    assert_eq!(state, Some(kid(2)));
}

#[test]
fn what_the_adoption_does_not_say_is_a_loss() {
    let files = both();
    let trusted = options(&files);
    // The checkpoint of before names more records than were said to be lost.
    let unsaid = both_with(LOST as u64 - 1, true);
    assert_eq!(exit(&check(&unsaid, &trusted)), 11);
    // Somebody remembers them.
    let head = |bytes: &[u8]| vec![NoteFile { name: "head".into(), bytes: bytes.to_vec() }];
    let old = build(Story::Valid);
    let remembered = Options { heads: head(&old["log/keys/checkpoint"]), ..trusted.clone() };
    assert_eq!(exit(&check(&files, &remembered)), 11);
    // A head that is not larger is fine, and pins nothing of what goes on.
    let smaller = Options { heads: head(&old["head/keys"]), ..trusted.clone() };
    assert_eq!(exit(&check(&files, &smaller)), 0);
    assert_eq!(exit(&check(&files, &Options { min_sizes: Vec::new(), ..smaller })), 16);
}

#[test]
fn nothing_goes_on_from_nothing() {
    let files = both();
    let trusted = options(&files);
    let without = |prefix: &str| files.clone().into_iter().filter(|(name, _)| !name.starts_with(prefix)).collect::<Files>();
    for prefix in ["log/former", "log/former/1/keys", "log/former/1/uses"] {
        let report = check(&without(prefix), &trusted);
        assert_eq!(exit(&report), 11, "{prefix}: {:#?}", report.findings.list());
        assert!(report.findings.list().iter().any(|finding| finding.text.contains("`former`")), "{prefix}");
    }
    // Cut further, changed, or another log.
    let with = |change: &dyn Fn(&[&[u8]]) -> Vec<u8>| {
        let mut files = files.clone();
        let bytes = change(&lines(&files[FORMER_KEYS]));
        files.insert(FORMER_KEYS.to_owned(), bytes);
        files
    };
    assert_eq!(exit(&check(&with(&|lines| lines[..lines.len() - 1].concat()), &trusted)), 11);
    let changed = with(&|lines| String::from_utf8(lines.concat()).unwrap().replace("slot/1/keys", "slot/2/keys").into_bytes());
    assert_eq!(exit(&check(&changed, &trusted)), 10);
    // What was torn when the log was cut stays as it was found, and counts no more.
    assert_eq!(exit(&check(&with(&|lines| [lines.concat(), b"{\"boot\":\"5f".to_vec()].concat()), &trusted)), 0);
    let old = Options { trust: Some(Policy::parse(&build(Story::Valid)["trust"]).unwrap()), ..trusted };
    assert_eq!(exit(&check(&files, &old)), 16);
    // A log among the former ones that nothing goes on from.
    let mut stray = build(Story::Valid);
    let copy: Files = stray.iter().filter_map(|(name, bytes)| Some((name.strip_prefix("log/keys/")?.to_owned(), bytes.clone()))).collect();
    stray.extend(copy.into_iter().map(|(name, bytes)| (format!("log/former/1/keys/{name}"), bytes)));
    assert_eq!(exit(&check(&stray, &options(&stray))), 16);
}

#[test]
fn a_key_that_nobody_resumed_signs_nothing() {
    let files = both_with(LOST as u64, false);
    let report = check(&files, &options(&files));
    assert_eq!((exit(&report), report.findings.list()[0].rule), (15, Some("I2")), "{:#?}", report.findings.list());
}

/// The use log lost its tail: it ends alone, and the key log goes on with `events` under its own key.
fn uses_alone(lost: u64, roll: bool, events: impl Fn(&Writer) -> Vec<Event>) -> Files {
    let mut files = build(Story::Valid);
    let second = format!("log/uses/{SECOND}");
    let kept = lines(&files[&second])[..3].concat();
    files.insert(second.clone(), kept);
    let ended = tree([&files[&format!("log/uses/{FIRST}")], &files[&second]]);
    set_aside(&mut files, "uses");
    let mut uses = adopting(LogKind::Uses, &format!("{ORIGIN}/uses/a"), 4, ended, lost);
    if roll {
        uses.roll(END + 6, Hash::digest);
    }
    let mut bytes = files[KEYS].clone();
    for event in events(&uses) {
        let last = lines(&bytes).last().unwrap().strip_suffix(b"\n").unwrap().to_vec();
        let before = Record::parse(&last).unwrap();
        let record = Record { seq: before.seq + 1, time: at(END + 6), prev: leaf_hash(&last), event, ..before };
        bytes.extend([record.to_line().unwrap(), b"\n".to_vec()].concat());
    }
    let (size, root) = tree([&bytes]);
    let secret = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    files.insert("log/keys/checkpoint".to_owned(), note(&format!("{ORIGIN}/keys"), size, root, &secret));
    files.insert(KEYS.to_owned(), bytes);
    put(&mut files, &uses);
    files
}

#[test]
fn a_use_log_ends_alone_and_its_loss_is_acknowledged_as_far_as_it_is_said() {
    let make = |lost| uses_alone(lost, false, |uses| vec![Event::UsesHead(uses.head())]);
    let whole = tree([&build(Story::Valid)[&format!("log/uses/{FIRST}")], &build(Story::Valid)[&format!("log/uses/{SECOND}")]]).0;
    let lost = whole - 8;
    let files = make(lost);
    let report = check(&files, &options(&files));
    assert_eq!((report.findings.list(), exit(&report)), (&[][..], 0));
    assert_eq!(exit(&check(&make(lost - 1), &options(&files))), 11);
}

#[test]
fn a_log_that_goes_on_may_be_pruned_and_still_says_from_where() {
    let first = |uses: &Writer| uses.segments[0].1.clone();
    let files = |genesis: &dyn Fn(&[&[u8]]) -> Vec<u8>| {
        let mut files = uses_alone(5, true, |uses| {
            let (size, root) = tree([&first(uses)]);
            let origin = uses.origin.clone();
            let pruned = UsesPruned { of: "a".into(), origin, first: size, root, before: at(END + 6), reason: "old".into() };
            vec![Event::UsesHead(uses.head()), Event::UsesPruned(pruned)]
        });
        let segment = files.remove(&format!("log/uses/{FIRST}")).unwrap();
        let hashes = lines(&segment).into_iter().flat_map(|line| *leaf_hash(line.strip_suffix(b"\n").unwrap()).as_bytes());
        files.insert("log/uses/00000000000000000000.hashes".to_owned(), hashes.collect());
        files.insert("log/uses/genesis".to_owned(), genesis(&lines(&segment)));
        files
    };
    let both = files(&|lines| lines.concat());
    let report = check(&both, &options(&both));
    assert_eq!((report.findings.list(), exit(&report)), (&[][..], 0));
    assert_eq!((report.logs[1].first, report.logs[2].ended.as_ref().map(|ended| ended.lost)), (2, Some(5)));
    // Its second line is as much part of the log as its first.
    let more = files(&|lines| String::from_utf8(lines.concat()).unwrap().replace("\"lost\":5", "\"lost\":9").into_bytes());
    assert_eq!(exit(&check(&more, &options(&more))), 10);
    let one = files(&|lines| lines[0].to_vec());
    assert_ne!(exit(&check(&one, &options(&one))), 0);
}

#[test]
fn the_command_reads_the_folder_of_former_logs() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &both());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (log, trust, heads) = (path("log"), path("trust"), format!("{}/", path("heads")));
    let (code, text) = command(&["verify", &log, "--trust", &trust, "--min-size", "2", "--save-head", &heads]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("adopted by example.org/claviger/keys/adopted-2 with a loss of 2 records"), "{text}");
    // The heads that are saved are those of the logs that go on.
    let (code, text) = command(&["verify", &log, "--trust", &trust, "--head", &heads]);
    assert_eq!((code, text.matches("pinned by").count()), (0, 2), "{text}");
    let (code, text) = command(&["verify", &path("log/keys"), "--trust", &trust, "--min-size", "2"]);
    assert_eq!(code, 11, "{text}");
    let (code, text) = command(&["show", &log, "--event", "log.created"]);
    assert_eq!((code, text.lines().count()), (0, 4), "{text}");
    let (code, text) = command(&["trust", &log]);
    assert_eq!((code, text.matches("\nlog ").count()), (0, 4), "{text}");
}

/// The daemon's own replay comes to the same state.
#[test]
fn the_state_is_that_of_the_log_before_and_then_the_new_one() {
    let files = both();
    let mut state = Keyrings::default();
    for line in lines(&files[FORMER_KEYS]) {
        state.apply(&Record::parse(line.strip_suffix(b"\n").unwrap()).unwrap()).unwrap();
    }
    let before: Timestamp = state.last_time();
    let mut state = state.carried_over(tree([&files[FORMER_KEYS]]).1);
    for line in lines(&files[KEYS]) {
        state.apply(&Record::parse(line.strip_suffix(b"\n").unwrap()).unwrap()).unwrap();
    }
    assert!(state.last_time() > before);
    assert_eq!(state.size(), log_files(&files, "log/keys/").segments.len() as u64 * lines(&files[KEYS]).len() as u64);
}
