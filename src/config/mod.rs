//! Text to a [`Config`] that cannot be wrong: names, addresses and references are checked, every inequality of the rotation design holds.
//!
//! In scope: the file, its defaults, and all errors at once, each with its place, what is wrong and what to do. Out of scope: whether the
//! files that it names exist, secrets (they are files, never values), policies, and anything that the log knows better. Overlap and lead are
//! computed, never configured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_audit::merkle::Hash;
use sha2::{Digest as _, Sha256};

use error::{Document, Place, Problems};
use keyring::Surroundings;
use names::Folders;
use raw::RawConfig;

use crate::policy::Identity;

mod caller;
mod changes;
mod effective;
mod error;
pub mod files;
mod issuer;
mod keyring;
mod keystore;
mod limits;
mod listener;
pub mod local;
mod names;
mod raw;
mod read;
mod span;
// Their example names every kind of keystore.
#[cfg(all(test, feature = "aws-kms"))]
mod tests;
mod timing;
mod witness;

pub use caller::CallerConfig;
pub use changes::Changes;
pub use effective::{Effective, EffectiveKeyring, EffectiveKeystore};
pub use error::{ConfigError, MOST_ERRORS};
pub use issuer::{Issuer, OUR_ROUTES};
pub use keyring::{CLAIMS_BYTES, KeyringConfig, PAYLOAD_BYTES, ProfileConfig};
pub use keystore::{KeystoreConfig, Pkcs11Config, VaultConfig, WORKERS};
pub use limits::{Limits, Subject};
pub use listener::{Bind, CallerKind, Listener, SOCKET_MODE, Surface, TlsFiles};
pub use witness::WitnessConfig;

/// Longest audience in bytes: it stands in every token of a caller.
const LONGEST_AUDIENCE: usize = 256;

/// A configuration that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Part of every key's name; fixed by `init`.
    pub installation: String,
    /// The logs' origin (C2SP tlog-checkpoint); fixed by `init`.
    pub origin: String,
    /// This machine, in the name of its use log.
    pub node: String,
    /// What `aud` of a caller's token must be; no profile allows it. By default `claviger:<installation>`.
    pub audience: String,
    /// The folder of logs, checkpoints, lock and markers.
    pub state: PathBuf,
    /// The folder of policies.
    pub policies: PathBuf,
    /// The keystore of the log keys.
    pub log_keystore: String,
    /// Who cosigns the logs' checkpoints, if anybody does.
    pub witnesses: Option<WitnessConfig>,
    /// By name.
    pub keystores: BTreeMap<String, KeystoreConfig>,
    /// By name.
    pub issuers: BTreeMap<String, Issuer>,
    /// By name.
    pub keyrings: BTreeMap<String, KeyringConfig>,
    /// By identity.
    pub callers: BTreeMap<Identity, CallerConfig>,
    /// At least one, in the file's order.
    pub listeners: Vec<Listener>,
    /// How much, how fast and how long.
    pub limits: Limits,
    /// What the use log says of subjects.
    pub audit_subject: Subject,
    /// How long records of uses, and of tokens beyond their end, must stay; 90 days.
    pub audit_retention: Duration,
    /// Of the file's bytes, for `config.loaded`.
    pub sha256: Hash,
}

/// The file could not be made into a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{file}: {error}; name a readable configuration file")]
    Unreadable {
        /// The file as it was named.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file says something that cannot be.
    #[error("{file}: {} error{}:\n{}", .errors.len(), if .errors.len() == 1 { "" } else { "s" }, lines(.errors))]
    Wrong {
        /// The file as it was named.
        file: String,
        /// All that was found.
        errors: Vec<ConfigError>,
    },
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("  {error}")).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads the file, and `$CREDENTIALS_DIRECTORY`, the only variable that a setting may name.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with all that is wrong.
    #[expect(clippy::disallowed_methods, reason = "config is one of the three places that read the environment")]
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let credentials = std::env::var_os(names::CREDENTIALS).filter(|value| !value.is_empty()).map(PathBuf::from);
        let name = || file.display().to_string();
        let text = read_text(file, read::LONGEST_TEXT).map_err(|error| LoadError::Unreadable { file: name(), error })?;
        Self::parse(&text, file, credentials.as_deref()).map_err(|errors| LoadError::Wrong { file: name(), errors })
    }

    /// Parses a text. Relative paths are relative to the folder of `file`; `credentials` is the value of `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at most [`MOST_ERRORS`]: first the form (unknown names, values of the wrong kind); once that is right, the
    /// meaning.
    pub fn parse(text: &str, file: &Path, credentials: Option<&Path>) -> Result<Self, Vec<ConfigError>> {
        let document = read::document(text)?;
        let raw = read::raw(&document)?;
        let folders = Folders { base: file.parent().unwrap_or(Path::new("")), credentials };
        let sha256 = Hash::from(<[u8; 32]>::from(Sha256::digest(text.as_bytes())));
        convert(raw, &document, folders, sha256)
    }

    /// The keyrings of an issuer.
    pub fn keyrings_of<'c>(&'c self, issuer: &'c str) -> impl Iterator<Item = &'c KeyringConfig> {
        self.keyrings.values().filter(move |keyring| keyring.issuer.as_deref() == Some(issuer))
    }

    /// What was computed, for `config check`.
    pub fn effective(&self) -> Effective {
        Effective::of(self)
    }
}

