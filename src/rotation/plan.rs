//! What to do next: a pure function of the keyrings, the time and the conditions.
//!
//! In scope: the one next step, or until when there is none. It is level-triggered: it looks at what is, not at what was done before, so a
//! restart, a lost step and a repeated step need no code of their own. Every event is legal at exactly the given time, so the same
//! function serves again inside the append, with the record's own time. Out of scope: doing anything, and operators' verbs
//! ([`super::verbs`]).
//!
//! Each keyring offers what it could do and from when on. What is due is done, records before keystore calls over all keyrings, so a dead
//! keystore never delays a withdrawal and never blocks a keyring that lives elsewhere. The earliest date of the rest is the wake: it lies
//! in the future because it is not due, and passing it changes the plan because a step hangs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger_audit::event::{Event, KeyAbandoned, KeyPublished, KeyRequested, KeyRotated, KeyWithdrawn, RotationReason};
use claviger_audit::jwks::{self, MOST_KEYS_IN_SET, SetName};
use claviger_audit::keyrings::{Key, Keyring, Keyrings, State};
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};

/// What the shell knows and the log does not.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Keystores whose last call failed, and when to ask each again. An entry goes when the keystore answers, and not before: health is
    /// asked all the time.
    pub unavailable: &'a BTreeMap<String, Timestamp>,
    /// Keys that their keystore refused to make or destroy while it works for others, and when to ask for each again: else one key
    /// that it never will make would keep all others of that keystore waiting.
    pub refused: &'a BTreeMap<KeyName, Timestamp>,
    /// Keystores in which a step is under way: each does one at a time, so that a key is never made or destroyed twice at once. The end of
    /// the step changes the plan.
    pub busy: &'a BTreeSet<String>,
    /// Whether dates count.
    pub dates: DateGate,
    /// Random, for the name of a key that may be requested now.
    pub claim: u32,
}

/// Whether the wall clock is trusted (I12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateGate {
    /// It is.
    Open,
    /// After a start: what fell due while nobody watched the clock waits until D + e of monotonic time has passed without a step.
    Held {
        /// The time of the start; dates up to here are held.
        due_before: Timestamp,
        /// When they count.
        until: Timestamp,
    },
    /// The clock was stepped: nothing transitions until it settles.
    Paused,
}

impl DateGate {
    /// When a date counts; `None` while nothing does.
    fn opens(self, date: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Held { due_before, until } if date <= due_before => Some(date.max(until)),
            Self::Open | Self::Held { .. } => Some(date),
            Self::Paused => None,
        }
    }
}

/// The one next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Write this record.
    Append(Event),
    /// Find or create the key of this name, admit it, and write `key.created`.
    Create {
        /// Its name.
        name: KeyName,
        /// What it will sign.
        algorithm: Algorithm,
        /// Where it is to live.
        keystore: String,
    },
    /// Make the key unusable, and write `key.destroyed`.
    Destroy {
        /// Its name.
        name: KeyName,
        /// Where it lives.
        keystore: String,
        /// Where it is within its keystore; `None` if no record says that it was made, then it is looked up by name.
        locator: Option<String>,
    },
    /// Nothing is due. The date, if there is one, lies in the future; an event may come before it.
    SleepUntil(Option<Timestamp>),
}

