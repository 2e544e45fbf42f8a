//! The JWS signing input and its serialisations (RFC 7515 sections 5.1 and 7.1, RFC 7797).
//!
//! In scope: bytes. Out of scope: what may stand in a header (the profile says) and who signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_audit::Algorithm;
use claviger_audit::algorithm::HashFunction;
use claviger_audit::merkle::Hash;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha384, Sha512};

/// The protected header of a token: `alg`, `kid`, `typ` and what the profile lets a caller add, in this order.
#[derive(Clone, Debug)]
pub struct Protected {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The key's thumbprint.
    pub kid: String,
    /// Explicit type (RFC 8725 section 3.11).
    pub typ: Option<String>,
    /// Further members, none of them one of the above.
    pub more: Map<String, Value>,
    /// `false` writes `"b64":false` and `"crit":["b64"]` (RFC 7797 section 6).
    pub encode_payload: bool,
}

impl Protected {
    fn encoded(&self) -> String {
        let mut members = Map::new();
        members.insert("alg".into(), self.algorithm.name().into());
        members.insert("kid".into(), self.kid.clone().into());
        if let Some(typ) = &self.typ {
            members.insert("typ".into(), typ.clone().into());
        }
        if !self.encode_payload {
            members.insert("b64".into(), false.into());
            members.insert("crit".into(), vec![Value::from("b64")].into());
        }
        members.extend(self.more.clone());
        URL_SAFE_NO_PAD.encode(Value::Object(members).to_string())
    }
}

/// What is signed, hashed once.
#[derive(Clone, Debug)]
pub struct SigningInput {
    header: String,
    /// The payload as the compact form shows it; empty for a detached one.
    shown_payload: String,
    bytes: Vec<u8>,
    /// SHA-256 of the signing input, for the record.
    pub sha256: Hash,
    /// The digest that the algorithm signs; `None` for Ed25519, which takes the message.
    pub digest: Option<Vec<u8>>,
}

impl SigningInput {
    /// Builds `BASE64URL(header) || '.' || payload`; the payload is encoded unless the header says otherwise.
    pub fn new(header: &Protected, payload: &[u8], detached: bool) -> Self {
        let algorithm = header.algorithm;
        let encoded = URL_SAFE_NO_PAD.encode(payload);
        let encode_payload = header.encode_payload;
        let header = header.encoded();
        let mut bytes = Vec::with_capacity(header.len() + 1 + encoded.len().max(payload.len()));
        bytes.extend_from_slice(header.as_bytes());
        bytes.push(b'.');
        bytes.extend_from_slice(if encode_payload { encoded.as_bytes() } else { payload });
        let sha256 = Hash::digest(&bytes);
        let digest = algorithm.hash().map(|function| match function {
            HashFunction::Sha256 => sha256.as_bytes().to_vec(),
            HashFunction::Sha384 => Sha384::digest(&bytes).to_vec(),
            HashFunction::Sha512 => Sha512::digest(&bytes).to_vec(),
        });
        // An unencoded payload is never shown: it could hold a '.', which would end it early (RFC 7797 section 5.2).
        let shown_payload = if detached || !encode_payload { String::new() } else { encoded };
        Self { header, shown_payload, bytes, sha256, digest }
    }

    /// The message itself, for Ed25519.
    pub fn message(&self) -> &[u8] {
        &self.bytes
    }

    /// The compact serialisation; with a detached payload its middle part is empty (RFC 7515 appendix F).
    pub fn compact(&self, signature: &[u8]) -> String {
        format!("{}.{}.{}", self.header, self.shown_payload, URL_SAFE_NO_PAD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(encode_payload: bool) -> Protected {
        Protected { algorithm: Algorithm::ES256, kid: "k".into(), typ: Some("at+jwt".into()), more: Map::new(), encode_payload }
    }

    #[test]
    fn compact_form_has_header_payload_and_signature() {
        let input = SigningInput::new(&header(true), br#"{"sub":"a"}"#, false);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#);
        let expected = format!("{header}.{}", URL_SAFE_NO_PAD.encode(r#"{"sub":"a"}"#));
        assert_eq!(input.message(), expected.as_bytes());
        assert_eq!(input.compact(&[1, 2]), format!("{expected}.AQI"));
        assert_eq!(input.digest.as_deref(), Some(&Hash::digest(expected.as_bytes()).as_bytes()[..]));
    }

    #[test]
    fn an_unencoded_payload_is_signed_as_it_is_and_detached() {
        let input = SigningInput::new(&header(false), b"$.02", false);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k","typ":"at+jwt","b64":false,"crit":["b64"]}"#);
        assert_eq!(input.message(), [header.as_bytes(), b".$.02"].concat());
        assert_eq!(input.compact(&[]), format!("{header}.."));
    }
}
