//! The transition table: what each event does to the keyrings, and when it is illegal.
//!
//! In scope: every rule that the key log alone can break, each named after its invariant. Out of scope: the chain, the checkpoints and the
//! use log. `apply` either does the whole transition or refuses and leaves the state as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rule::{Illegal, No, Rule, need, no, not_before};
use super::{InForce, Key, Keyring, Keyrings, Served, State};
use crate::event::{self, Event, Purpose, RotationReason};
use crate::jwk::PublicKey;
use crate::jwks::{self, MOST_KEYS_IN_SET, SetName};
use crate::merkle::Hash;
use crate::names::{KeyName, is_label, is_successor};
use crate::record::Record;
use crate::time::Timestamp;

/// Seq and time of the record that is being applied.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
}

impl Keyrings {
    /// Applies the next record of the key log.
    ///
    /// # Errors
    ///
    /// [`Illegal`] names the invariant that the event would break; the state is then unchanged.
    pub fn apply(&mut self, record: &Record) -> Result<(), Illegal> {
        let at = At { seq: record.seq, time: record.time };
        let done = self.check_place(record).and_then(|()| self.transition(record, at));
        done.map_err(|No(rule, text, until)| Illegal { rule, event: record.event.name(), text, until })?;
        self.size = record.seq + 1;
        self.last_time = record.time;
        Ok(())
    }

    fn check_place(&self, record: &Record) -> Result<(), No> {
        need(record.seq == self.size, Rule::Form, format_args!("record {} where {} was due", record.seq, self.size))?;
        let is_first = matches!(record.event, Event::LogCreated(_));
        need(is_first == (self.size == 0), Rule::Form, "log.created is the first record and no other")?;
        self.check_adoption(record)?;
        need(record.time >= self.last_time, Rule::I12, format_args!("time {} is before {}", record.time, self.last_time))
    }

    fn transition(&mut self, record: &Record, at: At) -> Result<(), No> {
        match &record.event {
            Event::LogCreated(e) => self.log_created(e),
            Event::LogAdopted(e) => self.log_adopted(e, at),
            Event::KeyringCreated(e) => self.keyring_created(e),
            Event::KeyringChanged(e) => self.keyring_changed(e),
            Event::KeyringTiming(e) => self.keyring_timing(e, at),
            Event::KeyringRetired(e) => self.keyring_retired(e, at),
            Event::KeyRequested(e) => self.requested(e, at),
            Event::KeyCreated(e) => self.created(e, at),
            Event::KeyPublished(e) => self.published(e, at),
            Event::KeyRotated(e) => self.rotated(e, at),
            Event::KeySuspended(e) => self.suspended(e, at),
            Event::KeyResumed(e) => self.resumed(e, at),
            Event::KeyCompromised(e) => self.compromised(e, at),
            Event::KeyWithdrawn(e) => self.withdrawn(e, at),
            Event::KeyDestroyed(e) => self.destroyed(e, at),
            Event::KeyAbandoned(e) => self.abandoned(e, at),
            Event::KeyImported(e) => self.imported(e, at),
            Event::JwksServed(e) => self.jwks_served(e, &record.node, at),
            Event::UsesHead(e) => self.uses_head(e, at),
            Event::UsesPruned(e) => self.uses_pruned(e),
            Event::SubjectErased(e) => self.subject_erased(e),
            Event::DaemonStart(_) => {
                self.nodes.insert(record.node.clone(), None);
                Ok(())
            }
            Event::DaemonStop(_) => {
                self.nodes.insert(record.node.clone(), Some(at.time));
                Ok(())
            }
            Event::ClockConfirmed(e) => need(!e.reason.trim().is_empty(), Rule::Form, "confirming a clock needs a reason"),
            // The rest changes no key's state.
            _ => self.noticed(record, at),
        }
    }

