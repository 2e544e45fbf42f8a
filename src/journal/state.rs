//! The state folder, and the lock that lets one process at a time use it.
//!
//! In scope: the folder, the lock file, where the logs are in it, and the intent of an `init` that is under way. Out of scope: the logs themselves. The kernel drops the lock with the
//! process, however it ends, so a lock file that is left behind locks nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use claviger_audit::event::LogKind;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::adopt;
use super::disk::LocalDisk;

/// A process id has at most ten digits; what is longer was not written here.
const LONGEST_PID: u64 = 16;

/// What `init` is about to make, until the log says so.
const INTENT: &str = "init-intent.json";

/// The state folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process uses it.
    #[error("{path} is in use by process {pid}; stop that daemon, or ask it with `claviger doctor`")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process, as it wrote itself down; `unknown` if it had no time to.
        pid: String,
    },
    /// The folder or its lock file cannot be made or opened.
    #[error("cannot use the state folder {path}: {source}; it must be a folder that this user may write")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Makes the folder (0700) if it is missing, and takes the lock or says at once who has it.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        let fails = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fails)?;
        let file = path.join("lock");
        // Not truncated here: until the lock is taken, the file is another process's.
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file).map_err(fails)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::Locked { path: path.to_owned(), pid: pid_in(lock) }),
            Err(error) => return Err(fails(error.into())),
        }
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(fails)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an `init` that was cut off had written down.
    pub fn intent(&self) -> Result<Option<Vec<u8>>, StateError> {
        match fs::read(self.path.join(INTENT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(|source| self.fails(source)),
        }
    }

    /// Writes down, durably, what `init` is about to make.
    pub fn intend(&self, intent: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(INTENT);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(intent)?;
            file.sync_all()
        });
        written.and_then(|()| File::open(&self.path)?.sync_all()).map_err(|source| self.fails(source))
    }

    /// What was intended is in the log: the file may go.
    pub fn forget_intent(&self) -> Result<(), StateError> {
        fs::remove_file(self.path.join(INTENT)).map_err(|source| self.fails(source))
    }

    /// Whether an adoption was begun here and not finished: then nothing else may open the logs.
    pub fn is_adopting(&self) -> Result<bool, StateError> {
        adopt::is_under_way(&LocalDisk, &self.logs()).map_err(|source| self.fails(source))
    }

    fn fails(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }

    /// The folder of all logs.
    pub fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The folder of one log.
    pub fn log_folder(&self, kind: LogKind) -> PathBuf {
        self.logs().join(kind.name())
    }
}

fn pid_in(lock: File) -> String {
    let mut text = String::new();
    let read = lock.take(LONGEST_PID).read_to_string(&mut text);
    let pid = text.trim();
    if read.is_ok() && !pid.is_empty() { pid.to_owned() } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_process_is_refused_with_the_first_ones_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::lock(&path).unwrap();
        let refused = StateDir::lock(&path);
        let Err(StateError::Locked { pid, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(pid, std::process::id().to_string());
        drop(first);
        assert_eq!(StateDir::lock(&path).unwrap().log_folder(LogKind::Uses), path.join("log/uses"));
    }

    #[test]
    fn the_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::lock(&folder.path().join("state")).unwrap();
        assert_eq!(std::fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
