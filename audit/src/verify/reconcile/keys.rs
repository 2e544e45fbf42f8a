//! Whose key signed: the keys of the logs as their backends name them.
//!
//! In scope: keys of keyrings, log keys, and names of this installation that no record knows. Out of scope: what follows from it (`settle`).

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::{Backend, Key};
use crate::names::{KeyName, LOG_KEYRING};

/// A key that `key.created` records.
struct Created {
    kid: String,
    keystore: String,
    key: Option<Key>,
}

/// Whose key it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner<'k> {
    /// A key of a keyring, by its kid.
    Kid(&'k str),
    /// A log key, made or about to be made.
    Log,
    /// A key that was asked for and never recorded as made, by its keyring.
    Requested(&'k str),
    /// It has a name of this installation, and no record knows it.
    Unknown,
    /// Somebody else's.
    Foreign,
}

/// All keys.
#[derive(Default)]
pub(super) struct Keys {
    installation: Option<String>,
    created: Vec<Created>,
    /// Index by kid, and by [`Key::id`].
    by_kid: BTreeMap<String, usize>,
    by_id: BTreeMap<String, Vec<usize>>,
    of_logs: BTreeMap<String, Vec<Key>>,
    /// Keystores by the name of a key that was asked for.
    requested: BTreeMap<KeyName, String>,
    made: BTreeSet<KeyName>,
    /// Names that a backend tells, by [`Key::id`].
    named: BTreeMap<String, KeyName>,
}

impl Keys {
    pub(super) fn installation(&mut self, installation: &str) {
        self.installation.get_or_insert_with(|| installation.to_owned());
    }

    pub(super) fn created(&mut self, kid: &str, name: &KeyName, locator: &str) {
        let (index, key) = (self.created.len(), Key::of_locator(locator));
        let keystore = self.requested.get(name).cloned().unwrap_or_default();
        self.made.insert(name.clone());
        if let Some(key) = &key {
            self.by_id.entry(key.id().to_owned()).or_default().push(index);
        }
        self.by_kid.insert(kid.to_owned(), index);
        self.created.push(Created { kid: kid.to_owned(), keystore, key });
    }

    pub(super) fn log_key(&mut self, locator: &str) {
        if let Some(key) = Key::of_locator(locator) {
            self.of_logs.entry(key.id().to_owned()).or_default().push(key);
        }
    }

    pub(super) fn requested(&mut self, name: &KeyName, keystore: &str) {
        self.requested.insert(name.clone(), keystore.to_owned());
    }

    /// Whether any key lives in a keystore of this kind.
    pub(super) fn any_of(&self, backend: Backend) -> bool {
        let created = self.created.iter().filter_map(|created| created.key.as_ref());
        created.chain(self.of_logs.values().flatten()).any(|key| key.backend() == backend)
    }

    /// Whether a record says that the key was made.
    pub(super) fn has_kid(&self, kid: &str) -> bool {
        self.by_kid.contains_key(kid)
    }

    pub(super) fn named(&mut self, key: &Key, name: &KeyName) {
        self.named.insert(key.id().to_owned(), name.clone());
    }

    /// Where a key lives, if its backend keeps a record: the key as the backend names it, and its keystore.
    pub(super) fn home(&self, kid: &str) -> Option<(&Key, &str)> {
        let created = &self.created[*self.by_kid.get(kid)?];
        created.key.as_ref().map(|key| (key, created.keystore.as_str()))
    }

    /// Whose key it is.
    pub(super) fn owner(&self, key: &Key) -> Owner<'_> {
        let mut created = self.by_id.get(key.id()).into_iter().flatten().map(|index| &self.created[*index]);
        if let Some(created) = created.find(|created| created.key.as_ref().is_some_and(|own| own.is(key))) {
            return Owner::Kid(&created.kid);
        }
        if self.of_logs.get(key.id()).into_iter().flatten().any(|own| own.is(key)) {
            return Owner::Log;
        }
        let own = match key {
            Key::Kms(_) => self.named.get(key.id()).cloned(),
            Key::Vault { name, .. } => name.parse().ok(),
        };
        let Some(name) = own.filter(|name: &KeyName| self.installation.as_deref() == Some(name.installation())) else {
            return Owner::Foreign;
        };
        // A log key that was tried and never taken into use: `init` and a rotation of the log key may be cut off.
        if name.keyring() == LOG_KEYRING {
            return Owner::Log;
        }
        let requested = self.requested.get_key_value(&name).filter(|_| !self.made.contains(&name));
        requested.map_or(Owner::Unknown, |(name, _)| Owner::Requested(name.keyring()))
    }
}
