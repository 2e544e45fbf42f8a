//! The use log against the key log: each signature by a key that was active in the state that its record names.
//!
//! In scope: I2 and the binding of the two logs, from entries alone, with the settings of that time. Out of scope: the chain, and whether
//! the key log itself is legal (`keylog`).

use std::fmt::Display;
use std::time::Duration;

use crate::event::{Event, KeysSeen, Sign};
use crate::keyrings::{Key, Keyring, State};
use crate::merkle::Hash;
use crate::record::Record;
use crate::time::Timestamp;

use super::Bookmark;
use super::chain::Visit;
use super::finding::{Finding, Findings, Location, Verdict};
use super::keylog::KeyLog;

/// Checks the records of one use log, in constant memory.
#[derive(Debug)]
pub(super) struct UseCheck<'k> {
    keys: &'k KeyLog,
    node: Option<String>,
    time: Timestamp,
    seen: u64,
    /// Whether a record that was read says so, or else a record that was pruned.
    seen_known: bool,
    signatures: u64,
    unjudged: u64,
    lost: u64,
    first_unjudged: Option<Location>,
}

impl<'k> UseCheck<'k> {
    pub(super) fn new(keys: &'k KeyLog) -> Self {
        Self {
            keys,
            node: None,
            time: Timestamp::default(),
            seen: 0,
            seen_known: true,
            signatures: 0,
            unjudged: 0,
            first_unjudged: None,
            lost: 0,
        }
    }

    /// Goes on where an earlier run stopped.
    pub(super) fn resumed(mut self, bookmark: &Bookmark) -> Self {
        (self.node, self.time, self.seen) = (Some(bookmark.node.clone()), bookmark.time, bookmark.seen);
        self
    }

    /// How many `sign` records there were.
    pub(super) fn signatures(&self) -> u64 {
        self.signatures
    }

    /// How many of them name a state that could not be replayed, and the first of these.
    pub(super) fn unjudged(&self) -> Option<(u64, &Location)> {
        self.first_unjudged.as_ref().map(|at| (self.unjudged, at))
    }

    /// How many of them name a state that was lost, where the loss was accepted.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn check_place(&mut self, record: &Record, at: &Location, findings: &mut Findings) {
        let node = self.node.get_or_insert_with(|| record.node.clone());
        if *node != record.node {
            let finding = Finding::new(Verdict::Illegal, "a use log belongs to one node").rule("form").at(at);
            findings.push(finding.differ(node, &record.node));
        }
        if record.time < self.time {
            let finding = Finding::new(Verdict::Illegal, "the time is earlier than that of the record before").rule("I12").at(at);
            findings.push(finding.differ(format_args!("{} or later", self.time), record.time));
        }
        self.time = self.time.max(record.time);
        if record.seq > 0 && matches!(record.event, Event::LogCreated(_)) {
            findings.push(Finding::new(Verdict::Illegal, "log.created is the first record and no other").rule("form").at(at));
        }
        if record.seq != 1 && matches!(record.event, Event::LogAdopted(_)) {
            findings.push(Finding::new(Verdict::Illegal, "log.adopted is the second record and no other").rule("form").at(at));
        }
    }

    fn keys_seen(&mut self, event: &KeysSeen, at: &Location, findings: &mut Findings) {
        if event.size == 0 || event.size < self.seen {
            let finding = Finding::new(Verdict::Illegal, "the key log only grows, and is never empty").rule("I7").at(at);
            findings.push(finding.differ(format_args!("{} or more", self.seen.max(1)), event.size));
        }
        (self.seen, self.seen_known) = (self.seen.max(event.size), true);
        let leaf = event.size.checked_sub(1).map(|last| usize::try_from(last).ok().and_then(|last| self.keys.leaves().get(last)));
        match leaf {
            // It was seen before it was lost, and the loss was accepted.
            Some(None) if event.size <= self.keys.known() => {}
            Some(None) => {
                let text = "the use log has seen more of the key log than is here; give the whole key log (copy `uses` first, then `keys`)";
                let size = self.keys.leaves().len();
                findings
                    .push(Finding::new(Verdict::Truncated, text).at(at).differ(format_args!("a key log of {} records", event.size), size));
            }
            Some(Some(leaf)) if *leaf != event.leaf => {
                let text = format!("the use log has seen another record {} of the key log than the one that is here", event.size - 1);
                findings.push(Finding::new(Verdict::Tampered, text).at(at).differ(event.leaf, leaf));
            }
            _ => {}
        }
    }

    fn sign(&mut self, record: &Record, event: &Sign, at: &Location, findings: &mut Findings) {
        self.signatures += 1;
        if !self.seen_known {
            // The record that said so was pruned; that it was seen is what this one says itself.
            self.seen = self.seen.max(event.size);
        }
        if event.size == 0 || event.size > self.seen {
            let finding =
                Finding::new(Verdict::Illegal, "a signature names a state of the key log that the log had not seen").rule("I7").at(at);
            findings.push(finding.differ(format_args!("1 to {}", self.seen), event.size));
        } else if event.size > self.keys.keyrings().size() {
            if event.size <= self.keys.known() {
                self.lost += 1;
            } else {
                self.unjudged += 1;
                self.first_unjudged.get_or_insert_with(|| at.clone());
            }
        } else if let Err(Broken { rule, text, expected, found }) = judge(self.keys, record.time, event) {
            findings.push(Finding::new(Verdict::Illegal, text).rule(rule).at(at).differ(expected, found));
        }
    }
}

