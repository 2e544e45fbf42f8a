//! Checkpoints: ours against `tlog.ParseTree` behind `sumdb/note`.
//!
//! In scope: every checkpoint of the golden logs, texts that are nearly checkpoints, and who must have signed. Out of scope: the note around
//! the text (`notes`).

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Hash, leaf_hash};
use claviger_audit::note::{Note, VerifierKey};
use serde_json::{Value, json};

use crate::process::{Judge, Verdict, run};
use crate::signers::{Signer, note};
use crate::{golden, golden_keys, golden_lines, golden_trust, root};

const LOG: &str = "log.example/keys";
const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

fn ours(note: &[u8], origin: &str, keys: &[VerifierKey]) -> Result<Checkpoint, String> {
    let note = Note::parse(note).map_err(|error| error.to_string())?;
    Checkpoint::from_note(&note, origin, keys).map(|(checkpoint, _)| checkpoint).map_err(|error| error.to_string())
}

fn question(note: &[u8], keys: &[VerifierKey]) -> Value {
    let keys: Vec<String> = keys.iter().map(VerifierKey::to_string).collect();
    json!({"kind": "checkpoint", "file": STANDARD.encode(note), "keys": keys})
}

/// The judge's verdict and ours; where both accept, they must have read the same.
fn both(judge: &mut Judge, note: &[u8], keys: &[VerifierKey]) -> (Result<Checkpoint, String>, Verdict) {
    let (ours, theirs) = (ours(note, LOG, keys), judge.ask(&question(note, keys)));
    if let (Ok(checkpoint), true) = (&ours, theirs.ok) {
        let read = (checkpoint.origin.clone(), checkpoint.size, checkpoint.root.to_string());
        assert_eq!(read, (theirs.origin.clone(), theirs.size, theirs.root.clone()));
    }
    (ours, theirs)
}

#[test]
fn every_golden_checkpoint() {
    let keys = golden_trust().keys();
    let valid = golden();
    let files =
        ["log/keys/checkpoint", "log/uses/checkpoint", "log/uses/00000000000000000000.jsonl.checkpoint", "head/keys", "head/uses-a"];
    let mut judge = Judge::start();
    for file in files {
        let note = fs::read(valid.join(file)).unwrap();
        let theirs = judge.ask(&question(&note, &keys));
        let ours = ours(&note, &theirs.origin, &keys).unwrap();
        assert_eq!((theirs.ok, theirs.size, theirs.root), (true, ours.size, ours.root.to_string()), "{file}");
    }
    // The root is that of the lines, and the command says what the process says.
    let leaves: Vec<Hash> = golden_lines().iter().map(|line| leaf_hash(line)).collect();
    let output = run("judges", &["checkpoint", "-key", &keys[0].to_string(), golden_keys().join("checkpoint").to_str().unwrap()]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said, json!({"origin": "example.org/claviger/keys", "size": leaves.len(), "root": root(&leaves)}));
    let stranger = run("judges", &["checkpoint", "-key", &keys[1].to_string(), golden_keys().join("checkpoint").to_str().unwrap()]);
    assert_eq!((stranger.status.code(), stranger.stdout.as_slice()), (Some(1), &b""[..]));
}

#[test]
fn whoever_signs_must_be_the_log() {
    let text = format!("{LOG}\n2\n{ROOT}\n");
    let (log, ecdsa, other) = (Signer::ed25519(LOG, 1), Signer::p256(LOG, 2), Signer::ed25519("other.example", 3));
    let (witness, namesake) = (Signer::cosigner("witness.example", 4, 1), Signer::cosigner(LOG, 5, 1));
    let keys: Vec<VerifierKey> = [&log, &ecdsa, &other, &witness, &namesake].map(|signer| signer.key.clone()).to_vec();
    let mut judge = Judge::start();
    let cases: [(&[&Signer], bool); 7] = [
        (&[&log], true),
        (&[&ecdsa], true),
        (&[&witness, &ecdsa, &log], true),
        (&[&other, &witness, &log], true),
        (&[&other], false),
        (&[&witness], false),
        (&[&namesake, &witness], false),
    ];
    for (at, (signed, expected)) in cases.into_iter().enumerate() {
        let (ours, theirs) = both(&mut judge, note(&text, signed).as_bytes(), &keys);
        assert_eq!((ours.is_ok(), theirs.ok), (expected, expected), "case {at}: we say {ours:?}, the judge says {:?}", theirs.error);
    }
}

