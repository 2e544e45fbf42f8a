//! Checkpoints: what the disk holds, read a second time, folded, compared with what the writer meant, and signed.
//!
//! In scope: when a checkpoint is cut, the second pass, and the files `frontier`, `checkpoint`, one checkpoint per sealed segment and one per
//! rotation of the log's key. Out of scope: which keys sign (`tenure`), how (a [`SignNote`] asks the keystore), and witnesses, whose word is
//! only kept (`witnessed`). A checkpoint that cannot be signed by all its keys delays nothing; it is counted and logged. One that differs is
//! never signed: the log is dead.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger_audit::checkpoint::{self, Checkpoint};
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::note::{MAX_NOTE, Note, signed_note};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::Head;
use super::disk::{Disk, replace};
use super::file::Place;
use super::lines::{CHUNK, Passed, Spot, Unread, pass};
use super::shared::{Shared, Waiter};
use super::standing::Doubt;
use super::tenure::{LogKey, Tenure};

/// A checkpoint is cut this long after the one before, if records came.
const EVERY: Duration = Duration::from_secs(1);
/// How long a keystore may take for one signature before the checkpoint is given up.
const SIGN_DEADLINE: Duration = Duration::from_secs(30);
/// Most sealed segments that wait for their checkpoint while the keystore is dead; the oldest go without one of their own.
const MOST_UNSIGNED: usize = 1024;
/// First line of the `frontier` file.
pub(super) const FRONTIER_FORM: &str = "claviger frontier v1";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const FRONTIER: &str = "frontier";

/// A future that somebody else made.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Signs the text of a note with the log's key: the raw 64 bytes, of Ed25519 (RFC 8032) over the text, or of ECDSA P-256 (`r || s`) over its
/// SHA-256. The error says what the keystore said.
pub type SignNote = Arc<dyn Fn(Vec<u8>) -> BoxFuture<Result<Vec<u8>, String>> + Send + Sync>;

/// What signs with a key of the log.
pub type Signers = Arc<dyn Fn(&LogKey) -> SignNote + Send + Sync>;

/// Why there is no new checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The keystore did not sign, or not validly. It is tried again every second.
    #[error("the checkpoint was not signed: {0}; it is tried again every second")]
    Unsigned(String),
    /// A file could not be read or written. It is tried again every second.
    #[error("the checkpoint could not be made or stored: {0}; it is tried again every second")]
    Disk(String),
    /// The log is dead.
    #[error("the log takes no more records until a restart: {0}")]
    Dead(String),
    /// The checkpointer has ended with its log, or too many wait for it.
    #[error("no checkpoint is made any more: the log was stopped, or too many wait for one")]
    Unavailable,
}

/// A prefix of the log: its frontier, and where in the files it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    pub(super) frontier: Frontier,
    /// First sequence number of the segment that holds the last covered record.
    pub(super) segment: u64,
    /// Where in that segment the next line begins.
    pub(super) offset: u64,
}

impl Covered {
    pub(super) fn line(&self) -> String {
        let hashes = self.frontier.edge().iter().map(|hash| format!(" {hash}"));
        format!("{} {} {}{}\n", self.frontier.size(), self.segment, self.offset, hashes.collect::<String>())
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (size, segment, offset) = (number()?, number()?, number()?);
        let edge: Vec<Hash> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some(Self { frontier: Frontier::from_parts(size, edge).ok()?, segment, offset })
    }
}

/// The stored frontier that belongs to the checkpoint, and the key that was in force there, if it is not the log's first. The file holds
/// the frontier before as well, for the crash between two renames; one that fits neither is as good as none, because the log itself can
/// always be folded again.
pub(super) fn stored_frontier(disk: &dyn Disk, folder: &Path, checkpoint: (u64, Hash)) -> io::Result<Option<(Covered, Option<Tenure>)>> {
    let bytes = match disk.read(&folder.join(FRONTIER), 0, CHUNK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix(FRONTIER_FORM).unwrap_or_default();
    let mut entries = text.lines().filter_map(Covered::parse);
    let fits = |entry: &Covered| (entry.frontier.size(), entry.frontier.root()) == checkpoint && entry.offset > 0;
    let tenure = text.lines().filter_map(Tenure::parse).filter(|tenure| tenure.since <= checkpoint.0).max_by_key(|tenure| tenure.since);
    Ok(entries.find(fits).map(|covered| (covered, tenure)))
}

/// A checkpoint that the log key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// How many records it covers.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The whole note.
    pub note: String,
}

