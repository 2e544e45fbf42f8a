//! Reload: configuration, policies and TLS pairs anew, all or nothing, and recorded.
//!
//! In scope: what may change while the daemon runs, and saying what needs a restart. Out of scope: noticing changes by itself; a single
//! changed file never loads anything.

use std::sync::Arc;

use claviger_audit::event::Event;
use claviger_audit::record::Asked;
use serde_json::{Value, json};

use super::{Daemon, config_event, lines, listeners, load_policies, policy_event, setup};
use crate::config::{Changes, Config, KeyringConfig};
use crate::refusal::{Code, Refusal};
use crate::rotation::reconcile;
use crate::signer::append_refusal;

/// Loads everything anew. The answer says what changed and what needs a restart; after a refusal everything is as before.
pub(super) async fn reload(daemon: &mut Daemon) -> Result<Value, Refusal> {
    let answer = try_reload(daemon).await;
    match &answer {
        Ok(changes) => tracing::info!(%changes, "reloaded"),
        Err(refusal) => tracing::error!(%refusal, "nothing was reloaded"),
    }
    answer
}

async fn try_reload(daemon: &mut Daemon) -> Result<Value, Refusal> {
    let refused = |text: String| Refusal::new(Code::Profile, format!("nothing was reloaded: {text}"));
    let mut config = Config::load(&daemon.config_file).map_err(|error| refused(error.to_string()))?;
    let changes = Changes::between(&daemon.config, &config);
    if !changes.refused.is_empty() {
        return Err(refused(changes.refused.join("\n")));
    }
    // The signer keeps its deadline until a restart, so the log must too: Q counts on it (I3).
    let deadline_ms = u64::try_from(daemon.config.limits.deadline.as_millis()).unwrap_or(u64::MAX);
    config.keyrings.values_mut().for_each(|keyring| keyring.timing.deadline_ms = deadline_ms);
    let snapshot = daemon.keys.snapshot();
    let policies = load_policies(&config, &snapshot.keyrings).map_err(refused)?;
    let wishes = setup::wishes(&config);
    let events = reconcile::reconcile(&snapshot.keyrings, &wishes).map_err(|conflicts| refused(lines(&conflicts)))?;
    let missing: Vec<String> = reconcile::missing(&snapshot.keyrings, &wishes).into_iter().map(str::to_owned).collect();
    let keystores = |keyring: &KeyringConfig| [Some(keyring.keystore.clone()), keyring.standby_keystore.clone()].into_iter().flatten();
    let mut used = config.keyrings.values().flat_map(|keyring| keystores(keyring).map(|keystore| (&keyring.name, keystore)));
    if let Some((keyring, keystore)) = used.find(|(_, keystore)| !daemon.keystores.contains_key(keystore)) {
        return Err(refused(format!("keyring {keyring:?} is to use keystore {keystore:?}, which is opened at a restart only")));
    }
    let mut pairs = Vec::new();
    for (files, slot) in &daemon.tls {
        pairs.push((slot.clone(), listeners::load(files).map_err(refused)?));
    }
    let count = events.len();
    let records: Vec<Event> = [config_event(&config), policy_event(&policies)].into_iter().chain(events).collect();
    let appended = daemon.keys.append(Asked::default(), move |_, _| Ok(records.clone())).await;
    appended.map_err(|error| append_refusal(&error))?;
    // Commit point: the records are durable; now everything is in force together.
    let loaded = policies.len();
    daemon.app.signer.rules().store(Arc::new(setup::rules(&config, Some(policies))));
    daemon.app.callers.store(Arc::new(setup::callers(&config)));
    daemon.app.routes.store(Arc::new(setup::routes(&config, &snapshot.keyrings)));
    for (slot, pair) in pairs {
        slot.store(pair);
    }
    daemon.rotator.wake.notify_one();
    let answer = json!({
        "policies": loaded,
        "keyring_records": count,
        "changed": changes.reloaded,
        "needs_restart": changes.restart,
        "not_in_the_file": missing,
    });
    daemon.config = config.until_restart(&daemon.config);
    Ok(answer)
}
