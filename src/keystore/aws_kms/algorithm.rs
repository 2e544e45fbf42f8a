//! How each algorithm is spoken to KMS: key spec, signing algorithm, message type, and what comes back.
//!
//! In scope: the tables of the KMS API reference (`CreateKey`, `Sign`), and the limits that KMS has. Out of scope: calling it.
//!
//! A digest goes as `DIGEST`, so that no claim leaves the machine and no length limits it. Ed25519 takes the message itself:
//! `ED25519_SHA_512` wants `RAW`, and `ED25519_PH_SHA_512` would be Ed25519ph, which JOSE does not know.

use aws_sdk_kms::types::{KeySpec, MessageType, SigningAlgorithmSpec};
use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;

use super::budget::Family;
use super::der;
use crate::keystore::Input;

/// The longest message that KMS signs (`Sign`, parameter `Message`: 1 to 4,096 octets).
pub(super) const LONGEST_MESSAGE: usize = 4096;

/// Checks that the input is what the algorithm signs; says what is wrong otherwise.
pub(super) fn check_input(algorithm: Algorithm, input: &Input) -> Result<(), String> {
    match (algorithm.hash(), input) {
        (Some(hash), Input::Digest(digest)) if digest.len() == hash.digest_length() => Ok(()),
        (Some(hash), Input::Digest(digest)) => {
            Err(format!("{algorithm} signs a digest of {} bytes, not of {} bytes", hash.digest_length(), digest.len()))
        }
        (Some(_), Input::Message(_)) => Err(format!("{algorithm} signs a digest, not a message")),
        (None, Input::Digest(_)) => Err(format!("{algorithm} signs the message itself, not a digest")),
        (None, Input::Message(message)) if message.is_empty() => Err("AWS KMS signs no empty message".to_owned()),
        (None, Input::Message(message)) if message.len() > LONGEST_MESSAGE => Err(format!(
            "the signing input has {} bytes, and AWS KMS signs at most {LONGEST_MESSAGE} with Ed25519: use fewer claims, or a keyring with \
             another algorithm, whose input is hashed here",
            message.len()
        )),
        (None, Input::Message(_)) => Ok(()),
    }
}

/// An input that the algorithm signs, of nothing.
pub(super) fn example(algorithm: Algorithm) -> Input {
    algorithm.hash().map_or_else(|| Input::Message(vec![0]), |hash| Input::Digest(vec![0; hash.digest_length()]))
}

/// The kind of key that signs so. RSA keys have 2048 bits, as in every keystore.
pub(super) fn key_spec(algorithm: Algorithm) -> KeySpec {
    match algorithm.key_shape() {
        KeyShape::P256 => KeySpec::EccNistP256,
        KeyShape::P384 => KeySpec::EccNistP384,
        KeyShape::P521 => KeySpec::EccNistP521,
        KeyShape::Ed25519 => KeySpec::EccNistEdwards25519,
        KeyShape::Rsa => KeySpec::Rsa2048,
    }
}

/// The shape of a key by its spec, if Claviger uses such keys.
pub(super) fn shape(spec: &KeySpec) -> Option<KeyShape> {
    match spec {
        KeySpec::EccNistP256 => Some(KeyShape::P256),
        KeySpec::EccNistP384 => Some(KeyShape::P384),
        KeySpec::EccNistP521 => Some(KeyShape::P521),
        KeySpec::EccNistEdwards25519 => Some(KeyShape::Ed25519),
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => Some(KeyShape::Rsa),
        _ => None,
    }
}

