//! The golden proofs: made from the valid logs, and checked by the command, which has neither.
//!
//! In scope: the committed files, and each exit code of the commands that make and check proofs. Out of scope: properties of proofs over
//! many logs (`src/proof/tests.rs`).

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::Hash;
use claviger_audit::note::Note;
use claviger_audit::proof::{ConsistencyProof, ForkProof, InclusionProof, Stretch, WantedRecord, consistency, inclusion};
use claviger_audit::trust::Policy;
use claviger_audit::verify::{NoteFile, Options, Verdict};
use ed25519_dalek::{Signer as _, SigningKey};

use super::builder::{Files, ORIGIN, Story, at, build, note};
use super::{command, log_files, pins, testdata, verify_command};

/// The signature by the key of 4.
const RECORD: u64 = 2;
/// The text whose SHA-256 that record holds, as a token.
const TOKEN: &str = "header1.claims4.signature\n";
const KEYS: &str = "example.org/claviger/keys";

/// A witness of the golden trust file: its line there, and its signature line under a checkpoint (C2SP tlog-cosignature).
fn witness(name: &str, seed: u8, time: u64, text: &str) -> (String, String) {
    let secret = SigningKey::from_bytes(&[seed; 32]);
    let full = format!("{name}.example.net");
    let typed = [&[4], secret.verifying_key().as_bytes().as_slice()].concat();
    let id = Hash::digest(&[full.as_bytes(), b"\n", &typed].concat());
    let signature = secret.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let bytes = [&id.as_bytes()[..4], &time.to_be_bytes(), &signature.to_bytes()].concat();
    let line = format!("witness {name} {full}+{}+{}\n", &id.to_string()[..8], STANDARD.encode(typed));
    (line, format!("\u{2014} {full} {}\n", STANDARD.encode(bytes)))
}

/// The valid logs where the newest checkpoint of the use log was taken to two of three witnesses.
fn witnessed(valid: &Files) -> (Files, String) {
    let mut files = valid.clone();
    let note = String::from_utf8(valid["log/uses/checkpoint"].clone()).unwrap();
    let text = note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let time = u64::try_from(at(super::END).seconds()).unwrap();
    let [one, two, three] = [("one", 21, time), ("two", 22, time + 5), ("three", 23, time)].map(|(n, s, t)| witness(n, s, t, &text));
    files.insert("log/uses/witnessed.checkpoint".into(), format!("{note}{}{}", one.1, two.1).into_bytes());
    let trust = String::from_utf8(valid["trust"].clone()).unwrap();
    let quorum = format!("{}{}{}group witnesses 2 one two three\nquorum witnesses\n", one.0, two.0, three.0);
    (files, trust.replace("quorum none\n", &quorum))
}

/// Another beginning of the key log, which its key signed as well.
fn forged(size: u64) -> Note {
    let secret = SigningKey::from_bytes(&[1; 32]);
    Note::parse(&note(KEYS, size, Hash::digest(b"another root"), &secret)).unwrap()
}

/// The fork that `verify` finds where such a note lies beside the key log.
fn fork(valid: &Files, size: u64) -> ForkProof {
    let mut files = valid.clone();
    files.insert("log/keys/other.checkpoint".into(), forged(size).to_string().into_bytes());
    let report = super::check(&files, &pins(valid));
    let finding = report.findings.list().iter().find(|finding| finding.verdict == Verdict::Forked).unwrap();
    finding.proof.as_deref().unwrap().clone()
}

pub(crate) fn all() -> Files {
    let valid = build(Story::Valid);
    let (with_witnesses, trust) = witnessed(&valid);
    let policy: Policy = trust.parse().unwrap();
    let uses = log_files(&valid, "log/uses/");
    let record = |with_line| WantedRecord { seq: RECORD, leaf: None, with_line };
    let included = |with_line| inclusion(&uses, &record(with_line), None).unwrap().to_string();
    let cosigned = inclusion(&log_files(&with_witnesses, "log/uses/"), &record(true), Some(&policy)).unwrap().to_string();
    let grown = |from, to| {
        let stretch = Stretch { from, to, notes: Vec::new() };
        consistency(&uses, &stretch, None).unwrap().to_string()
    };
    let receipt = format!(
        r#"{{"leaf":"{}","log":"{ORIGIN}/uses/a","seq":{RECORD}}}"#,
        InclusionProof::parse(included(true).as_bytes()).unwrap().record.map(|line| claviger_audit::merkle::leaf_hash(&line)).unwrap()
    );
    let files = [
        ("record.tlog-proof", included(true)),
        ("record-left-out.tlog-proof", included(false)),
        ("record-witnessed.tlog-proof", cosigned),
        ("trust-witnesses", trust),
        ("receipt.json", receipt),
        ("token", TOKEN.to_owned()),
        ("consistency", grown(5, None)),
        ("consistency-from-unsigned", grown(3, None)),
        ("consistency-unsigned", grown(3, Some(9))),
        ("fork", fork(&valid, 3).to_string()),
        ("fork-of-one-size", fork(&valid, 23).to_string()),
    ];
    files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(testdata().join("proofs").join(name)).unwrap()
}

