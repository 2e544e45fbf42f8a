//! What works and what does not, from what is known: nothing is probed here.
//!
//! In scope: whether the true JWKS is served, for how long it may be after the log died, and the gauges. Out of scope: HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_audit::Timestamp;

use crate::clock::Clock;
use crate::health::Health;
use crate::journal::space::{Space, SpaceWatch};
use crate::journal::{Checkpointer, KeyLog, UseLog};
use crate::metrics::{KeyringLabel, KeystoreLabel, LogLabel, Metrics};
use crate::publisher::Publisher;
use crate::refusal::{Code, Refusal};
use crate::rotation::timeline;
use crate::signer::Signer;

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
    /// Names of all keystores.
    pub keystores: Vec<String>,
    /// What the newest checkpoints cover: keys, uses.
    pub checkpoints: [Checkpointer; 2],
    /// Room on the disk of the logs.
    pub space: Arc<SpaceWatch>,
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
        let detail = format!("keystore {keystore:?}, which holds the signing key, does not answer; the daemon's log says why");
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

    /// Brings the gauges up to date.
    pub fn measure(&self, metrics: &Metrics, signer: &Signer) {
        let snapshot = self.keys.snapshot();
        let now = self.clock.wall();
        for keyring in snapshot.keyrings.all() {
            let label = KeyringLabel { keyring: keyring.name.clone() };
            let ready = keyring.retired.is_none() && self.signing(signer, &keyring.name).is_ok();
            metrics.signer_ready.get_or_create(&label).set(i64::from(ready));
            let since = keyring.active().and_then(|key| key.activated).map_or(0, Timestamp::seconds);
            metrics.active_key_since.get_or_create(&label).set(since);
            let published = i64::try_from(keyring.published().count()).unwrap_or(i64::MAX);
            metrics.published_keys.get_or_create(&label).set(published);
            let ahead = timeline::timeline(&snapshot.keyrings, &keyring.name, now).into_iter().filter(|entry| !entry.done);
            let next = ahead.filter_map(|entry| entry.at).min().map_or(0, Timestamp::seconds);
            metrics.next_transition.get_or_create(&label).set(next);
        }
        for keystore in &self.keystores {
            let up = i64::from(self.health.is_up(keystore));
            metrics.keystore_up.get_or_create(&KeystoreLabel { keystore: keystore.clone() }).set(up);
        }
        if let Some(space) = self.space.last() {
            metrics.log_disk_free.set(space.ratio());
        }
        let heads = [("keys", self.keys.head().size, self.keys.poisoned()), ("uses", self.uses.head().size, self.uses.poisoned())];
        for ((log, size, poisoned), checkpoints) in heads.into_iter().zip(&self.checkpoints) {
            let label = LogLabel { log };
            metrics.log_size.get_or_create(&label).set(signed(size));
            metrics.log_checkpoint_size.get_or_create(&label).set(signed(checkpoints.covered()));
            metrics.log_writable.get_or_create(&label).set(i64::from(poisoned.is_none()));
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
