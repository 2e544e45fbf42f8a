//! One way to be wrong after the other, each with the exit code that it must give.
//!
//! In scope: what somebody without the log key does to the bytes (more in `forms`), and which wrong stories there are. Out of scope: what
//! the verifier says.

use claviger_audit::Algorithm;
use claviger_audit::event::{Event, KeyConforms, KeyDrifted, KeyringChanged, KeystoreReopened, KeystoreWedged};
use claviger_audit::merkle::Hash;

use super::builder::signing::secret;
use super::builder::{FIRST, Files, ORIGIN, SECOND, Story, build, build_wrong, kid, note};
use super::forms;

/// A defect: its name, the exit code under `--trust` and `--min-size 1`, the good logs whose trust file is meant, and its `log` folder.
pub(crate) struct Defect {
    pub(crate) name: &'static str,
    pub(crate) exit: u8,
    pub(crate) trust: &'static str,
    pub(crate) files: Files,
}

pub(crate) const KEYS: &str = "log/keys/00000000000000000000.jsonl";

pub(crate) type Lines = Vec<Vec<u8>>;

/// The valid logs with the lines of one segment changed.
pub(crate) fn with_lines(file: &str, change: impl Fn(&mut Lines)) -> Files {
    let mut files = build(Story::Valid);
    let bytes = files.get_mut(file).unwrap();
    let mut lines: Lines = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    change(&mut lines);
    *bytes = lines.concat();
    files
}