/// The next step for all keyrings.
pub fn plan<'a>(keyrings: &'a Keyrings, now: Timestamp, conditions: &'a Conditions<'a>) -> Plan {
    let view = View { keyrings, now, conditions };
    let passes: [fn(&View<'a>, &Keyring) -> Vec<Due>; 4] = [View::records, View::disable_compromised, View::provide, View::destroy];
    let mut wake: Option<Timestamp> = None;
    for pass in passes {
        for due in keyrings.all().flat_map(|keyring| pass(&view, keyring)) {
            if due.at <= now {
                return due.step;
            }
            wake = Some(wake.map_or(due.at, |earlier| earlier.min(due.at)));
        }
    }
    Plan::SleepUntil(wake)
}

/// The sets whose body may be served now (I10). A set that was served once is always served; a new one only when it holds a key, and when
/// every keyring of it that may start with a key of age zero has done so, or cannot because its keystore does not answer.
pub fn sets_to_serve(keyrings: &Keyrings, conditions: &Conditions<'_>) -> Vec<SetName> {
    let waits = |keyring: &Keyring| {
        let refused = keyring.pending().filter_map(|key| key.name.as_ref()).any(|name| conditions.refused.contains_key(name));
        let dead = conditions.unavailable.contains_key(keyring.next_keystore());
        // A key that exists needs its keystore no more to start; records alone do that.
        let exists = keyring.pending().any(|key| matches!(key.state, State::Created | State::Published));
        keyring.retired.is_none() && keyrings.may_bootstrap(keyring) && (exists || !(dead || refused))
    };
    let members = |set: &SetName| keyrings.all().filter(|keyring| jwks::sets_of(keyring).contains(set)).any(waits);
    let may_serve = |set: &SetName| keyrings.was_served(set) || (keyrings.published_in(set) > 0 && !members(set));
    keyrings.sets().into_iter().filter(may_serve).collect()
}

/// When and why the next key of a keyring becomes active, as far as the log knows: `None` while the keyring is retired or suspended, while
/// no key is visible everywhere, or while the key that signs can and the next one could not, because its keystore does not answer.
pub(super) fn activation<'a>(
    keyrings: &'a Keyrings,
    keyring: &'a Keyring,
    now: Timestamp,
    dates: DateGate,
    unavailable: &BTreeMap<String, Timestamp>,
) -> Option<(Timestamp, &'a Key, RotationReason)> {
    let settings = keyring.timing()?.timing;
    if keyring.retired.is_some() || keyring.current().is_some_and(|key| key.state == State::Suspended) {
        return None;
    }
    if keyrings.may_bootstrap(keyring) {
        let first = keyring.pending().filter(|key| key.state == State::Published).min_by_key(|key| !keyring.fits(key))?;
        return Some((now, first, RotationReason::Bootstrap));
    }
    // Both the rotation's own date and the last of the dates that it waits for must count; it has no own date while nobody signs.
    let due = keyring.next_rotation;
    let held = due.map_or(Some(Timestamp::default()), |due| dates.opens(due))?;
    // A standby of the old algorithm or keystore is only a fallback: a due rotation gives the new one the time to be made and to age.
    let patience = settings.lead() + Duration::from_millis(settings.provisioning_budget_ms);
    let is_up = |key: &Key| !unavailable.contains_key(&key.keystore) && !keyrings.lost_keystores().contains(&key.keystore);
    let ready = |key: &'a Key| {
        if !is_up(key) && keyring.current().is_some_and(is_up) {
            return None;
        }
        let due = due.map(|due| if keyring.fits(key) { due } else { due + patience });
        let last = keyrings.eligible_at(keyring, key, now)?.max(due.unwrap_or_default());
        Some((dates.opens(last)?.max(held), key))
    };
    let first = keyring.pending().filter_map(ready).min_by_key(|(at, key)| (now.max(*at), !keyring.fits(key)));
    first.map(|(at, key)| (at, key, RotationReason::Scheduled))
}

/// The record that makes `to` the key that signs, with every date counted from `now`.
pub(super) fn rotated(keyring: &Keyring, to: &Key, reason: RotationReason, note: Option<&str>, now: Timestamp) -> Option<Event> {
    let in_force = keyring.timing()?;
    let from = keyring.current();
    Some(Event::KeyRotated(KeyRotated {
        keyring: keyring.name.clone(),
        from: from.and_then(|key| key.kid.clone()),
        to: to.kid.clone()?,
        reason,
        forced: note.is_some(),
        note: note.map(str::to_owned),
        withdraw_after: from.map(|key| now + keyring.overlap_at(key, now)),
        next_rotation: now + in_force.timing.rotate_every(),
        timing: in_force.seq,
    }))
}

