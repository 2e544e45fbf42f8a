//! Notes against the examples of C2SP, and against everything that is nearly a note.

use ed25519_dalek::Signer as _;
use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::jwk::{Curve, PublicKey};

const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
                       Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn ed25519(name: &str, seed: u8) -> (VerifierKey, ed25519_dalek::SigningKey) {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public = PublicKey::from_ed25519(secret.verifying_key().as_bytes());
    (VerifierKey::from_jwk(name, &public).unwrap(), secret)
}

fn p256(name: &str, seed: u8) -> (VerifierKey, p256::ecdsa::SigningKey) {
    let secret = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
    let point = secret.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_ec_point(Curve::P256, &point.as_bytes()[1..]).unwrap();
    (VerifierKey::from_jwk(name, &public).unwrap(), secret)
}

fn sign_p256(secret: &p256::ecdsa::SigningKey, text: &str) -> [u8; 64] {
    let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(secret, text.as_bytes());
    signature.to_bytes().into()
}

/// A cosignature as a witness makes it.
fn cosign(name: &str, seed: u8, text: &str, time: u64) -> (VerifierKey, NoteSignature) {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public = secret.verifying_key();
    let hash = sha2::Sha256::digest([name.as_bytes(), b"\n\x04", public.as_bytes()].concat());
    let encoded = STANDARD.encode([&[4], public.as_bytes().as_slice()].concat());
    let key: VerifierKey = format!("{name}+{:08x}+{encoded}", u32::from_be_bytes(hash[..4].try_into().unwrap())).parse().unwrap();
    let signature = secret.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
    let bytes = [time.to_be_bytes().as_slice(), &signature.to_bytes()].concat();
    (key.clone(), NoteSignature { name: name.to_owned(), key_id: key.id(), bytes })
}

#[test]
fn the_example_of_the_specification() {
    let key: VerifierKey = EXAMPLE_KEY.parse().unwrap();
    assert_eq!(key.to_string(), EXAMPLE_KEY);
    assert_eq!((key.name(), key.id().to_string().as_str()), ("example.com/foo", "530d903a"));
    let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.to_string(), EXAMPLE);
    assert!(note.verify(std::slice::from_ref(&key)).unwrap().by(&key));
}

#[test]
fn each_key_type_signs_and_verifies_side_by_side() {
    let text = "log.example/keys\n1\nbody\n";
    let (log, secret) = ed25519("log.example/keys", 1);
    let (other, other_secret) = p256("log.example/keys", 2);
    let (witness, cosignature) = cosign("witness.example", 3, text, 1_700_000_000);
    let raw = secret.sign(note_message(text).unwrap()).to_bytes();
    let mut note = signed_note(text, &[(&log, raw), (&other, sign_p256(&other_secret, text))]).unwrap();
    note.signatures.push(cosignature);
    let again = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(again, note);
    let verified = again.verify(&[witness.clone(), log.clone(), other.clone()]).unwrap();
    assert!(verified.by(&log) && verified.by(&other) && verified.by(&witness));
    assert_eq!(verified.iter().map(|s| s.time).collect::<Vec<_>>(), [None, None, Some(1_700_000_000)]);
    // Unknown keys are ignored, and knowing none of the signers is not enough.
    assert!(!again.verify(std::slice::from_ref(&log)).unwrap().by(&other));
    assert!(matches!(again.verify(&[ed25519("log.example/keys", 9).0]), Err(NoteError::NoKnownSignature(_))));
    assert!(matches!(again.verify(&[]), Err(NoteError::NoKnownSignature(_))));
}

#[test]
fn a_wrong_key_cannot_make_a_note() {
    let text = "a\n";
    let (log, _) = ed25519("log", 1);
    let raw = ed25519("log", 2).1.sign(text.as_bytes()).to_bytes();
    assert!(matches!(signed_note(text, &[(&log, raw)]), Err(NoteError::BadSignature { .. })));
    assert!(matches!(signed_note(text, &[(&p256("log", 1).0, [0; 64])]), Err(NoteError::BadSignature { .. })));
    assert!(matches!(signed_note(text, &[(&cosign("w", 1, text, 1).0, raw)]), Err(NoteError::BadSignature { .. })));
    assert!(matches!(signed_note(text, &[]), Err(NoteError::NoKnownSignature(_))));
    assert_eq!(signed_note("no line feed", &[(&log, raw)]), Err(NoteError::NoBlankLine));
    assert_eq!(signed_note("a\tb\n", &[(&log, raw)]), Err(NoteError::ControlCharacter(1)));
}

#[test]
fn one_bad_signature_of_a_known_key_condemns_the_note() {
    let text = "a\n";
    let ((good, secret), (bad, _)) = (ed25519("good", 1), ed25519("bad", 2));
    let mut note = signed_note(text, &[(&good, secret.sign(text.as_bytes()).to_bytes())]).unwrap();
    note.signatures.push(NoteSignature { name: "bad".into(), key_id: bad.id(), bytes: vec![0; 64] });
    assert!(note.verify(std::slice::from_ref(&good)).is_ok());
    assert_eq!(note.verify(&[good, bad.clone()]), Err(NoteError::BadSignature { name: "bad".into(), key_id: bad.id() }));
}

