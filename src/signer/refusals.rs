//! Strangers cannot fill the log: refusals are counted and written once a second.
//!
//! In scope: the per-caller budget of `sign.denied` records, and the counts behind `sign.refused`. Out of scope: writing
//! them, and calls without an answer (`crate::calls`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, SignRefused};
use claviger_audit::record::Asked;

use crate::journal::Draft;

/// Records of its own that one caller's refusals may have per second; the rest is counted.
const RECORDS_PER_SECOND: u32 = 10;
/// Different (code, caller) pairs that one second may count apart; beyond that the caller is left out, so that memory is bounded.
const MOST_ROWS: usize = 1024;

/// Counts within the running second.
#[derive(Default)]
pub(super) struct Refusals {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    second: i64,
    budget: HashMap<String, u32>,
    refused: HashMap<(&'static str, Option<String>), u64>,
}

impl Refusals {
    /// Whether this refusal may still have a record of its own.
    pub(super) fn may_record(&self, caller: &str, now: Timestamp) -> bool {
        let mut counts = self.lock();
        if counts.second != now.seconds() {
            counts.second = now.seconds();
            counts.budget.clear();
        }
        if counts.budget.len() >= MOST_ROWS && !counts.budget.contains_key(caller) {
            return false;
        }
        let used = counts.budget.entry(caller.to_owned()).or_default();
        *used += 1;
        *used <= RECORDS_PER_SECOND
    }

    /// Counts a refusal.
    pub(super) fn count(&self, code: &'static str, caller: Option<&str>) {
        let mut counts = self.lock();
        let named = (code, caller.map(str::to_owned));
        let row = if counts.refused.len() < MOST_ROWS || counts.refused.contains_key(&named) { named } else { (code, None) };
        *counts.refused.entry(row).or_default() += 1;
    }

    /// Everything counted since the last call, as drafts.
    pub(super) fn take(&self) -> Vec<Draft> {
        let mut counts = self.lock();
        let refused = std::mem::take(&mut counts.refused).into_iter().map(|((code, caller), count)| Draft {
            asked: Asked { caller, ..Asked::default() },
            event: Event::SignRefused(SignRefused { code: code.to_owned(), count }),
        });
        refused.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // A panic elsewhere leaves the counts usable: they are only numbers.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_budget_per_second() {
        let refusals = Refusals::default();
        let now = Timestamp::from_seconds(5);
        let granted = (0..100).filter(|_| refusals.may_record("token:a", now)).count();
        assert_eq!(granted, RECORDS_PER_SECOND as usize);
        assert!(refusals.may_record("token:b", now) && refusals.may_record("token:a", Timestamp::from_seconds(6)));
    }

    #[test]
    fn rows_are_bounded_and_no_count_is_lost() {
        let refusals = Refusals::default();
        for caller in 0..5000 {
            refusals.count("denied", Some(&format!("token:{caller}")));
        }
        let drafts = refusals.take();
        let total: u64 = drafts.iter().map(|d| if let Event::SignRefused(e) = &d.event { e.count } else { 0 }).sum();
        assert_eq!((drafts.len(), total), (MOST_ROWS + 1, 5000));
        assert!(refusals.take().is_empty());
    }
}
