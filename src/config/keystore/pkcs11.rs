//! The settings of a PKCS#11 token.
//!
//! In scope: what the file may say of module, token and PIN, in settings of their own or in an RFC 7512 URI. Out of scope: opening them; the
//! PIN is a file, never a value.

use std::path::PathBuf;
use std::time::Duration;

use super::super::error::{Place, Problems};
use super::super::files;
use super::super::limits;
use super::super::names::{self, Folders};
use super::super::raw::RawKeystore;
use crate::keystore::pkcs11::{BadTokenSelector, DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, DeviceProfile, TokenSelector, TokenUri};
use crate::secret::SecretFile;

/// The settings that such a keystore has beside its type.
pub(super) const SETTINGS: &[&str] = &["module", "token", "pin_file", "workers", "queue_wait", "hang_after", "profile", "omits"];
/// Workers of a keystore unless the file says otherwise: more callers in a software token lengthen the wait and sign no faster.
pub const WORKERS: u16 = 2;
/// Most workers: each is a thread and a session, and tokens allow few.
const MOST_WORKERS: i64 = 64;
/// Less than a millisecond would refuse what any queue holds; nobody waits longer than the longest deadline.
const QUEUE_WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_mins(1));
/// Sooner, a device that is merely slow would be given up; later, nobody would notice.
const HANG_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

/// A token of a PKCS#11 module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// The module's shared library.
    pub module: PathBuf,
    /// The token.
    pub token: TokenSelector,
    /// The file that holds the PIN.
    pub pin: SecretFile,
    /// How many sessions sign.
    pub workers: u16,
    /// How long interactive work may wait for one of them.
    pub queue_wait: Duration,
    /// After how long a call counts as hung.
    pub hang_after: Duration,
    /// What the device is allowed not to tell of a key.
    pub profile: DeviceProfile,
}

impl Pkcs11Config {
    /// Whether both are known to be one token: of one library, by whatever links, and named so that no two tokens can fit.
    pub(super) fn is_same_token(&self, other: &Self) -> bool {
        self.token.names_same_as(&other.token) && files::same(&self.module, &other.module)
    }
}

/// Reads one.
pub(super) fn read(raw: &RawKeystore, folders: Folders<'_>, at: &Place, problems: &mut Problems<'_>) -> Option<Pkcs11Config> {
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
    Some(Pkcs11Config { module: module?, token: token?.token, pin, workers, queue_wait, hang_after, profile: profile? })
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
