//! What brings the log's keyrings to those of the configuration file.
//!
//! In scope: the records for new keyrings, for another algorithm or other keystores of the next key, and for other settings; and what no record
//! can do, because another purpose, issuer or `typ` is another keyring. Out of scope: ending a keyring (only `keyring retire` does), and
//! whether settings can be kept ([`super::timing`]).

use std::collections::BTreeSet;

use claviger_audit::Algorithm;
use claviger_audit::event::{Event, KeyringChanged, KeyringCreated, KeyringTiming, Purpose};
use claviger_audit::keyrings::{Keyring, Keyrings};
use claviger_audit::timing::Timing;

/// One keyring as the configuration file wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringWish {
    /// Its name.
    pub name: String,
    /// What it signs.
    pub purpose: Purpose,
    /// The name of its issuer, for `jwt` keyrings.
    pub issuer: Option<String>,
    /// The `iss` of its tokens, likewise.
    pub issuer_url: Option<String>,
    /// The `typ` of its tokens.
    pub typ: Option<String>,
    /// Of its next key.
    pub algorithm: Algorithm,
    /// Of its next key.
    pub keystore: String,
    /// The other keystore, if it is to have two.
    pub standby_keystore: Option<String>,
    /// Its settings, solved.
    pub timing: Timing,
}

/// Why the file cannot be brought into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Fixed by the keyring's first record.
    #[error("keyring {keyring:?}: {setting} is {log} and cannot become {file}; give the new keyring another name, and retire this one")]
    Fixed {
        /// The keyring.
        keyring: String,
        /// Which setting.
        setting: &'static str,
        /// What the log says.
        log: String,
        /// What the file says.
        file: String,
    },
    /// A name is never used again.
    #[error("keyring {0:?} is retired, and its name is never used again; remove it from the file, or choose another name")]
    Retired(String),
    /// Two keyrings of one name.
    #[error("keyring {0:?} is there twice")]
    Twice(String),
}

/// The records that bring the log's settings to the file's, in order; none where they agree.
///
/// # Errors
///
/// Every [`Conflict`]; then no record is to be written at all.
pub fn reconcile(keyrings: &Keyrings, wishes: &[KeyringWish]) -> Result<Vec<Event>, Vec<Conflict>> {
    let mut names = BTreeSet::new();
    let twice = wishes.iter().filter(|wish| !names.insert(&wish.name)).map(|wish| Conflict::Twice(wish.name.clone()));
    let known = wishes.iter().filter_map(|wish| Some((keyrings.keyring(&wish.name)?, wish)));
    let conflicts: Vec<Conflict> = twice.chain(known.flat_map(|(keyring, wish)| conflicts(keyring, wish))).collect();
    if conflicts.is_empty() {
        Ok(wishes.iter().flat_map(|wish| events(keyrings.keyring(&wish.name), wish)).collect())
    } else {
        Err(conflicts)
    }
}

/// Takes those out of the wishes whose keyrings are retired, and gives their names: a file that still has one must not keep a daemon from
/// starting, for all others would wait for whoever edits it.
pub fn take_retired(keyrings: &Keyrings, wishes: &mut Vec<KeyringWish>) -> Vec<String> {
    let is_retired = |wish: &mut KeyringWish| keyrings.keyring(&wish.name).is_some_and(|keyring| keyring.retired.is_some());
    wishes.extract_if(.., is_retired).map(|wish| wish.name).collect()
}

/// Keyrings that go on although the file no longer names them, to be reported.
pub fn missing<'a>(keyrings: &'a Keyrings, wishes: &[KeyringWish]) -> Vec<&'a str> {
    let names: BTreeSet<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
    let living = keyrings.all().filter(|keyring| keyring.retired.is_none());
    living.map(|keyring| keyring.name.as_str()).filter(|name| !names.contains(name)).collect()
}

fn conflicts(keyring: &Keyring, wish: &KeyringWish) -> Vec<Conflict> {
    if keyring.retired.is_some() {
        return vec![Conflict::Retired(wish.name.clone())];
    }
    let text = |value: &Option<String>| value.as_ref().map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"));
    let fixed = [
        ("purpose", purpose(keyring.purpose), purpose(wish.purpose)),
        ("issuer", text(&keyring.issuer), text(&wish.issuer)),
        ("the issuer's url", text(&keyring.issuer_url), text(&wish.issuer_url)),
        ("typ", text(&keyring.typ), text(&wish.typ)),
    ];
    let changed = fixed.into_iter().filter(|(_, log, file)| log != file);
    changed.map(|(setting, log, file)| Conflict::Fixed { keyring: wish.name.clone(), setting, log, file }).collect()
}

fn purpose(purpose: Purpose) -> String {
    match purpose {
        Purpose::Jwt => "\"jwt\"".to_owned(),
        Purpose::Jws => "\"jws\"".to_owned(),
    }
}

