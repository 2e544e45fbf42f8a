//! The rules of a profile, one function each; every function adds what is broken and goes on.
//!
//! In scope: judging claims and caller-given header members. Out of scope: changing them.

use std::time::Duration;

use claviger_audit::Timestamp;
use serde_json::{Map, Value};

use super::{BrokenRule, Checked, JwsProfile, LONGEST_JTI, Profile, REFUSED_HEADER, Rule, whole_seconds};

type Claims = Map<String, Value>;

pub(super) fn check(profile: &Profile, claims: &Claims, header: Option<&Claims>, now: Timestamp) -> Result<Checked, Vec<BrokenRule>> {
    let mut broken = Broken::default();
    let checked = Checked {
        typ: profile.typ.clone(),
        iss: issuer(profile, claims, &mut broken),
        sub: subject(profile, claims, &mut broken),
        aud: audience(profile, claims, &mut broken),
        jti: token_id(claims, &mut broken),
        scopes: scopes(claims, &mut broken),
        ..times(profile, claims, now, &mut broken)
    };
    for name in &profile.required {
        if claims.get(name).is_none_or(Value::is_null) {
            broken.once(Rule::Missing, name, "this claim is required");
        }
    }
    for name in profile.forbidden.iter().filter(|name| claims.contains_key(*name)) {
        broken.add(Rule::Forbidden, name, "this claim is forbidden: anyone who holds the token can read it");
    }
    for (name, expected) in &profile.claim_types {
        if claims.get(name).is_some_and(|value| !expected.fits(value)) {
            broken.once(Rule::Type, name, &format!("this claim must be a {expected}"));
        }
    }
    let size = serde_json::to_string(claims).map_or(usize::MAX, |text| text.len());
    if size > profile.max_bytes {
        broken.add(Rule::TooLarge, "payload", &format!("the claims are {size} bytes long; at most {} are allowed", profile.max_bytes));
    }
    check_header(header, Some(&profile.typ), &[], &mut broken);
    broken.or(checked)
}

pub(super) fn check_payload(profile: &JwsProfile, bytes: usize, header: Option<&Claims>) -> Result<(), Vec<BrokenRule>> {
    let mut broken = Broken::default();
    if bytes > profile.max_bytes {
        broken.add(Rule::TooLarge, "payload", &format!("the payload is {bytes} bytes long; at most {} are allowed", profile.max_bytes));
    }
    check_header(header, profile.typ.as_deref(), &profile.content_types, &mut broken);
    broken.or(())
}

#[derive(Default)]
struct Broken(Vec<BrokenRule>);

impl Broken {
    fn add(&mut self, rule: Rule, path: &str, message: &str) {
        self.0.push(BrokenRule { rule, path: path.to_owned(), message: message.to_owned() });
    }

    /// Adds, unless the same rule was found broken at the same place: `required = ["exp"]` need not be told twice.
    fn once(&mut self, rule: Rule, path: &str, message: &str) {
        if !self.0.iter().any(|known| known.rule == rule && known.path == path) {
            self.add(rule, path, message);
        }
    }

    fn or<T>(self, good: T) -> Result<T, Vec<BrokenRule>> {
        if self.0.is_empty() { Ok(good) } else { Err(self.0) }
    }
}

/// RFC 8725 section 3.8: one issuer for one keyring.
fn issuer(profile: &Profile, claims: &Claims, broken: &mut Broken) -> String {
    match claims.get("iss") {
        Some(Value::String(iss)) if *iss == profile.issuer => {}
        Some(_) => broken.add(Rule::Issuer, "iss", &format!("must be {:?}, the issuer of this keyring", profile.issuer)),
        None => broken.add(Rule::Missing, "iss", "this claim is required"),
    }
    profile.issuer.clone()
}

fn subject(profile: &Profile, claims: &Claims, broken: &mut Broken) -> Option<String> {
    match (claims.get("sub"), &profile.subject_pattern) {
        (Some(Value::String(sub)), Some(pattern)) if !pattern.matches(sub) => {
            broken.add(Rule::Subject, "sub", &format!("must be of the form {pattern}"));
            None
        }
        (Some(Value::String(sub)), _) => Some(sub.clone()),
        (Some(_), _) => {
            broken.add(Rule::Type, "sub", "this claim must be a string");
            None
        }
        (None, Some(_)) => {
            broken.add(Rule::Missing, "sub", "this claim is required");
            None
        }
        (None, None) => None,
    }
}

