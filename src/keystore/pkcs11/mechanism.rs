//! How each algorithm is spoken to a token: mechanisms and what they sign.
//!
//! In scope: one signature with one session and one handle. Out of scope: finding the key, retries, verification.
//!
//! The digest is made by the caller: SoftHSM has no `CKM_ECDSA_SHA256`, and signs a digest of any length with `CKM_ECDSA`, so lengths are
//! checked here. Every parameter that has a default is given.

use claviger_audit::Algorithm;
use claviger_audit::algorithm::{HashFunction, KeyShape};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::types::Ulong;

use super::fault::Fault;
use crate::keystore::Input;

/// The longest message that is handed to a token for Ed25519. A JWS signing input is far shorter; some tokens stop at 16 KiB.
pub(super) const LONGEST_MESSAGE: usize = 64 * 1024;

/// Checks that the input is what the algorithm signs; says what is wrong otherwise.
pub(super) fn check_input(algorithm: Algorithm, input: &Input) -> Result<(), String> {
    match (algorithm.hash(), input) {
        (Some(hash), Input::Digest(digest)) if digest.len() == hash.digest_length() => Ok(()),
        (Some(hash), Input::Digest(digest)) => {
            Err(format!("{algorithm} signs a digest of {} bytes, not of {} bytes", hash.digest_length(), digest.len()))
        }
        (Some(_), Input::Message(_)) => Err(format!("{algorithm} signs a digest, not a message")),
        (None, Input::Digest(_)) => Err(format!("{algorithm} signs the message itself, not a digest")),
        (None, Input::Message(message)) if message.len() > LONGEST_MESSAGE => {
            Err(format!("the message has {} bytes; at most {LONGEST_MESSAGE} are signed", message.len()))
        }
        (None, Input::Message(_)) => Ok(()),
    }
}

/// Signs an input that [`check_input`] accepted. `width` is the length that the signature must have, see [`signature_width`].
pub(super) fn sign(session: &Session, key: ObjectHandle, algorithm: Algorithm, input: &Input, width: usize) -> Result<Vec<u8>, Fault> {
    let (Input::Digest(bytes) | Input::Message(bytes)) = input;
    let signature = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::ES512 => session.sign(&Mechanism::Ecdsa, key, bytes),
        Algorithm::EdDSA | Algorithm::Ed25519 => {
            // Without parameters this is pure Ed25519 (PKCS#11 v3.1 section 6.3.18): the only form that JOSE knows.
            session.sign(&Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), key, bytes)
        }
        Algorithm::RS256 => session.sign(&Mechanism::RsaPkcs, key, &digest_info(HashFunction::Sha256, bytes)),
        Algorithm::RS384 => session.sign(&Mechanism::RsaPkcs, key, &digest_info(HashFunction::Sha384, bytes)),
        Algorithm::RS512 => session.sign(&Mechanism::RsaPkcs, key, &digest_info(HashFunction::Sha512, bytes)),
        Algorithm::PS256 => session.sign(&Mechanism::RsaPkcsPss(pss(HashFunction::Sha256)), key, bytes),
        Algorithm::PS384 => session.sign(&Mechanism::RsaPkcsPss(pss(HashFunction::Sha384)), key, bytes),
        Algorithm::PS512 => session.sign(&Mechanism::RsaPkcsPss(pss(HashFunction::Sha512)), key, bytes),
    }?;
    if signature.len() == width {
        Ok(signature)
    } else {
        Err(Fault::Nonsense(format!("{} bytes instead of a signature of {width}", signature.len())))
    }
}

/// The length of every signature by a key of this shape, in bytes: `r || s` for curves (RFC 7518 section 3.4), the modulus for RSA.
pub(super) fn signature_width(shape: KeyShape, modulus: usize) -> usize {
    match shape {
        KeyShape::P256 | KeyShape::Ed25519 => 64,
        KeyShape::P384 => 96,
        KeyShape::P521 => 132,
        KeyShape::Rsa => modulus,
    }
}

/// The DER of `DigestInfo` (RFC 8017 section 9.2, note 1): a fixed prefix for each hash, then the digest.
fn digest_info(hash: HashFunction, digest: &[u8]) -> Vec<u8> {
    // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.2.<last>, NULL }, OCTET STRING of the digest }; all lengths fit one byte.
    let (last, total, octets) = match hash {
        HashFunction::Sha256 => (1, 0x31, 0x20),
        HashFunction::Sha384 => (2, 0x41, 0x30),
        HashFunction::Sha512 => (3, 0x51, 0x40),
    };
    let mut der = vec![0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last, 0x05, 0x00, 0x04, octets];
    der.extend_from_slice(digest);
    der
}

/// Salt as long as the hash, and MGF1 with the same hash (RFC 7518 section 3.5).
fn pss(hash: HashFunction) -> PkcsPssParams {
    let (hash_alg, mgf, salt) = match hash {
        HashFunction::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        HashFunction::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        HashFunction::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams { hash_alg, mgf, s_len: Ulong::new(salt) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_kind_and_length_is_signed() {
        for algorithm in Algorithm::ALL {
            for length in [0, 20, 31, 32, 33, 48, 64, 100] {
                let fits = algorithm.hash().is_some_and(|hash| hash.digest_length() == length);
                assert_eq!(check_input(algorithm, &Input::Digest(vec![0; length])).is_ok(), fits, "{algorithm} {length}");
            }
            assert_eq!(check_input(algorithm, &Input::Message(vec![0; 32])).is_ok(), algorithm.hash().is_none(), "{algorithm}");
        }
        assert!(check_input(Algorithm::EdDSA, &Input::Message(vec![0; LONGEST_MESSAGE])).is_ok());
        assert!(check_input(Algorithm::EdDSA, &Input::Message(vec![0; LONGEST_MESSAGE + 1])).is_err());
    }

    #[test]
    fn digest_info_has_right_lengths() {
        for hash in [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512] {
            let der = digest_info(hash, &vec![7; hash.digest_length()]);
            assert_eq!(usize::from(der[1]), der.len() - 2);
            assert_eq!(usize::from(der[18]), hash.digest_length());
        }
    }
}
