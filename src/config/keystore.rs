//! Keystores: where keys live, and how to get in.
//!
//! In scope: the settings of PKCS#11 modules, the one kind that this build has. Out of scope: opening them; the PIN is a file, never a value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Place, Problems};
use super::files;
use super::limits;
use super::names::{self, Folders};
use super::raw::RawKeystore;
use crate::keystore::pkcs11::{BadTokenSelector, DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, DeviceProfile, TokenSelector, TokenUri};
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
        /// What the device is allowed not to tell of a key.
        profile: DeviceProfile,
    },
}

impl KeystoreConfig {
    /// What the device is allowed not to tell of a key.
    pub fn profile(&self) -> &DeviceProfile {
        let Self::Pkcs11 { profile, .. } = self;
        profile
    }
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
    let token = token(raw.token.as_deref(), &at.key("token"), problems);
    let mut file = |name: &str, text: &Option<String>, in_uri: fn(&TokenUri) -> Option<&String>, remedy: &str| {
        let place = at.key(name);
        let from_uri = token.as_ref().and_then(in_uri).map(PathBuf::from);
        let Some(text) = text else {
            // Of a token that is wrong, nobody knows whether it names the file.
            let missing = from_uri.is_none() && (token.is_some() || !raw.token.as_deref().is_some_and(TokenUri::is_meant_by));
            return if missing { problems.required(None, &place, remedy) } else { from_uri };
        };
        let path = folders.path(text, &place, problems)?;
        if from_uri.is_some_and(|other| !files::same(&path, &other)) {
            problems.add(&place, "is not the file that the URI in `token` names", "name it in one place, or the same file in both");
        }
        Some(path)
    };
    let module = file("module", &raw.module, |uri| uri.module_path.as_ref(), "name the module's shared library");
    let remedy = "name the file that holds the PIN, such as \"$CREDENTIALS_DIRECTORY/pin\"";
    let pin_file = file("pin_file", &raw.pin_file, |uri| uri.pin_source.as_ref(), remedy);
    let workers = names::number(raw.workers, (1, MOST_WORKERS), WORKERS, &at.key("workers"), problems);
    let profile = profile(raw, at, problems);
    let pin = SecretFile::new(pin_file?, folders.credentials);
    let queue_wait = limits::time(raw.queue_wait, QUEUE_WAIT, DEFAULT_QUEUE_WAIT, &at.key("queue_wait"), problems);
    let hang_after = limits::time(raw.hang_after, HANG_AFTER, DEFAULT_HANG_AFTER, &at.key("hang_after"), problems);
    Some(KeystoreConfig::Pkcs11 { module: module?, token: token?.token, pin, workers, queue_wait, hang_after, profile: profile? })
}

/// The profile, and what the operator adds to it.
fn profile(raw: &RawKeystore, at: &Place, problems: &mut Problems<'_>) -> Option<DeviceProfile> {
    let name = raw.profile.as_deref().unwrap_or_else(|| DeviceProfile::default().name());
    let mut profile = DeviceProfile::named(name);
    if profile.is_none() {
        let known = DeviceProfile::names().collect::<Vec<_>>().join(", ");
        problems.add(&at.key("profile"), format!("{name:?} is not a profile of a device"), format!("known are {known}"));
    }
    for (index, attribute) in raw.omits.iter().flatten().enumerate() {
        let more = profile.clone().unwrap_or_default().omitting(attribute);
        if more.is_none() {
            let known = DeviceProfile::omittable().collect::<Vec<_>>().join(", ");
            let problem = format!("{attribute:?} may not be missing, or is no attribute that is asked for");
            problems.add(&at.key("omits").index(index), problem, format!("take it out; only these may be missing: {known}"));
        }
        profile = profile.and(more);
    }
    profile
}

/// What `token` says: a label or serial number says nothing of files. No error repeats any of it: in a URI a PIN may stand in it.
fn token(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<TokenUri> {
    let text = problems.required(text, place, "write the token's label, serial=NUMBER or an RFC 7512 URI")?;
    let read = if TokenUri::is_meant_by(text) {
        text.parse::<TokenUri>().map_err(|error| (error.problem, error.remedy))
    } else {
        let plain = text.parse().map(|token| TokenUri { token, module_path: None, pin_source: None });
        let remedy = "write its label, serial=NUMBER or an RFC 7512 URI; the PIN stands in pin_file";
        plain.map_err(|error: BadTokenSelector| (error.problem, remedy))
    };
    read.map_err(|(problem, remedy)| problems.add(place, problem, remedy)).ok()
}

/// Whether both are known to be one token: of one library, by whatever links, and named so that no two tokens can fit.
fn same_token(one: &KeystoreConfig, other: &KeystoreConfig) -> bool {
    let (KeystoreConfig::Pkcs11 { module, token, .. }, KeystoreConfig::Pkcs11 { module: other_module, token: other_token, .. }) =
        (one, other);
    token.names_same_as(other_token) && files::same(module, other_module)
}
