//! The words that policies are written in: actions, what they know of keyrings, and the schema, extended by what the configuration declares.
//!
//! In scope: [`Action`], [`KeyringFacts`], [`ClaimType`], the Cedar schema and the Cedar names of things. Out of scope: policies themselves,
//! and reading the configuration.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema, SchemaFragment};
use serde_json::{Map, Value, json};

/// The schema of this version, before the configuration's own attributes. Requests are built to fit it, so it is part of the program.
pub const SCHEMA: &str = include_str!("../../policies/claviger.cedarschema");

/// What every caller has; the configuration may not redefine it.
pub(super) const CALLER_ATTRIBUTES: [&str; 5] = ["id", "kind", "groups", "uid", "gid"];
/// What every request for a signature has; a policy claim may not be called so.
pub(super) const CONTEXT_ATTRIBUTES: [&str; 8] = ["sourceAddress", "userAgent", "time", "typ", "iss", "aud", "lifetime", "scopes"];
/// Longest name of a policy claim in bytes: it is copied into every request.
const LONGEST_CLAIM_NAME: usize = 128;

/// What a caller may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// One signature.
    Sign,
    /// Several signatures in one request; each item needs [`Action::Sign`] too.
    SignBatch,
    /// See a keyring's state and plan.
    ReadKeyring,
    /// Read the logs.
    ReadLog,
    /// Rotate on demand.
    Rotate,
    /// Declare a key compromised.
    Compromise,
    /// Stop signing, reversibly.
    Suspend,
    /// Go on signing.
    Resume,
    /// Give up a key that was never active.
    Abandon,
    /// Destroy a withdrawn key in its keystore.
    Destroy,
    /// End a keyring.
    Retire,
    /// Agree to a verb that somebody else proposed.
    Approve,
    /// Accept a clock that was stepped.
    ConfirmClock,
    /// Load policies and configuration again.
    ReloadPolicy,
    /// Give a log another key, destroy the key of a year's pseudonyms, delete old segments.
    MaintainLog,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 15] = [
        Self::Sign,
        Self::SignBatch,
        Self::ReadKeyring,
        Self::ReadLog,
        Self::Rotate,
        Self::Compromise,
        Self::Suspend,
        Self::Resume,
        Self::Abandon,
        Self::Destroy,
        Self::Retire,
        Self::Approve,
        Self::ConfirmClock,
        Self::ReloadPolicy,
        Self::MaintainLog,
    ];

    /// The name in policies and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::SignBatch => "signBatch",
            Self::ReadKeyring => "readKeyring",
            Self::ReadLog => "readLog",
            Self::Rotate => "rotate",
            Self::Compromise => "compromise",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Abandon => "abandon",
            Self::Destroy => "destroy",
            Self::Retire => "retire",
            Self::Approve => "approve",
            Self::ConfirmClock => "confirmClock",
            Self::ReloadPolicy => "reloadPolicy",
            Self::MaintainLog => "maintainLog",
        }
    }

    /// Whether the action asks for a signature, so that its context holds the claims.
    pub fn signs(self) -> bool {
        matches!(self, Self::Sign | Self::SignBatch)
    }

    /// Whether the action can be asked of a keyring. [`Action::Approve`] can be asked of both.
    pub fn concerns_keyring(self) -> bool {
        !matches!(self, Self::ReadLog | Self::ConfirmClock | Self::ReloadPolicy | Self::MaintainLog)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an action; policies/README.md lists them")]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// The type of a claim, written as Cedar writes it. Numbers are whole: Cedar has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimType {
    /// `String`.
    String,
    /// `Long`: a whole number of 64 bits.
    Long,
    /// `Bool`.
    Bool,
    /// `Set<String>`: an array of strings.
    StringSet,
}

/// The text is no claim type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a claim type: write String, Long, Bool or Set<String>")]
pub struct UnknownClaimType(String);

impl FromStr for ClaimType {
    type Err = UnknownClaimType;

