//! One log, line by line: form, numbers, chain, segments and tree.
//!
//! In scope: everything that the bytes of one log show by themselves, streaming. Out of scope: what the records mean (a [`Visit`] does
//! that), and what was signed (`notes`).
//!
//! A line that is no record may be a torn batch, which an unclean stop leaves behind, if nothing says that it was ever durable. So such
//! lines are kept until the end, when the watermark is known. What stands for records that are not read is in `past`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::event::{Event, LogCreated, LogKind, LogSegment};
use crate::line::{LineError, LineErrorKind, Lines, genesis_prev};
use crate::merkle::{Frontier, Hash, SegmentHasher, leaf_hash};
use crate::record::{Reader, Record, RecordError};
use crate::time::Timestamp;

use super::finding::{Finding, Findings, Location, MOST_FINDINGS, Verdict};
use super::signers::LogKeys;
use super::{Bookmark, LogFiles, Segment};

mod past;

pub(super) use past::{FirstRecord, HASH_BYTES, begins_at, first_record, pruned_before};

/// What wants to see the records of a log.
pub(super) trait Visit {
    /// A line, whatever it says; called before [`Visit::record`].
    fn line(&mut self, leaf: Hash);
    /// A line that is a record.
    fn record(&mut self, record: &Record, at: &Location, findings: &mut Findings);
    /// The size of the key log that the records so far have seen, if they say so.
    fn seen(&self) -> Option<u64> {
        Some(0)
    }
    /// The oldest records are not here: only their hashes, as lines.
    fn pruned(&mut self) {}
}

/// Two that see the same records.
pub(super) struct Both<'v>(pub(super) &'v mut dyn Visit, pub(super) &'v mut dyn Visit);

impl Visit for Both<'_> {
    fn line(&mut self, leaf: Hash) {
        self.0.line(leaf);
        self.1.line(leaf);
    }

    fn record(&mut self, record: &Record, at: &Location, findings: &mut Findings) {
        self.0.record(record, at, findings);
        self.1.record(record, at, findings);
    }

    fn seen(&self) -> Option<u64> {
        self.0.seen()
    }

    fn pruned(&mut self) {
        self.0.pruned();
        self.1.pruned();
    }
}

/// What a scan should remember on its way.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) sizes: BTreeSet<u64>,
    pub(super) leaves: BTreeSet<u64>,
    /// Sizes at which a later run may want to go on.
    pub(super) bookmarks: BTreeSet<u64>,
}

/// What a scan leaves: a handful of hashes, however long the log is.
pub(super) struct Scan {
    kind: LogKind,
    created: Option<LogCreated>,
    node: Option<String>,
    frontier: Frontier,
    /// The leaf hash of the line before; `None` where there is none to know.
    prev: Option<Hash>,
    due: u64,
    watermark: u64,
    time: Option<Timestamp>,
    roots: BTreeMap<u64, (Hash, Option<Timestamp>)>,
    bookmarks: BTreeMap<u64, Bookmark>,
    log_keys: LogKeys,
    /// The first record that is here; those before it were pruned.
    first: u64,
    /// The first record that is read; those before it were checked by an earlier run.
    resumed_at: u64,
    /// How many lines there are, where they are fewer than the earlier run saw.
    shrunk: Option<u64>,
    leaves: BTreeMap<u64, (Hash, Location)>,
    segment: usize,
    unreadable: Vec<Unreadable>,
    unreadable_lines: u64,
    wanted: Wanted,
}

/// A line that is no record.
struct Unreadable {
    index: u64,
    segment: usize,
    finding: Finding,
}

/// A segment that was read to its end.
struct Sealed {
    bytes: u64,
    sha256: Hash,
}

