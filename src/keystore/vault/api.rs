//! What is said to the server: vaultrs' endpoints where they can say it, our own where they cannot; and what its answers hold.
//!
//! In scope: the form of requests and answers. Out of scope: sending, and what the values mean. Answers are read leniently: Vault and OpenBao
//! add members at will, and some releases leave some out; whoever needs a value says so.
//!
//! Why our own: vaultrs' `SignDataRequest` cannot send `salt_length`, whose default breaks PS256 (RFC 7518 section 3.5); its answers lack the
//! request id and most settings of a key, and fail on a type of key that they do not know.

#![expect(clippy::ref_option_ref, reason = "the derive of an endpoint makes such of members that may be missing")]

use std::collections::BTreeMap;

use claviger_audit::Algorithm;
use claviger_audit::algorithm::{HashFunction, KeyShape};
use rustify_derive::Endpoint;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use vaultrs::api::transit::KeyType;

use super::fault::Fault;

/// Signs (Vault: `POST /transit/sign/:name`). Every member that has a default is given.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/sign/{self.name}", method = "POST")]
pub(super) struct Sign {
    #[endpoint(skip)]
    pub(super) mount: String,
    #[endpoint(skip)]
    pub(super) name: String,
    /// Base64 of the digest, or of the message for Ed25519.
    pub(super) input: String,
    pub(super) key_version: u64,
    pub(super) prehashed: bool,
    pub(super) hash_algorithm: Option<&'static str>,
    pub(super) signature_algorithm: Option<&'static str>,
    pub(super) salt_length: Option<&'static str>,
    /// `jws`: `r || s` for curves (RFC 7518 section 3.4), and base64url.
    pub(super) marshaling_algorithm: &'static str,
}

/// Says how the server is, without a token and without an entry in its audit log; also where it is sealed.
#[derive(Endpoint)]
#[endpoint(path = "sys/health")]
pub(super) struct Health {}

/// Says what the token may do on each of some paths.
#[derive(Endpoint)]
#[endpoint(path = "sys/capabilities-self", method = "POST")]
pub(super) struct Capabilities {
    pub(super) paths: Vec<String>,
}

/// What every answer of the API is wrapped in.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    /// The same as `request.id` in the audit device's entries.
    pub(super) request_id: Option<String>,
    pub(super) data: Option<T>,
    pub(super) auth: Option<Auth>,
}

/// What a login, or its renewal, is answered with.
#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: String,
    /// In seconds; 0: for ever.
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// What a token says of itself.
#[derive(Deserialize)]
pub(super) struct TokenFacts {
    /// The seconds that it still has; 0: for ever.
    #[serde(default)]
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// A signature as the server writes it.
#[derive(Deserialize)]
pub(super) struct Signed {
    pub(super) signature: String,
    /// The version that signed; older releases say it in the signature alone.
    pub(super) key_version: Option<u64>,
}

/// The settings of a key, by their names in the API.
pub(super) type KeyFacts = Map<String, Value>;

/// A list of names; folders end with a slash.
#[derive(Deserialize)]
pub(super) struct Names {
    pub(super) keys: Vec<String>,
}

/// What the token may do, by path.
pub(super) type Permissions = BTreeMap<String, Value>;

/// Reads the content of an answer.
pub(super) fn envelope<T: DeserializeOwned>(body: &[u8]) -> Result<Envelope<T>, Fault> {
    // The error's text could repeat a part of the content, which may hold a token.
    serde_json::from_slice(body).map_err(|_| Fault::Nonsense("it is not JSON of the form that the API has".to_owned()))
}

/// The id of the request, of an answer whose content is of no interest or empty.
pub(super) fn request_id(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Envelope<Value>>(body).ok()?.request_id
}

/// The type of the key that an algorithm needs. RSA has 2048 bits (RFC 7518 section 3.3 demands no less), as in every other keystore.
pub(super) fn key_type(algorithm: Algorithm) -> KeyType {
    match algorithm.key_shape() {
        KeyShape::P256 => KeyType::EcdsaP256,
        KeyShape::P384 => KeyType::EcdsaP384,
        KeyShape::P521 => KeyType::EcdsaP521,
        KeyShape::Rsa => KeyType::Rsa2048,
        KeyShape::Ed25519 => KeyType::Ed25519,
    }
}

/// The name of that type in the API.
pub(super) fn type_name(shape: KeyShape) -> &'static str {
    match shape {
        KeyShape::P256 => "ecdsa-p256",
        KeyShape::P384 => "ecdsa-p384",
        KeyShape::P521 => "ecdsa-p521",
        KeyShape::Rsa => "rsa-2048",
        KeyShape::Ed25519 => "ed25519",
    }
}

/// The name of a hash in the API.
pub(super) fn hash_name(hash: HashFunction) -> &'static str {
    match hash {
        HashFunction::Sha256 => "sha2-256",
        HashFunction::Sha384 => "sha2-384",
        HashFunction::Sha512 => "sha2-512",
    }
}

#[cfg(test)]
mod tests {
    use rustify::endpoint::Endpoint as _;

    use super::*;

    #[test]
    fn a_request_says_everything_that_has_a_default() {
        let sign = Sign {
            mount: "transit".into(),
            name: "prod.a.1-00c0ffee".into(),
            input: "AAAA".into(),
            key_version: 1,
            prehashed: true,
            hash_algorithm: Some("sha2-256"),
            signature_algorithm: Some("pss"),
            salt_length: Some("hash"),
            marshaling_algorithm: "jws",
        };
        assert_eq!(sign.path(), "transit/sign/prod.a.1-00c0ffee");
        let body: Value = serde_json::from_slice(&sign.body().unwrap().unwrap()).unwrap();
        let wanted = serde_json::json!({"input":"AAAA","key_version":1,"prehashed":true,"hash_algorithm":"sha2-256","signature_algorithm":"pss","salt_length":"hash","marshaling_algorithm":"jws"});
        assert_eq!(body, wanted);
    }

    #[test]
    fn the_names_of_types_are_those_of_the_library() {
        for algorithm in Algorithm::ALL {
            assert_eq!(serde_json::to_value(key_type(algorithm)).unwrap(), type_name(algorithm.key_shape()));
        }
    }

    #[test]
    fn an_answer_of_another_form_is_not_repeated() {
        let error = envelope::<Signed>(br#"{"auth":{"client_token":7,"x":"hvs.SECRET"}}"#).err().unwrap().to_string();
        assert!(!error.contains("SECRET") && !error.contains('7'), "{error}");
        assert!(envelope::<Signed>(b"<html>").is_err());
        assert_eq!(request_id(br#"{"request_id":"r-1","data":null,"warnings":["x"]}"#).as_deref(), Some("r-1"));
        assert_eq!(request_id(b""), None);
    }
}
