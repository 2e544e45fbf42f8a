//! Who asks: an authenticated identity, parsed into one canonical text, and the attributes that the configuration gives it.
//!
//! In scope: the five forms of identity, their limits, and the Cedar entity of a caller. Out of scope: authenticating anybody (the listeners
//! do) and deciding what a caller may do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use cedar_policy::{Entity, EntityUid, RestrictedExpression};

use super::vocabulary::{CALLER_ATTRIBUTES, caller_uid, string_set};

/// Longest identity text in bytes: the limit of a SPIFFE ID (SPIFFE-ID section 2.3), taken for every form.
pub const LONGEST_IDENTITY: usize = 2048;
/// Longest `sub` of an OpenID Connect caller in ASCII characters (OpenID Connect Core 1.0 section 2).
pub const LONGEST_SUBJECT: usize = 255;
/// Most groups, and most other attributes, of one caller: each is copied into every decision.
pub const MOST_ATTRIBUTES: usize = 64;

/// An authenticated identity. Two texts that name the same caller are the same value: host names are held in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// `spiffe://<trust domain>/<path>`, from the URI name of a client certificate.
    Spiffe(String),
    /// `dns:<name>`, from the DNS name of a client certificate; held without the prefix.
    Dns(String),
    /// `unix:uid=<n>`, from the credentials of a Unix socket's peer.
    Unix(u32),
    /// `oidc:<issuer>#<sub>`, from a bearer JWT.
    Oidc {
        /// The `iss` claim, an https URL.
        issuer: String,
        /// The `sub` claim.
        subject: String,
    },
    /// `token:<name>`, from a bearer token that the configuration knows; held without the prefix.
    Token(String),
}

/// The text is not an identity that a caller can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCaller {
    /// No known form.
    #[error("{0:?} is not a caller: write spiffe://DOMAIN/PATH, dns:NAME, unix:uid=N, oidc:ISSUER#SUB or token:NAME")]
    UnknownForm(String),
    /// A known form, but its parts break the rules of that form.
    #[error("{text:?} is not a caller: {why}")]
    Malformed {
        /// The text as given.
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The configuration gives a caller an attribute that cannot be one.
    #[error("attribute {name:?} of a caller: {why}")]
    Attribute {
        /// The attribute.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl Identity {
    /// The word that policies read as `principal.kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Spiffe(_) => "spiffe",
            Self::Dns(_) => "dns",
            Self::Unix(_) => "unix",
            Self::Oidc { .. } => "oidc",
            Self::Token(_) => "token",
        }
    }

    /// An OpenID Connect caller from the two claims that name it. Fails if either is not of its form.
    pub fn oidc(issuer: &str, subject: &str) -> Result<Self, BadCaller> {
        format!("oidc:{issuer}#{subject}").parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => f.write_str(id),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Unix(uid) => write!(f, "unix:uid={uid}"),
            Self::Oidc { issuer, subject } => write!(f, "oidc:{issuer}#{subject}"),
            Self::Token(name) => write!(f, "token:{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = BadCaller;

    fn from_str(text: &str) -> Result<Self, BadCaller> {
        let malformed = |why| BadCaller::Malformed { text: text.chars().take(LONGEST_SUBJECT).collect(), why };
        if text.len() > LONGEST_IDENTITY {
            return Err(malformed("it is longer than 2048 bytes"));
        }
        if let Some(rest) = text.strip_prefix("spiffe://") {
            spiffe(rest).map(Self::Spiffe).map_err(malformed)
        } else if let Some(name) = text.strip_prefix("dns:") {
            dns(name).map(Self::Dns).map_err(malformed)
        } else if let Some(uid) = text.strip_prefix("unix:uid=") {
            uid_number(uid).map(Self::Unix).map_err(malformed)
        } else if let Some(rest) = text.strip_prefix("oidc:") {
            oidc(rest).map_err(malformed)
        } else if let Some(name) = text.strip_prefix("token:") {
            token(name).map(Self::Token).map_err(malformed)
        } else {
            Err(BadCaller::UnknownForm(text.chars().take(LONGEST_SUBJECT).collect()))
        }
    }
}

/// What the configuration says about a caller: its groups, and attributes that policies may compare with claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerAttributes {
    groups: Vec<String>,
    other: BTreeMap<String, String>,
}

impl CallerAttributes {
    /// Checks names and counts. An attribute may not be called like one that every caller has (`id`, `kind`, `groups`, `uid`, `gid`).
    pub fn new(groups: Vec<String>, other: BTreeMap<String, String>) -> Result<Self, BadCaller> {
        if groups.len() > MOST_ATTRIBUTES || other.len() > MOST_ATTRIBUTES {
            return Err(BadCaller::Attribute { name: "groups".into(), why: "a caller has at most 64 groups and 64 other attributes" });
        }
        for name in other.keys() {
            let refuse = |why| Err(BadCaller::Attribute { name: name.clone(), why });
            if CALLER_ATTRIBUTES.contains(&name.as_str()) {
                return refuse("the name is taken: every caller has it");
            }
            if name.is_empty() || name.len() > LONGEST_SUBJECT {
                return refuse("a name has 1 to 255 bytes");
            }
        }
        Ok(Self { groups, other })
    }

    /// The groups, as configured.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The names of the other attributes: the vocabulary needs them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.other.keys().map(String::as_str)
    }
}

/// An identity with everything that policies may read about it. Made once per connection or token, used for many decisions.
#[derive(Clone, Debug)]
pub struct Caller {
    identity: Identity,
    id: String,
    entity: Entity,
}

impl Caller {
    /// A caller with the attributes of its configuration section, or [`CallerAttributes::default`] if it has none.
    pub fn new(identity: Identity, attributes: &CallerAttributes) -> Self {
        Self::build(identity, None, attributes)
    }

