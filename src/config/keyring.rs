//! Keyrings: what they sign, with what, and how their tokens look.
//!
//! In scope: one keyring, and which keyrings of one issuer could be confused. Out of scope: its times (`timing`), judging a token (the profile
//! does), Cedar's schema.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::event::Purpose;
use claviger_audit::timing::Timing;

use super::error::{Place, Problems};
use super::names;
use super::raw::{RawKeyring, RawProfile, RawTiming};
use super::timing;
use crate::policy::ClaimType;
use crate::policy::profile::{FORBIDDEN_BY_DEFAULT, Pattern};

/// Largest claims set of a `jwt` keyring in bytes, by default: tokens travel in HTTP headers, which servers commonly cap at 8 KiB.
pub const CLAIMS_BYTES: usize = 6 * 1024;
/// Largest payload of a `jws` keyring in bytes, by default: with base64 it fits into the default body of 64 KiB.
pub const PAYLOAD_BYTES: usize = 32 * 1024;
/// Most names in one list of a profile, and most claims with a type: each is looked at for every token.
const MOST_NAMES: usize = 256;

/// A keyring as the file has it. Algorithm and keystore are those of the *next* key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringConfig {
    /// Its name, never used again after it is retired.
    pub name: String,
    /// What it signs; fixed by its first event.
    pub purpose: Purpose,
    /// The name of its issuer: always there for `jwt`, never for `jws`.
    pub issuer: Option<String>,
    /// Of the next key.
    pub algorithm: Algorithm,
    /// Of the next key.
    pub keystore: String,
    /// The other keystore, if it has two: each key is made in the one in which the key that signs is not.
    pub standby_keystore: Option<String>,
    /// The claims that policies may read, with their Cedar types.
    pub policy_claims: BTreeMap<String, ClaimType>,
    /// What its tokens look like.
    pub profile: ProfileConfig,
    /// The settings of rotation.md; every inequality holds.
    pub timing: Timing,
}

/// What a token of a keyring looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    /// The header's `typ` (RFC 8725 section 3.11): always there for `jwt`.
    pub typ: Option<String>,
    /// The audiences that a token may name: at least one for `jwt`, none for `jws`.
    pub audiences: Vec<String>,
    /// Claims that must be there.
    pub required: Vec<String>,
    /// Claims that must not be there.
    pub forbidden: Vec<String>,
    /// The form of `sub`, in which `*` stands for any run of characters.
    pub subject_pattern: Option<Pattern>,
    /// Types of claims, those of `policy_claims` included.
    pub claim_types: BTreeMap<String, ClaimType>,
    /// Content types that a caller of a `jws` keyring may give as `cty`.
    pub content_types: Vec<String>,
    /// Largest claims set or payload, in bytes; never more than a request's body may have.
    pub max_bytes: usize,
}

/// What a keyring is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'c> {
    pub(super) audience: Option<&'c str>,
    pub(super) issuers: &'c [String],
    pub(super) keystores: &'c [String],
    pub(super) defaults: &'c RawTiming,
    pub(super) deadline: Duration,
    pub(super) body_bytes: usize,
}

/// Reads one keyring.
pub(super) fn keyring(name: &str, raw: RawKeyring, around: Surroundings<'_>, problems: &mut Problems<'_>) -> Option<KeyringConfig> {
    let at = Place::of("keyring").key(name);
    let label = names::label(name, &at, problems);
    let purpose = purpose(raw.purpose.as_deref(), &at.key("purpose"), problems);
    let algorithm = algorithm(raw.algorithm.as_deref(), &at.key("algorithm"), problems);
    let keystore = problems.required(raw.keystore.clone(), &at.key("keystore"), "name the keystore of its next key");
    if let Some(keystore) = &keystore {
        refers(keystore, "keystore", around.keystores, &at.key("keystore"), problems);
    }
    if let Some(other) = &raw.standby_keystore {
        let place = at.key("standby_keystore");
        refers(other, "keystore", around.keystores, &place, problems);
        if keystore.as_ref() == Some(other) {
            problems.add(&place, "is its keystore: what loses one key there loses the other too", "name another keystore, or remove it");
        }
    }
    let purpose = purpose?;
    let issuer = issuer(purpose, raw.issuer.clone(), around.issuers, &at.key("issuer"), problems);
    let timing = timing::timing(purpose, &raw, around.defaults, around.deadline, &at, problems);
    let policy_claims = claim_types(&raw.policy_claims, &at.key("policy_claims"), problems);
    if purpose == Purpose::Jws && !policy_claims.is_empty() {
        problems.add(&at.key("policy_claims"), "a jws keyring signs bytes, which have no claims", "remove it");
    }
    let profile = profile(purpose, raw.profile.unwrap_or_default(), &policy_claims, around, &at.key("profile"), problems);
    Some(KeyringConfig {
        name: label?,
        purpose,
        issuer,
        algorithm: algorithm?,
        keystore: keystore?,
        standby_keystore: raw.standby_keystore,
        policy_claims,
        profile: profile?,
        timing: timing?,
    })
}

