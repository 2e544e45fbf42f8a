//! The only place that reads the time.
//!
//! Everything else takes a [`Clock`] or a value that came from one, so that tests run a day in a millisecond.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claviger_audit::Timestamp;

/// Two clocks: the wall clock, which may be stepped, and a monotonic one, which may not.
pub trait Clock: Send + Sync {
    /// The wall clock, UTC.
    fn wall(&self) -> Timestamp;

    /// Time since an arbitrary, fixed point; never goes back.
    fn monotonic(&self) -> Monotonic;
}

/// A point on the monotonic clock. Deadlines and leases are monotonic, so that a stepped wall clock cannot stretch them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// A point that lies `since_start` after the clock's own zero.
    pub fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The point that lies `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// How far this point lies after `earlier`; zero if it does not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }
}
