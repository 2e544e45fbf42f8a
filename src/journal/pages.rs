//! A log's covered records for reading in any order, and the hashes of their tiles.
//!
//! In scope: an index of where each record begins, 48 bytes a record with its hash, so for logs that are small: the key log. Out of scope: who
//! may read. Every line that is read again must have the leaf hash that it had when it was indexed.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::merkle::{Hash, leaf_hash};
use claviger_audit::tiles::HashTiles;

use super::disk::Disk;
use super::follow::FollowError;
use super::lines::{Passed, Spot, pass};

/// The index of one log.
pub struct Pages {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    tiles: HashTiles,
    begins: Vec<Spot>,
    next: Spot,
}

impl Pages {
    pub(super) fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder, tiles: HashTiles::new(), begins: Vec::new(), next: Spot::default() }
    }

    /// Indexes what a checkpoint of this size and root covers. An error leaves nothing indexed, so that the next call begins anew.
    pub fn extend(&mut self, size: u64, root: Hash) -> Result<(), FollowError> {
        if size <= self.tiles.size() {
            return Ok(());
        }
        let (tiles, begins) = (&mut self.tiles, &mut self.begins);
        let mut seq = tiles.size();
        let read = pass((self.disk.as_ref(), &self.folder), &mut self.next, &mut seq, size, &mut |passed| {
            if let Passed::Line { at, line } = passed {
                tiles.push(leaf_hash(line));
                begins.push(at);
            }
        });
        let found = self.tiles.root();
        let agreed = read.map_err(FollowError::from).and_then(|()| {
            let differs = || FollowError::Differs(format!("its root at size {size} is {found}, not {root}"));
            if found == root { Ok(()) } else { Err(differs()) }
        });
        if agreed.is_err() {
            *self = Self::new(Arc::clone(&self.disk), self.folder.clone());
        }
        agreed
    }

    /// The hashes of what is indexed.
    pub fn tiles(&self) -> &HashTiles {
        &self.tiles
    }

    /// The lines, without LF, of the indexed records from `from` on: at most `count`, and at most the first whose bytes reach `enough`.
    pub fn lines(&self, from: u64, count: u64, enough: usize) -> Result<Vec<Vec<u8>>, FollowError> {
        let until = from.saturating_add(count).min(self.tiles.size());
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let Some(begin) = usize::try_from(from).ok().and_then(|index| self.begins.get(index)) else { return Ok(lines) };
        let (mut spot, mut seq, mut bytes) = (*begin, from, 0);
        // Record by record, so that a limit on bytes is one on what is read as well: a chunk at most is read for nothing.
        while seq < until && bytes < enough {
            let step = until.min(seq + STEP);
            pass((self.disk.as_ref(), &self.folder), &mut spot, &mut seq, step, &mut |passed| {
                if let Passed::Line { line, .. } = passed
                    && bytes < enough
                {
                    bytes += line.len() + 1;
                    lines.push(line.to_vec());
                }
            })?;
        }
        let expected = &self.tiles.leaves()[usize::try_from(from).unwrap_or(usize::MAX)..];
        match lines.iter().zip(expected).position(|(line, leaf)| leaf_hash(line) != *leaf) {
            None => Ok(lines),
            Some(index) => Err(FollowError::Differs(format!("record {} was changed", from + index as u64))),
        }
    }
}

/// Records that are read together: those of one tile.
const STEP: u64 = 256;
