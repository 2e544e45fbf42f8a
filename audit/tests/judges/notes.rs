//! Notes and verifier keys: ours against `sumdb/note`, damaged in every bit, and the list of what only one of the two accepts.
//!
//! In scope: C2SP signed-note and the cosignatures of tlog-cosignature. Out of scope: what the text of a note says (`checkpoints`).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::trust::Policy;
use serde_json::{Value, json};

use crate::process::Judge;
use crate::signers::{Signer, line, note, vkey};

const LOG: &str = "log.example/keys";
const TEXT: &str = "log.example/keys\n2\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

/// One signer of each kind.
struct Signers {
    log: Signer,
    ecdsa: Signer,
    witness: Signer,
    stranger: Signer,
}

fn signers() -> Signers {
    Signers {
        log: Signer::ed25519(LOG, 1),
        ecdsa: Signer::p256(LOG, 2),
        witness: Signer::cosigner("witness.example", 3, 1_700_000_000),
        stranger: Signer::ed25519("stranger.example", 4),
    }
}

fn keys(signers: &[&Signer]) -> Vec<VerifierKey> {
    signers.iter().map(|signer| signer.key.clone()).collect()
}

type Asked = (Value, Result<(), String>);

fn asked(note: &[u8], keys: &[VerifierKey]) -> Asked {
    let ours = Note::parse(note).and_then(|note| note.verify(keys)).map(drop).map_err(|error| error.to_string());
    let keys: Vec<String> = keys.iter().map(VerifierKey::to_string).collect();
    (json!({"kind": "note", "file": STANDARD.encode(note), "keys": keys}), ours)
}

#[test]
fn the_example_of_the_specification() {
    let key: VerifierKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
    let note = "This is an example message.\n\n\u{2014} example.com/foo \
                Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let (question, ours) = asked(note.as_bytes(), &[key]);
    let theirs = Judge::start().ask(&question);
    assert_eq!((ours, theirs.signers.as_slice()), (Ok(()), &["example.com/foo+530d903a".to_owned()][..]));
}

/// Every set of signers before every set of trusted keys: accepted exactly where the two meet, by the same signers.
#[test]
fn whoever_signs_and_whoever_is_trusted() {
    let all = signers();
    let all = [&all.log, &all.ecdsa, &all.witness, &all.stranger];
    let subset = |bits: usize| -> Vec<&Signer> { all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, s)| *s).collect() };
    let mut judge = Judge::start();
    for signed in 0..16 {
        let note = note(TEXT, &subset(signed));
        for trusted in 0..16 {
            let (question, ours) = asked(note.as_bytes(), &keys(&subset(trusted)));
            let theirs = judge.ask(&question);
            let expected: Vec<String> = subset(signed & trusted).iter().map(|s| format!("{}+{}", s.key.name(), s.key.id())).collect();
            assert_eq!((ours.is_ok(), theirs.ok, theirs.signers), (!expected.is_empty(), !expected.is_empty(), expected));
        }
    }
}

/// Base64 that does not mind what stands in the unused bits of the last digit, as Go's `base64.StdEncoding` does not.
const LAX: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// The note with the base64 of each signature in the one spelling whose unused bits are zero.
pub(crate) fn respelt(note: &[u8]) -> Vec<u8> {
    let Ok(note) = str::from_utf8(note) else { return note.to_vec() };
    let lines = note.split_inclusive('\n').map(|line| {
        let (head, encoded) = line.rsplit_once(' ').filter(|_| line.starts_with('\u{2014}')).unwrap_or((line, ""));
        match LAX.decode(encoded.trim_end_matches('\n')) {
            Ok(bytes) if !bytes.is_empty() => format!("{head} {}\n", STANDARD.encode(bytes)),
            _ => line.to_owned(),
        }
    });
    lines.collect::<String>().into_bytes()
}

