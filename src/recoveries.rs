//! What keystores recovered from by themselves, and what they cannot recover from: told in the key log.
//!
//! In scope: `keystore.reopened` and `keystore.wedged`, and when the daemon may end itself so that a new process can use the module again.
//! Out of scope: recovering (each adapter's own), and whether a keystore answers (`health.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, KeystoreReopened, KeystoreWedged};

use crate::clock::Clock;
use crate::journal::{AppendError, KeyLog};
use crate::keystore::{Condition, Reopened};

/// The least time between two ends that one daemon, started again and again, brings on itself: a module that hangs at once would otherwise
/// take the key sets away with it over and over.
const BETWEEN_RESTARTS: Duration = Duration::from_mins(10);

/// Compares what each keystore says of itself with what the log was told. One per daemon.
pub struct Recoveries {
    keys: KeyLog,
    node: String,
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    reopened: BTreeMap<String, Reopened>,
    /// From when on a restart may be brought on, if a keystore needs one.
    restart: Option<Timestamp>,
}

impl Recoveries {
    /// Nothing was told yet.
    pub fn new(keys: KeyLog, node: String, clock: Arc<dyn Clock>) -> Self {
        Self { keys, node, clock, told: Mutex::default() }
    }

    /// Records what is new in a keystore's condition.
    pub async fn look(&self, keystore: &str, condition: &Condition) -> Result<(), AppendError> {
        let before = self.told().reopened.get(keystore).cloned().unwrap_or_default();
        if let Some(event) = reopened(keystore, &before, &condition.reopened) {
            tracing::warn!(keystore, cause = condition.reopened.cause, "a keystore lost something and opened it again");
            self.keys.record(event).await?;
            self.told().reopened.insert(keystore.to_owned(), condition.reopened.clone());
        }
        if condition.wedged && self.told().restart.is_none() {
            let now = self.clock.wall();
            // Read before this one is recorded: the last process may have ended for the same reason a moment ago.
            let last = self.keys.snapshot().keyrings.last_wedged(&self.node).map(|wedged| wedged.time);
            let restart = restart_at(last, now);
            tracing::error!(keystore, hung = condition.hung, %restart, "calls to a keystore hang; only a restart can use it again");
            self.keys.record(Event::KeystoreWedged(KeystoreWedged { keystore: keystore.to_owned(), hung: condition.hung.max(1) })).await?;
            self.told().restart = Some(restart);
        }
        Ok(())
    }

    /// Whether the daemon should end now, so that another process can use what this one cannot any more.
    pub fn restart_is_due(&self) -> bool {
        self.told().restart.is_some_and(|at| self.clock.wall() >= at)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From when on this process may end itself, if one of this node did so, or could have, at `last`.
fn restart_at(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    last.map_or(now, |last| now.max(last + BETWEEN_RESTARTS))
}

/// The record of what was opened again since `before`; none if nothing was.
fn reopened(keystore: &str, before: &Reopened, now: &Reopened) -> Option<Event> {
    let sessions = now.sessions.saturating_sub(before.sessions);
    let logins = now.logins.saturating_sub(before.logins);
    let modules = now.modules.saturating_sub(before.modules);
    let reason = now.cause.clone();
    let event = KeystoreReopened { keystore: keystore.to_owned(), sessions, logins, modules, reason };
    (sessions + logins + modules > 0).then_some(Event::KeystoreReopened(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_brought_on_once_in_ten_minutes() {
        let now = "2026-01-01T12:00:00.000Z".parse::<Timestamp>().expect("a time");
        assert_eq!(restart_at(None, now), now);
        for (minutes, waits) in [(0, 10), (1, 9), (9, 1), (10, 0), (60, 0)] {
            let last = now - Duration::from_mins(minutes);
            assert_eq!(restart_at(Some(last), now), now + Duration::from_mins(waits), "{minutes} minutes ago");
        }
    }

    #[test]
    fn only_what_is_new_is_recorded() {
        let first = Reopened { sessions: 2, logins: 1, modules: 0, cause: "CKR_SESSION_HANDLE_INVALID".to_owned() };
        assert_eq!(reopened("hsm", &first, &first), None);
        assert_eq!(reopened("hsm", &Reopened::default(), &Reopened { cause: "away".to_owned(), ..Reopened::default() }), None);
        let second = Reopened { sessions: 2, logins: 4, modules: 1, cause: "CKR_DEVICE_REMOVED".to_owned() };
        let Some(Event::KeystoreReopened(event)) = reopened("hsm", &first, &second) else { panic!("no record") };
        assert_eq!((event.sessions, event.logins, event.modules, event.reason.as_str()), (0, 3, 1, "CKR_DEVICE_REMOVED"));
    }
}
