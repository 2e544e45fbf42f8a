//! Whether keys in their keystores are what the log says of them: compared now and then, recorded when that changes.
//!
//! In scope: the comparison, which is pure, and the records `key.drifted` and `key.conforms`. Out of scope: when to look (`health`), who is
//! told (`rotation::risk`), and putting anything right: a key that drifted is used as before, until an operator decides.

use std::time::Duration;

use claviger_audit::event::{Event, KeyConforms, KeyDrifted};
use claviger_audit::keyrings::{Key, Keyrings, LONGEST_FOUND};
use claviger_audit::record::Asked;

use crate::journal::{AppendError, KeyLog};
use crate::keystore::{Keystore, KeystoreError, Locator, Seen};

/// How long reading one key back may take before it is given up until the next look.
const ANSWER: Duration = Duration::from_mins(1);
/// What is recorded of a key that is not there at all.
const GONE: &str = "its keystore does not have it";

/// The keys that should be in this keystore as they were made, by keyring and number.
pub fn to_conform<'a>(keyrings: &'a Keyrings, keystore: &'a str) -> impl Iterator<Item = &'a Key> {
    keyrings.all().flat_map(|keyring| &keyring.keys).filter(move |key| key.keystore == keystore && key.is_to_conform())
}

/// Reads a key back and says in one line what differs from its record; `Ok(None)` if nothing does.
///
/// # Errors
///
/// A keystore that is away, busy or refuses says nothing about the key.
pub async fn look_at(keystore: &dyn Keystore, key: &Key) -> Result<Option<String>, KeystoreError> {
    let locator = Locator::new(key.locator.as_deref().unwrap_or_default());
    let looked = tokio::time::timeout(ANSWER, keystore.inspect(&locator)).await;
    compare(key, looked.unwrap_or(Err(KeystoreError::Unanswered)))
}

