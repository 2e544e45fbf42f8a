//! The file work of one log, without threads: records become lines, lines become durable, segments follow one another.
//!
//! In scope: numbering, chaining, one write and one sync per batch, rolling to a new segment, the halt record. Out of scope: who asks for
//! records, whether an event is legal, and recovery after a crash. Every error of a commit is final: the caller poisons the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogHalt, LogHeartbeat, LogKind, LogSegment};
use claviger_audit::keyrings::{Illegal, Rule};
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::record::{Asked, Record};
use sha2::{Digest as _, Sha256};

use super::disk::{Disk, Tail, append_all};
use super::tenure::Tenures;
use super::{Head, Receipt};

/// A segment is sealed once it has this many bytes, 64 MiB: small enough to read back whole, large enough that a year has few of them.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The file that is given up to make room for the halt record on a full disk.
pub(super) const BALLAST: &str = "ballast";

/// Where a log lives and who writes it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pub(super) kind: LogKind,
    pub(super) origin: Arc<str>,
    pub(super) node: String,
    pub(super) boot: String,
    pub(super) segment_bytes: u64,
}

/// The segment that is being written.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) tail: Box<dyn Tail>,
    pub(super) bytes: u64,
    pub(super) sha256: Sha256,
}

/// The name of the segment whose first record is `first`.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// A log that is open for writing, and where it stands.
pub(super) struct LogFile {
    pub(super) place: Place,
    pub(super) segment: Segment,
    pub(super) frontier: Frontier,
    pub(super) last: Hash,
    pub(super) time: Timestamp,
    /// Whose signatures the checkpoints need.
    pub(super) tenures: Arc<Tenures>,
}

/// Lines that are written with one write and made durable with one sync.
pub(super) struct Batch {
    place: Place,
    rolls: bool,
    time: Timestamp,
    durable: u64,
    next: u64,
    prev: Hash,
    lines: Vec<u8>,
    leaves: Vec<Hash>,
    tenures: Arc<Tenures>,
}

/// A point in a batch to which it can be cut back.
pub(super) struct Mark {
    prev: Hash,
    bytes: usize,
    leaves: usize,
    tenures: Arc<Tenures>,
}

impl LogFile {
    /// Where the log stands.
    pub(super) fn head(&self) -> Head {
        Head { size: self.frontier.size(), root: self.frontier.root(), leaf: self.last, time: self.time }
    }

    /// An empty batch whose records carry the later of `wall` and the last recorded time (I12).
    pub(super) fn batch(&self, wall: Timestamp) -> Batch {
        Batch {
            place: self.place.clone(),
            rolls: false,
            time: wall.max(self.time),
            durable: self.frontier.size(),
            next: self.frontier.size(),
            prev: self.last,
            lines: Vec::new(),
            leaves: Vec::new(),
            tenures: Arc::clone(&self.tenures),
        }
    }

    /// A batch as [`Self::batch`] makes it; it begins with `log.segment` if the segment is full.
    pub(super) fn begin(&self, wall: Timestamp, check: impl FnMut(&Record) -> Result<(), Illegal>) -> Result<Batch, Illegal> {
        let mut batch = self.batch(wall);
        if self.segment.bytes >= self.place.segment_bytes {
            let sha256 = Hash::from_bytes(self.segment.sha256.clone().finalize().into());
            let event = Event::LogSegment(LogSegment { last: self.last, size: self.segment.bytes, sha256 });
            batch.push(Asked::default(), event, check)?;
            batch.rolls = true;
        }
        Ok(batch)
    }

