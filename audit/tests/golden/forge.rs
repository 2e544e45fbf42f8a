//! Somebody who holds a key tells the story of both logs again: every number, link, seal and root fits, and the checkpoints are signed.
//!
//! In scope: changing, inserting and dropping records, other log keys and origins, and writing the whole pair anew around that. Out of
//! scope: bytes that are no record, and what a verifier says.

use std::collections::BTreeMap;

use claviger_audit::event::{Event, LogKind, LogSegment};
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::record::Record;
use ed25519_dalek::SigningKey;

use super::builder::{Files, KEYS_SEED, USES_SEED, note, verifier_key};

/// Both logs as records.
#[derive(Clone)]
pub(crate) struct Forger {
    pub(crate) keys: Chain,
    pub(crate) uses: Chain,
}

/// One log as records.
#[derive(Clone)]
pub(crate) struct Chain {
    kind: LogKind,
    pub(crate) origin: String,
    pub(crate) secret: SigningKey,
    pub(crate) records: Vec<Forged>,
}

/// A record, and which one it was in the true story.
#[derive(Clone)]
pub(crate) struct Forged {
    was: Option<u64>,
    pub(crate) record: Record,
}

/// A log while it is written anew.
struct Writing<'f> {
    chain: &'f Chain,
    folder: String,
    leaves: Vec<Hash>,
    prev: Hash,
    segments: Vec<(String, Vec<u8>)>,
    notes: BTreeMap<String, Vec<u8>>,
}

impl Forger {
    /// The records of true logs, and the keys that sign them.
    pub(crate) fn new(files: &Files) -> Self {
        Self { keys: Chain::new(files, LogKind::Keys, KEYS_SEED), uses: Chain::new(files, LogKind::Uses, USES_SEED) }
    }

    /// The log of a kind.
    pub(crate) fn log(&mut self, kind: LogKind) -> &mut Chain {
        if kind == LogKind::Keys { &mut self.keys } else { &mut self.uses }
    }

    /// Everything under `log/`. Each log names hashes of the other, so both are written side by side.
    pub(crate) fn write(&self) -> Files {
        let (mut keys, mut uses) = (Writing::new(&self.keys), Writing::new(&self.uses));
        while !(keys.is_whole() && uses.is_whole()) {
            let before = keys.leaves.len() + uses.leaves.len();
            keys.go_on(&uses);
            uses.go_on(&keys);
            assert!(keys.leaves.len() + uses.leaves.len() > before, "each log waits for the other");
        }
        keys.finish().chain(uses.finish()).collect()
    }
}

impl Chain {
    fn new(files: &Files, kind: LogKind, seed: u8) -> Self {
        let folder = format!("log/{}/", kind.name());
        let notes = |name: &str| name.ends_with("checkpoint");
        let segments = files.iter().filter(|(name, _)| name.starts_with(&folder) && !notes(name));
        let lines = segments.flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()));
        let records: Vec<Forged> = lines.map(|line| Record::parse(line).unwrap()).map(|r| Forged { was: Some(r.seq), record: r }).collect();
        let Event::LogCreated(created) = &records[0].record.event else { panic!("no log begins like this") };
        Self { kind, origin: created.origin.clone(), secret: SigningKey::from_bytes(&[seed; 32]), records }
    }

    fn key(&self) -> String {
        verifier_key(&self.origin, &self.secret).to_string()
    }

    /// Puts a copy of a record of any log that nothing else refers to before record `at`.
    pub(crate) fn insert(&mut self, at: usize, event: Event) {
        let near = &self.records[at.saturating_sub(1)].record;
        self.records.insert(at, Forged { was: None, record: Record { event, ..near.clone() } });
    }

    /// How many records there are now of the first `size` that there were.
    fn now_at(&self, size: u64) -> usize {
        self.records.iter().rposition(|forged| forged.was.is_some_and(|was| was < size)).map_or(0, |last| last + 1)
    }
}

impl<'f> Writing<'f> {
    fn new(chain: &'f Chain) -> Self {
        let prev = genesis_prev(&chain.origin, &chain.key());
        let folder = format!("log/{}/", chain.kind.name());
        Self { chain, folder, leaves: Vec::new(), prev, segments: Vec::new(), notes: BTreeMap::new() }
    }

    fn is_whole(&self) -> bool {
        self.leaves.len() == self.chain.records.len()
    }

    fn root_at(&self, size: usize) -> Hash {
        let mut frontier = Frontier::new();
        frontier.extend(self.leaves[..size].iter().copied());
        frontier.root()
    }

    fn checkpoint(&self) -> Vec<u8> {
        note(&self.chain.origin, self.leaves.len() as u64, self.root_at(self.leaves.len()), &self.chain.secret)
    }

    /// Writes records until one names a part of the other log that is not written yet.
    fn go_on(&mut self, other: &Writing<'_>) {
        while let Some(Forged { record, .. }) = self.chain.records.get(self.leaves.len()) {
            let mut record = record.clone();
            match &mut record.event {
                Event::UsesHead(head) => {
                    let size = other.chain.now_at(head.size);
                    if other.leaves.len() < size {
                        return;
                    }
                    (head.size, head.root, head.origin) = (size as u64, other.root_at(size), other.chain.origin.clone());
                }
                Event::KeysSeen(seen) => {
                    let size = other.chain.now_at(seen.size);
                    if other.leaves.len() < size {
                        return;
                    }
                    (seen.size, seen.leaf) = (size as u64, other.leaves[size - 1]);
                }
                Event::LogCreated(created) => (created.origin, created.key) = (self.chain.origin.clone(), self.chain.key()),
                Event::LogSegment(segment) => *segment = self.seal(),
                _ => {}
            }
            self.append(record);
        }
    }

    fn seal(&mut self) -> LogSegment {
        let (name, bytes) = self.segments.last().unwrap();
        let (name, size, sha256) = (format!("{name}.checkpoint"), bytes.len() as u64, Hash::digest(bytes));
        self.notes.insert(name, self.checkpoint());
        LogSegment { last: self.prev, size, sha256 }
    }

    fn append(&mut self, mut record: Record) {
        let seq = self.leaves.len() as u64;
        (record.seq, record.prev, record.durable) = (seq, self.prev, record.durable.min(seq));
        if self.segments.is_empty() || matches!(record.event, Event::LogSegment(_)) {
            self.segments.push((format!("{}{seq:020}.jsonl", self.folder), Vec::new()));
        }
        let line = record.to_line().unwrap();
        self.prev = leaf_hash(&line);
        self.leaves.push(self.prev);
        self.segments.last_mut().unwrap().1.extend([line.as_slice(), b"\n"].concat());
    }

    fn finish(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let newest = (format!("{}checkpoint", self.folder), self.checkpoint());
        self.segments.into_iter().chain(self.notes).chain([newest])
    }
}
