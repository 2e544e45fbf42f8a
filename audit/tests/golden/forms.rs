//! More ways to be wrong, each with the exit code that it must give: bytes that are nearly a record, files in the wrong place, checkpoints
//! of something else, and chains that fit but that nobody trusted has signed.
//!
//! In scope: one example of each. Out of scope: the same at every place (test `attacks`).

use claviger_audit::line::MAX_LINE;
use claviger_audit::merkle::Hash;
use ed25519_dalek::SigningKey;

use super::builder::{FIRST, Files, KEYS_SEED, ORIGIN, SECOND, Story, build, note};
use super::defects::{Defect, KEYS, defect, replace, with, with_lines};
use super::forge::Forger;

const CHECKPOINT: &str = "log/keys/checkpoint";

/// All of them.
pub(super) fn all() -> Vec<Defect> {
    let mut defects = spellings();
    defects.extend(segments());
    defects.extend(checkpoints());
    defects.extend(chains());
    defects
}

fn spellings() -> Vec<Defect> {
    let nested = ("\"clock_skew_ms\":", "\"clock_skew_ms\":1,\"clock_skew_ms\":");
    vec![
        defect("byte-order-mark", 10, with_lines(KEYS, |lines| lines[0].splice(..0, *b"\xef\xbb\xbf").for_each(drop))),
        defect("nul", 10, with_lines(KEYS, |lines| replace(&mut lines[2], "5f0c", "5f\0c"))),
        defect("trailing-space", 10, with_lines(KEYS, |lines| replace(&mut lines[2], "}\n", "} \n"))),
        defect("duplicate-member-at-depth", 10, with_lines(KEYS, |lines| replace(&mut lines[4], nested.0, nested.1))),
        defect("upper-case-hash", 10, with_lines(KEYS, |lines| replace(&mut lines[2], "\"sha256\":\"b", "\"sha256\":\"B"))),
        defect(
            "over-long-line",
            10,
            with_lines(KEYS, |lines| {
                let pad = " ".repeat(MAX_LINE + 2 - lines[2].len());
                replace(&mut lines[2], "}\n", &format!("}}{pad}\n"));
            }),
        ),
    ]
}

fn segments() -> Vec<Defect> {
    let (first, second) = (format!("log/uses/{FIRST}"), format!("log/uses/{SECOND}"));
    let copied = |files: &mut Files, from: &str, to: &str| files.insert(to.to_owned(), files[from].clone());
    let after = "log/uses/00000000000000000013.jsonl";
    vec![
        defect("doubled-segment", 10, with(|files| drop(copied(files, &second, after)))),
        defect(
            "renamed-segment",
            10,
            with(|files| {
                let bytes = files.remove(&second).unwrap();
                files.insert("log/uses/00000000000000000006.jsonl".to_owned(), bytes);
            }),
        ),
        defect(
            "exchanged-segments",
            10,
            with(|files| {
                let bytes = copied(files, &first, &second).unwrap();
                files.insert(first.clone(), bytes);
            }),
        ),
    ]
}

fn checkpoints() -> Vec<Defect> {
    let origin = format!("{ORIGIN}/keys");
    let secret = SigningKey::from_bytes(&[KEYS_SEED; 32]);
    let signed = |size: u64| note(&origin, size, Hash::digest(b"another root"), &secret);
    let instead = |bytes: Vec<u8>| with(|files| drop(files.insert(CHECKPOINT.to_owned(), bytes.clone())));
    let genuine = String::from_utf8(build(Story::Valid)[CHECKPOINT].clone()).unwrap();
    let (text, _) = genuine.split_once("\n\n").unwrap();
    let of = |file: &str| build(Story::Valid)[file].clone();
    let sealed = format!("log/uses/{FIRST}.checkpoint");
    vec![
        defect("mismatched-checkpoint", 10, instead(signed(23))),
        defect("larger-checkpoint", 11, instead(signed(24))),
        defect("checkpoint-of-the-other-log", 13, instead(of("log/uses/checkpoint"))),
        defect("unsigned-checkpoint", 13, instead(format!("{text}\n\n").into_bytes())),
        defect("crlf-checkpoint", 13, instead(genuine.replace('\n', "\r\n").into_bytes())),
        defect("replayed-checkpoint", 14, with(|files| drop(files.insert("log/uses/checkpoint".to_owned(), of(&sealed))))),
    ]
}

fn chains() -> Vec<Defect> {
    let truth = build(Story::Valid);
    let other = build(Story::WrongOrigin);
    let mut relinked = Forger::new(&truth);
    relinked.uses.records[8].record.asked.caller = Some("spiffe://example.org/somebody".into());
    let mut unsigned = relinked.write();
    for (name, bytes) in truth.iter().filter(|(name, _)| name.ends_with("checkpoint")) {
        unsigned.insert(name.clone(), bytes.clone());
    }
    let mut foreign = Forger::new(&truth);
    foreign.keys.secret = SigningKey::from_bytes(&[9; 32]);
    foreign.uses.secret = SigningKey::from_bytes(&[8; 32]);
    vec![
        defect("relinked", 10, unsigned),
        defect("foreign-genesis", 13, foreign.write()),
        defect(
            "spliced",
            10,
            with_lines(KEYS, |lines| {
                let foreign = other[KEYS].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec);
                lines.splice(12.., foreign.skip(12)).for_each(drop);
            }),
        ),
    ]
}
