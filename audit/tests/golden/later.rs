//! The stories beside the first: a log key that was rotated, witnesses, a pruned log, late duties, and a run that goes on from another one.
//!
//! In scope: what the verifier says of each, and of small changes to it. Out of scope: the files themselves (`builder`, `defects`).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use claviger_audit::event::*;
use claviger_audit::merkle::{Frontier, leaf_hash};
use claviger_audit::verify::{Bookmark, Finding, LiveSet, Receipt};

use super::builder::signing::{cosigned, note_by, secret, witness};
use super::builder::{FIRST, build_late, note, verifier_key};
use super::*;

const HASHES: &str = "log/uses/00000000000000000000.hashes";
const KEYS: &str = "log/keys/00000000000000000000.jsonl";

/// Nothing but the story's own trust file.
fn trust_only(files: &Files) -> Options {
    Options { min_sizes: Vec::new(), ..pins(files) }
}

fn only_finding(report: &Report, verdict: Verdict) -> &Finding {
    let mut found = report.findings.list().iter().filter(|finding| finding.verdict == verdict);
    found.next().unwrap_or_else(|| panic!("{:#?}", report.findings.list()))
}

#[test]
fn the_good_stories_are_verified() {
    for (folder, story) in defects::GOOD {
        let files = build(story);
        // Heads from the beginning hold on, whatever became of the log key and of the records since.
        let report = check(&files, &Options { heads: heads(&files), ..pins(&files) });
        assert_eq!((report.verdict, report.findings.list()), (Verdict::Verified, &[][..]), "{folder}");
    }
}

#[test]
fn a_rotated_log_key_needs_the_line_that_is_shown() {
    let files = build(Story::LogKeyRotated);
    let trust = String::from_utf8(files["trust"].clone()).unwrap();
    let lines: Vec<&str> = trust.lines().filter(|line| line.starts_with("log ")).collect();
    let report = check(&files, &pins(&files));
    // All keys signed a checkpoint that is here.
    let needed: Vec<String> = report.logs.iter().flat_map(|log| &log.keys).map(|key| format!("log {key}")).collect();
    assert_eq!(needed, lines);
    let (code, printed) = command(&["trust", "log-key-rotated/log"]);
    assert_eq!((code, printed.lines().filter(|line| line.starts_with("log ")).collect::<Vec<_>>()), (0, lines.clone()));
    // Without the newest key of either log, the record of the rotation and the line are shown.
    for (newest, name, seq) in [(lines[1], "keys", 17), (lines[4], "uses", 7)] {
        let policy: Policy = trust.replace(&format!("{newest}\n"), "").parse().unwrap();
        let report = check(&files, &Options { trust: Some(policy), ..pins(&files) });
        let first = only_finding(&report, Verdict::Unsigned);
        assert_eq!((first.found.as_deref(), first.at.as_ref().map(|at| at.seq)), (Some(newest), Some(seq)), "{first:#?}");
        assert!(first.at.as_ref().is_some_and(|at| at.file.contains(name)));
        assert_eq!(report.verdict, Verdict::Unsigned);
    }
    // A checkpoint from before needs the old key, as long as it lies here.
    let policy: Policy = trust.replace(&format!("{}\n", lines[2]), "").parse().unwrap();
    let options = Options { trust: Some(policy), ..pins(&files) };
    let report = check(&files, &options);
    assert_eq!(report.findings.list().iter().filter(|finding| finding.verdict == Verdict::Unsigned).count(), 1);
    assert!(only_finding(&report, Verdict::Unsigned).found.as_deref().is_some_and(|found| found == lines[2]));
    let mut thinned = files.clone();
    thinned.retain(|name, _| !name.ends_with(".jsonl.checkpoint"));
    assert_eq!(check(&thinned, &options).verdict, Verdict::Verified);
}