/// Each bit of a note by every kind of signer, flipped: the judge and we say the same, but for base64 in a second spelling, which Go's
/// decoder reads and we refuse. C2SP names RFC 4648 section 4, whose section 3.5 lets a decoder choose.
#[test]
fn any_flipped_bit() {
    let Signers { log, ecdsa, witness, stranger } = signers();
    let mut judge = Judge::start();
    let mut second_spellings = 0;
    let sets = [vec![&log], vec![&ecdsa], vec![&witness], vec![&log, &ecdsa, &witness, &stranger]];
    for signed in sets {
        let trusted = keys(&signed[..signed.len().min(3)]);
        let whole = note(TEXT, &signed).into_bytes();
        assert_eq!(respelt(&whole), whole);
        let damaged: Vec<Vec<u8>> = (0..whole.len() * 8).map(|bit| flipped(&whole, bit)).collect();
        let questions: Vec<Value> = damaged.iter().map(|note| asked(note, &trusted).0).collect();
        for (note, theirs) in damaged.iter().zip(judge.ask_all(&questions)) {
            let (seen, only) = (String::from_utf8_lossy(note), respelt(note));
            let ours = asked(&only, &trusted).1;
            assert_eq!(theirs.ok, ours.is_ok(), "we say {ours:?}, the judge says {:?}: {seen}", theirs.error);
            if only != *note {
                assert!(asked(note, &trusted).1.is_err(), "{seen}");
                second_spellings += usize::from(theirs.ok);
            }
        }
    }
    assert!(second_spellings > 0, "the exception above is none");
}

pub(crate) fn flipped(note: &[u8], bit: usize) -> Vec<u8> {
    let mut copy = note.to_vec();
    copy[bit / 8] ^= 1 << (bit % 8);
    copy
}

/// Notes that are nearly well formed, and some that are: every one is judged alike.
#[test]
fn other_forms() {
    let Signers { log, ecdsa, witness, stranger } = signers();
    let trusted = keys(&[&log, &ecdsa, &witness]);
    let lines = |n: usize| log.line(TEXT) + &stranger.line(TEXT).repeat(n - 1);
    let good = note(TEXT, &[&log]);
    let signed = |text: &str| note(text, &[&log]);
    let mut forms: Vec<Vec<u8>> = [
        // Accepted.
        signed("a\n"),
        signed("a\n\nb\n\n\nc\n"),
        signed("\n\na\n"),
        signed("\u{7f}\u{85}\u{2028}\u{feff}\n"),
        format!("{TEXT}\n{}", log.line(TEXT).repeat(2)),
        format!("{TEXT}\n{}", lines(100)),
        format!("{TEXT}\n{}{}", stranger.line("another text\n"), log.line(TEXT)),
        // Refused.
        format!("{TEXT}\n{}", lines(101)),
        String::new(),
        "\n".into(),
        "\n\n".into(),
        TEXT.into(),
        format!("{TEXT}\n"),
        format!("{TEXT}{}", log.line(TEXT)),
        format!("{good}\n"),
        good.trim_end().into(),
        good.replace('\n', "\r\n"),
        good.replace("\u{2014}", "-"),
        good.replace("\u{2014} ", "\u{2014}\u{a0}"),
        good.replace("\u{2014} ", "\u{2014}  "),
        good.replace("\u{2014} ", " \u{2014} "),
        good.replace("= \n", "=\n").replace("=\n", "= \n"),
        good.replace(&format!("\u{2014} {LOG} "), &format!("\u{2014} {LOG}  ")),
        good.replace(&format!("\u{2014} {LOG} "), "\u{2014}  "),
        good.replace(&format!("\u{2014} {LOG} "), "\u{2014} log+example "),
        good.replace(&format!("\u{2014} {LOG} "), "\u{2014} log\u{2003}example "),
        signed("a\tb\n"),
        signed("a\0b\n"),
        format!("{TEXT}\n\u{2014} {LOG}\n"),
        format!("{TEXT}\n\u{2014} {LOG} \n"),
        format!("{TEXT}\n\u{2014} {LOG} AAAAAA==\n"),
        format!("{TEXT}\n{}\u{2014} n AAAAAA==\n", log.line(TEXT)),
        format!("{TEXT}\n{}\u{2014} n AAAAAAA\n", log.line(TEXT)),
        format!("{TEXT}\n{}{}", log.line(TEXT), line(&ecdsa.key, &log.signature(TEXT))),
        format!("{TEXT}\n{}", line(&log.key, &witness.signature(TEXT))),
        format!("{TEXT}\n{}", line(&witness.key, &log.signature(TEXT))),
        format!("{TEXT}\n{}", line(&log.key, &log.signature(TEXT)[..63])),
        format!("{TEXT}\n{}", line(&log.key, &[log.signature(TEXT).as_slice(), &[0]].concat())),
        format!("{TEXT}\n{}", line(&ecdsa.key, &[ecdsa.signature(TEXT).as_slice(), &[0]].concat())),
    ]
    .map(String::into_bytes)
    .to_vec();
    forms.push([good.as_bytes(), b"\xff"].concat());
    forms.push([b"\xef\xbb\xbf".as_slice(), good.as_bytes()].concat());
    forms.push([b"\xed\xa0\x80".as_slice(), good.as_bytes()].concat());
    let questions: Vec<Asked> = forms.iter().map(|note| asked(note, &trusted)).collect();
    assert_eq!(questions.iter().filter(|(_, ours)| ours.is_ok()).count(), 7);
    Judge::start().agrees(&questions);
}

