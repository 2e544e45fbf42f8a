//! Accepting that a log lost its tail: a new log goes on from what is left, which is kept beside it.
//!
//! In scope: what is there and what is known to be lost, the durable intent, the new logs under temporary names, and the renames that put
//! them in place. Out of scope: log keys (the shell makes them between intent and build), and whether to accept the loss (an operator does).
//!
//! The commit point is the intent. From then on nothing but the adoption itself opens these logs, and running it again finishes it from
//! wherever a crash left it: a new log is built before any old one is moved, and each log that carries its new origin is done.

use std::io;
use std::path::{Path, PathBuf};

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogAdopted, LogCreated, LogKind};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::Hash;
use claviger_audit::names::{KeyName, adopted_origin};
use claviger_audit::note::MAX_NOTE;
use claviger_audit::record::{Asked, Record};
use serde::{Deserialize, Serialize};

use super::checkpoint::Stored;
use super::create::{CreateError, create_with};
use super::disk::{Disk, replace};
use super::former::{self, folder, numbers, seen_by, segments_in};
use super::open::{OpenError, Opening, form, genesis};
use super::prune;
use super::replay::{OnRecord, Start, replay};
use super::tenure::Tenures;

/// What an adoption is about to do, until it is done.
const INTENT: &str = "adopt-intent.json";
/// Ends the name of a folder that is to become a log.
const NEW: &str = ".new";

/// A log as it is found, and how long it is known to have been.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which log.
    pub kind: LogKind,
    /// Its first record.
    pub created: LogCreated,
    /// How many whole records it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The time of the last one.
    pub time: Timestamp,
    /// What knows of more records: what it is, and how many it names. The largest comes last.
    pub known: Vec<(String, u64)>,
}

impl Standing {
    /// How many records are known to be lost.
    pub fn lost(&self) -> u64 {
        self.known.last().map_or(0, |(_, known)| known.saturating_sub(self.size))
    }

    fn learn(&mut self, by: impl Into<String>, size: u64) {
        if size > self.size {
            self.known.push((by.into(), size));
            self.known.sort_by_key(|(_, size)| *size);
        }
    }
}

/// Both logs as they are found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The key log.
    pub keys: Standing,
    /// The use log of this node.
    pub uses: Standing,
    /// The state that the key log's records make.
    pub keyrings: Keyrings,
}

impl Survey {
    /// The logs that are to be adopted: those that are short, and both if the key log is.
    pub fn short(&self) -> Vec<&Standing> {
        match (self.keys.lost(), self.uses.lost()) {
            (0, 0) => Vec::new(),
            (0, _) => vec![&self.uses],
            _ => vec![&self.keys, &self.uses],
        }
    }
}

/// Reads both logs without changing anything. `told` is what somebody knows from outside: origin and size.
pub fn survey(keys: &Opening, uses: &Opening, told: &[(String, u64)]) -> Result<Survey, OpenError> {
    let disk = keys.disk.as_ref();
    let mut keyrings = former::carried(disk, &keys.folder)?;
    let mut key_log = read(keys, LogKind::Keys, &mut |record| keyrings.apply(record))?;
    let mut seen = 0;
    let mut use_log = read(uses, LogKind::Uses, &mut |record| {
        seen = seen_by(&record.event).unwrap_or(0).max(seen);
        Ok(())
    })?;
    key_log.learn("the use log, which has seen them", seen);
    let named = keyrings.uses_heads().get(&uses.node).filter(|(_, head)| head.origin == use_log.created.origin);
    if let Some((_, head)) = named {
        use_log.learn("the key log, which names its size", head.size);
    }
    for log in [&mut key_log, &mut use_log] {
        let told = told.iter().filter(|(origin, _)| *origin == log.created.origin).map(|(_, size)| *size).max();
        log.learn("--known-size", told.unwrap_or(0));
    }
    Ok(Survey { keys: key_log, uses: use_log, keyrings })
}

