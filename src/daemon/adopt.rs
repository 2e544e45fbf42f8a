//! `audit adopt`: an operator accepts that a log lost its tail, and a new log goes on from what is left.
//!
//! In scope: what is told before (what is lost, which keys no record names), the durable intent, the new log keys (find-or-create, only under
//! that intent), the first checkpoints. Out of scope: files (`journal::adopt`) and keystores' keys: nothing is deleted, disabled or repaired.
//! An adoption that was cut off is finished by running it again.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::Timestamp;
use claviger_audit::event::{Event, KeySuspended, LogCreated, LogKind};
use claviger_audit::keyrings::{Keyrings, State};
use claviger_audit::names::{KeyName, LOG_KEYRING, adopted_origin};
use claviger_audit::record::Asked;

use super::{StartError, boot_name, check_identity, init, last_answers, log_key, setup};
use crate::clock::Clock;
use crate::config::Config;
use crate::health;
use crate::journal::adopt::{self, AdoptError, Intent, Standing, Successor};
use crate::journal::disk::LocalDisk;
use crate::journal::state::{StateDir, StateError};
use crate::journal::{KeyLog, Opening, UseLog};
use crate::keystore::{Keystore, KeystoreError};
use crate::rotator::uses_head;
use crate::signer::Keystores;

/// What the operator says.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Whether to do it; else only to tell.
    pub accept_loss: bool,
    /// Why.
    pub reason: Option<String>,
    /// Sizes that logs are known to have had, by origin.
    pub known_sizes: Vec<(String, u64)>,
}

/// What is lost of one log, or would be accepted as lost.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Which log.
    pub kind: LogKind,
    /// Its origin.
    pub origin: String,
    /// The origin of the log that goes on from it.
    pub successor: String,
    /// How many records it has.
    pub size: u64,
    /// How many more it is known to have had.
    pub lost: u64,
    /// What knows of them, and how many records it names.
    pub known: Vec<(String, u64)>,
}

/// Everything that is told before.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The logs that are short, and those that end with them; none if no log is short.
    pub logs: Vec<Lost>,
    /// Names that a keystore holds and no record knows, by keystore.
    pub unknown: Vec<(String, KeyName)>,
    /// Keystores that could not be asked, and why.
    pub unasked: Vec<(String, String)>,
    /// The kids of the keys that could sign: they are suspended.
    pub suspended: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// What was told, if this run did not only finish an earlier one.
    pub losses: Losses,
    /// The verifier keys of the new logs, for the trust file.
    pub verifier_keys: Vec<String>,
    /// The folder of the logs that ended.
    pub former: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No log is short by anything that is known.
    Whole,
    /// What would be accepted.
    Told(Losses),
    /// Done.
    Adopted(Adopted),
}

/// Why nothing was adopted, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// A daemon runs, or the folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configuration is of another installation.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Files.
    #[error(transparent)]
    Files(#[from] AdoptError),
    /// The keystore does not do its part.
    #[error("keystore {keystore:?}: {source}")]
    Keystore {
        /// The keystore.
        keystore: String,
        /// What it said.
        source: KeystoreError,
    },
    /// The new logs are in place, but could not be opened or covered.
    #[error("{0}; run `claviger audit adopt --accept-loss` again")]
    Unfinished(String),
}

/// Everything that the story needs.
struct Adoption<'c> {
    config: &'c Config,
    clock: Arc<dyn Clock>,
    state: StateDir,
    boot: String,
    keystores: Keystores,
    asked: Asked,
}

/// Tells what is lost, and accepts it if that is wished.
pub async fn adopt(config: &Config, clock: Arc<dyn Clock>, wish: &Wish) -> Result<Outcome, AdoptionError> {
    let state = StateDir::lock(&config.state)?;
    let keystores = setup::keystores(config, &clock);
    // What `unix` listeners call the same user.
    let caller = format!("unix:uid={}", rustix::process::getuid().as_raw());
    let asked = Asked { caller: Some(caller), ..Asked::default() };
    let adoption = Adoption { config, clock, state, boot: boot_name(), keystores: keystores.clone(), asked };
    let outcome = adoption.run(wish).await;
    last_answers(&keystores).await;
    outcome
}