#[test]
fn each_key_signs_for_its_own_sizes() {
    let files = build(Story::LogKeyRotated);
    let origin = format!("{ORIGIN}/keys");
    let leaves: Vec<_> = lines(&files[KEYS]).map(|line| leaf_hash(line.trim_ascii_end())).collect();
    let root = |size: usize| {
        let mut frontier = Frontier::new();
        frontier.extend(leaves[..size].iter().copied());
        frontier.root()
    };
    // The record of the rotation is number 17.
    let verdict = |size: usize, seeds: &[u8]| {
        let secrets: Vec<_> = seeds.iter().map(|seed| secret(*seed)).collect();
        let signed = note_by(&origin, size as u64, root(size), &secrets.iter().collect::<Vec<_>>());
        let mut files = files.clone();
        files.insert("log/keys/more.checkpoint".into(), signed);
        check(&files, &pins(&files)).verdict
    };
    assert_eq!((verdict(17, &[1]), verdict(17, &[11])), (Verdict::Verified, Verdict::Unsigned));
    assert_eq!((verdict(18, &[1]), verdict(18, &[11]), verdict(18, &[1, 11])), (Verdict::Unsigned, Verdict::Verified, Verdict::Verified));
    assert_eq!((verdict(20, &[1]), verdict(20, &[11])), (Verdict::Unsigned, Verdict::Verified));
    // A key of the other log is none of this one.
    assert_eq!(verdict(20, &[12]), Verdict::Unsigned);
}

#[test]
fn a_rotation_of_the_log_key_follows_from_the_one_before() {
    let files = build(Story::LogKeyRotated);
    let key = |seed| verifier_key(&format!("{ORIGIN}/uses/a"), &secret(seed)).to_string();
    let second = format!("log/uses/{SECOND}");
    let text = String::from_utf8(files[&second].clone()).unwrap();
    // The second rotation, from 12 to 13: of the first key, to a key that signed before, to a witness.
    let told = format!("\"new\":\"{}\",\"node\":\"a\",\"old\":\"{}\"", key(13), key(12));
    assert!(text.contains(&told));
    for (new, old) in [(key(13), key(2)), (key(2), key(12)), (key(12), key(12)), (witness(1).1, key(12))] {
        let mut files = files.clone();
        files.insert(second.clone(), text.replace(&told, &format!("\"new\":\"{new}\",\"node\":\"a\",\"old\":\"{old}\"")).into_bytes());
        let report = check(&files, &pins(&files));
        let illegal = only_finding(&report, Verdict::Illegal);
        assert_eq!((illegal.rule, illegal.at.as_ref().map(|at| (at.line, at.seq))), (Some("form"), Some((3, 7))));
    }
}

#[test]
fn witnesses_pin_and_date_what_they_saw() {
    let files = build(Story::Witnessed);
    let report = check(&files, &trust_only(&files));
    assert_eq!((report.verdict, report.pinned_by.len()), (Verdict::Verified, 2), "{:#?}", report.findings.list());
    let keys = &report.logs[0];
    assert_eq!((keys.size, keys.unwitnessed, keys.uncovered, keys.checked), (21, 2, 0, 23));
    // Of the two cosignatures the older one: until then both vouch.
    assert_eq!((keys.witnessed, keys.cosigners.len()), (Some(at(END - 900)), 2));
    let within = |age: u64| check(&files, &Options { max_age: Some(Duration::from_secs(age)), ..trust_only(&files) });
    assert_eq!((within(961).verdict, within(959).verdict), (Verdict::Verified, Verdict::Stale));
    // What only the log key signed does not count towards a size that is known.
    let least = |size| Options { min_sizes: vec![MinSize { origin: None, size }], ..pins(&files) };
    assert_eq!((check(&files, &least(21)).verdict, check(&files, &least(22)).verdict), (Verdict::Verified, Verdict::Truncated));
}