/// RFC 7519 section 4.1.3 and RFC 8725 section 3.9: at least one allowed audience, and no other.
fn audience(profile: &Profile, claims: &Claims, broken: &mut Broken) -> Vec<String> {
    let Some(value) = claims.get("aud") else {
        if !profile.audiences.is_empty() {
            broken.add(Rule::Missing, "aud", "this claim is required");
        }
        return vec![];
    };
    let Some(audiences) = strings(value) else {
        broken.add(Rule::Type, "aud", "this claim must be a string or an array of strings");
        return vec![];
    };
    if audiences.is_empty() {
        broken.add(Rule::Audience, "aud", "names nobody: name at least one audience");
    }
    let others = audiences.iter().filter(|aud| !profile.audiences.contains(aud)).count();
    if others > 0 && !profile.audiences.is_empty() {
        let message = format!("{others} of {} are not allowed; this keyring signs for {}", audiences.len(), profile.audiences.join(", "));
        broken.add(Rule::Audience, "aud", &message);
    }
    audiences
}

fn token_id(claims: &Claims, broken: &mut Broken) -> String {
    match claims.get("jti") {
        Some(Value::String(jti)) if (1..=LONGEST_JTI).contains(&jti.len()) => return jti.clone(),
        Some(Value::String(_)) => broken.add(Rule::TokenId, "jti", "must have 1 to 256 bytes; leave it out and one is made"),
        Some(_) => broken.add(Rule::Type, "jti", "this claim must be a string"),
        None => broken.add(Rule::Missing, "jti", "this claim is required"),
    }
    String::new()
}

/// RFC 8693 section 4.2 (`scope`, words between spaces) and its common kin `scp`; both may also be arrays of strings.
fn scopes(claims: &Claims, broken: &mut Broken) -> Vec<String> {
    let mut words = Vec::new();
    for name in ["scope", "scp"] {
        match claims.get(name) {
            None => {}
            Some(value) => match strings(value) {
                Some(texts) => words.extend(texts.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::to_owned)),
                None => broken.add(Rule::Type, name, "this claim must be a string or an array of strings"),
            },
        }
    }
    words
}

/// The time claims; the other members of the result are empty.
fn times(profile: &Profile, claims: &Claims, now: Timestamp, broken: &mut Broken) -> Checked {
    let (now, skew, ttl) = (now.seconds(), whole_seconds(profile.clock_skew), whole_seconds(profile.token_ttl));
    let iat = time(claims, "iat", broken);
    let nbf = time(claims, "nbf", broken);
    let exp = time(claims, "exp", broken);
    for (name, value) in [("iat", iat), ("nbf", nbf)] {
        if value.is_some_and(|value| value.abs_diff(now) > skew.unsigned_abs()) {
            broken.add(Rule::NotNow, name, &format!("must lie within {skew} s of now ({now}); leave it out and it is set"));
        }
    }
    if let Some(exp) = exp {
        if exp <= now {
            broken.add(Rule::Expired, "exp", &format!("must lie after now ({now})"));
        }
        let latest = now.saturating_add(ttl);
        if exp > latest {
            broken.add(Rule::LivesTooLong, "exp", &format!("must be at most {latest}: a token of this keyring lives {ttl} s"));
        }
        if nbf.is_some_and(|nbf| exp <= nbf) {
            broken.add(Rule::ExpiresBeforeStart, "exp", "must lie after nbf");
        }
    }
    let exp = exp.unwrap_or_default();
    Checked {
        typ: String::new(),
        iss: String::new(),
        sub: None,
        aud: vec![],
        jti: String::new(),
        iat: iat.unwrap_or_default(),
        nbf: nbf.unwrap_or_default(),
        exp,
        lifetime: Duration::from_secs(u64::try_from(exp.saturating_sub(now)).unwrap_or(0)),
        scopes: vec![],
    }
}

/// `NumericDate` of RFC 7519 section 2, held to whole seconds: fractions are read differently by different verifiers.
fn time(claims: &Claims, name: &str, broken: &mut Broken) -> Option<i64> {
    match claims.get(name) {
        None => broken.add(Rule::Missing, name, "this claim is required"),
        Some(value) => match value.as_i64() {
            Some(seconds) => return Some(seconds),
            None => broken.add(Rule::Type, name, "this claim must be a whole number of seconds since 1970"),
        },
    }
    None
}

fn check_header(header: Option<&Claims>, typ: Option<&str>, content_types: &[String], broken: &mut Broken) {
    for (name, value) in header.into_iter().flatten() {
        let refusal = match name.as_str() {
            refused if REFUSED_HEADER.contains(&refused) => Some("a caller may not give this header parameter"),
            "typ" if value.as_str() != typ => Some("must be the typ of this keyring; leave it out and it is set"),
            "cty" if !value.as_str().is_some_and(|given| content_types.iter().any(|allowed| allowed == given)) => {
                Some("this content type is not allowed for this keyring")
            }
            _ => None,
        };
        if let Some(message) = refusal {
            broken.add(Rule::Header, &format!("header.{name}"), message);
        }
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
