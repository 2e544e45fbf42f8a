//! Old records of a use log are deleted, whole segments at a time; the hashes of their lines are kept, so that every proof still works.
//!
//! In scope: which segments may go, what is kept of them, deleting them, and opening a log that begins in the middle. Out of scope: who may
//! ask, and the record in the key log (`upkeep`), which is the commit point: before it nothing is deleted, after it a start deletes what a
//! crash left.
//!
//! Files beside the segments: `<first:020>.hashes`, the leaf hashes of a segment's lines, 32 bytes each; `genesis`, the log's first line,
//! and after it the second one if that is `log.adopted`, which says where the log comes from.

use std::io;
use std::path::Path;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogSegment, UsesPruned};
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::record::Record;
use tokio::sync::oneshot;

use super::checkpoint::Covered;
use super::disk::{Disk, replace};
use super::file::segment_name;
use super::former::segments_in;
use super::open::{OpenError, Opening};

/// The file that holds the first record of a log whose first segment is gone.
pub(super) const GENESIS: &str = "genesis";
/// Bytes of a hash in a file of hashes.
const HASH: usize = 32;
/// A segment is read whole, and so are its hashes, which are fewer bytes.
const MOST_BYTES: usize = 1 << 30;

/// Which records may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Those of segments all of whose records are older, and all of whose tokens were dead by then.
    pub before: Timestamp,
    /// How many records a signed checkpoint covers.
    pub covered: u64,
    /// Whether to keep their hashes now; else only to look.
    pub keep: bool,
}

/// A segment that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Its first record.
    pub first: u64,
    /// How many it has.
    pub records: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// What may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prunable {
    /// The segments, oldest first.
    pub segments: Vec<Old>,
    /// The first record that is left.
    pub first: u64,
    /// The root over all records before it.
    pub root: Hash,
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// What is to be deleted cannot be read, or is not what was written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be written or removed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The thread that does it is gone.
    #[error("the thread that prunes ended without an answer")]
    Gone,
}

/// Prunes one use log while it is being written: only sealed segments are touched.
pub struct Pruner {
    opening: Opening,
}

impl Pruner {
    /// Of this log.
    pub fn new(opening: Opening) -> Self {
        Self { opening }
    }

    /// Which segments may go; with [`Order::keep`], their hashes are durable when this returns.
    pub async fn look(&self, order: Order) -> Result<Prunable, PruneError> {
        self.on_thread(move |opening| look(opening.disk.as_ref(), &opening.folder, order)).await
    }

    /// Deletes every segment before record `first`. The key log says already that they are gone.
    pub async fn delete(&self, first: u64) -> Result<(), PruneError> {
        self.on_thread(move |opening| Ok(delete(opening.disk.as_ref(), &opening.folder, first)?)).await
    }

    /// Gigabytes are read here: nobody else may wait for that.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Opening) -> Result<T, PruneError> + Send + 'static,
    ) -> Result<T, PruneError> {
        let (reply, answer) = oneshot::channel();
        let opening = self.opening.clone();
        // Who stopped waiting needs no answer.
        let body = move || drop(reply.send(work(&opening)));
        std::thread::Builder::new().name("prune".to_owned()).spawn(body)?;
        answer.await.unwrap_or(Err(PruneError::Gone))
    }
}

