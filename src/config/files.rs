//! Files that a configuration or a command names: path in, bytes out, never more than a limit.
//!
//! In scope: policies, test tables, TLS pairs, claims, JWK sets. Out of scope: what stands in them, and secrets (`secret`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most files of a folder, and most bytes of a file, that are read: a wrong path must not fill the memory.
const MOST_FILES: usize = 1024;
const LARGEST_FILE: u64 = 1 << 20;

/// The bytes of a file; `-` is standard input.
///
/// # Errors
///
/// What the system says, with the path; a file of more than 1 MiB is refused.
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    let read = if path == Path::new("-") { limited(io::stdin().lock()) } else { File::open(path).and_then(limited) };
    read.map_err(named)
}

/// The policies of a folder: every `*.cedar`, by name.
pub fn policies(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let read = |path: PathBuf| {
        let text = String::from_utf8(bytes(&path)?).map_err(|_| io::Error::other(format!("{} is not UTF-8", path.display())))?;
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text))
    };
    with_extension(folder, "cedar")?.into_iter().map(read).collect()
}

/// Where a folder really is, and which of its versions is mounted: Kubernetes swaps the link `..data` when all files of a volume have been
/// written. What changes with the folder's content as a whole, and never because one file changed.
pub fn mounted(folder: &Path) -> (Option<PathBuf>, Option<PathBuf>) {
    (fs::canonicalize(folder).ok(), fs::read_link(folder.join("..data")).ok())
}

/// Whether two paths lead to the same file, by whatever links; paths that lead nowhere are compared as they are written.
pub fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

/// The files of a folder with this extension, in order.
pub fn with_extension(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", folder.display()));
    let entries: Vec<_> = fs::read_dir(folder).map_err(named)?.take(MOST_FILES + 1).collect::<io::Result<_>>()?;
    if entries.len() > MOST_FILES {
        return Err(io::Error::other(format!("{} has more than {MOST_FILES} files", folder.display())));
    }
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

fn limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other(format!("it has more than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}
