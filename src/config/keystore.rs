//! Keystores: where keys live, and how to get in.
//!
//! In scope: which kinds there are, and what is true of all of them. Out of scope: the settings of each kind, which have files of their own,
//! and opening any; secrets are files, never values.

mod pkcs11;

use std::collections::BTreeMap;

use super::error::{Place, Problems};
use super::names::{self, Folders};
use super::raw::RawKeystore;

pub use pkcs11::{Pkcs11Config, WORKERS};

/// A keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeystoreConfig {
    /// A token of a PKCS#11 module.
    Pkcs11(Pkcs11Config),
}

/// The kinds of keystores that this build has, as `type` names them.
pub(super) const KINDS: &[&str] = &["pkcs11"];

impl KeystoreConfig {
    /// What the keystore is allowed not to tell of a key, in words; nothing where there is nothing to allow.
    pub fn allowance(&self) -> Option<String> {
        match self {
            Self::Pkcs11(pkcs11) => Some(pkcs11.profile.to_string()),
        }
    }

    fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pkcs11(one), Self::Pkcs11(other)) => one.is_same_token(other),
        }
    }
}

/// Reads all keystores.
pub(super) fn keystores(
    raw: BTreeMap<String, RawKeystore>,
    folders: Folders<'_>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, KeystoreConfig> {
    let mut keystores: BTreeMap<String, KeystoreConfig> = BTreeMap::new();
    for (name, raw) in raw {
        let at = Place::of("keystore").key(&name);
        let label = names::label(&name, &at, problems);
        let Some(keystore) = keystore(&raw, folders, &at, problems) else { continue };
        if let Some((other, _)) = keystores.iter().find(|(_, other)| other.is_same_place(&keystore)) {
            let remedy = "remove one: a token is one keystore, whatever its workers";
            problems.add(&at.key("token"), format!("keystore {other} has this token too"), remedy);
        }
        if let Some(label) = label {
            keystores.insert(label, keystore);
        }
    }
    keystores
}

/// Reads one by its type. A type that this build does not have was refused before.
fn keystore(raw: &RawKeystore, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<KeystoreConfig> {
    problems.required(raw.r#type.as_deref(), &at.key("type"), "write type = \"pkcs11\"");
    refuse_foreign(raw, pkcs11::SETTINGS, at, problems);
    pkcs11::read(raw, folders, at, problems).map(KeystoreConfig::Pkcs11)
}

/// A setting of another kind of keystore would have no effect.
fn refuse_foreign(raw: &RawKeystore, own: &[&str], at: &Place, problems: &mut Problems<'_>) {
    let kind = raw.r#type.as_deref().unwrap_or("pkcs11");
    for setting in raw.present().into_iter().filter(|setting| !own.contains(setting)) {
        let remedy = format!("take it out; the settings of a keystore of type {kind:?} are {}", own.join(", "));
        problems.add(&at.key(setting), format!("has no effect on a keystore of type {kind:?}"), remedy);
    }
}
