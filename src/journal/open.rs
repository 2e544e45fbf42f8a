//! Opens a log at every start.
//!
//! In scope: what a start refuses and why, and the repair of a tail that nobody was promised. Out of scope: reading
//! (`replay`), and what to serve when a log cannot be opened. No start ever makes a log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_audit::event::{Event, LogCreated, LogKind, LogRecovered, UsesPruned};
use claviger_audit::keyrings::{Illegal, Rule};
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::Hash;
use claviger_audit::record::{Asked, Record};
use sha2::{Digest as _, Sha256};

use super::Head;
use super::checkpoint::{CHECKPOINT, Coverage, Covered, FRONTIER, Stored, stored_frontier};
use super::committer::{Committer, MOST_QUEUED, Message, Stage};
use super::create::ballast;
use super::disk::{Disk, LocalDisk, append_all, create_temporary, replace};
use super::file::{BALLAST, LogFile, Place, SEGMENT_BYTES, Segment, segment_name};
use super::former;
use super::keys::{KEYS_HEARTBEAT, KeyLog, KeySnapshot, KeyStage};
use super::prune::{self, GENESIS};
use super::replay::{OnRecord, Replay, Start, Torn, replay};
use super::shared::Shared;
use super::tenure::{LogKey, Tenure, Tenures};
use super::uses::{USES_HEARTBEAT, UseLog, UseStage};
use crate::clock::Clock;

/// Most originals of repaired segments that are kept under one name; more crashes than this at one place need an operator.
const MOST_SUSPECTS: u32 = 100;
/// The longest first line: a record of 65,535 bytes and its LF.
pub(super) const LONGEST_LINE: usize = 65_536;

/// Where a log is and who opens it.
#[derive(Clone)]
pub struct Opening {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time of records and heartbeats.
    pub clock: Arc<dyn Clock>,
    /// The log's own folder.
    pub folder: PathBuf,
    /// The node's name, for every record.
    pub node: String,
    /// A random name of this process, for every record.
    pub boot: String,
    /// From how many bytes on a segment is sealed.
    pub segment_bytes: u64,
    /// After how long without a record the log says that it is alive.
    pub heartbeat: Duration,
}

impl Opening {
    /// A log of the machine's own disk, with the usual segments and heartbeats.
    pub fn local(kind: LogKind, folder: PathBuf, clock: Arc<dyn Clock>, node: String, boot: String) -> Self {
        let heartbeat = if kind == LogKind::Keys { KEYS_HEARTBEAT } else { USES_HEARTBEAT };
        Self { disk: Arc::new(LocalDisk), clock, folder, node, boot, segment_bytes: SEGMENT_BYTES, heartbeat }
    }
}

/// An open log. If the disk takes nothing, the log is open all the same, and poisoned: what it holds can still be served.
pub struct Opened<L> {
    /// The log.
    pub log: L,
    /// The first record: which log this is, and where its key lives.
    pub created: LogCreated,
    /// What was found.
    pub recovery: Recovery,
    /// What makes its checkpoints.
    pub coverage: Coverage,
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How many records the log held.
    pub size: u64,
    /// How many of them a checkpoint covers.
    pub covered: u64,
    /// A tail that nobody was promised, and that was dropped.
    pub dropped: Option<LogRecovered>,
}

