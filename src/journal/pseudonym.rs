//! What records say of a source address, a user agent and a subject: `audit.subject = "hash" | "plain" | "omit"`.
//!
//! In scope: the pseudonym, the yearly key under which it is made, and destroying it: then nobody can tell whose pseudonym is whose. Out of
//! scope: callers and operators, which are services and staff on duty and stand in records plainly, and who may erase a year (`upkeep`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_audit::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// 128 bits: two people of one year share a pseudonym once in 2^64 people.
const PSEUDONYM_BYTES: usize = 16;
/// As long as the hash's output (RFC 2104 section 3).
const KEY_BYTES: usize = 32;
/// The year that ends and the one that begins.
const MOST_YEARS: usize = 2;

/// How personal data is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectMode {
    /// As a pseudonym that is the same all year.
    #[default]
    Hash,
    /// As it is.
    Plain,
    /// Not at all.
    Omit,
}

/// The key of a year cannot be read or made; nothing may be recorded plainly instead.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}, the key under which subjects are recorded: {source}")]
pub struct PseudonymError {
    /// The key file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// What is known of years.
#[derive(Default)]
struct Years {
    keys: BTreeMap<u64, Key>,
    /// Their records carry no pseudonym: a second key would let nobody be forgotten who is recorded late.
    erased: BTreeSet<u64>,
}

/// Turns personal data into what records may hold.
pub struct Pseudonyms {
    mode: SubjectMode,
    state: PathBuf,
    years: Mutex<Years>,
}

/// The year of a record (UTC), as its pseudonyms name it.
pub fn year_of(at: Timestamp) -> u64 {
    at.to_string().split('-').next().and_then(|year| year.parse().ok()).unwrap_or_default()
}

impl Pseudonyms {
    /// Keys are files in the folder `state`.
    pub fn new(mode: SubjectMode, state: &Path) -> Self {
        Self { mode, state: state.to_owned(), years: Mutex::default() }
    }

    /// What a record of time `at` says for `plain`: `hmac-<year>:<base64url>`, the text itself, or nothing. The first call of a year
    /// reads or makes its key file; all others only compute. A year that was erased has no pseudonyms any more.
    pub fn record(&self, plain: &str, at: Timestamp) -> Result<Option<String>, PseudonymError> {
        match self.mode {
            SubjectMode::Omit => Ok(None),
            SubjectMode::Plain => Ok(Some(plain.to_owned())),
            SubjectMode::Hash => self.hash(plain, year_of(at)),
        }
    }

    /// Whether there is a key of this year to destroy.
    pub fn has_key(&self, year: u64) -> bool {
        self.path(year).exists()
    }

    /// Destroys the key of a year, for good; `true` if there was one. The log must say so already. The file is not overwritten first: flash and
    /// copy-on-write file systems put new bytes elsewhere, and what is left of the old ones is the business of the disk's encryption.
    pub fn erase(&self, year: u64) -> Result<bool, PseudonymError> {
        let mut years = self.lock();
        // First, so that no record makes the file anew.
        years.erased.insert(year);
        years.keys.remove(&year);
        let path = self.path(year);
        // A crash while a key was made leaves it a second name.
        let removed = [temporary(&path), path.clone()].into_iter().map(|path| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        });
        let removed: io::Result<Vec<bool>> = removed.collect();
        let durable = removed.and_then(|removed| File::open(&self.state)?.sync_all().map(|()| removed.contains(&true)));
        durable.map_err(|source| PseudonymError { path, source })
    }

    fn lock(&self) -> MutexGuard<'_, Years> {
        self.years.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, year: u64) -> PathBuf {
        self.state.join(format!("subject-{year}.key"))
    }

    fn hash(&self, plain: &str, year: u64) -> Result<Option<String>, PseudonymError> {
        let mut years = self.lock();
        if years.erased.contains(&year) {
            return Ok(None);
        }
        let key = if let Some(key) = years.keys.get(&year) {
            key.clone()
        } else {
            let path = self.path(year);
            let key = read_or_make(&self.state, &path).map_err(|source| PseudonymError { path, source })?;
            years.keys.insert(year, key.clone());
            while years.keys.len() > MOST_YEARS {
                years.keys.pop_first();
            }
            key
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).expect("HMAC takes a key of any length");
        mac.update(plain.as_bytes());
        let tag = mac.finalize().into_bytes();
        Ok(Some(format!("hmac-{year}:{}", URL_SAFE_NO_PAD.encode(&tag[..PSEUDONYM_BYTES]))))
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pseudonyms").field("mode", &self.mode).field("state", &self.state).finish_non_exhaustive()
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("key.tmp")
}

