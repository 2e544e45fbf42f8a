//! The state folder, and the lock that lets one process at a time use it.
//!
//! In scope: the folder, the lock file, where the logs are in it, and what was about to be made when a process ended. Out of scope: the logs
//! themselves. The kernel drops the lock with the process, however it ends, so a lock file that is left behind locks nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use claviger_audit::event::LogKind;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::adopt;
use super::disk::{LocalDisk, replace};

/// A process id has at most ten digits; what is longer was not written here.
const LONGEST_PID: u64 = 16;

/// Something that is about to be made in a keystore: written down first, and forgotten once the log says that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The log keys of a new installation.
    Init,
    /// The next key of a log.
    LogKey(LogKind),
}

impl Intent {
    /// The name of its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Init => "init-intent.json",
            Self::LogKey(LogKind::Keys) => "log-key-intent-keys.json",
            Self::LogKey(LogKind::Uses) => "log-key-intent-uses.json",
        }
    }
}

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

    /// What was written down and not forgotten.
    pub fn intent(&self, intent: Intent) -> Result<Option<Vec<u8>>, StateError> {
        match fs::read(self.path.join(intent.file())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(|source| self.fails(source)),
        }
    }

    /// Writes down, durably and whole, what is about to be made.
    pub fn intend(&self, intent: Intent, what: &[u8]) -> Result<(), StateError> {
        replace(&LocalDisk, &self.path, intent.file(), what).map_err(|source| self.fails(source))
    }

    /// What was intended is in the log: the file may go. A crash may bring it back; the log then says the same again.
    pub fn forget(&self, intent: Intent) -> Result<(), StateError> {
        match fs::remove_file(self.path.join(intent.file())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.fails(error)),
            _ => Ok(()),
        }
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
    fn an_intent_is_known_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::lock(folder.path()).unwrap();
        let (keys, uses) = (Intent::LogKey(LogKind::Keys), Intent::LogKey(LogKind::Uses));
        state.intend(keys, b"one").unwrap();
        state.intend(keys, b"two").unwrap();
        assert_eq!(state.intent(keys).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!([state.intent(uses).unwrap(), state.intent(Intent::Init).unwrap()], [None, None]);
        state.forget(keys).unwrap();
        assert_eq!(state.intent(keys).unwrap(), None);
    }

    #[test]
    fn the_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::lock(&folder.path().join("state")).unwrap();
        assert_eq!(std::fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
