//! The request quota as a budget: what may still be asked of the account now, and who goes without first.
//!
//! In scope: a token bucket for each family of keys, a cap on requests in flight, and slowing down when KMS throttles. Out of scope: asking, and what
//! an outage is (`breaker.rs`).
//!
//! KMS counts cryptographic operations for each account and region, RSA and curves apart, and everybody in the account shares the quota (KMS
//! Developer Guide, "Request quotas": 1,000 a second each by default). Work that stands over the budget is refused before AWS is asked: batches while
//! half of the bucket is still there for single requests, these when it is empty, Claviger's own signatures never.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Monotonic;
use crate::keystore::Class;

/// How much work may come at once after a pause, in seconds of the rate: KMS counts by the second, so a quarter leaves room for others.
const BURST: f64 = 0.25;
/// The part of a full bucket that is not for batches.
const NOT_FOR_BATCHES: f64 = 0.5;
/// The rate never falls below this part of what is configured.
const LEAST: f64 = 0.05;
/// How much of the configured rate comes back with each second without throttling.
const RECOVERY: f64 = 0.1;
/// How long batches wait after KMS throttled; other refusals within it are the same congestion, and slow down no further.
pub(super) const AFTER_THROTTLING: Duration = Duration::from_secs(1);

/// A connection is held for each request in flight; where they pile up, KMS does not answer, and more of them help nobody.
const MOST_IN_FLIGHT: usize = 256;
/// How many of them may be of batches.
const MOST_BATCHES_IN_FLIGHT: usize = 128;

/// The keys that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Rsa,
    /// Elliptic curves, Ed25519 among them.
    Curve,
}

/// What may be asked now. One per keystore.
pub(super) struct Budget {
    rsa: Mutex<Bucket>,
    curve: Mutex<Bucket>,
    in_flight: Arc<AtomicUsize>,
}

/// Held while a request is in flight.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Budget {
    /// Full buckets of so many requests per second each.
    pub(super) fn new(requests_per_second: u32, now: Monotonic) -> Self {
        let bucket = || Mutex::new(Bucket::new(f64::from(requests_per_second), now));
        Self { rsa: bucket(), curve: bucket(), in_flight: Arc::default() }
    }

    /// Takes one request out of the budget, or says that there is none for this class.
    pub(super) fn take(&self, family: Family, class: Class, now: Monotonic) -> Option<Slot> {
        let most = match class {
            Class::Own => usize::MAX,
            Class::Interactive => MOST_IN_FLIGHT,
            Class::Batch => MOST_BATCHES_IN_FLIGHT,
        };
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        // From here on the slot gives the place back, whatever is decided.
        let slot = Slot(self.in_flight.clone());
        (before < most && self.bucket(family).take(class, now)).then_some(slot)
    }

    /// KMS throttled a request of this family.
    pub(super) fn throttled(&self, family: Family, now: Monotonic) {
        self.bucket(family).throttled(now);
    }

    fn bucket(&self, family: Family) -> std::sync::MutexGuard<'_, Bucket> {
        let bucket = if family == Family::Rsa { &self.rsa } else { &self.curve };
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token bucket whose rate falls by half when KMS throttles, and comes back slowly: others use the same quota.
struct Bucket {
    configured: f64,
    rate: f64,
    tokens: f64,
    counted: Monotonic,
    throttled: Option<Monotonic>,
}

impl Bucket {
    fn new(configured: f64, now: Monotonic) -> Self {
        Self { configured, rate: configured, tokens: most(configured), counted: now, throttled: None }
    }

