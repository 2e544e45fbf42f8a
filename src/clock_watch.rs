//! Whether the wall clock is trusted (I12): it is compared with the monotonic one, which no time server steps.
//!
//! In scope: the state that the rotator, operators and `doctor` share, and what it means for dates. Out of scope: reading time (`clock`), and
//! the records of a step, its end and its confirmation (`rotator`, `operator`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::keyrings::{Keyring, Keyrings};

use crate::clock::{Clock, Monotonic};
use crate::rotation::DateGate;
use crate::rotation::gate::Readings;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub monotonic: Monotonic,
}

/// What the rotator has to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The clocks disagree by more than the smallest e in force.
    Stepped {
        /// That e, in milliseconds.
        skew_ms: u64,
        /// Wall minus monotonic, in milliseconds.
        difference_ms: i64,
    },
    /// They agree again.
    Settled {
        /// Wall minus monotonic, in milliseconds.
        difference_ms: i64,
    },
}

/// Knows whether the wall clock is trusted. One per daemon.
pub struct ClockWatch {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    /// The clocks at the start of the process, or when an operator confirmed them.
    base: Reading,
    confirmed: bool,
    /// Nothing transitions while this holds.
    stepped: bool,
    /// The state that the newest record of a change speaks of.
    recorded: bool,
}

impl ClockWatch {
    /// Takes the clocks of now as the ones to compare with.
    pub fn start(clock: Arc<dyn Clock>) -> Self {
        let base = Reading { wall: clock.wall(), monotonic: clock.monotonic() };
        Self { clock, state: Mutex::new(State { base, confirmed: false, stepped: false, recorded: false }) }
    }

    /// The clocks now, and how far the wall clock moved against the monotonic one since the base, in milliseconds.
    pub fn read(&self) -> (Reading, i64) {
        self.compare(self.lock().base)
    }

    /// Looks at both clocks. What changed is to be recorded, and told again until [`Self::recorded`].
    pub fn look(&self, keyrings: &Keyrings) -> Option<Change> {
        let skew_ms = u64::try_from(least_skew(keyrings)?.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let (_, difference_ms) = self.compare(state.base);
        state.stepped = difference_ms.unsigned_abs() > skew_ms;
        let change = if state.stepped { Change::Stepped { skew_ms, difference_ms } } else { Change::Settled { difference_ms } };
        (state.stepped != state.recorded).then_some(change)
    }

    /// The change is on record.
    pub fn recorded(&self, change: Change) {
        self.lock().recorded = matches!(change, Change::Stepped { .. });
    }

    /// Whether a step of the clock is on record and not settled, so that no dated transition happens.
    pub fn is_paused(&self) -> bool {
        self.lock().recorded
    }

    /// An operator vouched for the clock as it was read, and that is on record.
    pub fn confirm(&self, reading: Reading) {
        *self.lock() = State { base: reading, confirmed: true, stepped: false, recorded: false };
    }

    /// Whether dates count; `recorded` is the latest time in any log of this node. After a start, what fell due while nobody watched the clock
    /// waits for D + e of monotonic time. After a confirmed step every date does: one that was set before the step may come early by all of
    /// the step, and a standby must be known first (I1).
    pub fn gate(&self, keyrings: &Keyrings, recorded: Timestamp) -> DateGate {
        let state = *self.lock();
        if state.stepped {
            return DateGate::Paused;
        }
        let passed = self.clock.monotonic().since(state.base.monotonic);
        let readings = Readings { started: state.base.wall, passed, wall: self.clock.wall() };
        match readings.date_gate(least_skew(keyrings).unwrap_or(Duration::MAX), hold(keyrings), recorded) {
            DateGate::Held { until, .. } if state.confirmed => DateGate::Held { due_before: until, until },
            gate => gate,
        }
    }

    /// While an operator's verb must not trust a date either: `Some` with the end of the wait after a confirmation, or with `None` while the
    /// clock is in doubt, from the moment of the step on. A restart alone stops no operator.
    pub fn in_doubt(&self, keyrings: &Keyrings, recorded: Timestamp) -> Option<Option<Timestamp>> {
        // The rotator looks every few seconds only, and records what it finds then.
        let _ = self.look(keyrings);
        match self.gate(keyrings, recorded) {
            DateGate::Paused => Some(None),
            DateGate::Held { until, .. } if self.lock().confirmed => Some(Some(until)),
            DateGate::Held { .. } | DateGate::Open => None,
        }
    }

    fn compare(&self, base: Reading) -> (Reading, i64) {
        let reading = Reading { wall: self.clock.wall(), monotonic: self.clock.monotonic() };
        let expected = base.wall + reading.monotonic.since(base.monotonic);
        (reading, reading.wall.millis() - expected.millis())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The least e in force; `None` before there are settings.
fn least_skew(keyrings: &Keyrings) -> Option<Duration> {
    keyrings.all().filter_map(Keyring::timing).map(|settings| settings.timing.skew()).min()
}

/// The largest D + e in force.
fn hold(keyrings: &Keyrings) -> Duration {
    keyrings.all().filter_map(Keyring::timing).map(|settings| settings.timing.lead()).max().unwrap_or_default()
}
