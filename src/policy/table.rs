//! Tests that operators write: tables of questions and the answers that they expect, in TOML beside the policies.
//!
//! In scope: reading a table and running it against policy text. Out of scope: finding the files, and printing results.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use claviger_audit::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::caller::{BadCaller, Caller, CallerAttributes, Identity};
use super::engine::{Decision, PolicySet};
use super::load::PolicyErrors;
use super::request::{DecisionRequest, Origin, Resource, TokenFacts};
use super::vocabulary::{Action, ClaimType, KeyringFacts, Purpose, Vocabulary};

/// Most cases of one table: `policy test` answers while somebody waits.
pub const MOST_CASES: usize = 10_000;
/// What a case asks for unless it says otherwise: five minutes.
const DEFAULT_LIFETIME_SECONDS: u64 = 300;

/// A table of cases, with the keyrings and callers that they speak of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Keyrings by name; they stand in for those of the configuration that have the same name.
    #[serde(default, rename = "keyring")]
    keyrings: BTreeMap<String, TableKeyring>,
    /// Callers by identity; likewise.
    #[serde(default, rename = "caller")]
    callers: BTreeMap<String, TableCaller>,
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableKeyring {
    #[serde(default)]
    purpose: TablePurpose,
    issuer: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    policy_claims: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TablePurpose {
    #[default]
    Jwt,
    Jws,
    Digest,
}

#[derive(Debug, Deserialize)]
struct TableCaller {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(flatten)]
    other: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    /// The caller's identity.
    #[serde(rename = "as")]
    caller: String,
    action: String,
    /// None: the installation.
    keyring: Option<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    typ: Option<String>,
    /// Seconds.
    lifetime: Option<u64>,
    source_address: Option<IpAddr>,
    user_agent: Option<String>,
    time: Option<String>,
    gid: Option<u32>,
    expect: Expect,
    /// The policies that must decide, in the order of the files; none: not looked at.
    by: Option<Vec<String>>,
    /// The refusal's code; none: not looked at.
    code: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// Its name, or what it asks.
    pub name: String,
    /// The answer that the policies gave.
    pub decision: Decision,
    /// What differs from what was expected; none: the case passed.
    pub difference: Option<String>,
}

