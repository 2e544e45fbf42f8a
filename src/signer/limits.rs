//! Per-caller limits: a rate (token bucket) and a cap on requests in flight, checked before a request costs anything.
//!
//! In scope: admission by caller. Out of scope: overload of a keystore, which its own queue refuses.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::refusal::{Code, Refusal};

/// What one caller may do.
#[derive(Clone, Copy, Debug)]
pub struct PerCaller {
    /// Requests per second, sustained.
    pub rate: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
    /// Requests that may be in flight.
    pub in_flight: u32,
}

pub(super) struct Limits {
    rate: DefaultKeyedRateLimiter<String>,
    in_flight: Mutex<HashMap<String, Arc<AtomicU32>>>,
    most_in_flight: u32,
}

/// Held while a request is in flight.
#[derive(Debug)]
pub struct Slot(Arc<AtomicU32>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limits {
    pub(super) fn new(limits: PerCaller) -> Self {
        let quota = Quota::per_second(limits.rate).allow_burst(limits.burst);
        Self { rate: RateLimiter::keyed(quota), in_flight: Mutex::default(), most_in_flight: limits.in_flight }
    }

    /// Admits `requests` of one caller, or says when to ask again. Only authenticated callers come here, so the number of rows is bounded.
    pub(super) fn admit(&self, caller: &str, requests: NonZeroU32) -> Result<Slot, Refusal> {
        let limited = |after| Refusal::new(Code::RateLimited, "this caller asks too often; slow down and ask again").retry_after(after);
        match self.rate.check_key_n(&caller.to_owned(), requests) {
            Ok(Ok(())) => {}
            Ok(Err(not_until)) => return Err(limited(not_until.wait_time_from(DefaultClock::default().now()))),
            // No wait helps here: the bucket never holds so many.
            Err(_) => {
                let detail = "the batch has more items than this caller may ask for at once; send smaller batches";
                return Err(Refusal::new(Code::RateLimited, detail));
            }
        }
        let mut rows = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry(caller.to_owned()).or_default().clone();
        drop(rows);
        if row.fetch_add(1, Ordering::AcqRel) >= self.most_in_flight {
            row.fetch_sub(1, Ordering::AcqRel);
            return Err(limited(Duration::from_secs(1)));
        }
        Ok(Slot(row))
    }

    /// Forgets callers who have not asked for a while.
    pub(super) fn forget_idle(&self) {
        self.rate.retain_recent();
        let mut rows = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, row| Arc::strong_count(row) > 1 || row.load(Ordering::Acquire) > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_flight_are_capped_per_caller() {
        let many = NonZeroU32::new(1000).expect("not zero");
        let limits = Limits::new(PerCaller { rate: many, burst: many, in_flight: 2 });
        let one = NonZeroU32::MIN;
        let held: Vec<_> = (0..2).map(|_| limits.admit("token:a", one).expect("within the cap")).collect();
        assert_eq!(limits.admit("token:a", one).expect_err("over the cap").code, Code::RateLimited);
        assert!(limits.admit("token:b", one).is_ok());
        drop(held);
        assert!(limits.admit("token:a", one).is_ok());
    }

    #[test]
    fn a_rate_names_when_to_ask_again() {
        let one = NonZeroU32::MIN;
        let limits = Limits::new(PerCaller { rate: one, burst: one, in_flight: 9 });
        assert!(limits.admit("token:a", one).is_ok());
        let refusal = limits.admit("token:a", one).expect_err("the bucket is empty");
        assert!(refusal.retry_after.is_some_and(|after| after > Duration::ZERO && after <= Duration::from_secs(1)));
    }
}
