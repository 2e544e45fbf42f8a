//! What works and what does not, from what is known: nothing is probed here.
//!
//! In scope: whether the true JWKS is served, for how long it may be after the log died, what is late or will be, and the gauges. Out of
//! scope: HTTP, and how a risk is judged (`rotation::risk`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_audit::Timestamp;
use claviger_audit::keyrings::{Key, Keyring, Keyrings, State};

use crate::clock::Clock;
use crate::clock_watch::ClockWatch;
use crate::health::Health;
use crate::journal::space::{Room, Space, SpaceWatch};
use crate::journal::{Checkpointer, KeyLog, UseLog};
use crate::lateness::Lateness;
use crate::metrics::{KeyringLabel, KeystoreLabel, LogLabel, Metrics, RiskLabels, TransitionLabels};
use crate::publisher::Publisher;
use crate::refusal::{Code, Refusal};
use crate::rotation::risk::{self, Facts, Risk};
use crate::rotation::timeline::{self, Entry};
use crate::signer::{Keystores, Signer};

/// Both logs, in the order of [`Readiness::checkpoints`].
const LOGS: [&str; 2] = ["keys", "uses"];

/// Knows what works. One per daemon.
pub struct Readiness {
    /// The key log.
    pub keys: KeyLog,
    /// The use log.
    pub uses: UseLog,
    /// The sets.
    pub publisher: Arc<Publisher>,
    /// Keystores.
    pub health: Arc<Health>,
    /// All keystores.
    pub keystores: Keystores,
    /// What the newest checkpoints cover: keys, uses.
    pub checkpoints: [Checkpointer; 2],
    /// Room on the disk of the logs.
    pub space: Arc<SpaceWatch>,
    /// Knows whether the clock is in doubt.
    pub watch: Arc<ClockWatch>,
    /// Since when things are not as they should be.
    pub lateness: Lateness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Set when a stop began: load balancers should look elsewhere.
    pub stopping: AtomicBool,
    /// Set when the log has been dead for too long: the set may be older than verifiers may trust.
    pub expired: AtomicBool,
}

