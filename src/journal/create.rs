//! Makes a log, once.
//!
//! In scope: the first record, the second of a log that goes on from another one, and the room that is held back for the halt record. Out of
//! scope: log keys, and opening what was made. This is for `init` and for an adoption alone: no start ever makes a log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, LogAdopted, LogCreated, LogKind};
use claviger_audit::keyrings::{Illegal, Keyrings};
use claviger_audit::line::genesis_prev;
use claviger_audit::merkle::{Frontier, Hash};
use claviger_audit::record::Asked;
use sha2::{Digest as _, Sha256};

use super::Receipt;
use super::disk::{create_temporary, replace};
use super::file::{BALLAST, LogFile, Segment, segment_name};
use super::open::{Opening, form, place_of, segments};
use super::replay::OnRecord;
use super::tenure::{LogKey, Tenure, Tenures};

/// Room that is held back for the halt record: one block of any file system, and then some.
const BALLAST_BYTES: usize = 1 << 20;

/// Why a log was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a log already.
    #[error("{0} already holds a log; it is left as it is")]
    Exists(PathBuf),
    /// The first record cannot be written as a record.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The folder or a file could not be made; what was made is no log, so `init` may be run again.
    #[error("cannot make the log in {folder}: {source}; run `claviger init` again when the disk can be written")]
    Io {
        /// The log's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes a log with its first record. It exists from the rename on, whole and durable.
pub fn create(opening: &Opening, kind: LogKind, asked: Asked, first: LogCreated) -> Result<Receipt, CreateError> {
    let mut state = Keyrings::default();
    create_with(opening, kind, (asked, first, None), Timestamp::default(), &mut |record| state.apply(record))
}

/// Makes a log with its first record, and with `log.adopted` if it goes on from another one, whose last record has the time `after`.
pub(super) fn create_with(
    opening: &Opening,
    kind: LogKind,
    (asked, first, adopted): (Asked, LogCreated, Option<LogAdopted>),
    after: Timestamp,
    check: OnRecord<'_>,
) -> Result<Receipt, CreateError> {
    let Opening { disk, folder, .. } = opening;
    let fails = |source| CreateError::Io { folder: folder.clone(), source };
    disk.make_folder(folder).map_err(fails)?;
    if !segments(&disk.list(folder).map_err(fails)?).is_empty() {
        return Err(CreateError::Exists(folder.clone()));
    }
    let place = place_of(opening, kind, &first.origin);
    let temporary = folder.join("genesis.tmp");
    let tail = create_temporary(disk.as_ref(), &temporary).map_err(fails)?;
    let last = genesis_prev(&first.origin, &first.key);
    let segment = Segment { path: temporary.clone(), tail, bytes: 0, sha256: Sha256::new() };
    let tenures = Arc::new(Tenures::begin(Tenure { since: 0, holder: LogKey::of(&first).map_err(|text| form("log.created", text))? }));
    let mut file = LogFile { place, segment, frontier: Frontier::new(), last, time: after, tenures };
    let mut batch = file.batch(opening.clock.wall());
    let receipt = batch.push(asked.clone(), Event::LogCreated(first), &mut *check)?;
    if let Some(adopted) = adopted {
        batch.push(asked, Event::LogAdopted(adopted), check)?;
    }
    file.commit(&batch).map_err(|reason| fails(io::Error::other(reason)))?;
    replace(disk.as_ref(), folder, BALLAST, &ballast()).map_err(fails)?;
    disk.rename(&temporary, &folder.join(segment_name(0))).map_err(fails)?;
    disk.sync_folder(folder).map_err(fails)?;
    Ok(receipt)
}

/// Bytes that no file system can compress or leave out: a file of zeros might hold no room at all.
pub(super) fn ballast() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BALLAST_BYTES);
    for block in 0..BALLAST_BYTES as u64 / 32 {
        bytes.extend_from_slice(Hash::digest(&block.to_be_bytes()).as_bytes());
    }
    bytes
}