/// The newest checkpoint as it lies on the disk. It says nothing before [`Stored::verify`], for which keys may sign is in the log itself.
pub(super) struct Stored {
    note: Note,
    pub(super) size: u64,
    pub(super) root: Hash,
}

impl Stored {
    /// Reads it; `None` if there is no checkpoint yet.
    pub(super) fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>, String> {
        let bytes = match disk.read(&folder.join(CHECKPOINT), 0, MAX_NOTE + 1) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| error.to_string())?,
        };
        let note = Note::parse(&bytes).map_err(|error| error.to_string())?;
        let Checkpoint { size, root, .. } = note.text().parse().map_err(|error: checkpoint::CheckpointError| error.to_string())?;
        Ok(Some(Self { note, size, root }))
    }

    /// The same, once it is known to be good.
    fn signed(self) -> Signed {
        Signed { size: self.size, root: self.root, note: self.note.to_string() }
    }

    /// Whether the key that was in force at its size signed it.
    pub(super) fn verify(&self, tenure: &Tenure) -> Result<(), String> {
        let key = &tenure.holder.key;
        Checkpoint::from_note(&self.note, key.name(), std::slice::from_ref(key)).map(drop).map_err(|error| error.to_string())
    }
}

/// Everything that is needed to begin making checkpoints of an open log.
pub struct Coverage {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    pub(super) covered: Covered,
}

impl Coverage {
    /// Starts the thread that makes the checkpoints; `runtime` runs what `signers` return. It ends with the log.
    pub fn start(self, signers: Signers, runtime: Handle) -> io::Result<Checkpointer> {
        let Self { place, shared, covered } = self;
        // What opened the log has read it and found it sound.
        let newest = Stored::read(place.disk.as_ref(), &place.folder).ok().flatten().map(|stored| Arc::new(stored.signed()));
        let counts =
            Counts { signed: AtomicU64::new(covered.frontier.size()), failures: AtomicU64::new(0), newest: watch::Sender::new(newest) };
        let counts = Arc::new(counts);
        let handle = Checkpointer { place: place.clone(), shared: Arc::clone(&shared), counts: Arc::clone(&counts) };
        let name = format!("checkpoint-{}", place.kind.name());
        let pass = Pass {
            place,
            shared,
            signed: covered.clone(),
            folded: covered,
            sealed: VecDeque::new(),
            signers,
            runtime,
            counts,
            failing: false,
        };
        std::thread::Builder::new().name(name).spawn(move || pass.run())?;
        Ok(handle)
    }
}

struct Counts {
    signed: AtomicU64,
    failures: AtomicU64,
    newest: watch::Sender<Option<Arc<Signed>>>,
}

/// A handle to the thread that makes the checkpoints of one log.
#[derive(Clone)]
pub struct Checkpointer {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    counts: Arc<Counts>,
}

impl Checkpointer {
    /// Makes a checkpoint of what is durable now, unless there is one, and says how many records it covers.
    pub async fn checkpoint_now(&self) -> Result<u64, CheckpointError> {
        let size = self.shared.head().size;
        let (waiter, answer) = oneshot::channel();
        if self.shared.bell.ask(waiter) {
            return answer.await.unwrap_or(Err(CheckpointError::Unavailable));
        }
        if self.covered() >= size { Ok(self.covered()) } else { Err(CheckpointError::Unavailable) }
    }

    /// How many records the newest checkpoint covers.
    pub fn covered(&self) -> u64 {
        self.counts.signed.load(Ordering::Acquire)
    }

    /// The key that the log's records have brought into force last. It signs alone once [`Self::covered`] has reached its `since`; until then
    /// the key before it must sign as well.
    pub fn tenure(&self) -> Tenure {
        self.shared.tenures().newest().clone()
    }

    /// The newest checkpoint. It is on the disk before it is here.
    pub fn newest(&self) -> watch::Receiver<Option<Arc<Signed>>> {
        self.counts.newest.subscribe()
    }

    /// How often a checkpoint could not be made.
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }
}

