//! What keystores write down by themselves: which signatures, by which keys, under which request ids, and who asked.
//!
//! In scope: reading CloudTrail's files ([`cloudtrail`]) and the files of Vault's and OpenBao's audit devices ([`vault`]). Out of scope: what is
//! made of it (`crate::verify`), opening files and unpacking them (`crate::command`).
//!
//! These files are others', and hold far more than signatures: what is not asked for is skipped, in whatever form it is (`loose`).

use std::fmt;
use std::io::{self, BufRead};

use serde::Serialize;

use crate::names::KeyName;
use crate::time::Timestamp;

pub mod cloudtrail;
mod loose;
pub mod vault;

/// Who keeps such a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// AWS CloudTrail, for AWS KMS.
    CloudTrail,
    /// An audit device of Vault or OpenBao, for the transit engine.
    Vault,
}

impl Backend {
    /// The word of the command line and of reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::CloudTrail => "cloudtrail",
            Self::Vault => "vault",
        }
    }

    /// Reads one file and calls `each` with every entry.
    ///
    /// # Errors
    ///
    /// It could not be read, is no such file, or is beyond the bounds of its reader.
    pub fn read(self, reader: &mut dyn BufRead, each: &mut dyn FnMut(Entry)) -> io::Result<Read> {
        match self {
            Self::CloudTrail => cloudtrail::read(reader, each),
            Self::Vault => vault::read(reader, each),
        }
    }
}

/// What is told of a file beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Lines that are cut or joined, as a full disk or a kill leaves them.
    pub torn: u64,
    /// Whether it is one of CloudTrail's digest files, which hold no events.
    pub is_digest: bool,
}

/// One entry of a backend's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where in the file: the line, or the index of the event, from 1.
    pub number: u64,
    /// When, by the backend's clock.
    pub time: Timestamp,
    /// Which part of the record: entries of one scope come in the order of time, more or less. `<account>/<region>` of CloudTrail.
    pub scope: String,
    /// What happened.
    pub what: What,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A signature was made.
    Signature(Signature),
    /// A signature was asked for and refused.
    Refused,
    /// Something else was done with a key, which Claviger never does.
    Exposed(Exposed),
    /// A key has a name: CloudTrail tells it where the key is made, tagged or given an alias, and not where it signs.
    Named(Key, KeyName),
    /// Something else.
    Other,
}

/// A signature that a backend made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The backend's request id.
    pub request: String,
    /// The key.
    pub key: Key,
    /// Who asked, as the backend knows it.
    pub caller: String,
    /// Whether one request signed several inputs, which Claviger never asks for.
    pub several: bool,
}

/// A request that a backend granted, and that Claviger never makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The backend's request id.
    pub request: String,
    /// The key.
    pub key: Key,
    /// Who asked, and from where.
    pub caller: String,
    /// What became of the key, in words.
    pub what: &'static str,
}

/// A key as its backend names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// An ARN, a key id or an alias of AWS KMS.
    Kms(String),
    /// A transit key.
    Vault {
        /// Namespace and mount, without a slash at the end.
        mount: String,
        /// Its name.
        name: String,
    },
}

impl Key {
    /// The key that a locator of `key.created` or `log.created` names; `None` for one of a keystore that keeps no record.
    pub fn of_locator(locator: &str) -> Option<Self> {
        let mut parts = locator.split(':');
        if parts.next() == Some("arn") {
            return (parts.nth(1) == Some("kms")).then(|| Self::Kms(locator.to_owned()));
        }
        let (key, version) = locator.rsplit_once('/')?;
        let (mount, name) = key.rsplit_once('/')?;
        let is_key = version.bytes().all(|b| b.is_ascii_digit()) && name.parse::<KeyName>().is_ok();
        is_key.then(|| Self::Vault { mount: mount.to_owned(), name: name.to_owned() })
    }

    /// Who keeps its record.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Kms(_) => Backend::CloudTrail,
            Self::Vault { .. } => Backend::Vault,
        }
    }

    /// What is the same in all its names, and in those of no other key: the key id of KMS, which replicas in other regions share as they share
    /// the private key; the name in Vault.
    pub fn id(&self) -> &str {
        match self {
            Self::Kms(text) => text.rsplit_once("key/").map_or(text, |(_, id)| id),
            Self::Vault { name, .. } => name,
        }
    }

    /// Whether the two name one key; a mount may be named with or without the namespace that it is in.
    pub fn is(&self, other: &Self) -> bool {
        let within = |outer: &str, inner: &str| outer.strip_suffix(inner).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        match (self, other) {
            (Self::Vault { mount, name }, Self::Vault { mount: other_mount, name: other_name }) => {
                name == other_name && (within(mount, other_mount) || within(other_mount, mount))
            }
            _ => self.backend() == other.backend() && self.id() == other.id(),
        }
    }

    /// The scope of the entries that tell of it.
    pub fn scope(&self) -> String {
        let Self::Kms(arn) = self else { return String::new() };
        let parts: Vec<&str> = arn.split(':').collect();
        parts.get(4).zip(parts.get(3)).map(|(account, region)| format!("{account}/{region}")).unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kms(text) => f.write_str(text),
            Self::Vault { mount, name } => write!(f, "{mount}/{name}"),
        }
    }
}

/// Who asked, and from where.
fn caller(who: &str, address: &str) -> String {
    let who = if who.is_empty() { "unknown" } else { who };
    let text = if address.is_empty() { who.to_owned() } else { format!("{who} from {address}") };
    text.chars().take(LONGEST_CALLER).collect()
}

/// Longest description of a caller in characters; an ARN has at most 2,048, and is shorter in practice.
const LONGEST_CALLER: usize = 512;

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locators_tell_their_backend() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321";
        let key = Key::of_locator(arn).unwrap();
        assert_eq!((key.backend(), key.id()), (Backend::CloudTrail, "0987dcba-09fe-87dc-65ba-ab0987654321"));
        assert_eq!(key.scope(), "111122223333/eu-central-1");
        assert!(key.is(&Key::Kms(key.id().to_owned())));
        let vault = Key::of_locator("team/transit/prod.access.1-0000002a/1").unwrap();
        assert_eq!(vault, Key::Vault { mount: "team/transit".into(), name: "prod.access.1-0000002a".into() });
        for other in ["01ab", "slot/1/2", "arn:aws:iam::111122223333:role/x", "transit/prod.access.1-0000002a", "transit/x/1", ""] {
            assert_eq!(Key::of_locator(other), None, "{other}");
        }
    }

    #[test]
    fn a_mount_may_be_named_without_its_namespace() {
        let key = |mount: &str| Key::Vault { mount: mount.into(), name: "prod.access.1-0000002a".into() };
        assert!(key("ns/transit").is(&key("transit")) && key("transit").is(&key("ns/transit")));
        assert!(!key("other-transit").is(&key("transit")) && !key("a/transit").is(&key("b/transit")));
    }
}
