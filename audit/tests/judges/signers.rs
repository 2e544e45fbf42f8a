//! Keys that sign notes in tests: those of logs, Ed25519 and ECDSA P-256, and those of cosigners.
//!
//! In scope: private keys from a seed, their verifier keys and signature lines, also over texts that no log of ours would sign. Out of scope:
//! keystores.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::jwk::{Curve, PublicKey};
use claviger_audit::merkle::Hash;
use claviger_audit::note::{VerifierKey, ecdsa_der_from_raw};
use ed25519_dalek::Signer as _;

/// A key that signs, and its verifier key.
pub(crate) struct Signer {
    pub(crate) key: VerifierKey,
    secret: Secret,
}

enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256(p256::ecdsa::SigningKey),
    /// Cosigns at this time, in seconds since 1970.
    Cosigner(ed25519_dalek::SigningKey, u64),
}

impl Signer {
    pub(crate) fn ed25519(name: &str, seed: u8) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::from_ed25519(secret.verifying_key().as_bytes());
        Self { key: VerifierKey::from_jwk(name, &public).unwrap(), secret: Secret::Ed25519(secret) }
    }

    pub(crate) fn p256(name: &str, seed: u8) -> Self {
        let secret = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
        let point = secret.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_ec_point(Curve::P256, &point.as_bytes()[1..]).unwrap();
        Self { key: VerifierKey::from_jwk(name, &public).unwrap(), secret: Secret::EcdsaP256(secret) }
    }

    pub(crate) fn cosigner(name: &str, seed: u8, time: u64) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        let key = vkey(name, 4, secret.verifying_key().as_bytes()).parse().unwrap();
        Self { key, secret: Secret::Cosigner(secret, time) }
    }

    /// What follows the key ID in a signature line.
    pub(crate) fn signature(&self, text: &str) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(secret) => secret.sign(text.as_bytes()).to_bytes().to_vec(),
            Secret::EcdsaP256(secret) => {
                let signature: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(secret, text.as_bytes());
                ecdsa_der_from_raw(&signature.to_bytes().into()).unwrap()
            }
            Secret::Cosigner(secret, time) => {
                let signature = secret.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
                [time.to_be_bytes().as_slice(), &signature.to_bytes()].concat()
            }
        }
    }

    pub(crate) fn line(&self, text: &str) -> String {
        line(&self.key, &self.signature(text))
    }
}

/// A signature line over any bytes.
pub(crate) fn line(key: &VerifierKey, signature: &[u8]) -> String {
    format!("\u{2014} {} {}\n", key.name(), STANDARD.encode([key.id().as_bytes(), signature].concat()))
}

/// A note, put together without asking whether it may be one.
pub(crate) fn note(text: &str, signers: &[&Signer]) -> String {
    let lines: Vec<String> = signers.iter().map(|signer| signer.line(text)).collect();
    format!("{text}\n{}", lines.concat())
}

/// The text form of a verifier key whose ID is that of name, type and key; it need not be one.
pub(crate) fn vkey(name: &str, signature_type: u8, key: &[u8]) -> String {
    let typed = [&[signature_type], key].concat();
    let id = Hash::digest(&[name.as_bytes(), b"\n", &typed].concat()).to_string();
    format!("{name}+{}+{}", &id[..8], STANDARD.encode(typed))
}