fn events(keyring: Option<&Keyring>, wish: &KeyringWish) -> Vec<Event> {
    let name = || wish.name.clone();
    let mut events = Vec::new();
    match keyring {
        None => events.push(Event::KeyringCreated(KeyringCreated {
            keyring: name(),
            purpose: wish.purpose,
            issuer: wish.issuer.clone(),
            issuer_url: wish.issuer_url.clone(),
            typ: wish.typ.clone(),
            algorithm: wish.algorithm,
            keystore: wish.keystore.clone(),
            standby_keystore: wish.standby_keystore.clone(),
        })),
        Some(now) if (now.algorithm, &now.keystore, &now.standby_keystore) != (wish.algorithm, &wish.keystore, &wish.standby_keystore) => {
            let (algorithm, keystore, standby_keystore) = (wish.algorithm, wish.keystore.clone(), wish.standby_keystore.clone());
            events.push(Event::KeyringChanged(KeyringChanged { keyring: name(), algorithm, keystore, standby_keystore }));
        }
        Some(_) => {}
    }
    // A start that was cut short may have left a keyring without settings; it gets them here.
    if keyring.and_then(Keyring::timing).is_none_or(|in_force| in_force.timing != wish.timing) {
        events.push(Event::KeyringTiming(KeyringTiming { keyring: name(), timing: wish.timing }));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Story, wish};
    use super::*;

    #[test]
    fn a_new_keyring_is_created_once() {
        let mut story = Story::new();
        let wishes = [wish("tokens")];
        let names = |events: &[Event]| events.iter().map(Event::name).collect::<Vec<_>>();
        let events = reconcile(&story.keyrings, &wishes).expect("no conflict");
        assert_eq!(names(&events), ["keyring.created", "keyring.timing"]);
        story.append(events[0].clone());
        assert_eq!(names(&reconcile(&story.keyrings, &wishes).expect("no conflict")), ["keyring.timing"]);
        story.append(events[1].clone());
        assert_eq!(reconcile(&story.keyrings, &wishes), Ok(vec![]));
    }

    #[test]
    fn the_next_key_and_the_settings_may_change() {
        let mut story = Story::with(&[wish("tokens")]);
        let timing = Timing { token_ttl_ms: 1_000, ..wish("tokens").timing };
        let (keystore, standby_keystore) = ("other".to_owned(), Some("hsm".to_owned()));
        let changed = KeyringWish { algorithm: Algorithm::Ed25519, keystore, standby_keystore, timing, ..wish("tokens") };
        story.reconcile(std::slice::from_ref(&changed));
        let keyring = story.keyrings.keyring("tokens").expect("exists");
        let recorded = (keyring.algorithm, keyring.keystore.as_str(), keyring.standby_keystore.as_deref());
        assert_eq!(recorded, (Algorithm::Ed25519, "other", Some("hsm")));
        assert_eq!(keyring.timing().map(|in_force| in_force.timing), Some(timing));
        assert_eq!(reconcile(&story.keyrings, std::slice::from_ref(&changed)), Ok(vec![]));
        story.reconcile(&[KeyringWish { standby_keystore: None, ..changed }]);
        assert_eq!(story.keyrings.keyring("tokens").and_then(|keyring| keyring.standby_keystore.as_deref()), None);
    }

    #[test]
    fn what_is_fixed_is_a_conflict() {
        let story = Story::with(&[wish("tokens")]);
        let other = KeyringWish { typ: None, issuer: Some("other".into()), ..wish("tokens") };
        let conflicts = reconcile(&story.keyrings, &[other.clone(), other]).expect_err("conflicts");
        let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "keyring \"tokens\" is there twice");
        assert!(texts[1].starts_with("keyring \"tokens\": issuer is \"main\" and cannot become \"other\""), "{}", texts[1]);
        assert!(texts[2].starts_with("keyring \"tokens\": typ is \"at+jwt\" and cannot become absent"), "{}", texts[2]);
    }

    #[test]
    fn a_missing_keyring_goes_on_and_a_retired_name_is_gone() {
        let mut story = Story::with(&[wish("tokens"), wish("other")]);
        assert_eq!(reconcile(&story.keyrings, &[wish("other")]), Ok(vec![]));
        assert_eq!(missing(&story.keyrings, &[wish("other")]), ["tokens"]);
        story.verb(|keyrings, now| super::super::verbs::retire(keyrings, now, "tokens", "test"));
        assert_eq!(missing(&story.keyrings, &[wish("other")]), [""; 0]);
        assert_eq!(reconcile(&story.keyrings, &[wish("tokens")]), Err(vec![Conflict::Retired("tokens".into())]));
        let mut wishes = vec![wish("tokens"), wish("other"), wish("new")];
        assert_eq!(take_retired(&story.keyrings, &mut wishes), ["tokens"]);
        assert_eq!(wishes, [wish("other"), wish("new")]);
    }
}