/// A file in the scratch folder, by its path.
fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_read_is_written_again() {
    for name in ["record.tlog-proof", "record-left-out.tlog-proof", "record-witnessed.tlog-proof"] {
        assert_eq!(InclusionProof::parse(&golden(name)).unwrap().to_string().into_bytes(), golden(name), "{name}");
    }
    for name in ["consistency", "consistency-from-unsigned", "consistency-unsigned"] {
        assert_eq!(ConsistencyProof::parse(&golden(name)).unwrap().to_string().into_bytes(), golden(name), "{name}");
    }
    for name in ["fork", "fork-of-one-size"] {
        assert_eq!(ForkProof::parse(&golden(name)).unwrap().to_string().into_bytes(), golden(name), "{name}");
    }
}

#[test]
fn the_commands_make_the_golden_proofs() {
    let seq = RECORD.to_string();
    for arguments in [&["prove", "valid/log/uses", "--seq", &seq][..], &["prove", "valid/log", "--seq", &seq, "--of", "uses"]] {
        let (code, text) = command(arguments);
        assert_eq!((code, text.into_bytes()), (0, golden("record.tlog-proof")));
    }
    let by_receipt = ["prove", "valid/log", "--receipt", "proofs/receipt.json", "--trust", "valid/trust", "--without-record"];
    let (code, text) = command(&by_receipt);
    assert_eq!((code, text.into_bytes()), (0, golden("record-left-out.tlog-proof")));
    let origin = format!("{ORIGIN}/uses/a");
    let grown = |more: &[&str]| command(&[&["prove-consistency", "valid/log", "--of", origin.as_str()], more].concat());
    let (code, text) = grown(&["--from", "3"]);
    assert_eq!((code, text.into_bytes()), (0, golden("consistency-from-unsigned")));
    let (code, text) = grown(&["--from-note", "valid/head/uses-a", "--to-note", "valid/log/uses/checkpoint"]);
    assert_eq!((code, text.into_bytes()), (0, golden("consistency")));
    // The golden record is not under a cosigned checkpoint there.
    assert_eq!(command(&[by_receipt.as_slice(), &["--trust", "proofs/trust-witnesses"]].concat()).0, 2, "--trust twice");
    let unwitnessed = ["prove", "valid/log", "--receipt", "proofs/receipt.json", "--trust", "proofs/trust-witnesses"];
    assert_eq!(command(&unwitnessed), (13, String::new()));
}