    fn from_str(text: &str) -> Result<Self, UnknownClaimType> {
        [Self::String, Self::Long, Self::Bool, Self::StringSet]
            .into_iter()
            .find(|known| known.to_string() == text)
            .ok_or_else(|| UnknownClaimType(text.to_owned()))
    }
}

impl fmt::Display for ClaimType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "String",
            Self::Long => "Long",
            Self::Bool => "Bool",
            Self::StringSet => "Set<String>",
        })
    }
}

impl ClaimType {
    /// Whether a JSON value is of this type.
    pub fn fits(self, value: &Value) -> bool {
        self.expression(value).is_some()
    }

    pub(super) fn expression(self, value: &Value) -> Option<RestrictedExpression> {
        match self {
            Self::String => value.as_str().map(|text| RestrictedExpression::new_string(text.to_owned())),
            Self::Long => value.as_i64().map(RestrictedExpression::new_long),
            Self::Bool => value.as_bool().map(RestrictedExpression::new_bool),
            Self::StringSet => {
                let member = |item: &Value| item.as_str().map(|text| RestrictedExpression::new_string(text.to_owned()));
                value.as_array()?.iter().map(member).collect::<Option<Vec<_>>>().map(RestrictedExpression::new_set)
            }
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::StringSet => json!({ "type": "Set", "element": { "type": "String" }, "required": false }),
            Self::Long => json!({ "type": "Long", "required": false }),
            Self::Bool => json!({ "type": "Boolean", "required": false }),
            Self::String => json!({ "type": "String", "required": false }),
        }
    }
}

/// What a keyring signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Claims in, a compact JWT out.
    Jwt,
    /// Payload bytes in, a JWS out.
    Jws,
    /// A digest in, a raw signature out.
    Digest,
}

impl Purpose {
    /// The name in policies and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Jws => "jws",
            Self::Digest => "digest",
        }
    }
}

/// What policies know of a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringFacts {
    /// Its name.
    pub name: String,
    /// What it signs.
    pub purpose: Purpose,
    /// The URL that stands in `iss`, if the keyring has an issuer.
    pub issuer: Option<String>,
    /// The audiences that its profile allows.
    pub audiences: Vec<String>,
    /// The claims that policies may read, with their types.
    pub policy_claims: BTreeMap<String, ClaimType>,
}

/// Everything that policies may name: the keyrings, and the attributes that the configuration gives to callers.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// Every keyring that lives: those of the configuration, and those that only the log still knows.
    pub keyrings: Vec<KeyringFacts>,
    /// The names of the callers' attributes beside `groups`; all are strings.
    pub caller_attributes: BTreeSet<String>,
}

/// The configuration declares something that policies cannot name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVocabulary {
    /// A policy claim is called like an attribute that every request has.
    #[error("keyring {keyring}: policy claim {claim:?} is called like an attribute that every request has; policies read that one already")]
    Taken {
        /// The keyring that declares it.
        keyring: String,
        /// The claim.
        claim: String,
    },
    /// A claim's name is empty or too long.
    #[error("keyring {keyring}: policy claim {claim:?} has no name of 1 to 128 bytes")]
    BadName {
        /// The keyring that declares it.
        keyring: String,
        /// The claim.
        claim: String,
    },
    /// Two keyrings give one claim different types.
    #[error("keyring {keyring}: policy claim {claim:?} is {here} here and {there} in another keyring; a policy reads it as one type")]
    TwoTypes {
        /// The keyring that was read second.
        keyring: String,
        /// The claim.
        claim: String,
        /// Its type in that keyring.
        here: ClaimType,
        /// Its type in the keyring that was read first.
        there: ClaimType,
    },
    /// A keyring is listed twice.
    #[error("keyring {0} is listed twice")]
    Twice(String),
    /// The configuration gives callers an attribute that every caller has already.
    #[error("caller attribute {0:?} is called like one that every caller has")]
    CallerAttribute(String),
    /// Cedar refuses the extended schema.
    #[error("the extended policy schema is not valid: {0}")]
    Schema(String),
}

