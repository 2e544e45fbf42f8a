//! The text of C2SP tlog-witness `add-checkpoint`: the request, and what an answer says.
//!
//! In scope: both forms, and checking a cosignature before it is believed. Out of scope: sending, and what follows from an answer.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::merkle::Hash;
use claviger_audit::note::{Note, VerifierKey};

use crate::journal::Signed;

/// The media type of a size in an answer 409.
pub const SIZE_TYPE: &str = "text/x.tlog.size";
/// Most of a witness's own words that are repeated in a log line.
const MOST_WORDS: usize = 200;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type, without parameters.
    pub kind: String,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// 200: a valid cosignature, as a signature line without its LF.
    Cosigned(String),
    /// 409: the witness cosigned this many records last.
    Knows(u64),
    /// 422: the checkpoint does not continue the one that the witness cosigned.
    Inconsistent(String),
    /// Anything else.
    Nothing(String),
}

/// The body of a request.
pub fn request(old: u64, proof: &[Hash], checkpoint: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        // Writing to a String cannot fail.
        let _ = writeln!(body, "{}", STANDARD.encode(hash.as_bytes()));
    }
    body.push('\n');
    body.push_str(checkpoint);
    body
}

/// Reads an answer about `checkpoint` of the witness with this key.
pub fn read(answer: &Answer, checkpoint: &Signed, key: &VerifierKey) -> Word {
    match answer.status {
        200 => cosignature(&answer.body, checkpoint, key),
        409 if answer.kind.eq_ignore_ascii_case(SIZE_TYPE) => match size(&answer.body) {
            Some(size) => Word::Knows(size),
            None => Word::Nothing("it answered 409 without a size".to_owned()),
        },
        422 => Word::Inconsistent(words(&answer.body)),
        404 => Word::Nothing("it does not know this log (404): its operator must add the origin and the log key".to_owned()),
        403 => Word::Nothing("it knows the log by another key (403): its operator must add the log key".to_owned()),
        status => Word::Nothing(format!("it answered {status}: {}", words(&answer.body))),
    }
}

/// Of all lines the first that the key made. Lines by unknown keys are ignored, as the specification demands; a wrong signature that names
/// the key is none.
fn cosignature(body: &[u8], checkpoint: &Signed, key: &VerifierKey) -> Word {
    let Ok(note) = Note::parse(checkpoint.note.as_bytes()) else { return Word::Nothing("our own checkpoint is no note".to_owned()) };
    let lines = std::str::from_utf8(body).unwrap_or_default().lines();
    let mut wrong = false;
    for line in lines {
        let Ok(alone) = Note::parse(format!("{}\n{line}\n", note.text()).as_bytes()) else { continue };
        if !alone.signatures().iter().any(|signature| signature.name == key.name() && signature.key_id == key.id()) {
            continue;
        }
        // A cosignature without a time says nothing about which checkpoint is the newest.
        let verified = alone.verify(std::slice::from_ref(key));
        if verified.is_ok_and(|signatures| signatures.iter().any(|signature| signature.time.is_some_and(|time| time > 0))) {
            return Word::Cosigned(line.to_owned());
        }
        wrong = true;
    }
    let why = if wrong { "its cosignature is not valid" } else { "it answered 200 without a cosignature by its key" };
    Word::Nothing(why.to_owned())
}

/// Decimal, no leading zero, one LF.
fn size(body: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
    let size: u64 = digits.parse().ok()?;
    (size.to_string() == digits).then_some(size)
}

