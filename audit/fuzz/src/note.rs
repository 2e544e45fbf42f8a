//! Signed notes, the checkpoints that they carry, and the keys that verify them.
//!
//! Out of scope: making signatures; whatever verifies here was signed when the golden files were made.

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::trust::Policy;

/// Every note that the keys of the golden trust file ever signed.
const SIGNED: [&[u8]; 5] = [
    include_bytes!("../../testdata/valid/head/keys"),
    include_bytes!("../../testdata/valid/head/uses-a"),
    include_bytes!("../../testdata/valid/log/keys/checkpoint"),
    include_bytes!("../../testdata/valid/log/uses/checkpoint"),
    include_bytes!("../../testdata/valid/log/uses/00000000000000000000.jsonl.checkpoint"),
];

/// The golden trust file.
pub(crate) fn trust() -> Policy {
    Policy::parse(include_bytes!("../../testdata/valid/trust")).expect("the golden trust file is one")
}

/// A note is written again byte for byte, and no change to one makes another text that a trusted key is taken to have signed.
pub fn check(data: &[u8]) {
    let Ok(note) = Note::parse(data) else { return };
    assert_eq!(note.to_string().as_bytes(), data, "a note has one spelling");
    let policy = trust();
    if note.verify(&policy.keys()).is_err() {
        return;
    }
    let signed = SIGNED.map(|bytes| Note::parse(bytes).expect("a golden note is one"));
    assert!(signed.iter().any(|signed| signed.text() == note.text()), "nobody has signed {:?}", note.text());
    for log in policy.logs() {
        if let Ok((checkpoint, _)) = Checkpoint::from_note(&note, log.key.name(), &policy.keys()) {
            assert_eq!(checkpoint.to_string(), note.text(), "a checkpoint says what was signed");
            assert_eq!(checkpoint.origin, log.key.name(), "a checkpoint of another log");
        }
    }
}

/// A verifier key has one spelling.
pub fn check_key(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text, "a verifier key has one spelling");
        let line = format!("log {key}\nquorum none\n");
        let policy = line.parse::<Policy>();
        // A cosigner's key is no log's, and a name may hold what a trust file cannot.
        assert!(policy.is_err() || policy.is_ok_and(|policy| policy.logs()[0].key == key), "a key that changes in a trust file");
    }
}

/// The text of a checkpoint has one spelling.
pub fn check_checkpoint(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text, "a checkpoint has one spelling");
        if checkpoint.extensions().is_empty() {
            assert_eq!(Checkpoint::new(&checkpoint.origin, checkpoint.size, checkpoint.root), checkpoint);
        }
    }
}
