//! `init`: state is made on purpose, once.
//!
//! In scope: the durable intent, the two log keys (find-or-create, only under that intent), the first record of each log. Out of scope:
//! keyrings and their keys, which the first `serve` makes. An `init` that was cut off is finished by running it again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::event::{Event, InitIntent, LogCreated, LogKind};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::names::{KeyName, LOG_KEYRING};
use claviger_audit::record::Asked;
use serde::{Deserialize, Serialize};

use super::{boot_name, log_key, setup, start_checkpoints};
use crate::clock::Clock;
use crate::config::Config;
use crate::health;
use crate::journal::state::{self, StateDir, StateError};
use crate::journal::{self, CreateError, KeyLog, Opened, Opening, UseLog};
use crate::keystore::{Keystore, KeystoreError};
use crate::signer::Keystores;

/// Why no state was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The state folder is in use, or cannot be.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is a log already.
    #[error("{0} holds a log already: this installation is initialised, and `claviger serve` starts it")]
    Exists(PathBuf),
    /// The keystore holds a log key that no intent here names: another state folder made it.
    #[error(
        "keystore {keystore:?} already holds the log key {name}, but this state folder has no log: mount the volume that has it; \
         a second history must not begin. A new installation needs another `installation` name"
    )]
    ForeignKey {
        /// The keystore.
        keystore: String,
        /// The key.
        name: KeyName,
    },
    /// The keystore does not do its part.
    #[error("keystore {keystore:?}: {source}")]
    Keystore {
        /// The keystore.
        keystore: String,
        /// What it said.
        source: KeystoreError,
    },
    /// A log was not made.
    #[error(transparent)]
    Log(#[from] CreateError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The intent of an earlier run cannot be understood.
    #[error("the intent in {0} is not one of `claviger init`; look at it, and remove it if it is not yours")]
    BadIntent(PathBuf),
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The verifier keys of the key log and the use log, for a trust file.
    pub verifier_keys: [String; 2],
    /// Where the logs are.
    pub logs: PathBuf,
}

/// Written durably before the first log key is made, so that a second run finds the same keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intent {
    keys: [KeyName; 2],
}

/// Makes the state of a new installation.
pub async fn init(config: &Config, clock: Arc<dyn Clock>) -> Result<Made, InitError> {
    let state = StateDir::lock(&config.state)?;
    let folders = [LogKind::Keys, LogKind::Uses].map(|kind| state.log_folder(kind));
    let earlier = state.intent(state::Intent::Init)?;
    let resumed = earlier.is_some();
    if !resumed && folders.iter().any(|folder| folder.exists()) {
        return Err(InitError::Exists(state.path().join("log")));
    }
    let keystores = setup::keystores(config, &clock);
    let name = &config.log_keystore;
    let fails = |source| InitError::Keystore { keystore: name.clone(), source };
    let missing = || KeystoreError::Rejected("it is not configured".to_owned());
    let keystore = keystores.get(name).cloned().ok_or_else(|| fails(missing()))?;
    health::wait_for(keystore.as_ref(), clock.as_ref()).await.map_err(fails)?;
    let intent = match earlier {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| InitError::BadIntent(state.path().to_owned()))?,
        None => intend(config, keystore.as_ref(), &state).await?,
    };
    let mut verifier_keys = Vec::new();
    for ((kind, origin), key) in [LogKind::Keys, LogKind::Uses].into_iter().zip(origins(config)).zip(&intent.keys) {
        let (verifier_key, made) = log_key::make(keystore.as_ref(), key, &origin).await.map_err(fails)?;
        let created = LogCreated {
            origin,
            key: verifier_key.to_string(),
            keystore: name.clone(),
            locator: made.locator.as_str().to_owned(),
            installation: config.installation.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let opening = Opening::local(kind, state.log_folder(kind), clock.clone(), config.node.clone(), boot_name());
        match journal::create(&opening, kind, Asked::default(), created) {
            // An earlier run came as far as this log; the key is the same, and so is its first record.
            Err(CreateError::Exists(_)) if resumed => {}
            made => drop(made?),
        }
        verifier_keys.push(verifier_key.to_string());
    }
    finish(config, &state, &clock, &keystores, intent).await?;
    state.forget(state::Intent::Init)?;
    let [keys, uses] = <[String; 2]>::try_from(verifier_keys).unwrap_or_default();
    Ok(Made { verifier_keys: [keys, uses], logs: state.path().join("log") })
}

/// The origins of the key log and of this node's use log (C2SP tlog-checkpoint), as `init` fixes them.
pub(super) fn origins(config: &Config) -> [String; 2] {
    [format!("{}/keys", config.origin), format!("{}/uses/node-{}", config.origin, config.node)]
}

/// The key log's second record, what was intended, and the first checkpoint of each log: from now on a verifier has something to hold on to.
async fn finish(config: &Config, state: &StateDir, clock: &Arc<dyn Clock>, keystores: &Keystores, intent: Intent) -> Result<(), InitError> {
    let io = |error: String| InitError::Io { path: state.path().join("log"), source: io::Error::other(error) };
    let boot = boot_name();
    let opening = |kind| Opening::local(kind, state.log_folder(kind), clock.clone(), config.node.clone(), boot.clone());
    let keys = KeyLog::open(&opening(LogKind::Keys)).map_err(|error| io(error.to_string()))?;
    let event = Event::InitIntent(InitIntent { keys: intent.keys.to_vec() });
    // A second run that comes here again finds the record, and adds none.
    let propose = move |keyrings: &Keyrings, _| Ok(if keyrings.size() == 1 { vec![event.clone()] } else { Vec::new() });
    keys.log.append(Asked::default(), propose).await.map_err(|error| io(error.to_string()))?;
    let uses = UseLog::open(&opening(LogKind::Uses), keys.log.clone()).map_err(|error| io(error.to_string()))?;
    cover(keys, uses, keystores, clock).await.map_err(io)
}

/// A checkpoint of each log, and the end of both.
pub(super) async fn cover(keys: Opened<KeyLog>, uses: Opened<UseLog>, keystores: &Keystores, clock: &Arc<dyn Clock>) -> Result<(), String> {
    for coverage in [keys.coverage, uses.coverage] {
        let checkpoints = start_checkpoints(coverage, keystores, clock).map_err(|error| error.to_string())?;
        checkpoints.checkpoint_now().await.map_err(|error| error.to_string())?;
    }
    uses.log.stop().await;
    keys.log.stop().await;
    Ok(())
}

/// Refuses if the keystore already holds a log key of this installation; else writes down, durably, which keys will be made.
async fn intend(config: &Config, keystore: &dyn Keystore, state: &StateDir) -> Result<Intent, InitError> {
    let fails = |source| InitError::Keystore { keystore: config.log_keystore.clone(), source };
    let held = keystore.inventory(&config.installation).await.map_err(fails)?;
    if let Some((name, _)) = held.into_iter().find(|(name, _)| name.keyring() == LOG_KEYRING) {
        return Err(InitError::ForeignKey { keystore: config.log_keystore.clone(), name });
    }
    let names = log_key::new_names(&config.installation, [1, 2]).map_err(fails)?;
    let intent = Intent { keys: names };
    state.intend(state::Intent::Init, &serde_json::to_vec(&intent).unwrap_or_default())?;
    Ok(intent)
}