/// Reads the oldest segments, one after the other, until one may not go.
pub(super) fn look(disk: &dyn Disk, folder: &Path, order: Order) -> Result<Prunable, PruneError> {
    let segments = segments_in(disk, folder)?;
    let base = base(disk, folder, &segments)?;
    let (mut frontier, mut last) = base.map_or((Frontier::new(), None), |(covered, last)| (covered.frontier, Some(last)));
    let mut old = Vec::new();
    for pair in segments.windows(2) {
        let (first, next) = (pair[0], pair[1]);
        // The next one must be covered at least by its first record, which vouches for every byte of this one.
        if order.covered <= next {
            break;
        }
        let path = folder.join(segment_name(first));
        let bytes = disk.read(&path, 0, MOST_BYTES).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let Some(lines) = read(&bytes, (first, last), order.before, &path)? else { break };
        check_seal(disk, folder, next, &bytes, lines.leaves.last().copied())?;
        if order.keep {
            if first == 0 {
                replace(disk, folder, GENESIS, &bytes[..lines.genesis])?;
            }
            let hashes: Vec<u8> = lines.leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
            replace(disk, folder, &hashes_name(first), &hashes)?;
        }
        last = lines.leaves.last().copied();
        old.push(Old { first, records: lines.leaves.len() as u64, bytes: bytes.len() as u64 });
        frontier.extend(lines.leaves);
    }
    Ok(Prunable { segments: old, first: frontier.size(), root: frontier.root() })
}

/// What is kept of a segment's lines.
struct Lines {
    leaves: Vec<Hash>,
    /// How many bytes of it say which log this is: its first line, and its second if that is `log.adopted`.
    genesis: usize,
}

/// The lines of a sealed segment, each a link of the chain; `None` if one of them is not old enough.
fn read(bytes: &[u8], (first, mut prev): (u64, Option<Hash>), before: Timestamp, path: &Path) -> Result<Option<Lines>, OpenError> {
    let mut lines = Lines { leaves: Vec::new(), genesis: 0 };
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let seq = first + index as u64;
        let tampered =
            |expected: String, found: String| OpenError::Tampered { file: path.to_owned(), line: index as u64 + 1, seq, expected, found };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let record = Record::parse(line).map_err(|error| tampered("a record".to_owned(), error.to_string()))?;
        if record.seq != seq || prev.is_some_and(|prev| prev != record.prev) {
            return Err(tampered(format!("record {seq} with prev {prev:?}"), format!("record {} with prev {}", record.seq, record.prev)));
        }
        let dead_by = if let Event::Sign(sign) = &record.event { Timestamp::from_seconds(sign.exp) } else { record.time };
        if record.time.max(dead_by) >= before {
            return Ok(None);
        }
        if seq == 0 || (seq == 1 && matches!(record.event, Event::LogAdopted(_))) {
            lines.genesis += line.len() + 1;
        }
        let leaf = leaf_hash(line);
        lines.leaves.push(leaf);
        prev = Some(leaf);
    }
    Ok(Some(lines))
}

/// The first record of the next segment says what this one holds.
fn check_seal(disk: &dyn Disk, folder: &Path, next: u64, bytes: &[u8], last: Option<Hash>) -> Result<(), OpenError> {
    let path = folder.join(segment_name(next));
    let begin = disk.read(&path, 0, super::open::LONGEST_LINE).map_err(|source| OpenError::Io { path: path.clone(), source })?;
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let sealed = LogSegment { last: last.unwrap_or(Hash::EMPTY_ROOT), size: bytes.len() as u64, sha256: Hash::digest(bytes) };
    match Record::parse(line).map(|record| record.event) {
        Ok(Event::LogSegment(named)) if named == sealed => Ok(()),
        other => Err(OpenError::Tampered {
            file: path,
            line: 1,
            seq: next,
            expected: format!("{sealed:?}"),
            found: other.map_or_else(|error| error.to_string(), |event| format!("{event:?}")),
        }),
    }
}

/// Oldest first, so that a crash leaves a log without a gap.
fn delete(disk: &dyn Disk, folder: &Path, first: u64) -> io::Result<()> {
    let segments = segments_in(disk, folder).map_err(io::Error::other)?;
    for segment in segments.into_iter().filter(|segment| *segment < first) {
        disk.remove(&folder.join(segment_name(segment)))?;
    }
    disk.sync_folder(folder)
}

