//! The few things that a log asks of a disk.
//!
//! In scope: the contract, in prose and as two traits, and the machine's own file system. Out of scope: what the bytes mean, and what to do
//! after an error: nothing here retries, and nothing here reads back what it wrote.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// A file system as far as a log needs one. Names become durable by [`Disk::sync_folder`] and contents by [`Tail::sync`], never earlier.
pub trait Disk: Send + Sync {
    /// The names in `folder`, in no order. `NotFound` if there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// At most `at_most` bytes from offset `from` on; fewer only at the end of the file.
    fn read(&self, path: &Path, from: u64, at_most: usize) -> io::Result<Vec<u8>>;
    /// Makes a new file for appending, readable by its owner alone. `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Tail>>;
    /// Opens a file for appending. `NotFound` if there is none: it is never made here.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Tail>>;
    /// A second name for the same file. `AlreadyExists` if the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file another name in the same folder, in place of whatever had it; or a folder another name, which nothing has yet. A
    /// folder that moves to another one is durable there once that one is synced, and is never in neither.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes the name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the file read-only (0400). It may be open for appending still.
    fn seal(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder and those above it, 0700, and their names durable. Nothing happens if it exists.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// When this returns, the names in the folder are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is open for appending. After an error of [`Tail::sync`] nothing is known about what the disk holds, whatever later calls say.
pub trait Tail: Send {
    /// One write at the end of the file; how many bytes it took. Fewer than given means that the disk is full or nearly so.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// When this returns, everything appended so far is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// How many bytes the file has.
    fn size(&self) -> io::Result<u64>;
    /// Cuts the file. Not durable before the next sync.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    /// Whether `path` still names this very file.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of the log's.
        let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn read(&self, path: &Path, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(at_most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, Permissions::from_mode(0o400))
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.make_folder(parent)?;
        DirBuilder::new().mode(0o700).create(folder)?;
        self.sync_folder(parent)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl Tail for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let open = self.metadata()?;
        match fs::metadata(path) {
            Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Puts a whole small file in place of what has its name: a temporary file, synced, renamed, and the folder synced. A crash leaves the old
/// file or the new one, never a part.
pub(super) fn replace(disk: &dyn Disk, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = create_temporary(disk, &temporary)?;
    append_all(file.as_mut(), bytes)?;
    file.sync()?;
    disk.rename(&temporary, &folder.join(name))?;
    disk.sync_folder(folder)
}

/// A new file under a temporary name; what an earlier crash left under it is dropped.
pub(super) fn create_temporary(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn Tail>> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create(path)
}

/// Appends in one write, or fails: a short write means a full disk.
pub(super) fn append_all(file: &mut dyn Tail, bytes: &[u8]) -> io::Result<()> {
    let taken = file.append(bytes)?;
    if taken == bytes.len() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::StorageFull, format!("no space is left: only {taken} of {} bytes were written", bytes.len())))
}