impl Scan {
    /// Reads the log: the whole of it, or from a bookmark on.
    pub(super) fn read(
        files: &LogFiles<'_>,
        kind: LogKind,
        (wanted, bookmark): (Wanted, Option<&Bookmark>),
        visit: &mut dyn Visit,
        findings: &mut Findings,
    ) -> io::Result<Self> {
        let mut scan = Self {
            kind,
            created: None,
            node: None,
            frontier: Frontier::new(),
            prev: None,
            due: 0,
            watermark: 0,
            time: None,
            roots: BTreeMap::new(),
            bookmarks: BTreeMap::new(),
            log_keys: LogKeys::default(),
            first: 0,
            resumed_at: 0,
            shrunk: None,
            leaves: BTreeMap::new(),
            segment: 0,
            unreadable: Vec::new(),
            unreadable_lines: 0,
            wanted,
        };
        scan.remember_root(visit);
        let from = match bookmark {
            Some(bookmark) => scan.resume(files, bookmark, visit)?,
            None => scan.read_pruned(files, visit, findings)?,
        };
        let mut before = None;
        for (index, segment) in files.segments.iter().enumerate().skip(from) {
            scan.segment = index;
            let (first, followed) = (index == 0 && scan.first == 0, index + 1 < files.segments.len());
            let place = Place { first, followed, before: before.take(), named: number_in(&segment.name, ".jsonl") };
            before = scan.read_segment(segment, place, visit, findings)?;
        }
        scan.notice_shrinking();
        Ok(scan)
    }

    /// Which log it should be.
    pub(super) fn kind(&self) -> LogKind {
        self.kind
    }

    /// How many lines there are, or were before some of them were pruned.
    pub(super) fn size(&self) -> u64 {
        self.shrunk.unwrap_or(self.frontier.size())
    }

    /// The number of the first record that is here.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the first record that was read for itself; those before it were checked by an earlier run.
    pub(super) fn resumed_at(&self) -> u64 {
        self.resumed_at
    }

    /// The keys that sign for this log.
    pub(super) fn log_keys(&self) -> &LogKeys {
        &self.log_keys
    }

    /// Where a later run may go on after `size` records.
    pub(super) fn bookmark(&self, size: u64) -> Option<&Bookmark> {
        self.bookmarks.get(&size)
    }

    /// The first record, where it is what it should be.
    pub(super) fn created(&self) -> Option<&LogCreated> {
        self.created.as_ref()
    }

    /// The node that wrote the first record.
    pub(super) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The root over the first `size` lines, if that size was wanted and reached.
    pub(super) fn root_at(&self, size: u64) -> Option<Hash> {
        self.roots.get(&size).map(|(root, _)| *root)
    }

    /// The time of the last record among the first `size` lines.
    pub(super) fn time_at(&self, size: u64) -> Option<Timestamp> {
        self.roots.get(&size).and_then(|(_, time)| *time)
    }

    /// The leaf hash of line `seq` and where it stands, if it was wanted and reached.
    pub(super) fn leaf(&self, seq: u64) -> Option<&(Hash, Location)> {
        self.leaves.get(&seq)
    }

    /// Lines that are no records, and that nothing says were ever durable: what an unclean stop leaves. The others become findings. Of a log
    /// that ended, lines from `end` on count no more.
    pub(super) fn settle_unreadable(&mut self, stated: u64, end: Option<u64>, log: &str, findings: &mut Findings) -> u64 {
        let durable = self.watermark.max(stated).min(end.unwrap_or(u64::MAX));
        let mut torn = self.unreadable_lines;
        for line in self.unreadable.drain(..) {
            // A segment is followed by another only when it is whole.
            if line.index < durable || line.segment < self.segment {
                findings.push(line.finding.of(log));
                torn -= 1;
            }
        }
        torn
    }

