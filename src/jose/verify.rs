//! Verification of a signature with the published public key, before it leaves the process.
//!
//! In scope: the algorithms of RFC 7518 section 3.1 and RFC 8037, by a vetted library. Out of scope: anything a verifier of tokens does with
//! claims. An RSA-PSS salt has the length of the hash (RFC 7518 section 3.5): the library accepts no other.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use claviger_audit::Algorithm;
use claviger_audit::algorithm::HashFunction;
use claviger_audit::jwk::PublicKey;

use super::SigningInput;

/// A public key, parsed once, for one algorithm.
pub struct Verifier {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Parsed(ParsedPublicKey),
    Rsa { parameters: &'static signature::RsaParameters, components: RsaPublicKeyComponents<Vec<u8>> },
}

/// The signature does not verify: it was made by another key, over another input, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify with the published public key")]
pub struct SignatureMismatch;

/// The public key cannot be used with the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key does not fit {0}")]
pub struct BadPublicKey(Algorithm);

impl Verifier {
    /// Parses a public key.
    pub fn new(public: &PublicKey, algorithm: Algorithm) -> Result<Self, BadPublicKey> {
        let bad = BadPublicKey(algorithm);
        if !public.fits(algorithm) {
            return Err(bad);
        }
        let key = match (rsa_parameters(algorithm), point_algorithm(algorithm)) {
            (Some(parameters), _) => {
                let (n, e) = public.rsa_components().ok_or(bad)?;
                Key::Rsa { parameters, components: RsaPublicKeyComponents { n, e } }
            }
            (None, Some(verification)) => {
                let point = public.raw_point().ok_or(bad)?;
                Key::Parsed(ParsedPublicKey::new(verification, point).map_err(|_| bad)?)
            }
            (None, None) => return Err(bad),
        };
        Ok(Self { algorithm, key })
    }

    /// Verifies a signature in JOSE form over the input, using the digest that was computed for signing.
    pub fn verify(&self, input: &SigningInput, signature: &[u8]) -> Result<(), SignatureMismatch> {
        let checked = match (&self.key, self.digest(input)) {
            (Key::Parsed(key), Some(digest)) => key.verify_digest_sig(&digest, signature),
            (Key::Parsed(key), None) => key.verify_sig(input.message(), signature),
            (Key::Rsa { parameters, components }, _) => components.verify(parameters, input.message(), signature),
        };
        checked.map_err(|_| SignatureMismatch)
    }

    fn digest(&self, input: &SigningInput) -> Option<Digest> {
        let function = match self.algorithm.hash()? {
            HashFunction::Sha256 => &digest::SHA256,
            HashFunction::Sha384 => &digest::SHA384,
            HashFunction::Sha512 => &digest::SHA512,
        };
        Digest::import_less_safe(input.digest.as_deref()?, function).ok()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn point_algorithm(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::ES512 => Some(&signature::ECDSA_P521_SHA512_FIXED),
        Algorithm::EdDSA | Algorithm::Ed25519 => Some(&signature::ED25519),
        _ => None,
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}