impl Visit for UseCheck<'_> {
    fn line(&mut self, _leaf: Hash) {}

    fn seen(&self) -> Option<u64> {
        Some(self.seen).filter(|_| self.seen_known)
    }

    fn pruned(&mut self) {
        self.seen_known = false;
    }

    fn record(&mut self, record: &Record, at: &Location, findings: &mut Findings) {
        self.check_place(record, at, findings);
        match &record.event {
            Event::KeysSeen(event) => self.keys_seen(event, at, findings),
            Event::Sign(event) => self.sign(record, event, at, findings),
            _ => {}
        }
    }
}

/// A rule that a signature breaks.
struct Broken {
    rule: &'static str,
    text: String,
    expected: String,
    found: String,
}

fn broken(rule: &'static str, text: impl Into<String>, expected: impl Display, found: impl Display) -> Broken {
    Broken { rule, text: text.into(), expected: expected.to_string(), found: found.to_string() }
}

/// One signature against the first `event.size` records of the key log.
fn judge(keys: &KeyLog, time: Timestamp, event: &Sign) -> Result<(), Broken> {
    let kid = &event.kid;
    let known = keys.keyrings().key(kid).filter(|(_, key)| key.state_at(event.size).is_some());
    let (keyring, key) = known.ok_or_else(|| broken("I2", "a signature by a key that did not exist", "a key of the key log", kid))?;
    if keyring.name != event.keyring {
        return Err(broken("form", format!("key {kid} belongs to another keyring"), &keyring.name, &event.keyring));
    }
    if key.algorithm != event.alg {
        return Err(broken("form", format!("key {kid} is for another algorithm"), key.algorithm, event.alg));
    }
    let state = key.state_at(event.size).map_or("unknown", State::name);
    if state != "active" {
        return Err(broken("I2", format!("a signature by key {kid}, which was not active"), "active", state));
    }
    if let Some((stopped_seq, stopped)) = end_of_signing(key, event.size) {
        let last = stopped + release_room(keyring, event.size, stopped_seq);
        if time > last {
            let text = format!("a signature by key {kid} more than Q + e after its signing ended");
            return Err(broken("I2", text, format_args!("{last} or earlier"), time));
        }
    }
    check_life(keyring, time, event)
}

/// I2: no token lives longer than T, with the settings that the signer saw.
fn check_life(keyring: &Keyring, time: Timestamp, event: &Sign) -> Result<(), Broken> {
    let seen = keyring.timings.partition_point(|settings| settings.seq < event.size);
    let Some(settings) = seen.checked_sub(1).map(|last| keyring.timings[last].timing) else {
        return Err(broken("I8", "a signature before any settings were in force", "a keyring.timing record", "none"));
    };
    let latest = time + settings.token_life() + settings.skew();
    let exp = Timestamp::from_seconds(event.exp);
    if exp > latest {
        return Err(broken("I2", "a token that lives longer than T", format_args!("exp at {latest} or earlier"), exp));
    }
    Ok(())
}

/// When the key, active after the first `size` records, stopped signing (retired, suspended or compromised).
fn end_of_signing(key: &Key, size: u64) -> Option<(u64, Timestamp)> {
    let later = key.history.partition_point(|(seq, _, _)| *seq < size);
    key.history.get(later).map(|(seq, time, _)| (*seq, *time))
}

/// Q + e: the largest of all settings that were in force between the state that the signer saw and the end of the key's signing.
fn release_room(keyring: &Keyring, size: u64, stopped_seq: u64) -> Duration {
    let first = keyring.timings.partition_point(|settings| settings.seq < size).saturating_sub(1);
    let in_force = keyring.timings[first..].iter().take_while(|settings| settings.seq < stopped_seq);
    in_force.map(|settings| settings.timing.release_window() + settings.timing.skew()).max().unwrap_or_default()
}
