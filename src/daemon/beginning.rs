//! What a run begins with: the locked state folder, both logs and their checkpoints, the policies, and the first records.
//!
//! In scope: each of these steps. Out of scope: their order, which [`super`] knows, and witnesses (`outside`).

use std::sync::Arc;

use claviger_audit::event::{ConfigLoaded, DaemonStart, Event, LogCreated, LogKind, PolicyLoaded};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::Hash;
use claviger_audit::names;
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::{StartError, init, log_key, setup};
use crate::clock::Clock;
use crate::config::{Config, files};
use crate::journal::state::StateDir;
use crate::journal::{AppendError, Checkpointer, Coverage, KeyLog, Opened, Opening, UseLog};
use crate::policy::PolicySet;
use crate::rotation::reconcile;
use crate::rotator::uses_head;
use crate::signer::Keystores;

/// The state folder, locked; its logs are nobody's while an adoption of them is not finished.
pub(super) fn lock(config: &Config) -> Result<StateDir, StartError> {
    let state = StateDir::lock(&config.state)?;
    if state.is_adopting()? { Err(StartError::Adopting) } else { Ok(state) }
}

/// Both logs, opened, and how the use log was. Where witnesses are configured, nothing is signed on them until those have been asked whether they know more.
pub(super) fn open_logs(
    config: &Config,
    state: &StateDir,
    clock: &Arc<dyn Clock>,
) -> Result<(Opened<KeyLog>, Opened<UseLog>, Opening), StartError> {
    let boot = boot_name();
    let opening = |kind| Opening::local(kind, state.log_folder(kind), clock.clone(), config.node.clone(), boot.clone());
    let (key_log, use_log) = (opening(LogKind::Keys), opening(LogKind::Uses));
    let keys = KeyLog::open(&key_log).map_err(|source| StartError::Log { log: "key", source })?;
    check_identity(config, &keys.created)?;
    let uses = UseLog::open(&use_log, keys.log.clone()).map_err(|source| StartError::Log { log: "use", source })?;
    if config.witnesses.is_some() {
        keys.log.standing().ask();
        uses.log.standing().ask();
    }
    for (name, recovery) in [("keys", &keys.recovery), ("uses", &uses.recovery)] {
        tracing::info!(log = name, size = recovery.size, covered = recovery.covered, dropped = ?recovery.dropped, "log opened");
    }
    Ok((keys, uses, use_log))
}

/// Installation and origin are part of every key's name and of the logs: a file that names others belongs to another state folder.
pub(super) fn check_identity(config: &Config, created: &LogCreated) -> Result<(), StartError> {
    let [origin, _] = init::origins(config);
    // A log that was adopted is named after the one before.
    let (first, _) = names::unadopted(&created.origin);
    let fixed = [("installation", config.installation.as_str(), created.installation.as_str()), ("origin", &origin, first)];
    match fixed.into_iter().find(|(_, file, log)| file != log) {
        None => Ok(()),
        Some((setting, file, log)) => Err(StartError::Config(format!(
            "`{setting}` is fixed by `claviger init`: the log in {} says {log:?}, the configuration {file:?}; correct the configuration, or mount \
             the state folder that belongs to it",
            config.state.display()
        ))),
    }
}

/// Starts the checkpoints of a log.
pub(super) fn start_checkpoints(coverage: Coverage, keystores: &Keystores, clock: &Arc<dyn Clock>) -> Result<Checkpointer, StartError> {
    let signers = log_key::signers(keystores.clone(), clock.clone());
    coverage.start(signers, Handle::current()).map_err(|error| StartError::Config(format!("cannot start a thread: {error}")))
}

/// The first records of this run: the start and what is in force.
pub(super) fn first_records(keys: &KeyLog, config: &Config, in_flight: u64, policies: Option<Event>) -> Result<Vec<Event>, StartError> {
    let mut wishes = setup::wishes(config);
    let snapshot = keys.snapshot();
    for keyring in reconcile::take_retired(&snapshot.keyrings, &mut wishes) {
        tracing::warn!(keyring, "is retired, and nobody signs for it; remove it from the configuration");
    }
    let changes = reconcile::reconcile(&snapshot.keyrings, &wishes).map_err(|conflicts| StartError::Config(lines(&conflicts)))?;
    for keyring in reconcile::missing(&snapshot.keyrings, &wishes) {
        tracing::warn!(keyring, "not in the configuration; it goes on until `keyring retire` ends it");
    }
    let start =
        DaemonStart { version: env!("CARGO_PKG_VERSION").to_owned(), unclean: snapshot.keyrings.is_running(&config.node), in_flight };
    let mut events = vec![Event::DaemonStart(start), config_event(config)];
    events.extend(policies);
    events.extend(changes);
    Ok(events)
}

/// Records the start, and where the use log stands. A log that takes no record is served from anyway.
pub(super) async fn record_start(keys: &KeyLog, uses: &UseLog, node: &str, first: Option<Vec<Event>>) -> Result<(), StartError> {
    let mut events = first.unwrap_or_default();
    events.push(Event::UsesHead(uses_head(uses, node)));
    match keys.append(Asked::default(), move |_, _| Ok(events.clone())).await {
        Ok(_) => Ok(()),
        Err(AppendError::Illegal(illegal)) => Err(StartError::Config(illegal.to_string())),
        Err(error) => {
            tracing::error!(%error, "the start could not be recorded: only the known sets are served");
            Ok(())
        }
    }
}

pub(super) fn config_event(config: &Config) -> Event {
    Event::ConfigLoaded(ConfigLoaded { sha256: config.sha256 })
}

pub(super) fn policy_event(policies: &PolicySet) -> Event {
    Event::PolicyLoaded(PolicyLoaded { sha256: Hash::from(policies.content_hash()), policies: policies.len() as u64 })
}

/// The policies of the configured folder, or what is wrong with them, a line each.
pub(super) fn load_policies(config: &Config, keyrings: &Keyrings) -> Result<PolicySet, String> {
    let files = files::policies(&config.policies).map_err(|error| error.to_string())?;
    setup::policies(config, Some(keyrings), &files).map_err(|errors| setup::problems(&errors))
}

pub(super) fn lines<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Bytes of a process name.
const BOOT_BYTES: usize = 8;

/// A random name of this process, in every record that it writes.
pub(super) fn boot_name() -> String {
    let mut bytes = [0; BOOT_BYTES];
    // Without randomness all runs have one name: records are then told apart by `daemon.start` alone.
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}
