//! Checkpoints and C2SP tlog-proof files: ours against `tlog.ParseTree` behind `sumdb/note`.
//!
//! In scope: every checkpoint of the golden logs, texts that are nearly checkpoints, who must have signed, and proofs of each golden record.
//! Out of scope: the note around the text (`notes`), and the hashes of a proof (`proofs`).

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Hash, inclusion_proof, leaf_hash};
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::trust::Policy;
use serde_json::{Value, json};

use crate::process::{Judge, Verdict, run};
use crate::signers::{Signer, note};
use crate::{golden_keys, golden_lines, root};

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

/// The keys and origins of the logs that the golden trust file names.
fn golden_trust() -> Vec<VerifierKey> {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/valid/trust")).unwrap();
    Policy::parse(&text).unwrap().keys()
}

#[test]
fn every_golden_checkpoint() {
    let keys = golden_trust();
    let valid = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/valid");
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

/// A C2SP tlog-proof of a golden record, as the specification lays it out.
fn proof_file(lines: &[Vec<u8>], index: usize) -> String {
    let leaves: Vec<Hash> = lines.iter().map(|line| leaf_hash(line)).collect();
    let proof = inclusion_proof(&leaves, index as u64, leaves.len() as u64).unwrap();
    let hashes: String = proof.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect();
    let checkpoint = fs::read_to_string(golden_keys().join("checkpoint")).unwrap();
    format!("c2sp.org/tlog-proof@v1\nextra {}\nindex {index}\n{hashes}\n{checkpoint}", STANDARD.encode(&lines[index]))
}

fn judged(judge: &mut Judge, file: &str, record: &[u8]) -> Verdict {
    let keys: Vec<String> = golden_trust().iter().map(VerifierKey::to_string).collect();
    judge.ask(&json!({"kind": "proof", "file": STANDARD.encode(file), "record": STANDARD.encode(record), "keys": keys}))
}

#[test]
fn a_proof_of_each_golden_record() {
    let (mut judge, lines) = (Judge::start(), golden_lines());
    for index in 0..lines.len() {
        let file = proof_file(&lines, index);
        let theirs = judged(&mut judge, &file, &lines[index]);
        assert_eq!((theirs.ok, theirs.size), (true, lines.len() as u64), "record {index}: {}", theirs.error);
        assert!(judged(&mut judge, &file, b"").ok, "the extra line holds the record");
        assert!(!judged(&mut judge, &file, &lines[(index + 1) % lines.len()]).ok, "another record at {index}");
        let bare: String = file.split_inclusive('\n').filter(|line| !line.starts_with("extra ")).collect();
        assert!(judged(&mut judge, &bare, &lines[index]).ok && !judged(&mut judge, &bare, b"").ok);
    }
}

/// Every character of a proof file, replaced by a digit of base64: no change of what is proven goes unseen, and the extra line alone may say
/// anything while the record is given by hand.
#[test]
fn no_changed_character_of_a_proof_goes_unseen() {
    let (mut judge, lines) = (Judge::start(), golden_lines());
    let file = proof_file(&lines, 9);
    let extra = file.find("extra ").unwrap() + "extra ".len()..file.find("\nindex").unwrap();
    for (at, _) in file.char_indices().filter(|(at, _)| !extra.contains(at)) {
        let mut changed: Vec<char> = file.chars().collect();
        let place = file[..at].chars().count();
        changed[place] = if changed[place] == 'B' { 'C' } else { 'B' };
        let changed: String = changed.into_iter().collect();
        assert!(!judged(&mut judge, &changed, &lines[9]).ok, "character {at}");
    }
    let [before, after] = [&file[..extra.start], &file[extra.end..]];
    let other = format!("{before}AAAA{after}");
    assert!(judged(&mut judge, &other, &lines[9]).ok && !judged(&mut judge, &other, b"").ok);
    for (from, to) in
        [("index 9", "index 09"), ("index 9", "index 10"), ("index 9", "index -1"), ("index 9\n", ""), ("@v1", "@v2"), ("\n\n", "\n")]
    {
        assert!(!judged(&mut judge, &file.replacen(from, to, 1), &lines[9]).ok, "{from:?} {to:?}");
    }
}
