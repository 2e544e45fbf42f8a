//! When a backend that fails is asked again: a breaker with back-off, and one probe at a time.
//!
//! In scope: whether a call may be made now. Out of scope: which failure speaks against a backend (each adapter's own), and time, which is an
//! argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{KeystoreError, Reopened};
use crate::clock::Monotonic;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// So many doubtful failures in a row speak against the backend; one alone may concern one request.
    pub(super) doubts: u32,
    /// The first pause: what is restarted may be back in a moment.
    pub(super) first: Duration,
    /// The longest pause: each further failure doubles it up to here.
    pub(super) longest: Duration,
}

/// How much a failed call says against the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works, whatever it answered.
    Well,
    /// It may be down, or the failure concerns this request alone.
    Doubtful,
    /// It cannot be used now.
    Down,
    /// It asks to be left alone for this long.
    Busy(Duration),
}

/// The breaker of one backend.
pub(super) struct Breaker {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    doubts: u32,
    pause: Duration,
    open: Option<Open>,
    /// How often it was open and is closed again.
    recoveries: u64,
    /// Why it was last open.
    cause: String,
}

struct Open {
    until: Monotonic,
    reason: String,
    /// One call is let through to find out.
    probing: bool,
}

/// The permission to make one call. Dropped without a verdict, it says nothing.
pub(super) struct Permit<'b> {
    breaker: &'b Breaker,
    probe: bool,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, state: Mutex::default() }
    }

    /// Lets a call through, or says when to ask again. While the breaker is open and its pause over, one call is let through.
    pub(super) fn permit(&self, now: Monotonic) -> Result<Permit<'_>, KeystoreError> {
        let mut state = self.state();
        let Some(open) = &mut state.open else { return Ok(Permit { breaker: self, probe: false }) };
        if open.probing || now < open.until {
            return Err(self.told(open, now));
        }
        open.probing = true;
        Ok(Permit { breaker: self, probe: true })
    }

    /// Whether the pause is over, for a call that is no probe: nobody's probe is used up.
    pub(super) fn look(&self, now: Monotonic) -> Result<(), KeystoreError> {
        let state = self.state();
        state.open.as_ref().filter(|open| now < open.until).map_or(Ok(()), |open| Err(self.told(open, now)))
    }

    /// What is known against the backend now, and for how long it is not asked.
    pub(super) fn refusal(&self, now: Monotonic) -> Option<(String, Duration)> {
        self.state().open.as_ref().map(|open| (open.reason.clone(), self.after(open, now)))
    }

    /// Ends the pause: somebody who asked without a permit saw that the backend is well again, and the next call may find out.
    pub(super) fn invite(&self, now: Monotonic) {
        if let Some(open) = &mut self.state().open {
            open.until = open.until.min(now);
        }
    }

    /// Takes a verdict; `jitter` is from 0 to 1 and spreads the clients of one backend over a quarter of the pause.
    pub(super) fn judge(&self, verdict: Verdict, reason: &str, jitter: f64, now: Monotonic) {
        let mut state = self.state();
        let asked = match verdict {
            Verdict::Well => {
                state.recoveries += u64::from(state.open.take().is_some());
                (state.doubts, state.pause) = (0, Duration::ZERO);
                return;
            }
            Verdict::Doubtful => {
                state.doubts = state.doubts.saturating_add(1);
                if state.doubts < self.rules.doubts && state.open.is_none() {
                    return;
                }
                Duration::ZERO
            }
            Verdict::Down => Duration::ZERO,
            Verdict::Busy(span) => span.min(self.rules.longest),
        };
        // Calls that were under way together fail together: they are one failure, and the pause is doubled by the probe alone.
        let failed_again = state.open.as_ref().is_none_or(|open| now >= open.until);
        if failed_again {
            state.pause = (state.pause * 2).clamp(self.rules.first, self.rules.longest);
        }
        let span = state.pause.max(asked);
        let until = now.plus(span.saturating_sub(span.mul_f64(jitter.clamp(0.0, 1.0) / 4.0)));
        reason.clone_into(&mut state.cause);
        state.open = Some(Open { until, reason: reason.to_owned(), probing: false });
    }

    /// How often an outage ended, and what the last one was.
    pub(super) fn reopened(&self) -> Reopened {
        let state = self.state();
        Reopened { sessions: state.recoveries, cause: state.cause.clone(), ..Reopened::default() }
    }

    fn told(&self, open: &Open, now: Monotonic) -> KeystoreError {
        KeystoreError::Unavailable { reason: open.reason.clone(), after: self.after(open, now) }
    }

    fn after(&self, open: &Open, now: Monotonic) -> Duration {
        open.until.since(now).max(self.rules.first)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A probe that nobody waited for is no probe: the next call is one.
        if self.probe
            && let Some(open) = &mut self.breaker.state().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_PAUSE: Duration = Duration::from_millis(250);
    const DOUBTS: u32 = 5;
    const RULES: Rules = Rules { doubts: DOUBTS, first: FIRST_PAUSE, longest: Duration::from_secs(10) };

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    fn after(breaker: &Breaker, millis: u64) -> Option<Duration> {
        match breaker.permit(at(millis)).map(drop) {
            Ok(()) => None,
            Err(KeystoreError::Unavailable { after, .. }) => Some(after),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn one_doubt_is_none_and_five_in_a_row_are_an_end() {
        let breaker = Breaker::new(RULES);
        for _ in 0..DOUBTS - 1 {
            breaker.judge(Verdict::Doubtful, "500", 0.0, at(0));
        }
        assert_eq!(after(&breaker, 0), None);
        breaker.judge(Verdict::Well, "", 0.0, at(0));
        breaker.judge(Verdict::Doubtful, "500", 0.0, at(0));
        assert_eq!(after(&breaker, 0), None, "what was in between counts");
        for _ in 0..DOUBTS {
            breaker.judge(Verdict::Doubtful, "500", 0.0, at(0));
        }
        assert_eq!(after(&breaker, 0), Some(FIRST_PAUSE));
    }

    #[test]
    fn the_pause_doubles_with_each_probe_and_ends_with_a_success() {
        let (breaker, mut now) = (Breaker::new(RULES), 0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            // Three calls that were under way together are one failure.
            for _ in 0..3 {
                breaker.judge(Verdict::Down, "sealed", 0.0, at(now));
            }
            let pause = after(&breaker, now).expect("open");
            pauses.push(u64::try_from(pause.as_millis()).expect("short"));
            now += pauses[pauses.len() - 1];
            assert_eq!(after(&breaker, now), None, "the probe");
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        breaker.judge(Verdict::Well, "", 0.0, at(now));
        assert_eq!(breaker.reopened(), Reopened { sessions: 1, cause: "sealed".into(), ..Reopened::default() });
        breaker.judge(Verdict::Well, "", 0.0, at(now));
        assert_eq!(breaker.reopened().sessions, 1, "nothing was lost in between");
        breaker.judge(Verdict::Down, "sealed", 1.0, at(now));
        assert_eq!(breaker.refusal(at(now)), Some(("sealed".to_owned(), FIRST_PAUSE)), "it begins anew");
    }

    #[test]
    fn one_call_at_a_time_finds_out() {
        let breaker = Breaker::new(RULES);
        breaker.judge(Verdict::Down, "sealed", 0.0, at(0));
        let probe = breaker.permit(at(250)).expect("the pause is over");
        assert!(breaker.permit(at(250)).is_err(), "one is under way");
        assert_eq!(breaker.look(at(250)), Ok(()), "what is no probe need not wait for it");
        assert!(breaker.look(at(249)).is_err());
        drop(probe);
        assert!(breaker.permit(at(250)).is_ok(), "it was given up");
    }

    #[test]
    fn whoever_saw_the_backend_well_ends_the_pause() {
        let breaker = Breaker::new(RULES);
        breaker.judge(Verdict::Busy(Duration::from_secs(5)), "too many requests", 0.0, at(0));
        assert_eq!(after(&breaker, 1), Some(Duration::from_millis(4999)));
        breaker.invite(at(1));
        assert_eq!(after(&breaker, 1), None);
    }
}