/// One byte more than the limit is read, so that a longer file is refused and not cut off.
fn read_text(file: &Path, longest: usize) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(longest as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The meaning: section by section, then the rules between sections.
fn convert(mut raw: RawConfig, document: &Document<'_>, folders: Folders<'_>, sha256: Hash) -> Result<Config, Vec<ConfigError>> {
    let mut problems = Problems::of(document);
    let p = &mut problems;
    let witnesses = raw.log.as_ref().and_then(|log| witness::witnesses(log, folders, p));
    let head = head(&mut raw, folders, p);
    let limits = limits::limits(&raw.limits.unwrap_or_default(), p);
    let audit = raw.audit.unwrap_or_default();
    let (audit_subject, audit_retention) = (limits::subject(&audit, p), limits::retention(&audit, p));
    // References are checked against what the file names, right or wrong: a wrong keystore is one error, not one for each keyring.
    let (keystore_names, issuer_names) = (names_of(&raw.keystore), names_of(&raw.issuer));
    let keystores = keystore::keystores(raw.keystore, folders, p);
    let issuers = issuer::issuers(raw.issuer, p);
    let urls: Vec<&str> = issuers.values().map(|issuer| issuer.url.as_str()).collect();
    let callers = caller::callers(raw.caller, &urls, p);
    let around = Surroundings {
        audience: head.as_ref().map(|head| head.audience.as_str()),
        issuers: &issuer_names,
        keystores: &keystore_names,
        defaults: &raw.defaults.unwrap_or_default(),
        deadline: limits.deadline,
        body_bytes: limits.body_bytes,
    };
    let read = raw.keyring.into_iter().filter_map(|(name, raw)| Some((name.clone(), keyring::keyring(&name, raw, around, p)?)));
    let keyrings: BTreeMap<String, KeyringConfig> = read.collect();
    keyring::refuse_confusable(&keyrings, p);
    timing::refuse_large_sets(&keyrings, p);
    let listeners = listener::listeners(raw.listener, folders, p);
    match head {
        Some(Head { installation, origin, node, audience, state, policies, log_keystore }) if problems.is_empty() => Ok(Config {
            installation,
            origin,
            node,
            audience,
            state,
            policies,
            log_keystore,
            witnesses,
            keystores,
            issuers,
            keyrings,
            callers,
            listeners,
            limits,
            audit_subject,
            audit_retention,
            sha256,
        }),
        _ => Err(problems.into_found()),
    }
}

/// What stands alone at the top of the file, and the log's keystore.
struct Head {
    installation: String,
    origin: String,
    node: String,
    audience: String,
    state: PathBuf,
    policies: PathBuf,
    log_keystore: String,
}

/// `None` once a problem is told.
fn head(raw: &mut RawConfig, folders: Folders<'_>, problems: &mut Problems<'_>) -> Option<Head> {
    let installation = name(raw.installation.take(), "installation", problems);
    let node = name(raw.node.take(), "node", problems);
    let at = Place::of("origin");
    let origin = problems.required(raw.origin.take(), &at, "name the logs, such as \"example.org/claviger\"");
    let origin = origin.and_then(|text| names::origin(&text, &at, problems));
    let audience = audience(raw.audience.take(), installation.as_deref(), problems);
    let state = folder(raw.state.take(), "state", folders, problems);
    let policies = folder(raw.policies.take(), "policies", folders, problems);
    let at = Place::of("log").key("keystore");
    let log_keystore = raw.log.take().and_then(|log| log.keystore);
    let log_keystore = problems.required(log_keystore, &at, "name the keystore in which the log keys live");
    if let Some(keystore) = &log_keystore {
        keyring::refers(keystore, "keystore", &names_of(&raw.keystore), &at, problems);
    }
    Some(Head {
        installation: installation?,
        origin: origin?,
        node: node?,
        audience: audience?,
        state: state?,
        policies: policies?,
        log_keystore: log_keystore?,
    })
}

fn names_of<T>(table: &BTreeMap<String, T>) -> Vec<String> {
    table.keys().cloned().collect()
}

fn name(text: Option<String>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
    let place = Place::of(key);
    let text = problems.required(text, &place, names::LABEL)?;
    names::label(&text, &place, problems)
}

fn folder(text: Option<String>, key: &str, folders: Folders<'_>, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let place = Place::of(key);
    let text = problems.required(text, &place, "name the folder")?;
    folders.path(&text, &place, problems)
}

fn audience(text: Option<String>, installation: Option<&str>, problems: &mut Problems<'_>) -> Option<String> {
    let Some(text) = text else { return installation.map(|installation| format!("claviger:{installation}")) };
    let well_formed = (1..=LONGEST_AUDIENCE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !well_formed {
        let remedy = "write 1 to 256 printable ASCII characters without spaces, or leave it out";
        problems.add(&Place::of("audience"), format!("{text:?} is not an audience"), remedy);
    }
    well_formed.then_some(text)
}
