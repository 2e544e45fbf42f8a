//! The numbers of objects: those that the client knows, and those of the target. Pure.
//!
//! In scope: both are the same until they are renumbered; then a number that the client kept means another object, or none. Out of scope:
//! session handles, which are the target's, and handles within mechanism parameters.

use std::collections::{BTreeMap, HashMap};

use cryptoki_sys::{CK_INVALID_HANDLE, CK_OBJECT_HANDLE, CK_SLOT_ID};

/// The most numbers that are remembered. Beyond that those are forgotten which are the target's own, and can no longer be renumbered.
const MOST_HANDLES: usize = 65_536;
/// Where new numbers begin: above what targets give out, and within 32 bits.
const FIRST_FRESH: CK_OBJECT_HANDLE = 0x4000_0000;

/// A number on a slot: two tokens may use the same ones.
type Key = (CK_SLOT_ID, CK_OBJECT_HANDLE);

/// What is known.
pub(crate) struct Handles {
    /// The target's number behind each number that was given out; [`CK_INVALID_HANDLE`] if there is none any more.
    real: HashMap<Key, CK_OBJECT_HANDLE>,
    /// The number under which each object was given out last.
    shown: HashMap<Key, CK_OBJECT_HANDLE>,
    fresh: CK_OBJECT_HANDLE,
}

impl Default for Handles {
    fn default() -> Self {
        Self { real: HashMap::new(), shown: HashMap::new(), fresh: FIRST_FRESH }
    }
}

impl Handles {
    /// The target's number behind one that the client gives.
    pub(crate) fn real(&self, slot: CK_SLOT_ID, shown: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        self.real.get(&(slot, shown)).copied().unwrap_or(shown)
    }

    /// The number to give the client for one of the target.
    pub(crate) fn show(&mut self, slot: CK_SLOT_ID, real: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        if let Some(shown) = self.shown.get(&(slot, real)) {
            return *shown;
        }
        if self.real.len() >= MOST_HANDLES {
            self.real.retain(|(_, shown), real| shown != real);
            self.shown.retain(|(_, real), shown| shown != real);
        }
        let shown = if self.real.contains_key(&(slot, real)) { self.next_fresh(slot) } else { real };
        self.real.insert((slot, shown), real);
        self.shown.insert((slot, real), shown);
        shown
    }

    /// The object was destroyed.
    pub(crate) fn forget(&mut self, slot: CK_SLOT_ID, shown: CK_OBJECT_HANDLE) {
        if let Some(real) = self.real.remove(&(slot, shown)) {
            self.shown.remove(&(slot, real));
        }
    }

    /// The module was finalised.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many objects the client knows.
    pub(crate) fn len(&self) -> usize {
        self.shown.len()
    }

    /// The target's numbers of the objects of a slot that the client knows.
    pub(crate) fn known(&self, slot: CK_SLOT_ID) -> Vec<CK_OBJECT_HANDLE> {
        let mut known = self.shown.keys().filter(|(of, _)| *of == slot).map(|(_, real)| *real).collect::<Vec<_>>();
        known.sort_unstable();
        known
    }

    /// Gives every object of a slot another number. `kinds` has the kind of each object that exists; what is not in it is forgotten. Among
    /// objects of one kind the old numbers change places; the old number of an object that is alone in its kind means nothing any more.
    pub(crate) fn renumber(&mut self, slot: CK_SLOT_ID, kinds: &HashMap<CK_OBJECT_HANDLE, Vec<u8>>) -> usize {
        let mut groups: BTreeMap<&[u8], Vec<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)>> = BTreeMap::new();
        for real in self.known(slot) {
            let Some(shown) = self.shown.remove(&(slot, real)) else { continue };
            match kinds.get(&real) {
                Some(kind) => groups.entry(kind).or_default().push((shown, real)),
                None => drop(self.real.remove(&(slot, shown))),
            }
        }
        for group in groups.values() {
            if let [(shown, _)] = group.as_slice() {
                self.real.insert((slot, *shown), CK_INVALID_HANDLE);
            } else {
                for (place, (shown, _)) in group.iter().enumerate() {
                    let (_, other) = group[(place + 1) % group.len()];
                    self.real.insert((slot, *shown), other);
                    self.shown.insert((slot, other), *shown);
                }
            }
        }
        // An object that is alone gets its new number when it is found again.
        groups.values().map(Vec::len).sum()
    }

    fn next_fresh(&mut self, slot: CK_SLOT_ID) -> CK_OBJECT_HANDLE {
        loop {
            let fresh = self.fresh;
            self.fresh += 1;
            if !self.real.contains_key(&(slot, fresh)) {
                return fresh;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(of: &[(CK_OBJECT_HANDLE, u8)]) -> HashMap<CK_OBJECT_HANDLE, Vec<u8>> {
        of.iter().map(|(real, kind)| (*real, vec![*kind])).collect()
    }

    #[test]
    fn numbers_are_the_targets_until_they_change_places() {
        let mut handles = Handles::default();
        assert_eq!([2, 3, 4].map(|real| handles.show(1, real)), [2, 3, 4]);
        assert_eq!((handles.real(1, 2), handles.real(1, 99), handles.real(7, 2)), (2, 99, 2));
        assert_eq!(handles.renumber(1, &kinds(&[(2, 0), (3, 0), (4, 9)])), 3);
        assert_eq!((handles.real(1, 2), handles.real(1, 3)), (3, 2), "an old number means the other object");
        assert_eq!(handles.real(1, 4), CK_INVALID_HANDLE, "and nothing where there is no other");
        assert_eq!([2, 3].map(|real| handles.show(1, real)), [3, 2], "a new search gives other numbers");
        let fresh = handles.show(1, 4);
        assert!(fresh >= FIRST_FRESH && handles.real(1, fresh) == 4);
        assert_eq!(handles.real(7, 2), 2, "another slot is left alone");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut handles = Handles::default();
        for real in [2, 3] {
            handles.show(1, real);
        }
        handles.forget(1, 2);
        assert_eq!((handles.known(1), handles.len()), (vec![3], 1));
        assert_eq!(handles.renumber(1, &kinds(&[])), 0);
        assert_eq!((handles.real(1, 3), handles.show(1, 3)), (3, 3));
    }
}