    fn read_segment(
        &mut self,
        segment: &Segment<'_>,
        place: Place,
        visit: &mut dyn Visit,
        findings: &mut Findings,
    ) -> io::Result<Option<Sealed>> {
        let mut lines = Lines::new((segment.open)()?);
        // The seal of a segment is in the one that follows it.
        let mut sealed = place.followed.then(SegmentHasher::default);
        let mut place = Some(place);
        let mut reader = Reader::default();
        // One location for all lines of the file: its name is not copied for each.
        let mut at = Location { file: segment.name.clone(), line: 0, seq: 0, offset: 0 };
        while let Some(line) = lines.next() {
            match line {
                Ok(line) => {
                    (at.line, at.seq, at.offset) = (line.number, self.due, line.offset);
                    let leaf = sealed.as_mut().map_or_else(|| leaf_hash(line.bytes), |sealed| sealed.line(line.bytes));
                    let place = place.take();
                    if self.due < self.resumed_at {
                        self.due += 1;
                    } else {
                        self.line((leaf, reader.read(line.text)), &at, place, visit, findings);
                    }
                }
                Err(LineError { kind: LineErrorKind::Io(error), .. }) => return Err(error),
                Err(LineError { number, offset, kind }) => {
                    (at.line, at.seq, at.offset) = (number, self.due, offset);
                    // What follows cannot be hashed with what the line held, so the seal of this segment cannot be compared.
                    sealed = None;
                    place = None;
                    match kind {
                        LineErrorKind::Partial { .. } if self.due < self.resumed_at => {}
                        _ if self.due < self.resumed_at => self.due += 1,
                        kind => self.unreadable(&kind, &at, visit),
                    }
                }
            }
        }
        Ok(sealed.map(SegmentHasher::finish).map(|(bytes, sha256)| Sealed { bytes, sha256 }))
    }

    fn line(
        &mut self,
        (leaf, record): (Hash, Result<&Record, RecordError>),
        at: &Location,
        place: Option<Place>,
        visit: &mut dyn Visit,
        findings: &mut Findings,
    ) {
        visit.line(leaf);
        match record {
            Ok(record) => {
                self.check(record, at, place, findings);
                self.watermark = self.watermark.max(record.durable);
                self.due = record.seq.saturating_add(1);
                self.time = self.time.max(Some(record.time));
                if let Event::LogKeyRotated(event) = &record.event {
                    self.log_keys.rotated(event, at, findings);
                }
                visit.record(record, at, findings);
            }
            Err(error) => {
                self.keep_unreadable(Finding::new(Verdict::Tampered, format!("the line is no record: {error}")).at(at));
                self.due = self.due.saturating_add(1);
            }
        }
        self.prev = Some(leaf);
        self.grow(leaf, at, visit);
    }

    /// A line whose bytes are not at hand. A partial line at the end of a file was never a record; any other stands where one was due.
    fn unreadable(&mut self, kind: &LineErrorKind, at: &Location, visit: &mut dyn Visit) {
        self.keep_unreadable(Finding::new(Verdict::Tampered, kind.to_string()).at(at));
        if !matches!(kind, LineErrorKind::Partial { .. }) {
            visit.line(Hash::EMPTY_ROOT);
            self.grow(Hash::EMPTY_ROOT, at, visit);
            self.due = self.due.saturating_add(1);
        }
        self.prev = None;
    }

    fn keep_unreadable(&mut self, finding: Finding) {
        self.unreadable_lines += 1;
        if self.unreadable.len() < MOST_FINDINGS {
            self.unreadable.push(Unreadable { index: self.frontier.size(), segment: self.segment, finding });
        }
    }

    fn grow(&mut self, leaf: Hash, at: &Location, visit: &dyn Visit) {
        let seq = self.frontier.size();
        if self.wanted.leaves.contains(&seq) {
            self.leaves.insert(seq, (leaf, at.clone()));
        }
        self.frontier.push(leaf);
        self.remember_root(visit);
    }

    fn remember_root(&mut self, visit: &dyn Visit) {
        let size = self.frontier.size();
        if self.wanted.sizes.contains(&size) {
            self.roots.insert(size, (self.frontier.root(), self.time));
            self.remember_place(visit);
        }
    }

