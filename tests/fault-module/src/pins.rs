//! Logins, counted: how each ended, and how many different PINs were tried. No PIN is kept or told.
//!
//! In scope: the counts, and a counter of wrong tries for targets that have none. Out of scope: the login itself, and the officer's PIN.
//!
//! PINs are told apart by a 64-bit hash (SipHash) under a random key that lives and dies with the process.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;

use cryptoki_sys::{
    CK_FLAGS, CK_RV, CK_SLOT_ID, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKR_OK, CKR_PIN_INCORRECT,
};
use serde_json::{Value, json};

use crate::names::code_name;

/// The most different PINs that are told apart; the rest are counted as one.
const MOST_PINS: usize = 1024;

/// What is known.
#[derive(Default)]
pub(crate) struct Pins {
    salt: RandomState,
    outcomes: BTreeMap<CK_RV, u64>,
    /// In the order of their first try.
    tried: Vec<Tried>,
    counter: Option<Counter>,
}

/// One PIN.
struct Tried {
    hash: u64,
    outcomes: BTreeMap<CK_RV, u64>,
}

/// A counter of wrong tries.
struct Counter {
    tries: u32,
    left: u32,
    /// Where it differs from `left`: slots on which there was a login.
    slots: HashMap<CK_SLOT_ID, u32>,
}

impl Pins {
    /// Stands for a PIN from now on.
    pub(crate) fn hash(&self, pin: &[u8]) -> u64 {
        self.salt.hash_one(pin)
    }

    /// A user's login ended with `code`, which the client was told; `judged` is what the token itself said, if it was asked. `slot` and `pin`
    /// are `None` where the session or the PIN was not known.
    pub(crate) fn record(&mut self, slot: Option<CK_SLOT_ID>, pin: Option<u64>, code: CK_RV, judged: Option<CK_RV>) {
        *self.outcomes.entry(code).or_default() += 1;
        if let Some(hash) = pin {
            let place = self.tried.iter().position(|tried| tried.hash == hash).unwrap_or_else(|| {
                if self.tried.len() < MOST_PINS {
                    self.tried.push(Tried { hash, outcomes: BTreeMap::new() });
                }
                self.tried.len() - 1
            });
            *self.tried[place].outcomes.entry(code).or_default() += 1;
        }
        if let (Some(counter), Some(slot)) = (&mut self.counter, slot) {
            let left = counter.slots.get(&slot).copied().unwrap_or(counter.left);
            match judged.unwrap_or(code) {
                CKR_OK => drop(counter.slots.insert(slot, counter.tries)),
                CKR_PIN_INCORRECT => drop(counter.slots.insert(slot, left.saturating_sub(1))),
                _ => {}
            }
        }
    }

    /// Begins to count wrong tries: of `tries`, so many are `left` now; `None` ends it.
    pub(crate) fn count(&mut self, limits: Option<(u32, u32)>) {
        self.counter = limits.map(|(tries, left)| Counter { tries, left, slots: HashMap::new() });
    }

    /// Whether the counter has locked the PIN.
    pub(crate) fn is_locked(&self, slot: CK_SLOT_ID) -> bool {
        self.left(slot).is_some_and(|(left, _)| left == 0)
    }

    /// The flags that `C_GetTokenInfo` is to show instead of the target's; `None` without a counter.
    pub(crate) fn flags(&self, slot: CK_SLOT_ID) -> Option<CK_FLAGS> {
        let (left, tries) = self.left(slot)?;
        let low = if left < tries { CKF_USER_PIN_COUNT_LOW } else { 0 };
        Some(match left {
            0 => CKF_USER_PIN_LOCKED | low,
            1 => CKF_USER_PIN_FINAL_TRY | low,
            _ => low,
        })
    }

    fn left(&self, slot: CK_SLOT_ID) -> Option<(u32, u32)> {
        self.counter.as_ref().map(|counter| (counter.slots.get(&slot).copied().unwrap_or(counter.left), counter.tries))
    }

    /// Forgets the counts, not the counter.
    pub(crate) fn forget_counts(&mut self) {
        self.outcomes.clear();
        self.tried.clear();
    }

    /// For the status.
    pub(crate) fn describe(&self) -> Value {
        let named =
            |outcomes: &BTreeMap<CK_RV, u64>| outcomes.iter().map(|(code, count)| (code_name(*code), *count)).collect::<BTreeMap<_, _>>();
        let distinct = self.tried.iter().map(|tried| named(&tried.outcomes)).collect::<Vec<_>>();
        let counter = self.counter.as_ref().map(|counter| {
            let slots = counter.slots.iter().map(|(slot, left)| (slot.to_string(), *left)).collect::<BTreeMap<_, _>>();
            json!({ "tries": counter.tries, "left": counter.left, "slots": slots })
        });
        json!({ "outcomes": named(&self.outcomes), "distinct": distinct, "counter": counter })
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::CKR_DEVICE_ERROR;

    use super::*;

    #[test]
    fn pins_are_told_apart_and_never_told() {
        let mut pins = Pins::default();
        for (pin, code) in [("secret-a", CKR_PIN_INCORRECT), ("secret-b", CKR_OK), ("secret-a", CKR_PIN_INCORRECT)] {
            pins.record(Some(1), Some(pins.hash(pin.as_bytes())), code, Some(code));
        }
        let told = pins.describe();
        assert_eq!(told["outcomes"], json!({ "CKR_OK": 1, "CKR_PIN_INCORRECT": 2 }));
        assert_eq!(told["distinct"], json!([{ "CKR_PIN_INCORRECT": 2 }, { "CKR_OK": 1 }]));
        assert!(!told.to_string().contains("secret"));
        assert_ne!(pins.hash(b"x"), Pins::default().hash(b"x"), "the salt is new in each process");
    }

    #[test]
    fn wrong_tries_run_down_to_the_lock_and_a_right_one_fills_up() {
        let mut pins = Pins::default();
        assert_eq!(pins.flags(1), None);
        pins.count(Some((3, 3)));
        assert_eq!(pins.flags(1), Some(0));
        pins.record(Some(1), None, CKR_PIN_INCORRECT, None);
        assert_eq!(pins.flags(1), Some(CKF_USER_PIN_COUNT_LOW));
        pins.record(Some(1), None, CKR_DEVICE_ERROR, Some(CKR_PIN_INCORRECT));
        assert_eq!(pins.flags(1), Some(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY));
        pins.record(Some(1), None, CKR_OK, Some(CKR_OK));
        assert_eq!(pins.flags(1), Some(0));
        for _ in 0..3 {
            pins.record(Some(1), None, CKR_PIN_INCORRECT, Some(CKR_PIN_INCORRECT));
        }
        assert_eq!(pins.flags(1), Some(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_LOCKED));
        assert!(pins.is_locked(1) && !pins.is_locked(2));
    }
}