impl Vocabulary {
    /// The schema that policies are validated against, in Cedar's own notation: for editors and `policy check`.
    pub fn schema_text(&self) -> Result<String, BadVocabulary> {
        self.fragment()?.to_cedarschema().map_err(|error| BadVocabulary::Schema(error.to_string()))
    }

    pub(super) fn schema(&self) -> Result<Schema, BadVocabulary> {
        Schema::from_schema_fragments([self.fragment()?]).map_err(|error| BadVocabulary::Schema(error.to_string()))
    }

    fn fragment(&self) -> Result<SchemaFragment, BadVocabulary> {
        let refuse = |error: &dyn fmt::Display| BadVocabulary::Schema(error.to_string());
        let (base, _) = SchemaFragment::from_cedarschema_str(SCHEMA).map_err(|error| refuse(&error))?;
        let mut schema = base.to_json_value().map_err(|error| refuse(&error))?;
        let callers = schema.pointer_mut("//entityTypes/Caller/shape/attributes").and_then(Value::as_object_mut);
        self.extend_callers(callers.expect("the schema of this version declares Caller"))?;
        let context = schema.pointer_mut("//commonTypes/TokenContext/attributes").and_then(Value::as_object_mut);
        self.extend_context(context.expect("the schema of this version declares TokenContext"))?;
        SchemaFragment::from_json_value(schema).map_err(|error| refuse(&error))
    }

    fn extend_callers(&self, attributes: &mut Map<String, Value>) -> Result<(), BadVocabulary> {
        for name in &self.caller_attributes {
            if CALLER_ATTRIBUTES.contains(&name.as_str()) {
                return Err(BadVocabulary::CallerAttribute(name.clone()));
            }
            attributes.insert(name.clone(), ClaimType::String.schema());
        }
        Ok(())
    }

    fn extend_context(&self, attributes: &mut Map<String, Value>) -> Result<(), BadVocabulary> {
        let mut seen: BTreeMap<&str, ClaimType> = BTreeMap::new();
        let mut names = HashSet::new();
        for keyring in &self.keyrings {
            if !names.insert(keyring.name.as_str()) {
                return Err(BadVocabulary::Twice(keyring.name.clone()));
            }
            for (claim, &here) in &keyring.policy_claims {
                let (keyring, claim) = (keyring.name.clone(), claim.clone());
                if CONTEXT_ATTRIBUTES.contains(&claim.as_str()) {
                    return Err(BadVocabulary::Taken { keyring, claim });
                }
                if claim.is_empty() || claim.len() > LONGEST_CLAIM_NAME {
                    return Err(BadVocabulary::BadName { keyring, claim });
                }
                if let Some(&there) = seen.get(claim.as_str()).filter(|&&there| there != here) {
                    return Err(BadVocabulary::TwoTypes { keyring, claim, here, there });
                }
                attributes.insert(claim, here.schema());
            }
            seen.extend(keyring.policy_claims.iter().map(|(claim, &kind)| (claim.as_str(), kind)));
        }
        Ok(())
    }
}

impl KeyringFacts {
    pub(super) fn entity(&self) -> Entity {
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let members = HashMap::from([
            ("name".to_owned(), text(&self.name)),
            ("purpose".to_owned(), text(self.purpose.as_str())),
            ("issuer".to_owned(), text(self.issuer.as_deref().unwrap_or_default())),
            ("audiences".to_owned(), string_set(&self.audiences)),
        ]);
        Entity::new(keyring_uid(&self.name), members, HashSet::new()).expect("strings and sets of strings always evaluate")
    }
}

pub(super) fn string_set(items: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(items.iter().map(|item| RestrictedExpression::new_string(item.clone())))
}

pub(super) fn caller_uid(id: &str) -> EntityUid {
    entity_uid("Caller", id)
}

