//! What a token of a keyring looks like: claims are completed, then checked, and never changed.
//!
//! In scope: the claim rules of a `jwt` keyring, the size and header rules of a `jws` keyring, and every broken rule by name. Out of scope: who
//! may ask (policies), parsing JSON text (duplicate members and inexact numbers are refused before), building the header, and the last check
//! of `exp` at release.
//!
//! Sources: RFC 7519 section 4.1 (registered claims), RFC 8725 sections 3.8 to 3.12 (issuer, audience, explicit types), RFC 7515 section 4.1
//! (header parameters), rotation.md I2 (`exp <= now + T`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use claviger_audit::Timestamp;
use serde_json::{Map, Value, json};

use super::request::TokenFacts;
use super::vocabulary::ClaimType;

mod check;
mod pattern;

pub use pattern::{BadPattern, Pattern};

/// What `forbidden` holds unless the configuration says otherwise: a JWT can be read by anyone who holds it.
pub const FORBIDDEN_BY_DEFAULT: [&str; 4] = ["password", "secret", "client_secret", "private_key"];
/// Longest `jti` in bytes: it is copied into the record, and looked up by.
pub const LONGEST_JTI: usize = 256;
/// Header parameters that a caller may never give: Claviger sets them, or they tell a verifier where to find another key (RFC 8725 section
/// 3.10), or they change what is signed.
pub const REFUSED_HEADER: [&str; 10] = ["alg", "kid", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "crit", "b64"];

/// The token rules of a `jwt` keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The header's `typ` (RFC 8725 section 3.11).
    pub typ: String,
    /// The URL that must stand in `iss`.
    pub issuer: String,
    /// Allowed audiences: a token names at least one of them and no other. Empty: `aud` is free.
    pub audiences: Vec<String>,
    /// T: the longest life of a token, from now to `exp`.
    pub token_ttl: Duration,
    /// How far `iat` and `nbf` may lie from now, either way.
    pub clock_skew: Duration,
    /// Claims that must be there and not null.
    pub required: Vec<String>,
    /// Claims that must not be there: exact names, at the top level.
    pub forbidden: Vec<String>,
    /// Largest claims set in bytes, as compact JSON.
    pub max_bytes: usize,
    /// The form of `sub`; with a pattern, `sub` must be there.
    pub subject_pattern: Option<Pattern>,
    /// Types of claims, where they are there. The keyring's `policy_claims` belong in here too, so that a wrong type is a broken rule.
    pub claim_types: BTreeMap<String, ClaimType>,
}

/// The token rules of a `jws` keyring, whose payload is only bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwsProfile {
    /// The header's `typ`, if it has one.
    pub typ: Option<String>,
    /// Content types that a caller may give as `cty`. Empty: none.
    pub content_types: Vec<String>,
    /// Largest payload in bytes.
    pub max_bytes: usize,
}

/// A rule that a token can break; its text is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A claim that must be there is not.
    Missing,
    /// A claim is there that must not be.
    Forbidden,
    /// A claim has the wrong type; times are whole seconds.
    Type,
    /// `iss` is not the keyring's.
    Issuer,
    /// `aud` names nobody, or somebody else.
    Audience,
    /// `sub` is not of the required form.
    Subject,
    /// `exp` is not after `nbf`.
    ExpiresBeforeStart,
    /// `exp` is not after now.
    Expired,
    /// `exp` is later than now and the keyring's `token_ttl`.
    LivesTooLong,
    /// `iat` or `nbf` is further from now than the clock skew.
    NotNow,
    /// `jti` is empty or too long.
    TokenId,
    /// The claims or the payload are too large.
    TooLarge,
    /// The caller gave a header parameter that it may not give.
    Header,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Forbidden,
        Self::Type,
        Self::Issuer,
        Self::Audience,
        Self::Subject,
        Self::ExpiresBeforeStart,
        Self::Expired,
        Self::LivesTooLong,
        Self::NotNow,
        Self::TokenId,
        Self::TooLarge,
        Self::Header,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::Type => "type",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::ExpiresBeforeStart => "expires_before_start",
            Self::Expired => "expired",
            Self::LivesTooLong => "lives_too_long",
            Self::NotNow => "not_now",
            Self::TokenId => "token_id",
            Self::TooLarge => "too_large",
            Self::Header => "header",
        }
    }
}

/// A rule that a token broke, where, and what to do. Values of claims are not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// The rule.
    pub rule: Rule,
    /// The claim (`exp`), the header parameter (`header.kid`), or `payload`.
    pub path: String,
    /// A sentence for the caller.
    pub message: String,
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.path, self.message, self.rule.code())
    }
}

/// What a token that keeps its profile says. Times are whole seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The header's `typ`.
    pub typ: String,
    /// `iss`.
    pub iss: String,
    /// `sub`, if it is there.
    pub sub: Option<String>,
    /// The members of `aud`; empty if it is not there.
    pub aud: Vec<String>,
    /// `jti`.
    pub jti: String,
    /// `iat`.
    pub iat: i64,
    /// `nbf`.
    pub nbf: i64,
    /// `exp`.
    pub exp: i64,
    /// From now, in whole seconds, to `exp`.
    pub lifetime: Duration,
    /// The words of `scope` and `scp`.
    pub scopes: Vec<String>,
}

impl Checked {
    /// What policies see of the token; `claims` are those that were checked.
    pub fn facts<'a>(&'a self, claims: &'a Map<String, Value>) -> TokenFacts<'a> {
        TokenFacts { typ: &self.typ, iss: &self.iss, aud: &self.aud, lifetime: self.lifetime, scopes: &self.scopes, claims }
    }
}

impl Profile {
    /// Adds what is absent: `iss`, `iat`, `nbf`, `exp` (now and `token_ttl`) and `jti`. What is present stays as it is, null too.
    ///
    /// `jti` is at least 128 random bits, drawn by the caller of this function.
    pub fn complete(&self, mut claims: Map<String, Value>, now: Timestamp, jti: String) -> Map<String, Value> {
        let seconds = now.seconds();
        let defaults = [
            ("iss", json!(self.issuer)),
            ("iat", json!(seconds)),
            ("nbf", json!(seconds)),
            ("exp", json!(seconds.saturating_add(whole_seconds(self.token_ttl)))),
            ("jti", Value::String(jti)),
        ];
        for (name, value) in defaults {
            if !claims.contains_key(name) {
                claims.insert(name.to_owned(), value);
            }
        }
        claims
    }

    /// Checks completed claims, and the header members that the caller gave, against every rule. Fails with all that are broken.
    ///
    /// `iat` and `nbf` may lie at most `clock_skew` from `now`, either way: a token says when it was signed, and it is signed now. `now` counts
    /// in whole seconds, rounded down, so `exp = now + token_ttl` is the latest that passes, and it never outlives I2.
    pub fn check(
        &self,
        claims: &Map<String, Value>,
        header_from_caller: Option<&Map<String, Value>>,
        now: Timestamp,
    ) -> Result<Checked, Vec<BrokenRule>> {
        check::check(self, claims, header_from_caller, now)
    }
}

impl JwsProfile {
    /// Checks a payload's size and the header members that the caller gave. Fails with all that are broken.
    pub fn check(&self, payload_bytes: usize, header_from_caller: Option<&Map<String, Value>>) -> Result<(), Vec<BrokenRule>> {
        check::check_payload(self, payload_bytes, header_from_caller)
    }
}

fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
