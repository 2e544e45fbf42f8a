//! What the threads of one keystore know about its token: whether it can be used, and in which epoch.
//!
//! In scope: the shared state and waiting for it, and what was opened again. Out of scope: changing it for a reason; only the admin thread
//! settles it, a worker may only report that the epoch it used is broken, and only the watch gives the token up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use cryptoki::slot::Slot;

use super::fault::Fault;
use super::module::{Generation, Module, lock};
use super::recovery::Class;
use crate::clock::{Clock, Monotonic};
use crate::keystore::{KeystoreError, Reopened};

/// When to ask again for a token that was given up: by then another process may serve it.
const WEDGED_AFTER: Duration = Duration::from_mins(1);

/// How the token can be reached in one epoch. Sessions and handles of another epoch must not be used.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) module: Arc<Module>,
    pub(super) generation: Generation,
    pub(super) epoch: u64,
    pub(super) slot: Slot,
}

/// The state of one token, shared by its threads and callers.
pub(super) struct Link {
    state: Mutex<State>,
    changed: Condvar,
    /// Reports since the last signature.
    reports: AtomicU32,
    openings: AtomicU64,
    reopened: Mutex<Reopened>,
    /// When the last signature was made: milliseconds of the monotonic clock.
    proved: AtomicU64,
}

enum State {
    /// The admin thread is about to find out: at start, and after a report, whose class it needs.
    Unsettled(Option<Class>),
    Ready(Standing),
    Down {
        fault: Fault,
        until: Monotonic,
    },
    /// So many calls hang that the token is given up for the life of this process.
    Wedged {
        hung: usize,
    },
}

