//! Whether each keystore answers: asked every few seconds off the request path, and recorded when it changes.
//!
//! In scope: the periodic question, `keystore.lost` and `keystore.recovered`. Out of scope: a keystore's own recovery (its adapter's) and the
//! rotation that waits for it (it is woken).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, KeystoreLost, KeystoreRecovered};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::absences::Absences;
use crate::clock::Clock;
use crate::journal::{AppendError, KeyLog};
use crate::keystore::{Keystore, KeystoreError};

/// How often a keystore is asked; idle tokens drop their sessions after 30 s at the earliest.
const EVERY: Duration = Duration::from_secs(2);

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
    absences: Absences,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
}

impl Health {
    /// Every keystore counts as answering until it does not.
    pub fn new(keys: KeyLog, clock: Arc<dyn Clock>, wake: Arc<Notify>) -> Self {
        Self { keys, absences: Absences::default(), clock, wake }
    }

    /// Asks one keystore until the stop.
    pub async fn watch(&self, name: String, keystore: Arc<dyn Keystore>, stop: CancellationToken) {
        loop {
            let noted = match keystore.health().await {
                Ok(()) => self.answered(&name).await,
                Err(error) => self.failed(&name, &error).await,
            };
            if let Err(error) = noted {
                tracing::debug!(keystore = name, %error, "a change of health was not recorded");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// When to ask each absent keystore again.
    pub fn retry_dates(&self) -> BTreeMap<String, Timestamp> {
        self.absences.retry_dates()
    }

    /// Whether the keystore answered when it was last asked.
    pub fn is_up(&self, keystore: &str) -> bool {
        self.absences.is_up(keystore)
    }

    /// Notes that a keystore did not answer; the first time, in the log too.
    pub async fn failed(&self, keystore: &str, error: &KeystoreError) -> Result<(), AppendError> {
        let after = if let KeystoreError::Unavailable { after, .. } = error { Some(*after) } else { None };
        if !self.absences.failed(keystore, after, self.clock.wall()) || self.is_recorded_lost(keystore) {
            return Ok(());
        }
        tracing::warn!(keystore, %error, "a keystore was lost");
        self.keys.record(Event::KeystoreLost(KeystoreLost { keystore: keystore.to_owned(), reason: error.to_string() })).await
    }

    /// Notes that a keystore answered; wakes the rotator and tells the log if it had been lost.
    pub async fn answered(&self, keystore: &str) -> Result<(), AppendError> {
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