    fn keyring_created(&mut self, e: &event::KeyringCreated) -> Result<(), No> {
        let name = &e.keyring;
        need(is_label(name) && name != crate::names::LOG_KEYRING, Rule::Form, format_args!("{name:?} is not a keyring name"))?;
        need(!self.rings.contains_key(name), Rule::Form, format_args!("keyring {name:?} exists, or existed; a name is never used again"))?;
        let is_jwt = e.purpose == Purpose::Jwt;
        need(e.issuer.is_some() == is_jwt && e.issuer_url.is_some() == is_jwt, Rule::Form, "a jwt keyring, and no other, has an issuer")?;
        check_two(&e.keystore, e.standby_keystore.as_deref())?;
        let keyring = Keyring {
            name: name.clone(),
            purpose: e.purpose,
            issuer: e.issuer.clone(),
            issuer_url: e.issuer_url.clone(),
            typ: e.typ.clone(),
            algorithm: e.algorithm,
            keystore: e.keystore.clone(),
            standby_keystore: e.standby_keystore.clone(),
            timings: Vec::new(),
            keys: Vec::new(),
            next_rotation: None,
            was_active: false,
            retired: None,
        };
        self.rings.insert(name.clone(), keyring);
        Ok(())
    }

    fn keyring_changed(&mut self, e: &event::KeyringChanged) -> Result<(), No> {
        check_two(&e.keystore, e.standby_keystore.as_deref())?;
        let keyring = self.living(&e.keyring)?;
        keyring.algorithm = e.algorithm;
        keyring.keystore.clone_from(&e.keystore);
        keyring.standby_keystore.clone_from(&e.standby_keystore);
        Ok(())
    }

    fn keyring_timing(&mut self, e: &event::KeyringTiming, at: At) -> Result<(), No> {
        if let Some(broken) = e.timing.broken().first() {
            let rule = match broken.rule {
                "I1" => Rule::I1,
                "I2" => Rule::I2,
                "I4" => Rule::I4,
                "I5" => Rule::I5,
                _ => Rule::I8,
            };
            return Err(no(rule, format_args!("{} does not hold: {} ms < {} ms", broken.inequality, broken.left_ms, broken.right_ms)));
        }
        self.living(&e.keyring)?.timings.push(InForce { seq: at.seq, since: at.time, timing: e.timing });
        Ok(())
    }

