//! Reads a log back at start, and tells a torn tail from tampering.
//!
//! In scope: the chain, the segments, the newest checkpoint, the durable watermark. Out of scope: any change to the disk ([`super::open`]
//! repairs) and what the records mean (`on_record` is told of each).

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogKind, LogSegment};
use claviger_audit::keyrings::Illegal;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::record::{Reader, Record};

use super::checkpoint::Covered;
use super::disk::Disk;
use super::file::segment_name;
use super::open::OpenError;

/// A segment is read whole; it cannot have more bytes than its limit, one batch and one record, and this is far more.
const MOST_SEGMENT_BYTES: usize = 1 << 30;

/// How a line names what was known to be durable.
const DURABLE: &[u8] = b"\"durable\":";

/// What is done with each record.
pub(super) type OnRecord<'a> = &'a mut dyn FnMut(&Record) -> Result<(), Illegal>;

/// Where reading begins.
pub(super) struct Start {
    /// What is known to be covered by the checkpoint; or nothing, and the log is read from its first record.
    pub(super) covered: Option<Covered>,
    /// Of a pruned log, where its first segment begins, and the leaf hash of the record before that.
    pub(super) base: Option<(Covered, Hash)>,
    /// Size and root of the newest checkpoint.
    pub(super) checkpoint: Option<(u64, Hash)>,
    /// The `prev` of the first record.
    pub(super) genesis: Hash,
}

/// What a log holds.
pub(super) struct Replay {
    pub(super) frontier: Frontier,
    pub(super) last: Hash,
    pub(super) time: Timestamp,
    /// What the newest checkpoint covers; nothing, if there is none.
    pub(super) covered: Covered,
    /// First sequence number of the segment to go on with, and its good bytes.
    pub(super) active: (u64, Vec<u8>),
    pub(super) torn: Option<Torn>,
}

/// Bytes that no reader was ever promised.
pub(super) struct Torn {
    /// First sequence number of the segment that holds them.
    pub(super) segment: u64,
    pub(super) bytes: Vec<u8>,
}

/// What is wrong with a line.
struct Defect {
    expected: String,
    found: String,
    /// Whether it is rather the line before that was changed: this one is whole, but names another one as its predecessor.
    blames_previous: bool,
}

fn defect(expected: &dyn fmt::Display, found: &dyn fmt::Display) -> Defect {
    Defect { expected: expected.to_string(), found: found.to_string(), blames_previous: false }
}

/// Why reading a segment stopped before its end.
enum Stop {
    /// A line that is no record of this log at this place.
    Bad { offset: usize, defect: Defect },
    /// The log is not to be opened at all.
    Refused(OpenError),
}

/// Reads on from `start` to the end.
pub(super) fn replay(
    disk: &dyn Disk,
    folder: &Path,
    kind: LogKind,
    segments: &[u64],
    start: &Start,
    on_record: OnRecord<'_>,
) -> Result<Replay, OpenError> {
    let nothing = Covered { frontier: Frontier::new(), segment: 0, offset: 0 };
    let (base, before_base) = start.base.clone().unwrap_or((nothing, start.genesis));
    let from = start.covered.clone().unwrap_or_else(|| base.clone());
    let mut walk = Walk {
        disk,
        folder,
        kind,
        checkpoint: start.checkpoint,
        on_record,
        frontier: from.frontier.clone(),
        last: before_base,
        time: Timestamp::default(),
        promised: 0,
        covered: base,
        before: None,
    };
    let mut left: VecDeque<u64> = segments.iter().copied().filter(|first| *first >= from.segment).collect();
    let mut active = None;
    let mut torn = None;
    while let Some(first) = left.pop_front() {
        let bytes = walk.read(first)?;
        let begin = if active.is_none() { walk.enter(&from, &bytes)? } else { 0 };
        match walk.segment(first, &bytes, begin) {
            Ok(()) => {}
            Err(Stop::Refused(error)) => return Err(error),
            Err(Stop::Bad { offset, defect }) => {
                walk.judge(first, &bytes, offset, &left, defect)?;
                torn = Some(Torn { segment: first, bytes: bytes[offset..].to_vec() });
                if offset > 0 {
                    active = Some((first, bytes[..offset].to_vec()));
                }
                break;
            }
        }
        if !left.is_empty() {
            // The one that follows names it.
            walk.before = Some((bytes.len() as u64, Hash::digest(&bytes)));
        }
        active = Some((first, bytes));
    }
    walk.end(active, torn)
}

