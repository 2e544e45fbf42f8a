//! Proofs that leave the log, as `prove` and `prove-consistency` write them, before the judge.
//!
//! In scope: a C2SP tlog-proof of each golden record and every bit of one flipped; consistency between every pair of golden sizes. Out of
//! scope: the hashes by themselves (`proofs`), and receipts, tokens and ages, which no judge knows.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Hash, leaf_hash};
use claviger_audit::note::{Note, SignatureType, VerifierKey};
use claviger_audit::proof::{ConsistencyProof, InclusionProof, Question};
use claviger_audit::trust::Policy;
use serde_json::{Value, json};

use crate::notes::{flipped, respelt};
use crate::process::{Judge, run};
use crate::{golden, golden_lines, golden_trust, root};

/// What our command writes about the golden logs.
fn command(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_claviger-audit")).current_dir(golden()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn prove(log: &str, index: usize) -> Vec<u8> {
    command(&["prove", "log", "--trust", "trust", "--of", log, "--seq", &index.to_string()])
}

/// The judge's question about a proof file. Without a record, that of the extra line is meant, as with us.
fn question(file: &[u8], record: &[u8]) -> Value {
    let keys: Vec<String> = golden_trust().keys().iter().map(VerifierKey::to_string).collect();
    json!({"kind": "proof", "file": STANDARD.encode(file), "record": STANDARD.encode(record), "keys": keys})
}

fn ours(file: &[u8]) -> Result<(), String> {
    let trust = golden_trust();
    let proof = InclusionProof::parse(file).map_err(|error| error.to_string())?;
    proof.check(&Question { trust: Some(&trust), ..Question::default() }).map(drop).map_err(|error| error.text)
}

#[test]
fn a_proof_of_each_golden_record() {
    let (mut judge, lines) = (Judge::start(), golden_lines());
    for (index, line) in lines.iter().enumerate() {
        let file = prove("keys", index);
        assert_eq!(ours(&file), Ok(()));
        let theirs = judge.ask(&question(&file, line));
        let leaves: Vec<Hash> = lines.iter().map(|line| leaf_hash(line)).collect();
        assert_eq!((theirs.ok, theirs.size, theirs.root), (true, lines.len() as u64, root(&leaves).to_string()), "{}", theirs.error);
        assert!(judge.ask(&question(&file, b"")).ok, "the extra line holds the record");
        assert!(!judge.ask(&question(&file, &lines[(index + 1) % lines.len()])).ok, "another record at {index}");
    }
    for index in 0..13 {
        assert!(judge.ask(&question(&prove("uses", index), b"")).ok);
    }
    let bare = command(&["prove", "log", "--trust", "trust", "--of", "keys", "--seq", "9", "--without-record"]);
    assert!(judge.ask(&question(&bare, &lines[9])).ok && !judge.ask(&question(&bare, b"")).ok);
}

/// The committed proofs; one of them carries cosignatures, which the judge verifies where it knows the witnesses.
#[test]
fn the_golden_proofs() {
    let mut judge = Judge::start();
    let file = |name: &str| std::fs::read(golden().join("../proofs").join(name)).unwrap();
    let keys = Policy::parse(&file("trust-witnesses")).unwrap().keys();
    assert_eq!(keys.iter().filter(|key| key.signature_type() == SignatureType::CosignatureEd25519).count(), 3);
    let keys: Vec<String> = keys.iter().map(VerifierKey::to_string).collect();
    let asked = |name: &str, keys: &[String]| json!({"kind": "proof", "file": STANDARD.encode(file(name)), "keys": keys});
    for name in ["record.tlog-proof", "record-witnessed.tlog-proof"] {
        assert!(judge.ask(&asked(name, &keys)).ok, "{name}");
        assert!(!judge.ask(&asked(name, &keys[..1])).ok, "{name} is not of the key log");
    }
    assert!(!judge.ask(&asked("record-left-out.tlog-proof", &keys)).ok, "nobody says which record it is");
}

