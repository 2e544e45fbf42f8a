//! Who signs in the golden logs: log keys and witnesses with fixed seeds.
//!
//! In scope: keys in C2SP text form, and signed notes. Out of scope: what they sign (`builder`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::Timestamp;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::jwk::PublicKey;
use claviger_audit::merkle::Hash;
use claviger_audit::note::{VerifierKey, signed_note};
use ed25519_dalek::{Signer as _, SigningKey};

/// The seeds of the witnesses `w1`, `w2` and `w3`.
const WITNESSES: [u8; 3] = [31, 32, 33];

pub(crate) fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn verifier_key(name: &str, secret: &SigningKey) -> VerifierKey {
    VerifierKey::from_jwk(name, &PublicKey::from_ed25519(secret.verifying_key().as_bytes())).unwrap()
}

/// A checkpoint signed by any key, in the name of the log.
pub(crate) fn note(origin: &str, size: u64, root: Hash, secret: &SigningKey) -> Vec<u8> {
    note_by(origin, size, root, &[secret])
}

/// A checkpoint signed by several keys, in the name of the log.
pub(crate) fn note_by(origin: &str, size: u64, root: Hash, secrets: &[&SigningKey]) -> Vec<u8> {
    let text = Checkpoint::new(origin, size, root).to_string();
    let keys: Vec<VerifierKey> = secrets.iter().map(|secret| verifier_key(origin, secret)).collect();
    let signatures: Vec<_> = keys.iter().zip(secrets).map(|(key, secret)| (key, secret.sign(text.as_bytes()).to_bytes())).collect();
    signed_note(&text, &signatures).unwrap().to_string().into_bytes()
}

/// The name and the key of a witness, from 1.
pub(crate) fn witness(number: usize) -> (String, String) {
    let name = format!("w{number}.example");
    let public = secret(WITNESSES[number - 1]).verifying_key();
    // C2SP tlog-cosignature: key ID is the start of `SHA-256(name || LF || 0x04 || key)`.
    let typed = [&[4], public.as_bytes().as_slice()].concat();
    let hash = Hash::digest(&[name.as_bytes(), b"\n", &typed].concat());
    let key = format!("{name}+{}+{}", &hash.to_string()[..8], STANDARD.encode(typed));
    (format!("w{number}"), key)
}

/// The note with the cosignatures of these witnesses, each at its time (C2SP tlog-cosignature).
pub(crate) fn cosigned(note: &[u8], cosigners: &[(usize, Timestamp)]) -> Vec<u8> {
    let mut note = String::from_utf8(note.to_vec()).unwrap();
    let text = note[..=note.rfind("\n\n").unwrap()].to_owned();
    for (number, time) in cosigners {
        let (_, key) = witness(*number);
        let key: VerifierKey = key.parse().unwrap();
        let seconds = u64::try_from(time.seconds()).unwrap();
        let signature = secret(WITNESSES[number - 1]).sign(format!("cosignature/v1\ntime {seconds}\n{text}").as_bytes()).to_bytes();
        let bytes = [key.id().as_bytes(), seconds.to_be_bytes().as_slice(), &signature].concat();
        note += &format!("\u{2014} {} {}\n", key.name(), STANDARD.encode(bytes));
    }
    note.into_bytes()
}
