//! What records say of a source address, a user agent and a subject: `audit.subject = "hash" | "plain" | "omit"`.
//!
//! In scope: the pseudonym and the yearly key under which it is made. Out of scope: callers and operators, which are services and staff on
//! duty and stand in records plainly. Erasing a year is destroying its key file: then nobody can tell whose pseudonym is whose.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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

/// Turns personal data into what records may hold.
pub struct Pseudonyms {
    mode: SubjectMode,
    state: PathBuf,
    keys: Mutex<BTreeMap<String, Key>>,
}

impl Pseudonyms {
    /// Keys are files in the folder `state`.
    pub fn new(mode: SubjectMode, state: &Path) -> Self {
        Self { mode, state: state.to_owned(), keys: Mutex::new(BTreeMap::new()) }
    }

    /// What a record of time `at` says for `plain`: `hmac-<year>:<base64url>`, the text itself, or nothing. The first call of a year
    /// reads or makes its key file; all others only compute.
    pub fn record(&self, plain: &str, at: Timestamp) -> Result<Option<String>, PseudonymError> {
        match self.mode {
            SubjectMode::Omit => Ok(None),
            SubjectMode::Plain => Ok(Some(plain.to_owned())),
            SubjectMode::Hash => self.hash(plain, at).map(Some),
        }
    }

    fn hash(&self, plain: &str, at: Timestamp) -> Result<String, PseudonymError> {
        let year: String = at.to_string().chars().take_while(char::is_ascii_digit).collect();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains_key(&year) {
            let path = self.state.join(format!("subject-{year}.key"));
            let key = read_or_make(&self.state, &path).map_err(|source| PseudonymError { path, source })?;
            keys.insert(year.clone(), key);
            while keys.len() > MOST_YEARS {
                keys.pop_first();
            }
        }
        let key = keys.get(&year).map_or(&[][..], |key| key.as_slice());
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(plain.as_bytes());
        let tag = mac.finalize().into_bytes();
        Ok(format!("hmac-{year}:{}", URL_SAFE_NO_PAD.encode(&tag[..PSEUDONYM_BYTES])))
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pseudonyms").field("mode", &self.mode).field("state", &self.state).finish_non_exhaustive()
    }
}

fn read_or_make(folder: &Path, path: &Path) -> io::Result<Key> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut key = Key::default();
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let temporary = path.with_extension("key.tmp");
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
    fn without_a_key_nothing_is_recorded_plainly() {
        let folder = tempfile::tempdir().unwrap();
        let at = Timestamp::from_seconds(1_800_000_000);
        fs::write(folder.path().join("subject-2027.key"), b"short").unwrap();
        assert!(Pseudonyms::new(SubjectMode::Hash, folder.path()).record("alice", at).is_err());
        assert_eq!(Pseudonyms::new(SubjectMode::Plain, folder.path()).record("alice", at).unwrap().as_deref(), Some("alice"));
        assert_eq!(Pseudonyms::new(SubjectMode::Omit, folder.path()).record("alice", at).unwrap(), None);
    }
}
