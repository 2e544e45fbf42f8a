//! Keystores: where keys live, and how to get in.
//!
//! In scope: which kinds there are, and what is true of all of them. Out of scope: the settings of each kind, which have files of their own,
//! and opening any; secrets are files, never values.

#[cfg(feature = "aws-kms")]
mod aws_kms;
mod pkcs11;
mod vault;

use std::collections::BTreeMap;

use super::error::{Place, Problems};
use super::names::{self, Folders};
use super::raw::RawKeystore;
#[cfg(feature = "aws-kms")]
use crate::keystore::aws_kms::AwsKmsSettings;

pub use pkcs11::{Pkcs11Config, WORKERS};
pub use vault::VaultConfig;

/// A keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeystoreConfig {
    /// A token of a PKCS#11 module.
    Pkcs11(Pkcs11Config),
    /// An account of AWS KMS.
    #[cfg(feature = "aws-kms")]
    AwsKms(AwsKmsSettings),
    /// A transit engine of a Vault or OpenBao.
    Vault(VaultConfig),
}

/// The kinds of keystores that this build has, as `type` names them.
pub(super) const KINDS: &[&str] = &[
    "pkcs11",
    #[cfg(feature = "aws-kms")]
    "aws-kms",
    "vault",
];

impl KeystoreConfig {
    /// What the keystore is allowed not to tell of a key, in words; nothing where there is nothing to allow.
    pub fn allowance(&self) -> Option<String> {
        match self {
            Self::Pkcs11(pkcs11) => Some(pkcs11.profile.to_string()),
            #[cfg(feature = "aws-kms")]
            Self::AwsKms(_) => None,
            Self::Vault(_) => None,
        }
    }

    /// How an operator brings back a key that was disabled or is to be deleted, where that can be done; `KEY` stands for its locator.
    pub fn way_back(&self) -> Option<&'static str> {
        match self {
            Self::Pkcs11(_) | Self::Vault(_) => None,
            #[cfg(feature = "aws-kms")]
            Self::AwsKms(_) => {
                Some("`aws kms cancel-key-deletion --key-id KEY` if it is to be deleted, then `aws kms enable-key --key-id KEY`")
            }
        }
    }

    /// Which setting says where the keys are, what that is, and what to do where two keystores have it.
    fn place(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Pkcs11(_) => ("token", "token", "remove one: a token is one keystore, whatever its workers"),
            #[cfg(feature = "aws-kms")]
            Self::AwsKms(_) => ("account", "account and region", "remove one: an account in a region is one keystore"),
            Self::Vault(_) => ("mount", "engine", "remove one: a transit engine is one keystore, whatever its login"),
        }
    }

    fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pkcs11(one), Self::Pkcs11(other)) => one.is_same_token(other),
            #[cfg(feature = "aws-kms")]
            (Self::AwsKms(one), Self::AwsKms(other)) => aws_kms::is_same_place(one, other),
            (Self::Vault(one), Self::Vault(other)) => one.is_same_engine(other),
            _ => false,
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
            let (setting, what, remedy) = keystore.place();
            problems.add(&at.key(setting), format!("keystore {other} has this {what} too"), remedy);
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
    match raw.r#type.as_deref() {
        #[cfg(feature = "aws-kms")]
        Some("aws-kms") => {
            refuse_foreign(raw, aws_kms::SETTINGS, at, problems);
            aws_kms::read(raw, at, problems).map(KeystoreConfig::AwsKms)
        }
        Some("vault") => {
            refuse_foreign(raw, vault::SETTINGS, at, problems);
            vault::read(raw, folders, at, problems).map(KeystoreConfig::Vault)
        }
        _ => {
            refuse_foreign(raw, pkcs11::SETTINGS, at, problems);
            pkcs11::read(raw, folders, at, problems).map(KeystoreConfig::Pkcs11)
        }
    }
}

/// A setting of another kind of keystore would have no effect.
fn refuse_foreign(raw: &RawKeystore, own: &[&str], at: &Place, problems: &mut Problems<'_>) {
    let kind = raw.r#type.as_deref().unwrap_or("pkcs11");
    for setting in raw.present().into_iter().filter(|setting| !own.contains(setting)) {
        let remedy = format!("take it out; the settings of a keystore of type {kind:?} are {}", own.join(", "));
        problems.add(&at.key(setting), format!("has no effect on a keystore of type {kind:?}"), remedy);
    }
}
