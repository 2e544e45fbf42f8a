//! What stands for records that are not read: the hashes of pruned ones, and what an earlier run remembers of those that it checked.
//!
//! In scope: coming to the first record that is read with the same tree, the same `prev` and the same keys as if all had been read. Out of
//! scope: whether the key log records the pruning (`run`), and which bookmark may be believed (`resume`).

use std::io::{self, BufRead};

use crate::event::{Event, LogCreated, LogKind};
use crate::line::{LineError, LineErrorKind, Lines};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::record::Record;

use super::{Finding, Findings, Location, Scan, Verdict, Visit, number_in};
use crate::verify::{Bookmark, LogFiles, Segment};

/// Bytes of a hash in a file of hashes.
const HASH: usize = 32;

/// How a log begins.
pub(in crate::verify) struct FirstRecord {
    pub(in crate::verify) record: Record,
    leaf: Hash,
    at: Location,
}

/// The first record of a log, from its own file where the segment that held it was pruned; `None` where there is none to read.
pub(in crate::verify) fn first_record(files: &LogFiles<'_>) -> io::Result<Option<FirstRecord>> {
    let own = files.pruned.genesis.as_ref().filter(|_| begins_at(files) > 0);
    let Some(segment) = own.or(files.segments.first()) else { return Ok(None) };
    let mut lines = Lines::new((segment.open)()?);
    match lines.next() {
        Some(Err(LineError { kind: LineErrorKind::Io(error), .. })) => Err(error),
        Some(Ok(line)) => {
            let at = Location { file: segment.name.clone(), line: line.number, seq: 0, offset: line.offset };
            let leaf = leaf_hash(line.bytes);
            Ok(Record::parse(line.bytes).ok().map(|record| FirstRecord { record, leaf, at }))
        }
        _ => Ok(None),
    }
}

/// The number of the first record that is here, by the name of its segment.
pub(in crate::verify) fn begins_at(files: &LogFiles<'_>) -> u64 {
    files.segments.first().and_then(|segment| number_in(&segment.name, ".jsonl")).unwrap_or_default()
}

impl Scan {
    /// The first record is known: which log this is.
    pub(super) fn begin(&mut self, event: &LogCreated, node: &str, at: &Location) {
        self.created = Some(event.clone());
        self.node = Some(node.to_owned());
        self.log_keys.created(event, at);
    }

    /// Reads the hashes of pruned segments, if there are any, as the leaves that they are. Gives the segment to begin with.
    pub(super) fn read_pruned(&mut self, files: &LogFiles<'_>, visit: &mut dyn Visit, findings: &mut Findings) -> io::Result<usize> {
        let start = begins_at(files);
        // A segment that is here is read, whether its hashes are here too or not: a pruning that was cut short leaves both.
        let before = |file: &&Segment<'_>| number_in(&file.name, ".hashes").is_some_and(|first| first < start);
        let hashes: Vec<&Segment<'_>> = files.pruned.hashes.iter().filter(before).collect();
        // The key log is the state, and is never pruned.
        if hashes.is_empty() || self.kind == LogKind::Keys {
            return Ok(0);
        }
        visit.pruned();
        let genesis = first_record(files)?.filter(|_| files.pruned.genesis.is_some());
        if let Some(FirstRecord { record, at, .. }) = &genesis {
            self.check(record, at, None, findings);
            self.time = Some(record.time);
            visit.record(record, at, findings);
        } else {
            let text = "the file `genesis` with the first record is missing or holds none, although its segment was pruned";
            let at = Location { file: format!("{}/genesis", files.name), line: 1, seq: 0, offset: 0 };
            findings.push(Finding::new(Verdict::Tampered, text).at(&at));
        }
        for file in hashes {
            self.read_hashes(file, genesis.as_ref(), visit, findings)?;
        }
        (self.first, self.due) = (self.frontier.size(), self.frontier.size());
        self.log_keys.unknown_until(self.first);
        Ok(0)
    }

