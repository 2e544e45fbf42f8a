//! Logs that ended, and that the logs of today go on from.
//!
//! In scope: where they lie, the state that a key log begins with, and how much of the key log a use log has seen. Out of scope: how a log
//! comes to end (`adopt`), and the proof of what the former logs say: the log that adopted them names their root, and the transition table
//! compares it.

use std::io;
use std::path::{Path, PathBuf};

use claviger_audit::event::{Event, LogKind};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::line::genesis_prev;
use claviger_audit::record::Record;

use super::disk::Disk;
use super::open::{OpenError, genesis, segments};
use super::replay::{Start, replay};

/// The folder of logs that ended, beside the logs; in it one folder for each adoption, by its number.
pub(super) const FORMER: &str = "former";

/// The numbers of the adoptions so far, in order.
pub(super) fn numbers(disk: &dyn Disk, logs: &Path) -> io::Result<Vec<u32>> {
    let names = match disk.list(&logs.join(FORMER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where the log of this kind lies that this adoption set aside, or would lie.
pub(super) fn folder(logs: &Path, number: u32, kind: LogKind) -> PathBuf {
    logs.join(FORMER).join(number.to_string()).join(kind.name())
}

/// The segments in a folder; none if there is no such folder.
pub(super) fn segments_in(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>, OpenError> {
    match disk.list(folder) {
        Ok(names) => Ok(segments(&names)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(OpenError::Io { path: folder.to_owned(), source }),
    }
}

/// The state with which the key log in `folder` begins: nothing, or that of the former key logs beside it, one after the other.
pub(super) fn carried(disk: &dyn Disk, folder: &Path) -> Result<Keyrings, OpenError> {
    let logs = folder.parent().unwrap_or(Path::new("."));
    let mut keyrings = Keyrings::default();
    for number in numbers(disk, logs).map_err(|source| OpenError::Io { path: logs.join(FORMER), source })? {
        let folder = self::folder(logs, number, LogKind::Keys);
        let segments = segments_in(disk, &folder)?;
        if segments.is_empty() {
            continue;
        }
        let (_, created, _) = genesis(disk, &folder, &segments)?;
        let start = Start { covered: None, base: None, checkpoint: None, genesis: genesis_prev(&created.origin, &created.key) };
        let found = replay(disk, &folder, LogKind::Keys, &segments, &start, &mut |record| keyrings.apply(record))?;
        keyrings = keyrings.carried_over(found.frontier.root());
    }
    Ok(keyrings)
}

/// How many records of the key log the last records in `bytes`, whole lines of a use log, have seen; 0 if none says.
pub(super) fn keys_seen(bytes: &[u8]) -> u64 {
    let mut records = bytes.split(|byte| *byte == b'\n').rev().filter_map(|line| Record::parse(line).ok());
    records.find_map(|record| seen_by(&record.event)).unwrap_or(0)
}

/// How many records of the key log this record of a use log has seen, if it says so.
pub(super) fn seen_by(event: &Event) -> Option<u64> {
    match event {
        Event::KeysSeen(seen) => Some(seen.size),
        Event::Sign(sign) => Some(sign.size),
        _ => None,
    }
}