    /// Everything about a record that the records before it decide.
    fn check(&mut self, record: &Record, at: &Location, place: Option<Place>, findings: &mut Findings) {
        let mut tampered = |text: &str, expected: &dyn ToString, found: &dyn ToString| {
            findings.push(Finding::new(Verdict::Tampered, text).at(at).differ(expected.to_string(), found.to_string()));
        };
        if record.log != self.kind {
            tampered("a record of the other log", &self.kind.name(), &record.log.name());
        }
        if record.seq != self.due {
            tampered(
                "records are missing, doubled or out of order",
                &format_args!("record {}", self.due),
                &format_args!("record {}", record.seq),
            );
        }
        if let Some(expected) = self.expected_prev(record, at).filter(|expected| *expected != record.prev) {
            tampered("the chain is broken: `prev` is not the hash of the line before", &expected, &record.prev);
        }
        if record.durable > record.seq {
            tampered("a record says that later records are durable", &format_args!("{} or less", record.seq), &record.durable);
        }
        if let Some((what, expected, found)) = place.as_ref().and_then(|place| place.misnamed(record)) {
            tampered(what, &expected, &found);
        }
        match (&record.event, place) {
            (Event::LogSegment(event), Some(Place { before: Some(sealed), .. })) => {
                for (what, expected, found) in sealed.differs(event, self.prev) {
                    tampered(what, &expected, &found);
                }
            }
            // The segment before is not read, or its bytes are not at hand; `prev` says the same as `last`.
            (Event::LogSegment(_), Some(Place { first: false, .. })) => {}
            (Event::LogSegment(_), _) => tampered("log.segment begins a file, and never the first one", &"another event", &"log.segment"),
            (event, Some(Place { first: false, .. })) => tampered("a file begins with log.segment", &"log.segment", &event.name()),
            _ => {}
        }
    }

    /// What `prev` must be; `None` where it cannot be known, because the line before is no line.
    fn expected_prev(&mut self, record: &Record, at: &Location) -> Option<Hash> {
        if self.frontier.size() > 0 {
            return self.prev;
        }
        match &record.event {
            Event::LogCreated(event) => {
                self.begin(event, &record.node, at);
                Some(genesis_prev(&event.origin, &event.key))
            }
            // A log that does not begin with `log.created` has lost its beginning: no hash is right here.
            _ => Some(Hash::EMPTY_ROOT),
        }
    }
}

/// Where a segment stands among the others.
struct Place {
    first: bool,
    followed: bool,
    /// The segment before, if its bytes could be hashed.
    before: Option<Sealed>,
    /// The number in the file's name, if it has one.
    named: Option<u64>,
}

type Difference = (&'static str, String, String);

impl Place {
    fn misnamed(&self, record: &Record) -> Option<Difference> {
        let named = self.named.filter(|named| *named != record.seq)?;
        Some(("the file is named by the number of its first record", named.to_string(), record.seq.to_string()))
    }
}

impl Sealed {
    fn differs(&self, event: &LogSegment, last: Option<Hash>) -> Vec<Difference> {
        let mut differences = Vec::new();
        if last.is_some_and(|last| last != event.last) {
            differences.push(("log.segment names another last record", event.last.to_string(), last.unwrap_or(event.last).to_string()));
        }
        if self.bytes != event.size {
            differences.push(("the segment before has another size", event.size.to_string(), self.bytes.to_string()));
        }
        if self.sha256 != event.sha256 {
            differences.push(("the segment before has another SHA-256", event.sha256.to_string(), self.sha256.to_string()));
        }
        differences
    }
}

/// `00000000000000000042.jsonl` gives 42. Files that are given by hand may have any name; digits that are no `u64` name no record that
/// there is.
fn number_in(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.rsplit('/').next()?.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().unwrap_or(u64::MAX))
}
