//! Logging in with one try for each PIN, however often the daemon is started again.
//!
//! In scope: the marker file, the token's own warnings, `C_Login`. Out of scope: who may read the PIN's file (`secret.rs`).
//!
//! Before a login the marker is made durable; after a success it is removed. So a wrong PIN, and a crash in the middle of a login, leave a
//! marker that stops every later try with the same PIN: a restart loop cannot lock the token. The marker holds 32 random bytes and the
//! HMAC-SHA256, under them, of the token's identity and the PIN; it is as secret as the PIN's file, and never logged.
//!
//! A serial number is no identity: it is the device's (PKCS#11 v3.1 section 3.2, `CK_TOKEN_INFO`), and all tokens of one TPM share it, as all
//! of NSS softoken do. So the maker, the model and the label count too, and one token's success never forgets another's wrong PIN.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use super::objects::hex;
use crate::secret::SecretFile;

/// Random bytes, then the HMAC, each this long.
const HALF: usize = 32;

/// Whether this session may use private keys.
pub(super) fn is_logged_in(session: &Session) -> Result<bool, Fault> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

/// A search by somebody who is not logged in finds no private key, and that must never be taken for an answer: asked after a search that
/// found none, this says whether it may be.
pub(super) fn require_login(session: &Session) -> Result<(), Fault> {
    if is_logged_in(session)? { Ok(()) } else { Err(Fault::Answer { code: RvError::UserNotLoggedIn, function: Function::GetSessionInfo }) }
}

/// Logs the user in, unless that was done. The caller holds the module's login turn.
pub(super) fn log_in(library: &Pkcs11, slot: Slot, session: &Session, pin_file: &SecretFile, state: &Path) -> Result<(), Fault> {
    if is_logged_in(session)? {
        return Ok(());
    }
    let token = library.get_token_info(slot)?;
    refuse_last_tries(&token)?;
    let pin = pin_file.read().map_err(|error| Fault::Refused(error.to_string()))?;
    let marker = Marker::new(state, [token.serial_number(), token.label(), token.model(), token.manufacturer_id()]);
    if marker.matches(&pin)? {
        return Err(Fault::Refused(format!(
            "the PIN in {} was refused before, or its last try was cut short; put the right PIN there, or remove {} to try the same one again",
            pin_file.path().display(),
            marker.path.display()
        )));
    }
    marker.write(&pin)?;
    let outcome = session.login(UserType::User, Some(&pin)).map_err(Fault::from);
    conclude(library, slot, &token, &marker, pin_file, outcome)
}

/// Two of these flags mean that one more wrong try locks the token, or has locked it: only a person may go on from there.
fn refuse_last_tries(token: &TokenInfo) -> Result<(), Fault> {
    let label = token.label();
    if token.user_pin_locked() {
        return Err(Fault::Refused(format!("the PIN of token {label:?} is locked; the security officer must set a new one")));
    }
    if token.user_pin_final_try() {
        let text =
            format!("one more wrong PIN locks token {label:?}; log in once with the vendor's tool and the right PIN, then try again");
        return Err(Fault::Refused(text));
    }
    Ok(())
}

/// Decides from the token's answer whether the marker stays.
fn conclude(
    library: &Pkcs11,
    slot: Slot,
    before: &TokenInfo,
    marker: &Marker,
    pin_file: &SecretFile,
    outcome: Result<(), Fault>,
) -> Result<(), Fault> {
    match outcome {
        Ok(()) => marker.remove(),
        Err(fault) if fault.code() == Some(RvError::UserAlreadyLoggedIn) => marker.remove(),
        Err(fault) if fault.concerns_pin() => {
            Err(Fault::Refused(format!("the token refused the PIN in {}: {fault}; it is not tried again", pin_file.path().display())))
        }
        Err(fault) => {
            // The answer says nothing of the PIN. Unless the token counted a failure nevertheless, the same PIN may be tried again.
            let counted = |token: &TokenInfo| (token.user_pin_count_low(), token.user_pin_final_try(), token.user_pin_locked());
            if library.get_token_info(slot).is_ok_and(|after| counted(&after) == counted(before)) {
                marker.remove()?;
            }
            Err(fault)
        }
    }
}

/// The file that remembers which PIN was tried on one token.
struct Marker {
    path: PathBuf,
    token: [u8; HALF],
}