/// Why a log is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no log. A start never makes one: an unmounted volume must not begin a second history.
    #[error("there is no log in {folder}; if this installation is new, run `claviger init`; if not, mount the volume that holds its state")]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Bytes that were promised are not there as they were written.
    #[error(
        "{file}, line {line}, record {seq}: expected {expected}, found {found}; \
         the log was changed after it was written, or the disk lost it: restore it from a copy, and run `claviger audit verify`"
    )]
    Tampered {
        /// The segment.
        file: PathBuf,
        /// The line in it, from 1.
        line: u64,
        /// The sequence number that was due.
        seq: u64,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
    },
    /// The log is shorter than what was signed or recorded elsewhere.
    #[error(
        "the log has {have} records, but {checkpoint} were known before: it was cut, or an old copy was restored; \
         bring the newer files back, or accept the loss with `claviger audit adopt --accept-loss`"
    )]
    RolledBack {
        /// How many records there are.
        have: u64,
        /// How many there were.
        checkpoint: u64,
    },
    /// The use log has seen more of the key log than there is.
    #[error(
        "the use log has seen {seen} records of the key log, which has {have}: the key log was cut, or an old copy was restored; \
         bring the newer files back, or accept the loss with `claviger audit adopt --accept-loss`"
    )]
    SeenMore {
        /// How many records the key log has.
        have: u64,
        /// How many were seen.
        seen: u64,
    },
    /// A witness cosigned more records than the newest checkpoint here covers.
    #[error(
        "the witness {witness} knows {known} records of the log, but its newest checkpoint here covers {have}: it was cut, or an old copy was \
         restored; bring the newer files back, or accept the loss with `claviger audit adopt --accept-loss`"
    )]
    BehindWitness {
        /// What the policy file calls it.
        witness: String,
        /// How many records it cosigned.
        known: u64,
        /// How many the newest checkpoint covers.
        have: u64,
    },
    /// A witness cosigned another history.
    #[error(
        "the witness {witness} cosigned another history of this log: {text}; an old copy was restored and went on, or the log key signs \
         elsewhere too: bring the true files back, or accept the loss with `claviger audit adopt --accept-loss`; if it is the witness that is \
         wrong, take it out of the policy file"
    )]
    Forked {
        /// What the policy file calls it.
        witness: String,
        /// What it said.
        text: String,
    },
    /// The chain is whole, but a record says what may not happen.
    #[error("{file}, record {seq}: {source}; the log was not written by this program: run `claviger audit verify`")]
    Illegal {
        /// The segment.
        file: PathBuf,
        /// The record.
        seq: u64,
        /// The rule.
        source: Illegal,
    },
    /// The first record or the checkpoint is not this log's.
    #[error("{file}: {reason}; restore it from a copy, and run `claviger audit verify`")]
    Unsound {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Records of two nodes in one use log would make it illegal for good, so nothing was written.
    #[error(
        "{folder} is the use log of node {log:?}, and the configuration says {configured:?}: `node` is fixed by `claviger init`; \
         correct the configuration, or mount the state folder that belongs to it"
    )]
    OtherNode {
        /// The log's folder.
        folder: PathBuf,
        /// Whose log it is.
        log: String,
        /// Who asked for it.
        configured: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyLog {
    /// Opens the key log: every record is read, checked and applied, those of former logs first.
    pub fn open(opening: &Opening) -> Result<Opened<Self>, OpenError> {
        let mut keyrings = former::carried(opening.disk.as_ref(), &opening.folder)?;
        // The key log is the state, and is never pruned.
        let found = find(opening, LogKind::Keys, &|_| None, &mut |record| keyrings.apply(record))?;
        let mut working = keyrings.clone();
        let resumed = found.resume(opening, &mut |record| working.apply(record));
        let head = resumed.as_ref().map_or_else(|_| found.head(), LogFile::head);
        let state = if resumed.is_ok() { working } else { keyrings };
        let snapshot = Arc::new(ArcSwap::from_pointee(KeySnapshot { keyrings: state.clone(), leaf: head.leaf }));
        let shared = Arc::new(Shared::new(Arc::clone(&found.place.origin), head, found.tenures.clone()));
        let (queue, jobs) = sync_channel(MOST_QUEUED);
        let stage = KeyStage::new(state, Arc::clone(&snapshot));
        begin(opening, LogKind::Keys, resumed, stage, jobs, &shared);
        let log = Self { shared: Arc::clone(&shared), snapshot, queue };
        Ok(found.opened(log, shared))
    }
}

impl UseLog {
    /// Opens the use log: what the newest checkpoint does not cover is read and checked. It must not be shorter than `keys` remembers.
    pub fn open(opening: &Opening, keys: KeyLog) -> Result<Opened<Self>, OpenError> {
        let snapshot = keys.snapshot();
        let remembered = snapshot.keyrings.uses_heads().get(&opening.node).map(|(_, head)| head.clone());
        let pruned = |origin: &str| snapshot.keyrings.last_pruning(origin).cloned();
        let found = find(opening, LogKind::Uses, &pruned, &mut |_| Ok(()))?;
        let have = found.replay.frontier.size();
        if let Some(head) = remembered.filter(|head| *head.origin == *found.place.origin && head.size > have) {
            return Err(OpenError::RolledBack { have, checkpoint: head.size });
        }
        // Of the use log only the end is read, and the end says what the whole has seen.
        let (have, seen) = (snapshot.keyrings.size(), former::keys_seen(&found.replay.active.1));
        if seen > have {
            return Err(OpenError::SeenMore { have, seen });
        }
        let resumed = found.resume(opening, &mut |_| Ok(()));
        let head = resumed.as_ref().map_or_else(|_| found.head(), LogFile::head);
        let shared = Arc::new(Shared::new(Arc::clone(&found.place.origin), head, found.tenures.clone()));
        let (queue, jobs) = sync_channel(MOST_QUEUED);
        begin(opening, LogKind::Uses, resumed, UseStage::new(keys, Arc::clone(&shared)), jobs, &shared);
        let log = Self { shared: Arc::clone(&shared), queue };
        Ok(found.opened(log, shared))
    }
}

/// Starts the committer, or poisons the log at once. The queue of a dead log has no reader, so every append learns the reason.
fn begin<S: Stage>(
    opening: &Opening,
    kind: LogKind,
    resumed: Result<LogFile, String>,
    stage: S,
    queue: Receiver<Message<S::Job>>,
    shared: &Arc<Shared>,
) {
    let started = resumed.and_then(|file| {
        let now = opening.clock.monotonic();
        let clock = Arc::clone(&opening.clock);
        let committer =
            Committer { stage, file, queue, shared: Arc::clone(shared), clock, heartbeat: opening.heartbeat, written: now, looked: now };
        committer.spawn(kind.name()).map_err(|error| format!("cannot start the thread that writes the log: {error}"))
    });
    if let Err(reason) = started {
        shared.poison(&reason);
        shared.end();
    }
}

/// A log that was read and found sound.
struct Found {
    created: LogCreated,
    place: Place,
    tenures: Tenures,
    replay: Replay,
    has_ballast: bool,
}

/// What the key log says was pruned of the log of this origin.
type Prunings<'a> = &'a dyn Fn(&str) -> Option<UsesPruned>;

fn find(opening: &Opening, kind: LogKind, prunings: Prunings<'_>, on_record: OnRecord<'_>) -> Result<Found, OpenError> {
    let Opening { disk, folder, .. } = opening;
    let disk = disk.as_ref();
    let missing = || OpenError::Missing { folder: folder.clone() };
    let names = match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        listed => listed.map_err(|source| OpenError::Io { path: folder.clone(), source })?,
    };
    let mut segments = segments(&names);
    if segments.is_empty() {
        return Err(missing());
    }
    let (node, created, first) = genesis(disk, folder, &segments)?;
    if kind == LogKind::Uses && node != opening.node {
        return Err(OpenError::OtherNode { folder: folder.clone(), log: node, configured: opening.node.clone() });
    }
    prune::finish(disk, folder, prunings(&created.origin).as_ref(), &mut segments)?;
    let unsound = |reason| OpenError::Unsound { file: folder.join(CHECKPOINT), reason };
    let stored = Stored::read(disk, folder).map_err(unsound)?;
    let checkpoint = stored.as_ref().map(|stored| (stored.size, stored.root));
    let (covered, signer) = match &stored {
        Some(stored) => beside(disk, folder, stored, &first)?,
        None => (None, first.clone()),
    };
    // The key log is the state and is always read whole. Of the use log only what no checkpoint covers.
    let (covered, tenure) = if kind == LogKind::Keys { (None, first) } else { (covered, signer.clone()) };
    let base = if covered.is_none() { prune::base(disk, folder, &segments)? } else { None };
    let start = Start { covered, base, checkpoint, genesis: genesis_prev(&created.origin, &created.key) };
    let mut tenures = Tenures::begin(tenure);
    let mut followed = |record: &Record| {
        if let Event::LogKeyRotated(event) = &record.event {
            tenures.turn(record.seq, event).map_err(|text| form("log.key_rotated", text))?;
        }
        on_record(record)
    };
    let replayed = replay(disk, folder, kind, &segments, &start, &mut followed);
    // Only now is it known which key was in force there. What a stranger's checkpoint says of the log's size means nothing; but a log that was
    // cut may have lost the record that brought its key, and then the key beside it is the only one to ask.
    match (&stored, &replayed) {
        (Some(stored), Ok(_)) => stored.verify(tenures.at(stored.size)).map_err(unsound)?,
        (Some(stored), Err(OpenError::RolledBack { .. })) => {
            stored.verify(tenures.at(stored.size)).or_else(|_| stored.verify(&signer)).map_err(unsound)?;
        }
        _ => {}
    }
    let has_ballast = names.iter().any(|name| name == BALLAST);
    let place = place_of(opening, kind, &created.origin);
    Ok(Found { created, place, tenures, replay: replayed?, has_ballast })
}

