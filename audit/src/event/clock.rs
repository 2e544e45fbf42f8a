//! The fields of the events that say whether a node's wall clock is trusted (I12).
//!
//! In scope: names and fields, as `audit/README.md` specifies them. Out of scope: what a pause excuses (`verify::on_time`).

use serde::{Deserialize, Serialize};

/// The wall clock and the monotonic clock disagree by more than e: transitions pause (I12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockStepped {
    /// The smallest e in force.
    pub keyring_skew_ms: u64,
    /// Wall minus monotonic.
    pub difference_ms: i64,
}

/// They agree again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSettled {
    /// Wall minus monotonic.
    pub difference_ms: i64,
}

/// An operator vouches for the clock that was stepped: transitions go on, once D + e of monotonic time has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockConfirmed {
    /// Wall minus monotonic, when it was confirmed.
    pub difference_ms: i64,
    /// The operator's.
    pub reason: String,
}
