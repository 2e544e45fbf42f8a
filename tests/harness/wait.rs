//! The one place where tests wait.
//!
//! In scope: waiting for a condition, within bounds, and the pace of a load. Out of scope: waiting for a time to pass, in the hope that
//! something has happened meanwhile: no test does that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a poll rests between two looks.
const POLL: Duration = Duration::from_millis(20);
/// How often a poll looks: after a minute, what has not happened will not.
const LOOKS: usize = 3_000;

/// Rests, for the pace of a load. It never stands for a condition: those are for [`until`].
pub(crate) fn rest(span: Duration) {
    thread::sleep(span);
}

/// Looks until `look` finds something, and gives it; panics with the last reason why not. Whoever waits for something in a test waits
/// here, for a condition, never for a time.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let mut why = String::new();
    for _ in 0..LOOKS {
        match look() {
            Ok(found) => return found,
            Err(reason) => why = reason,
        }
        rest(POLL);
    }
    panic!("{what}: not within {:?}; last: {why}", POLL * u32::try_from(LOOKS).expect("a small number"));
}

/// Raises a flag when it goes, whatever becomes of the test: threads that look at it end, and nobody waits for them in vain.
pub(crate) struct RaisedAtEnd<'f>(pub(crate) &'f AtomicBool);

impl Drop for RaisedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
