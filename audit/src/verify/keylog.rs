//! The key log, replayed: the same transition table that the daemon asked before it wrote each record.
//!
//! In scope: which records are legal, and what the other checks need to know of the key log afterwards: its leaf hashes, the heads of use
//! logs that it names, the sets that were served, the story of each rotation. Out of scope: the chain, and who signed it.

use crate::event::{Event, UsesHead, UsesPruned};
use crate::keyrings::Keyrings;
use crate::merkle::Hash;
use crate::record::Record;

use super::chain::Visit;
use super::finding::{Finding, Findings, Location, Verdict};
use super::on_time::OnTime;
use super::rotation::{self, Rotation};

/// What a replay of the key log leaves. It grows with the key log, which is small: one record per lifecycle event.
#[derive(Debug, Default)]
pub struct KeyLog {
    keyrings: Keyrings,
    leaves: Vec<Hash>,
    uses_heads: Vec<(Location, UsesHead)>,
    uses_pruned: Vec<(Location, UsesPruned)>,
    served: Vec<(u64, String, Hash)>,
    rotations: Vec<Rotation>,
    on_time: OnTime,
    signed: u64,
    stopped: bool,
    end: Option<u64>,
    known: u64,
}

impl KeyLog {
    /// A key log that goes on from `before`, whose root is `root`. Where nobody knows the state of the one before, nobody knows this one's.
    pub(super) fn after(before: &Self, root: Option<Hash>) -> Self {
        let keyrings = root.map(|root| before.keyrings.clone().carried_over(root));
        Self { stopped: before.stopped || keyrings.is_none(), keyrings: keyrings.unwrap_or_default(), ..Self::default() }
    }

    /// A key log that cannot be judged, because the one that it goes on from is not here.
    pub(super) fn unknown() -> Self {
        Self { stopped: true, ..Self::default() }
    }

    /// The log ended: `end` of its records count, and it is known to have had `known`.
    pub(super) fn ended(self, end: Option<u64>, known: u64) -> Self {
        Self { end, known, ..self }
    }

    /// How many records the log is known to have had, if the loss of some was accepted.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// The state after the last record that could be replayed.
    pub fn keyrings(&self) -> &Keyrings {
        &self.keyrings
    }

    /// The state, for whoever needs nothing else.
    pub(super) fn into_keyrings(self) -> Keyrings {
        self.keyrings
    }

    /// The story of every rotation and compromise, oldest first.
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// The leaf hash of each line, whatever it says.
    pub(super) fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// Every statement about where a use log stands, in order.
    pub(super) fn uses_heads(&self) -> &[(Location, UsesHead)] {
        &self.uses_heads
    }

    /// The log key signed for so many records.
    pub(super) fn signed(&mut self, size: u64) {
        self.signed = size;
    }

    /// Every pruning of a use log, in order. Anybody can append a record that nobody signed for, so that one excuses nothing.
    pub(super) fn uses_pruned(&self) -> impl Iterator<Item = &(Location, UsesPruned)> {
        self.uses_pruned.iter().filter(|(at, _)| at.seq < self.signed)
    }

    /// The record that last said that this body is served, and for which set.
    pub(super) fn last_served(&self, sha256: Hash) -> Option<(u64, &str)> {
        self.served.iter().rev().find(|(_, _, other)| *other == sha256).map(|(seq, set, _)| (*seq, set.as_str()))
    }

    fn replay(&mut self, record: &Record, at: &Location, findings: &mut Findings) {
        if self.end.is_some_and(|end| record.seq >= end) {
            return;
        }
        // After a gap or an illegal record nobody knows the state, so what follows cannot be judged; the chain goes on being checked.
        if self.stopped || record.seq != self.keyrings.size() {
            self.stopped = true;
            return;
        }
        self.on_time.before(&self.keyrings, record, at, findings);
        let rotation = rotation::begin(&self.keyrings, record);
        if let Err(illegal) = self.keyrings.apply(record) {
            let text = format!("{}: {}; the rules are not checked for the records after it", illegal.event, illegal.text);
            findings.push(Finding::new(Verdict::Illegal, text).rule(illegal.rule.name()).at(at));
            self.stopped = true;
            return;
        }
        self.on_time.after(&self.keyrings, record);
        self.rotations.extend(rotation);
        if let Event::JwksServed(served) = &record.event {
            self.served.push((record.seq, served.set.clone(), served.sha256));
        }
    }
}

impl Visit for KeyLog {
    fn line(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
    }

    fn record(&mut self, record: &Record, at: &Location, findings: &mut Findings) {
        // A statement about a use log binds even where the rules can no longer be checked.
        match &record.event {
            Event::UsesHead(head) => self.uses_heads.push((at.clone(), head.clone())),
            Event::UsesPruned(pruned) => self.uses_pruned.push((at.clone(), pruned.clone())),
            _ => {}
        }
        self.replay(record, at, findings);
    }
}
