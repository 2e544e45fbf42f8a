//! The JWKS body (RFC 7517 section 5), built from events alone, so that the verifier recomputes each hash.
//!
//! In scope: which keys a set holds, in which order, and its bytes. Out of scope: HTTP headers, caching, who serves it.

use std::fmt;
use std::str::FromStr;

use crate::algorithm::Algorithm;
use crate::event::Purpose;
use crate::jwk::{Curve, PublicKey};
use crate::keyrings::{Keyring, Keyrings};

/// Most keys in one set (I6): common clients read no more than 100.
pub const MOST_KEYS_IN_SET: usize = 100;

/// A set of keys that is served under one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Every `jwt` keyring of one issuer and nothing else.
    Issuer(String),
    /// One keyring.
    Keyring(String),
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer(name) => write!(f, "issuer/{name}"),
            Self::Keyring(name) => write!(f, "keyring/{name}"),
        }
    }
}

/// The text names no set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a set name; it is issuer/<name> or keyring/<name>")]
pub struct BadSetName(String);

impl FromStr for SetName {
    type Err = BadSetName;

    fn from_str(text: &str) -> Result<Self, BadSetName> {
        match text.split_once('/') {
            Some(("issuer", name)) => Ok(Self::Issuer(name.to_owned())),
            Some(("keyring", name)) => Ok(Self::Keyring(name.to_owned())),
            _ => Err(BadSetName(text.to_owned())),
        }
    }
}

/// The sets that a keyring's keys are part of. Keys of `jws` keyrings appear in no issuer's set: else a caller who may sign a webhook
/// payload could sign a payload that is an access token.
pub fn sets_of(keyring: &Keyring) -> Vec<SetName> {
    let own = SetName::Keyring(keyring.name.clone());
    match (&keyring.issuer, keyring.purpose) {
        (Some(issuer), Purpose::Jwt) => vec![SetName::Issuer(issuer.clone()), own],
        _ => vec![own],
    }
}

/// The bytes of a set: keyrings by name, keys by number, imported keys by `kid`. `None` if no keyring has this set.
pub fn body(keyrings: &Keyrings, set: &SetName) -> Option<Vec<u8>> {
    let mut members: Vec<&Keyring> = keyrings.all().filter(|keyring| sets_of(keyring).contains(set)).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    if members.is_empty() {
        return None;
    }
    let mut body = String::from(r#"{"keys":["#);
    for jwk in members.iter().flat_map(|keyring| keyring.published_jwks()) {
        if !body.ends_with('[') {
            body.push(',');
        }
        body.push_str(&jwk);
    }
    body.push_str("]}");
    Some(body.into_bytes())
}

/// One member of a set: `kty, kid, use, alg` and the public members, in this order.
pub fn jwk_text(kid: &str, algorithm: Algorithm, key: &PublicKey) -> String {
    // A kid may come from elsewhere (`key.imported`), so it is escaped; everything else is base64url or one of our own names.
    let kid = serde_json::Value::from(kid);
    let head = |kty: &str| format!(r#"{{"kty":"{kty}","kid":{kid},"use":"sig","alg":"{algorithm}""#);
    match key {
        PublicKey::Ec { crv, x, y } => format!(r#"{},"crv":"{}","x":"{x}","y":"{y}"}}"#, head("EC"), crv.name()),
        PublicKey::Rsa { n, e } => format!(r#"{},"n":"{n}","e":"{e}"}}"#, head("RSA")),
        PublicKey::Okp { x, .. } => format!(r#"{},"crv":"{}","x":"{x}"}}"#, head("OKP"), Curve::Ed25519.name()),
    }
}
