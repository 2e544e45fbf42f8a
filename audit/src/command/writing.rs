//! Everything that the commands write into files: heads, proofs, summaries.
//!
//! In scope: each way to write, and what a crash or another file may not cost. Out of scope: what is written, and when that is right.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Failure;

/// Most numbers that are tried for a name that is taken. Whoever has so many files needs another folder.
const MOST_NUMBERS: u32 = 1_000;

/// What the name of a file ends in while it is being written.
pub(super) const TEMPORARY: &str = ".new";

/// Writes a whole small file, so that a crash leaves the old one or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(TEMPORARY);
    let temporary = path.with_file_name(name);
    // The commit point is the rename: before it the old file counts, after it the new one.
    let replace = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    replace().map_err(failed)
}

/// Adds to the end of a file, which is made if it is not there.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let open = File::options().append(true).create(true).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| Failure::File { path: path.to_owned(), error })
}

/// Writes a new file and never over another one: `name.proof`, or `name-2.proof` and so on where that is taken. Gives its path.
pub(super) fn beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    for number in 1..=MOST_NUMBERS {
        let path = numbered(path, number);
        match File::create_new(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{MOST_NUMBERS} files of this name exist already")))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_before_the_extension() {
        assert_eq!(numbered(Path::new("a/claviger-fork.proof"), 1), Path::new("a/claviger-fork.proof"));
        assert_eq!(numbered(Path::new("a/claviger-fork.proof"), 2), Path::new("a/claviger-fork-2.proof"));
        assert_eq!(numbered(Path::new("fork"), 12), Path::new("fork-12"));
    }
}