pub(crate) fn replace(line: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(line.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    *line = text.replacen(from, to, 1).into_bytes();
}

pub(crate) fn with(change: impl Fn(&mut Files)) -> Files {
    let mut files = build(Story::Valid);
    change(&mut files);
    files
}

/// Every defect.
pub(crate) fn all() -> Vec<Defect> {
    let mut defects = bytes();
    defects.extend(whole_files());
    defects.extend(stories());
    defects.extend(later_stories());
    defects.extend(untold());
    defects.extend(forms::all());
    // What a verifier brings along is always that of the true story.
    for defect in &mut defects {
        defect.files.retain(|name, _| name.starts_with("log/"));
    }
    defects
}

pub(crate) fn defect(name: &'static str, exit: u8, files: Files) -> Defect {
    Defect { name, exit, trust: "valid", files }
}

fn bytes() -> Vec<Defect> {
    let second = format!("log/uses/{SECOND}");
    vec![
        defect("edited-byte", 10, with_lines(&second, |lines| replace(&mut lines[3], "/issuer", "/Issuer"))),
        defect("edited-last-record", 10, with_lines(KEYS, |lines| replace(lines.last_mut().unwrap(), "asked to", "asked To"))),
        defect("dropped-record", 10, with_lines(&second, |lines| drop(lines.remove(3)))),
        defect("swapped-records", 10, with_lines(&second, |lines| lines.swap(3, 4))),
        defect(
            "inserted-record",
            10,
            with_lines(&second, |lines| {
                let mut forged = lines[3].clone();
                replace(&mut forged, "\"seq\":8", "\"seq\":9");
                lines.insert(4, forged);
            }),
        ),
        defect("doubled-record", 10, with_lines(KEYS, |lines| lines.insert(5, lines[5].clone()))),
        defect("cut-tail", 11, with_lines(&second, |lines| lines.truncate(4))),
        defect(
            "cut-within-a-line",
            10,
            with_lines(&second, |lines| {
                lines.truncate(4);
                lines[3].truncate(100);
            }),
        ),
        defect("crlf", 10, with_lines(KEYS, |lines| lines.iter_mut().for_each(|line| replace(line, "}\n", "}\r\n")))),
        defect("duplicate-member", 10, with_lines(KEYS, |lines| replace(&mut lines[2], "{\"boot\":", "{\"boot\":\"5f0c\",\"boot\":"))),
        defect("white-space", 10, with_lines(KEYS, |lines| replace(&mut lines[2], "{\"boot\":", "{\"boot\": "))),
        defect("blank-line", 10, with_lines(KEYS, |lines| lines.insert(3, b"\n".to_vec()))),
    ]
}

fn whole_files() -> Vec<Defect> {
    let other = note(&format!("{ORIGIN}/keys"), 3, Hash::digest(b"another root"), &secret(1));
    let with_lines_only = |files: &mut Files| {
        files.retain(|name, _| name == KEYS);
        files.insert(KEYS.to_owned(), Vec::new());
    };
    vec![
        defect("empty", 16, with(with_lines_only)),
        defect("emptied", 11, with(|files| drop(files.insert(KEYS.to_owned(), Vec::new())))),
        defect("no-checkpoint", 13, with(|files| drop(files.remove("log/keys/checkpoint")))),
        defect("uses-missing", 11, with(|files| files.retain(|name, _| !name.starts_with("log/uses/")))),
        defect("first-segment-missing", 10, with(|files| drop(files.remove(&format!("log/uses/{FIRST}"))))),
        defect("last-segment-missing", 11, with(|files| drop(files.remove(&format!("log/uses/{SECOND}"))))),
        defect(
            "rolled-back-uses",
            11,
            with(|files| {
                files.remove(&format!("log/uses/{SECOND}"));
                let old = files[&format!("log/uses/{FIRST}.checkpoint")].clone();
                files.insert("log/uses/checkpoint".to_owned(), old);
            }),
        ),
        defect("two-roots", 12, with(|files| drop(files.insert("log/keys/other.checkpoint".to_owned(), other.clone())))),
        defect(
            "stale-checkpoint",
            14,
            with(|files| {
                let old = files["head/keys"].clone();
                files.insert("log/keys/checkpoint".to_owned(), old);
            }),
        ),
    ]
}

fn stories() -> Vec<Defect> {
    vec![
        defect("early-activation", 15, build(Story::EarlyActivation)),
        defect("retired-key-signs", 15, build(Story::RetiredKeySigns)),
        defect("token-too-long", 15, build(Story::LongToken)),
        defect("wrong-jwks-hash", 15, build(Story::WrongJwksHash)),
        defect("wrong-origin", 16, build(Story::WrongOrigin)),
        defect("wrong-seal", 10, build(Story::WrongSeal)),
        defect("foreign-checkpoint", 13, build(Story::ForeignCheckpoint)),
    ]
}

/// Good logs beside the first, by the name of their folder.
pub(crate) const GOOD: [(&str, Story); 4] =
    [("valid", Story::Valid), ("log-key-rotated", Story::LogKeyRotated), ("witnessed", Story::Witnessed), ("pruned", Story::Pruned)];

fn later_stories() -> Vec<Defect> {
    let under = |trust: &'static str, defect: Defect| Defect { trust, ..defect };
    let mut hashes = build(Story::Pruned);
    hashes.get_mut("log/uses/00000000000000000000.hashes").unwrap()[40] ^= 1;
    vec![
        defect("log-key-not-in-trust", 13, build(Story::LogKeyRotated)),
        under("log-key-rotated", defect("old-log-key-signs", 13, build(Story::OldLogKeySigns))),
        under("witnessed", defect("quorum-missing", 13, build(Story::QuorumMissing))),
        defect("pruning-unrecorded", 11, build(Story::UnrecordedPruning)),
        defect("pruned-hashes-wrong", 10, hashes),
        defect("late-rotation", 15, build(Story::LateRotation)),
        defect("never-withdrawn", 15, build(Story::NeverWithdrawn)),
    ]
}

/// Records of keystores and their keys that tell no news, or nothing at all, or what cannot be.
fn untold() -> Vec<Defect> {
    let keyring = || "access".to_owned();
    let drifted = || Event::KeyDrifted(KeyDrifted { keyring: keyring(), kid: kid(1), found: "extractable is true, was false".into() });
    let conforms = Event::KeyConforms(KeyConforms { keyring: keyring(), kid: kid(1) });
    let reason = "the session handle is invalid".to_owned();
    let reopened = KeystoreReopened { keystore: "hsm".into(), sessions: 0, logins: 0, modules: 0, reason };
    let wedged = KeystoreWedged { keystore: "hsm".into(), hung: 0 };
    let (algorithm, keystore, standby_keystore) = (Algorithm::EdDSA, "hsm".to_owned(), Some("hsm".to_owned()));
    let one_for_both = KeyringChanged { keyring: keyring(), algorithm, keystore, standby_keystore };
    vec![
        defect("drift-without-news", 15, build_wrong(vec![drifted(), drifted()])),
        defect("conforms-without-drift", 15, build_wrong(vec![conforms])),
        defect("nothing-reopened", 15, build_wrong(vec![Event::KeystoreReopened(reopened)])),
        defect("standby-beside-the-signer", 15, build_wrong(vec![Event::KeyringChanged(one_for_both)])),
        defect("nothing-hangs", 15, build_wrong(vec![Event::KeystoreWedged(wedged)])),
    ]
}