#[test]
fn nearly_notes_are_refused() {
    let line = |n: usize| EXAMPLE.split("\n\n").nth(1).unwrap().repeat(n);
    for bad in [
        String::new(),
        "\n".into(),
        "\n\n".into(),
        format!("\n\n{}", line(1)),
        format!("text\n{}", line(1)),
        "text\n\n".into(),
        EXAMPLE.trim_end().into(),
        format!("{EXAMPLE}\n"),
    ] {
        assert_eq!(Note::parse(bad.as_bytes()), Err(NoteError::NoBlankLine), "{bad:?}");
    }
    for (from, to) in [
        ("\u{2014} ", "- "),
        ("\u{2014} ", "\u{2014}\u{a0}"),
        ("\u{2014} ", "\u{2014}  "),
        ("foo Uw2", "foo  Uw2"),
        ("yaQM=\n", "yaQM\n"),
        ("yaQM=\n", "yaQN=\n"),
        ("yaQM=\n", "yaQM= \n"),
        ("foo Uw2", "f+oo Uw2"),
        ("foo Uw2", "f\u{2003}oo Uw2"),
    ] {
        assert_eq!(Note::parse(EXAMPLE.replace(from, to).as_bytes()), Err(NoteError::SignatureLine(1)), "{from:?} {to:?}");
    }
    assert_eq!(Note::parse("t\n\n\u{2014} n AAAAAA==\n".as_bytes()), Err(NoteError::SignatureLine(1)));
    assert_eq!(Note::parse(EXAMPLE.replace("is an", "is\ran").as_bytes()), Err(NoteError::ControlCharacter(7)));
    assert_eq!(Note::parse(b"a\xff\n\n"), Err(NoteError::NotUtf8(1)));
    assert_eq!(Note::parse(&vec![b'a'; MAX_NOTE + 1]), Err(NoteError::TooLong(MAX_NOTE + 1)));
    assert!(Note::parse(format!("t\n\n{}", line(MAX_SIGNATURES)).as_bytes()).is_ok());
    assert_eq!(Note::parse(format!("t\n\n{}", line(MAX_SIGNATURES + 1)).as_bytes()), Err(NoteError::TooManySignatures));
}

#[test]
fn verifier_keys_have_one_spelling() {
    let (ec, _) = p256("log.example/keys", 2);
    assert_eq!(ec.to_string().parse(), Ok(ec.clone()));
    assert_eq!(ec.public_key().len(), 91);
    let id = |text: &str| text.parse::<VerifierKey>().unwrap_err();
    assert_eq!(id("example.com/foo+530d903a"), VerifierKeyError::Form);
    assert_eq!(id(&EXAMPLE_KEY.replace("530d903a", "530D903A")), VerifierKeyError::Form);
    assert_eq!(id(&EXAMPLE_KEY.replace("530d903a", "+30d903a")), VerifierKeyError::Form);
    assert!(matches!(id(&EXAMPLE_KEY.replace("530d903a", "530d903b")), VerifierKeyError::Id { .. }));
    assert!(matches!(id(&EXAMPLE_KEY.replace("foo", "fooo")), VerifierKeyError::Id { .. }));
    assert_eq!(id(&EXAMPLE_KEY.replace("foo", "f oo")), VerifierKeyError::Name);
    assert_eq!(id(&EXAMPLE_KEY.replace("example.com/foo", "")), VerifierKeyError::Name);
    assert_eq!(id(&format!("{EXAMPLE_KEY}=")), VerifierKeyError::Encoding);
    assert_eq!(id(&EXAMPLE_KEY.replace("+Ae", "+Be")), VerifierKeyError::Type(5));
    assert_eq!(id("n+00000000+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), VerifierKeyError::Key, "a key of small order");
    let rsa = PublicKey::from_rsa(&[0xff; 256], &[1, 0, 1]).unwrap();
    assert_eq!(VerifierKey::from_jwk("n", &rsa), Err(VerifierKeyError::Key));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_change_to_a_note_is_seen(text in "[^\\x00-\\x1f]{1,80}\n", bit in 0_usize..8_000, ecdsa: bool) {
        let (key, raw) = if ecdsa {
            let (key, secret) = p256("log.example/keys", 7);
            (key, sign_p256(&secret, &text))
        } else {
            let (key, secret) = ed25519("log.example/keys", 7);
            let raw = secret.sign(text.as_bytes()).to_bytes();
            (key, raw)
        };
        let mut bytes = signed_note(&text, &[(&key, raw)]).unwrap().to_string().into_bytes();
        prop_assert!(Note::parse(&bytes).unwrap().verify(std::slice::from_ref(&key)).is_ok());
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let seen = Note::parse(&bytes).and_then(|note| note.verify(std::slice::from_ref(&key)));
        prop_assert!(seen.is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic_and_what_it_accepts_it_writes(bytes in "([a\u{2014} +=/\n]|AAAA|\n\n\u{2014} n AAAAAAAA\n){0,30}") {
        if let Ok(note) = Note::parse(bytes.as_bytes()) {
            prop_assert_eq!(note.to_string(), bytes);
        }
    }
}