#[test]
fn a_proof_goes_to_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("record.tlog-proof");
    let output = path.to_str().unwrap();
    let (code, text) = command(&["prove", "valid/log", "--seq", "2", "--of", "uses", "--save", output]);
    assert_eq!((code, text), (0, format!("the proof is in {output}\n")));
    assert_eq!(fs::read(&path).unwrap(), golden("record.tlog-proof"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    let nowhere = scratch.path().join("nowhere").join("proof");
    assert_eq!(command(&["prove", "valid/log", "--seq", "2", "--of", "uses", "--save", nowhere.to_str().unwrap()]).0, 74);
}

#[test]
fn what_cannot_be_proven_has_its_exit_code() {
    let scratch = tempfile::tempdir().unwrap();
    let receipt = |log: &str, seq: u64, leaf: Hash| {
        let text = format!(r#"{{"leaf":"{leaf}","log":"{log}","seq":{seq}}}"#);
        file(scratch.path(), "receipt.json", text)
    };
    let prove = |log: &str, more: &[&str]| command(&[&["prove", log], more].concat()).0;
    let uses = format!("{ORIGIN}/uses/a");
    let other = Hash::digest(b"other");
    assert_eq!(prove("valid/log", &["--receipt", &receipt(&uses, RECORD, other)]), 10);
    assert_eq!(prove("valid/log", &["--receipt", &receipt(&uses, 13, other)]), 11);
    assert_eq!(prove("valid/log", &["--receipt", &receipt("example.net/other", RECORD, other)]), 16);
    assert_eq!(prove("valid/log/keys", &["--receipt", &receipt(&uses, RECORD, other)]), 16);
    assert_eq!(prove("valid/log", &["--seq", "13", "--of", "uses"]), 1);
    assert_eq!(prove("valid/log", &["--seq", "2"]), 2, "which log?");
    assert_eq!(prove("valid/log", &["--seq", "2", "--of", "example.net/other"]), 2);
    assert_eq!(prove("valid/log", &["--seq", "2", "--receipt", "valid/receipt.json"]), 2);
    assert_eq!(prove("valid/log", &[]), 2);
    assert_eq!(prove("nowhere", &["--seq", "2"]), 74);
    assert_eq!(prove("defect/no-checkpoint/log", &["--seq", "2", "--of", "keys"]), 13);
    assert_eq!(prove("defect/foreign-checkpoint/log", &["--seq", "2", "--of", "keys"]), 13);
    assert_eq!(prove("defect/edited-byte/log/uses", &["--seq", "7"]), 10);
    assert_eq!(prove("defect/cut-tail/log/uses", &["--seq", "7"]), 11);
    assert_eq!(prove("defect/wrong-origin/log", &["--seq", "2", "--of", "keys", "--trust", "valid/trust"]), 16);
    let grown = |more: &[&str]| command(&[&["prove-consistency", "valid/log"], more].concat()).0;
    assert_eq!(grown(&["--of", "uses"]), 2);
    assert_eq!(grown(&["--of", "uses", "--from", "9", "--to", "3"]), 2);
    assert_eq!(grown(&["--of", "uses", "--from", "9", "--to", "14"]), 1);
    assert_eq!(grown(&["--of", "uses", "--from", "3", "--from-note", "valid/head/uses-a"]), 2);
    assert_eq!(grown(&["--of", "uses", "--from-note", "valid/trust"]), 2);
    assert_eq!(grown(&["--of", "uses", "--from-note", "valid/head/keys"]), 16);
    let forged = file(scratch.path(), "forged", forged(3).to_string());
    assert_eq!(grown(&["--of", "keys", "--from-note", &forged]), 10);
}

fn verify_proof(proof: &str, more: &[&str]) -> (i32, String) {
    command(&[&["verify-proof", proof], more].concat())
}

#[test]
fn an_inclusion_proof_has_its_exit_code() {
    let scratch = tempfile::tempdir().unwrap();
    let trust = ["--trust", "valid/trust"];
    let with = |proof: &str, more: &[&str]| verify_proof(proof, &[&trust[..], more].concat());
    let (code, text) = with("proofs/record.tlog-proof", &["--token", "proofs/token", "--receipt", "proofs/receipt.json"]);
    assert!(
        code == 0 && text.starts_with(&format!("verified (exit 0): record 2 of {ORIGIN}/uses/a is in the log of 13 records\n")),
        "{text}"
    );
    assert!(
        text.contains("\"event\":\"sign\"") && text.contains("record of the token") && text.contains("record of the receipt"),
        "{text}"
    );
    let other = file(scratch.path(), "token", "header1.claims5.signature");
    assert_eq!(with("proofs/record.tlog-proof", &["--token", &other]).0, 10);
    assert_eq!(with("proofs/record.tlog-proof", &["--receipt", "valid/receipt.json"]).0, 10);
    let spoiled = String::from_utf8(golden("record.tlog-proof")).unwrap().replace("index 2", "index 3");
    assert_eq!(with(&file(scratch.path(), "spoiled", spoiled), &[]).0, 10);
    assert_eq!(with("valid/trust", &[]).0, 10, "no proof at all");
    assert_eq!(verify_proof("proofs/record.tlog-proof", &["--trust", "proofs/trust-witnesses"]).0, 13);
    let unsigned = String::from_utf8(golden("record.tlog-proof")).unwrap().replace("uses/a Tv20", "uses/b Tv20");
    assert_eq!(with(&file(scratch.path(), "unsigned", unsigned), &[]).0, 13);
    assert_eq!(verify_proof("proofs/record.tlog-proof", &[]).0, 16);
    let keys_only: String = fs::read_to_string(testdata().join("valid/trust"))
        .unwrap()
        .lines()
        .filter(|l| !l.contains("uses"))
        .fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(verify_proof("proofs/record.tlog-proof", &["--trust", &file(scratch.path(), "keys", keys_only)]).0, 16);
    assert_eq!(with("proofs/record-left-out.tlog-proof", &[]).0, 16);
    assert_eq!(with("proofs/record-left-out.tlog-proof", &["--receipt", "proofs/receipt.json"]).0, 0);
    let token = ["--receipt", "proofs/receipt.json", "--token", "proofs/token"];
    assert_eq!(with("proofs/record-left-out.tlog-proof", &token).0, 16);
    assert_eq!(with("proofs/record.tlog-proof", &["--token", "valid/trust"]).0, 2);
    assert_eq!(with("nowhere", &[]).0, 74);
}

#[test]
fn witnesses_say_how_old_a_proof_is() {
    let fresh = |now: u64, more: &[&str]| {
        let now = at(now).to_string();
        let standard = ["--trust", "proofs/trust-witnesses", "--max-age", "1h", "--now", &now];
        verify_proof("proofs/record-witnessed.tlog-proof", &[&standard[..], more].concat())
    };
    let (code, text) = fresh(super::END + 3_600, &["--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["verdict"], &answer["seq"]), (0, &"verified".into(), &RECORD.into()));
    assert_eq!((answer["cosigners"].as_array().unwrap().len(), &answer["witnessed"]), (2, &at(super::END).to_string().into()));
    assert_eq!(answer["record"]["event"], "sign");
    assert_eq!(fresh(super::END + 3_601, &[]).0, 14);
    // Without a quorum only the record has a time, and this one is a month old.
    let old = ["--trust", "valid/trust", "--max-age", "1h", "--now", &at(super::END).to_string()];
    assert_eq!(verify_proof("proofs/record-witnessed.tlog-proof", &old).0, 14);
}

#[test]
fn a_consistency_proof_has_its_exit_code() {
    let scratch = tempfile::tempdir().unwrap();
    let check = |proof: &str, more: &[&str]| command(&[&["verify-consistency", proof], more].concat());
    let trust = ["--trust", "valid/trust"];
    let (code, text) = check("proofs/consistency", &trust);
    assert!(code == 0 && text.starts_with("verified (exit 0): the first 5 records of "), "{text}");
    let (code, text) = check("proofs/consistency-from-unsigned", &trust);
    assert!(code == 0 && text.contains("not signed by itself"), "{text}");
    let (code, text) = check("proofs/consistency-unsigned", &trust);
    assert!(code == 16 && text.contains("nothing is signed"), "{text}");
    assert_eq!(check("proofs/consistency", &[]).0, 16);
    assert_eq!(check("proofs/consistency", &["--trust", "proofs/trust-witnesses"]).0, 13);
    let spoiled = String::from_utf8(golden("consistency")).unwrap().replacen("from 5", "from 6", 1);
    assert_eq!(check(&file(scratch.path(), "spoiled", spoiled), &trust).0, 10);
    let unsigned = String::from_utf8(golden("consistency")).unwrap().replace("uses/a Tv20", "uses/b Tv20");
    assert_eq!(check(&file(scratch.path(), "unsigned", unsigned), &trust).0, 13);
    assert_eq!(check("proofs/fork", &trust).0, 10, "another kind of proof");
    assert_eq!(check("nowhere", &trust).0, 74);
    assert_eq!(command(&["verify-consistency"]).0, 2);
    let (code, text) = check("proofs/consistency", &["--trust", "valid/trust", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["trees"][0]["size"], &answer["trees"][1]["size"]), (0, &5.into(), &13.into()));
}

#[test]
fn a_fork_proof_has_its_exit_code_and_never_zero() {
    let scratch = tempfile::tempdir().unwrap();
    let check = |proof: &str, more: &[&str]| command(&[&["verify-fork", proof], more].concat());
    let trust = ["--trust", "valid/trust"];
    for (name, sizes) in [("proofs/fork", ["| 3", "| 23"]), ("proofs/fork-of-one-size", ["| 23", "| 23"])] {
        let (code, text) = check(name, &trust);
        assert!(code == 12 && text.starts_with("forked (exit 12): "), "{text}");
        assert!(sizes.iter().all(|size| text.lines().any(|line| line.trim() == *size)), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("    | \u{2014} ")).count(), 2);
    }
    let text = String::from_utf8(golden("fork")).unwrap();
    let spoiled = text.lines().enumerate().filter(|(number, _)| *number != 2).fold(String::new(), |text, (_, line)| text + line + "\n");
    assert_eq!(check(&file(scratch.path(), "spoiled", spoiled), &trust).0, 10);
    assert_eq!(check("proofs/consistency", &trust).0, 10, "another kind of proof");
    let unsigned = text.replacen("keys 1j7h", "kays 1j7h", 1);
    assert_eq!(check(&file(scratch.path(), "unsigned", unsigned), &trust).0, 13);
    assert_eq!(check("proofs/fork", &[]).0, 16);
    let stranger = fs::read_to_string(testdata().join("valid/trust")).unwrap();
    let stranger: String = stranger.lines().filter(|line| !line.contains("keys")).fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(check("proofs/fork", &["--trust", &file(scratch.path(), "stranger", stranger)]).0, 16);
    assert_eq!(check("nowhere", &trust).0, 74);
    let (_, text) = check("proofs/fork", &["--trust", "valid/trust", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["exit"], answer["notes"].as_array().unwrap().len()), (&12.into(), 2));
}

#[test]
fn verify_writes_the_proof_of_a_fork_and_overwrites_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("fork.proof");
    let arguments = ["--min-size", "1", "--fork-proof", path.to_str().unwrap()];
    for name in ["fork.proof", "fork-2.proof", "fork-3.proof"] {
        let (code, text) = verify_command("defect/two-roots", &arguments);
        assert!(code == 12 && text.lines().any(|line| line.contains("is proven to anyone by") && line.contains(name)), "{text}");
        assert_eq!(fs::read(scratch.path().join(name)).unwrap(), golden("fork"), "{name}");
    }
    let nowhere = scratch.path().join("nowhere").join("fork.proof");
    let (code, text) = verify_command("defect/two-roots", &["--min-size", "1", "--fork-proof", nowhere.to_str().unwrap()]);
    assert!(code == 12 && text.contains("could not be written"), "the verdict stands without the file: {text}");
    let (code, text) = verify_command("defect/two-roots", &[&arguments[..], &["--format", "json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report["fork_proofs"][0]["log"].as_str()), (12, Some(KEYS)));
    assert!(report["fork_proofs"][0]["file"].as_str().unwrap().ends_with("fork-4.proof"));
    // A log without a fork leaves nothing behind.
    let before = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(verify_command("valid", &arguments).0, 0);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), before);
}

/// Two signed notes of one size are a fork even where the lines are neither.
#[test]
fn a_fork_needs_no_lines() {
    let valid = build(Story::Valid);
    let other = |size| NoteFile { name: format!("remembered {size}"), bytes: forged(size).to_string().into_bytes() };
    let mut short = valid.clone();
    let lines = short.get_mut("log/keys/00000000000000000000.jsonl").unwrap();
    let end = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(16).unwrap().0;
    lines.truncate(end + 1);
    let options = Options { keys_only: true, max_age: None, ..pins(&valid) };
    assert_eq!(super::check(&short, &options).verdict, Verdict::Truncated);
    let report = super::check(&short, &Options { heads: vec![other(23)], ..options.clone() });
    assert_eq!(report.verdict, Verdict::Forked);
    let proof = report.findings.list().iter().find_map(|finding| finding.proof.clone()).unwrap();
    let claimed = |note: &Note| note.text().parse::<Checkpoint>().unwrap().size;
    assert_eq!((claimed(&proof.shorter), claimed(&proof.longer)), (23, 23));
    assert!(proof.check(options.trust.as_ref()).is_ok());
    // Of different sizes, and with none of the lines, nobody can tell.
    assert_eq!(super::check(&short, &Options { heads: vec![other(24)], ..options }).verdict, Verdict::Truncated);
}

#[test]
fn a_job_gets_annotations_and_a_summary() {
    let scratch = tempfile::tempdir().unwrap();
    let summary = file(scratch.path(), "summary.md", "before\n");
    let more = ["--min-size", "1", "--format", "github", "--summary", &summary];
    let (code, text) = verify_command("defect/edited-byte", &more);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 10);
    assert!(lines[0].starts_with("tampered (exit 10): "), "{text}");
    let place = "::error file=defect/edited-byte/log/uses/00000000000000000005.jsonl,line=5,title=claviger-audit exit 10 tampered::";
    assert!(lines[1].starts_with(place), "{text}");
    assert!(lines[lines.len() - 1].starts_with("::notice title=claviger-audit exit 10 tampered::"), "{text}");
    let (code, text) = verify_command("valid", &more);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    let written = fs::read_to_string(&summary).unwrap();
    let headings: Vec<&str> = written.lines().filter(|line| line.starts_with("### claviger-audit: ")).collect();
    assert!(written.starts_with("before\n### claviger-audit: tampered (exit 10)"), "{written}");
    assert!(headings.len() == 2 && headings[1].starts_with("### claviger-audit: verified (exit 0)"), "{written}");
    assert!(written.contains("| 10 tampered |"), "{written}");
    let nowhere = scratch.path().join("nowhere").join("summary.md");
    assert_eq!(verify_command("valid", &["--min-size", "1", "--summary", nowhere.to_str().unwrap()]).0, 74);
}