/// Where reading may begin, and with which key, as the `frontier` file says. It counts only where that key signed the checkpoint; without
/// it the log is read from its first record and with its first key, which tells the same.
fn beside(disk: &dyn Disk, folder: &Path, stored: &Stored, first: &Tenure) -> Result<(Option<Covered>, Tenure), OpenError> {
    let found = stored_frontier(disk, folder, (stored.size, stored.root));
    let found = found.map_err(|source| OpenError::Io { path: folder.join(FRONTIER), source })?;
    let found = found.map(|(covered, tenure)| (Some(covered), tenure.unwrap_or_else(|| first.clone())));
    Ok(found.filter(|(_, tenure)| stored.verify(tenure).is_ok()).unwrap_or_else(|| (None, first.clone())))
}

pub(super) fn form(event: &'static str, text: String) -> Illegal {
    Illegal { rule: Rule::Form, event, text, until: None }
}

/// The first record says which log this is, and by which key its first checkpoints are known.
/// It has a file of its own where its segment was pruned.
pub(super) fn genesis(disk: &dyn Disk, folder: &Path, segments: &[u64]) -> Result<(String, LogCreated, Tenure), OpenError> {
    let path = &folder.join(if segments.first() == Some(&0) { segment_name(0) } else { GENESIS.to_owned() });
    let unsound = |reason: String| OpenError::Unsound { file: path.to_owned(), reason };
    let bytes = match disk.read(path, 0, LONGEST_LINE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unsound("it holds the first record, and is missing".to_owned()));
        }
        read => read.map_err(|source| OpenError::Io { path: path.to_owned(), source })?,
    };
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let record = Record::parse(line).map_err(|error| unsound(format!("the first line is no record: {error}")))?;
    let Event::LogCreated(created) = record.event else {
        return Err(unsound(format!("the first record is {}, not log.created", record.event.name())));
    };
    let holder = LogKey::of(&created).map_err(unsound)?;
    Ok((record.node, created, Tenure { since: 0, holder }))
}

