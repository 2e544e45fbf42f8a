//! The names that bind records, keystores and files together.
//!
//! A key has its name before it exists: `<installation>.<keyring>.<n>-<claim>`, so creating it is find-or-create. A log that goes on where
//! another one ended is named after it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest installation or keyring name, so that a key name fits into 64 bytes, the shortest limit of any keystore.
pub const LONGEST_LABEL: usize = 24;
/// Most keys that one keyring may ever have: five digits of the key name.
pub const MOST_KEYS: u32 = 99_999;

/// Whether `text` is `[a-z][a-z0-9-]{0,23}`: the form of installation, keyring, keystore, issuer and node names.
pub fn is_label(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= LONGEST_LABEL
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Stands between the origin that `init` gave a log and the number of its adoption.
const ADOPTED: &str = "/adopted-";

/// The origin that a log had before any adoption, and its number: 1, or that of the last adoption (2, 3, ...).
pub fn unadopted(origin: &str) -> (&str, u32) {
    let adopted = origin.rsplit_once(ADOPTED).and_then(|(first, number)| {
        let canonical = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        Some((first, number.parse().ok().filter(|number| canonical && *number >= 2)?))
    });
    adopted.unwrap_or((origin, 1))
}

/// The origin of the log that goes on where the log `origin` ended: `<origin>/adopted-2`, and after it `<origin>/adopted-3`.
pub fn adopted_origin(origin: &str) -> String {
    let (first, number) = unadopted(origin);
    format!("{first}{ADOPTED}{}", number.saturating_add(1))
}

/// Whether `later` is the origin of a log that came to be by one or more adoptions of the log `earlier`.
pub fn is_successor(later: &str, earlier: &str) -> bool {
    let ((later, number), (earlier, before)) = (unadopted(later), unadopted(earlier));
    later == earlier && number > before
}

/// The name of a key in every keystore and in every record, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName {
    text: String,
    keyring_start: usize,
    number: u32,
}

/// The keyring part that names the log keys; no keyring may be called so.
pub const LOG_KEYRING: &str = "log";

/// A name that is not of the form `<installation>.<keyring>.<n>-<claim>`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a key name of the form <installation>.<keyring>.<number>-<8 hex digits>")]
pub struct BadKeyName(pub String);

impl KeyName {
    /// Builds a name from parts that have been checked; `claim` is random, so a rolled-back log can never take an old key for a new one.
    pub fn new(installation: &str, keyring: &str, number: u32, claim: u32) -> Result<Self, BadKeyName> {
        format!("{installation}.{keyring}.{number}-{claim:08x}").parse()
    }

    /// The keyring that the key belongs to.
    pub fn keyring(&self) -> &str {
        let rest = &self.text[self.keyring_start..];
        rest.split('.').next().unwrap_or_default()
    }

    /// The installation that made the key.
    pub fn installation(&self) -> &str {
        &self.text[..self.keyring_start - 1]
    }

    /// The number of the key in its keyring, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for KeyName {
    type Err = BadKeyName;

    fn from_str(text: &str) -> Result<Self, BadKeyName> {
        parse(text).ok_or_else(|| BadKeyName(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<KeyName> {
    let mut parts = text.split('.');
    let (installation, keyring, last) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, claim) = last.split_once('-')?;
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let well_formed = parts.next().is_none()
        && is_label(installation)
        && is_label(keyring)
        && plain(number)
        && claim.len() == 8
        && claim.bytes().all(hex);
    let number = number.parse().ok().filter(|n| (1..=MOST_KEYS).contains(n))?;
    well_formed.then(|| KeyName { text: text.to_owned(), keyring_start: installation.len() + 1, number })
}

impl TryFrom<String> for KeyName {
    type Error = BadKeyName;

    fn try_from(text: String) -> Result<Self, BadKeyName> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.text
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_parts() {
        let name = KeyName::new("prod", "access-tokens", 7, 0xab).expect("well-formed");
        assert_eq!(name.as_str(), "prod.access-tokens.7-000000ab");
        assert_eq!((name.installation(), name.keyring(), name.number()), ("prod", "access-tokens", 7));
    }

    #[test]
    fn an_adopted_log_is_named_after_the_one_before() {
        let second = adopted_origin("a.example/keys");
        assert_eq!((second.as_str(), unadopted(&second)), ("a.example/keys/adopted-2", ("a.example/keys", 2)));
        assert_eq!(adopted_origin(&second), "a.example/keys/adopted-3");
        assert!(is_successor(&second, "a.example/keys") && is_successor("a.example/keys/adopted-10", &second));
        assert!(
            !is_successor(&second, &second) && !is_successor("a.example/keys", &second) && !is_successor("b.example/keys", "a.example")
        );
        for other in ["a/adopted-1", "a/adopted-02", "a/adopted-+2", "a/adopted-", "a/adopted-x"] {
            assert_eq!(unadopted(other), (other, 1));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "prod.a.0-000000ab",
            "prod.a.01-000000ab",
            "prod.a.1-00AB00ab",
            "prod.a.1-ab",
            "a.b.c.1-000000ab",
            "Prod.a.1-000000ab",
            "prod..1-000000ab",
            "prod.a.100000-000000ab",
        ] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad}");
        }
    }
}
