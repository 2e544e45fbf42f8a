//! How many requests are in flight at one server: no queue, a bound.
//!
//! In scope: admission by class and caller. Out of scope: how long a request takes, and whether the server is well (`breaker.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::keystore::{Class, Terms};

/// Batches leave this part of the bound to others: a quarter.
const BATCH_LEAVES: usize = 4;
/// The part of the bound that one caller may fill once so much is in flight: a half, so that nobody's haste is everybody's refusal.
const ONE_CALLER: usize = 2;

/// The bound on requests in flight.
pub(super) struct Gate {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: usize,
    callers: HashMap<Arc<str>, usize>,
}

/// Held while a request is in flight.
pub(super) struct Pass<'g> {
    gate: &'g Gate,
    caller: Arc<str>,
}

impl Gate {
    /// A bound of `most` requests.
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// Lets a request through, or refuses it at once. Claviger's own signatures always pass: they are few.
    pub(super) fn enter(&self, terms: &Terms) -> Option<Pass<'_>> {
        let mut held = self.held();
        let of_caller = held.callers.get(&terms.caller).copied().unwrap_or_default();
        let room = match terms.class {
            Class::Own => usize::MAX,
            Class::Interactive => self.most,
            Class::Batch => self.most - self.most / BATCH_LEAVES,
        };
        let share = (self.most / ONE_CALLER).max(1);
        let greedy = held.total >= share && of_caller >= share && terms.class != Class::Own;
        if held.total >= room || greedy {
            return None;
        }
        held.total += 1;
        *held.callers.entry(terms.caller.clone()).or_default() += 1;
        Some(Pass { gate: self, caller: terms.caller.clone() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut held = self.gate.held();
        held.total = held.total.saturating_sub(1);
        if let Some(count) = held.callers.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Monotonic;

    fn terms(class: Class, caller: &str) -> Terms {
        Terms { deadline: Monotonic::at(Duration::ZERO), class, caller: Arc::from(caller) }
    }

    #[test]
    fn batches_are_refused_first_and_own_work_never() {
        let gate = Gate::new(8);
        let enter = |class, caller: &str| gate.enter(&terms(class, caller));
        let batch: Vec<_> = (0..8).filter_map(|number| enter(Class::Batch, &number.to_string())).collect();
        assert_eq!(batch.len(), 6);
        let interactive: Vec<_> = (0..8).filter_map(|number| enter(Class::Interactive, &number.to_string())).collect();
        assert_eq!((interactive.len(), gate.held().total), (2, 8));
        let own: Vec<_> = (0..20).filter_map(|_| enter(Class::Own, "claviger")).collect();
        assert_eq!(own.len(), 20);
        drop((batch, interactive, own));
        assert!(gate.held().total == 0 && gate.held().callers.is_empty());
    }

    #[test]
    fn no_caller_takes_it_all() {
        let gate = Gate::new(8);
        let greedy: Vec<_> = (0..8).filter_map(|_| gate.enter(&terms(Class::Interactive, "greedy"))).collect();
        assert_eq!(greedy.len(), 4);
        assert!(gate.enter(&terms(Class::Interactive, "modest")).is_some());
        let one = Gate::new(1);
        assert!(one.enter(&terms(Class::Interactive, "a")).is_some(), "the smallest bound lets one through");
    }
}