impl Found {
    fn head(&self) -> Head {
        let Replay { frontier, last, time, .. } = &self.replay;
        Head { size: frontier.size(), root: frontier.root(), leaf: *last, time: *time }
    }

    fn opened<L>(self, log: L, shared: Arc<Shared>) -> Opened<L> {
        let Self { created, place, replay, .. } = self;
        let dropped = replay.torn.as_ref().map(Torn::record);
        let recovery = Recovery { size: replay.frontier.size(), covered: replay.covered.frontier.size(), dropped };
        Opened { log, created, recovery, coverage: Coverage { place, shared, covered: replay.covered } }
    }

    /// Opens the tail for writing, after making durable what may be only in memory. The error is why the disk takes nothing.
    fn resume(&self, opening: &Opening, check: OnRecord<'_>) -> Result<LogFile, String> {
        let replay = &self.replay;
        let disk = self.place.disk.as_ref();
        if !self.has_ballast
            && let Err(error) = replace(disk, &self.place.folder, BALLAST, &ballast())
        {
            tracing::warn!(%error, "no room is held back for the record that says the disk is full");
        }
        let (first, bytes) = &replay.active;
        let path = self.place.folder.join(segment_name(*first));
        let text = |error: io::Error| format!("cannot go on with {}: {error}", path.display());
        let recovered = replay.torn.as_ref().map(|torn| Event::LogRecovered(torn.record()));
        let lost_segment = replay.torn.as_ref().filter(|torn| torn.segment != *first);
        if let Some(torn) = lost_segment {
            // The first batch of the last segment never arrived: the segment before it is still the last.
            self.set_aside(torn.segment).map_err(text)?;
        }
        let is_covered = replay.covered.frontier.size() == replay.frontier.size();
        if lost_segment.is_some() || (replay.torn.is_none() && is_covered) {
            let mut file = self.file(path.clone(), disk.open(&path).map_err(text)?, bytes);
            add(&mut file, opening, recovered, check)?;
            return Ok(file);
        }
        // After an unclean stop a sync may have failed that nobody heard of, and the page cache may show what the disk does not hold. So
        // the good bytes go into a new file; the old one is never appended to.
        let temporary = self.place.folder.join("recovered.tmp");
        let mut tail = create_temporary(disk, &temporary).map_err(text)?;
        append_all(tail.as_mut(), bytes).and_then(|()| tail.sync()).map_err(text)?;
        let mut file = self.file(temporary.clone(), tail, bytes);
        add(&mut file, opening, recovered, check)?;
        if replay.torn.is_some() {
            self.keep(&path).map_err(text)?;
        }
        disk.rename(&temporary, &path).and_then(|()| disk.sync_folder(&self.place.folder)).map_err(text)?;
        file.segment.path = path;
        Ok(file)
    }