    /// Makes the batch durable. After an error, whose text is the reason, the log must never be touched again.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Head, String> {
        if batch.rolls {
            self.write_first(batch)?;
        } else {
            self.write(batch)?;
        }
        self.frontier.extend(batch.leaves.iter().copied());
        self.last = batch.prev;
        self.time = batch.time;
        self.tenures = Arc::clone(&batch.tenures);
        Ok(self.head())
    }

    /// Whether the segment's name still leads to the file that is being written.
    pub(super) fn is_linked(&self) -> io::Result<bool> {
        self.segment.tail.is_at(&self.segment.path)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), String> {
        let segment = &mut self.segment;
        if let Err(error) = append_all(segment.tail.as_mut(), &batch.lines) {
            let reason = format!("cannot write {}: {error}", segment.path.display());
            return Err(if is_full(&error) { self.halt(reason) } else { reason });
        }
        // Never retried: after an error here the kernel may call pages clean that the disk never took.
        segment.tail.sync().map_err(|error| format!("cannot sync {}: {error}", segment.path.display()))?;
        segment.bytes += batch.lines.len() as u64;
        segment.sha256.update(&batch.lines);
        Ok(())
    }

    /// Writes the first batch of a new segment. The old one is sealed only when the new one is durable.
    fn write_first(&mut self, batch: &Batch) -> Result<(), String> {
        let disk = Arc::clone(&self.place.disk);
        let path = self.place.folder.join(segment_name(batch.durable));
        let made = disk.create(&path).map_err(|error| (error, None));
        let written = made.and_then(|mut tail| match append_all(tail.as_mut(), &batch.lines) {
            Ok(()) => Ok(tail),
            Err(error) => Err((error, Some(tail))),
        });
        let mut tail = match written {
            Ok(tail) => tail,
            Err((error, half_made)) => return Err(self.halt_before(&path, half_made.is_some(), &error)),
        };
        tail.sync().map_err(|error| format!("cannot sync {}: {error}", path.display()))?;
        disk.sync_folder(&self.place.folder).map_err(|error| format!("cannot sync {}: {error}", self.place.folder.display()))?;
        let sha256 = Sha256::new_with_prefix(&batch.lines);
        let sealed = std::mem::replace(&mut self.segment, Segment { path, tail, bytes: batch.lines.len() as u64, sha256 });
        if let Err(error) = disk.seal(&sealed.path) {
            tracing::warn!(segment = %sealed.path.display(), %error, "a finished segment could not be made read-only");
        }
        Ok(())
    }

    /// A new segment could not be begun: takes its half-made file away, so that the halt record may follow the old segment's last line.
    fn halt_before(&mut self, path: &Path, half_made: bool, error: &io::Error) -> String {
        let reason = format!("cannot begin {}: {error}", path.display());
        let disk = &self.place.disk;
        let gone = !half_made || (disk.remove(path).is_ok() && disk.sync_folder(&self.place.folder).is_ok());
        if gone && is_full(error) { self.halt(reason) } else { reason }
    }

    /// The disk is full: records that the log ends here, in the room that the ballast held, if and only if its tail is known to be good.
    /// The reason comes back either way; the log is dead.
    fn halt(&mut self, reason: String) -> String {
        match self.try_halt(&reason) {
            Ok(()) => reason,
            Err(error) => format!("{reason}; nor could this be recorded: {error}"),
        }
    }

    fn try_halt(&mut self, reason: &str) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let segment = &mut self.segment;
        if segment.tail.size().map_err(text)? != segment.bytes {
            segment.tail.truncate(segment.bytes).map_err(text)?;
            segment.tail.sync().map_err(text)?;
        }
        self.place.disk.remove(&self.place.folder.join(BALLAST)).map_err(text)?;
        self.place.disk.sync_folder(&self.place.folder).map_err(text)?;
        let mut batch = self.batch(self.time);
        let event = Event::LogHalt(LogHalt { reason: reason.to_owned() });
        batch.push(Asked::default(), event, |_| Ok(())).map_err(|illegal| illegal.to_string())?;
        append_all(self.segment.tail.as_mut(), &batch.lines).map_err(text)?;
        self.segment.tail.sync().map_err(text)
    }
}

impl Batch {
    /// The time that its records carry.
    pub(super) fn time(&self) -> Timestamp {
        self.time
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has no record.
    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Where it could be cut back to.
    pub(super) fn mark(&self) -> Mark {
        Mark { prev: self.prev, bytes: self.lines.len(), leaves: self.leaves.len(), tenures: Arc::clone(&self.tenures) }
    }

    /// Takes everything back that was pushed since `mark`.
    pub(super) fn cut_back(&mut self, mark: Mark) {
        self.next -= (self.leaves.len() - mark.leaves) as u64;
        self.prev = mark.prev;
        self.lines.truncate(mark.bytes);
        self.leaves.truncate(mark.leaves);
        self.tenures = mark.tenures;
    }

    /// Adds the next record if `check` permits it.
    pub(super) fn push(
        &mut self,
        asked: Asked,
        event: Event,
        check: impl FnOnce(&Record) -> Result<(), Illegal>,
    ) -> Result<Receipt, Illegal> {
        let place = &self.place;
        let record = Record {
            log: place.kind,
            seq: self.next,
            time: self.time,
            prev: self.prev,
            durable: self.durable,
            node: place.node.clone(),
            boot: place.boot.clone(),
            asked,
            event,
        };
        let refused = |text: String| Illegal { rule: Rule::Form, event: record.event.name(), text, until: None };
        if !record.event.belongs_to(place.kind) {
            return Err(refused(format!("it does not belong into the {} log", place.kind.name())));
        }
        let line = record.to_line().map_err(|error| refused(error.to_string()))?;
        check(&record)?;
        if let Event::LogKeyRotated(event) = &record.event {
            Arc::make_mut(&mut self.tenures).turn(self.next, event).map_err(refused)?;
        }
        let leaf = leaf_hash(&line);
        let receipt = Receipt { log: Arc::clone(&place.origin), seq: self.next, leaf };
        self.lines.extend_from_slice(&line);
        self.lines.push(b'\n');
        self.leaves.push(leaf);
        self.prev = leaf;
        self.next += 1;
        Ok(receipt)
    }
}

/// The heartbeat of either log.
pub(super) fn heartbeat() -> Event {
    Event::LogHeartbeat(LogHeartbeat {})
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