/// C2SP tlog-cosignature: a timestamp MUST NOT exceed 2^63 - 1. The judge refuses the signature; with us it is one, and counts for nothing.
#[test]
fn times_of_cosignatures() {
    let (mut judge, log) = (Judge::start(), signers().log);
    for (time, good) in [(0, true), (1, true), ((1 << 63) - 1, true), (1 << 63, false), (u64::MAX, false)] {
        let witness = Signer::cosigner("witness.example", 3, time);
        let whole = note(TEXT, &[&log, &witness]);
        let trusted = keys(&[&log, &witness]);
        assert_eq!(judge.ask(&asked(whole.as_bytes(), &trusted).0).ok, good, "{time}");
        let policy: Policy = format!("log {}\nwitness w {}\nquorum w\n", log.key, witness.key).parse().unwrap();
        let signatures = Note::parse(whole.as_bytes()).unwrap().verify(&trusted).unwrap();
        assert_eq!(policy.quorum_met(&signatures).is_ok(), good, "{time}");
    }
}

/// A note or a key on which the judge and we differ, and by what right.
struct Difference {
    why: &'static str,
    asked: Asked,
    /// What we say; the judge says the contrary.
    ours: bool,
}

#[test]
fn the_notes_on_which_we_differ_are_these() {
    let Signers { log, stranger, .. } = signers();
    let trusted = keys(&[&log]);
    let spoiled = line(&log.key, &[0; 64]);
    let long = "x".repeat(claviger_audit::note::MAX_NOTE);
    let differences = [
        Difference {
            why: "C2SP: verifiers MUST verify every signature of a known key; sumdb drops a second one by the same key unread",
            asked: asked(format!("{TEXT}\n{}{spoiled}", log.line(TEXT)).as_bytes(), &trusted),
            ours: false,
        },
        Difference {
            why: "C2SP: verifiers SHOULD limit a note; sumdb counts signatures alone, we count bytes too",
            asked: asked(note(&format!("{long}\n"), &[&log]).as_bytes(), &trusted),
            ours: false,
        },
        Difference {
            why: "a text of one empty line says nothing: sumdb opens it, we want a character",
            asked: asked(note("\n", &[&log]).as_bytes(), &trusted),
            ours: false,
        },
        Difference {
            why: "the same key, trusted twice, is one key: sumdb calls it ambiguous",
            asked: asked(note(TEXT, &[&log, &stranger]).as_bytes(), &keys(&[&log, &log])),
            ours: true,
        },
    ];
    assert_differences(&differences);
}