#[test]
fn texts_that_are_checkpoints_and_texts_that_are_nearly() {
    let log = Signer::ed25519(LOG, 1);
    let mut judge = Judge::start();
    let accepted = [
        format!("{LOG}\n1\n{ROOT}\n"),
        format!("{LOG}\n9223372036854775807\n{ROOT}\n"),
        format!("{LOG}\n1\n{ROOT}\nextension\n+ 0 \n"),
        format!("{LOG}\n0\n{}\n", STANDARD.encode(Hash::EMPTY_ROOT.as_bytes())),
    ];
    let sizes = ["", "00", "01", "+1", "-1", " 1", "1 ", "1.0", "0x1", "1e3", "1_0", "18446744073709551616", "\u{661}"];
    let roots = ["", "CsUY", &ROOT[1..], &ROOT[..43], &format!(" {ROOT}"), &format!("{ROOT}="), &ROOT.replace('/', "_"), "AAAA"];
    let refused = sizes.iter().map(|size| format!("{LOG}\n{size}\n{ROOT}\n"));
    let refused = refused.chain(roots.iter().map(|root| format!("{LOG}\n1\n{root}\n")));
    let refused = refused.chain([
        LOG.to_owned() + "\n",
        format!("{LOG}\n1\n"),
        format!("\n1\n{ROOT}\n"),
        format!("1\n{ROOT}\n"),
        format!("{LOG}\n\n1\n{ROOT}\n"),
    ]);
    let cases = accepted.into_iter().map(|text| (text, true)).chain(refused.map(|text| (text, false)));
    for (text, expected) in cases {
        let (ours, theirs) = both(&mut judge, note(&text, &[&log]).as_bytes(), std::slice::from_ref(&log.key));
        assert_eq!((ours.is_ok(), theirs.ok), (expected, expected), "{text:?}: we say {ours:?}, the judge says {:?}", theirs.error);
    }
}

#[test]
fn the_checkpoints_on_which_we_differ_are_these() {
    let log = Signer::ed25519(LOG, 1);
    let long = "x".repeat(1_000_001);
    // What we say, and why the judge says the contrary.
    let differences = [
        (format!("{LOG}\n1\n{ROOT}\n\n"), false, "C2SP: extension lines MUST be non-empty; tlog passes over them"),
        (format!("{LOG}\n1\n{ROOT}\na\n\nb\n"), false, "the same, between two others"),
        (format!("{LOG}\n0\n{ROOT}\n"), false, "C2SP: the root is that of the tree; tlog compares nothing for a tree without leaves"),
        (format!("{LOG}\n1\n{}\n", ROOT.replace("q2I=", "q2J=")), false, "a second spelling of the same base64; Go's decoder reads it"),
        (format!("{LOG}\n9223372036854775808\n{ROOT}\n"), true, "C2SP: a decimal number; tlog counts in 64 bits with a sign"),
        (format!("{LOG}\n1\n{ROOT}\n{long}\n"), true, "tlog reads a million bytes; we read a mebibyte"),
    ];
    let mut judge = Judge::start();
    for (text, expected, why) in differences {
        let (ours, theirs) = both(&mut judge, note(&text, &[&log]).as_bytes(), std::slice::from_ref(&log.key));
        assert_eq!((ours.is_ok(), theirs.ok), (expected, !expected), "{why}: we say {ours:?}, the judge says {:?}", theirs.error);
    }
}