pub(super) fn keyring_uid(name: &str) -> EntityUid {
    entity_uid("Keyring", name)
}

pub(super) fn installation_uid() -> EntityUid {
    entity_uid("Installation", "self")
}

pub(super) fn action_uid(action: Action) -> EntityUid {
    entity_uid("Action", action.as_str())
}

fn entity_uid(kind: &str, id: &str) -> EntityUid {
    let kind = EntityTypeName::from_str(kind).expect("the entity types are plain identifiers");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(name: &str, claims: &[(&str, ClaimType)]) -> KeyringFacts {
        let policy_claims = claims.iter().map(|&(claim, kind)| (claim.to_owned(), kind)).collect();
        KeyringFacts { name: name.into(), purpose: Purpose::Jwt, issuer: None, audiences: vec![], policy_claims }
    }

    #[test]
    fn the_schema_declares_exactly_the_actions() {
        let schema = Vocabulary::default().schema().unwrap();
        let declared: BTreeSet<String> = schema.actions().map(ToString::to_string).collect();
        let known: BTreeSet<String> = Action::ALL.iter().map(|&action| action_uid(action).to_string()).collect();
        assert_eq!(declared, known);
    }

    #[test]
    fn the_taken_names_are_those_of_the_schema() {
        let (fragment, _) = SchemaFragment::from_cedarschema_str(SCHEMA).unwrap();
        let schema = fragment.to_json_value().unwrap();
        let names = |path: &str| schema.pointer(path).unwrap().as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names("//entityTypes/Caller/shape/attributes"), CALLER_ATTRIBUTES.map(String::from).into());
        assert_eq!(names("//commonTypes/TokenContext/attributes"), CONTEXT_ATTRIBUTES.map(String::from).into());
    }

    #[test]
    fn declared_attributes_enter_the_schema() {
        let claims = [("tenant", ClaimType::String), ("level", ClaimType::Long), ("https://x.example/y", ClaimType::StringSet)];
        let vocabulary = Vocabulary { keyrings: vec![keyring("a", &claims)], caller_attributes: ["team".to_owned()].into() };
        let text = vocabulary.schema_text().unwrap();
        for word in ["team", "tenant", "level", "https://x.example/y"] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
    }

    #[test]
    fn colliding_declarations_are_refused() {
        let of = |keyrings: Vec<KeyringFacts>| Vocabulary { keyrings, caller_attributes: BTreeSet::new() }.schema().unwrap_err();
        assert!(matches!(of(vec![keyring("a", &[("aud", ClaimType::String)])]), BadVocabulary::Taken { .. }));
        assert!(matches!(of(vec![keyring("a", &[("", ClaimType::String)])]), BadVocabulary::BadName { .. }));
        let two = vec![keyring("a", &[("x", ClaimType::String)]), keyring("b", &[("x", ClaimType::Long)])];
        assert!(matches!(of(two), BadVocabulary::TwoTypes { .. }));
        assert!(matches!(of(vec![keyring("a", &[]), keyring("a", &[])]), BadVocabulary::Twice(_)));
        let callers = Vocabulary { keyrings: vec![], caller_attributes: ["groups".to_owned()].into() };
        assert!(matches!(callers.schema().unwrap_err(), BadVocabulary::CallerAttribute(_)));
    }

    #[test]
    fn claim_types_are_read_as_they_are_written() {
        for text in ["String", "Long", "Bool", "Set<String>"] {
            assert_eq!(text.parse::<ClaimType>().unwrap().to_string(), text);
        }
        assert!("string".parse::<ClaimType>().is_err());
        assert!(ClaimType::Long.fits(&json!(1)) && !ClaimType::Long.fits(&json!(1.0)) && !ClaimType::Long.fits(&json!(u64::MAX)));
        assert!(ClaimType::StringSet.fits(&json!(["a"])) && !ClaimType::StringSet.fits(&json!(["a", 1])));
    }
}