#[test]
fn any_flipped_bit_of_a_proof() {
    let (mut judge, file) = (Judge::start(), prove("keys", 9));
    let damaged: Vec<Vec<u8>> = (0..file.len() * 8).map(|bit| flipped(&file, bit)).collect();
    let questions: Vec<Value> = damaged.iter().map(|file| question(file, b"")).collect();
    for (file, theirs) in damaged.iter().zip(judge.ask_all(&questions)) {
        let seen = String::from_utf8_lossy(file);
        assert!(ours(file).is_err(), "{seen}");
        // The one difference: Go reads a second spelling of the log's signature (`notes`).
        assert_eq!(theirs.ok, ours(&respelt(file)).is_ok(), "the judge says {:?}: {seen}", theirs.error);
    }
}

#[test]
fn proofs_that_are_nearly_well_formed() {
    let mut judge = Judge::start();
    let good = String::from_utf8(prove("keys", 9)).unwrap();
    let (head, checkpoint) = good.split_once("\n\n").unwrap();
    let changes = [
        ("index 9", "index 09"),
        ("index 9", "index 10"),
        ("index 9", "index +9"),
        ("index 9", "index  9"),
        ("index 9", "index 18446744073709551625"),
        ("index 9\n", ""),
        ("index 9\n", "index 9\nindex 9\n"),
        ("index 9\n", "index 9\n\n"),
        ("@v1", "@v2"),
        ("@v1\n", "@v1\n\n"),
        ("@v1\n", "@v1\r\n"),
        ("\n\n", "\n"),
        ("\n\n", "\n\n\n"),
        ("extra ", "extra  "),
        ("extra ", "extra="),
        ("extra ", "Extra "),
        ("extra ", "extra AAAA\nextra "),
        ("c2sp", " c2sp"),
        ("c2sp", "\u{feff}c2sp"),
    ];
    let mut forms: Vec<String> = changes.iter().map(|(from, to)| good.replacen(from, to, 1)).collect();
    assert!(forms.iter().all(|form| *form != good));
    forms.extend([
        String::new(),
        head.to_owned(),
        format!("{head}\n\n"),
        checkpoint.to_owned(),
        format!("{good}\n"),
        good.trim_end().to_owned(),
    ]);
    let asked: Vec<_> = forms.iter().map(|form| (question(form.as_bytes(), b""), ours(form.as_bytes()))).collect();
    assert!(asked.iter().all(|(_, ours)| ours.is_err()), "{asked:#?}");
    judge.agrees(&asked);
}

#[test]
fn the_command_says_what_the_process_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lines = golden_lines();
    for (name, bytes) in [("9.tlog-proof", prove("keys", 9).as_slice()), ("9", &lines[9]), ("8", &lines[8])] {
        std::fs::write(path(name), bytes).unwrap();
    }
    let key = golden_trust().keys()[0].to_string();
    let code = |more: &[&str]| run("judges", &[&["inclusion", "-key", &key][..], more, &[&path("9.tlog-proof")]].concat()).status.code();
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["-record", &path("9")]), Some(0));
    assert_eq!(code(&["-record", &path("8")]), Some(1));
    assert_eq!(code(&["-record", &path("nowhere")]), Some(2));
}

#[test]
fn consistency_between_every_two_golden_sizes() {
    let mut judge = Judge::start();
    let leaves: Vec<Hash> = golden_lines().iter().map(|line| leaf_hash(line)).collect();
    let note = Note::parse(&std::fs::read(golden().join("log/keys/checkpoint")).unwrap()).unwrap();
    let newest: Checkpoint = note.text().parse().unwrap();
    for from in 1..=leaves.len() {
        let file = command(&["prove-consistency", "log", "--trust", "trust", "--of", "keys", "--from", &from.to_string()]);
        let ConsistencyProof { from, to, hashes, .. } = ConsistencyProof::parse(&file).unwrap();
        assert_eq!((from.root, to.size, to.root), (root(&leaves[..usize::try_from(from.size).unwrap()]), newest.size, newest.root));
        let tree =
            |size, root| json!({"kind": "tree", "old": from.size, "old_root": from.root, "size": size, "root": root, "proof": hashes});
        let theirs = judge.ask(&tree(to.size, to.root));
        assert!(theirs.ok, "{} to {}: {}", from.size, to.size, theirs.error);
        assert!(!judge.ask(&tree(to.size, leaf_hash(b"other"))).ok);
    }
}
