//! What became of keystores, and of the keys in them, while nobody asked for it.
//!
//! In scope: when the records that say so are legal, and what is remembered of them. Out of scope: which key signs. None of these events
//! changes a state: a key that drifted goes on as it was, until an operator decides.

use super::apply::{At, in_state};
use super::rule::{No, Rule, need};
use super::{Key, Keyrings, State};
use crate::event::{Event, KeyConforms, KeyDrifted, KeystoreReopened, KeystoreWedged};
use crate::record::Record;
use crate::time::Timestamp;

/// A keystore that a node gave up until its next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wedged {
    /// Which one.
    pub keystore: String,
    /// When.
    pub time: Timestamp,
}

/// What a key had become in its keystore, when that was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Everything that differs from what `key.created` recorded.
    pub found: String,
    /// Since when it is known that something differs.
    pub since: Timestamp,
}

/// States of keys that may sign, or may still come to it, or that verifiers trust: what they are in their keystore matters.
const LIVING: [State; 5] = [State::Created, State::Published, State::Active, State::Suspended, State::Retiring];
/// Longest text about one key, in bytes; a comparison of all attributes that a keystore can report fits well.
pub const LONGEST_FOUND: usize = 2_048;

impl Key {
    /// Whether the key is to be in its keystore as `key.created` recorded it: it was made there, and may sign, or is trusted by verifiers.
    pub fn is_to_conform(&self) -> bool {
        self.name.is_some() && LIVING.contains(&self.state)
    }
}

impl Keyrings {
    /// What happened to keystores and in them; all other events tell a story.
    pub(super) fn noticed(&mut self, record: &Record, at: At) -> Result<(), No> {
        match &record.event {
            Event::KeyDrifted(e) => self.drifted(e, at),
            Event::KeyConforms(e) => self.conforms(e),
            Event::KeystoreReopened(e) => reopened(e),
            Event::KeystoreWedged(e) => self.wedged(e, &record.node, at),
            Event::KeystoreLost(e) => {
                self.lost_keystores.insert(e.keystore.clone());
                Ok(())
            }
            Event::KeystoreRecovered(e) => {
                self.lost_keystores.remove(&e.keystore);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn wedged(&mut self, e: &KeystoreWedged, node: &str, at: At) -> Result<(), No> {
        need(e.hung > 0, Rule::Form, "no call hangs")?;
        self.wedged.insert(node.to_owned(), Wedged { keystore: e.keystore.clone(), time: at.time });
        Ok(())
    }

    /// The same text twice would be no news, and a record each hour.
    fn drifted(&mut self, e: &KeyDrifted, at: At) -> Result<(), No> {
        let is_line = !e.found.trim().is_empty() && e.found.len() <= LONGEST_FOUND && !e.found.contains(char::is_control);
        need(is_line, Rule::Form, format_args!("what was found is one line of 1 to {LONGEST_FOUND} bytes"))?;
        let key = self.living_key(&e.keyring, &e.kid)?;
        let before = key.drift.as_ref();
        need(before.is_none_or(|drift| drift.found != e.found), Rule::Form, "this was recorded before, and nothing since")?;
        let since = before.map_or(at.time, |drift| drift.since);
        key.drift = Some(Drift { found: e.found.clone(), since });
        Ok(())
    }

    fn conforms(&mut self, e: &KeyConforms) -> Result<(), No> {
        let key = self.living_key(&e.keyring, &e.kid)?;
        need(key.drift.is_some(), Rule::Form, "nothing was recorded that it differed in")?;
        key.drift = None;
        Ok(())
    }

    fn living_key(&mut self, keyring: &str, kid: &str) -> Result<&mut Key, No> {
        let (name, index) = self.place(kid)?;
        need(name == keyring, Rule::Form, format_args!("the key belongs to keyring {name:?}"))?;
        let key = self.key_mut(&name, index);
        need(key.name.is_some(), Rule::Form, "the key was imported: no keystore has it")?;
        in_state(key, &LIVING)?;
        Ok(key)
    }
}

/// A record of nothing would say that something happened.
fn reopened(e: &KeystoreReopened) -> Result<(), No> {
    need((e.sessions, e.logins, e.modules) != (0, 0, 0), Rule::Form, "nothing was opened again")?;
    need(!e.reason.trim().is_empty(), Rule::Form, "opening again has a reason")
}
