//! Whether KMS is asked at all: after several failures in a row it is left alone for a while, then one request tries.
//!
//! In scope: outages: refused connections, 5xx, answers that do not come. Out of scope: throttling (`budget.rs`), and refusals, which are answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::keystore::{KeystoreError, Reopened};

/// So many failures in a row are an outage; one or two are what a network does.
const FAILURES: u32 = 3;
/// The first pause of an outage; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: an outage that ended is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Knows whether KMS answers. One per keystore.
#[derive(Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    /// While it is set, KMS is left alone until then.
    away_until: Option<Monotonic>,
    pause: Duration,
    /// Whether the one request that may try is under way.
    probing: bool,
    recoveries: u64,
    /// What the last outage was.
    cause: String,
}

impl State {
    fn look(&self, now: Monotonic) -> Result<(), KeystoreError> {
        let left = self.away_until.map_or(Duration::ZERO, |until| until.since(now));
        if left.is_zero() { Ok(()) } else { Err(KeystoreError::Unavailable { reason: self.cause.clone(), after: left }) }
    }
}

impl Breaker {
    /// Whether a request may be sent now. After a pause one request is let through, and the next pause begins: whether it ends early, that
    /// request finds out.
    pub(super) fn admit(&self, now: Monotonic) -> Result<(), KeystoreError> {
        let mut state = self.state();
        state.look(now)?;
        if state.away_until.is_some() {
            state.away_until = Some(now.plus(state.pause));
            state.probing = true;
        }
        Ok(())
    }

    /// The same without sending anything: nobody's try is used up.
    pub(super) fn look(&self, now: Monotonic) -> Result<(), KeystoreError> {
        self.state().look(now)
    }

    /// KMS answered, whatever it said.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        if state.away_until.take().is_some() {
            state.recoveries += 1;
        }
        state.failures = 0;
        state.probing = false;
        state.pause = Duration::ZERO;
    }

    /// KMS did not answer, or said that it is broken. Returns when it may be asked again.
    pub(super) fn failed(&self, cause: &str, now: Monotonic) -> Duration {
        let mut state = self.state();
        cause.clone_into(&mut state.cause);
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return FIRST_PAUSE;
        }
        // Those that were under way when the pause began say nothing new.
        if state.away_until.is_none() || std::mem::take(&mut state.probing) {
            state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            state.away_until = Some(now.plus(state.pause));
        }
        state.away_until.map_or(state.pause, |until| until.since(now))
    }

    /// Whether there is no outage.
    pub(super) fn is_closed(&self) -> bool {
        self.state().away_until.is_none()
    }

    /// How often an outage ended, and what the last one was.
    pub(super) fn reopened(&self) -> Reopened {
        let state = self.state();
        Reopened { sessions: state.recoveries, cause: state.cause.clone(), ..Reopened::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    fn after(breaker: &Breaker, now: u64) -> Option<Duration> {
        match breaker.admit(at(now)) {
            Ok(()) => None,
            Err(KeystoreError::Unavailable { reason, after }) => {
                assert_eq!(reason, "down");
                Some(after)
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failure_or_two_are_no_outage() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed("down", at(0));
            breaker.failed("down", at(0));
            assert_eq!(after(&breaker, 0), None);
            breaker.answered();
        }
        assert_eq!(breaker.reopened().sessions, 0, "nothing was lost");
    }

    #[test]
    fn an_outage_is_probed_once_per_pause_and_pauses_grow_to_a_limit() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed("down", at(0));
        }
        assert_eq!(after(&breaker, 0), Some(FIRST_PAUSE));
        // What was under way when it began changes nothing.
        for _ in 0..100 {
            breaker.failed("down", at(1));
        }
        assert_eq!(after(&breaker, 400), Some(Duration::from_millis(100)));

        let (mut now, mut pauses) = (500, Vec::new());
        for _ in 0..7 {
            assert_eq!(after(&breaker, now), None, "one may try");
            assert!(after(&breaker, now).is_some(), "and one only");
            let pause = breaker.failed("down", at(now));
            pauses.push(pause.as_millis());
            now += u64::try_from(pause.as_millis()).unwrap();
        }
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE.as_millis()), "{pauses:?}");
        assert!(pauses.is_sorted() && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE.as_millis()), "{pauses:?}");

        assert_eq!(after(&breaker, now), None);
        breaker.answered();
        assert_eq!(after(&breaker, now), None);
        assert_eq!(breaker.reopened(), Reopened { sessions: 1, cause: "down".into(), ..Reopened::default() });
        breaker.failed("down", at(now));
        assert_eq!(after(&breaker, now), None, "it begins anew");
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed("down", at(0));
        }
        assert_eq!(after(&breaker, 500), None);
        assert!(after(&breaker, 999).is_some());
        assert_eq!(after(&breaker, 1000), None);
    }
}