/// At a start: deletes what a crash left of a pruning that the key log records, and takes it out of `segments`. A log that begins in the
/// middle is accepted exactly where the key log says so.
pub(super) fn finish(disk: &dyn Disk, folder: &Path, pruned: Option<&UsesPruned>, segments: &mut Vec<u64>) -> Result<(), OpenError> {
    let begins = segments.first().copied().unwrap_or_default();
    let first = pruned.map_or(0, |pruned| pruned.first);
    let unsound = |reason: String| OpenError::Unsound { file: folder.to_owned(), reason };
    if begins > first {
        return Err(unsound(format!("records {first} to {} are missing, and the key log does not say that they were pruned", begins - 1)));
    }
    let Some(pruned) = pruned.filter(|pruned| begins < pruned.first) else { return Ok(()) };
    if !segments.contains(&first) {
        return Err(unsound(format!("the key log says that records are left from {first} on, but no segment begins there")));
    }
    if let Err(error) = is_kept(disk, folder, pruned) {
        // Nothing is lost while the segments are here, unless some of them are gone already.
        tracing::error!(folder = %folder.display(), %error, "what is kept of pruned records is not whole, so they were not deleted");
        return if begins == 0 { Ok(()) } else { Err(error) };
    }
    match delete(disk, folder, first) {
        Ok(()) => tracing::warn!(folder = %folder.display(), first, "a pruning that was cut off is finished"),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "pruned segments could not be deleted; the next start tries again");
        }
    }
    segments.retain(|segment| *segment >= first);
    Ok(())
}

/// Whether the hashes and the first record stand for what the key log says was pruned.
fn is_kept(disk: &dyn Disk, folder: &Path, pruned: &UsesPruned) -> Result<(), OpenError> {
    let unsound = |file: String, reason: String| OpenError::Unsound { file: folder.join(file), reason };
    let (frontier, first, _) = kept(disk, folder, pruned.first)?;
    if frontier.root() != pruned.root {
        let reason = format!("the hashes of the records before {} have the root {}, not {}", pruned.first, frontier.root(), pruned.root);
        return Err(unsound(hashes_name(0), reason));
    }
    let genesis = disk.read(&folder.join(GENESIS), 0, MOST_BYTES).map_err(|source| OpenError::Io { path: folder.join(GENESIS), source })?;
    let line = genesis.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first == Some(leaf_hash(line)) { Ok(()) } else { Err(unsound(GENESIS.to_owned(), "it is not the first record".to_owned())) }
}

/// Where a log begins whose oldest segments are gone, and the leaf hash of the last record before that; `None` if it begins at its beginning.
pub(super) fn base(disk: &dyn Disk, folder: &Path, segments: &[u64]) -> Result<Option<(Covered, Hash)>, OpenError> {
    let Some(first) = segments.first().copied().filter(|first| *first > 0) else { return Ok(None) };
    let (frontier, _, last) = kept(disk, folder, first)?;
    Ok(last.map(|last| (Covered { frontier, segment: first, offset: 0 }, last)))
}

/// The tree over the first `size` records by their hashes, and the first and the last of these.
fn kept(disk: &dyn Disk, folder: &Path, size: u64) -> Result<(Frontier, Option<Hash>, Option<Hash>), OpenError> {
    let (mut frontier, mut first, mut last) = (Frontier::new(), None, None);
    while frontier.size() < size {
        let path = folder.join(hashes_name(frontier.size()));
        let unsound = |reason: String| OpenError::Unsound { file: path.clone(), reason };
        let bytes = match disk.read(&path, 0, MOST_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(unsound("the hashes of pruned records are missing".to_owned()));
            }
            read => read.map_err(|source| OpenError::Io { path: path.clone(), source })?,
        };
        let (hashes, rest) = bytes.as_chunks::<HASH>();
        if hashes.is_empty() || !rest.is_empty() || frontier.size() + hashes.len() as u64 > size {
            return Err(unsound(format!("it has {} bytes, which are not the hashes of the records before {size}", bytes.len())));
        }
        for hash in hashes.iter().map(|hash| Hash::from_bytes(*hash)) {
            first.get_or_insert(hash);
            last = Some(hash);
            frontier.push(hash);
        }
    }
    Ok((frontier, first, last))
}

fn hashes_name(first: u64) -> String {
    format!("{first:020}.hashes")
}
