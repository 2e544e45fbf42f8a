//! What others have said of a log's checkpoints, kept beside it, and the readers that they need.
//!
//! In scope: the files `witnessed.checkpoint` and `witnessed.frontier`, and places from which to follow the log. Out of scope: whether a
//! cosignature is valid, and how many are enough (`witness`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use claviger_audit::note::{MAX_NOTE, VerifierKey};

use super::checkpoint::{Checkpointer, Covered, FRONTIER, FRONTIER_FORM};
use super::disk::{Disk, replace};
use super::follow::Follower;
use super::lines::CHUNK;
use super::pages::Pages;

/// The newest checkpoint that a quorum cosigned.
pub const WITNESSED: &str = "witnessed.checkpoint";
/// The place in the log that belongs to it.
const WITNESSED_FRONTIER: &str = "witnessed.frontier";

impl Checkpointer {
    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Every key that signed, or signs, the checkpoints, as far as they are known since the log was opened.
    pub fn keys(&self) -> Vec<VerifierKey> {
        self.shared.tenures().all().map(|tenure| tenure.holder.key.clone()).collect()
    }

    /// Stores a checkpoint that a quorum cosigned, durably, in place of the one before; `place` is where it ends.
    pub fn store_witnessed(&self, note: &str, place: &Covered) -> io::Result<()> {
        let (disk, folder) = (self.place.disk.as_ref(), &self.place.folder);
        replace(disk, folder, WITNESSED_FRONTIER, format!("{FRONTIER_FORM}\n{}", place.line()).as_bytes())?;
        replace(disk, folder, WITNESSED, note.as_bytes())
    }

    /// The bytes that were stored last.
    pub fn stored_witnessed(&self) -> io::Result<Option<Vec<u8>>> {
        small(self.place.disk.as_ref(), &self.place.folder.join(WITNESSED), MAX_NOTE + 1)
    }

    /// A reader that proves growth. It knows the places of the newest checkpoints without reading the log.
    pub fn follower(&self) -> Follower {
        let (disk, folder) = (&self.place.disk, &self.place.folder);
        let known = [FRONTIER, WITNESSED_FRONTIER].into_iter().flat_map(|name| {
            // An unreadable place is as good as none: the log can always be read from its beginning.
            let bytes = small(disk.as_ref(), &folder.join(name), CHUNK).ok().flatten().unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.strip_prefix(FRONTIER_FORM).unwrap_or_default().lines();
            lines.filter_map(Covered::parse).collect::<Vec<_>>()
        });
        Follower::new(Arc::clone(disk), folder.clone(), known.collect())
    }

    /// A reader of records in any order.
    pub fn pages(&self) -> Pages {
        Pages::new(Arc::clone(&self.place.disk), self.place.folder.clone())
    }
}

fn small(disk: &dyn Disk, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    match disk.read(path, 0, limit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}