    fn keyring_retired(&mut self, e: &event::KeyringRetired, at: At) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "a retirement needs a reason")?;
        let keyring = self.living(&e.keyring)?;
        let stopping = keyring.current().map(|key| (key.kid.clone().unwrap_or_default(), at.time + keyring.overlap_at(key, at.time)));
        match (&stopping, e.withdraw_after) {
            (None, None) => {}
            (Some((_, least)), Some(date)) => check_date(Rule::I3, "withdraw_after", date, *least)?,
            _ => return Err(no(Rule::Form, "withdraw_after is there exactly when a key could sign")),
        }
        if let (Some((kid, _)), Some(date)) = (stopping, e.withdraw_after) {
            stop_signing(keyring, &kid, State::Retiring, at, Some(date));
        }
        keyring.retired = Some(at.time);
        keyring.next_rotation = None;
        Ok(())
    }

    fn requested(&mut self, e: &event::KeyRequested, at: At) -> Result<(), No> {
        let installation = self.origin.as_ref().map(|o| o.installation.clone()).unwrap_or_default();
        need(!self.names.contains(&e.key), Rule::Form, format_args!("key name {} was used before", e.key))?;
        let keyring = self.living(&e.keyring)?;
        need(keyring.timing().is_some(), Rule::I8, "no settings are in force yet")?;
        need(
            e.key.installation() == installation && e.key.keyring() == keyring.name,
            Rule::Form,
            format_args!("{} is not a name for this keyring", e.key),
        )?;
        let due = keyring.keys.iter().map(Key::number).max().unwrap_or_default() + 1;
        need(e.key.number() == due, Rule::Form, format_args!("key number {} where {due} was due", e.key.number()))?;
        need(keyring.pending().count() < MOST_PENDING, Rule::I6, format_args!("{MOST_PENDING} keys are already on their way"))?;
        keyring.keys.push(Key {
            name: Some(e.key.clone()),
            kid: None,
            public: None,
            algorithm: e.algorithm,
            keystore: e.keystore.clone(),
            locator: None,
            attributes: Arc::default(),
            state: State::Requested,
            history: vec![(at.seq, at.time, State::Requested)],
            served: BTreeMap::new(),
            earliest_activation: None,
            activated: None,
            stopped: None,
            withdraw_after: None,
            destroy_after: None,
            compromised_since: None,
            drift: None,
        });
        self.names.insert(e.key.clone());
        Ok(())
    }

    fn created(&mut self, e: &event::KeyCreated, at: At) -> Result<(), No> {
        need(!self.kids.contains_key(&e.kid), Rule::Form, format_args!("kid {} was seen before", e.kid))?;
        check_public(&e.jwk, &e.kid)?;
        let key = self.named(&e.key)?;
        need(key.state == State::Requested, Rule::I11, format_args!("key {} is {}, not requested", e.key, key.state.name()))?;
        need(e.jwk.fits(key.algorithm), Rule::Form, format_args!("the public key does not fit {}", key.algorithm))?;
        key.kid = Some(e.kid.clone());
        key.public = Some(e.jwk.clone());
        key.locator = Some(e.locator.clone());
        key.attributes = Arc::new(e.attributes.clone());
        enter(key, State::Created, at);
        self.kids.insert(e.kid.clone(), e.key.keyring().to_owned());
        Ok(())
    }

    fn published(&mut self, e: &event::KeyPublished, at: At) -> Result<(), No> {
        let (name, index) = self.place(&e.kid)?;
        let keyring = &self.rings[&name];
        need(keyring.retired.is_none(), Rule::Form, "the keyring is retired")?;
        in_state(&keyring.keys[index], &[State::Created])?;
        in_force(keyring, e.timing)?;
        check_date(Rule::I1, "earliest_activation", e.earliest_activation, at.time + keyring.lead_at(at.time))?;
        for set in jwks::sets_of(keyring) {
            self.room_in(&set)?;
        }
        let key = self.key_mut(&name, index);
        key.earliest_activation = Some(e.earliest_activation);
        enter(key, State::Published, at);
        Ok(())
    }

    fn rotated(&mut self, e: &event::KeyRotated, at: At) -> Result<(), No> {
        let (name, index) = self.place(&e.to)?;
        let keyring = &self.rings[&name];
        need(name == e.keyring && keyring.retired.is_none(), Rule::Form, "the key belongs to another keyring, or its keyring is retired")?;
        need(
            e.forced == e.note.as_ref().is_some_and(|n| !n.trim().is_empty()),
            Rule::I1,
            "a forced rotation, and no other, carries the operator's reason",
        )?;
        need(
            keyring.current().and_then(|key| key.kid.as_deref()) == e.from.as_deref(),
            Rule::I11,
            "`from` is the key that is active or suspended, if there is one",
        )?;
        in_state(&keyring.keys[index], &[State::Published])?;
        let timing = in_force(keyring, e.timing)?;
        self.may_activate(keyring, &keyring.keys[index], e, at)?;
        check_date(Rule::I8, "next_rotation", e.next_rotation, at.time + timing.timing.rotate_every())?;
        match (keyring.current(), e.withdraw_after) {
            (None, None) => {}
            (Some(stopping), Some(date)) => check_date(Rule::I3, "withdraw_after", date, at.time + keyring.overlap_at(stopping, at.time))?,
            _ => return Err(no(Rule::Form, "withdraw_after is there exactly when `from` is")),
        }
        let keyring = self.rings.get_mut(&name).ok_or_else(|| no(Rule::Form, "unknown keyring"))?;
        if let Some(from) = &e.from {
            stop_signing(keyring, from, State::Retiring, at, e.withdraw_after);
        }
        activate(keyring, index, e.next_rotation, at);
        Ok(())
    }

    /// I1 for the key that a rotation activates, and I8 for the rotation's own date.
    fn may_activate(&self, keyring: &Keyring, key: &Key, e: &event::KeyRotated, at: At) -> Result<(), No> {
        if e.forced {
            return need(e.reason == RotationReason::OnDemand, Rule::I1, "only a rotation on demand may be forced");
        }
        if e.reason == RotationReason::Bootstrap {
            return need(self.may_bootstrap(keyring), Rule::I1, "bootstrap, but a set that contains this keyring was served before");
        }
        if let (RotationReason::Scheduled, Some(current)) = (e.reason, keyring.current()) {
            need(current.state == State::Active, Rule::I11, "a scheduled rotation waits while the key is suspended")?;
            not_before(Rule::I8, keyring.next_rotation.unwrap_or_default(), at.time, "the rotation is due")?;
        }
        match self.eligible_at(keyring, key, at.time) {
            Some(date) => not_before(Rule::I1, date, at.time, "every verifier knows the key"),
            None => Err(no(Rule::I1, "the key is not served everywhere yet")),
        }
    }

    fn suspended(&mut self, e: &event::KeySuspended, at: At) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "a suspension needs a reason")?;
        let (name, index) = self.place(&e.kid)?;
        in_state(&self.rings[&name].keys[index], &[State::Active])?;
        enter(self.key_mut(&name, index), State::Suspended, at);
        Ok(())
    }

    fn resumed(&mut self, e: &event::KeyResumed, at: At) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "resuming needs a reason")?;
        let (name, index) = self.place(&e.kid)?;
        in_state(&self.rings[&name].keys[index], &[State::Suspended])?;
        enter(self.key_mut(&name, index), State::Active, at);
        Ok(())
    }

    fn compromised(&mut self, e: &event::KeyCompromised, at: At) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "a compromise needs a reason")?;
        need(e.since <= at.time, Rule::Form, "`since` lies in the future")?;
        let (name, index) = self.place(&e.kid)?;
        let keyring = &self.rings[&name];
        let key = &keyring.keys[index];
        let ended = [State::Compromised, State::Abandoned, State::Destroyed];
        need(!ended.contains(&key.state), Rule::I11, format_args!("the key is already {}", key.state.name()))?;
        let timing = in_force(keyring, e.timing)?;
        let could_sign = matches!(key.state, State::Active | State::Suspended);
        let standby = keyring.retired.is_none().then(|| self.eligible_standby(keyring, at.time)).flatten();
        let successor = standby.filter(|_| could_sign).and_then(|key| key.kid.as_deref());
        need(
            successor == e.to.as_deref(),
            Rule::I1,
            format_args!("`to` must be {successor:?}: the standby for which I1 holds, if the key could sign"),
        )?;
        need(e.to.is_some() == e.next_rotation.is_some(), Rule::Form, "next_rotation is there exactly when `to` is")?;
        if let Some(date) = e.next_rotation {
            check_date(Rule::I8, "next_rotation", date, at.time + timing.timing.rotate_every())?;
        }
        let to = e.to.as_ref().map(|kid| self.place(kid)).transpose()?;
        let keyring = self.rings.get_mut(&name).ok_or_else(|| no(Rule::Form, "unknown keyring"))?;
        stop_signing(keyring, &e.kid, State::Compromised, at, None);
        keyring.keys[index].compromised_since = Some(e.since);
        if could_sign {
            keyring.next_rotation = None;
        }
        if let (Some((_, to)), Some(date)) = (to, e.next_rotation) {
            activate(keyring, to, date, at);
        }
        Ok(())
    }

    fn withdrawn(&mut self, e: &event::KeyWithdrawn, at: At) -> Result<(), No> {
        let (name, index) = self.place(&e.kid)?;
        let keyring = &self.rings[&name];
        let key = &keyring.keys[index];
        in_state(key, &[State::Retiring])?;
        not_before(Rule::I3, key.withdraw_after.unwrap_or(at.time), at.time, "the last token of the key is dead")?;
        let grace = keyring.timing().map(|t| t.timing.destroy_after()).unwrap_or_default();
        check_date(Rule::I8, "destroy_after", e.destroy_after, at.time + grace)?;
        let key = self.key_mut(&name, index);
        key.destroy_after = Some(e.destroy_after);
        enter(key, State::Withdrawn, at);
        Ok(())
    }

    fn destroyed(&mut self, e: &event::KeyDestroyed, at: At) -> Result<(), No> {
        let key = self.named(&e.key)?;
        in_state(key, &[State::Withdrawn, State::Compromised, State::Abandoned])?;
        if key.state == State::Withdrawn {
            not_before(Rule::I11, key.destroy_after.unwrap_or(at.time), at.time, "the key may be destroyed")?;
        }
        enter(key, State::Destroyed, at);
        Ok(())
    }

    fn abandoned(&mut self, e: &event::KeyAbandoned, at: At) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "abandoning needs a reason")?;
        let key = self.named(&e.key)?;
        in_state(key, &[State::Requested, State::Created, State::Published])?;
        enter(key, State::Abandoned, at);
        Ok(())
    }

    fn imported(&mut self, e: &event::KeyImported, at: At) -> Result<(), No> {
        need(!self.kids.contains_key(&e.kid), Rule::Form, format_args!("kid {} was seen before", e.kid))?;
        need(e.until > at.time, Rule::Form, "`until` does not lie in the future")?;
        need(!e.kid.is_empty() && e.kid.len() <= LONGEST_KID, Rule::Form, "a kid has 1 to 1,024 bytes")?;
        need(e.jwk.check().is_ok() && e.jwk.fits(e.algorithm), Rule::Form, "the public key does not fit its algorithm")?;
        for set in jwks::sets_of(self.living(&e.keyring)?) {
            self.room_in(&set)?;
        }
        self.living(&e.keyring)?.keys.push(Key {
            name: None,
            kid: Some(e.kid.clone()),
            public: Some(e.jwk.clone()),
            algorithm: e.algorithm,
            keystore: String::new(),
            locator: None,
            attributes: Arc::default(),
            state: State::Retiring,
            history: vec![(at.seq, at.time, State::Retiring)],
            served: BTreeMap::new(),
            earliest_activation: None,
            activated: None,
            stopped: Some(at.time),
            withdraw_after: Some(e.until),
            destroy_after: None,
            compromised_since: None,
            drift: None,
        });
        self.kids.insert(e.kid.clone(), e.keyring.clone());
        Ok(())
    }

    fn jwks_served(&mut self, e: &event::JwksServed, node: &str, at: At) -> Result<(), No> {
        let set: SetName = e.set.parse().map_err(|error| no(Rule::Form, error))?;
        let body = jwks::body(self, &set).ok_or_else(|| no(Rule::Form, format_args!("no keyring has the set {set}")))?;
        let sha256 = Hash::digest(&body);
        need(e.size <= at.seq, Rule::Form, "it names records that do not exist yet")?;
        need(sha256 == e.sha256, Rule::I9, format_args!("the events make another body: SHA-256 {sha256}"))?;
        let place = (node.to_owned(), set.clone());
        let before = self.served.get(&place).map_or(0, |served| served.size);
        need(
            self.was_served(&set) || self.published_in(&set) > 0,
            Rule::I10,
            format_args!("{set} was never served and has no key yet; verifiers would cache an empty set"),
        )?;
        need(e.size >= before, Rule::I7, format_args!("an older set ({}) than was served before ({before})", e.size))?;
        self.served.insert(place.clone(), Served { size: e.size, sha256: e.sha256, time: at.time });
        for keyring in self.rings.values_mut().filter(|keyring| jwks::sets_of(keyring).contains(&set)) {
            for key in keyring.keys.iter_mut().filter(|key| key.state.is_published()) {
                key.served.entry(place.clone()).or_insert(at.time);
            }
        }
        Ok(())
    }

    fn uses_head(&mut self, e: &event::UsesHead, at: At) -> Result<(), No> {
        if let Some((_, before)) = self.uses_heads.get(&e.of) {
            let (same, size) = (before.origin == e.origin, before.size);
            let goes_on = same || is_successor(&e.origin, &before.origin);
            need(goes_on, Rule::Form, format_args!("the use log of {} was {}, and is {}", e.of, before.origin, e.origin))?;
            need(!same || e.size >= size, Rule::Form, format_args!("the use log of {} shrank from {size} to {}", e.of, e.size))?;
        }
        self.uses_heads.insert(e.of.clone(), (at.time, e.clone()));
        Ok(())
    }

    fn living(&mut self, name: &str) -> Result<&mut Keyring, No> {
        let keyring = self.rings.get_mut(name).ok_or_else(|| no(Rule::Form, format_args!("no keyring is called {name:?}")))?;
        need(keyring.retired.is_none(), Rule::Form, format_args!("keyring {name:?} is retired"))?;
        Ok(keyring)
    }

    fn named(&mut self, name: &KeyName) -> Result<&mut Key, No> {
        let keyring = self.rings.get_mut(name.keyring());
        let key = keyring.and_then(|keyring| keyring.keys.iter_mut().find(|key| key.name.as_ref() == Some(name)));
        key.ok_or_else(|| no(Rule::Form, format_args!("no key is called {name}")))
    }

    pub(super) fn place(&self, kid: &str) -> Result<(String, usize), No> {
        let found = self.kids.get(kid).and_then(|ring| {
            let index = self.rings.get(ring)?.keys.iter().position(|key| key.kid.as_deref() == Some(kid))?;
            Some((ring.clone(), index))
        });
        found.ok_or_else(|| no(Rule::Form, format_args!("no key has the kid {kid:?}")))
    }

    pub(super) fn key_mut(&mut self, keyring: &str, index: usize) -> &mut Key {
        &mut self.rings.get_mut(keyring).expect("place() found it").keys[index]
    }

    fn room_in(&self, set: &SetName) -> Result<(), No> {
        let size = self.published_in(set);
        need(size < MOST_KEYS_IN_SET, Rule::I6, format_args!("{set} already has {size} keys"))
    }
}

