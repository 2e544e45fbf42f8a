//! From what a caller sent to what would be signed: add what is absent, then check everything.
//!
//! In scope: claims, payloads, headers, the facts that policies see. Out of scope: deciding and signing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_audit::merkle::Hash;
use claviger_audit::{Algorithm, Timestamp};
use serde_json::{Map, Value};

use super::rules::{KeyringRules, Rules, Shape};
use super::{Ask, Reply};
use crate::jose::{Protected, SigningInput};
use crate::journal::Receipt;
use crate::policy::{self, Action, Caller, Checked, DecisionRequest, Explanation, JwsProfile, Origin, Profile, Resource, TokenFacts};
use crate::refusal::{BrokenRule, Code, Refusal};

/// Random bytes of a token id that Claviger makes: 128 bits, so that the recorded hash of a signing input cannot be guessed.
const TOKEN_ID_BYTES: usize = 16;

/// What is to be signed.
#[derive(Clone, Debug)]
pub enum Content {
    /// For `jwt` keyrings.
    Claims(Map<String, Value>),
    /// For `jws` keyrings.
    Payload {
        /// The payload.
        bytes: Vec<u8>,
        /// Whether it is left out of the result (RFC 7515 appendix F).
        detached: bool,
        /// `false`: it is signed as it is (RFC 7797), and left out of the result.
        encode: bool,
    },
}

/// A signing request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The keyring.
    pub keyring: String,
    /// What is to be signed.
    pub content: Content,
    /// Header members that the caller wants; the profile says which it may.
    pub header: Option<Map<String, Value>>,
}

/// What a dry run found.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The claims that would be signed; `None` for a payload.
    pub claims: Option<Map<String, Value>>,
    /// Every broken rule.
    pub broken: Vec<BrokenRule>,
    /// Whether policies permit it; judged only if no rule is broken.
    pub permitted: Option<bool>,
}

/// A request that keeps its profile.
pub(super) struct Prepared {
    payload: Vec<u8>,
    claims: Map<String, Value>,
    checked: Option<Checked>,
    header: Map<String, Value>,
    detached: bool,
    encode: bool,
    lifetime: std::time::Duration,
    pub(super) typ: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) iat: Option<i64>,
    pub(super) exp: i64,
}

/// The actions that policies must permit: an item of a batch needs both.
pub(super) fn actions(batch: bool) -> &'static [Action] {
    if batch { &[Action::Sign, Action::SignBatch] } else { &[Action::Sign] }
}

/// Adds what is absent and checks everything; fails with every broken rule.
pub(super) fn prepare(keyring: &KeyringRules, request: Request, now: Timestamp) -> Result<Prepared, Refusal> {
    match (&keyring.shape, request.content) {
        (Shape::Jwt(profile), Content::Claims(claims)) => prepare_jwt(profile, claims, request.header, now),
        (Shape::Jws(profile), Content::Payload { bytes, detached, encode }) => {
            let prepared = prepare_jws(profile, bytes, request.header, (detached, encode))?;
            let exp = (now + keyring.token_life).seconds();
            Ok(Prepared { exp, lifetime: keyring.token_life, ..prepared })
        }
        (Shape::Jwt(_), Content::Payload { .. }) => Err(wrong_content("this keyring signs claims; send `claims`")),
        (Shape::Jws(_), Content::Claims(_)) => Err(wrong_content("this keyring signs payloads; send `payload`, base64url")),
    }
}

/// What `prepare` and the policies would say, without signing.
pub(super) fn dry_run(keyring: &KeyringRules, rules: &Rules, ask: &Ask, request: Request, now: Timestamp) -> DryRun {
    let completed = match (&keyring.shape, &request.content) {
        (Shape::Jwt(profile), Content::Claims(claims)) => Some(profile.complete(claims.clone(), now, "(random)".to_owned())),
        _ => None,
    };
    let prepared = match prepare(keyring, request, now) {
        Ok(prepared) => prepared,
        Err(refusal) => return DryRun { claims: completed, broken: refusal.broken, permitted: None },
    };
    let facts = prepared.facts();
    let permitted = rules.policies.as_ref().map(|policies| {
        actions(ask.batch).iter().all(|action| {
            let resource = Resource::Keyring(&keyring.name);
            let (caller, origin) = (&ask.caller, &ask.origin);
            policies.decide(&DecisionRequest { caller, action: *action, resource, origin, time: now, token: Some(&facts) }).allowed()
        })
    });
    DryRun { claims: completed, broken: Vec::new(), permitted }
}

/// What a dry run would find by files alone, without a daemon.
pub fn offline_dry_run(rules: &Rules, ask: &Ask, request: Request, now: Timestamp) -> Result<DryRun, Refusal> {
    let keyring = offline_keyring(rules, &request.keyring)?;
    Ok(dry_run(keyring, rules, ask, request, now))
}

