//! The way of each call: counted, held up, answered or forwarded, and perhaps answered otherwise afterwards.
//!
//! In scope: waiting, and the locks. Out of scope: which rules act (`desk.rs`), and what single functions change (`calls`).
//!
//! Two locks. The desk is held for moments, never during a call of the target. The gate is held shared during each call of the target, and
//! exclusively by commands that close sessions behind the client's back: a target may crash when its sessions are closed under a live call.
//! Whoever needs both takes the gate first. A call that is delayed or hangs holds neither.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_RV, CK_SLOT_ID, CKR_GENERAL_ERROR, CKR_OK};

use crate::desk::{Desk, Held, Touch};
use crate::rules::Step;
use crate::target::Target;

/// The module's state.
pub(crate) struct Module {
    target: Target,
    gate: RwLock<()>,
    desk: Mutex<Desk>,
    /// A command changed something that a waiting call waits for.
    changed: Condvar,
}

/// How a call holds the gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Beside others.
    Shared,
    /// Alone in the target.
    Alone,
    /// Not at all: the call may wait for ever in the target.
    Nothing,
}

/// A call on its way.
pub(crate) struct Call<'a> {
    pub(crate) module: &'a Module,
    pub(crate) touch: Touch,
}

/// Takes one call all its way. `forward` calls the target.
pub(crate) fn pass(function: &'static str, touch: Touch, hold: Hold, forward: impl FnOnce(&Call<'_>) -> CK_RV) -> CK_RV {
    // The function list is given out by a module that was set up, so there is one.
    let Some(module) = crate::module() else { return CKR_GENERAL_ERROR };
    let plan = module.desk().begin(function, touch, now());
    let code = module.wait(function, &plan.before).unwrap_or_else(|| {
        let code = module.forward(touch, hold, forward);
        module.wait(function, &plan.after).unwrap_or(code)
    });
    module.desk().end();
    code
}

/// Forwards a call that only asks how long an answer would be: it is counted apart, and no rule is about it.
pub(crate) fn ask_length(function: &'static str, touch: Touch, forward: impl FnOnce(&Call<'_>) -> CK_RV) -> CK_RV {
    let Some(module) = crate::module() else { return CKR_GENERAL_ERROR };
    module.desk().query(function);
    module.forward(touch, Hold::Shared, forward)
}

impl Module {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, gate: RwLock::default(), desk: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// What is known; to be held for a moment only.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the answer lives, no call is in the target.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has waiting calls look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    fn forward(&self, touch: Touch, hold: Hold, forward: impl FnOnce(&Call<'_>) -> CK_RV) -> CK_RV {
        let _shared = (hold == Hold::Shared).then(|| self.gate.read().unwrap_or_else(PoisonError::into_inner));
        let _alone = (hold == Hold::Alone).then(|| self.alone());
        let absent = self.desk().absent(touch);
        absent.unwrap_or_else(|| forward(&Call { module: self, touch }))
    }

    /// Does what the steps say; the code that one of them answers, if any.
    fn wait(&self, function: &'static str, steps: &[Step]) -> Option<CK_RV> {
        steps.iter().find_map(|step| match *step {
            Step::Answer(code) => Some(code),
            Step::Delay { rule, span } => self.wait_until(rule, now() + span),
            Step::Turn { rule, at } => self.wait_until(rule, at),
            Step::Hang { rule } => self.hang(function, rule),
        })
    }

    fn wait_until(&self, rule: u64, at: Instant) -> Option<CK_RV> {
        let mut desk = self.desk();
        loop {
            let left = at.saturating_duration_since(now());
            if left == Duration::ZERO || !desk.has_rule(rule) {
                return None;
            }
            desk = self.changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn hang(&self, function: &'static str, rule: u64) -> Option<CK_RV> {
        let mut desk = self.desk();
        let ticket = desk.hang(function, rule);
        loop {
            match desk.held(ticket) {
                Held::Still => {}
                Held::Free => return None,
                Held::Answer(code) => return Some(code),
            }
            desk = self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Call<'_> {
    /// The slot that the call is addressed to.
    pub(crate) fn slot(&self) -> Option<CK_SLOT_ID> {
        self.module.desk().slot(self.touch)
    }

    /// The target's number of an object that the client names.
    pub(crate) fn real(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        let desk = self.module.desk();
        desk.real(desk.slot(self.touch), object)
    }

    /// The number to give the client for an object of the target.
    pub(crate) fn show(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        let mut desk = self.module.desk();
        let slot = desk.slot(self.touch);
        desk.show(slot, object)
    }

    /// Replaces the number that the target wrote for an object, if the call went well.
    ///
    /// # Safety
    ///
    /// `object` is null, or points to a handle.
    pub(crate) unsafe fn show_at(&self, code: CK_RV, object: *mut CK_OBJECT_HANDLE) {
        if code == CKR_OK && !object.is_null() {
            // SAFETY: not null, so the caller says that it points to a handle.
            unsafe { *object = self.show(*object) };
        }
    }
}

/// The one place that reads the time.
#[expect(clippy::disallowed_methods, reason = "delays and rates are made of time")]
fn now() -> Instant {
    Instant::now()
}