/// RFC 8725 section 3.12: tokens of one issuer that mean different things must not pass for one another.
pub(super) fn refuse_confusable(keyrings: &BTreeMap<String, KeyringConfig>, problems: &mut Problems<'_>) {
    let all: Vec<&KeyringConfig> = keyrings.values().filter(|keyring| keyring.issuer.is_some()).collect();
    for (position, first) in all.iter().enumerate() {
        for second in all[position + 1..].iter().filter(|second| second.issuer == first.issuer) {
            // Media types are compared without regard to case (RFC 7515 section 4.1.9).
            let lower = |keyring: &KeyringConfig| keyring.profile.typ.as_ref().map(|typ| typ.to_ascii_lowercase());
            let shared = first.profile.audiences.iter().find(|audience| second.profile.audiences.contains(audience));
            if let Some(audience) = shared.filter(|_| lower(first) == lower(second)) {
                let place = Place::of("keyring").key(&second.name).key("profile").key("typ");
                let problem = format!("keyring {} of the same issuer has this typ too, and shares the audience {audience:?}", first.name);
                problems.add(&place, problem, "give one of them another typ, or audiences of its own (RFC 8725 section 3.12)");
            }
        }
    }
}

/// Says that a name that is referred to exists.
pub(super) fn refers(name: &str, what: &str, known: &[String], place: &Place, problems: &mut Problems<'_>) {
    if !known.iter().any(|other| other == name) {
        let remedy = if known.is_empty() { format!("add [{what}.{name}]") } else { format!("known are {}", known.join(", ")) };
        problems.add(place, format!("there is no {what} {name:?}"), remedy);
    }
}

