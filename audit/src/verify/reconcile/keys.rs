//! Whose key signed: the keys of the logs as their backends name them.
//!
//! In scope: keys of keyrings and when they signed, log keys, and names of this installation that no record knows. Out of scope: what follows
//! from it (`settle`).

use std::collections::{BTreeMap, BTreeSet};

use super::APART;
use crate::backend::{Backend, Key};
use crate::event::Event;
use crate::names::{KeyName, LOG_KEYRING};
use crate::time::Timestamp;

/// A key that `key.created` records.
struct Created {
    kid: String,
    name: KeyName,
    keystore: String,
    key: Option<Key>,
    time: Timestamp,
}

/// A key that `key.requested` records.
struct Requested {
    keystore: String,
    time: Timestamp,
    /// When it was given up.
    abandoned: Option<Timestamp>,
}

/// A key of a log.
struct LogKey {
    key: Key,
    keystore: String,
}

/// A time in which a key signed; without an end while it does.
struct Signing {
    from: Timestamp,
    to: Option<Timestamp>,
}

/// Whose key it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner<'k> {
    /// A key of a keyring, by its kid.
    Kid(&'k str),
    /// A log key, made or about to be made.
    Log,
    /// A key that was asked for and never recorded as made.
    Requested(&'k KeyName),
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
    of_logs: BTreeMap<String, Vec<LogKey>>,
    requested: BTreeMap<KeyName, Requested>,
    /// By kid.
    signing: BTreeMap<String, Vec<Signing>>,
    made: BTreeSet<KeyName>,
    /// Names that a backend tells, by [`Key::id`].
    named: BTreeMap<String, KeyName>,
}

impl Keys {
    pub(super) fn installation(&mut self, installation: &str) {
        self.installation.get_or_insert_with(|| installation.to_owned());
    }

    pub(super) fn created(&mut self, kid: &str, name: &KeyName, locator: &str, time: Timestamp) {
        let (index, key) = (self.created.len(), Key::of_locator(locator));
        let keystore = self.requested.get(name).map(|requested| requested.keystore.clone()).unwrap_or_default();
        self.made.insert(name.clone());
        if let Some(key) = &key {
            self.by_id.entry(key.id().to_owned()).or_default().push(index);
        }
        self.by_kid.insert(kid.to_owned(), index);
        self.created.push(Created { kid: kid.to_owned(), name: name.clone(), keystore, key, time });
    }

    pub(super) fn log_key(&mut self, locator: &str, keystore: &str) {
        if let Some(key) = Key::of_locator(locator) {
            self.of_logs.entry(key.id().to_owned()).or_default().push(LogKey { key, keystore: keystore.to_owned() });
        }
    }

    /// What else happens to keys: which of them sign.
    pub(super) fn lives(&mut self, event: &Event, time: Timestamp) {
        match event {
            Event::KeyRotated(event) => {
                event.from.iter().for_each(|from| self.stops(from, time));
                self.signs(&event.to, time);
            }
            Event::KeyCompromised(event) => {
                self.stops(&event.kid, time);
                event.to.iter().for_each(|to| self.signs(to, time));
            }
            Event::KeySuspended(event) => self.stops(&event.kid, time),
            Event::KeyResumed(event) => self.signs(&event.kid, time),
            Event::KeyWithdrawn(event) => self.stops(&event.kid, time),
            Event::KeyringRetired(event) => self.retired(&event.keyring, time),
            Event::KeyAbandoned(event) => self.abandoned(&event.key, time),
            _ => {}
        }
    }

    pub(super) fn requested(&mut self, name: &KeyName, keystore: &str, time: Timestamp) {
        let requested = Requested { keystore: keystore.to_owned(), time, abandoned: None };
        self.requested.entry(name.clone()).or_insert(requested);
    }

    fn abandoned(&mut self, name: &KeyName, time: Timestamp) {
        if let Some(requested) = self.requested.get_mut(name) {
            requested.abandoned.get_or_insert(time);
        }
    }

    /// The key signs from now on.
    fn signs(&mut self, kid: &str, time: Timestamp) {
        self.signing.entry(kid.to_owned()).or_default().push(Signing { from: time, to: None });
    }

    /// The key does not sign from now on.
    fn stops(&mut self, kid: &str, time: Timestamp) {
        let spans = self.signing.get_mut(kid).into_iter().flatten();
        spans.for_each(|span| span.to = span.to.or(Some(time)));
    }

    /// No key of the keyring signs from now on.
    fn retired(&mut self, keyring: &str, time: Timestamp) {
        let of_keyring = self.created.iter().filter(|created| created.name.keyring() == keyring);
        for kid in of_keyring.map(|created| created.kid.clone()).collect::<Vec<_>>() {
            self.stops(&kid, time);
        }
    }

    /// Whether the daemon can have asked this key for a signature then: it signed, or was being made and tested.
    pub(super) fn could_sign(&self, owner: &Owner<'_>, time: Timestamp) -> bool {
        let within = |from: Timestamp, to: Option<Timestamp>| from - APART <= time && to.is_none_or(|to| time <= to + APART);
        match owner {
            Owner::Kid(kid) => {
                let signed = self.signing.get(*kid).into_iter().flatten().any(|span| within(span.from, span.to));
                let created = self.by_kid.get(*kid).map(|index| &self.created[*index]);
                signed
                    || created.is_some_and(|created| {
                        let requested = self.requested.get(&created.name).map_or(created.time, |requested| requested.time);
                        within(requested, Some(created.time))
                    })
            }
            Owner::Requested(name) => self.requested.get(*name).is_some_and(|asked| within(asked.time, asked.abandoned)),
            Owner::Log | Owner::Unknown | Owner::Foreign => false,
        }
    }

    /// The keystores of this kind in which any key lives.
    pub(super) fn keystores(&self, backend: Backend) -> BTreeSet<&str> {
        let created = self.created.iter().filter_map(|created| created.key.as_ref().map(|key| (key, created.keystore.as_str())));
        let of_logs = self.of_logs.values().flatten().map(|log_key| (&log_key.key, log_key.keystore.as_str()));
        created.chain(of_logs).filter(|(key, _)| key.backend() == backend).map(|(_, keystore)| keystore).collect()
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
        if self.of_logs.get(key.id()).into_iter().flatten().any(|own| own.key.is(key)) {
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
        requested.map_or(Owner::Unknown, |(name, _)| Owner::Requested(name))
    }
}