    fn take(&mut self, class: Class, now: Monotonic) -> bool {
        self.refill(now);
        let reserve = match class {
            // It may go below zero: then the others wait a little longer.
            Class::Own => f64::NEG_INFINITY,
            Class::Interactive => 0.0,
            Class::Batch if self.is_throttled(now) => return false,
            Class::Batch => most(self.rate) * NOT_FOR_BATCHES,
        };
        let taken = self.tokens - 1.0 >= reserve;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    fn throttled(&mut self, now: Monotonic) {
        self.refill(now);
        if !self.is_throttled(now) {
            self.rate = (self.rate / 2.0).max(self.configured * LEAST);
            self.tokens = self.tokens.min(0.0);
        }
        self.throttled.get_or_insert(now);
    }

    fn is_throttled(&self, now: Monotonic) -> bool {
        self.throttled.is_some_and(|at| now.since(at) < AFTER_THROTTLING)
    }

    fn refill(&mut self, now: Monotonic) {
        let passed = now.since(self.counted).as_secs_f64();
        self.counted = self.counted.max(now);
        if !self.is_throttled(now) {
            self.throttled = None;
            self.rate = (self.rate + self.configured * RECOVERY * passed).min(self.configured);
        }
        self.tokens = (self.tokens + self.rate * passed).min(most(self.rate));
    }
}

/// A full bucket: at the lowest rates it still holds a request of a batch beside the part that is not for batches.
fn most(rate: f64) -> f64 {
    (rate * BURST).max(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::at(Duration::from_millis(millis))
    }

    /// How many requests of a class go through in a second in which very many come.
    fn served(bucket: &mut Bucket, class: Class, from: u64) -> usize {
        (0..1000).flat_map(|milli| [milli; 4]).filter(|milli| bucket.take(class, at(from + milli))).count()
    }

    #[test]
    fn no_more_is_asked_than_the_budget_says() {
        let mut bucket = Bucket::new(200.0, at(0));
        let first = served(&mut bucket, Class::Interactive, 0);
        assert!((200..=251).contains(&first), "{first}: the rate and one burst");
        let second = served(&mut bucket, Class::Interactive, 1000);
        assert!((199..=201).contains(&second), "{second}");
    }

    #[test]
    fn batches_go_without_first_and_own_work_never_does() {
        let mut bucket = Bucket::new(200.0, at(0));
        let batch = (0..1000).filter(|_| bucket.take(Class::Batch, at(0))).count();
        assert_eq!(batch, 25, "half of a bucket of 50");
        let single = (0..1000).filter(|_| bucket.take(Class::Interactive, at(0))).count();
        assert_eq!(single, 25, "the other half");
        assert!((0..10).all(|_| bucket.take(Class::Own, at(0))));
        assert!(!bucket.take(Class::Interactive, at(49)), "own work is paid back first");
        assert!(bucket.take(Class::Interactive, at(56)));
        // While single requests use all there is, no batch gets through.
        let mut counts = (0, 0);
        for milli in 0..1000 {
            counts.0 += usize::from(bucket.take(Class::Interactive, at(1000 + milli)));
            counts.1 += usize::from(bucket.take(Class::Batch, at(1000 + milli)));
        }
        assert!(counts.0 > 200 && counts.1 < 30, "{counts:?}");
    }

    #[test]
    fn throttling_stops_batches_and_halves_the_rest_once() {
        let mut bucket = Bucket::new(200.0, at(0));
        for milli in 0..50 {
            bucket.throttled(at(milli));
        }
        assert!(!bucket.take(Class::Batch, at(999)));
        assert!(bucket.take(Class::Own, at(50)));
        let second = served(&mut bucket, Class::Interactive, 1000);
        assert!((100..=140).contains(&second), "{second}: half of it, and what came back in between");
        let full = served(&mut bucket, Class::Interactive, 20_000);
        assert!((200..=251).contains(&full), "{full}");
        assert!(bucket.take(Class::Batch, at(30_000)));
    }

    #[test]
    fn a_tiny_budget_still_serves_and_never_starves() {
        let mut bucket = Bucket::new(1.0, at(0));
        assert!(bucket.take(Class::Batch, at(0)));
        for second in 0..100 {
            bucket.throttled(at(second * 1100));
        }
        assert!(bucket.take(Class::Interactive, at(200_000)));
    }

    #[test]
    fn requests_in_flight_are_capped_and_given_back() {
        let budget = Budget::new(100_000, at(0));
        let take = |class| budget.take(Family::Curve, class, at(0));
        let held: Vec<_> = (0..MOST_BATCHES_IN_FLIGHT).map(|_| take(Class::Batch).expect("a place")).collect();
        assert!(take(Class::Batch).is_none());
        let more: Vec<_> = (MOST_BATCHES_IN_FLIGHT..MOST_IN_FLIGHT).map(|_| take(Class::Interactive).expect("a place")).collect();
        assert!(take(Class::Interactive).is_none());
        assert!(take(Class::Own).is_some());
        drop((held, more));
        assert!(take(Class::Batch).is_some());
    }

    #[test]
    fn the_families_do_not_share() {
        let budget = Budget::new(4, at(0));
        while budget.take(Family::Rsa, Class::Interactive, at(0)).is_some() {}
        assert!(budget.take(Family::Curve, Class::Interactive, at(0)).is_some());
        budget.throttled(Family::Rsa, at(0));
        assert!(budget.take(Family::Curve, Class::Batch, at(2000)).is_some());
    }
}
