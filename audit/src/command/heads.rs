//! Remembered heads: a file with one note, or a folder with one note per log and, beside those of use logs, where to go on after them.
//!
//! In scope: reading them, and saving one for each log. Out of scope: when that is right.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::event::LogKind;
use crate::names::is_label;
use crate::verify::{Bookmark, LogReport, NoteFile, Report};

use super::{Failure, files, writing};

/// Most notes in one folder of heads: one per node, and the key log's.
const MOST_HEADS: usize = 256;

/// The notes that `path` holds; `None` if it does not exist, or is a folder without notes.
pub(super) fn read(path: &Path) -> Result<Option<Vec<NoteFile>>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    if !path.is_dir() {
        return Ok(Some(vec![files::note(path)?]));
    }
    let names = files::names_in(path)?;
    let paths: Vec<PathBuf> = names.iter().filter(|name| is_head(name)).map(|name| path.join(name)).collect();
    if paths.len() > MOST_HEADS {
        return Err(Failure::Usage(format!("{} has more than {MOST_HEADS} heads", path.display())));
    }
    let notes: Vec<NoteFile> = paths.iter().map(|path| files::note(path)).collect::<Result<_, _>>()?;
    Ok(Some(notes).filter(|notes| !notes.is_empty()))
}

/// What lies beside the notes of a folder for `--incremental`. A file that says nothing is as good as none: the whole log is read then.
pub(super) fn bookmarks(path: &Path) -> Result<Vec<Bookmark>, Failure> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let names = files::names_in(path)?;
    let names = names.iter().filter(|name| name.strip_suffix(FRONTIER).is_some_and(is_head)).take(MOST_HEADS);
    let bytes: Vec<Vec<u8>> = names.map(|name| files::read_small(&path.join(name), MAX_FRONTIER)).collect::<Result<_, _>>()?;
    Ok(bytes.iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect())
}

/// Remembers the newest verified checkpoint of each log: in a folder all of them, in a file that of the key log.
pub(super) fn save(path: &Path, report: &Report) -> Result<(), Failure> {
    let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder {
        fs::create_dir_all(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
    }
    // A log that ended gets no new head, and has the file name of the one that goes on from it.
    for log in report.logs.iter().filter(|log| !log.former) {
        let Some(head) = &log.head else { continue };
        if is_folder {
            let name = name_of(log)?;
            // The key log is always read whole: it is the state.
            if let Some(bookmark) = log.bookmark.as_ref().filter(|_| log.kind == LogKind::Uses) {
                let text = serde_json::to_string(bookmark).map_err(io::Error::from)? + "\n";
                writing::replace(&path.join(format!("{name}{FRONTIER}")), &text)?;
            }
            writing::replace(&path.join(name), head)?;
        } else if log.kind == LogKind::Keys {
            writing::replace(path, head)?;
        }
    }
    Ok(())
}

/// The node comes from the log, so it must be a plain name before it becomes part of a path.
fn name_of(log: &LogReport) -> Result<String, Failure> {
    match (log.kind, log.node.as_deref()) {
        (LogKind::Keys, _) => Ok("keys".to_owned()),
        (LogKind::Uses, Some(node)) if is_label(node) => Ok(format!("uses-{node}")),
        (LogKind::Uses, node) => Err(Failure::Usage(format!("node {node:?} is no name for a file; its head was not saved"))),
    }
}

fn is_head(name: &str) -> bool {
    name == "keys" || name.starts_with("uses-") && ![writing::TEMPORARY, FRONTIER].iter().any(|suffix| name.ends_with(suffix))
}

const FRONTIER: &str = ".frontier";
/// Largest frontier file: 64 hashes, and names.
const MAX_FRONTIER: usize = 1 << 14;