/// Pending keys that a keyring no longer needs, from when on, and why.
pub(super) fn superfluous<'a>(
    keyrings: &Keyrings,
    keyring: &'a Keyring,
    now: Timestamp,
) -> Vec<(Option<Timestamp>, &'a Key, &'static str)> {
    if keyring.retired.is_some() {
        return keyring.pending().map(|key| (None, key, "the keyring is retired")).collect();
    }
    let fitting = keyring.pending().filter(|key| keyring.fits(key));
    let replaced = fitting.filter_map(|key| keyrings.eligible_at(keyring, key, now)).min();
    let others = keyring.pending().filter(|key| !keyring.fits(key));
    let (standbys, unborn): (Vec<&Key>, Vec<&Key>) = others.partition(|key| key.state == State::Published);
    let unborn = unborn.into_iter().map(|key| (None, key, "the keyring's next key is to be another"));
    // One fallback is enough; the oldest is the first that may sign.
    let second = standbys.iter().skip(1).map(|key| (None, *key, "another standby is older"));
    let fallback = standbys.first().zip(replaced).map(|(key, date)| (Some(date), *key, "a standby of the new settings may sign"));
    unborn.chain(second).chain(fallback).collect()
}

/// Something that a keyring could do, and from when on.
struct Due {
    at: Timestamp,
    step: Plan,
}

struct View<'a> {
    keyrings: &'a Keyrings,
    now: Timestamp,
    conditions: &'a Conditions<'a>,
}

