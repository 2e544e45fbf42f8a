//! The golden logs: the builder makes exactly the committed files, and each of them gives its exit code.
//!
//! `CLAVIGER_WRITE_GOLDEN=1` writes them instead, after a change of the format.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

mod adoption;
mod builder;
mod defects;
mod eventful;
#[expect(dead_code, reason = "the test `attacks` uses more of it")]
mod forge;
mod forms;
mod later;
mod proofs;
mod reconciled;

use std::fs;
use std::io::{BufRead, Cursor};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use builder::{END, Files, ORIGIN, SECOND, Story, at, build};
use claviger_audit::Timestamp;
use claviger_audit::trust::Policy;
use claviger_audit::verify::{Former, Input, LogFiles, MinSize, NoteFile, Options, Pruned, Report, Segment, Verdict, verify};
use proptest::prelude::*;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn now() -> Timestamp {
    at(END + 60)
}

fn log_files(files: &Files, folder: &str) -> LogFiles<'static> {
    let named = |suffix: &'static str| files.iter().filter(move |(name, _)| name.starts_with(folder) && name.ends_with(suffix));
    let segment = |(name, bytes): (&String, &Vec<u8>)| {
        let bytes = bytes.clone();
        Segment { name: name.clone(), open: Box::new(move || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn BufRead>)) }
    };
    let segments = named(".jsonl").map(segment).collect();
    let notes = named("checkpoint").map(|(name, bytes)| NoteFile { name: name.clone(), bytes: bytes.clone() });
    let pruned = Pruned { hashes: named(".hashes").map(segment).collect(), genesis: named("genesis").map(segment).next() };
    LogFiles { name: folder.to_owned(), segments, notes: notes.collect(), pruned }
}

fn input(files: &Files) -> Input<'static> {
    let uses = files.keys().any(|name| name.starts_with("log/uses/")).then(|| log_files(files, "log/uses/"));
    let set_aside = |name: &str| files.keys().any(|file| file.starts_with(name)).then(|| log_files(files, name));
    let former = (1..=2).map(|number| Former {
        keys: set_aside(&format!("log/former/{number}/keys/")),
        uses: set_aside(&format!("log/former/{number}/uses/")).into_iter().collect(),
    });
    Input { keys: Some(log_files(files, "log/keys/")), uses: uses.into_iter().collect(), former: former.collect(), ..Input::default() }
}

fn pins(valid: &Files) -> Options {
    Options {
        trust: Some(Policy::parse(&valid["trust"]).unwrap()),
        min_sizes: vec![MinSize { origin: None, size: 1 }],
        max_age: Some(Duration::from_hours(1)),
        ..Options::default()
    }
}

fn heads(valid: &Files) -> Vec<NoteFile> {
    ["head/keys", "head/uses-a"].map(|name| NoteFile { name: name.into(), bytes: valid[name].clone() }).to_vec()
}

fn check(files: &Files, options: &Options) -> Report {
    verify(&input(files), options, now()).unwrap()
}

