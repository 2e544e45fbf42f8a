//! One signature: what is asked for, and whether the answer can be one.
//!
//! In scope: the request for each algorithm, the version in the answer, the form of the signature. Out of scope: verifying it (the signer
//! does), and who may ask how much (`gate.rs`, `breaker.rs`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;

use super::address::VERSION;
use super::admission;
use super::api::{Sign, Signed, envelope, hash_name, request_id};
use super::fault::{Call, Fault};
use super::keys;
use super::server::Server;
use crate::clock::Monotonic;
use crate::keystore::{Input, Signature};

/// The longest message that is sent for Ed25519: a JWS signing input is far shorter.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// How many keys are remembered: far more than one installation has; beyond it all are forgotten, and looked up anew.
const MOST_KNOWN: usize = 4096;
/// What stands before a signature by the one version that Claviger uses.
const PREFIX: &str = "vault:v1:";

/// The kinds of keys that were seen: Vault signs a digest of any length with any key, so that a key of another kind must be known as one.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<KeyName, Kind>>);

#[derive(Clone, Copy)]
struct Kind {
    shape: KeyShape,
    /// The length of every signature, in bytes.
    width: usize,
}

impl Known {
    pub(super) fn learn(&self, name: &KeyName, public: &PublicKey, shape: KeyShape) {
        let mut kinds = self.kinds();
        if kinds.len() >= MOST_KNOWN {
            kinds.clear();
        }
        kinds.insert(name.clone(), Kind { shape, width: width(shape, public) });
    }

    pub(super) fn forget(&self, name: &KeyName) {
        self.kinds().remove(name);
    }