#[test]
fn cosignatures_count_wherever_they_lie() {
    let files = build(Story::QuorumMissing);
    let report = check(&files, &trust_only(&files));
    let missing = only_finding(&report, Verdict::Unsigned);
    assert!(
        missing.text.ends_with("the quorum \"two-of-three\" of the trust file is not reached; cosigned by w2, not by w1, w3"),
        "{}",
        missing.text
    );
    // The same checkpoint is remembered with the signature of another witness.
    let mut whole = files.clone();
    for name in ["keys", "uses"] {
        let seen = &files[&format!("log/{name}/witnessed.checkpoint")];
        let plain: Vec<u8> = lines(seen).take(5).collect::<Vec<_>>().concat();
        whole.insert(format!("log/{name}/other.checkpoint"), cosigned(&plain, &[(3, at(END - 300))]));
    }
    let report = check(&whole, &trust_only(&whole));
    assert_eq!((report.verdict, report.logs[0].witnessed), (Verdict::Verified, Some(at(END - 600))), "{:#?}", report.findings.list());
    // One witness twice is one witness, and a time of its own choosing moves nothing.
    let mut twice = files.clone();
    for name in ["keys", "uses"] {
        let seen = cosigned(&files[&format!("log/{name}/witnessed.checkpoint")], &[(2, at(END * 2))]);
        twice.insert(format!("log/{name}/witnessed.checkpoint"), seen);
    }
    assert_eq!(check(&twice, &trust_only(&twice)).verdict, Verdict::Unsigned);
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

#[test]
fn a_pruned_log_still_proves_what_it_held() {
    let (files, valid) = (build(Story::Pruned), build(Story::Valid));
    let leaf = lines(&valid["log/uses/00000000000000000000.jsonl"]).nth(2).map(|line| leaf_hash(line.trim_ascii_end())).unwrap();
    let receipt = |leaf| Receipt { log: format!("{ORIGIN}/uses/a"), seq: 2, leaf };
    let with = |leaf| check(&files, &Options { receipts: vec![receipt(leaf)], heads: heads(&files), ..pins(&files) });
    let report = with(leaf);
    assert_eq!((report.verdict, report.findings.list()), (Verdict::Verified, &[][..]));
    let uses = &report.logs[1];
    assert_eq!((uses.first, uses.size, uses.checked, uses.signatures), (5, 13, 8, 4));
    assert!(claviger_audit::report::text(&report, false).starts_with("verified (exit 0): "));
    assert!(claviger_audit::report::text(&report, false).lines().next().unwrap().ends_with("uses/a: records from seq 5"));
    assert_eq!(with(leaf_hash(b"another")).verdict, Verdict::Tampered);
}

#[test]
fn what_is_left_of_pruned_records_must_fit() {
    let files = build(Story::Pruned);
    let verdict = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        check(&files, &pins(&files)).verdict
    };
    assert_eq!(verdict(&|files| drop(files.remove(HASHES))), Verdict::Tampered);
    assert_eq!(verdict(&|files| drop(files.remove("log/uses/genesis"))), Verdict::Tampered);
    assert_eq!(verdict(&|files| files.get_mut(HASHES).unwrap().truncate(4 * 32)), Verdict::Tampered);
    assert_eq!(verdict(&|files| files.get_mut(HASHES).unwrap().truncate(5 * 32 - 1)), Verdict::Tampered);
    assert_eq!(verdict(&|files| files.get_mut(HASHES).unwrap().extend([0; 32])), Verdict::Tampered);
    assert_eq!(verdict(&|files| files.get_mut("log/uses/genesis").unwrap()[20] ^= 1), Verdict::Tampered);
    let other = build(Story::WrongOrigin)["log/uses/00000000000000000000.jsonl"].clone();
    assert_eq!(verdict(&|files| drop(files.insert("log/uses/genesis".into(), lines(&other).next().unwrap().to_vec()))), Verdict::Tampered);
    assert_eq!(
        verdict(&|files| {
            let hashes = files.remove(HASHES).unwrap();
            files.insert("log/uses/00000000000000000001.hashes".into(), hashes);
        }),
        Verdict::Tampered
    );
    // A pruning that was cut short after its record: the segment is still here.
    let segment = build(Story::Valid)["log/uses/00000000000000000000.jsonl"].clone();
    let whole = |files: &mut Files| drop(files.insert("log/uses/00000000000000000000.jsonl".into(), segment.clone()));
    assert_eq!(verdict(&whole), Verdict::Verified);
    // The key log is the state: what is missing of it is missing.
    let mut keys = files.clone();
    keys.insert("log/keys/00000000000000000000.hashes".into(), vec![0; 32]);
    let bytes = keys.remove(KEYS).unwrap();
    keys.insert("log/keys/00000000000000000001.jsonl".into(), lines(&bytes).skip(1).collect::<Vec<_>>().concat());
    assert_eq!(check(&keys, &pins(&files)).verdict, Verdict::Tampered);
}

/// What came too late, by rule and record.
fn late(files: &Files) -> Vec<(&'static str, u64)> {
    let report = check(files, &pins(files));
    let rules = report.findings.list().iter().filter_map(|finding| Some((finding.rule?, finding.at.as_ref()?.seq)));
    rules.filter(|(rule, _)| ["on time", "liveness"].contains(rule)).collect()
}

