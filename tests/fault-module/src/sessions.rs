//! Sessions and slots as the client may see them. Pure.
//!
//! In scope: which session belongs to which slot, which tokens are away, how many sessions are allowed. Out of scope: the target's own view.

use std::collections::{BTreeMap, HashMap, HashSet};

use cryptoki_sys::{CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG};

/// What is known.
#[derive(Default)]
pub(crate) struct Sessions {
    /// The slot of each open session. Sessions of a token that was removed stay here until it is returned.
    slots: HashMap<CK_SESSION_HANDLE, CK_SLOT_ID>,
    away: Away,
    cap: Option<Cap>,
}

/// How many sessions each token admits.
#[derive(Clone, Copy)]
pub(crate) struct Cap {
    pub(crate) most: CK_ULONG,
    /// Whether `C_GetTokenInfo` tells it.
    pub(crate) shown: bool,
}

/// The tokens that are away.
#[derive(Default)]
struct Away {
    all: bool,
    slots: HashSet<CK_SLOT_ID>,
}

impl Sessions {
    pub(crate) fn opened(&mut self, session: CK_SESSION_HANDLE, slot: CK_SLOT_ID) {
        self.slots.insert(session, slot);
    }

    pub(crate) fn closed(&mut self, session: CK_SESSION_HANDLE) {
        self.slots.remove(&session);
    }

    /// All sessions of this slot are closed.
    pub(crate) fn closed_all(&mut self, slot: CK_SLOT_ID) {
        self.slots.retain(|_, of| *of != slot);
    }

    /// The module was finalised.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(crate) fn slot_of(&self, session: CK_SESSION_HANDLE) -> Option<CK_SLOT_ID> {
        self.slots.get(&session).copied()
    }

    /// One open session of each slot, or of this slot.
    pub(crate) fn one_each(&self, slot: Option<CK_SLOT_ID>) -> BTreeMap<CK_SLOT_ID, CK_SESSION_HANDLE> {
        let wanted = self.slots.iter().filter(|(_, of)| slot.is_none_or(|slot| slot == **of));
        wanted.map(|(session, of)| (*of, *session)).collect()
    }

    /// How many sessions each slot has.
    pub(crate) fn counts(&self) -> BTreeMap<CK_SLOT_ID, CK_ULONG> {
        let mut counts = BTreeMap::new();
        for slot in self.slots.values() {
            *counts.entry(*slot).or_default() += 1;
        }
        counts
    }

    pub(crate) fn count(&self, slot: CK_SLOT_ID) -> CK_ULONG {
        self.counts().get(&slot).copied().unwrap_or(0)
    }

    /// Whether another session may be opened.
    pub(crate) fn is_full(&self, slot: CK_SLOT_ID) -> bool {
        self.cap.is_some_and(|cap| self.count(slot) >= cap.most)
    }

    pub(crate) fn cap(&self) -> Option<Cap> {
        self.cap
    }

    pub(crate) fn set_cap(&mut self, cap: Option<Cap>) {
        self.cap = cap;
    }

    /// Takes the token of this slot, or every token, away.
    pub(crate) fn remove(&mut self, slot: Option<CK_SLOT_ID>) {
        match slot {
            Some(slot) => drop(self.away.slots.insert(slot)),
            None => self.away.all = true,
        }
    }

    /// Brings it back, or all of them. The sessions from before are no more.
    pub(crate) fn give_back(&mut self, slot: Option<CK_SLOT_ID>) {
        let away = std::mem::take(&mut self.away);
        let returned = |of: &CK_SLOT_ID| (away.all || away.slots.contains(of)) && slot.is_none_or(|slot| slot == *of);
        self.slots.retain(|_, of| !returned(of));
        if slot.is_some() {
            self.away = away;
            self.away.slots.retain(|of| Some(*of) != slot);
        }
    }

    pub(crate) fn all_are_away(&self) -> bool {
        self.away.all
    }

    pub(crate) fn is_away(&self, slot: CK_SLOT_ID) -> bool {
        self.away.all || self.away.slots.contains(&slot)
    }

    pub(crate) fn any_is_away(&self) -> bool {
        self.away.all || !self.away.slots.is_empty()
    }

    /// The slots that were named when their tokens were removed.
    pub(crate) fn away(&self) -> Vec<CK_SLOT_ID> {
        let mut slots = self.away.slots.iter().copied().collect::<Vec<_>>();
        slots.sort_unstable();
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_from_before_a_removal_are_forgotten_at_the_return() {
        let mut sessions = Sessions::default();
        for (session, slot) in [(1, 10), (2, 10), (3, 20)] {
            sessions.opened(session, slot);
        }
        sessions.remove(Some(10));
        assert_eq!((sessions.is_away(10), sessions.is_away(20), sessions.slot_of(1)), (true, false, Some(10)));
        sessions.give_back(Some(10));
        assert_eq!((sessions.is_away(10), sessions.slot_of(1), sessions.slot_of(3)), (false, None, Some(20)));
        sessions.remove(None);
        assert!(sessions.is_away(99));
        sessions.give_back(None);
        assert_eq!((sessions.any_is_away(), sessions.slot_of(3)), (false, None));
    }

    #[test]
    fn a_cap_counts_each_slot_by_itself() {
        let mut sessions = Sessions::default();
        sessions.set_cap(Some(Cap { most: 1, shown: false }));
        sessions.opened(1, 10);
        assert!(sessions.is_full(10) && !sessions.is_full(20));
        sessions.closed(1);
        assert!(!sessions.is_full(10));
    }
}