    /// The peer of a Unix socket, whose group id policies may read as `principal.gid`.
    pub fn unix(uid: u32, gid: u32, attributes: &CallerAttributes) -> Self {
        Self::build(Identity::Unix(uid), Some(gid), attributes)
    }

    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity as text: the form of records, policies and configuration.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn entity(&self) -> &Entity {
        &self.entity
    }

    fn build(identity: Identity, gid: Option<u32>, attributes: &CallerAttributes) -> Self {
        let id = identity.to_string();
        let mut members: HashMap<String, RestrictedExpression> =
            attributes.other.iter().map(|(name, value)| (name.clone(), RestrictedExpression::new_string(value.clone()))).collect();
        members.insert("id".into(), RestrictedExpression::new_string(id.clone()));
        members.insert("kind".into(), RestrictedExpression::new_string(identity.kind().into()));
        members.insert("groups".into(), string_set(&attributes.groups));
        if let Identity::Unix(uid) = identity {
            members.insert("uid".into(), RestrictedExpression::new_long(uid.into()));
        }
        if let Some(gid) = gid {
            members.insert("gid".into(), RestrictedExpression::new_long(gid.into()));
        }
        let uid: EntityUid = caller_uid(&id);
        let entity = Entity::new(uid, members, HashSet::new()).expect("strings, numbers and sets of strings always evaluate");
        Self { identity, id, entity }
    }
}

/// SPIFFE-ID section 2: a trust domain of `[a-z0-9.-_]`, then segments of `[a-zA-Z0-9.-_]`. A workload's ID has a path (X509-SVID section 2).
fn spiffe(rest: &str) -> Result<String, &'static str> {
    let (domain, path) = rest.split_once('/').ok_or("a workload's SPIFFE ID has a path")?;
    if domain.is_empty() || domain.len() > 255 {
        return Err("a trust domain has 1 to 255 bytes");
    }
    if !domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
        return Err("a trust domain is written in a-z, 0-9, dot, dash and underscore");
    }
    let good_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !path.split('/').all(good_segment) {
        return Err("a SPIFFE path has segments of letters, digits, dot, dash and underscore, none of them empty, . or ..");
    }
    Ok(format!("spiffe://{domain}/{path}"))
}

/// RFC 1123 section 2.1 host names, in lower case, without a trailing dot; an underscore is let pass, since service names use it.
fn dns(name: &str) -> Result<String, &'static str> {
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 253 && name.split('.').all(good_label) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err("a DNS name has labels of 1 to 63 letters, digits and dashes, no wildcard and no trailing dot")
    }
}

fn uid_number(text: &str) -> Result<u32, &'static str> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or("a uid is a whole number without leading zeros")
}

fn oidc(rest: &str) -> Result<Identity, &'static str> {
    let (issuer, subject) = rest.split_once('#').ok_or("a # stands between issuer and subject")?;
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if issuer.strip_prefix("https://").is_none_or(str::is_empty) || !visible(issuer) || issuer.contains('?') {
        return Err("an issuer is an https URL without query and fragment");
    }
    if subject.is_empty() || subject.len() > LONGEST_SUBJECT || !subject.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err("a subject has 1 to 255 visible ASCII characters");
    }
    Ok(Identity::Oidc { issuer: issuer.to_owned(), subject: subject.to_owned() })
}

fn token(name: &str) -> Result<String, &'static str> {
    let good = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if good { Ok(name.to_owned()) } else { Err("a token's name has 1 to 64 characters of a-z, 0-9, dot, dash and underscore") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        let forms = [
            ("spiffe://example.org/ns/prod/issuer", "spiffe"),
            ("dns:issuer.example.org", "dns"),
            ("unix:uid=0", "unix"),
            ("unix:uid=4294967295", "unix"),
            ("oidc:https://kubernetes.default.svc#system:serviceaccount:ns:sa", "oidc"),
            ("oidc:https://a.example/t#a#b", "oidc"),
            ("token:ci", "token"),
        ];
        for (text, kind) in forms {
            let identity: Identity = text.parse().unwrap();
            assert_eq!((identity.to_string().as_str(), identity.kind()), (text, kind));
        }
        assert_eq!("dns:Issuer.Example.ORG".parse::<Identity>().unwrap().to_string(), "dns:issuer.example.org");
    }

    #[test]
    fn what_is_no_caller_is_refused() {
        let wrong = [
            "",
            "alice",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://Example.org/a",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a%20b",
            "spiffe://user@example.org/a",
            "dns:*.example.org",
            "dns:example.org.",
            "dns:-a.example",
            "dns:",
            "unix:uid=01",
            "unix:uid=+1",
            "unix:uid=4294967296",
            "unix:1",
            "oidc:https://a.example",
            "oidc:http://a.example#s",
            "oidc:https://#s",
            "oidc:https://a.example#",
            "oidc:https://a.example#a\nb",
            "token:",
            "token:A",
        ];
        for text in wrong {
            assert!(text.parse::<Identity>().is_err(), "{text:?} passed");
        }
        assert!(format!("spiffe://example.org/{}", "a".repeat(LONGEST_IDENTITY)).parse::<Identity>().is_err());
    }

    #[test]
    fn attributes_cannot_shadow_what_every_caller_has() {
        for name in CALLER_ATTRIBUTES {
            assert!(CallerAttributes::new(vec![], BTreeMap::from([(name.to_string(), "x".into())])).is_err());
        }
        assert!(CallerAttributes::new(vec!["issuers".into()], BTreeMap::from([("tenant".into(), "t1".into())])).is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "(spiffe://|dns:|unix:uid=|oidc:https://|token:)?[ -~]{0,40}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
            }
        }
    }
}