#[test]
fn a_late_duty_is_told_with_its_rule_and_place() {
    // The first heartbeat of the hours in which the rotation was due, and of those in which a key should have left.
    assert_eq!(late(&build(Story::LateRotation)), [("on time", 17)]);
    assert_eq!(late(&build(Story::NeverWithdrawn)), [("liveness", 23)]);
    assert_eq!(late(&build(Story::Valid)), []);
}

fn start() -> Event {
    Event::DaemonStart(DaemonStart { version: "0.1.0".into(), unclean: true, in_flight: 0 })
}

fn lost(keystore: &str) -> Event {
    Event::KeystoreLost(KeystoreLost { keystore: keystore.into(), reason: "no answer".into() })
}

#[test]
fn only_what_a_daemon_could_do_is_late() {
    let stop = || Event::DaemonStop(DaemonStop { reason: "asked to".into() });
    let stepped = || Event::ClockStepped(ClockStepped { keyring_skew_ms: 30_000, difference_ms: 40_000 });
    let settled = || Event::ClockSettled(ClockSettled { difference_ms: 0 });
    let confirmed = || Event::ClockConfirmed(ClockConfirmed { difference_ms: 40_000, reason: "the time server was right".into() });
    let suspended = || Event::KeySuspended(KeySuspended { kid: builder::kid(1), reason: "doubt".into() });
    let resumed = || Event::KeyResumed(KeyResumed { kid: builder::kid(1), reason: "cleared".into() });
    let recovered = |keystore: &str| Event::KeystoreRecovered(KeystoreRecovered { keystore: keystore.into() });
    // D + e + G + 1 min are 26 min 40 s, and a start is followed by D + e, 15 min 40 s.
    let (before, short) = (-5, 10_800 - 1_500);
    for excuse in [
        vec![(before, stop()), (10_800 - 2_500, start())],
        vec![(before, start()), (10_800 - 2_500, start())],
        vec![(before, stepped()), (short, settled())],
        // A clock that was confirmed is followed by D + e too.
        vec![(before, stepped()), (10_800 - 2_500, confirmed())],
        vec![(before, suspended()), (short, resumed())],
        vec![(before, lost("hsm")), (short, recovered("hsm"))],
        // The machine slept, and its clock was looked at a little after it woke.
        vec![(10_800 - 20, lost("other")), (10_800 - 12, stepped()), (10_800 - 11, settled())],
    ] {
        assert_eq!(late(&build_late(excuse.clone())), [], "{excuse:?}");
    }
    for lame in [
        vec![(before, stop()), (10_800 - 2_600, start())],
        vec![(before, stepped()), (10_800 - 1_700, settled())],
        vec![(before, stepped()), (10_800 - 2_600, confirmed())],
        vec![(before, suspended()), (10_800 - 1_700, resumed())],
        vec![(before, lost("hsm")), (10_800 - 1_700, recovered("hsm"))],
        vec![(before, lost("other"))],
    ] {
        assert_eq!(late(&build_late(lame.clone())).len(), 1, "{lame:?}");
    }
}

/// The use log as it stood at `size`, with its checkpoint of then, and what a run over it remembers.
fn earlier(files: &Files, size: usize, seed: u8) -> Option<(NoteFile, Bookmark)> {
    let mut cut: Files = files.iter().filter(|(name, _)| name.starts_with("log/keys/")).map(|(n, b)| (n.clone(), b.clone())).collect();
    let mut frontier = Frontier::new();
    for name in [format!("log/uses/{FIRST}"), format!("log/uses/{SECOND}")] {
        let bytes = &files[&name];
        for line in lines(bytes).take(size - usize::try_from(frontier.size()).unwrap()) {
            frontier.push(leaf_hash(line.trim_ascii_end()));
            cut.entry(name.clone()).or_default().extend(line);
        }
    }
    let bytes = note(&format!("{ORIGIN}/uses/a"), frontier.size(), frontier.root(), &secret(seed));
    cut.insert("log/uses/checkpoint".into(), bytes.clone());
    let report = check(&cut, &pins(files));
    Some((NoteFile { name: "head".into(), bytes }, report.logs[1].bookmark.clone()?))
}

