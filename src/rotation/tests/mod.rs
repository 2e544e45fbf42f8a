//! A key log in virtual time for the tests of this room: one node, keystores that answer when they are up, and no daemon.
//!
//! In scope: doing what the plan says, as the shell will. Out of scope: what must hold then ([`check`] reads it from the events alone).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger_audit::event::{DaemonStart, DaemonStop, Event, JwksServed, KeyCreated, KeyDestroyed, LogCreated, LogKind, Purpose};
use claviger_audit::jwk::PublicKey;
use claviger_audit::jwks::{self, SetName};
use claviger_audit::keyrings::{Illegal, Key, Keyring, Keyrings, State};
use claviger_audit::merkle::Hash;
use claviger_audit::names::KeyName;
use claviger_audit::record::{Asked, Record};
use claviger_audit::timing::Timing;
use claviger_audit::{Algorithm, Timestamp};
use sha2::{Digest as _, Sha256};

use super::plan::{Conditions, DateGate, Plan, plan, sets_to_serve};
use super::reconcile::{KeyringWish, reconcile};
use super::timing::{Settings, solve};

mod check;
mod planning;
mod replicas;
mod risks;
mod simulation;
mod solver;
mod telling;
mod verbs;
mod verified;

pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
/// More steps than any moment needs; a plan that takes more is a busy loop.
const MOST_STEPS: usize = 200;
/// How long a keystore that did not answer is left alone.
const BACKOFF: Duration = Duration::from_secs(30);

/// A keyring with the default settings, in keystore `hsm`.
pub(super) fn wish(name: &str) -> KeyringWish {
    KeyringWish {
        name: name.to_owned(),
        purpose: Purpose::Jwt,
        issuer: Some("main".to_owned()),
        issuer_url: Some("https://auth.example.org".to_owned()),
        typ: Some("at+jwt".to_owned()),
        algorithm: Algorithm::EdDSA,
        keystore: "hsm".to_owned(),
        standby_keystore: None,
        timing: solve(&Settings::default()).expect("the defaults hold"),
    }
}

pub(super) fn timing(change: impl FnOnce(&mut Settings)) -> Timing {
    let mut settings = Settings::default();
    change(&mut settings);
    solve(&settings).expect("settings that hold")
}

/// A log as it grows.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) keyrings: Keyrings,
    pub(super) records: Vec<Record>,
    pub(super) now: Timestamp,
    pub(super) dates: DateGate,
    pub(super) node: &'static str,
    /// Who asked for the next records; nobody for what the machine does by itself.
    pub(super) caller: Option<&'static str>,
    /// Keystores that do not answer.
    pub(super) down: BTreeSet<String>,
    pub(super) unavailable: BTreeMap<String, Timestamp>,
    pub(super) refused: BTreeMap<KeyName, Timestamp>,
    /// Keystores in which a step is under way that somebody else began.
    pub(super) busy: BTreeSet<String>,
}

impl Story {
    pub(super) fn new() -> Self {
        let mut story = Self {
            keyrings: Keyrings::default(),
            records: Vec::new(),
            now: "2026-01-01T00:00:00.000Z".parse().expect("a time"),
            dates: DateGate::Open,
            node: "a",
            caller: None,
            down: BTreeSet::new(),
            unavailable: BTreeMap::new(),
            refused: BTreeMap::new(),
            busy: BTreeSet::new(),
        };
        story.append(Event::LogCreated(LogCreated {
            origin: "example.org/claviger/keys".to_owned(),
            key: "key".to_owned(),
            keystore: "hsm".to_owned(),
            locator: "0".to_owned(),
            installation: "prod".to_owned(),
            version: "0".to_owned(),
        }));
        story.start();
        story
    }

    pub(super) fn with(wishes: &[KeyringWish]) -> Self {
        let mut story = Self::new();
        story.reconcile(wishes);
        story
    }

    pub(super) fn start(&mut self) {
        self.append(Event::DaemonStart(DaemonStart { version: "0".to_owned(), unclean: false, in_flight: 0 }));
    }

    pub(super) fn stop(&mut self) {
        self.append(Event::DaemonStop(DaemonStop { reason: "test".to_owned() }));
    }

    pub(super) fn try_append(&mut self, event: Event) -> Result<(), Illegal> {
        let record = Record {
            log: LogKind::Keys,
            seq: self.keyrings.size(),
            time: self.now,
            prev: Hash::from([0; 32]),
            durable: 0,
            node: self.node.to_owned(),
            boot: "test".to_owned(),
            asked: Asked { caller: self.caller.map(str::to_owned), ..Asked::default() },
            event,
        };
        self.keyrings.apply(&record)?;
        self.records.push(record);
        Ok(())
    }

    pub(super) fn append(&mut self, event: Event) {
        let name = event.name();
        self.try_append(event).unwrap_or_else(|illegal| panic!("{name} at {}: {illegal}", self.now));
    }

    pub(super) fn reconcile(&mut self, wishes: &[KeyringWish]) {
        for event in reconcile(&self.keyrings, wishes).expect("no conflict") {
            self.append(event);
        }
    }

    pub(super) fn verb(&mut self, verb: impl FnOnce(&Keyrings, Timestamp) -> Result<Vec<Event>, Illegal>) {
        for event in verb(&self.keyrings, self.now).expect("allowed") {
            self.append(event);
        }
    }

