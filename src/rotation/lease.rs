//! Leases: how long a replica goes on with what it last knew of a key log that it shares with others.
//!
//! In scope: whether it may still sign and still serve. Both count on the monotonic clock, so that a stepped wall clock cannot stretch
//! them. Out of scope: asking the log's store. A single node, whose log is its own file, has neither lease and asks nothing here.

use std::time::Duration;

use claviger_audit::timing::Timing;

use crate::clock::Monotonic;

/// What a replica knows of the shared key log, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    asked: Monotonic,
}

impl Lease {
    /// The store confirmed the log's head in answer to a question that was asked at `asked`: the head may have moved while the answer was
    /// on its way, so the lease runs from the question. A replica whose wall clock is in doubt must not confirm: its tokens would
    /// outlive their key on clocks that are right.
    pub fn confirmed(asked: Monotonic) -> Self {
        Self { asked }
    }

    /// Whether the replica may sign: it confirmed the head within `l` (I2, I7).
    pub fn may_sign(self, now: Monotonic, timing: &Timing) -> bool {
        now.since(self.asked) <= Duration::from_millis(timing.signing_lease_ms)
    }

    /// Whether it may serve its sets: it confirmed the head within the longest `serve_lease` for which `serve_lease + D + e <= E`
    /// holds (I7). After that it answers 503 and no longer counts for *visible*.
    pub fn may_serve(self, now: Monotonic, timing: &Timing) -> bool {
        now.since(self.asked) <= serve_lease(timing)
    }
}

/// `serve_lease = E - (D + e)`: a compromised key that a cut-off replica still serves is trusted for no longer than E.
pub fn serve_lease(timing: &Timing) -> Duration {
    Duration::from_millis(timing.max_exposure_ms).saturating_sub(timing.lead())
}

#[cfg(test)]
mod tests {
    use super::super::timing::{Settings, solve};
    use super::*;

    fn timing() -> Timing {
        solve(&Settings { signing_lease: Duration::from_secs(10), ..Settings::default() }).expect("holds")
    }

    #[test]
    fn a_replica_stops_signing_long_before_it_stops_serving() {
        let (timing, asked) = (timing(), Monotonic::at(Duration::from_secs(100)));
        let lease = Lease::confirmed(asked);
        let verdict = |after: Duration| (lease.may_sign(asked.plus(after), &timing), lease.may_serve(asked.plus(after), &timing));
        let millisecond = Duration::from_millis(1);
        assert_eq!(verdict(Duration::from_secs(10)), (true, true));
        assert_eq!(verdict(Duration::from_secs(10) + millisecond), (false, true));
        // 1 h - 15 min 40 s.
        let serving = Duration::from_secs(44 * 60 + 20);
        assert_eq!(verdict(serving), (false, true));
        assert_eq!(verdict(serving + millisecond), (false, false));
    }

    #[test]
    fn the_serve_lease_leaves_the_lead_within_the_exposure() {
        let timing = timing();
        assert_eq!(serve_lease(&timing) + timing.lead(), Duration::from_millis(timing.max_exposure_ms));
        let short = Timing { max_exposure_ms: 1, ..timing };
        assert_eq!(serve_lease(&short), Duration::ZERO);
    }

    #[test]
    fn a_new_confirmation_extends_the_lease_from_the_question() {
        let timing = timing();
        let (asked, answered) = (Duration::from_secs(50), Duration::from_secs(55));
        let lease = Lease::confirmed(Monotonic::at(asked));
        assert!(!lease.may_sign(Monotonic::at(answered + Duration::from_secs(10)), &timing));
    }
}