impl Marker {
    /// The marker of the token with this serial number, label, model and manufacturer. Its name has the serial number for people, in which
    /// what is not a letter or digit is written as hex, so that none leaves the folder, and the beginning of a hash of them all.
    fn new(folder: &Path, token: [&str; 4]) -> Self {
        let mut hash = Sha256::new();
        for part in token {
            // The length keeps the parts apart.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let identity = <[u8; HALF]>::from(hash.finalize());
        let spell = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02x}") };
        let serial: String = token[0].bytes().map(spell).collect();
        Self { path: folder.join(format!("pin-{serial}-{}.tried", hex(&identity[..8]))), token: identity }
    }

    /// Whether this very PIN was tried.
    fn matches(&self, pin: &SecretString) -> Result<bool, Fault> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.fault("read", &error)),
        };
        let Some((salt, tag)) = bytes.split_at_checked(HALF).filter(|(_, tag)| tag.len() == HALF) else {
            // It is written whole or not at all, so somebody else wrote this: trying a PIN on that ground would be a guess.
            return Err(Fault::Refused(format!("{} is damaged; remove it to allow one try with the PIN", self.path.display())));
        };
        Ok(self.mac(salt, pin).verify_slice(tag).is_ok())
    }

    /// Remembers this PIN; durable when it returns.
    fn write(&self, pin: &SecretString) -> Result<(), Fault> {
        let mut bytes = [0; 2 * HALF];
        let (salt, tag) = bytes.split_at_mut(HALF);
        getrandom::fill(salt).map_err(|error| Fault::Refused(format!("the system gives no random bytes: {error}")))?;
        tag.copy_from_slice(&self.mac(salt, pin).finalize().into_bytes());
        self.replace(&bytes).map_err(|error| self.fault("written", &error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.sync_folder()
    }

    /// Forgets the PIN: it was right, or was not judged. Need not be durable: at worst a person has to remove the file.
    fn remove(&self) -> Result<(), Fault> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.fault("removed", &error)),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    fn mac(&self, salt: &[u8], pin: &SecretString) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes a key of any length");
        mac.update(&self.token);
        mac.update(pin.expose_secret().as_bytes());
        mac
    }

    fn fault(&self, what: &str, error: &io::Error) -> Fault {
        Fault::Refused(format!("{} cannot be {what}: {error}; without it no PIN is tried", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const TOKEN: [&str; 4] = ["12ab", "ab", "m", "v"];

    fn pin(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_marker_remembers_one_pin_of_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::new(folder.path(), TOKEN);
        assert!(!marker.matches(&pin("1234")).unwrap());
        marker.write(&pin("1234")).unwrap();
        assert!(marker.matches(&pin("1234")).unwrap());
        assert!(!marker.matches(&pin("12345")).unwrap());
        marker.write(&pin("5678")).unwrap();
        assert!(!marker.matches(&pin("1234")).unwrap() && marker.matches(&pin("5678")).unwrap());
        marker.remove().unwrap();
        assert!(!marker.matches(&pin("5678")).unwrap());
    }

    #[test]
    fn tokens_that_differ_in_anything_have_markers_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::new(folder.path(), TOKEN);
        marker.write(&pin("1234")).unwrap();
        let others = [
            ["12ac", "ab", "m", "v"],
            ["12ab", "ac", "m", "v"],
            ["12ab", "ab", "n", "v"],
            ["12ab", "ab", "m", "w"],
            ["12ab", "a", "bm", "v"],
        ];
        for other in others.map(|other| Marker::new(folder.path(), other)) {
            assert!(!other.matches(&pin("1234")).unwrap());
            // A right PIN: written, tried, removed.
            other.write(&pin("5678")).unwrap();
            other.remove().unwrap();
        }
        assert!(marker.matches(&pin("1234")).unwrap(), "the wrong PIN of the first is still known");
    }

    #[test]
    fn the_file_is_private_salted_and_holds_no_pin() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::new(folder.path(), TOKEN);
        marker.write(&pin("the-secret-pin")).unwrap();
        let first = fs::read(&marker.path).unwrap();
        assert_eq!(fs::metadata(&marker.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(first.len(), 2 * HALF);
        marker.write(&pin("the-secret-pin")).unwrap();
        assert_ne!(first, fs::read(&marker.path).unwrap());
    }

    #[test]
    fn odd_serials_stay_in_the_folder_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker::new(folder.path(), ["../a b", "", "", ""]);
        let name = marker.path.strip_prefix(folder.path()).unwrap().to_str().unwrap();
        assert_eq!(marker.path.extension().unwrap(), "tried");
        assert!(name.starts_with("pin-%2e%2e%2fa%20b-") && !name.contains('/'), "{name}");
        fs::write(&marker.path, b"short").unwrap();
        assert!(matches!(marker.matches(&pin("1234")), Err(Fault::Refused(_))));
    }
}