/// Which policies decide, by files alone; for the actions that sign, on the very claims that would be signed.
pub fn offline_explanation(
    rules: &Rules,
    caller: &Caller,
    keyring: &str,
    action: Action,
    claims: Map<String, Value>,
    now: Timestamp,
) -> Result<Explanation, Refusal> {
    let policies = rules.policies.as_ref().ok_or_else(|| Refusal::new(Code::PolicyInvalid, "the policies could not be loaded"))?;
    let (resource, origin) = (Resource::Keyring(keyring), Origin::default());
    let request = DecisionRequest { caller, action, resource, origin: &origin, time: now, token: None };
    if !action.signs() {
        return Ok(policies.explain(&request));
    }
    let signed = Request { keyring: keyring.to_owned(), content: Content::Claims(claims), header: None };
    let prepared = prepare(offline_keyring(rules, keyring)?, signed, now)?;
    Ok(policies.explain(&DecisionRequest { token: Some(&prepared.facts()), ..request }))
}

fn offline_keyring<'a>(rules: &'a Rules, name: &str) -> Result<&'a KeyringRules, Refusal> {
    let unknown = || Refusal::new(Code::UnknownKeyring, format!("no keyring of the configuration is called {name:?}"));
    rules.keyrings.get(name).ok_or_else(unknown)
}

fn prepare_jwt(
    profile: &Profile,
    claims: Map<String, Value>,
    header: Option<Map<String, Value>>,
    now: Timestamp,
) -> Result<Prepared, Refusal> {
    let claims = profile.complete(claims, now, token_id()?);
    let checked = profile.check(&claims, header.as_ref(), now).map_err(broken)?;
    Ok(Prepared {
        payload: serde_json::to_vec(&claims).map_err(|error| wrong_content(&error.to_string()))?,
        claims,
        header: Map::new(),
        detached: false,
        encode: true,
        lifetime: checked.lifetime,
        typ: Some(checked.typ.clone()),
        subject: checked.sub.clone(),
        iat: Some(checked.iat),
        exp: checked.exp,
        checked: Some(checked),
    })
}

fn prepare_jws(
    profile: &JwsProfile,
    payload: Vec<u8>,
    header: Option<Map<String, Value>>,
    (detached, encode): (bool, bool),
) -> Result<Prepared, Refusal> {
    profile.check(payload.len(), header.as_ref()).map_err(broken)?;
    let mut header = header.unwrap_or_default();
    header.remove("typ");
    Ok(Prepared {
        payload,
        claims: Map::new(),
        checked: None,
        header,
        detached,
        encode,
        lifetime: std::time::Duration::ZERO,
        typ: profile.typ.clone(),
        subject: None,
        iat: None,
        exp: 0,
    })
}

impl Prepared {
    pub(super) fn signing_input(&self, kid: &str, algorithm: Algorithm) -> SigningInput {
        let protected =
            Protected { algorithm, kid: kid.to_owned(), typ: self.typ.clone(), more: self.header.clone(), encode_payload: self.encode };
        SigningInput::new(&protected, &self.payload, self.detached)
    }

    /// SHA-256 of the token id, for the record.
    pub(super) fn jti_hash(&self) -> Option<Hash> {
        let checked = self.checked.as_ref()?;
        Some(Hash::digest(checked.jti.as_bytes()))
    }

    /// What policies see.
    pub(super) fn facts(&self) -> TokenFacts<'_> {
        match &self.checked {
            Some(checked) => checked.facts(&self.claims),
            None => TokenFacts {
                typ: self.typ.as_deref().unwrap_or_default(),
                iss: "",
                aud: &[],
                lifetime: self.lifetime,
                scopes: &[],
                claims: &self.claims,
            },
        }
    }

    pub(super) fn reply(&self, token: String, kid: &str, algorithm: Algorithm, receipt: Receipt) -> Reply {
        let jti = self.checked.as_ref().map(|checked| checked.jti.clone());
        Reply { token, kid: kid.to_owned(), algorithm, jti, iat: self.iat, exp: self.exp, receipt }
    }
}

fn token_id() -> Result<String, Refusal> {
    let mut bytes = [0; TOKEN_ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::new(Code::NotReady, "the system has no randomness to give; ask again"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn wrong_content(detail: &str) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}

fn broken(rules: Vec<policy::BrokenRule>) -> Refusal {
    let mut refusal = Refusal::new(Code::Profile, "the token would break its keyring's profile; `broken` names every rule");
    let rules = rules.into_iter().map(|b| BrokenRule { rule: b.rule.code().to_owned(), claim: b.path, detail: b.message });
    refusal.broken = rules.collect();
    refusal
}
