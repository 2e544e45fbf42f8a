//! Keys that a keystore holds and that nothing uses: no record names them, or the record is about another key.
//!
//! In scope: which they are, and what to say of each. Out of scope: listing what a keystore holds, and deleting anything: an orphan is told, never
//! ended.

use claviger_audit::keyrings::{Key, Keyrings, State};
use claviger_audit::names::{KeyName, LOG_KEYRING};
use serde::Serialize;

use crate::keystore::Locator;

/// A key that nothing uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its name, as the keystore has it.
    pub key: KeyName,
    /// Why it is one, and what to do.
    pub text: String,
}

/// Why a key is an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Unrecorded,
    Revived,
    Second,
}

/// The orphans among what a keystore holds. `now` must be newer than the listing, else a key that is just being made would be one; `before` must be
/// older, else one that was just destroyed would count as brought back.
pub fn among(keystore: &str, held: &[(KeyName, Locator)], before: &Keyrings, now: &Keyrings) -> Vec<Orphan> {
    let known = |keyrings: &Keyrings, name: &KeyName| keyrings.key_named(name).map(|(_, key)| Known::of(key));
    // Keys of logs have a history of their own.
    let held = held.iter().filter(|(name, _)| name.keyring() != LOG_KEYRING);
    let orphans = held.filter_map(|(name, locator)| {
        let why = judge(locator, known(before, name).as_ref(), known(now, name).as_ref())?;
        Some(Orphan { key: name.clone(), text: told(why, keystore, locator) })
    });
    orphans.collect()
}

/// What the log knows of a key's whereabouts.
struct Known {
    destroyed: bool,
    /// `None` before the key was made, and for an imported one.
    locator: Option<String>,
}

impl Known {
    fn of(key: &Key) -> Self {
        Self { destroyed: key.state == State::Destroyed, locator: key.locator.clone() }
    }
}

fn judge(locator: &Locator, before: Option<&Known>, now: Option<&Known>) -> Option<Why> {
    let Some(now) = now else { return Some(Why::Unrecorded) };
    if now.locator.as_ref().is_some_and(|recorded| recorded != locator.as_str()) {
        return Some(Why::Second);
    }
    (now.destroyed && before.is_some_and(|before| before.destroyed)).then_some(Why::Revived)
}

fn told(why: Why, keystore: &str, locator: &Locator) -> String {
    match why {
        Why::Unrecorded => format!("an orphan: {keystore} holds it, and no record names it. Nothing uses it; look who made it"),
        Why::Revived => format!(
            "an orphan: it was destroyed, and {keystore} holds it ({locator}): somebody brought it back. Nothing uses it; find out who did, and end it \
             there again"
        ),
        Why::Second => format!(
            "an orphan: {keystore} holds a second key of this name ({locator}), which is not the recorded one. Nothing uses it; look who made it, and \
             end it there"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_name_and_its_place() {
        let known = |destroyed, locator: Option<&str>| Known { destroyed, locator: locator.map(str::to_owned) };
        let judged = |before: &Known, now: &Known| judge(&Locator::new("one"), Some(before), Some(now));
        let (being_made, lives, destroyed) = (known(false, None), known(false, Some("one")), known(true, Some("one")));
        assert_eq!(judge(&Locator::new("one"), None, None), Some(Why::Unrecorded));
        assert_eq!(judge(&Locator::new("one"), None, Some(&being_made)), None);
        assert_eq!(judged(&being_made, &lives), None);
        assert_eq!(judged(&lives, &destroyed), None, "it was destroyed after it was listed");
        assert_eq!(judged(&destroyed, &destroyed), Some(Why::Revived));
        let other = known(false, Some("other"));
        assert_eq!(judged(&other, &other), Some(Why::Second));
        let ended = known(true, Some("other"));
        assert_eq!(judged(&ended, &ended), Some(Why::Second));
        assert!(told(Why::Second, "kms", &Locator::new("one")).contains("(one)"));
    }
}
