//! The thread that looks whether calls return.
//!
//! In scope: looking in intervals, replacing threads that hang or ended, giving the token up when too many hang. Out of scope: which thread is
//! where (`crew.rs`), and what a keystore that was given up answers (`link.rs`).
//!
//! Nothing here enters the module, so this thread never hangs itself.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::module::lock;
use super::{Shared, hire};
use crate::clock::Monotonic;
use crate::keystore::KeystoreError;

/// The longest pause between two looks: a thread that ended by a panic is missed for no longer than this.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Looks within the span after which a call counts as hung.
const LOOKS: u32 = 10;

/// Opening a token is given up after this many more spans: the client of a device behind a network may wait long before it gives up itself,
/// and then everything is well again without a restart.
const PATIENCE_WITH_ADMIN: u32 = 5;

/// Ends the thread.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Ends the thread that waits.
    pub(super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.changed.notify_all();
    }

    /// Whether the bell rang within `span`.
    fn rings_within(&self, span: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.rung), span, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Looks until the keystore is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    let pause = (shared.settings.hang_after / LOOKS).min(LONGEST_LOOK);
    while !shared.bell.rings_within(pause) {
        look(shared, shared.clock.monotonic());
    }
}

fn look(shared: &Arc<Shared>, now: Monotonic) {
    let (looked, admin_hangs) = (shared.crew.look(now), shared.admin.hangs(now));
    if looked.lost > 0 {
        tracing::error!(
            module = %shared.settings.module.display(),
            hanging = looked.hanging,
            "a call to the PKCS#11 module does not return; its thread is replaced"
        );
    }
    // Without the admin thread a token that works goes on; one that must be opened again cannot be.
    let helpless = admin_hangs && !shared.link.can_sign();
    if looked.beyond_help || (helpless && shared.admin.overdue(now) >= shared.settings.hang_after * PATIENCE_WITH_ADMIN) {
        shared.link.wedge(looked.hanging + usize::from(admin_hangs));
    } else if helpless {
        shared.link.fail(Fault::Occupied("a call that opens the token does not return"), now.plus(LONGEST_LOOK));
    }
    if (looked.beyond_help || helpless)
        && let Some(refusal) = shared.link.refusal(now)
    {
        shared.jobs.fail_all(&refusal);
    }
    if admin_hangs || shared.link.is_wedged() {
        // Whoever asked is told that nobody answers.
        drop(shared.errands.drain());
    }
    // If the system gives no thread, the others go on, and the next look tries again.
    let _ = hire(shared);
}

/// What to tell at once to whoever has an errand for the admin thread while that hangs.
pub(super) fn refusal(shared: &Shared) -> Option<KeystoreError> {
    let hangs = shared.admin.hangs(shared.clock.monotonic());
    let reason = || "a call to its module does not return; keys cannot be made, listed or destroyed until it does".to_owned();
    hangs.then(|| KeystoreError::Unavailable { reason: reason(), after: LONGEST_LOOK })
}