    fn file(&self, path: PathBuf, tail: Box<dyn super::disk::Tail>, bytes: &[u8]) -> LogFile {
        let segment = Segment { path, tail, bytes: bytes.len() as u64, sha256: Sha256::new_with_prefix(bytes) };
        let Replay { frontier, last, time, .. } = &self.replay;
        let tenures = Arc::new(self.tenures.clone());
        LogFile { place: self.place.clone(), segment, frontier: frontier.clone(), last: *last, time: *time, tenures }
    }

    /// Gives the original a second name, so that replacing it loses nothing.
    fn keep(&self, path: &Path) -> io::Result<()> {
        for number in 1..=MOST_SUSPECTS {
            let suffix = if number == 1 { "suspect".to_owned() } else { format!("suspect-{number}") };
            match self.place.disk.link(path, &path.with_extension(format!("jsonl.{suffix}"))) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked,
            }
        }
        Err(io::Error::other(format!("{MOST_SUSPECTS} originals of {} are kept already; move them elsewhere", path.display())))
    }

    /// Takes a segment out of the log that never held a whole record.
    fn set_aside(&self, first: u64) -> io::Result<()> {
        let path = self.place.folder.join(segment_name(first));
        self.keep(&path)?;
        self.place.disk.remove(&path)?;
        self.place.disk.sync_folder(&self.place.folder)
    }
}

impl Torn {
    fn record(&self) -> LogRecovered {
        LogRecovered { bytes: self.bytes.len() as u64, sha256: Hash::digest(&self.bytes) }
    }
}

fn add(file: &mut LogFile, opening: &Opening, event: Option<Event>, check: OnRecord<'_>) -> Result<(), String> {
    let Some(event) = event else { return Ok(()) };
    let mut batch = file.batch(opening.clock.wall());
    batch.push(Asked::default(), event, check).map_err(|illegal| illegal.to_string())?;
    file.commit(&batch).map(drop)
}

pub(super) fn place_of(opening: &Opening, kind: LogKind, origin: &str) -> Place {
    let Opening { disk, folder, node, boot, segment_bytes, .. } = opening.clone();
    Place { disk, folder, kind, origin: Arc::from(origin), node, boot, segment_bytes }
}

/// First sequence numbers of the segments, in order.
pub(super) fn segments(names: &[String]) -> Vec<u64> {
    let numbers = names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok());
    let mut numbers: Vec<u64> = numbers.filter(|first| names.contains(&segment_name(*first))).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
