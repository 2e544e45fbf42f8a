//! Since when things are not as they should be: what no record says and one look cannot tell.
//!
//! In scope: how long the checkpoints of a log make no progress, and since when the clock is in doubt, from one look a second. Out of scope:
//! judging it (`rotation::risk`), and keystores, whose absences have their own dates.

use std::sync::{Mutex, PoisonError};

use claviger_audit::Timestamp;

/// What the looks found. One per daemon.
#[derive(Debug, Default)]
pub struct Lateness(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Of each log: what its newest checkpoint covered when it last came closer, and when that was; `None` while it covers everything.
    stalled: [Option<(u64, Timestamp)>; 2],
    paused: Option<Timestamp>,
}

impl Lateness {
    /// Takes note. `logs` are size and covered size of the key log and of the use log. A log that grows all the time is never covered
    /// whole, so what counts is whether its checkpoints move.
    pub fn look(&self, logs: [(u64, u64); 2], paused: bool, now: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((size, covered), stalled) in logs.into_iter().zip(&mut seen.stalled) {
            let same = stalled.filter(|(before, _)| *before == covered);
            *stalled = (covered < size).then(|| same.unwrap_or((covered, now)));
        }
        seen.paused = paused.then(|| seen.paused.unwrap_or(now));
    }

    /// Since when the checkpoints of each log make no progress although there are records to cover: keys, uses.
    pub fn uncovered(&self) -> [Option<Timestamp>; 2] {
        self.seen().stalled.map(|stalled| stalled.map(|(_, since)| since))
    }

    /// Since when the clock is in doubt.
    pub fn paused_since(&self) -> Option<Timestamp> {
        self.seen().paused
    }

    fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_counts() {
        let (lateness, at) = (Lateness::default(), Timestamp::from_seconds);
        assert_eq!(lateness.uncovered(), [None, None]);
        let looks = [
            (10, [(5, 5), (9, 0)], [None, Some(10)]),
            (11, [(6, 5), (9, 0)], [Some(11), Some(10)]),
            // The log grows, its checkpoints do not.
            (12, [(9, 5), (99, 0)], [Some(11), Some(10)]),
            // They move, and are behind all the same: the wait begins anew.
            (13, [(12, 9), (99, 1)], [Some(13), Some(13)]),
            (14, [(12, 12), (99, 99)], [None, None]),
        ];
        for (now, logs, expected) in looks {
            lateness.look(logs, false, at(now));
            assert_eq!(lateness.uncovered(), expected.map(|since| since.map(at)), "at {now}");
        }
    }

    #[test]
    fn a_pause_lasts_from_its_first_look_to_its_end() {
        let (lateness, at) = (Lateness::default(), Timestamp::from_seconds);
        let steps = [(1, false, None), (2, true, Some(2)), (3, true, Some(2)), (4, false, None), (5, true, Some(5))];
        for (now, paused, since) in steps {
            lateness.look([(0, 0), (0, 0)], paused, at(now));
            assert_eq!(lateness.paused_since(), since.map(at), "at {now}");
        }
    }
}