impl Readiness {
    /// Whether the true JWKS is served. A dead keystore does not matter here; it must not take JWKS out of a load balancer.
    pub fn sets(&self) -> Result<(), Refusal> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Refusal::new(Code::NotReady, "the daemon is stopping"));
        }
        self.may_serve_sets()?;
        let snapshot = self.keys.snapshot();
        if snapshot.keyrings.all().next().is_none() {
            return Err(Refusal::new(Code::NotReady, "no keyring is in force yet"));
        }
        // A keyring that is new and has no key yet says so in /readyz/sign; the sets that are served stay in the load balancer.
        if snapshot.keyrings.sets().iter().all(|set| self.publisher.set(set).is_none()) {
            return Err(Refusal::new(Code::NotReady, "no set has a key yet"));
        }
        if !self.publisher.is_current() {
            return Err(Refusal::new(Code::NotReady, "a newer set is about to be served"));
        }
        Ok(())
    }

    /// Whether a set may be answered at all.
    pub fn may_serve_sets(&self) -> Result<(), Refusal> {
        if self.expired.load(Ordering::SeqCst) {
            return Err(Refusal::new(
                Code::LogUnwritable,
                "the audit log has taken no records for too long; this set could be out of date",
            ));
        }
        Ok(())
    }

    /// The keyrings that are to sign.
    pub fn keyrings(&self) -> Vec<String> {
        let snapshot = self.keys.snapshot();
        snapshot.keyrings.all().filter(|keyring| keyring.retired.is_none()).map(|keyring| keyring.name.clone()).collect()
    }

    /// Whether a keyring can sign now, and why not: the signer's own reasons first, then whether its keystore answered when last asked.
    pub fn signing(&self, signer: &Signer, keyring: &str) -> Result<(), Refusal> {
        let keystore = signer.readiness(keyring)?;
        if self.health.is_up(&keystore) {
            return Ok(());
        }
        let snapshot = self.keys.snapshot();
        let ring = snapshot.keyrings.keyring(keyring);
        let rescue = ring.and_then(|ring| risk::rescue(&snapshot.keyrings, ring, self.clock.wall(), &self.health.away()));
        let advice = rescue.unwrap_or_else(|| "the daemon's log says why".to_owned());
        let detail = format!("keystore {keystore:?}, which holds the signing key, does not answer; {advice}");
        Err(Refusal::new(Code::KeystoreUnavailable, detail))
    }

    /// Where both logs stand.
    pub fn log(&self) -> serde_json::Value {
        let row = |size: u64, checkpoints: &Checkpointer, dead: Option<Arc<str>>| serde_json::json!({ "size": size, "covered": checkpoints.covered(), "key_since": checkpoints.tenure().since, "failures": checkpoints.failures(), "dead": dead.as_deref() });
        let keys = row(self.keys.head().size, &self.checkpoints[0], self.keys.poisoned());
        serde_json::json!({ "keys": keys, "uses": row(self.uses.head().size, &self.checkpoints[1], self.uses.poisoned()) })
    }

    /// How much room the logs have, when it was last looked.
    pub fn disk(&self) -> serde_json::Value {
        let row = |space: Space| serde_json::json!({ "free_bytes": space.free, "size_bytes": space.size, "free_ratio": space.ratio() });
        self.space.last().map_or(serde_json::Value::Null, row)
    }

    /// Looks at what only time tells. Called every second; the questions below only read what it found.
    pub fn look(&self) {
        let sizes = [self.keys.head().size, self.uses.head().size];
        let covered = [0, 1].map(|log: usize| (sizes[log], self.checkpoints[log].covered()));
        self.lateness.look(covered, self.watch.is_paused(), self.clock.wall());
    }

    /// What is late, or will be.
    pub fn risks(&self) -> Vec<Risk> {
        let now = self.clock.wall();
        risk::risks(&self.keys.snapshot().keyrings, now, &self.facts(now))
    }

    /// The risks of this keyring, or of all, and those that endanger every keyring.
    pub fn risks_of(&self, keyring: Option<&str>) -> Vec<Risk> {
        let concerns = |risk: &Risk| keyring.is_none() || risk.keyring.is_none() || risk.keyring.as_deref() == keyring;
        self.risks().into_iter().filter(concerns).collect()
    }

    fn facts(&self, now: Timestamp) -> Facts {
        let dead = LOGS.into_iter().zip([self.keys.poisoned(), self.uses.poisoned()]);
        let low = self.space.last().filter(|space| space.room() == Room::VeryLow);
        let uncovered = LOGS.into_iter().zip(self.lateness.uncovered());
        Facts {
            away: self.health.away(),
            clock_paused: self.watch.is_paused().then(|| self.lateness.paused_since().unwrap_or(now)),
            disk_low: low.map(Space::percent),
            uncovered: uncovered.filter_map(|(log, since)| Some((log, since?))).collect(),
            dead_logs: dead.filter_map(|(log, why)| why.map(|_| log)).collect(),
        }
    }

    /// Brings the gauges up to date.
    pub fn measure(&self, metrics: &Metrics, signer: &Signer) {
        let snapshot = self.keys.snapshot();
        let now = self.clock.wall();
        for keyring in snapshot.keyrings.all() {
            self.measure_keyring(metrics, signer, (&snapshot.keyrings, keyring), now);
        }
        for (keystore, port) in &self.keystores {
            metrics.show_condition(keystore, &port.condition());
            let label = KeystoreLabel { keystore: keystore.clone() };
            metrics.keystore_up.get_or_create(&label).set(i64::from(self.health.is_up(keystore)));
            if let Some(orphans) = self.health.orphans(keystore) {
                metrics.orphans.get_or_create(&label).set(counted(orphans.len()));
            }
        }
        if let Some(space) = self.space.last() {
            metrics.log_disk_free.set(space.ratio());
        }
        metrics.clock_paused.set(i64::from(self.watch.is_paused()));
        let shown = |risk: Risk| RiskLabels { keyring: risk.keyring.unwrap_or_default(), code: risk.code.name() };
        metrics.show_risks(self.risks().into_iter().map(shown).collect::<BTreeSet<_>>());
        let heads = [(self.keys.head().size, self.keys.poisoned()), (self.uses.head().size, self.uses.poisoned())];
        for (index, (size, poisoned)) in heads.into_iter().enumerate() {
            let label = LogLabel { log: LOGS[index] };
            metrics.log_size.get_or_create(&label).set(signed(size));
            metrics.log_checkpoint_size.get_or_create(&label).set(signed(self.checkpoints[index].covered()));
            metrics.log_writable.get_or_create(&label).set(i64::from(poisoned.is_none()));
            let uncovered = self.lateness.uncovered()[index].map(|since| now.since(since).as_secs()).unwrap_or_default();
            metrics.log_uncovered.get_or_create(&label).set(signed(uncovered));
        }
    }

    /// The gauges of one keyring. What is retired signs no more and owes no standby: those gauges go.
    fn measure_keyring(&self, metrics: &Metrics, signer: &Signer, (keyrings, keyring): (&Keyrings, &Keyring), now: Timestamp) {
        let label = KeyringLabel { keyring: keyring.name.clone() };
        let seconds = |date: Option<Timestamp>| date.map_or(0, Timestamp::seconds);
        metrics.active_key_since.get_or_create(&label).set(seconds(keyring.active().and_then(|key| key.activated)));
        metrics.published_keys.get_or_create(&label).set(counted(keyring.published().count()));
        metrics.key_drifted.get_or_create(&label).set(counted(risk::drifted(keyring).count()));
        let ahead: Vec<Entry> = timeline::timeline(keyrings, &keyring.name, now).into_iter().filter(|entry| !entry.done).collect();
        metrics.next_transition.get_or_create(&label).set(seconds(ahead.iter().filter_map(|entry| entry.at).min()));
        let rotates = keyring.current().is_some_and(|key| key.state == State::Active);
        let destroyed = ahead.iter().filter(|entry| entry.state == State::Destroyed);
        let transitions = [
            ("rotation", keyring.next_rotation.filter(|_| rotates)),
            ("activation", keyring.pending().filter_map(|key| keyrings.eligible_at(keyring, key, now)).min()),
            ("withdrawal", keyring.keys.iter().filter(|key| key.state == State::Retiring).filter_map(|key| key.withdraw_after).min()),
            ("destruction", destroyed.filter_map(|entry| entry.at).min()),
        ];
        for (transition, due) in transitions {
            let labels = TransitionLabels { keyring: keyring.name.clone(), transition };
            if let Some(due) = due {
                metrics.transitions.get_or_create(&labels).set(due.seconds());
            } else {
                metrics.transitions.remove(&labels);
            }
        }
        let living =
            [&metrics.signer_ready, &metrics.key_lifetime, &metrics.rotation_overdue, &metrics.standby_since, &metrics.standby_eligible];
        if keyring.retired.is_some() {
            for gauge in living {
                gauge.remove(&label);
            }
            return;
        }
        let lifetime = keyring.timing().map(|in_force| in_force.timing.rotate_every().as_secs()).unwrap_or_default();
        let values = [
            i64::from(self.signing(signer, &keyring.name).is_ok()),
            signed(lifetime),
            signed(risk::overdue(keyring, now).as_secs()),
            seconds(risk::standby_since(keyring)),
            i64::from(keyrings.eligible_standby(keyring, now).is_some()),
        ];
        for (gauge, value) in living.into_iter().zip(values) {
            gauge.get_or_create(&label).set(value);
        }
        // From the start, so that the first one is an increase.
        drop(metrics.wrong_signatures.get_or_create(&label));
        metrics.newest_key_since.get_or_create(&label).set(seconds(keyring.keys.iter().filter_map(made).max()));
    }
}

/// When the key was made; `None` for one that is not yet, or was imported.
fn made(key: &Key) -> Option<Timestamp> {
    key.history.iter().find(|(_, _, state)| *state == State::Created).map(|(_, date, _)| *date)
}

fn counted(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
