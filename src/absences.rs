//! Which keystores do not answer, and when to ask each again.
//!
//! In scope: back-off per keystore, doubling up to a limit. Out of scope: asking, and a keystore's own recovery, which its adapter does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use claviger_audit::Timestamp;

/// The first pause after a failure: long enough not to hammer, short enough for settings of seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: a keystore that came back is used again within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keystores that do not answer. One per daemon.
#[derive(Debug, Default)]
pub struct Absences {
    absent: Mutex<BTreeMap<String, Absence>>,
    /// Those that answered at least once: until then nobody knows.
    met: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct Absence {
    since: Timestamp,
    pause: Duration,
    retry: Timestamp,
}

impl Absences {
    /// Notes a failure; returns whether the keystore answered until now. `after` is what the keystore itself asks for.
    pub fn failed(&self, keystore: &str, after: Option<Duration>, now: Timestamp) -> bool {
        let mut absences = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = absences.get(keystore).map(|absence| (absence.since, absence.pause));
        let pause = before.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        let since = before.map_or(now, |(since, _)| since);
        let wait = pause.max(after.unwrap_or_default()).min(LONGEST_PAUSE);
        absences.insert(keystore.to_owned(), Absence { since, pause, retry: now + wait });
        before.is_none()
    }

    /// Notes an answer; returns whether the keystore was absent until now.
    pub fn answered(&self, keystore: &str) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(keystore.to_owned());
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(keystore).is_some()
    }

    /// When to ask each absent keystore again.
    pub fn retry_dates(&self) -> BTreeMap<String, Timestamp> {
        let absences = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absences.iter().map(|(name, absence)| (name.clone(), absence.retry)).collect()
    }

    /// Since when each absent keystore does not answer.
    pub fn since(&self) -> BTreeMap<String, Timestamp> {
        let absences = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absences.iter().map(|(name, absence)| (name.clone(), absence.since)).collect()
    }

    /// Whether the keystore answered when it was last asked.
    pub fn is_up(&self, keystore: &str) -> bool {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner).contains(keystore);
        met && !self.absent.lock().unwrap_or_else(PoisonError::into_inner).contains_key(keystore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_an_answer() {
        let absences = Absences::default();
        let now = Timestamp::from_seconds(100);
        assert!(!absences.is_up("hsm"), "nobody knows yet");
        assert!(absences.failed("hsm", None, now));
        assert_eq!(absences.retry_dates()["hsm"], now + FIRST_PAUSE);
        assert!(!absences.failed("hsm", None, now));
        assert_eq!(absences.retry_dates()["hsm"], now + FIRST_PAUSE * 2);
        for _ in 0..100 {
            absences.failed("hsm", Some(Duration::from_secs(3600)), now + FIRST_PAUSE);
        }
        assert_eq!(absences.retry_dates()["hsm"], now + FIRST_PAUSE + LONGEST_PAUSE);
        assert_eq!(absences.since()["hsm"], now, "since the first failure");
        assert!(absences.answered("hsm") && absences.is_up("hsm") && !absences.answered("hsm"));
        assert!(absences.since().is_empty());
    }
}
