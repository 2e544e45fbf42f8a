//! What a reload would change: what takes effect now, what waits for a restart, and what can never change.
//!
//! In scope: comparing two configurations. Out of scope: applying one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::Place;
use super::{Config, KeyringConfig};

/// The difference between the configuration in force and a new one, as paths of settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Takes effect by the reload.
    pub reloaded: Vec<String>,
    /// Takes effect at the next start; what is in force stays so until then.
    pub restart: Vec<String>,
    /// Keyrings that the new file no longer names: they go on until `keyring retire`.
    pub missing: Vec<String>,
    /// Changes that cannot be, as sentences: while there is one, the whole reload is refused.
    pub refused: Vec<String>,
}

impl Changes {
    /// Compares the configuration in force with a new one.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        changes.at_restart(old, new);
        let reloaded = [("audience", old.audience != new.audience), ("policies", old.policies != new.policies)];
        changes.reloaded.extend(reloaded.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()));
        changes.reloaded.extend(tables("issuer", &old.issuers, &new.issuers));
        changes.reloaded.extend(tables("caller", &old.callers, &new.callers));
        changes.reloaded.extend(tables("keyring", &old.keyrings, &new.keyrings));
        changes.missing = old.keyrings.keys().filter(|name| !new.keyrings.contains_key(*name)).cloned().collect();
        // A keyring that is missing is not reloaded: nothing changes for it.
        changes.reloaded.retain(|path| !changes.missing.iter().any(|name| *path == format!("keyring.{name}")));
        let both = old.keyrings.iter().filter_map(|(name, keyring)| Some((keyring, new.keyrings.get(name)?)));
        changes.refused = both.flat_map(|(before, after)| refused((old, before), (new, after))).collect();
        changes
    }

    /// Whether nothing at all changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn at_restart(&mut self, old: &Config, new: &Config) {
        let restart = [
            ("installation", old.installation != new.installation),
            ("origin", old.origin != new.origin),
            ("node", old.node != new.node),
            ("state", old.state != new.state),
            ("log.keystore", old.log_keystore != new.log_keystore),
            ("log.witnesses", old.witnesses != new.witnesses),
            ("limits", old.limits != new.limits),
            ("audit.subject", old.audit_subject != new.audit_subject),
            ("audit.retention", old.audit_retention != new.audit_retention),
            ("listener", old.listeners != new.listeners),
        ];
        self.restart.extend(restart.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()));
        // Keystores are opened at the start, each on threads of its own.
        self.restart.extend(tables("keystore", &old.keystores, &new.keystores));
    }
}

impl Config {
    /// This configuration as a reload puts it in force: what waits for a restart stays as it was, so that the next reload tells it again.
    #[must_use]
    pub fn until_restart(self, old: &Self) -> Self {
        let old = old.clone();
        Self {
            installation: old.installation,
            origin: old.origin,
            node: old.node,
            state: old.state,
            log_keystore: old.log_keystore,
            witnesses: old.witnesses,
            limits: old.limits,
            audit_subject: old.audit_subject,
            audit_retention: old.audit_retention,
            listeners: old.listeners,
            keystores: old.keystores,
            ..self
        }
    }
}

/// The paths of the entries that are gone, new or different.
fn tables<K: Ord + ToString, T: PartialEq>(table: &str, old: &BTreeMap<K, T>, new: &BTreeMap<K, T>) -> Vec<String> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let other = new.iter().filter(|(name, value)| old.get(*name) != Some(*value)).map(|(name, _)| name);
    gone.chain(other).map(|name| Place::of(table).key(&name.to_string()).to_string()).collect()
}

/// Purpose, issuer and typ are fixed by a keyring's first event, and so is what stands in `iss`: another is another keyring.
fn refused((old, before): (&Config, &KeyringConfig), (new, after): (&Config, &KeyringConfig)) -> Vec<String> {
    let url = |config: &Config, keyring: &KeyringConfig| {
        keyring.issuer.as_ref().and_then(|issuer| config.issuers.get(issuer)).map(|issuer| issuer.url.clone())
    };
    let fixed = [
        ("purpose", before.purpose != after.purpose),
        ("issuer", before.issuer != after.issuer),
        ("issuer's url", before.issuer == after.issuer && url(old, before) != url(new, after)),
        ("typ", before.profile.typ != after.profile.typ),
    ];
    let sentence = |what| format!("keyring.{}: its {what} is fixed; add a keyring of another name, and retire this one", before.name);
    fixed.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| sentence(what)).collect()
}