/// The witness's own words, as far as they can stand in one line.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use claviger_audit::checkpoint::Checkpoint;

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn vkey(name: &str, kind: u8, pair: &Ed25519KeyPair) -> VerifierKey {
        let key = [&[kind], pair.public_key().as_ref()].concat();
        let id = Hash::digest(&[name.as_bytes(), b"\n", &key].concat()).to_string();
        format!("{name}+{}+{}", &id[..8], STANDARD.encode(&key)).parse().unwrap()
    }

    fn line(key: &VerifierKey, bytes: &[u8]) -> String {
        format!("\u{2014} {} {}", key.name(), STANDARD.encode([key.id().as_bytes(), bytes].concat()))
    }

    fn cosign(key: &VerifierKey, pair: &Ed25519KeyPair, text: &str, time: u64) -> String {
        let signature = pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        line(key, &[time.to_be_bytes().as_slice(), signature.as_ref()].concat())
    }

    fn signed() -> (Signed, String) {
        let (log, root) = (pair(1), Hash::digest(b"root"));
        let text = Checkpoint::new("log.example", 7, root).to_string();
        let note = format!("{text}\n{}\n", line(&vkey("log.example", 1, &log), log.sign(text.as_bytes()).as_ref()));
        (Signed { size: 7, root, note }, text)
    }

    fn answer(status: u16, kind: &str, body: &str) -> Answer {
        Answer { status, kind: kind.to_owned(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_request_has_the_form_of_the_specification() {
        let hash = Hash::from_bytes([0; 32]);
        let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(request(5, &[hash, hash], "checkpoint\n"), format!("old 5\n{zeros}\n{zeros}\n\ncheckpoint\n"));
        assert_eq!(request(0, &[], "checkpoint\n"), "old 0\n\ncheckpoint\n");
    }

    #[test]
    fn only_the_witness_s_own_valid_cosignature_counts() {
        let (checkpoint, text) = signed();
        let (mine, other) = (pair(2), pair(3));
        let (key, stranger) = (vkey("w.example", 4, &mine), vkey("x.example", 4, &other));
        let (good, foreign) = (cosign(&key, &mine, &text, 1_800_000_000), cosign(&stranger, &other, &text, 1_800_000_000));
        let say = |body: &str| read(&answer(200, "text/plain", body), &checkpoint, &key);
        assert_eq!(say(&format!("{foreign}\n{good}\n")), Word::Cosigned(good.clone()));
        let later = cosign(&key, &mine, &text.replace("\n7\n", "\n8\n"), 1_800_000_000);
        let timeless = cosign(&key, &mine, &text, 0);
        for wrong in [later, timeless, cosign(&key, &other, &text, 1_800_000_000)] {
            assert_eq!(say(&format!("{wrong}\n")), Word::Nothing("its cosignature is not valid".to_owned()), "{wrong}");
        }
        for none in ["", "nonsense\n", &format!("{foreign}\n")] {
            assert_eq!(say(none), Word::Nothing("it answered 200 without a cosignature by its key".to_owned()), "{none}");
        }
    }

    #[test]
    fn a_size_has_one_spelling_and_its_own_type() {
        let (checkpoint, _) = signed();
        let key = vkey("w.example", 4, &pair(2));
        let say = |kind: &str, body: &str| read(&answer(409, kind, body), &checkpoint, &key);
        assert_eq!(say(SIZE_TYPE, "0\n"), Word::Knows(0));
        assert_eq!(say(SIZE_TYPE, "20852163\n"), Word::Knows(20_852_163));
        for bad in ["", "7", "07\n", "+7\n", "-7\n", "7\n\n", " 7\n", "7 \n", "18446744073709551616\n"] {
            assert!(matches!(say(SIZE_TYPE, bad), Word::Nothing(_)), "{bad:?}");
        }
        assert!(matches!(say("text/plain", "7\n"), Word::Nothing(_)));
    }

    #[test]
    fn what_a_witness_says_cannot_forge_a_log_line() {
        let (checkpoint, _) = signed();
        let key = vkey("w.example", 4, &pair(2));
        let long = format!("bad\nproof\u{1b}[2J{}", "x".repeat(1000));
        let Word::Inconsistent(text) = read(&answer(422, "", &long), &checkpoint, &key) else { panic!() };
        assert!(text.starts_with("badproof[2J") && text.len() == MOST_WORDS);
        assert!(matches!(read(&answer(500, "", "oops"), &checkpoint, &key), Word::Nothing(text) if text == "it answered 500: oops"));
    }
}