#[test]
fn a_run_goes_on_from_any_other() {
    let valid = build(Story::Valid);
    let second = format!("log/uses/{SECOND}");
    for size in 1..=13 {
        let (head, bookmark) = earlier(&valid, size, 2).unwrap();
        let options = Options { heads: vec![head], bookmarks: vec![bookmark], incremental: true, ..pins(&valid) };
        let report = check(&valid, &options);
        let uses = &report.logs[1];
        assert_eq!((report.verdict, uses.resumed_at, uses.checked, uses.size), (Verdict::Verified, size as u64, 13 - size as u64, 13));
        assert_eq!(uses.bookmark, check(&valid, &pins(&valid)).logs[1].bookmark, "what is remembered next does not depend on the way");
        // Every new line counts, and so does the length; what was checked is not read again.
        let mut offset = 0;
        for (index, line) in lines(&valid[&second]).enumerate() {
            let mut changed = valid.clone();
            changed.get_mut(&second).unwrap()[offset + line.len() / 2] ^= 1;
            let verdict = check(&changed, &options).verdict;
            assert_eq!(verdict == Verdict::Verified, index + 5 < size, "a change of record {} is judged {verdict:?}", index + 5);
            offset += line.len();
            let mut cut = valid.clone();
            cut.get_mut(&second).unwrap().truncate(offset);
            let is_whole = index + 6 == 13;
            let verdict = check(&cut, &options).verdict;
            assert_eq!(verdict, if is_whole { Verdict::Verified } else { Verdict::Truncated }, "{size}, cut after record {}", index + 5);
        }
    }
}

/// Whoever holds a key that was rotated away can extend no log, however little of it is read.
#[test]
fn an_old_log_key_signs_nothing_new() {
    let (files, thief) = (build(Story::LogKeyRotated), build(Story::OldLogKeySigns));
    for (size, seed) in [(6, 2), (7, 12), (8, 13), (12, 13)] {
        let (head, bookmark) = earlier(&files, size, seed).unwrap();
        let options = Options { heads: vec![head], bookmarks: vec![bookmark], incremental: true, ..pins(&files) };
        let report = check(&files, &options);
        assert_eq!((report.verdict, report.logs[1].resumed_at), (Verdict::Verified, size as u64), "{:#?}", report.findings.list());
        let mut stolen = files.clone();
        stolen.insert("log/uses/checkpoint".into(), thief["log/uses/checkpoint"].clone());
        assert_eq!(check(&stolen, &options).verdict, Verdict::Unsigned, "from {size} on");
    }
}

#[test]
fn a_pruning_that_nobody_signed_for_excuses_nothing() {
    let mut files = build(Story::Pruned);
    let seen = lines(&files[KEYS]).position(|line| line.windows(11).any(|word| word == b"uses.pruned")).unwrap();
    // The key log before that record, signed as it stood; the record itself is here, and continues the chain.
    let mut frontier = Frontier::new();
    frontier.extend(lines(&files[KEYS]).take(seen).map(|line| leaf_hash(line.trim_ascii_end())));
    let signed = note(&format!("{ORIGIN}/keys"), frontier.size(), frontier.root(), &secret(1));
    files.insert("log/keys/checkpoint".into(), signed);
    let report = check(&files, &pins(&files));
    let missing = only_finding(&report, Verdict::Truncated);
    assert_eq!((report.verdict, missing.at.as_ref().map(|at| (at.line, at.seq))), (Verdict::Truncated, Some((1, 5))));
}

