//! Keystores: where keys live, and how to get in.
//!
//! In scope: the settings of PKCS#11 modules, the one kind that this build has. Out of scope: opening them; the PIN is a file, never a value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Place, Problems};
use super::limits;
use super::names::{self, Folders};
use super::raw::RawKeystore;
use crate::keystore::pkcs11::{DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, TokenSelector};
use crate::secret::SecretFile;

/// Workers of a keystore unless the file says otherwise: more callers in a software token lengthen the wait and sign no faster.
pub const WORKERS: u16 = 2;
/// Most workers: each is a thread and a session, and tokens allow few.
const MOST_WORKERS: i64 = 64;
/// Less than a millisecond would refuse what any queue holds; nobody waits longer than the longest deadline.
const QUEUE_WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_mins(1));
/// Sooner, a device that is merely slow would be given up; later, nobody would notice.
const HANG_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

/// A keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeystoreConfig {
    /// A PKCS#11 module.
    Pkcs11 {
        /// The module's shared library.
        module: PathBuf,
        /// The token.
        token: TokenSelector,
        /// The file that holds the PIN.
        pin: SecretFile,
        /// How many sessions sign.
        workers: u16,
        /// How long interactive work may wait for one of them.
        queue_wait: Duration,
        /// After how long a call counts as hung.
        hang_after: Duration,
    },
}

/// Reads all keystores.
pub(super) fn keystores(
    raw: BTreeMap<String, RawKeystore>,
    folders: Folders<'_>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, KeystoreConfig> {
    let mut keystores: BTreeMap<String, KeystoreConfig> = BTreeMap::new();
    for (name, raw) in raw {
        let at = Place::of("keystore").key(&name);
        let label = names::label(&name, &at, problems);
        problems.required(raw.r#type.as_deref(), &at.key("type"), "write type = \"pkcs11\"");
        let Some(keystore) = pkcs11(&raw, folders, &at, problems) else { continue };
        if let Some((other, _)) = keystores.iter().find(|(_, other)| same_token(other, &keystore)) {
            let remedy = "remove one: a token is one keystore, whatever its workers";
            problems.add(&at.key("token"), format!("keystore {other} has this token too"), remedy);
        }
        if let Some(label) = label {
            keystores.insert(label, keystore);
        }
    }
    keystores
}

fn pkcs11(raw: &RawKeystore, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<KeystoreConfig> {
    let mut file = |text: &Option<String>, name: &str, remedy: &str| {
        let place = at.key(name);
        let text = problems.required(text.as_deref(), &place, remedy)?;
        folders.path(text, &place, problems)
    };
    let module = file(&raw.module, "module", "name the module's shared library");
    let pin_file = file(&raw.pin_file, "pin_file", "name the file that holds the PIN, such as \"$CREDENTIALS_DIRECTORY/pin\"");
    let token = token(raw.token.clone(), &at.key("token"), problems);
    let workers = names::number(raw.workers, (1, MOST_WORKERS), WORKERS, &at.key("workers"), problems);
    let pin = SecretFile::new(pin_file?, folders.credentials);
    let queue_wait = limits::time(raw.queue_wait, QUEUE_WAIT, DEFAULT_QUEUE_WAIT, &at.key("queue_wait"), problems);
    let hang_after = limits::time(raw.hang_after, HANG_AFTER, DEFAULT_HANG_AFTER, &at.key("hang_after"), problems);
    Some(KeystoreConfig::Pkcs11 { module: module?, token: token?, pin, workers, queue_wait, hang_after })
}

fn token(text: Option<String>, place: &Place, problems: &mut Problems<'_>) -> Option<TokenSelector> {
    let text = problems.required(text, place, "write the token's label, or serial=NUMBER")?;
    let token = text.parse().ok();
    if token.is_none() {
        // The text is not repeated: in a URI a PIN may stand in it.
        problems.add(place, "is not a token's label or serial", "write its label, or serial=NUMBER; the PIN stands in pin_file");
    }
    token
}

fn same_token(one: &KeystoreConfig, other: &KeystoreConfig) -> bool {
    let (KeystoreConfig::Pkcs11 { module, token, .. }, KeystoreConfig::Pkcs11 { module: other_module, token: other_token, .. }) =
        (one, other);
    module == other_module && token == other_token
}
