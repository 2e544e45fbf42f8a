//! One question to the policies: who asks for what, of which keyring, with which claims, from where and when.
//!
//! In scope: the question as a value, and its Cedar context, built to fit the schema so that it need not be validated again. Out of scope:
//! answering it.

use std::net::IpAddr;
use std::time::Duration;

use cedar_policy::{Context, RestrictedExpression};
use chrono::{DateTime, SecondsFormat, Utc};
use claviger_audit::Timestamp;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::reads::Reads;
use super::vocabulary::{Action, KeyringFacts, string_set};

/// Longest user agent that policies see, in bytes: it is only evidence, and it is copied into every decision.
pub const LONGEST_USER_AGENT: usize = 256;

/// What an action is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A keyring, by name.
    Keyring(&'a str),
    /// The daemon as a whole.
    Installation,
}

/// How a request came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The peer's address; none on a Unix socket.
    pub source_address: Option<IpAddr>,
    /// The `User-Agent` header; policies see its first 256 bytes.
    pub user_agent: Option<String>,
}

/// What will be signed, as far as policies can see it. [`super::Checked::facts`] makes one from claims that passed their profile.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// The header's `typ`; empty if there is none.
    pub typ: &'a str,
    /// The `iss` claim; empty if there is none.
    pub iss: &'a str,
    /// The members of `aud`.
    pub aud: &'a [String],
    /// From now to `exp`; policies see whole seconds, rounded up.
    pub lifetime: Duration,
    /// The words of `scope` and `scp`.
    pub scopes: &'a [String],
    /// All claims; policies see those that the keyring declares as `policy_claims`.
    pub claims: &'a Map<String, Value>,
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRequest<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub action: Action,
    /// Of what.
    pub resource: Resource<'a>,
    /// How the request came in.
    pub origin: &'a Origin,
    /// The wall clock.
    pub time: Timestamp,
    /// The token, for the actions that sign; the others ignore it.
    pub token: Option<&'a TokenFacts<'a>>,
}

/// A question that cannot be put: it is answered with a denial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("policy claim {claim:?} is not a {expected}; give it that type or leave it out")]
    ClaimType { claim: String, expected: super::ClaimType },
    #[error("a request for a signature came without its token")]
    NoToken,
    #[error("the request context could not be built: {0}")]
    Context(String),
}

/// The Cedar context of a question: the attributes that the policies of its action read, and no others. `keyring` says which claims policies
/// may read.
pub(super) fn context(request: &DecisionRequest<'_>, keyring: Option<&KeyringFacts>, reads: &Reads) -> Result<Context, BadRequest> {
    let reads = |attribute: &str| reads.has(request.action, attribute);
    let mut members: Vec<(String, RestrictedExpression)> = Vec::with_capacity(12);
    let mut add = |name: &str, value: &dyn Fn() -> Option<RestrictedExpression>| {
        if reads(name) {
            members.extend(value().map(|value| (name.to_owned(), value)));
        }
    };
    add("sourceAddress", &|| request.origin.source_address.map(|it| RestrictedExpression::new_ip(it.to_canonical().to_string())));
    add("userAgent", &|| request.origin.user_agent.as_deref().map(|it| text(&it[..it.floor_char_boundary(LONGEST_USER_AGENT)])));
    add("time", &|| Some(RestrictedExpression::new_datetime(cedar_time(request.time))));
    if request.action.signs() {
        let token = request.token.ok_or(BadRequest::NoToken)?;
        add("typ", &|| Some(text(token.typ)));
        add("iss", &|| Some(text(token.iss)));
        add("aud", &|| Some(string_set(token.aud)));
        add("lifetime", &|| Some(RestrictedExpression::new_long(whole_seconds(token.lifetime))));
        add("scopes", &|| Some(string_set(token.scopes)));
        for (claim, &expected) in keyring.iter().flat_map(|keyring| &keyring.policy_claims) {
            if let Some(value) = token.claims.get(claim) {
                // Leaving a misshapen claim out would switch off every `forbid` that tests for it; so it denies, read or not.
                let value = expected.expression(value).ok_or_else(|| BadRequest::ClaimType { claim: claim.clone(), expected })?;
                if reads(claim) {
                    members.push((claim.clone(), value));
                }
            }
        }
    }
    Context::from_pairs(members).map_err(|error| BadRequest::Context(error.to_string()))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// Rounded up: a limit of 900 seconds is not kept by 900.5.
fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(span.subsec_nanos() > 0))
}

/// The one form of Cedar's `datetime` constructor that holds milliseconds.
fn cedar_time(time: Timestamp) -> String {
    DateTime::<Utc>::from_timestamp_millis(time.millis()).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}
