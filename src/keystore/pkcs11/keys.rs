//! The handles of keys that were found, so that a signature never begins with a search.
//!
//! In scope: remembering, for one epoch. A handle of another epoch is never given out: it may name another key by now.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use claviger_audit::algorithm::KeyShape;
use cryptoki::object::ObjectHandle;

use super::module::lock;
use crate::clock::Monotonic;

/// The most keys that are remembered; beyond that, all are found again. An installation has a few keys for each keyring.
const MOST_KEYS: usize = 4096;
/// How long a search that found nothing, in an epoch made for it, is believed: long enough that a caller who asks in a loop cannot make a
/// new epoch each time, short enough for a key that another process made.
const ABSENCE: Duration = Duration::from_secs(1);

/// A key in the epoch in which it was found.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) epoch: u64,
    pub(super) object: ObjectHandle,
    pub(super) shape: KeyShape,
    /// The length of its signatures, in bytes.
    pub(super) width: usize,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct Keys {
    known: Mutex<HashMap<Vec<u8>, Key>>,
    absent: Mutex<HashMap<Vec<u8>, Monotonic>>,
}

impl Keys {
    /// The key with this id, if it was found in this epoch.
    pub(super) fn known(&self, id: &[u8], epoch: u64) -> Option<Key> {
        lock(&self.known).get(id).filter(|key| key.epoch == epoch).copied()
    }

    /// Remembers a key.
    pub(super) fn learn(&self, id: &[u8], key: Key) {
        let mut known = lock(&self.known);
        if known.len() >= MOST_KEYS {
            known.clear();
        }
        known.insert(id.to_vec(), key);
    }

    /// Whether this id was searched for in vain a moment ago.
    pub(super) fn is_absent(&self, id: &[u8], now: Monotonic) -> bool {
        lock(&self.absent).get(id).is_some_and(|since| now.since(*since) < ABSENCE)
    }

    /// Remembers that there is no such key.
    pub(super) fn learn_absent(&self, id: &[u8], now: Monotonic) {
        let mut absent = lock(&self.absent);
        if absent.len() >= MOST_KEYS {
            absent.clear();
        }
        absent.insert(id.to_vec(), now);
    }

    /// Forgets everything about this id: it was made or destroyed.
    pub(super) fn forget(&self, id: &[u8]) {
        lock(&self.known).remove(id);
        lock(&self.absent).remove(id);
    }

    /// Forgets all handles: a new epoch begins.
    pub(super) fn forget_handles(&self) {
        lock(&self.known).clear();
    }
}
