//! Whether the wall clock is trusted (I12), from four readings.
//!
//! In scope: when dates count, given both clocks, the start and the last record. Out of scope: reading clocks, and recording that one was
//! stepped.

use std::time::Duration;

use claviger_audit::Timestamp;

use super::plan::DateGate;

/// Both clocks since the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The wall clock at the start.
    pub started: Timestamp,
    /// How far the monotonic clock went since.
    pub passed: Duration,
    /// The wall clock now.
    pub wall: Timestamp,
}

impl Readings {
    /// How far the wall clock went beside the monotonic one, in milliseconds; positive if it stands too late.
    pub fn difference_ms(&self) -> i64 {
        self.wall.millis() - (self.started + self.passed).millis()
    }

    /// Whether that is more than `skew` (e), either way.
    pub fn is_stepped(&self, skew: Duration) -> bool {
        u128::from(self.difference_ms().unsigned_abs()) > skew.as_millis()
    }

    /// When dates count. `lead` is the longest D + e in force, `recorded` the latest time in any log of this node: records take the
    /// later of the wall clock and the record before, so after a step back the log's own time runs ahead of the true one, and what it says
    /// is due is not.
    pub fn date_gate(&self, skew: Duration, lead: Duration, recorded: Timestamp) -> DateGate {
        if self.is_stepped(skew) || self.wall + skew < recorded {
            return DateGate::Paused;
        }
        if self.passed >= lead {
            return DateGate::Open;
        }
        DateGate::Held { due_before: self.started, until: self.started + lead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(30);
    const LEAD: Duration = Duration::from_mins(15);

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn gate(passed: u64, wall: i64, recorded: i64) -> DateGate {
        Readings { started: time(0), passed: Duration::from_secs(passed), wall: time(wall) }.date_gate(SKEW, LEAD, time(recorded))
    }

    #[test]
    fn dates_are_held_after_a_start_and_count_after_the_lead() {
        let held = DateGate::Held { due_before: time(0), until: time(900) };
        assert_eq!([gate(0, 0, 0), gate(899, 899, 0), gate(900, 900, 0)], [held, held, DateGate::Open]);
    }

    #[test]
    fn a_step_of_more_than_the_skew_pauses_either_way() {
        assert_eq!([gate(1000, 1030, 0), gate(1000, 970, 0)], [DateGate::Open; 2]);
        assert_eq!([gate(1000, 1031, 0), gate(1000, 969, 0)], [DateGate::Paused; 2]);
    }

    /// The clock went a day ahead, a record was written, and the clock came back: the log's time is no reason to retire anything.
    #[test]
    fn a_log_ahead_of_the_clock_pauses_until_the_clock_has_caught_up() {
        let day = 86_400;
        assert_eq!([gate(1000, 1000, day), gate(1000, 1000, 1030)], [DateGate::Paused, DateGate::Open]);
    }
}