/// Looks at every key that should be in this keystore as it was made, and records what is news. Returns whether the keystore answered to the
/// end.
pub async fn look(keys: &KeyLog, name: &str, keystore: &dyn Keystore) -> Result<bool, AppendError> {
    let snapshot = keys.snapshot();
    for key in to_conform(&snapshot.keyrings, name) {
        match look_at(keystore, key).await {
            Ok(found) => record(keys, key, found).await?,
            // What can never succeed need not be tried again soon.
            Err(error @ KeystoreError::Rejected(_)) => tracing::warn!(keystore = name, %error, "a key could not be read back"),
            Err(error) => {
                tracing::debug!(keystore = name, %error, "keys could not be read back");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The comparison: of the attributes, those that were recorded and that the keystore was asked for.
fn compare(key: &Key, looked: Result<Seen, KeystoreError>) -> Result<Option<String>, KeystoreError> {
    let seen = match looked {
        Ok(seen) => seen,
        Err(KeystoreError::Gone(_)) => return Ok(Some(GONE.to_owned())),
        Err(error) => return Err(error),
    };
    let public = match &seen.public {
        Ok(public) if key.public.as_ref() == Some(public) => None,
        Ok(public) => Some(format!("its public key is another one, with the thumbprint {}", public.thumbprint())),
        Err(why) => Some(why.clone()),
    };
    let attributes = key.attributes.iter().filter_map(|(name, recorded)| match seen.attributes.get(name)? {
        Some(now) if now == recorded => None,
        Some(now) => Some(format!("{name} is {now}, was {recorded}")),
        None => Some(format!("{name} is not reported, was {recorded}")),
    });
    let differences: Vec<String> = public.into_iter().chain(attributes).collect();
    Ok((!differences.is_empty()).then(|| one_line(&differences.join("; "))))
}

/// What the format takes: a label may be anything.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    line[..line.floor_char_boundary(LONGEST_FOUND)].to_owned()
}

/// Records what was found, if the log does not say so already, by the newest state: the key may have rotated or gone meanwhile.
async fn record(keys: &KeyLog, key: &Key, found: Option<String>) -> Result<(), AppendError> {
    let Some(kid) = key.kid.clone() else { return Ok(()) };
    let news = move |keyrings: &Keyrings| keyrings.key(&kid).and_then(|(keyring, key)| news(&keyring.name, key, found.as_deref()));
    match news(&keys.snapshot().keyrings) {
        None => return Ok(()),
        Some(Event::KeyDrifted(drifted)) => tracing::error!(
            keyring = drifted.keyring,
            kid = drifted.kid,
            found = drifted.found,
            "a key in its keystore is not what was recorded of it; it is used as before until an operator decides"
        ),
        Some(_) => tracing::info!(kid = key.kid, "a key in its keystore is again what was recorded of it"),
    }
    keys.append(Asked::default(), move |keyrings, _| Ok(news(keyrings).into_iter().collect())).await.map(drop)
}

/// The event that says so, if that is no repetition.
fn news(keyring: &str, key: &Key, found: Option<&str>) -> Option<Event> {
    let (keyring, kid) = (keyring.to_owned(), key.kid.clone().filter(|_| key.is_to_conform())?);
    match (key.drift.as_ref().map(|drift| drift.found.as_str()), found) {
        (known, Some(found)) if known != Some(found) => Some(Event::KeyDrifted(KeyDrifted { keyring, kid, found: found.to_owned() })),
        (Some(_), None) => Some(Event::KeyConforms(KeyConforms { keyring, kid })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use claviger_audit::Algorithm;
    use claviger_audit::Timestamp;
    use claviger_audit::jwk::PublicKey;
    use claviger_audit::keyrings::{Drift, State};

    use super::*;

    fn public(byte: u8) -> PublicKey {
        PublicKey::from_ed25519(&[byte; 32])
    }

    /// A key as `key.created` recorded it.
    fn key(attributes: &[(&str, &str)]) -> Key {
        let owned = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Key {
            name: "prod.access.1-00c0ffee".parse().ok(),
            kid: Some(public(1).thumbprint()),
            public: Some(public(1)),
            algorithm: Algorithm::EdDSA,
            keystore: "hsm".into(),
            locator: Some("1".into()),
            attributes: Arc::new(owned.collect()),
            state: State::Active,
            history: Vec::new(),
            served: BTreeMap::new(),
            earliest_activation: None,
            activated: None,
            stopped: None,
            withdraw_after: None,
            destroy_after: None,
            compromised_since: None,
            drift: None,
        }
    }

    fn seen(attributes: &[(&str, Option<&str>)]) -> Seen {
        let owned = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
        Seen { public: Ok(public(1)), attributes: owned.collect() }
    }

    const RECORDED: [(&str, &str); 2] = [("extractable", "false"), ("label", "prod.access.1-00c0ffee")];
    const SAME: [(&str, Option<&str>); 2] = [("extractable", Some("false")), ("label", Some("prod.access.1-00c0ffee"))];

    #[test]
    fn a_key_that_is_as_recorded_is_no_news() {
        assert_eq!(compare(&key(&RECORDED), Ok(seen(&SAME))), Ok(None));
        // What was not recorded then, and what this keystore is not asked for any more, cannot differ.
        assert_eq!(compare(&key(&RECORDED[..1]), Ok(seen(&SAME))), Ok(None));
        assert_eq!(compare(&key(&[]), Ok(seen(&[("extractable", Some("true"))]))), Ok(None));
        assert_eq!(compare(&key(&RECORDED), Ok(seen(&SAME[..1]))), Ok(None));
    }

    #[test]
    fn every_difference_is_told_in_one_line() {
        let found = |seen: Seen| compare(&key(&RECORDED), Ok(seen)).expect("an answer").expect("a difference");
        assert_eq!(found(seen(&[("extractable", Some("true")), SAME[1]])), "extractable is true, was false");
        assert_eq!(found(seen(&[("extractable", None), SAME[1]])), "extractable is not reported, was false");
        let other = Seen { public: Ok(public(2)), ..seen(&[("extractable", Some("true")), ("label", Some("x"))]) };
        let text = format!(
            "its public key is another one, with the thumbprint {}; extractable is true, was false; label is x, was {}",
            public(2).thumbprint(),
            RECORDED[1].1
        );
        assert_eq!(found(other), text);
        let torn = Seen { public: Err("more than one public key has its id".into()), ..seen(&SAME) };
        assert_eq!(found(torn), "more than one public key has its id");
        assert_eq!(compare(&key(&RECORDED), Err(KeystoreError::Gone("x".into()))), Ok(Some(GONE.to_owned())));
    }

    /// The log takes one line of a limited length, and no secret can be in it but what somebody wrote into a label.
    #[test]
    fn whatever_a_label_is_the_line_can_be_recorded() {
        let long = format!("a\nb\0{}", "é".repeat(LONGEST_FOUND));
        let found = compare(&key(&RECORDED), Ok(seen(&[SAME[0], ("label", Some(&long))]))).unwrap().unwrap();
        assert!(found.starts_with("label is a\u{fffd}b\u{fffd}é"), "{found}");
        assert!(found.len() <= LONGEST_FOUND && found.len() > LONGEST_FOUND - 2 && !found.contains(char::is_control));
    }

    #[test]
    fn only_news_of_keys_that_matter_are_recorded() {
        let named = |state, known: Option<&str>, found| {
            let drift = known.map(|found| Drift { found: found.into(), since: Timestamp::default() });
            news("access", &Key { state, drift, ..key(&[]) }, found).map(|event| event.name())
        };
        for (known, found, event) in [
            (None, None, None),
            (None, Some("x"), Some("key.drifted")),
            (Some("x"), Some("x"), None),
            (Some("x"), Some("y"), Some("key.drifted")),
            (Some("x"), None, Some("key.conforms")),
        ] {
            assert_eq!(named(State::Active, known, found), event, "{known:?} {found:?}");
            // Withdrawn meanwhile, compromised, given up: it may be destroyed by now, and that is as it should be.
            for over in [State::Withdrawn, State::Compromised, State::Abandoned, State::Destroyed] {
                assert_eq!(named(over, known, found), None, "{over:?}");
            }
        }
    }

    #[test]
    fn a_keystore_that_does_not_answer_says_nothing_about_the_key() {
        for error in [
            KeystoreError::Retry("x".into()),
            KeystoreError::Unavailable { reason: "x".into(), after: Duration::ZERO },
            KeystoreError::Rejected("wrong PIN".into()),
            KeystoreError::Unanswered,
            KeystoreError::Overloaded,
        ] {
            assert_eq!(compare(&key(&RECORDED), Err(error.clone())), Err(error));
        }
    }
}
