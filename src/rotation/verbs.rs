//! What operators may order: each verb becomes the records that carry it out, or a refusal with its rule and date.
//!
//! In scope: one pure function for each verb, whose events are legal at exactly `now`, so that it is called again with the record's own
//! time. Out of scope: who may ask (policy), and doing it.

use claviger_audit::event::{Event, KeyAbandoned, KeyCompromised, KeyImported, KeyResumed, KeySuspended, KeyringRetired, RotationReason};
use claviger_audit::jwk::PublicKey;
use claviger_audit::jwks::{self, MOST_KEYS_IN_SET, SetName};
use claviger_audit::keyrings::{Illegal, InForce, Key, Keyring, Keyrings, Rule, State};
use claviger_audit::{Algorithm, Timestamp};

use super::plan::{Plan, rotated};

/// A public key of another issuer that is to stay in a set for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the other issuer had it.
    pub kid: String,
    /// The public key.
    pub jwk: PublicKey,
    /// Its `alg`.
    pub algorithm: Algorithm,
}

/// Lets the standby sign now. `force` is the operator's reason for not waiting until I1 holds; where it holds, nothing is forced and the
/// record says so.
///
/// # Errors
///
/// I1 with the date from which on no force is needed; I6 where the set has no room for the standby that must follow.
pub fn rotate(keyrings: &Keyrings, now: Timestamp, keyring: &str, force: Option<&str>) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.rotated");
    let keyring = verb.living(keyrings, keyring)?;
    verb.in_force(keyring)?;
    verb.has_room(keyrings, keyring)?;
    let standby = keyrings.eligible_standby(keyring, now);
    let (key, note) = match (standby, force) {
        (Some(key), _) => (key, None),
        (None, Some(reason)) => (verb.first_published(keyring)?, Some(verb.reason(reason)?)),
        (None, None) => return Err(verb.too_young(keyrings, keyring, now)),
    };
    let event = rotated(keyring, key, RotationReason::OnDemand, note, now);
    event.map(|event| vec![event]).ok_or_else(|| verb.no(Rule::Form, "the standby has no kid"))
}

/// Takes a key out of its sets for good; if it could sign, the standby for which I1 holds signs from now on, else nobody does.
///
/// # Errors
///
/// I11 for a key that is compromised, abandoned or destroyed already; form for a `since` in the future or an empty reason.
pub fn compromise(keyrings: &Keyrings, now: Timestamp, kid: &str, since: Timestamp, reason: &str) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.compromised");
    let (keyring, key) = verb.key(keyrings, kid)?;
    let ended = [State::Compromised, State::Abandoned, State::Destroyed];
    verb.need(!ended.contains(&key.state), Rule::I11, || format!("the key is already {}", key.state.name()))?;
    verb.need(since <= now, Rule::Form, || format!("`since` is {since}, which lies in the future"))?;
    let in_force = verb.in_force(keyring)?;
    let could_sign = matches!(key.state, State::Active | State::Suspended);
    let standby = keyrings.eligible_standby(keyring, now).filter(|_| could_sign && keyring.retired.is_none());
    let to = standby.and_then(|key| key.kid.clone());
    let next_rotation = to.is_some().then(|| now + in_force.timing.rotate_every());
    let (kid, reason) = (verb.kid(key)?, verb.reason(reason)?.to_owned());
    Ok(vec![Event::KeyCompromised(KeyCompromised { kid, since, to, reason, next_rotation, timing: in_force.seq })])
}

/// Stops the active key from signing until it is resumed; it stays published and nobody takes its place.
///
/// # Errors
///
/// I11 for a key that is not active.
pub fn suspend(keyrings: &Keyrings, kid: &str, reason: &str) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.suspended");
    let (_, key) = verb.key(keyrings, kid)?;
    let advice = if key.state == State::Published { "; a standby is abandoned, not suspended" } else { "" };
    verb.need(key.state == State::Active, Rule::I11, || format!("the key is {}, not active{advice}", key.state.name()))?;
    Ok(vec![Event::KeySuspended(KeySuspended { kid: verb.kid(key)?, reason: verb.reason(reason)?.to_owned() })])
}

/// Lets a suspended key sign again.
///
/// # Errors
///
/// I11 for a key that is not suspended.
pub fn resume(keyrings: &Keyrings, kid: &str, reason: &str) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.resumed");
    let (_, key) = verb.key(keyrings, kid)?;
    verb.need(key.state == State::Suspended, Rule::I11, || format!("the key is {}, not suspended", key.state.name()))?;
    Ok(vec![Event::KeyResumed(KeyResumed { kid: verb.kid(key)?, reason: verb.reason(reason)?.to_owned() })])
}