/// What readiness shows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is being opened, for the first time or again.
    Opening,
    /// It is open and logged in.
    Ready,
    /// It cannot be used; the text says why and what to do.
    Down(String),
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::Unsettled(None)),
            changed: Condvar::new(),
            reports: AtomicU32::new(0),
            openings: AtomicU64::new(0),
            reopened: Mutex::default(),
            proved: AtomicU64::new(0),
        }
    }

    /// Whether the token was usable when it was used last.
    pub(super) fn can_sign(&self) -> bool {
        matches!(*lock(&self.state), State::Ready(_))
    }

    /// The class of the failure that was reported, until the token is settled again.
    pub(super) fn reported(&self) -> Option<Class> {
        match *lock(&self.state) {
            State::Unsettled(class) => class,
            State::Ready(_) | State::Down { .. } | State::Wedged { .. } => None,
        }
    }

    /// How many reports there were since the last signature: many mean that new logins do not help.
    pub(super) fn reports(&self) -> u32 {
        self.reports.load(Ordering::Relaxed)
    }

    /// Says that `epoch` is broken; only the first report of an epoch counts.
    pub(super) fn report(&self, epoch: u64, fault: &Fault) {
        let mut state = lock(&self.state);
        if matches!(&*state, State::Ready(standing) if standing.epoch == epoch) {
            *state = State::Unsettled(Some(fault.class()));
            lock(&self.reopened).cause = fault.to_string();
            // A key that is not there says nothing against the token.
            if !matches!(fault, Fault::Missing(_) | Fault::Stale) {
                self.reports.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often the token was opened.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Says that a signature was made.
    pub(super) fn prove(&self, now: Monotonic) {
        self.reports.store(0, Ordering::Relaxed);
        self.proved.store(millis(now), Ordering::Relaxed);
    }

    /// Whether a signature was made less than `span` ago.
    pub(super) fn proved_within(&self, span: Duration, now: Monotonic) -> bool {
        let proved = self.proved.load(Ordering::Relaxed);
        proved > 0 && u128::from(millis(now).saturating_sub(proved)) < span.as_millis()
    }

    /// Begins the epoch of `standing`.
    pub(super) fn settle(&self, standing: Standing) {
        if self.openings.fetch_add(1, Ordering::Relaxed) > 0 {
            lock(&self.reopened).logins += 1;
        }
        self.change(State::Ready(standing));
    }

    /// Says that the token cannot be used, and when it will be tried again.
    pub(super) fn fail(&self, fault: Fault, until: Monotonic) {
        lock(&self.reopened).cause = fault.to_string();
        self.change(State::Down { fault, until });
    }

    /// Gives the token up: so many calls hang in it, and nothing may be initialised again under them.
    pub(super) fn wedge(&self, hung: usize) {
        self.change(State::Wedged { hung });
    }

    /// Whether the token was given up.
    pub(super) fn is_wedged(&self) -> bool {
        matches!(*lock(&self.state), State::Wedged { .. })
    }

    fn change(&self, next: State) {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Wedged { .. }) {
            *state = next;
            self.changed.notify_all();
        }
    }

    /// Says that a session which was lost alone was opened again.
    pub(super) fn session_reopened(&self, fault: &Fault) {
        let mut reopened = lock(&self.reopened);
        reopened.sessions += 1;
        reopened.cause = fault.to_string();
    }

    /// Says that the module was initialised again for this token.
    pub(super) fn module_reinitialised(&self) {
        lock(&self.reopened).modules += 1;
    }

    /// What was opened again since the start.
    pub(super) fn reopened(&self) -> Reopened {
        lock(&self.reopened).clone()
    }

    /// What to tell a caller at once, if the token is known to be down.
    pub(super) fn refusal(&self, now: Monotonic) -> Option<KeystoreError> {
        match &*lock(&self.state) {
            State::Down { fault, until } => Some(refuse(fault, until.since(now))),
            State::Wedged { hung } => Some(given_up(*hung)),
            State::Unsettled(_) | State::Ready(_) => None,
        }
    }

    /// Waits until the token is settled, at most until `deadline`.
    pub(super) fn standing(&self, clock: &dyn Clock, deadline: Monotonic) -> Result<Standing, KeystoreError> {
        let mut state = lock(&self.state);
        loop {
            let now = clock.monotonic();
            match &*state {
                State::Ready(standing) => return Ok(standing.clone()),
                State::Down { fault, until } => return Err(refuse(fault, until.since(now))),
                State::Wedged { hung } => return Err(given_up(*hung)),
                State::Unsettled(_) if now >= deadline => return Err(KeystoreError::Unanswered),
                State::Unsettled(_) => {
                    let waited = self.changed.wait_timeout(state, deadline.since(now));
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The standing, if the token is usable.
    pub(super) fn current(&self) -> Option<Standing> {
        match &*lock(&self.state) {
            State::Ready(standing) => Some(standing.clone()),
            State::Unsettled(_) | State::Down { .. } | State::Wedged { .. } => None,
        }
    }

    /// What readiness shows.
    pub(super) fn token_state(&self) -> TokenState {
        match &*lock(&self.state) {
            State::Unsettled(_) => TokenState::Opening,
            State::Ready(_) => TokenState::Ready,
            State::Down { fault, .. } => TokenState::Down(fault.to_string()),
            State::Wedged { hung } => TokenState::Down(given_up(*hung).to_string()),
        }
    }
}

/// What is told once the token was given up.
fn given_up(hung: usize) -> KeystoreError {
    let reason = format!("{hung} calls hang in its module; only a restart of the daemon can use it again");
    KeystoreError::Unavailable { reason, after: WEDGED_AFTER }
}

fn millis(point: Monotonic) -> u64 {
    u64::try_from(point.since(Monotonic::at(Duration::ZERO)).as_millis()).unwrap_or(u64::MAX)
}

/// A token that is down is either refused for a reason that an operator must remove, or away for now.
fn refuse(fault: &Fault, after: Duration) -> KeystoreError {
    match fault.tell(after) {
        rejected @ KeystoreError::Rejected(_) => rejected,
        _ => KeystoreError::Unavailable { reason: fault.to_string(), after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn an_unsettled_token_is_waited_for_until_the_deadline_only() {
        let (link, clock) = (Link::new(), SystemClock::start());
        assert_eq!(link.standing(&clock, clock.monotonic()).err(), Some(KeystoreError::Unanswered));
        assert_eq!(link.standing(&clock, clock.monotonic().plus(Duration::from_millis(5))).err(), Some(KeystoreError::Unanswered));
        assert_eq!((link.token_state(), link.refusal(clock.monotonic())), (TokenState::Opening, None));
    }

    #[test]
    fn a_token_that_is_down_answers_at_once_with_the_time_that_is_left() {
        let (link, clock) = (Link::new(), SystemClock::start());
        let far = clock.monotonic().plus(Duration::from_hours(1));
        let at = |millis| Monotonic::at(Duration::from_millis(millis));
        link.fail(Fault::Absent("no token".into()), at(900));
        let unavailable = |millis| KeystoreError::Unavailable { reason: "no token".into(), after: Duration::from_millis(millis) };
        assert_eq!((link.refusal(at(200)), link.refusal(at(1000))), (Some(unavailable(700)), Some(unavailable(0))));
        link.fail(Fault::Refused("wrong PIN".into()), at(900));
        assert_eq!(link.standing(&clock, far).err(), Some(KeystoreError::Rejected("wrong PIN".into())));
        // What may pass by itself is never told as final.
        link.fail(Fault::Stale, at(900));
        assert!(matches!(link.refusal(at(0)), Some(KeystoreError::Unavailable { .. })));
    }

    #[test]
    fn a_fresh_signature_proves_health_and_ends_the_count_of_reports() {
        let link = Link::new();
        let at = |secs| Monotonic::at(Duration::from_secs(secs));
        assert!(!link.proved_within(Duration::from_secs(5), at(1)));
        link.prove(at(10));
        assert!(link.proved_within(Duration::from_secs(5), at(14)));
        assert!(!link.proved_within(Duration::from_secs(5), at(15)));
    }
}