impl View<'_> {
    /// Steps that only write a record.
    fn records(&self, keyring: &Keyring) -> Vec<Due> {
        if self.conditions.dates == DateGate::Paused {
            return Vec::new();
        }
        let mut steps = self.withdrawals(keyring);
        for (date, key, reason) in superfluous(self.keyrings, keyring, self.now) {
            let event = key.name.clone().map(|key| Event::KeyAbandoned(KeyAbandoned { key, reason: reason.to_owned() }));
            steps.extend(self.dated(date, event));
        }
        if let Some((at, key, reason)) = activation(self.keyrings, keyring, self.now, self.conditions.dates, self.conditions.unavailable) {
            steps.extend(rotated(keyring, key, reason, None, self.now).map(|event| Due { at, step: Plan::Append(event) }));
        }
        steps.extend(self.publications(keyring));
        steps
    }

    fn withdrawals(&self, keyring: &Keyring) -> Vec<Due> {
        let grace = keyring.timing().map(|in_force| in_force.timing.destroy_after()).unwrap_or_default();
        let retiring = keyring.keys.iter().filter(|key| key.state == State::Retiring);
        let steps = retiring.filter_map(|key| {
            let withdrawn = KeyWithdrawn { kid: key.kid.clone()?, destroy_after: self.now + grace };
            self.dated(Some(key.withdraw_after?), Some(Event::KeyWithdrawn(withdrawn)))
        });
        steps.collect()
    }

    fn publications(&self, keyring: &Keyring) -> Vec<Due> {
        let Some(in_force) = keyring.timing().filter(|_| keyring.retired.is_none()) else { return Vec::new() };
        if jwks::sets_of(keyring).iter().any(|set| self.keyrings.published_in(set) >= MOST_KEYS_IN_SET) {
            return Vec::new();
        }
        let earliest_activation = self.now + keyring.lead_at(self.now);
        let created = keyring.pending().filter(|key| key.state == State::Created);
        let steps = created.filter_map(|key| {
            let published = KeyPublished { kid: key.kid.clone()?, earliest_activation, timing: in_force.seq };
            self.dated(None, Some(Event::KeyPublished(published)))
        });
        steps.collect()
    }

    /// A compromised key is disabled at once, even while the clock is in doubt: no date decides it.
    fn disable_compromised(&self, keyring: &Keyring) -> Vec<Due> {
        let compromised = keyring.keys.iter().filter(|key| key.state == State::Compromised);
        compromised.filter_map(|key| self.destruction(key, self.now)).collect()
    }

    /// Steps that bring the next key: make what was requested, or request it.
    fn provide(&self, keyring: &Keyring) -> Vec<Due> {
        if self.conditions.dates == DateGate::Paused || keyring.retired.is_some() {
            return Vec::new();
        }
        let requested = keyring.pending().filter(|key| key.state == State::Requested);
        let creations = requested.filter_map(|key| {
            let name = key.name.clone().filter(|_| self.is_free(&key.keystore))?;
            let at = self.now.max(self.answers(&key.keystore)).max(self.accepts(&name));
            Some(Due { at, step: Plan::Create { name, algorithm: key.algorithm, keystore: key.keystore.clone() } })
        });
        creations.chain(self.request(keyring)).collect()
    }

    fn request(&self, keyring: &Keyring) -> Option<Due> {
        keyring.timing()?;
        if keyring.pending().any(|key| keyring.fits(key) && !self.is_forlorn(keyring, key)) {
            return None;
        }
        let installation = &self.keyrings.origin()?.installation;
        let number = keyring.keys.iter().map(Key::number).max().unwrap_or_default() + 1;
        // No name is left after 99,999 keys; then the keyring goes on with the keys that it has.
        let key = KeyName::new(installation, &keyring.name, number, self.conditions.claim).ok()?;
        let (keystore, algorithm) = (self.next_keystore(keyring).to_owned(), keyring.algorithm);
        let at = self.now.max(self.answers(&keystore));
        Some(Due { at, step: Plan::Append(Event::KeyRequested(KeyRequested { key, keyring: keyring.name.clone(), keystore, algorithm })) })
    }

    /// Where the next key is made. While nobody signs, that is the one of two keystores that answers.
    fn next_keystore<'k>(&self, keyring: &'k Keyring) -> &'k str {
        self.rescue(keyring).unwrap_or(keyring.next_keystore())
    }

    /// Whether a key that would do is not made, because its keystore does not answer, and nobody signs, and another one could be made at
    /// once. There are never more than two on their way.
    fn is_forlorn(&self, keyring: &Keyring, key: &Key) -> bool {
        let elsewhere = self.rescue(keyring).is_some_and(|rescue| rescue != key.keystore);
        elsewhere && key.state == State::Requested && keyring.pending().count() == 1
    }

    /// The keystore that answers, where the other of two does not and nobody signs.
    fn rescue<'k>(&self, keyring: &'k Keyring) -> Option<&'k str> {
        let is_up = |keystore: &str| !self.conditions.unavailable.contains_key(keystore);
        let other = keyring.standby_keystore.as_deref()?;
        (keyring.current().is_none() && !is_up(&keyring.keystore) && is_up(other)).then_some(other)
    }

    /// Steps that make keys unusable which are not needed any more.
    fn destroy(&self, keyring: &Keyring) -> Vec<Due> {
        let date = |key: &Key| match key.state {
            State::Abandoned => Some(self.now).filter(|_| self.conditions.dates != DateGate::Paused),
            State::Withdrawn => self.conditions.dates.opens(key.destroy_after?),
            _ => None,
        };
        keyring.keys.iter().filter_map(|key| self.destruction(key, date(key)?)).collect()
    }

    /// `None` for an imported key, which lives in no keystore of ours, and while its keystore is busy.
    fn destruction(&self, key: &Key, date: Timestamp) -> Option<Due> {
        let name = key.name.clone().filter(|_| self.is_free(&key.keystore))?;
        let at = date.max(self.answers(&key.keystore)).max(self.accepts(&name));
        Some(Due { at, step: Plan::Destroy { name, keystore: key.keystore.clone(), locator: key.locator.clone() } })
    }

    /// A record that is due from its date on, or at once without one.
    fn dated(&self, date: Option<Timestamp>, event: Option<Event>) -> Option<Due> {
        let at = date.map_or(Some(self.now), |date| self.conditions.dates.opens(date))?;
        Some(Due { at, step: Plan::Append(event?) })
    }

    fn is_free(&self, keystore: &str) -> bool {
        !self.conditions.busy.contains(keystore)
    }

    fn answers(&self, keystore: &str) -> Timestamp {
        self.conditions.unavailable.get(keystore).copied().unwrap_or_default()
    }

    fn accepts(&self, name: &KeyName) -> Timestamp {
        self.conditions.refused.get(name).copied().unwrap_or_default()
    }
}
