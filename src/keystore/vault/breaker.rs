//! When a server that fails is asked again: a breaker with back-off, and one probe at a time.
//!
//! In scope: whether a call may be made now. Out of scope: which failure speaks against the server (`fault.rs`), and time, which is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::keystore::KeystoreError;

/// The first pause: a server that is restarted may be back in a moment.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: each further failure doubles it up to here. Health asks in between, and ends it as soon as the server is well.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So many doubtful failures in a row speak against the server; one alone may concern one request.
const DOUBTS: u32 = 5;

/// How much a failed call says against the server.
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

/// The breaker of one server.
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    doubts: u32,
    pause: Duration,
    open: Option<Open>,
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
    /// Lets a call through, or says when to ask again. While the breaker is open and its pause over, one call is let through.
    pub(super) fn permit(&self, now: Monotonic) -> Result<Permit<'_>, KeystoreError> {
        let mut state = self.state();
        let Some(open) = &mut state.open else { return Ok(Permit { breaker: self, probe: false }) };
        if open.probing || now < open.until {
            let after = open.until.since(now).max(FIRST_PAUSE);
            return Err(KeystoreError::Unavailable { reason: open.reason.clone(), after });
        }
        open.probing = true;
        Ok(Permit { breaker: self, probe: true })
    }

    /// What is known against the server now, and for how long it is not asked.
    pub(super) fn refusal(&self, now: Monotonic) -> Option<(String, Duration)> {
        self.state().open.as_ref().map(|open| (open.reason.clone(), open.until.since(now).max(FIRST_PAUSE)))
    }

    /// Ends the pause: somebody who asked without a permit saw that the server is well again, and the next call may find out.
    pub(super) fn invite(&self, now: Monotonic) {
        if let Some(open) = &mut self.state().open {
            open.until = open.until.min(now);
        }
    }

    /// Takes a verdict; `jitter` is from 0 to 1 and spreads the clients of one server over a quarter of the pause.
    pub(super) fn judge(&self, verdict: Verdict, reason: &str, jitter: f64, now: Monotonic) {
        let mut state = self.state();
        let asked = match verdict {
            Verdict::Well => {
                *state = State::default();
                return;
            }
            Verdict::Doubtful => {
                state.doubts = state.doubts.saturating_add(1);
                if state.doubts < DOUBTS && state.open.is_none() {
                    return;
                }
                Duration::ZERO
            }
            Verdict::Down => Duration::ZERO,
            Verdict::Busy(span) => span.min(LONGEST_PAUSE),
        };
        // Calls that were under way together fail together: they are one failure, and the pause is doubled by the probe alone.
        let failed_again = state.open.as_ref().is_none_or(|open| now >= open.until);
        if failed_again {
            state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        let span = state.pause.max(asked);
        let until = now.plus(span.saturating_sub(span.mul_f64(jitter.clamp(0.0, 1.0) / 4.0)));
        state.open = Some(Open { until, reason: reason.to_owned(), probing: false });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let breaker = Breaker::default();
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
        let (breaker, mut now) = (Breaker::default(), 0);
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
        breaker.judge(Verdict::Down, "sealed", 1.0, at(now));
        assert_eq!(breaker.refusal(at(now)), Some(("sealed".to_owned(), FIRST_PAUSE)), "it begins anew");
    }

    #[test]
    fn one_call_at_a_time_finds_out() {
        let breaker = Breaker::default();
        breaker.judge(Verdict::Down, "sealed", 0.0, at(0));
        let probe = breaker.permit(at(250)).expect("the pause is over");
        assert!(breaker.permit(at(250)).is_err(), "one is under way");
        drop(probe);
        assert!(breaker.permit(at(250)).is_ok(), "it was given up");
    }

    #[test]
    fn whoever_saw_the_server_well_ends_the_pause() {
        let breaker = Breaker::default();
        breaker.judge(Verdict::Busy(Duration::from_secs(5)), "too many requests", 0.0, at(0));
        assert_eq!(after(&breaker, 1), Some(Duration::from_millis(4999)));
        breaker.invite(at(1));
        assert_eq!(after(&breaker, 1), None);
    }
}