/// Whether a key, by kid or name, may be destroyed now: withdrawn and past its grace, compromised, or abandoned. The answer is the step
/// to take, always a [`Plan::Destroy`].
///
/// # Errors
///
/// I3 while a token of the key may be alive, I11 during its grace, both with the date; I11 without one while it is in use.
pub fn destroy(keyrings: &Keyrings, now: Timestamp, key: &str) -> Result<Plan, Illegal> {
    let verb = Verb("key.destroyed");
    let (keyring, key) = verb.key(keyrings, key)?;
    let name = key.name.clone().ok_or_else(|| verb.no(Rule::Form, "the key was imported; it lives in no keystore of ours"))?;
    match (key.state, key.destroy_after) {
        (State::Compromised | State::Abandoned, _) => {}
        (State::Withdrawn, date) if date.is_none_or(|date| date <= now) => {}
        (State::Withdrawn, Some(date)) => return Err(verb.until(Rule::I11, date, format!("the key may be destroyed only from {date} on"))),
        (State::Retiring, _) => {
            let withdrawal = key.withdraw_after.unwrap_or(now);
            let grace = keyring.timing().map(|in_force| in_force.timing.destroy_after()).unwrap_or_default();
            let text = format!("tokens that the key signed may be alive until {withdrawal}, and its grace follows");
            return Err(verb.until(Rule::I3, now.max(withdrawal) + grace, text));
        }
        (state, _) => {
            let text = format!("the key is {}; rotate, abandon or compromise it first", state.name());
            return Err(verb.no(Rule::I11, text));
        }
    }
    Ok(Plan::Destroy { name, keystore: key.keystore.clone(), locator: key.locator.clone() })
}

/// Gives up a key, by kid or name, that never signed.
///
/// # Errors
///
/// I11 for a key that is active or was.
pub fn abandon(keyrings: &Keyrings, key: &str, reason: &str) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.abandoned");
    let (_, key) = verb.key(keyrings, key)?;
    verb.need(key.state.is_pending(), Rule::I11, || format!("the key is {}; only a key that never signed is abandoned", key.state.name()))?;
    let name = key.name.clone().ok_or_else(|| verb.no(Rule::Form, "the key has no name"))?;
    Ok(vec![Event::KeyAbandoned(KeyAbandoned { key: name, reason: verb.reason(reason)?.to_owned() })])
}

/// Ends a keyring: nobody signs from now on, no key follows, and the last one leaves by I3.
///
/// # Errors
///
/// Form for an unknown or retired keyring, or an empty reason.
pub fn retire(keyrings: &Keyrings, now: Timestamp, keyring: &str, reason: &str) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("keyring.retired");
    let keyring = verb.living(keyrings, keyring)?;
    let withdraw_after = keyring.current().map(|key| now + keyring.overlap_at(key, now));
    let reason = verb.reason(reason)?.to_owned();
    Ok(vec![Event::KeyringRetired(KeyringRetired { keyring: keyring.name.clone(), reason, withdraw_after })])
}

/// Publishes another issuer's public keys beside ours until a date: a move without an outage.
///
/// # Errors
///
/// Form for a kid that is known or a key that does not fit its algorithm; I6 where the set would be left without room for our own keys.
pub fn import(
    keyrings: &Keyrings,
    now: Timestamp,
    keyring: &str,
    entries: &[Entry],
    until: Timestamp,
    reason: &str,
) -> Result<Vec<Event>, Illegal> {
    let verb = Verb("key.imported");
    let keyring = verb.living(keyrings, keyring)?;
    verb.in_force(keyring)?;
    verb.need(until > now, Rule::Form, || format!("`until` is {until}, which does not lie in the future"))?;
    let reason = verb.reason(reason)?;
    for (index, entry) in entries.iter().enumerate() {
        let twice = entries[..index].iter().any(|other| other.kid == entry.kid);
        verb.need(!twice && keyrings.key(&entry.kid).is_none(), Rule::Form, || format!("kid {:?} is known already", entry.kid))?;
        let sound = entry.jwk.check().is_ok() && entry.jwk.fits(entry.algorithm);
        verb.need(sound, Rule::Form, || format!("kid {:?} is not a sound key for {}", entry.kid, entry.algorithm))?;
    }
    for set in jwks::sets_of(keyring) {
        let (size, reserved) = (keyrings.published_in(&set), 2 * members(keyrings, &set).count());
        let text = || format!("{set} has {size} keys; {} more would leave no room for its own", entries.len());
        verb.need(size + reserved + entries.len() <= MOST_KEYS_IN_SET, Rule::I6, text)?;
    }
    let event = |entry: &Entry| {
        let Entry { kid, jwk, algorithm } = entry.clone();
        Event::KeyImported(KeyImported { keyring: keyring.name.clone(), kid, jwk, algorithm, until, reason: reason.to_owned() })
    };
    Ok(entries.iter().map(event).collect())
}