/// A table that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The text is not a table.
    #[error("not a table of policy tests: {0}")]
    Syntax(String),
    /// A caller cannot exist.
    #[error(transparent)]
    Caller(#[from] BadCaller),
    /// Something in a case, or in a keyring, has no meaning.
    #[error("{place}: {why}")]
    Meaning {
        /// The case or the keyring.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The policies do not load with the table's keyrings and callers.
    #[error(transparent)]
    Policies(#[from] PolicyErrors),
}

impl Table {
    /// Reads a table. Unknown settings are errors, and so is a table without a case: it would pass whatever the policies say.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let table: Self = toml::from_str(text).map_err(|error| TableError::Syntax(error.to_string()))?;
        match table.cases.len() {
            0 => Err(TableError::Syntax("it holds no [[case]]".into())),
            1..=MOST_CASES => Ok(table),
            more => Err(TableError::Syntax(format!("{more} cases; at most {MOST_CASES} are allowed"))),
        }
    }

    /// Runs every case against policy files. `vocabulary` and `callers` are the configuration's; the table's own come before them. `now` is the
    /// time of the cases that give none.
    pub fn run(
        &self,
        files: &[(String, String)],
        vocabulary: &Vocabulary,
        callers: &BTreeMap<String, CallerAttributes>,
        now: Timestamp,
    ) -> Result<Vec<CaseResult>, TableError> {
        let mut callers = callers.clone();
        for (id, caller) in &self.callers {
            callers.insert(id.parse::<Identity>()?.to_string(), CallerAttributes::new(caller.groups.clone(), caller.other.clone())?);
        }
        let vocabulary = self.vocabulary(vocabulary, &callers)?;
        let set = PolicySet::load(files, &vocabulary)?;
        self.cases.iter().enumerate().map(|(index, case)| case.run(index, &set, &vocabulary, &callers, now)).collect()
    }

    fn vocabulary(&self, base: &Vocabulary, callers: &BTreeMap<String, CallerAttributes>) -> Result<Vocabulary, TableError> {
        let mut keyrings: Vec<KeyringFacts> =
            base.keyrings.iter().filter(|facts| !self.keyrings.contains_key(&facts.name)).cloned().collect();
        for (name, keyring) in &self.keyrings {
            keyrings.push(keyring.facts(name)?);
        }
        let names = callers.values().flat_map(CallerAttributes::names).map(str::to_owned);
        let caller_attributes: BTreeSet<String> = base.caller_attributes.iter().cloned().chain(names).collect();
        Ok(Vocabulary { keyrings, caller_attributes })
    }
}

impl TableKeyring {
    fn facts(&self, name: &str) -> Result<KeyringFacts, TableError> {
        let mut policy_claims = BTreeMap::new();
        for (claim, kind) in &self.policy_claims {
            let meaning = |error: super::vocabulary::UnknownClaimType| meaning(&format!("keyring {name}"), &error);
            policy_claims.insert(claim.clone(), kind.parse::<ClaimType>().map_err(meaning)?);
        }
        let purpose = match self.purpose {
            TablePurpose::Jwt => Purpose::Jwt,
            TablePurpose::Jws => Purpose::Jws,
            TablePurpose::Digest => Purpose::Digest,
        };
        Ok(KeyringFacts { name: name.into(), purpose, issuer: self.issuer.clone(), audiences: self.audiences.clone(), policy_claims })
    }
}

impl Case {
    fn run(
        &self,
        index: usize,
        set: &PolicySet,
        vocabulary: &Vocabulary,
        callers: &BTreeMap<String, CallerAttributes>,
        now: Timestamp,
    ) -> Result<CaseResult, TableError> {
        let name = self.name.clone().unwrap_or_else(|| format!("{}: {} {}", index + 1, self.caller, self.action));
        let action: Action = self.action.parse().map_err(|error: super::vocabulary::UnknownAction| meaning(&name, &error))?;
        let resource = self.keyring.as_deref().map_or(Resource::Installation, Resource::Keyring);
        let facts = vocabulary.keyrings.iter().find(|facts| Some(&facts.name) == self.keyring.as_ref());
        if self.keyring.is_some() && facts.is_none() {
            return Err(meaning(&name, &"this keyring is neither in the configuration nor in the table"));
        }
        let caller = self.caller(callers)?;
        let origin = Origin { source_address: self.source_address, user_agent: self.user_agent.clone() };
        let time = match &self.time {
            Some(text) => text.parse().map_err(|error: claviger_audit::time::BadTimestamp| meaning(&name, &error))?,
            None => now,
        };
        let (aud, scopes) =
            (words(self.claims.get("aud"), false), [self.claims.get("scope"), self.claims.get("scp")].map(|c| words(c, true)).concat());
        let issuer = facts.and_then(|facts| facts.issuer.as_deref()).unwrap_or_default();
        let token = TokenFacts {
            typ: self.typ.as_deref().unwrap_or_default(),
            iss: self.claims.get("iss").and_then(Value::as_str).unwrap_or(issuer),
            aud: &aud,
            lifetime: Duration::from_secs(self.lifetime.unwrap_or(DEFAULT_LIFETIME_SECONDS)),
            scopes: &scopes,
            claims: &self.claims,
        };
        let request = DecisionRequest { caller: &caller, action, resource, origin: &origin, time, token: Some(&token) };
        let decision = set.decide(&request);
        let difference = self.difference(&decision);
        Ok(CaseResult { name, decision, difference })
    }

    fn caller(&self, callers: &BTreeMap<String, CallerAttributes>) -> Result<Caller, TableError> {
        let identity: Identity = self.caller.parse()?;
        let none = CallerAttributes::default();
        let attributes = callers.get(&identity.to_string()).unwrap_or(&none);
        Ok(match (&identity, self.gid) {
            (&Identity::Unix(uid), Some(gid)) => Caller::unix(uid, gid, attributes),
            _ => Caller::new(identity, attributes),
        })
    }

    fn difference(&self, decision: &Decision) -> Option<String> {
        let got = if decision.allowed() { Expect::Allow } else { Expect::Deny };
        if got != self.expect {
            let why = decision.determining.iter().chain(&decision.errors).cloned().collect::<Vec<_>>().join("; ");
            let why = if why.is_empty() { "no permit matched".to_owned() } else { why };
            return Some(format!("expected {}, got {} ({why})", word(self.expect), word(got)));
        }
        if let Some(by) = self.by.as_ref().filter(|by| **by != decision.determining) {
            return Some(format!("expected to be decided by [{}], was by [{}]", by.join(", "), decision.determining.join(", ")));
        }
        let code = self.code.as_deref().filter(|&code| decision.code() != Some(code))?;
        Some(format!("expected code {code}, got {}", decision.code().unwrap_or("none")))
    }
}

fn word(expect: Expect) -> &'static str {
    match expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
    }
}

fn meaning(place: &str, why: &dyn std::fmt::Display) -> TableError {
    TableError::Meaning { place: place.to_owned(), why: why.to_string() }
}

/// A claim that is a string or an array of strings, as its members; `split` at spaces for scopes.
fn words(claim: Option<&Value>, split: bool) -> Vec<String> {
    let texts: Vec<&str> = match claim {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if split {
        texts.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::to_owned).collect()
    } else {
        texts.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests;