    pub(super) fn plan(&self) -> Plan {
        // Claims need not be random here; that each name is new is the number's work.
        let (unavailable, refused, dates, claim) = (&self.unavailable, &self.refused, self.dates, 0xc1a1_3000);
        let conditions = Conditions { unavailable, refused, busy: &self.busy, dates, claim };
        plan(&self.keyrings, self.now, &conditions)
    }

    /// What health sees: it asks every keystore all the time. One that does not answer may be asked for a key at once; then there is a pause.
    fn look_at_keystores(&mut self) {
        self.unavailable.retain(|keystore, _| self.down.contains(keystore));
        for keystore in &self.down {
            self.unavailable.entry(keystore.clone()).or_insert(self.now);
        }
    }

    /// Does everything that is due, serving after each step, and returns the wake.
    pub(super) fn settle(&mut self) -> Option<Timestamp> {
        self.look_at_keystores();
        for _ in 0..MOST_STEPS {
            match self.plan() {
                Plan::SleepUntil(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "a wake that is not in the future: a busy loop");
                    // Serving writes records too, and what was served may change the plan.
                    if !self.serve() {
                        return wake;
                    }
                }
                step => {
                    self.carry_out(step);
                    self.serve();
                }
            }
        }
        panic!("busy loop at {}: {:?}", self.now, self.plan());
    }

    fn carry_out(&mut self, step: Plan) {
        match step {
            Plan::Append(event) => self.append(event),
            Plan::Create { name, keystore, .. } if self.answers(&keystore) => {
                let jwk = public_key(&name);
                let (kid, locator) = (jwk.thumbprint(), name.to_string());
                let created =
                    KeyCreated { key: name, kid, jwk, locator, attributes: BTreeMap::new(), backend_request: None, self_test: None };
                self.append(Event::KeyCreated(created));
            }
            Plan::Destroy { name, keystore, .. } if self.answers(&keystore) => {
                self.append(Event::KeyDestroyed(KeyDestroyed { key: name, deleted_on: None }));
            }
            _ => {}
        }
    }

    fn answers(&mut self, keystore: &str) -> bool {
        if self.down.contains(keystore) {
            self.unavailable.insert(keystore.to_owned(), self.now + BACKOFF);
        } else {
            self.unavailable.remove(keystore);
        }
        !self.down.contains(keystore)
    }

    /// Serves every set whose body changed; whether there was one.
    pub(super) fn serve(&mut self) -> bool {
        let (unavailable, refused, dates) = (&self.unavailable, &self.refused, self.dates);
        let conditions = Conditions { unavailable, refused, busy: &self.busy, dates, claim: 0 };
        let sets = sets_to_serve(&self.keyrings, &conditions);
        let mut changed = false;
        for set in sets {
            let body = jwks::body(&self.keyrings, &set).expect("a set that exists");
            let sha256 = Hash::from(<[u8; 32]>::from(Sha256::digest(body)));
            if self.keyrings.served(self.node, &set).is_none_or(|served| served.sha256 != sha256) {
                self.append(Event::JwksServed(JwksServed { set: set.to_string(), size: self.keyrings.size(), sha256 }));
                changed = true;
            }
        }
        changed
    }

    /// Lets time pass, waking whenever the plan says so.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(wake) = self.settle().filter(|wake| *wake <= end) {
            self.now = wake;
        }
        self.now = end;
        self.settle();
    }

    pub(super) fn keyring(&self, name: &str) -> &Keyring {
        self.keyrings.keyring(name).expect("it was created")
    }

    pub(super) fn active(&self, keyring: &str) -> &Key {
        self.keyring(keyring).active().expect("a key is active")
    }

    pub(super) fn active_kid(&self, keyring: &str) -> String {
        self.active(keyring).kid.clone().expect("an active key has a kid")
    }

    pub(super) fn standby_kid(&self, keyring: &str) -> String {
        let standby = self.keyring(keyring).pending().find(|key| key.state == State::Published);
        standby.and_then(|key| key.kid.clone()).expect("a standby is published")
    }

    pub(super) fn states(&self, keyring: &str) -> Vec<&'static str> {
        self.keyring(keyring).keys.iter().map(|key| key.state.name()).collect()
    }

    pub(super) fn events(&self) -> Vec<&'static str> {
        self.records.iter().map(|record| record.event.name()).collect()
    }
}

/// The key that the keystore makes for a name; the same one however often it is asked.
pub(super) fn public_key(name: &KeyName) -> PublicKey {
    PublicKey::from_ed25519(&Sha256::digest(name.as_str()).into())
}

/// The kid of the key that signs; empty if there is none.
fn current(keyrings: &Keyrings, keyring: &str) -> String {
    let current = keyrings.keyring(keyring).and_then(Keyring::current);
    current.and_then(|key| key.kid.clone()).unwrap_or_default()
}

/// The kid of one of the newest keys; empty if there are not so many.
fn nth(keyrings: &Keyrings, keyring: &str, index: usize) -> String {
    let keys = keyrings.keyring(keyring).map(|keyring| keyring.keys.as_slice()).unwrap_or_default();
    keys.iter().rev().filter_map(|key| key.kid.clone()).nth(index).unwrap_or_default()
}