fn read(opening: &Opening, kind: LogKind, on_record: OnRecord<'_>) -> Result<Standing, OpenError> {
    let Opening { disk, folder, node, .. } = opening;
    let disk = disk.as_ref();
    let segments = segments_in(disk, folder)?;
    if segments.is_empty() {
        return Err(OpenError::Missing { folder: folder.clone() });
    }
    let (log, created, first) = genesis(disk, folder, &segments)?;
    if kind == LogKind::Uses && log != *node {
        return Err(OpenError::OtherNode { folder: folder.clone(), log, configured: node.clone() });
    }
    let unsound = |reason| OpenError::Unsound { file: folder.join("checkpoint"), reason };
    let stored = Stored::read(disk, folder).map_err(unsound)?;
    let mut tenures = Tenures::begin(first);
    // The record of a pruning may be among what the key log lost, so the hashes that are kept are taken as they are.
    let base = prune::base(disk, folder, &segments)?;
    let start = Start { covered: None, base, checkpoint: None, genesis: genesis_prev(&created.origin, &created.key) };
    let mut followed = |record: &Record| {
        if let Event::LogKeyRotated(event) = &record.event {
            tenures.turn(record.seq, event).map_err(|text| form("log.key_rotated", text))?;
        }
        on_record(record)
    };
    let found = replay(disk, folder, kind, &segments, &start, &mut followed)?;
    let size = found.frontier.size();
    let mut standing = Standing { kind, created, size, root: found.frontier.root(), time: found.time, known: Vec::new() };
    let Some(stored) = stored else { return Ok(standing) };
    let signed = stored.verify(tenures.at(stored.size));
    if stored.size <= size {
        // What was signed for and is still there must be what was signed for: a changed log is not a short one.
        signed.map_err(unsound)?;
        let checkpoint = Some((stored.size, stored.root));
        replay(disk, folder, kind, &segments, &Start { checkpoint, ..start }, &mut |_| Ok(()))?;
        return Ok(standing);
    }
    // Its key may have come into force with a record that is lost.
    let by = if signed.is_ok() { "the newest checkpoint" } else { "the newest checkpoint, whose signature no key that is left made" };
    standing.learn(by, stored.size);
    Ok(standing)
}

/// Written durably before anything is made, so that every later run does the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The number of the adoption: the name of the folder of what it sets aside.
    pub number: u32,
    /// The logs, the key log first.
    pub logs: Vec<Successor>,
}

/// The log that is to go on from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Successor {
    /// Which log.
    pub kind: LogKind,
    /// Its origin.
    pub origin: String,
    /// The name of its log key.
    pub key: KeyName,
    /// Its second record.
    pub adopted: LogAdopted,
    /// The time of the last record before it.
    pub after: Timestamp,
}

impl Intent {
    /// What is to be done about these logs; `keys` are the names of their log keys.
    pub fn new(disk: &dyn Disk, logs: &Path, short: &[&Standing], keys: Vec<KeyName>, reason: Option<&str>) -> Result<Self, AdoptError> {
        let last = numbers(disk, logs).map_err(|source| AdoptError::Io { path: logs.to_owned(), source })?.last().copied();
        let successors = short.iter().zip(keys).map(|(log, key)| Successor {
            kind: log.kind,
            origin: adopted_origin(&log.created.origin),
            key,
            adopted: LogAdopted {
                origin: log.created.origin.clone(),
                size: log.size,
                root: log.root,
                lost: log.lost(),
                reason: reason.map(str::to_owned),
            },
            after: log.time,
        });
        Ok(Self { number: last.unwrap_or(0) + 1, logs: successors.collect() })
    }

