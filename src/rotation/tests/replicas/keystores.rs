//! Keystores that fail in each way that a real one does.
//!
//! In scope: which keys exist, and what callers are told. Out of scope: time; a hang is only no answer.

use super::*;

/// What a caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Refused,
    Nothing,
}

#[derive(Default)]
pub(super) struct Keystores {
    pub(super) keys: BTreeSet<KeyName>,
    pub(super) troubles: BTreeMap<String, Trouble>,
    /// One that never comes back.
    pub(super) lost: Option<&'static str>,
}

impl Keystores {
    /// Whether somebody who asks whether it answers hears nothing.
    pub(super) fn is_down(&self, store: &str) -> bool {
        matches!(self.troubles.get(store), Some(Trouble::Down | Trouble::Hangs))
    }

    /// How long a node leaves one alone that did not answer. One that is lost is asked seldom: days would be filled with asking it.
    pub(super) fn pause(&self, store: &str) -> Duration {
        if self.lost == Some(store) { HOUR } else { BACKOFF }
    }

    /// Those that are down now.
    pub(super) fn down(&self) -> impl Iterator<Item = &'static str> {
        STORES.into_iter().filter(|store| self.is_down(store))
    }

    /// Find-or-create by name.
    pub(super) fn create(&mut self, store: &str, name: &KeyName) -> Answer {
        self.call(store, |keys| keys.insert(name.clone()))
    }

    /// A key that is not there is destroyed already.
    pub(super) fn destroy(&mut self, store: &str, name: &KeyName) -> Answer {
        self.call(store, |keys| keys.remove(name))
    }

    fn call(&mut self, store: &str, effect: impl FnOnce(&mut BTreeSet<KeyName>) -> bool) -> Answer {
        match self.troubles.get(store) {
            None => {
                effect(&mut self.keys);
                Answer::Done
            }
            Some(Trouble::Forgets) => {
                effect(&mut self.keys);
                Answer::Nothing
            }
            Some(Trouble::Down | Trouble::Hangs) => Answer::Nothing,
            Some(Trouble::Refuses) => Answer::Refused,
        }
    }
}