/// The thread's state.
struct Pass {
    place: Place,
    shared: Arc<Shared>,
    /// What the newest signed checkpoint covers.
    signed: Covered,
    /// What was read back and found equal to what the writer meant.
    folded: Covered,
    /// Sealed segments that have no checkpoint of their own yet: first sequence number and frontier at their end.
    sealed: VecDeque<(u64, Frontier)>,
    signers: Signers,
    runtime: Handle,
    counts: Arc<Counts>,
    failing: bool,
}

impl Pass {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let wishes = shared.bell.wait(EVERY);
            let waiters = shared.bell.waiters();
            let made = self.make();
            self.report(&made);
            let ends = wishes.stop || matches!(made, Err(CheckpointError::Dead(_)));
            let late = if ends { shared.bell.close() } else { Vec::new() };
            answer(waiters.into_iter().chain(late), &made);
            if ends {
                return;
            }
        }
    }

    fn report(&mut self, made: &Result<u64, CheckpointError>) {
        let log = &self.shared.origin;
        match made {
            Ok(size) if self.failing => tracing::info!(%log, size, "checkpoints are signed again"),
            Ok(_) => {}
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                // Once per outage, not once a second; the count goes on.
                if !self.failing {
                    tracing::warn!(%log, %error, "no checkpoint; records go on, uncovered");
                }
            }
        }
        self.failing = made.is_err();
    }

    /// One checkpoint of what is durable now, if there is anything new.
    fn make(&mut self) -> Result<u64, CheckpointError> {
        if let Some(reason) = self.shared.poisoned() {
            return Err(CheckpointError::Dead(reason.to_string()));
        }
        match self.shared.standing.doubt() {
            // Nothing is signed that would contradict what others may know; soon it is known whether they do.
            Some(Doubt::Asking) => return Ok(self.signed.frontier.size()),
            Some(Doubt::Refuted(why)) => return Err(CheckpointError::Unsigned(why.to_string())),
            None => {}
        }
        let head = self.shared.head();
        self.fold(head)?;
        while let Some((first, frontier)) = self.sealed.front() {
            let note = self.signed_checkpoint(frontier)?;
            self.store(&checkpoint_name(*first), note.as_bytes())?;
            self.sealed.pop_front();
        }
        if self.signed.frontier.size() < self.folded.frontier.size() {
            let note = self.signed_checkpoint(&self.folded.frontier)?;
            let tenures = self.shared.tenures();
            let signers: Vec<&Tenure> = tenures.signers(self.signed.frontier.size(), self.folded.frontier.size()).collect();
            // What both keys signed is kept: it is the old key's word for the new one, and the next checkpoint has the new one's word alone.
            for turned in signers.iter().skip(1) {
                self.store(&checkpoint_name(turned.since - 1), note.as_bytes())?;
            }
            let keys: String = signers.iter().filter(|tenure| tenure.since > 0).map(|tenure| tenure.line()).collect();
            // The frontier first: a checkpoint must never be newer than what it can be extended from.
            let frontiers = format!("{FRONTIER_FORM}\n{}{}{keys}", self.signed.line(), self.folded.line());
            self.store(FRONTIER, frontiers.as_bytes())?;
            self.store(CHECKPOINT, note.as_bytes())?;
            self.signed = self.folded.clone();
            self.counts.signed.store(self.signed.frontier.size(), Ordering::Release);
            // The commit point: it is durable, and from here on it may be shown to others.
            let Covered { frontier, .. } = &self.signed;
            self.counts.newest.send_replace(Some(Arc::new(Signed { size: frontier.size(), root: frontier.root(), note })));
        }
        Ok(self.signed.frontier.size())
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let place = &self.place;
        replace(place.disk.as_ref(), &place.folder, name, bytes).map_err(|error| CheckpointError::Disk(format!("{name}: {error}")))
    }

    /// The second pass: what the disk holds must be what the writer hashed.
    fn fold(&mut self, head: Head) -> Result<(), CheckpointError> {
        let mut next = self.folded.clone();
        let mut sealed = Vec::new();
        let read = read_to(&self.place, &mut next, head.size, &mut sealed);
        let agreed = read.and_then(|()| {
            let root = next.frontier.root();
            let differs =
                || Unread::Differs(format!("the disk holds the root {root} at size {}, the writer meant {}", head.size, head.root));
            if root == head.root { Ok(()) } else { Err(differs()) }
        });
        match agreed {
            Ok(()) => {
                self.folded = next;
                self.sealed.extend(sealed);
                let surplus = self.sealed.len().saturating_sub(MOST_UNSIGNED);
                self.sealed.drain(..surplus);
                Ok(())
            }
            Err(Unread::Read(error)) => Err(CheckpointError::Disk(error.to_string())),
            Err(Unread::Differs(reason)) => {
                self.shared.poison(&reason);
                Err(CheckpointError::Dead(reason))
            }
        }
    }

    /// The checkpoint with the signature of every key that it needs, or none at all: without the old key's word nobody has to believe a new one.
    fn signed_checkpoint(&self, frontier: &Frontier) -> Result<String, CheckpointError> {
        let text = Checkpoint::new(&self.shared.origin, frontier.size(), frontier.root()).to_string();
        let tenures = self.shared.tenures();
        let mut signatures = Vec::new();
        for Tenure { holder, .. } in tenures.signers(self.signed.frontier.size(), frontier.size()) {
            signatures.push((&holder.key, self.signature(holder, &text)?));
        }
        let note = signed_note(&text, &signatures).map_err(|error| CheckpointError::Unsigned(error.to_string()))?;
        Ok(note.to_string())
    }

    fn signature(&self, key: &LogKey, text: &str) -> Result<[u8; 64], CheckpointError> {
        let signature = (self.signers)(key)(text.as_bytes().to_vec());
        let answered = self.runtime.block_on(async { tokio::time::timeout(SIGN_DEADLINE, signature).await });
        let late = |_| CheckpointError::Unsigned(format!("the keystore did not answer within {} s", SIGN_DEADLINE.as_secs()));
        let raw = answered.map_err(late)?.map_err(CheckpointError::Unsigned)?;
        let wrong = |raw: Vec<u8>| CheckpointError::Unsigned(format!("the keystore gave {} bytes, not the 64 of a signature", raw.len()));
        raw.try_into().map_err(wrong)
    }
}