/// The reader, between two lines.
struct Walk<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    kind: LogKind,
    checkpoint: Option<(u64, Hash)>,
    on_record: OnRecord<'a>,
    frontier: Frontier,
    last: Hash,
    time: Timestamp,
    /// The largest `durable` so far.
    promised: u64,
    covered: Covered,
    /// Size and SHA-256 of the segment before; `None` before the first that is read.
    before: Option<(u64, Hash)>,
}

impl Walk<'_> {
    fn read(&self, first: u64) -> Result<Vec<u8>, OpenError> {
        let path = self.path(first);
        self.disk.read(&path, 0, MOST_SEGMENT_BYTES).map_err(|source| OpenError::Io { path, source })
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(segment_name(first))
    }

    /// Stands where the checkpoint ends. The record before that place gives `prev` and time.
    fn enter(&mut self, from: &Covered, bytes: &[u8]) -> Result<usize, OpenError> {
        // The first record, or the first that is left: what comes before it is given.
        if from.offset == 0 {
            return Ok(0);
        }
        let offset = usize::try_from(from.offset).ok().filter(|offset| *offset <= bytes.len());
        let Some(offset) = offset else {
            return Err(OpenError::RolledBack { have: records_before_end(bytes, from.segment), checkpoint: from.frontier.size() });
        };
        let line = bytes[..offset].strip_suffix(b"\n").map(|line| line.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
        let record = line.and_then(|line| Some((Record::parse(line).ok()?, leaf_hash(line))));
        let size = from.frontier.size();
        match record {
            Some((record, leaf)) if record.log == self.kind && record.seq + 1 == size => {
                self.last = leaf;
                self.time = record.time;
                self.promised = record.durable;
                self.covered = from.clone();
                Ok(offset)
            }
            _ => Err(self.tampered(
                from.segment,
                bytes,
                offset.saturating_sub(1),
                size - 1,
                defect(&"the last record that the checkpoint covers", &"none"),
            )),
        }
    }

    fn segment(&mut self, first: u64, bytes: &[u8], begin: usize) -> Result<(), Stop> {
        let size = self.frontier.size();
        if begin == 0 && first != size {
            let wrong = defect(&segment_name(size), &segment_name(first));
            return Err(Stop::Refused(self.tampered(first, bytes, 0, size, wrong)));
        }
        let mut offset = begin;
        let mut reader = Reader::default();
        while offset < bytes.len() {
            let bad = |defect| Stop::Bad { offset, defect };
            let length = memchr::memchr(b'\n', &bytes[offset..]);
            let line = length.map(|length| &bytes[offset..offset + length]);
            let line = line.ok_or_else(|| bad(defect(&"a line that ends with LF", &"the end of the file")))?;
            let text = str::from_utf8(line).map_err(|error| bad(defect(&"a record", &error)))?;
            let record = reader.read(text).map_err(|error| bad(defect(&"a record", &error)))?;
            self.check(record, offset == 0).map_err(bad)?;
            (self.on_record)(record)
                .map_err(|source| Stop::Refused(OpenError::Illegal { file: self.path(first), seq: record.seq, source }))?;
            self.last = leaf_hash(line);
            self.frontier.push(self.last);
            self.time = record.time;
            self.promised = self.promised.max(record.durable);
            let line_start = offset;
            offset += line.len() + 1;
            self.compare(first, bytes, line_start, offset).map_err(Stop::Refused)?;
        }
        // An empty file is a segment whose first batch never arrived.
        if bytes.is_empty() { Err(Stop::Bad { offset: 0, defect: defect(&"a record", &"an empty file") }) } else { Ok(()) }
    }

    /// Whether the record is the next one.
    fn check(&self, record: &Record, opens_segment: bool) -> Result<(), Defect> {
        let size = self.frontier.size();
        need(record.log == self.kind, &self.kind.name(), &record.log.name())?;
        need(record.seq == size, &format_args!("sequence number {size}"), &record.seq)?;
        need(record.prev == self.last, &format_args!("prev {}", self.last), &record.prev)
            .map_err(|defect| Defect { blames_previous: true, ..defect })?;
        need(record.time >= self.time, &format_args!("a time not before {}", self.time), &record.time)?;
        need(record.durable <= size, &format_args!("durable of at most {size}"), &record.durable)?;
        need(matches!(record.event, Event::LogCreated(_)) == (size == 0), &"log.created first and never again", &record.event.name())?;
        match &record.event {
            Event::LogSegment(found) => {
                // What the segment before held went with it, where it was pruned; its last hash is in the chain still.
                let (size, sha256) = self.before.unwrap_or((found.size, found.sha256));
                let sealed = LogSegment { last: self.last, size, sha256 };
                let expected = format_args!("{sealed:?} at the start of a segment");
                need(opens_segment && *found == sealed, &expected, &format_args!("{found:?}"))?;
            }
            other => need(!opens_segment || size == 0, &"log.segment", &other.name())?,
        }
        Ok(())
    }

    /// Where the checkpoint ends, the roots must agree.
    fn compare(&mut self, first: u64, bytes: &[u8], line_start: usize, offset: usize) -> Result<(), OpenError> {
        let Some((size, root)) = self.checkpoint.filter(|(size, _)| *size == self.frontier.size()) else { return Ok(()) };
        if self.frontier.root() != root {
            let wrong = defect(&format_args!("the checkpoint's root {root}"), &self.frontier.root());
            return Err(self.tampered(first, bytes, line_start, size - 1, wrong));
        }
        self.covered = Covered { frontier: self.frontier.clone(), segment: first, offset: offset as u64 };
        Ok(())
    }

    /// A bad line is torn only where nobody was promised anything: at or above the watermark, in the last segment.
    fn judge(&self, first: u64, bytes: &[u8], offset: usize, later: &VecDeque<u64>, defect: Defect) -> Result<(), OpenError> {
        let seq = self.frontier.size();
        let mut watermark = self.promised.max(self.checkpoint.map_or(0, |(size, _)| size)).max(Self::promised_in(&bytes[offset..]));
        for segment in later {
            watermark = watermark.max(Self::promised_in(&self.read(*segment)?));
        }
        let suspect = if defect.blames_previous { seq.saturating_sub(1) } else { seq };
        if suspect >= watermark && later.is_empty() && seq > 0 { Ok(()) } else { Err(self.tampered(first, bytes, offset, seq, defect)) }
    }

    /// The largest `durable` that is named anywhere, however broken the lines around it are: where one line feed was changed, two records are
    /// one unreadable line. No text within a record can look like this member, for its quotes would be escaped.
    fn promised_in(bytes: &[u8]) -> u64 {
        let numbers = bytes.windows(DURABLE.len()).enumerate().filter(|(_, window)| *window == DURABLE).map(|(at, _)| {
            let digits = bytes[at + DURABLE.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
        });
        numbers.max().unwrap_or(0)
    }

    fn tampered(&self, first: u64, bytes: &[u8], offset: usize, seq: u64, defect: Defect) -> OpenError {
        let line = bytes[..offset].split(|byte| *byte == b'\n').count() as u64;
        OpenError::Tampered { file: self.path(first), line, seq, expected: defect.expected, found: defect.found }
    }

    fn end(self, active: Option<(u64, Vec<u8>)>, torn: Option<Torn>) -> Result<Replay, OpenError> {
        let size = self.frontier.size();
        if let Some((checkpoint, _)) = self.checkpoint.filter(|(checkpoint, _)| *checkpoint > size) {
            return Err(OpenError::RolledBack { have: size, checkpoint });
        }
        let active = active.ok_or_else(|| OpenError::Missing { folder: self.folder.to_owned() })?;
        Ok(Replay { frontier: self.frontier, last: self.last, time: self.time, covered: self.covered, active, torn })
    }
}

fn need(holds: bool, expected: &dyn fmt::Display, found: &dyn fmt::Display) -> Result<(), Defect> {
    if holds { Ok(()) } else { Err(defect(expected, found)) }
}

/// How many records a log has whose last segment this is, by its last readable line.
fn records_before_end(bytes: &[u8], first: u64) -> u64 {
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|line| Record::parse(line).ok()).map(|record| record.seq + 1).next().unwrap_or(first)
}