    /// What an earlier run intended, if it was cut off.
    pub fn earlier(disk: &dyn Disk, logs: &Path) -> Result<Option<Self>, AdoptError> {
        let path = logs.join(INTENT);
        let bytes = match disk.read(&path, 0, MAX_NOTE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| AdoptError::Io { path: path.clone(), source })?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| AdoptError::BadIntent(path))
    }

    /// Commit point: from here on the adoption is finished, however often it is cut off.
    pub fn write(&self, disk: &dyn Disk, logs: &Path) -> Result<(), AdoptError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        replace(disk, logs, INTENT, &bytes).map_err(|source| AdoptError::Io { path: logs.join(INTENT), source })
    }

    /// Everything is done.
    pub fn forget(disk: &dyn Disk, logs: &Path) -> Result<(), AdoptError> {
        let path = logs.join(INTENT);
        disk.remove(&path).and_then(|()| disk.sync_folder(logs)).map_err(|source| AdoptError::Io { path, source })
    }
}

/// Whether an adoption was begun in this folder of logs and not finished: then nothing else may open them.
pub fn is_under_way(disk: &dyn Disk, logs: &Path) -> io::Result<bool> {
    match disk.list(logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        listed => Ok(listed?.iter().any(|name| name == INTENT)),
    }
}

/// Builds the new log beside the old one, under a name that is no log's, unless an earlier run has. `opening` is that of the old log.
pub fn build(opening: &Opening, successor: &Successor, asked: Asked, first: LogCreated) -> Result<(), AdoptError> {
    let disk = opening.disk.as_ref();
    if is_in_place(disk, &opening.folder, successor)? {
        return Ok(());
    }
    let mut state = match successor.kind {
        LogKind::Keys => {
            let mut state = former::carried(disk, &opening.folder)?;
            // Where the old log was moved away already, the new one was built before that, and this state judges nothing.
            if !segments_in(disk, &opening.folder)?.is_empty() {
                read(opening, LogKind::Keys, &mut |record| state.apply(record))?;
                state = state.carried_over(successor.adopted.root);
            }
            Some(state)
        }
        LogKind::Uses => None,
    };
    let new = Opening { folder: new_name(&opening.folder), ..opening.clone() };
    let records = (asked, first, Some(successor.adopted.clone()));
    let made = create_with(&new, successor.kind, records, successor.after, &mut |record| match &mut state {
        Some(state) => state.apply(record),
        None => Ok(()),
    });
    match made {
        Ok(_) | Err(CreateError::Exists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets the old log aside and puts the new one in its place. Every new log was built before.
pub fn swap(opening: &Opening, successor: &Successor, number: u32) -> Result<(), AdoptError> {
    let disk = opening.disk.as_ref();
    let current = &opening.folder;
    let logs = current.parent().unwrap_or(Path::new("."));
    let aside = folder(logs, number, successor.kind);
    let of = aside.parent().unwrap_or(logs);
    let fails = |source| AdoptError::Io { path: current.clone(), source };
    if !is_in_place(disk, current, successor)? {
        if !segments_in(disk, current)?.is_empty() {
            disk.make_folder(of).map_err(fails)?;
            disk.rename(current, &aside).and_then(|()| disk.sync_folder(of)).and_then(|()| disk.sync_folder(logs)).map_err(fails)?;
        }
        disk.rename(&new_name(current), current).and_then(|()| disk.sync_folder(logs)).map_err(fails)?;
    }
    for name in disk.list(&aside).map_err(fails)? {
        if let Err(error) = disk.seal(&aside.join(&name)) {
            tracing::warn!(folder = %aside.display(), name, %error, "a file of a log that ended could not be made read-only");
        }
    }
    Ok(())
}

/// Whether the log in `folder` is the new one.
fn is_in_place(disk: &dyn Disk, folder: &Path, successor: &Successor) -> Result<bool, OpenError> {
    let segments = segments_in(disk, folder)?;
    if segments.is_empty() {
        return Ok(false);
    }
    let (_, created, _) = genesis(disk, folder, &segments)?;
    Ok(created.origin == successor.origin)
}

fn new_name(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(NEW);
    name.into()
}

/// Why a log was not adopted, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// What is left of a log cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new log was not made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A file or folder cannot be read, written or moved.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The intent of an earlier run cannot be understood.
    #[error("the intent in {0} is not one of `claviger audit adopt`; look at it, and remove it if it is not yours")]
    BadIntent(PathBuf),
}