#[test]
fn what_does_not_fit_is_read_whole() {
    let valid = build(Story::Valid);
    let (head, bookmark) = earlier(&valid, 8, 2).unwrap();
    let (_, other) = earlier(&valid, 9, 2).unwrap();
    let options = Options { heads: vec![head.clone()], bookmarks: vec![bookmark.clone()], incremental: true, ..pins(&valid) };
    let receipt = |seq: usize| {
        let all = [&valid["log/uses/00000000000000000000.jsonl"][..], &valid[&format!("log/uses/{SECOND}")]].concat();
        let leaf = leaf_hash(lines(&all).nth(seq).unwrap().trim_ascii_end());
        Receipt { log: format!("{ORIGIN}/uses/a"), seq: seq as u64, leaf }
    };
    let mut wrong = bookmark.clone();
    wrong.edge[0] = leaf_hash(b"another");
    for (changed, why) in [
        (Options { bookmarks: Vec::new(), ..options.clone() }, "no frontier file"),
        (Options { bookmarks: vec![other], ..options.clone() }, "does not fold"),
        (Options { bookmarks: vec![wrong], ..options.clone() }, "does not fold"),
        (Options { heads: Vec::new(), ..options.clone() }, "remembered head"),
        (Options { receipts: vec![receipt(3)], ..options.clone() }, "receipt"),
    ] {
        let report = check(&valid, &changed);
        let uses = &report.logs[1];
        assert_eq!((report.verdict, uses.resumed_at, uses.checked), (Verdict::Verified, 0, 13));
        assert!(uses.read_whole_because.as_ref().is_some_and(|because| because.contains(why)), "{:?}", uses.read_whole_because);
    }
    let later = check(&valid, &Options { receipts: vec![receipt(9)], ..options.clone() });
    assert_eq!((later.verdict, later.logs[1].resumed_at), (Verdict::Verified, 8));
    // A head that the log key did not sign is no reason to believe anything.
    let forged = NoteFile { bytes: cosigned(&lines(&head.bytes).take(4).collect::<Vec<_>>().concat(), &[(1, at(0))]), ..head };
    assert_eq!(check(&valid, &Options { heads: vec![forged], ..options }).verdict, Verdict::Unsigned);
}

#[test]
fn the_command_goes_on_from_a_saved_head() {
    let folder = tempfile::tempdir().unwrap();
    let heads = format!("{}/", folder.path().join("heads").to_str().unwrap());
    let saved = ["--head", &heads, "--save-head", &heads, "--first-run"];
    assert_eq!(verify_command("valid", &saved).0, 0);
    let (code, text) = verify_command("valid", &["--head", &heads, "--incremental"]);
    let headline = text.lines().next().unwrap();
    assert!(code == 0 && headline.ends_with("uses/a: records before 13 were checked by an earlier run"), "{text}");
    fs::write(format!("{heads}uses-a.frontier"), "{}").unwrap();
    let (code, text) = verify_command("valid", &["--head", &heads, "--incremental"]);
    assert!(code == 0 && text.contains("read whole because there is no frontier file beside its head"), "{text}");
}

#[test]
fn a_set_from_a_longer_log_makes_this_one_stale() {
    let valid = build(Story::Valid);
    let live = |body: &[u8], size| {
        let jwks = Some(LiveSet { body: body.to_vec(), set: None, size });
        check(&valid, &Options { jwks, ..pins(&valid) }).verdict
    };
    let unknown = br#"{"keys":[]}"#;
    assert_eq!((live(unknown, Some(23)), live(unknown, Some(24))), (Verdict::Illegal, Verdict::Stale));
    assert_eq!(live(&valid["jwks.json"], Some(24)), Verdict::Verified);
    assert_eq!(verify_command("valid", &["--min-size", "1", "--jwks", "valid/trust", "--jwks-size", "99"]).0, 14);
    assert_eq!(verify_command("valid", &["--min-size", "1", "--jwks", "http://jwks.example/"]).0, 2);
}

/// Answers one request with this, and gives the URL.
fn serve_once(answer: Vec<u8>) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(&answer).unwrap();
    });
    (url, server)
}

#[test]
fn a_live_set_is_fetched_by_curl() {
    if Command::new("curl").arg("--version").output().is_err() {
        // Written, not printed: a test that passes shows no output of its own.
        writeln!(std::io::stderr(), "skipped: a_live_set_is_fetched_by_curl (this machine has no curl)").unwrap();
        return;
    }
    let body = fs::read(testdata().join("valid/jwks.json")).unwrap();
    let answer = |status: &str, header: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{header}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let verdict = |answer: Vec<u8>| {
        let (url, server) = serve_once(answer);
        let (code, text) = verify_command("valid", &["--min-size", "1", "--jwks", &url]);
        server.join().unwrap();
        (code, text)
    };
    assert_eq!(verdict(answer("200 OK", "", &body)).0, 0);
    assert_eq!(verdict(answer("200 OK", "Claviger-Log-Size: 99\r\n", b"{}")).0, 14);
    assert_eq!(verdict(answer("200 OK", "Claviger-Log-Size: 22\r\n", b"{}")).0, 15);
    assert_eq!(verdict(answer("503 Service Unavailable", "", b"{}")), (74, String::new()));
}