fn members<'a>(keyrings: &'a Keyrings, set: &'a SetName) -> impl Iterator<Item = &'a Keyring> {
    keyrings.all().filter(move |keyring| keyring.retired.is_none() && jwks::sets_of(keyring).contains(set))
}

/// The record that a verb would write, which its refusals name.
#[derive(Clone, Copy)]
struct Verb(&'static str);

impl Verb {
    fn no(self, rule: Rule, text: impl Into<String>) -> Illegal {
        Illegal { rule, event: self.0, text: text.into(), until: None }
    }

    fn until(self, rule: Rule, date: Timestamp, text: String) -> Illegal {
        Illegal { until: Some(date), ..self.no(rule, text) }
    }

    fn need(self, holds: bool, rule: Rule, text: impl FnOnce() -> String) -> Result<(), Illegal> {
        if holds { Ok(()) } else { Err(self.no(rule, text())) }
    }

    fn reason(self, reason: &str) -> Result<&str, Illegal> {
        let reason = reason.trim();
        self.need(!reason.is_empty(), Rule::Form, || "a reason is needed; it is recorded".to_owned())?;
        Ok(reason)
    }

    fn living<'a>(self, keyrings: &'a Keyrings, name: &str) -> Result<&'a Keyring, Illegal> {
        let keyring = keyrings.keyring(name).ok_or_else(|| self.no(Rule::Form, format!("no keyring is called {name:?}")))?;
        self.need(keyring.retired.is_none(), Rule::Form, || format!("keyring {name:?} is retired"))?;
        Ok(keyring)
    }

    fn key<'a>(self, keyrings: &'a Keyrings, text: &str) -> Result<(&'a Keyring, &'a Key), Illegal> {
        let named = || keyrings.key_named(&text.parse().ok()?);
        keyrings.key(text).or_else(named).ok_or_else(|| self.no(Rule::Form, format!("no key has the kid or name {text:?}")))
    }

    fn kid(self, key: &Key) -> Result<String, Illegal> {
        key.kid.clone().ok_or_else(|| self.no(Rule::I11, "the key has not been created yet; abandon it by its name"))
    }

    fn in_force(self, keyring: &Keyring) -> Result<&InForce, Illegal> {
        keyring.timing().ok_or_else(|| self.no(Rule::I8, "no settings are in force yet"))
    }

    /// I6: after a rotation every keyring of the set needs room for one standby.
    fn has_room(self, keyrings: &Keyrings, keyring: &Keyring) -> Result<(), Illegal> {
        for set in jwks::sets_of(keyring) {
            let standbys = |other: &Keyring| other.pending().filter(|key| key.state == State::Published).count();
            let needs = |other: &&Keyring| standbys(other) < 1 + usize::from(other.name == keyring.name);
            let (size, needed) = (keyrings.published_in(&set), members(keyrings, &set).filter(needs).count());
            if size + needed > MOST_KEYS_IN_SET {
                let leaving = members(keyrings, &set).flat_map(Keyring::published).filter(|key| key.state == State::Retiring);
                let first = leaving.filter_map(|key| key.withdraw_after).min();
                let text = format!("{set} has {size} keys and must keep room for {needed} standby keys; {MOST_KEYS_IN_SET} are allowed");
                return Err(Illegal { until: first, ..self.no(Rule::I6, text) });
            }
        }
        Ok(())
    }

    /// The key that is forced to sign before its time: the oldest published one, of the new settings if there is one.
    fn first_published(self, keyring: &Keyring) -> Result<&Key, Illegal> {
        let published = keyring.pending().filter(|key| key.state == State::Published);
        let first = published.min_by_key(|key| !keyring.fits(key));
        first.ok_or_else(|| self.no(Rule::I1, "no standby is published yet; there is nothing to rotate to, even by force"))
    }

    fn too_young(self, keyrings: &Keyrings, keyring: &Keyring, now: Timestamp) -> Illegal {
        let dates = keyring.pending().filter_map(|key| keyrings.eligible_at(keyring, key, now));
        match dates.min() {
            Some(date) => self.until(Rule::I1, date, format!("not every verifier knows the standby before {date}")),
            None => self.no(Rule::I1, "no standby is served by every node yet"),
        }
    }
}