impl Adoption<'_> {
    async fn run(self, wish: &Wish) -> Result<Outcome, AdoptionError> {
        let logs = self.state.logs();
        if let Some(intent) = Intent::earlier(&LocalDisk, &logs)? {
            if !wish.accept_loss {
                return Err(AdoptionError::Unfinished("an adoption of these logs was begun and not finished".to_owned()));
            }
            return self.finish(&intent, Losses::default()).await.map(Outcome::Adopted);
        }
        let [keys, uses] = [LogKind::Keys, LogKind::Uses].map(|kind| self.opening(kind));
        let survey = adopt::survey(&keys, &uses, &wish.known_sizes).map_err(AdoptError::from)?;
        check_identity(self.config, &survey.keys.created)?;
        let short = survey.short();
        if short.is_empty() {
            return Ok(Outcome::Whole);
        }
        let losses = self.losses(&short, &survey.keyrings).await;
        if !wish.accept_loss {
            return Ok(Outcome::Told(losses));
        }
        let names = self.log_key_names(short.len()).await?;
        let intent = Intent::new(&LocalDisk, &logs, &short, names, wish.reason.as_deref())?;
        intent.write(&LocalDisk, &logs)?;
        self.finish(&intent, losses).await.map(Outcome::Adopted)
    }

    fn opening(&self, kind: LogKind) -> Opening {
        Opening::local(kind, self.state.log_folder(kind), self.clock.clone(), self.config.node.clone(), self.boot.clone())
    }

    fn fails(&self, source: KeystoreError) -> AdoptionError {
        AdoptionError::Keystore { keystore: self.config.log_keystore.clone(), source }
    }

    async fn log_keystore(&self) -> Result<&Arc<dyn Keystore>, AdoptionError> {
        let missing = || self.fails(KeystoreError::Rejected("it is not configured".to_owned()));
        let keystore = self.keystores.get(&self.config.log_keystore).ok_or_else(missing)?;
        health::wait_for(keystore.as_ref(), self.clock.as_ref()).await.map_err(|source| self.fails(source))?;
        Ok(keystore)
    }

    async fn losses(&self, short: &[&Standing], keyrings: &Keyrings) -> Losses {
        let logs = short.iter().map(|log| Lost {
            kind: log.kind,
            origin: log.created.origin.clone(),
            successor: adopted_origin(&log.created.origin),
            size: log.size,
            lost: log.lost(),
            known: log.known.clone(),
        });
        let mut losses = Losses { logs: logs.collect(), suspended: active(keyrings), ..Losses::default() };
        for (name, keystore) in &self.keystores {
            let opened = health::wait_for(keystore.as_ref(), self.clock.as_ref()).await;
            let held = match opened {
                Ok(()) => keystore.inventory(&self.config.installation).await,
                Err(error) => Err(error),
            };
            match held {
                Ok(held) => losses.unknown.extend(
                    held.into_iter()
                        .map(|(key, _)| (name.clone(), key))
                        .filter(|(_, key)| keyrings.key_named(key).is_none() && key.keyring() != LOG_KEYRING),
                ),
                Err(error) => losses.unasked.push((name.clone(), error.to_string())),
            }
        }
        losses
    }

    /// Names for so many log keys, with numbers that no log key of this installation has.
    async fn log_key_names(&self, count: usize) -> Result<Vec<KeyName>, AdoptionError> {
        let held = self.log_keystore().await?.inventory(&self.config.installation).await.map_err(|source| self.fails(source))?;
        let last = held.iter().filter(|(name, _)| name.keyring() == LOG_KEYRING).map(|(name, _)| name.number()).max().unwrap_or(0);
        let names = log_key::new_names(&self.config.installation, [last + 1, last + 2]).map_err(|source| self.fails(source))?;
        Ok(names.into_iter().take(count).collect())
    }

    /// Does what is intended, from wherever an earlier run left it.
    async fn finish(&self, intent: &Intent, losses: Losses) -> Result<Adopted, AdoptionError> {
        let mut verifier_keys = Vec::new();
        for successor in &intent.logs {
            verifier_keys.push(self.build(successor).await?);
        }
        for successor in &intent.logs {
            adopt::swap(&self.opening(successor.kind), successor, intent.number)?;
        }
        self.cover().await?;
        Intent::forget(&LocalDisk, &self.state.logs())?;
        Ok(Adopted { losses, verifier_keys, former: self.state.logs().join("former").join(intent.number.to_string()) })
    }

    async fn build(&self, successor: &Successor) -> Result<String, AdoptionError> {
        let keystore = self.log_keystore().await?;
        let made = log_key::make(keystore.as_ref(), &successor.key, &successor.origin).await;
        let (key, made) = made.map_err(|source| self.fails(source))?;
        let created = LogCreated {
            origin: successor.origin.clone(),
            key: key.to_string(),
            keystore: self.config.log_keystore.clone(),
            locator: made.locator.as_str().to_owned(),
            installation: self.config.installation.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        adopt::build(&self.opening(successor.kind), successor, self.asked.clone(), created)?;
        Ok(key.to_string())
    }

    /// The key log names the use log that goes on, and both get a checkpoint: from now on a verifier has something to hold on to. Where the
    /// use log ended alone, it is here that the keys are suspended.
    async fn cover(&self) -> Result<(), AdoptionError> {
        let text = |error: String| AdoptionError::Unfinished(error);
        let keys = KeyLog::open(&self.opening(LogKind::Keys)).map_err(|error| text(error.to_string()))?;
        let uses = UseLog::open(&self.opening(LogKind::Uses), keys.log.clone()).map_err(|error| text(error.to_string()))?;
        let head = uses_head(&uses.log, &self.config.node);
        let propose = move |keyrings: &Keyrings, _: Timestamp| {
            // A run that comes here again finds the head, and adds nothing: keys that were resumed since stay so.
            if keyrings.uses_heads().get(&head.of).is_some_and(|(_, named)| named.origin == head.origin) {
                return Ok(Vec::new());
            }
            let reason = format!("{} goes on from a use log that lost its tail", head.origin);
            let suspended = active(keyrings).into_iter().map(|kid| Event::KeySuspended(KeySuspended { kid, reason: reason.clone() }));
            Ok(suspended.chain([Event::UsesHead(head.clone())]).collect())
        };
        keys.log.append(self.asked.clone(), propose).await.map_err(|error| text(error.to_string()))?;
        init::cover(keys, uses, &self.keystores, &self.clock).await.map_err(text)
    }
}

/// The kids of the keys that sign.
fn active(keyrings: &Keyrings) -> Vec<String> {
    let keys = keyrings.all().flat_map(|keyring| &keyring.keys).filter(|key| key.state == State::Active);
    keys.filter_map(|key| key.kid.clone()).collect()
}

impl AdoptionError {
    /// Whether reading or writing failed, and not what was read.
    pub fn is_io(&self) -> bool {
        let is_io = |error: &AdoptError| match error {
            AdoptError::Io { .. } | AdoptError::Create(_) => true,
            AdoptError::Open(error) => matches!(error, crate::journal::OpenError::Io { .. }),
            AdoptError::BadIntent(_) => false,
        };
        matches!(self, Self::State(StateError::Io { .. })) || matches!(self, Self::Files(error) if is_io(error))
    }
}