/// Most keys of one keyring on their way at once: a standby, and its replacement while a keyring moves.
const MOST_PENDING: usize = 2;
/// Longest kid that an import may bring; the shortest limit that common verifiers have.
const LONGEST_KID: usize = 1024;

/// A standby beside the key that it is to replace would be lost with it.
fn check_two(keystore: &str, standby: Option<&str>) -> Result<(), No> {
    need(standby != Some(keystore), Rule::Form, format_args!("standby_keystore is {keystore:?}, as keystore is"))
}

fn check_public(jwk: &PublicKey, kid: &str) -> Result<(), No> {
    jwk.check().map_err(|error| no(Rule::Form, error))?;
    need(jwk.thumbprint() == kid, Rule::Form, "the kid is not the thumbprint of the public key")
}

pub(super) fn in_state(key: &Key, states: &[State]) -> Result<(), No> {
    let names: Vec<&str> = states.iter().map(|state| state.name()).collect();
    need(states.contains(&key.state), Rule::I11, format_args!("the key is {}, not {}", key.state.name(), names.join(" or ")))
}

fn in_force(keyring: &Keyring, seq: u64) -> Result<InForce, No> {
    let timing = keyring.timing().copied().filter(|timing| timing.seq == seq);
    timing.ok_or_else(|| no(Rule::I8, format_args!("record {seq} does not hold the settings in force")))
}

/// Dates are absolute, and only move later.
fn check_date(rule: Rule, member: &str, date: Timestamp, least: Timestamp) -> Result<(), No> {
    need(date >= least, rule, format_args!("{member} is {date}; it must not be before {least}"))
}

fn enter(key: &mut Key, state: State, at: At) {
    key.state = state;
    key.history.push((at.seq, at.time, state));
}

fn stop_signing(keyring: &mut Keyring, kid: &str, state: State, at: At, withdraw_after: Option<Timestamp>) {
    if let Some(key) = keyring.keys.iter_mut().find(|key| key.kid.as_deref() == Some(kid)) {
        if key.activated.is_some() {
            key.stopped.get_or_insert(at.time);
        }
        key.withdraw_after = withdraw_after;
        enter(key, state, at);
    }
}

fn activate(keyring: &mut Keyring, index: usize, next_rotation: Timestamp, at: At) {
    let key = &mut keyring.keys[index];
    key.activated = Some(at.time);
    enter(key, State::Active, at);
    keyring.was_active = true;
    keyring.next_rotation = Some(next_rotation);
}