    fn kind(&self, name: &KeyName) -> Option<Kind> {
        self.kinds().get(name).copied()
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<KeyName, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that the input is what the algorithm signs; says what is wrong otherwise.
pub(super) fn check_input(algorithm: Algorithm, input: &Input) -> Result<(), String> {
    match (algorithm.hash(), input) {
        (Some(hash), Input::Digest(digest)) if digest.len() == hash.digest_length() => Ok(()),
        (None, Input::Message(message)) if message.len() <= LONGEST_MESSAGE => Ok(()),
        (Some(hash), Input::Digest(digest)) => {
            Err(format!("{algorithm} signs a digest of {} bytes, not of {} bytes", hash.digest_length(), digest.len()))
        }
        (Some(_), Input::Message(_)) => Err(format!("{algorithm} signs a digest, not a message")),
        (None, Input::Digest(_)) => Err(format!("{algorithm} signs the message itself, not a digest")),
        (None, Input::Message(message)) => Err(format!("the message has {} bytes; at most {LONGEST_MESSAGE} are signed", message.len())),
    }
}

/// Signs an input that [`check_input`] accepted.
pub(super) async fn sign(
    server: &Server,
    name: &KeyName,
    algorithm: Algorithm,
    input: &Input,
    deadline: Monotonic,
) -> Result<Signature, Fault> {
    let kind = kind(server, name, deadline).await?;
    if kind.shape != algorithm.key_shape() {
        return Err(Fault::Inadmissible(format!("key {name} is of another kind than {algorithm} needs")));
    }
    let call = Call { capability: "update", path: format!("{}/sign/{name}", server.mount()) };
    let answer = match server.call(&request(server.mount().as_str(), name, algorithm, input), &call, deadline).await {
        Ok(answer) => answer,
        // An unknown key is told like any other mistake: whether it is gone is certain only from the engine's own answer about it.
        Err(fault @ Fault::Refused { .. }) => {
            server.known().forget(name);
            return Err(keys::read(server, name, deadline).await?.map_or_else(|| server.gone(name), |_| fault));
        }
        Err(fault) => return Err(fault.of_signing()),
    };
    // From here on the server has signed, and its audit log says so.
    let unusable = |reason: String, request_id: Option<String>| Fault::Unusable { reason, request_id };
    let envelope = envelope::<Signed>(&answer.body).map_err(|fault| unusable(fault.to_string(), request_id(&answer.body)))?;
    let Some(request_id) = envelope.request_id else { return Err(unusable("it has no request id".to_owned(), None)) };
    let octets = match &envelope.data {
        Some(signed) => octets(signed, kind.width),
        None => Err("it holds no signature".to_owned()),
    };
    match octets {
        Ok(bytes) => Ok(Signature { bytes, backend_request: Some(request_id) }),
        Err(reason) => Err(unusable(reason, Some(request_id))),
    }
}

/// What kind of key it is: asked once in the life of this process.
async fn kind(server: &Server, name: &KeyName, deadline: Monotonic) -> Result<Kind, Fault> {
    if let Some(kind) = server.known().kind(name) {
        return Ok(kind);
    }
    let found = keys::read(server, name, deadline).await?.ok_or_else(|| server.gone(name))?;
    let shape =
        admission::shape(&found.facts).ok_or_else(|| Fault::Inadmissible(format!("key {name} is of a type that Claviger does not use")))?;
    let public = admission::public_key(&found.facts).map_err(|error| Fault::Nonsense(format!("of the key {name}: {error}")))?;
    server.known().learn(name, &public, shape);
    Ok(Kind { shape, width: width(shape, &public) })
}

fn request(mount: &str, name: &KeyName, algorithm: Algorithm, input: &Input) -> Sign {
    use Algorithm as A;
    let (Input::Digest(bytes) | Input::Message(bytes)) = input;
    let (signature_algorithm, salt_length) = match algorithm {
        A::RS256 | A::RS384 | A::RS512 => (Some("pkcs1v15"), None),
        // A salt as long as the hash (RFC 7518 section 3.5); the server's default is as long as the key allows.
        A::PS256 | A::PS384 | A::PS512 => (Some("pss"), Some("hash")),
        A::ES256 | A::ES384 | A::ES512 | A::EdDSA | A::Ed25519 => (None, None),
    };
    Sign {
        mount: mount.to_owned(),
        name: name.to_string(),
        input: STANDARD.encode(bytes),
        key_version: VERSION,
        prehashed: algorithm.hash().is_some(),
        hash_algorithm: algorithm.hash().map(hash_name),
        signature_algorithm,
        salt_length,
        marshaling_algorithm: "jws",
    }
}

/// The octets of a signature by version 1, of the length that it must have.
fn octets(signed: &Signed, width: usize) -> Result<Vec<u8>, String> {
    if signed.key_version.is_some_and(|version| version != VERSION) {
        return Err("it is by another version of the key than the one that was asked for".to_owned());
    }
    let text = signed.signature.strip_prefix(PREFIX).ok_or_else(|| format!("it does not begin with {PREFIX}"))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "it is not base64url".to_owned())?;
    if bytes.len() == width { Ok(bytes) } else { Err(format!("{} bytes instead of a signature of {width}", bytes.len())) }
}

/// The length of every signature, in bytes: `r || s` for curves (RFC 7518 section 3.4), the modulus for RSA.
fn width(shape: KeyShape, public: &PublicKey) -> usize {
    match shape {
        KeyShape::P256 | KeyShape::Ed25519 => 64,
        KeyShape::P384 => 96,
        KeyShape::P521 => 132,
        KeyShape::Rsa => public.rsa_components().map_or(0, |(modulus, _)| modulus.len()),
    }
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
        assert!(check_input(Algorithm::EdDSA, &Input::Message(vec![0; LONGEST_MESSAGE + 1])).is_err());
    }

    #[test]
    fn only_version_1_in_the_right_form_is_a_signature() {
        let signed = |signature: &str, key_version| octets(&Signed { signature: signature.to_owned(), key_version }, 3);
        assert_eq!(signed("vault:v1:AQID", None), Ok(vec![1, 2, 3]));
        assert_eq!(signed("vault:v1:AQID", Some(1)), Ok(vec![1, 2, 3]));
        for (text, version) in [
            ("vault:v2:AQID", None),
            ("vault:v1:AQID", Some(2)),
            ("vault:v11:AQID", None),
            ("AQID", None),
            ("vault:v1:AQI=", None),
            ("vault:v1:AQIDBA", None),
            ("vault:v1:", None),
            ("vault:v1:+///", None),
        ] {
            assert!(signed(text, version).is_err(), "{text} {version:?}");
        }
    }
}
