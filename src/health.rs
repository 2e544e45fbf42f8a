//! Whether each keystore answers: asked every few seconds off the request path, and recorded when it changes.
//!
//! In scope: the periodic question, `keystore.lost` and `keystore.recovered`; and, much more rarely, whether it holds keys of ours that no
//! record names, and when its keys are compared with their records. Out of scope: that comparison (`drift`), a keystore's own recovery (its
//! adapter's) and the rotation that waits for it (it is woken).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, KeystoreLost, KeystoreRecovered};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::absences::Absences;
use crate::clock::Clock;
use crate::complaints::{Complaints, Work};
use crate::drift;
use crate::journal::{AppendError, KeyLog};
use crate::keystore::{Keystore, KeystoreError};
use crate::orphans::{self, Orphan};
use crate::recoveries::Recoveries;

/// How often a keystore is asked; idle tokens drop their sessions after 30 s at the earliest.
const EVERY: Duration = Duration::from_secs(2);

/// How often it is looked what a keystore holds: a listing takes one of its workers for longer than a signature does, and orphans are rare.
const INVENTORY_EVERY: Duration = Duration::from_hours(1);
/// How long a listing may take before it is given up until the next time.
const INVENTORY: Duration = Duration::from_mins(1);
/// When it is looked again after a keystore stopped answering in the middle of it.
const INVENTORY_AGAIN: Duration = Duration::from_mins(1);
/// How often a keystore is asked while it opens, and how long it may take.
const OPENING_POLL: Duration = Duration::from_millis(50);
const OPENING: Duration = Duration::from_secs(10);

/// Waits for a keystore that opens on its own threads; a refusal ends the wait at once.
pub async fn wait_for(keystore: &dyn Keystore, clock: &dyn Clock) -> Result<(), KeystoreError> {
    let until = clock.monotonic().plus(OPENING);
    loop {
        match keystore.health().await {
            Ok(()) => return Ok(()),
            Err(error @ KeystoreError::Rejected(_)) => return Err(error),
            Err(error) if clock.monotonic() >= until => return Err(error),
            Err(_) => tokio::time::sleep(OPENING_POLL).await,
        }
    }
}

/// Knows which keystores answer. One per daemon.
pub struct Health {
    keys: KeyLog,
    /// What keystores said last when they did not do their work.
    pub complaints: Arc<Complaints>,
    /// What keystores recovered from by themselves.
    pub recoveries: Recoveries,
    absences: Absences,
    /// What the last listing of each keystore found.
    orphans: Mutex<BTreeMap<String, Vec<Orphan>>>,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
}

impl Health {
    /// Every keystore counts as answering until it does not.
    pub fn new(keys: KeyLog, node: &str, clock: Arc<dyn Clock>, wake: Arc<Notify>) -> Self {
        let recoveries = Recoveries::new(keys.clone(), node.to_owned(), clock.clone());
        let complaints = Arc::default();
        Self { keys, complaints, recoveries, absences: Absences::default(), orphans: Mutex::default(), clock, wake }
    }

    /// Asks one keystore until the stop.
    pub async fn watch(&self, name: String, keystore: Arc<dyn Keystore>, stop: CancellationToken) {
        loop {
            let noted = match keystore.health().await {
                Ok(()) => self.answered(&name).await,
                Err(error) => self.failed(&name, &error).await,
            };
            let told = self.recoveries.look(&name, &keystore.condition()).await;
            if let Err(error) = noted.and(told) {
                tracing::debug!(keystore = name, %error, "a change of health was not recorded");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks what a keystore holds, once it answers and then every hour, until the stop. It delays no question whether it answers.
    pub async fn watch_contents(&self, name: String, keystore: Arc<dyn Keystore>, stop: CancellationToken) {
        loop {
            let pause = if self.is_up(&name) { self.look_inside(&name, keystore.as_ref()).await } else { EVERY };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Keys too many, and keys that are not what they were; returns when to look again.
    async fn look_inside(&self, name: &str, keystore: &dyn Keystore) -> Duration {
        self.look_for_orphans(name, keystore).await;
        match drift::look(&self.keys, name, keystore).await {
            Ok(true) => INVENTORY_EVERY,
            Ok(false) => INVENTORY_AGAIN,
            Err(error) => {
                tracing::warn!(keystore = name, %error, "how a key is in its keystore could not be recorded");
                INVENTORY_AGAIN
            }
        }
    }

    async fn look_for_orphans(&self, name: &str, keystore: &dyn Keystore) {
        let before = self.keys.snapshot();
        let Some(installation) = before.keyrings.origin().map(|origin| origin.installation.clone()) else { return };
        let held = match tokio::time::timeout(INVENTORY, keystore.inventory(&installation)).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                self.complaints.note(name, Work::List, &error);
                return tracing::warn!(keystore = name, %error, "what the keystore holds could not be listed");
            }
            Err(_) => return tracing::debug!(keystore = name, "what the keystore holds could not be listed in time"),
        };
        self.complaints.done(name, || Work::List);
        let orphans = orphans::among(name, &held, &before.keyrings, &self.keys.snapshot().keyrings);
        if !orphans.is_empty() {
            tracing::warn!(
                keystore = name,
                count = orphans.len(),
                "a keystore holds keys that nothing uses; `claviger doctor` says which, and why"
            );
        }
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), orphans);
    }

    /// Keys that the keystore holds and nothing uses, as the last listing found them; `None` before the first.
    pub fn orphans(&self, keystore: &str) -> Option<Vec<Orphan>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).get(keystore).cloned()
    }

    /// Since when each keystore that does not answer has not.
    pub fn away(&self) -> BTreeMap<String, Timestamp> {
        self.absences.since()
    }

    /// When to ask each absent keystore again.
    pub fn retry_dates(&self) -> BTreeMap<String, Timestamp> {
        self.absences.retry_dates()
    }

    /// Whether the keystore answered when it was last asked.
    pub fn is_up(&self, keystore: &str) -> bool {
        self.absences.is_up(keystore)
    }

    /// Notes that a keystore did not answer; the first time, it wakes the rotator and tells the log too.
    pub async fn failed(&self, keystore: &str, error: &KeystoreError) -> Result<(), AppendError> {
        self.complaints.note(keystore, Work::Answer, error);
        let after = if let KeystoreError::Unavailable { after, .. } = error { Some(*after) } else { None };
        let is_news = self.absences.failed(keystore, after, self.clock.wall());
        if is_news {
            // Whoever waited for it goes on without it.
            self.wake.notify_one();
        }
        if !is_news || self.is_recorded_lost(keystore) {
            return Ok(());
        }
        tracing::warn!(keystore, %error, "a keystore was lost");
        self.keys.record(Event::KeystoreLost(KeystoreLost { keystore: keystore.to_owned(), reason: error.to_string() })).await
    }

    /// Notes that a keystore answered; wakes the rotator and tells the log if it had been lost.
    pub async fn answered(&self, keystore: &str) -> Result<(), AppendError> {
        self.complaints.done(keystore, || Work::Answer);
        if self.absences.answered(keystore) {
            self.wake.notify_one();
        }
        if !self.is_recorded_lost(keystore) {
            return Ok(());
        }
        tracing::info!(keystore, "a keystore answers again");
        self.keys.record(Event::KeystoreRecovered(KeystoreRecovered { keystore: keystore.to_owned() })).await
    }

    fn is_recorded_lost(&self, keystore: &str) -> bool {
        self.keys.snapshot().keyrings.lost_keystores().contains(keystore)
    }
}