fn tree(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn write(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_builder_makes_the_committed_files() {
    let mut made = Files::new();
    for (folder, story) in defects::GOOD {
        made.extend(build(story).into_iter().map(|(name, bytes)| (format!("{folder}/{name}"), bytes)));
    }
    for defect in defects::all() {
        made.extend(defect.files.into_iter().map(|(name, bytes)| (format!("defect/{}/{name}", defect.name), bytes)));
    }
    made.extend(proofs::all().into_iter().map(|(name, bytes)| (format!("proofs/{name}"), bytes)));
    made.extend(eventful::all().into_iter().map(|(name, bytes)| (format!("eventful/{name}"), bytes)));
    made.extend(reconciled::all().into_iter().map(|(name, bytes)| (format!("reconciled/{name}"), bytes)));
    made.extend(adoption::both().into_iter().map(|(name, bytes)| (format!("adopted/{name}"), bytes)));
    #[expect(clippy::disallowed_methods, reason = "whoever changes the format asks for new files; no program reads this")]
    let asked = std::env::var_os("CLAVIGER_WRITE_GOLDEN").is_some();
    if asked {
        write(&testdata(), &made);
    }
    let committed = tree(&testdata());
    let differing: Vec<_> = made.keys().chain(committed.keys()).filter(|name| made.get(*name) != committed.get(*name)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn the_valid_logs_are_verified() {
    let valid = build(Story::Valid);
    let report = check(&valid, &Options { heads: heads(&valid), ..pins(&valid) });
    assert_eq!((report.findings.list(), report.verdict), (&[][..], Verdict::Verified));
    let keys = &report.logs[0];
    assert_eq!((keys.uncovered, keys.judged == keys.checked, report.logs[1].signatures), (0, true, 5));
    assert_eq!(report.pinned_by.len(), 3);
}

#[test]
fn each_defect_has_its_exit_code() {
    let pins = defects::GOOD.map(|(folder, story)| (folder, pins(&build(story))));
    for defect in defects::all() {
        let (_, options) = pins.iter().find(|(folder, _)| *folder == defect.trust).unwrap();
        let report = check(&defect.files, options);
        assert_eq!(report.verdict.exit_code(), defect.exit, "{}: {:#?}", defect.name, report.findings.list());
    }
}

#[test]
fn a_finding_says_where() {
    let files = defects::all().into_iter().find(|defect| defect.name == "edited-byte").unwrap().files;
    let report = check(&files, &pins(&build(Story::Valid)));
    let first = &report.findings.list()[0];
    let at = first.at.as_ref().unwrap();
    // The record after the edited one no longer continues the chain.
    assert_eq!((at.file.as_str(), at.line, at.seq), (format!("log/uses/{SECOND}").as_str(), 5, 9));
    let offset: usize = files[&at.file].split_inclusive(|byte| *byte == b'\n').take(4).map(<[u8]>::len).sum();
    assert_eq!(at.offset, offset as u64);
    assert!(first.expected.is_some() && first.found.is_some() && first.expected != first.found);
}

#[test]
fn nothing_is_verified_without_a_pin() {
    let valid = build(Story::Valid);
    let trust = pins(&valid).trust;
    let unpinned = |options: Options| check(&valid, &options).verdict == Verdict::Unpinned;
    assert!(unpinned(Options::default()));
    assert!(unpinned(Options { heads: heads(&valid), ..Options::default() }));
    assert!(unpinned(Options { trust: trust.clone(), ..Options::default() }));
    assert!(unpinned(Options { trust: trust.clone(), min_sizes: vec![MinSize { origin: None, size: 0 }], ..Options::default() }));
    let missing = Options { trust, missing_head: Some("head".into()), ..Options::default() };
    assert!(unpinned(missing.clone()));
    assert_eq!(check(&valid, &Options { first_run: true, ..missing }).verdict, Verdict::Verified);
}

#[test]
fn a_quorum_is_never_passed_over() {
    let valid = build(Story::Valid);
    let witness = "witness w witness.example+00000000+AA==";
    assert!(Policy::parse(format!("{witness}\nquorum w\n").as_bytes()).is_err());
    let (_, key) = builder::signing::witness(1);
    let text = String::from_utf8(valid["trust"].clone()).unwrap().replace("quorum none", &format!("witness w {key}\nquorum w"));
    let report = check(&valid, &Options { trust: Some(text.parse().unwrap()), ..pins(&valid) });
    assert_eq!(report.verdict, Verdict::Unsigned);
}

#[test]
fn memory_catches_what_the_log_key_could_hide() {
    let valid = build(Story::Valid);
    let newest = |name: &str| NoteFile { name: format!("{name} as remembered"), bytes: valid[&format!("log/{name}/checkpoint")].clone() };
    // A log that was rolled back to an earlier, well signed state.
    let mut old = valid.clone();
    let end = old["log/keys/00000000000000000000.jsonl"].iter().enumerate().filter(|(_, b)| **b == b'\n').nth(16).unwrap().0;
    old.get_mut("log/keys/00000000000000000000.jsonl").unwrap().truncate(end + 1);
    old.insert("log/keys/checkpoint".into(), valid["head/keys"].clone());
    let keys_only = Options { keys_only: true, ..pins(&valid) };
    assert_eq!(check(&old, &Options { max_age: None, ..keys_only.clone() }).verdict, Verdict::Verified);
    let remembers = Options { heads: vec![newest("keys")], ..keys_only.clone() };
    assert_eq!(check(&old, &remembers).verdict, Verdict::Truncated);
    // The same key signs another history of the same length.
    let forked = Options { heads: vec![newest("keys")], ..keys_only };
    let other = check(&build(Story::WrongJwksHash), &forked);
    assert_eq!(other.verdict, Verdict::Forked);
    let fork = other.findings.list().iter().find(|finding| finding.verdict == Verdict::Forked).unwrap();
    assert_eq!(fork.notes.len(), 2);
    // A receipt of a record that is another one now, or gone.
    let receipt = serde_json::from_slice(&valid["receipt.json"]).unwrap();
    let holds = Options { receipts: vec![receipt], min_sizes: Vec::new(), ..pins(&valid) };
    assert_eq!(check(&valid, &holds).verdict, Verdict::Verified);
    assert_eq!(check(&build(Story::LongToken), &holds).verdict, Verdict::Tampered);
}

#[test]
fn a_torn_tail_past_the_checkpoint_is_not_tampering() {
    let valid = build(Story::Valid);
    let name = format!("log/uses/{SECOND}");
    for tail in [&b"{\"boot\":\"5f0c\",\"dur"[..], b"\0\0\0\0\0\0\n", b"{\"boot\"\0\0\0\n{\"bo"] {
        let mut files = valid.clone();
        files.get_mut(&name).unwrap().extend(tail);
        let report = check(&files, &pins(&valid));
        assert_eq!(report.verdict, Verdict::Verified, "{:#?}", report.findings.list());
        assert!(report.logs[1].torn > 0);
    }
    // The same bytes in a log whose checkpoint says more.
    let mut files = valid.clone();
    let bytes = files.get_mut(&name).unwrap();
    bytes.truncate(bytes.len() - 1);
    assert_eq!(check(&files, &pins(&valid)).verdict, Verdict::Tampered);
}

#[test]
fn a_live_set_must_be_the_logs() {
    let valid = build(Story::Valid);
    let live = |body: &[u8], set: Option<&str>| {
        let set = set.map(|set| set.parse().unwrap());
        let jwks = Some(claviger_audit::verify::LiveSet { body: body.to_vec(), set, size: None });
        check(&valid, &Options { jwks, ..pins(&valid) }).verdict
    };
    assert_eq!(live(&valid["jwks.json"], None), Verdict::Verified);
    assert_eq!(live(&valid["jwks.json"], Some("keyring/access")), Verdict::Verified);
    assert_eq!(live(&valid["jwks.json"], Some("keyring/other")), Verdict::Illegal);
    assert_eq!(live(br#"{"keys":[]}"#, None), Verdict::Illegal);
}

#[test]
fn the_story_of_a_rotation() {
    let report = check(&build(Story::Valid), &Options::default());
    let causes: Vec<_> = report.rotations.iter().map(|rotation| rotation.cause).collect();
    assert_eq!(causes, ["bootstrap", "scheduled"]);
    let slack: Vec<_> = report.rotations[1].slack.iter().map(|slack| (slack.rule, slack.millis)).collect();
    // Visible 102 s after the start, 940 s lead; withdrawn 970 s after the rotation where 962 s were due.
    assert_eq!(slack, [("I1", (30 * 86_400 + 2 - 102 - 940) * 1000), ("I3", 0), ("I3", 8_000), ("I8", 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_changed_bit_of_any_file_is_seen(place in 0.0_f64..1.0, bit in 0_u8..8) {
        let mut files = build(Story::Valid);
        let options = pins(&files);
        files.retain(|name, _| name.starts_with("log/"));
        let total: usize = files.values().map(Vec::len).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
        let mut index = (place * total as f64) as usize;
        for bytes in files.values_mut() {
            if index < bytes.len() {
                bytes[index] ^= 1 << bit;
                break;
            }
            index -= bytes.len();
        }
        prop_assert_ne!(check(&files, &options).verdict.exit_code(), 0);
    }
}

/// The command on the committed files: exit code and standard output.
fn command(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_claviger-audit")).current_dir(testdata()).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn verify_command(folder: &str, more: &[&str]) -> (i32, String) {
    verify_under("valid", folder, more)
}

fn verify_under(good: &str, folder: &str, more: &[&str]) -> (i32, String) {
    let (log, trust) = (format!("{folder}/log"), format!("{good}/trust"));
    let now = now().to_string();
    // A fork must not leave its proof among the golden files.
    let scratch = tempfile::tempdir().unwrap();
    let fork = scratch.path().join("fork.proof").to_str().unwrap().to_owned();
    let own = if more.contains(&"--fork-proof") { &[][..] } else { &["--fork-proof", &fork] };
    let standard = ["verify", &log, "--trust", &trust, "--max-age", "1h", "--now", &now];
    command(&[&standard[..], own, more].concat())
}

#[test]
fn the_command_says_what_the_library_says() {
    let (code, text) = verify_command("valid", &["--head", "valid/head", "--receipt", "valid/receipt.json", "--rotation"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("verified (exit 0): "), "{text}");
    assert!(text.contains("I3 slack  0d 00:00:08.000"), "{text}");
    for defect in defects::all() {
        let (code, text) = verify_under(defect.trust, &format!("defect/{}", defect.name), &["--min-size", "1"]);
        assert_eq!(code, i32::from(defect.exit), "{}: {text}", defect.name);
        assert!(text.lines().next().unwrap().contains(&format!("(exit {code})")), "{text}");
    }
}

#[test]
fn the_json_report_has_a_schema() {
    let (code, text) = verify_command("defect/cut-tail", &["--min-size", "1", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["schema"], &report["verdict"], &report["exit"]), (11, &1.into(), &"truncated".into(), &11.into()));
    assert_eq!(report["logs"][0]["origin"], format!("{ORIGIN}/keys"));
    assert!(report["findings"].as_array().unwrap().iter().any(|finding| finding["verdict"] == "truncated"));
    assert!(report.get("rotations").is_none());
}

#[test]
fn usage_and_input_errors_are_no_verdicts() {
    assert_eq!(command(&["verify"]).0, 2);
    assert_eq!(command(&["verify", "valid/log", "--max-age", "5"]).0, 2);
    assert_eq!(command(&["verify", "valid/log", "--trust", "valid/jwks.json"]).0, 2);
    assert_eq!(command(&["verify", "nowhere"]).0, 74);
    assert_eq!(command(&["verify", "valid/log", "--trust", "nowhere"]).0, 74);
    assert_eq!(command(&["--help"]).0, 0);
}

fn names_in(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_head_is_saved_for_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let heads = folder.path().join("heads/");
    let heads = format!("{}/", heads.to_str().unwrap().trim_end_matches('/'));
    let (code, _) = verify_command("valid", &["--head", &heads]);
    assert_eq!(code, 16);
    let (code, text) = verify_command("valid", &["--head", &heads, "--save-head", &heads, "--first-run"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(format!("{heads}keys")).unwrap(), fs::read(testdata().join("valid/log/keys/checkpoint")).unwrap());
    assert_eq!(names_in(&heads), ["keys", "uses-a", "uses-a.frontier"]);
    assert_eq!(verify_command("valid", &["--head", &heads, "--save-head", &heads]).0, 0);
    // A broken log never becomes what later runs compare with.
    let file = folder.path().join("head");
    let (code, _) = verify_command("defect/cut-tail", &["--min-size", "1", "--save-head", file.to_str().unwrap()]);
    assert_eq!((code, file.exists()), (11, false));
}

#[test]
fn segments_can_be_given_one_by_one() {
    let files = [
        "valid/log/keys/00000000000000000000.jsonl",
        "valid/log/uses/00000000000000000005.jsonl",
        "valid/log/uses/00000000000000000000.jsonl",
    ];
    let pins = ["--trust", "valid/trust", "--min-size", "1"];
    let (code, text) = command(&[&["verify"], &files[..], &pins[..]].concat());
    assert_eq!(code, 0, "{text}");
    let (code, text) = command(&[&["verify", files[0], "--keys-only"], &pins[..]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().next().unwrap().ends_with("uses not checked"), "{text}");
}

#[test]
fn keys_for_others() {
    let (code, text) = command(&["trust", "valid/log"]);
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((code, lines(&text)), (0, lines(&fs::read_to_string(testdata().join("valid/trust")).unwrap())));
    let (code, body) = command(&["jwks", "valid/log", "--issuer", "main"]);
    assert_eq!((code, body.into_bytes()), (0, fs::read(testdata().join("valid/jwks.json")).unwrap()));
    assert_eq!(command(&["jwks", "valid/log", "--keyring", "nothing"]).0, 1);
    assert_eq!(command(&["jwks", "defect/early-activation/log", "--keyring", "access"]), (15, String::new()));
    assert_eq!(command(&["trust", "defect/foreign-checkpoint/log"]), (13, String::new()));
}

#[test]
fn records_are_shown_and_found() {
    let (code, text) = command(&["show", "valid/log", "--event", "key.", "--keyring", "access", "--limit", "4"]);
    let events: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
    assert_eq!((code, events), (0, vec!["key.requested", "key.created", "key.published", "key.rotated"]));
    let (_, text) = command(&["show", "valid/log/uses", "--event", "sign", "--format", "json", "--since", &at(END - 5_000).to_string()]);
    assert_eq!(text.lines().count(), 4);
    assert!(text.lines().all(|line| line.starts_with("{\"alg\":")));
    let (code, text) = command(&["find", "valid/log", "--jti", "jti-4"]);
    assert_eq!(code, 0);
    let receipt: claviger_audit::verify::Receipt = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((receipt.log, receipt.seq), (format!("{ORIGIN}/uses/a"), 2));
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "header1.claims4.signature\n").unwrap();
    let (code, by_token) = command(&["find", "valid/log", "--token", token.path().to_str().unwrap()]);
    assert_eq!((code, by_token), (0, text));
    assert_eq!(command(&["find", "valid/log", "--jti", "jti-5"]).0, 1);
}

#[test]
fn the_specification_names_every_event_and_member() {
    let specification = include_str!("../../README.md");
    let code =
        [include_str!("../../src/event.rs"), include_str!("../../src/event/payload.rs"), include_str!("../../src/timing.rs")].concat();
    let events = code.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => ")).map(|(name, _)| name);
    let member = |line: &'static str| line.strip_prefix("    pub ")?.split_once(": ").filter(|(name, _)| !name.contains(' '));
    let fields =
        [include_str!("../../src/event/payload.rs"), include_str!("../../src/event/clock.rs"), include_str!("../../src/event/keystore.rs")];
    let members = fields.into_iter().flat_map(str::lines).filter_map(member).map(|(name, _)| name);
    let names: Vec<&str> = events.chain(members).collect();
    assert!(names.len() > 100, "{}", names.len());
    for name in names {
        assert!(specification.contains(&format!("`{name}`")), "{name} is not specified");
    }
}

#[test]
fn a_link_can_be_checked_by_hand() {
    let specification = include_str!("../../README.md");
    let script = specification.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let output = Command::new("sh").args(["-euc", script]).current_dir(testdata().join("valid/log/keys")).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines.len(), lines[0].len(), lines[0]), (2, 64, lines[1]));
}