    fn read_hashes(
        &mut self,
        file: &Segment<'_>,
        genesis: Option<&FirstRecord>,
        visit: &mut dyn Visit,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let place = |seq: u64, index: u64| Location { file: file.name.clone(), line: index + 1, seq, offset: index * HASH as u64 };
        let due = self.frontier.size();
        if let Some(first) = number_in(&file.name, ".hashes").filter(|first| *first != due) {
            let finding =
                Finding::new(Verdict::Tampered, "hashes of pruned records are missing, doubled or out of order").at(&place(due, 0));
            findings.push(finding.differ(format_args!("those from record {due} on"), format_args!("those from record {first} on")));
        }
        let mut reader = (file.open)()?;
        for index in 0.. {
            let mut bytes = [0; HASH];
            let length = fill(reader.as_mut(), &mut bytes)?;
            let at = place(self.frontier.size(), index);
            if length == 0 {
                break;
            }
            if length < HASH {
                let finding = Finding::new(Verdict::Tampered, "a file of hashes ends within a hash").at(&at);
                findings.push(finding.differ(format_args!("{HASH} bytes"), format_args!("{length} bytes")));
                break;
            }
            let leaf = Hash::from_bytes(bytes);
            if let Some(genesis) = genesis.filter(|genesis| self.frontier.size() == 0 && genesis.leaf != leaf) {
                let text = "the first record, in `genesis`, is not the one whose hash was kept";
                findings.push(Finding::new(Verdict::Tampered, text).at(&genesis.at).differ(leaf, genesis.leaf));
            }
            visit.line(leaf);
            self.prev = Some(leaf);
            self.grow(leaf, &at, visit);
        }
        Ok(())
    }

    /// Goes on from where an earlier run stopped. Gives the segment to begin with: the one in which the next record lies.
    pub(super) fn resume(&mut self, files: &LogFiles<'_>, bookmark: &Bookmark, visit: &dyn Visit) -> io::Result<usize> {
        if let Some(FirstRecord { record: Record { event: Event::LogCreated(event), node, .. }, at, .. }) = first_record(files)? {
            self.begin(&event, &node, &at);
        }
        let numbers: Option<Vec<u64>> = files.segments.iter().map(|segment| number_in(&segment.name, ".jsonl")).collect();
        // Files that have any names are counted from the first of them.
        let numbers = numbers.unwrap_or_default();
        let index = numbers.partition_point(|number| *number <= bookmark.size).saturating_sub(1);
        self.first = numbers.first().copied().unwrap_or_default();
        self.due = numbers.get(index).copied().unwrap_or_default();
        self.frontier = Frontier::from_parts(bookmark.size, bookmark.edge.clone()).unwrap_or_default();
        (self.prev, self.time, self.resumed_at) = (Some(bookmark.last), Some(bookmark.time), bookmark.size);
        self.log_keys.resumed(bookmark.size, bookmark.key.as_deref());
        self.remember_root(visit);
        Ok(index)
    }

    /// An earlier run saw more lines than there are now: nothing is known about any larger size.
    pub(super) fn notice_shrinking(&mut self) {
        if self.due < self.resumed_at {
            self.shrunk = Some(self.due);
            self.roots.clear();
        }
    }

    /// What a later run needs in order to go on here.
    pub(super) fn remember_place(&mut self, visit: &dyn Visit) {
        let (size, edge) = (self.frontier.size(), self.frontier.edge().to_vec());
        let wanted = self.wanted.bookmarks.contains(&size);
        if let (true, Some(created), Some(last), Some(time), Some(seen)) = (wanted, &self.created, self.prev, self.time, visit.seen()) {
            let node = self.node.clone().unwrap_or_default();
            self.bookmarks.insert(size, Bookmark { edge, key: None, last, node, origin: created.origin.clone(), seen, size, time });
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(reader: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
