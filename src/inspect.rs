//! What `doctor` asks of keystores and logs while no daemon runs; what `hsm check` asks of a token is in [`hsm`].
//!
//! In scope: whether each keystore answers, which keys it holds, and how they compare with the key log. Out of scope: changing anything:
//! a key that no record names, or that is not what it was, is reported, never deleted or repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claviger_audit::Algorithm;
use claviger_audit::event::LogKind;
use claviger_audit::keyrings::{Key, Keyrings};
use claviger_audit::names::KeyName;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, KeystoreConfig};
use crate::daemon::setup;
use crate::journal::state::{Intent, StateDir, StateError};
use crate::keystore::{Keystore, Locator};
use crate::{drift, health, orphans};

#[cfg(feature = "aws-kms")]
mod aws_kms;
pub mod hsm;
mod vault;

/// How one thing that was looked at stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// `Ok`: how it is. `Err`: what is wrong, and what to do.
    pub state: Result<String, String>,
}

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>, state: Result<String, String>) -> Self {
        Self { what: what.into(), state }
    }
}

/// Takes the lock, so that no daemon starts meanwhile; `Err` says who has it.
pub fn lock(config: &Config) -> Result<StateDir, StateError> {
    StateDir::lock(&config.state)
}

/// Rotations of a log's key that were under way when the last daemon ended.
pub fn unfinished(state: &StateDir) -> Vec<Finding> {
    let logs = [LogKind::Keys, LogKind::Uses].into_iter();
    let begun = logs.filter(|log| !matches!(state.intent(Intent::LogKey(*log)), Ok(None)));
    let finding = |log: LogKind| {
        let text =
            "a rotation was under way when the daemon ended: start it, and it says whether `claviger audit rotate-key` must finish it";
        Finding::new(format!("key of log {}", log.name()), Err(text.to_owned()))
    };
    begun.map(finding).collect()
}

/// Opens every keystore, waits for it, and compares what it holds with the key log. All are waited for at once: one that is dead costs no
/// more than one.
pub async fn keystores(config: &Config, keyrings: Option<&Keyrings>, clock: &Arc<dyn Clock>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut others: Vec<(String, BTreeSet<KeyName>)> = Vec::new();
    let keystores = setup::keystores(config, clock);
    let mut answers = JoinSet::new();
    for (name, keystore) in &keystores {
        let (name, keystore, clock, installation) = (name.clone(), keystore.clone(), clock.clone(), config.installation.clone());
        let settings = config.keystores.get(&name).cloned();
        let keys = keyrings.map(|keyrings| in_use(keyrings, &name)).unwrap_or_default();
        answers.spawn(async move {
            if let Err(error) = health::wait_for(keystore.as_ref(), clock.as_ref()).await {
                return (name, (Err(error), Vec::new()));
            }
            let missing = match &settings {
                Some(KeystoreConfig::Vault(vault)) => vault::permissions(vault, (&name, &installation), &clock).await,
                #[cfg(feature = "aws-kms")]
                Some(KeystoreConfig::AwsKms(kms)) => aws_kms::permissions(kms, &name, &keys, &clock).await,
                _ => Vec::new(),
            };
            let held = keystore.inventory(&installation).await;
            (name, (held, missing))
        });
    }
    let mut answers: BTreeMap<String, _> = answers.join_all().await.into_iter().collect();
    for (name, keystore) in keystores {
        let what = format!("keystore {name}");
        let Some((answer, missing)) = answers.remove(&name) else { continue };
        findings.extend(missing);
        match answer {
            Err(error) => findings.push(Finding::new(what, Err(error.to_string()))),
            Ok(held) => {
                let profile =
                    config.keystores.get(&name).and_then(KeystoreConfig::allowance).map(|text| format!("; {text}")).unwrap_or_default();
                findings.push(Finding::new(what, Ok(format!("answers, and holds {} keys of this installation{profile}", held.len()))));
                if let Some(keyrings) = keyrings {
                    let way_back = config.keystores.get(&name).and_then(KeystoreConfig::way_back);
                    findings.extend(drifted(&name, keystore.as_ref(), keyrings, way_back).await);
                    let orphans = orphans::among(&name, &held, keyrings, keyrings).into_iter();
                    findings.extend(orphans.map(|orphan| Finding::new(format!("key {}", orphan.key), Err(orphan.text))));
                }
                let held = held.into_iter().map(|(name, _)| name).collect();
                findings.extend(others.iter().filter_map(|(other, theirs)| shared((&name, &held), (other, theirs))));
                others.push((name, held));
            }
        }
    }
    findings
}

/// Two keystores that hold a key of one name (names are never used twice): the configuration cannot know that a label and a serial number
/// are those of one token, but whoever looks into both does.
fn shared((one, held): (&str, &BTreeSet<KeyName>), (other, theirs): (&str, &BTreeSet<KeyName>)) -> Option<Finding> {
    let name = held.intersection(theirs).next()?;
    let text =
        format!("holds {name}, and so does keystore {other}: both name one token, or one is a copy of the other; remove one of them");
    Some(Finding::new(format!("keystore {one}"), Err(text)))
}

/// Where the keys are that a keystore should hold, and what they sign.
fn in_use(keyrings: &Keyrings, keystore: &str) -> Vec<(Locator, Algorithm)> {
    let place = |key: &Key| Some((Locator::new(key.locator.as_deref()?), key.algorithm));
    drift::to_conform(keyrings, keystore).filter_map(place).collect()
}

/// Keys that the keystore should hold as they were made, and does not.
async fn drifted(name: &str, keystore: &dyn Keystore, keyrings: &Keyrings, way_back: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in drift::to_conform(keyrings, name) {
        let text = match drift::look_at(keystore, key).await {
            Ok(None) => continue,
            Ok(Some(found)) => {
                let text = format!("not what the log says of it: {found}. Find out who did it; then rotate, or restore it in {name}");
                way_back.map_or(text.clone(), |way| format!("{text}: {}", way.replace("KEY", key.locator.as_deref().unwrap_or_default())))
            }
            Err(error) => format!("{name} does not say how it is: {error}"),
        };
        findings.push(Finding::new(format!("key {}", key.name.as_ref().map_or("", KeyName::as_str)), Err(text)));
    }
    findings
}