#[test]
fn the_keys_on_which_we_differ_are_these() {
    let spelling = signers().log.key.to_string();
    let (name, rest) = spelling.split_once('+').unwrap();
    let upper = rest.replacen(&rest[..8], &rest[..8].to_uppercase(), 1);
    assert_ne!(upper, rest, "an ID without letters shows nothing");
    let mut identity = [0; 32];
    identity[0] = 1;
    let differences = [
        Difference {
            why: "C2SP: hex is the lowercase Base 16 encoding; sumdb reads both",
            asked: asked_key(&format!("{name}+{upper}")),
            ours: false,
        },
        Difference {
            why: "sumdb looks at a key only when it verifies; this is no point of the curve",
            asked: asked_key(&vkey(LOG, 1, &[2; 32])),
            ours: false,
        },
        Difference {
            why: "under a key of small order anyone can sign: sumdb trusts it",
            asked: asked_key(&vkey(LOG, 1, &identity)),
            ours: false,
        },
        Difference {
            why: "C2SP: notes hold no control characters, so no key is called so; sumdb lets the key have the name",
            asked: asked_key(&vkey("log\u{1}", 1, &key_bytes())),
            ours: false,
        },
    ];
    assert_differences(&differences);
}

/// Under the key that is the identity, a signature of zeros is valid for every text: Go accepts it, and so the key must not be trusted.
#[test]
fn a_key_of_small_order_signs_everything() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let key = vkey(LOG, 1, &identity);
    let id = u32::from_str_radix(key.split('+').nth(1).unwrap(), 16).unwrap().to_be_bytes();
    let signature = [id.as_slice(), &identity, &[0; 32]].concat();
    let forged = format!("{TEXT}\n\u{2014} {LOG} {}\n", STANDARD.encode(signature));
    let question = json!({"kind": "note", "file": STANDARD.encode(forged), "keys": [key]});
    assert!(Judge::start().ask(&question).ok);
    assert!(key.parse::<VerifierKey>().is_err());
}

/// Every character of a key of each kind, replaced: judged alike, but for the case of the ID.
#[test]
fn any_changed_character_of_a_key() {
    let Signers { log, ecdsa, witness, .. } = signers();
    let mut questions = Vec::new();
    for key in [log.key, ecdsa.key, witness.key].map(|key| key.to_string()) {
        assert!(asked_key(&key).1.is_ok());
        questions.push(asked_key(&key));
        for at in 0..key.len() {
            for other in ["A", "g", "0", "+", " ", "=", "\n", "\u{2003}", ""] {
                let changed = [&key[..at], other, &key[at + 1..]].concat();
                if !changed.eq_ignore_ascii_case(&key) || changed == key {
                    questions.push(asked_key(&changed));
                }
            }
        }
    }
    let p384 = vkey(LOG, 2, &[0x30; 120]);
    questions.extend(
        [p384, vkey(LOG, 2, &[]), vkey(LOG, 4, &[1; 31]), vkey(LOG, 5, &key_bytes()), vkey(LOG, 6, &[1; 1312])].map(|key| asked_key(&key)),
    );
    questions.extend(["", "+", "++", "a+b", "a+00000000+", "a+00000000+AA=="].map(asked_key));
    Judge::start().agrees(&questions);
}

fn asked_key(key: &str) -> Asked {
    (json!({"kind": "key", "key": key}), key.parse::<VerifierKey>().map(drop).map_err(|error| error.to_string()))
}

fn key_bytes() -> Vec<u8> {
    signers().log.key.public_key()
}

fn assert_differences(differences: &[Difference]) {
    let mut judge = Judge::start();
    for Difference { why, asked: (question, said), ours } in differences {
        let theirs = judge.ask(question);
        assert_eq!((said.is_ok(), theirs.ok), (*ours, !*ours), "{why}: we say {said:?}, the judge says {:?}", theirs.error);
    }
}
