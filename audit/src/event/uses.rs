//! The fields of the events that only a use log holds.
//!
//! In scope: names and fields, as `audit/README.md` specifies them. Out of scope: whether an event is legal. Hashes are lower-case hex.

use serde::{Deserialize, Serialize};

use crate::algorithm::Algorithm;
use crate::merkle::Hash;

/// The key log as this use log's records see it from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysSeen {
    /// Its size.
    pub size: u64,
    /// Leaf hash of its last record.
    pub leaf: Hash,
}

/// A signature is released once this record is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The keyring.
    pub keyring: String,
    /// The key.
    pub kid: String,
    /// The algorithm.
    pub alg: Algorithm,
    /// SHA-256 of the JWS signing input (RFC 7515 section 5.1).
    pub input: Hash,
    /// The `typ` header.
    pub typ: Option<String>,
    /// SHA-256 of the token's `jti`.
    pub jti: Option<Hash>,
    /// The token's `sub`, as `audit.subject` says.
    pub subject: Option<String>,
    /// Seconds.
    pub iat: Option<i64>,
    /// Seconds; after this the signature is dead.
    pub exp: i64,
    /// The key log's size that was seen.
    pub size: u64,
    /// The policies that permitted it.
    pub policy: Vec<String>,
    /// The backend's own request id.
    pub backend_request: Option<String>,
}

/// An authenticated caller was refused by policy or profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignDenied {
    /// What was asked for.
    pub keyring: String,
    /// Why.
    pub code: String,
    /// The broken rules.
    pub reason: Option<String>,
}

/// Refusals of one kind within a second, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRefused {
    /// Why.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// No signature left although one was asked for and permitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignFailed {
    /// The keyring.
    pub keyring: String,
    /// The key.
    pub kid: String,
    /// Why.
    pub code: String,
    /// What happened.
    pub reason: Option<String>,
    /// The `sign` record whose signature was not released.
    pub of: Option<u64>,
    /// Where there is no `sign` record and the backend signed nevertheless: its own request id.
    pub backend_request: Option<String>,
}

/// Keystore calls that got no complete answer, whose answer was dropped, or whose signature no request id tells, counted within a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignUnanswered {
    /// The keyring.
    pub keyring: String,
    /// The key.
    pub kid: String,
    /// How many.
    pub count: u64,
}