/// Of the segment that begins with this record, or of the rotation that it is.
fn checkpoint_name(seq: u64) -> String {
    format!("{seq:020}.checkpoint")
}

fn answer(waiters: impl Iterator<Item = Waiter>, made: &Result<u64, CheckpointError>) {
    for waiter in waiters {
        // Who stopped waiting needs no answer.
        let _ = waiter.send(made.clone());
    }
}

/// Folds the lines from `at` on until it has `size` leaves. Every segment that ends on the way is added to `sealed`.
fn read_to(place: &Place, at: &mut Covered, size: u64, sealed: &mut Vec<(u64, Frontier)>) -> Result<(), Unread> {
    let Covered { frontier, segment, offset } = at;
    let (mut spot, mut seq) = (Spot { segment: *segment, offset: *offset }, frontier.size());
    pass((place.disk.as_ref(), &place.folder), &mut spot, &mut seq, size, &mut |passed| match passed {
        Passed::Line { line, .. } => frontier.push(leaf_hash(line)),
        Passed::End { segment } => sealed.push((segment, frontier.clone())),
    })?;
    (*segment, *offset) = (spot.segment, spot.offset);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::LocalDisk;

    fn covered(size: u64) -> Covered {
        let mut frontier = Frontier::new();
        frontier.extend((0..size).map(|leaf| Hash::digest(&leaf.to_be_bytes())));
        Covered { frontier, segment: 3, offset: 100 * size }
    }

    #[test]
    fn the_frontier_of_either_checkpoint_is_found_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let find = |checkpoint| stored_frontier(&LocalDisk, folder.path(), checkpoint).unwrap().map(|(covered, _)| covered);
        let named = |covered: &Covered| (covered.frontier.size(), covered.frontier.root());
        let (before, now, other) = (covered(5), covered(7), covered(6));
        assert_eq!(find(named(&now)), None);
        let text = format!("{FRONTIER_FORM}\n{}{}", before.line(), now.line());
        replace(&LocalDisk, folder.path(), FRONTIER, text.as_bytes()).unwrap();
        assert_eq!(find(named(&now)), Some(now.clone()));
        // A crash between the two renames leaves the checkpoint that came before.
        assert_eq!(find(named(&before)), Some(before.clone()));
        assert_eq!(find(named(&other)), None);
        assert_eq!(find((7, before.frontier.root())), None);
        // What was damaged is as good as none.
        replace(&LocalDisk, folder.path(), FRONTIER, &text.as_bytes()[..text.len() - 40]).unwrap();
        assert_eq!(find(named(&now)), None);
    }
}