/// KMS's name of the algorithm. Its PSS salt is as long as the digest, as RFC 7518 section 3.5 wants.
pub(super) fn signing_algorithm(algorithm: Algorithm) -> SigningAlgorithmSpec {
    match algorithm {
        Algorithm::ES256 => SigningAlgorithmSpec::EcdsaSha256,
        Algorithm::ES384 => SigningAlgorithmSpec::EcdsaSha384,
        Algorithm::ES512 => SigningAlgorithmSpec::EcdsaSha512,
        Algorithm::EdDSA | Algorithm::Ed25519 => SigningAlgorithmSpec::Ed25519Sha512,
        Algorithm::RS256 => SigningAlgorithmSpec::RsassaPkcs1V15Sha256,
        Algorithm::RS384 => SigningAlgorithmSpec::RsassaPkcs1V15Sha384,
        Algorithm::RS512 => SigningAlgorithmSpec::RsassaPkcs1V15Sha512,
        Algorithm::PS256 => SigningAlgorithmSpec::RsassaPssSha256,
        Algorithm::PS384 => SigningAlgorithmSpec::RsassaPssSha384,
        Algorithm::PS512 => SigningAlgorithmSpec::RsassaPssSha512,
    }
}

/// What [`check_input`] accepted, as KMS takes it.
pub(super) fn message(input: Input) -> (MessageType, Vec<u8>) {
    match input {
        Input::Digest(digest) => (MessageType::Digest, digest),
        Input::Message(message) => (MessageType::Raw, message),
    }
}

/// Which of the account's quotas a signature counts against.
pub(super) fn family(algorithm: Algorithm) -> Family {
    if algorithm.key_shape() == KeyShape::Rsa { Family::Rsa } else { Family::Curve }
}

/// A signature in JOSE form, from what KMS answered.
pub(super) fn jose_signature(algorithm: Algorithm, answered: Vec<u8>) -> Result<Vec<u8>, String> {
    let width = match algorithm.key_shape() {
        KeyShape::P256 => 32,
        KeyShape::P384 => 48,
        KeyShape::P521 => 66,
        KeyShape::Ed25519 if answered.len() == 64 => return Ok(answered),
        KeyShape::Rsa if (256..=1024).contains(&answered.len()) => return Ok(answered),
        KeyShape::Ed25519 | KeyShape::Rsa => return Err(format!("{} bytes are no signature of {algorithm}", answered.len())),
    };
    der::raw_signature(&answered, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_takes_a_message_of_at_most_4096_bytes() {
        let message = |length| check_input(Algorithm::EdDSA, &Input::Message(vec![7; length]));
        assert_eq!(message(1), Ok(()));
        assert_eq!(message(4096), Ok(()));
        assert!(message(4097).unwrap_err().contains("at most 4096"), "it says what to do instead");
        assert!(message(0).is_err());
        assert!(check_input(Algorithm::EdDSA, &Input::Digest(vec![7; 64])).is_err());
    }

    #[test]
    fn every_algorithm_has_a_key_of_its_own_shape() {
        for algorithm in Algorithm::ALL {
            assert_eq!(shape(&key_spec(algorithm)), Some(algorithm.key_shape()), "{algorithm}");
            assert_eq!(check_input(algorithm, &example(algorithm)), Ok(()), "{algorithm}");
            if let Some(hash) = algorithm.hash() {
                assert_eq!(check_input(algorithm, &Input::Digest(vec![0; hash.digest_length()])), Ok(()), "{algorithm}");
                assert!(check_input(algorithm, &Input::Digest(vec![0; hash.digest_length() - 1])).is_err(), "{algorithm}");
                assert!(check_input(algorithm, &Input::Message(vec![0; hash.digest_length()])).is_err(), "{algorithm}");
            }
        }
        assert_eq!(shape(&KeySpec::EccSecgP256K1), None);
    }

    #[test]
    fn what_is_no_signature_is_not_handed_on() {
        assert!(jose_signature(Algorithm::EdDSA, vec![0; 63]).is_err());
        assert!(jose_signature(Algorithm::RS256, vec![0; 64]).is_err());
        assert!(jose_signature(Algorithm::ES256, vec![0; 64]).is_err());
        assert_eq!(jose_signature(Algorithm::EdDSA, vec![1; 64]), Ok(vec![1; 64]));
    }
}