fn purpose(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<Purpose> {
    match problems.required(text, place, "write \"jwt\" or \"jws\"")? {
        "jwt" => Some(Purpose::Jwt),
        "jws" => Some(Purpose::Jws),
        "digest" => {
            problems.add(place, "\"digest\" is not a purpose that this build has", "write \"jwt\" or \"jws\"");
            None
        }
        other => {
            problems.add(place, format!("{other:?} is not a purpose"), "write \"jwt\" or \"jws\"");
            None
        }
    }
}

fn algorithm(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<Algorithm> {
    let text = problems.required(text, place, "name the algorithm of its next key, such as \"ES256\"")?;
    let parsed = Algorithm::from_str(text).ok();
    if parsed.is_none() {
        let known: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        problems.add(place, format!("{text:?} is not an algorithm"), format!("known are {}", known.join(", ")));
    }
    parsed
}

fn issuer(purpose: Purpose, name: Option<String>, known: &[String], place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    match (purpose, name) {
        (Purpose::Jwt, None) => problems.required(None, place, "a jwt keyring names its issuer"),
        (Purpose::Jws, Some(_)) => {
            problems.add(place, "a jws keyring has no issuer: its keys are served in its own set alone", "remove it");
            None
        }
        (_, name) => name.inspect(|name| refers(name, "issuer", known, place, problems)),
    }
}

fn claim_types(raw: &BTreeMap<String, String>, at: &Place, problems: &mut Problems<'_>) -> BTreeMap<String, ClaimType> {
    if raw.len() > MOST_NAMES {
        problems.add(at, "has too many claims", format!("name at most {MOST_NAMES}"));
    }
    let mut types = BTreeMap::new();
    for (claim, text) in raw {
        match text.parse::<ClaimType>().ok() {
            Some(known) if !claim.is_empty() => {
                types.insert(claim.clone(), known);
            }
            _ => problems.add(&at.key(claim), format!("{text:?} is not the type of a claim"), "write String, Long, Bool or Set<String>"),
        }
    }
    types
}

fn profile(
    purpose: Purpose,
    raw: RawProfile,
    policy_claims: &BTreeMap<String, ClaimType>,
    around: Surroundings<'_>,
    at: &Place,
    problems: &mut Problems<'_>,
) -> Option<ProfileConfig> {
    refuse_misplaced(purpose, &raw, at, problems);
    let typ = typ(purpose, raw.typ, &at.key("typ"), problems);
    let audiences = raw.audiences.unwrap_or_default();
    if purpose == Purpose::Jwt {
        check_audiences(&audiences, around.audience, &at.key("audiences"), problems);
    }
    let required = raw.required.unwrap_or_default();
    let forbidden = raw.forbidden.unwrap_or_else(|| match purpose {
        Purpose::Jwt => FORBIDDEN_BY_DEFAULT.map(String::from).to_vec(),
        Purpose::Jws => Vec::new(),
    });
    for (list, name) in [(&audiences, "audiences"), (&required, "required"), (&forbidden, "forbidden")] {
        check_list(list, &at.key(name), problems);
    }
    if let Some(both) = required.iter().find(|claim| forbidden.contains(claim)) {
        problems.add(&at.key("required"), format!("{both:?} is forbidden too"), "remove it from one of the lists");
    }
    let subject_pattern = raw.subject_pattern.as_deref().map(str::parse::<Pattern>).transpose();
    let subject_pattern = subject_pattern.unwrap_or_else(|error| {
        problems.add(&at.key("subject_pattern"), "is not a pattern", error.to_string());
        None
    });
    let mut types = claim_types(&raw.claim_types.unwrap_or_default(), &at.key("claim_types"), problems);
    for (claim, kind) in policy_claims {
        if let Some(other) = types.insert(claim.clone(), *kind).filter(|other| other != kind) {
            problems.add(&at.key("claim_types").key(claim), format!("{other} here and {kind} in policy_claims"), "write one type");
        }
    }
    let default = if purpose == Purpose::Jwt { CLAIMS_BYTES } else { PAYLOAD_BYTES };
    let most = i64::try_from(around.body_bytes).unwrap_or(i64::MAX);
    let max_bytes = names::number(raw.max_bytes, (1, most), default.min(around.body_bytes), &at.key("max_bytes"), problems);
    Some(ProfileConfig {
        typ: typ?,
        audiences,
        required,
        forbidden,
        subject_pattern,
        claim_types: types,
        content_types: raw.content_types.unwrap_or_default(),
        max_bytes,
    })
}

/// Rules that would never be applied are errors: somebody relies on them.
fn refuse_misplaced(purpose: Purpose, raw: &RawProfile, at: &Place, problems: &mut Problems<'_>) {
    let of_claims = [
        ("audiences", raw.audiences.is_some()),
        ("required", raw.required.is_some()),
        ("forbidden", raw.forbidden.is_some()),
        ("subject_pattern", raw.subject_pattern.is_some()),
        ("claim_types", raw.claim_types.is_some()),
    ];
    for (name, _) in of_claims.into_iter().filter(|(_, given)| *given && purpose == Purpose::Jws) {
        problems.add(&at.key(name), "a jws keyring signs bytes, which have no claims", "remove it");
    }
    if raw.content_types.is_some() && purpose == Purpose::Jwt {
        problems.add(&at.key("content_types"), "is for jws keyrings", "remove it");
    }
}

/// The outer `None` is an error, the inner one a `jws` keyring without a type.
#[expect(clippy::option_option, reason = "whether the value is wrong and whether it is there are two questions")]
fn typ(purpose: Purpose, text: Option<String>, place: &Place, problems: &mut Problems<'_>) -> Option<Option<String>> {
    if purpose == Purpose::Jwt {
        problems.required(text.as_ref(), place, "write the type of its tokens, such as \"at+jwt\" (RFC 8725 section 3.11)")?;
    }
    let restricted = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+/".contains(&byte);
    let well_formed = |typ: &String| (1..=127).contains(&typ.len()) && typ.bytes().all(restricted);
    let prefixed = |typ: &String| typ.to_ascii_lowercase().starts_with("application/");
    if let Some(typ) = text.as_ref().filter(|typ| !well_formed(typ) || prefixed(typ)) {
        // RFC 7515 section 4.1.9: the prefix is left out.
        problems.add(place, format!("{typ:?} is not a type"), "write a media type without \"application/\", such as \"at+jwt\"");
        return None;
    }
    Some(text)
}

fn check_audiences(audiences: &[String], own: Option<&str>, place: &Place, problems: &mut Problems<'_>) {
    if audiences.is_empty() {
        problems.add(place, "a jwt keyring must name whom its tokens are for", "list at least one audience");
    }
    if audiences.iter().any(|audience| Some(audience.as_str()) == own) {
        let problem = format!("{:?} is Claviger's own audience: whoever may sign could mint an operator", own.unwrap_or_default());
        problems.add(place, problem, "remove it");
    }
}

fn check_list(list: &[String], place: &Place, problems: &mut Problems<'_>) {
    if list.len() > MOST_NAMES {
        problems.add(place, format!("has {} items", list.len()), format!("list at most {MOST_NAMES}"));
        return;
    }
    for (index, item) in list.iter().enumerate() {
        if item.is_empty() || item.chars().any(char::is_control) {
            problems.add(&place.index(index), "is empty or holds a control character", "write a name");
        } else if list[..index].contains(item) {
            problems.add(&place.index(index), format!("{item:?} stands here twice"), "remove one");
        }
    }
}