fn read_or_make(folder: &Path, path: &Path) -> io::Result<Key> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut key = Key::default();
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let temporary = temporary(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(key.as_slice())?;
    file.sync_all()?;
    // A link never replaces: a key that somebody else made meanwhile stays, and is refused here rather than overwritten.
    fs::hard_link(&temporary, path)?;
    fs::remove_file(&temporary)?;
    File::open(folder)?.sync_all()?;
    Ok(key)
}

fn read(path: &Path) -> io::Result<Key> {
    let bytes = Zeroizing::new(fs::read(path)?);
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("it has {} bytes, not {KEY_BYTES}", bytes.len()));
    let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| wrong())?;
    Ok(Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const YEAR: i64 = 366 * 24 * 3600;

    #[test]
    fn the_same_subject_has_one_pseudonym_a_year() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pseudonyms::new(SubjectMode::Hash, folder.path());
        let at = Timestamp::from_seconds(1_800_000_000);
        let text = first.record("alice", at).unwrap().unwrap();
        assert!(text.starts_with("hmac-2027:") && text.len() == "hmac-2027:".len() + 22, "{text}");
        assert_ne!(first.record("bob", at).unwrap().unwrap(), text);
        // After a restart, too.
        let second = Pseudonyms::new(SubjectMode::Hash, folder.path());
        assert_eq!(second.record("alice", at).unwrap().unwrap(), text);
        let later = second.record("alice", Timestamp::from_seconds(1_800_000_000 + YEAR)).unwrap().unwrap();
        assert!(later.starts_with("hmac-2028:") && later[10..] != text[10..], "{later}");
        let mode = fs::metadata(folder.path().join("subject-2027.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_pseudonym_is_the_hmac_of_the_key_file() {
        let folder = tempfile::tempdir().unwrap();
        // RFC 4231 has no key of 32 bytes; this value was computed with `openssl dgst -mac HMAC` and keyed with 32 bytes of 0x0b.
        fs::write(folder.path().join("subject-2027.key"), [0x0b; KEY_BYTES]).unwrap();
        let text =
            Pseudonyms::new(SubjectMode::Hash, folder.path()).record("Hi There", Timestamp::from_seconds(1_800_000_000)).unwrap().unwrap();
        assert_eq!(text, "hmac-2027:GYpgfrRL-8aZA6Dxzyu9xQ");
    }

    #[test]
    fn an_erased_year_has_no_pseudonyms_and_its_key_is_never_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (at, next) = (Timestamp::from_seconds(1_800_000_000), Timestamp::from_seconds(1_800_000_000 + YEAR));
        let pseudonyms = Pseudonyms::new(SubjectMode::Hash, folder.path());
        pseudonyms.record("alice", at).unwrap().unwrap();
        let kept = pseudonyms.record("alice", next).unwrap();
        let path = folder.path().join("subject-2027.key");
        // As a crash in the middle of making it leaves it: one key, two names.
        fs::hard_link(&path, folder.path().join("subject-2027.key.tmp")).unwrap();
        assert!(pseudonyms.has_key(2027) && !pseudonyms.has_key(2026));
        assert!(pseudonyms.erase(2027).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["subject-2028.key"]);
        // A late clock brings nothing back, in this process or, where the log is asked first, in the next.
        let later = Pseudonyms::new(SubjectMode::Hash, folder.path());
        assert!(!later.erase(2027).unwrap());
        for pseudonyms in [pseudonyms, later] {
            assert_eq!(pseudonyms.record("alice", at).unwrap(), None);
            assert_eq!(pseudonyms.record("alice", next).unwrap(), kept);
        }
        assert!(!path.exists());
    }

    #[test]
    fn without_a_key_nothing_is_recorded_plainly() {
        let folder = tempfile::tempdir().unwrap();
        let at = Timestamp::from_seconds(1_800_000_000);
        fs::write(folder.path().join("subject-2027.key"), b"short").unwrap();
        assert!(Pseudonyms::new(SubjectMode::Hash, folder.path()).record("alice", at).is_err());
        assert_eq!(Pseudonyms::new(SubjectMode::Plain, folder.path()).record("alice", at).unwrap().as_deref(), Some("alice"));
        assert_eq!(Pseudonyms::new(SubjectMode::Omit, folder.path()).record("alice", at).unwrap(), None);
    }
}
