//! Suspending and compromising while no daemon runs: the lock is taken, and the record appended.
//!
//! In scope: the two verbs that cannot wait for a daemon. Out of scope: keystores (the next start disables a compromised key there) and
//! checkpoints (the next start covers the record).

use std::sync::Arc;

use claviger_audit::event::{Event, LogKind};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::record::Asked;
use tokio::sync::oneshot;

use super::boot_name;
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::state::{StateDir, StateError};
use crate::journal::{AppendError, KeyLog, OpenError, Opening};
use crate::operator::{Done, Verb};

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A daemon runs: it is the one to ask.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// What an adoption left half done nobody else may open.
    #[error("an adoption of these logs was begun and not finished: run `claviger audit adopt --accept-loss` again")]
    Adopting,
    /// The record was refused or could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Appends what the verb means, as this user.
pub async fn append(config: &Config, clock: Arc<dyn Clock>, verb: Verb) -> Result<Done, OfflineError> {
    let state = StateDir::lock(&config.state)?;
    if state.is_adopting()? {
        return Err(OfflineError::Adopting);
    }
    let opening = Opening::local(LogKind::Keys, state.log_folder(LogKind::Keys), clock, config.node.clone(), boot_name());
    let keys = KeyLog::open(&opening)?.log;
    let caller = format!("unix:uid={}", rustix::process::getuid().as_raw());
    let asked = Asked { caller: Some(caller), ..Asked::default() };
    let (report, events) = oneshot::channel::<Vec<Event>>();
    let mut report = Some(report);
    let propose = move |keyrings: &Keyrings, now| {
        let events = verb.events(keyrings, now)?;
        if let Some(report) = report.take() {
            // The receiver stands below, in this function.
            let _ = report.send(events.clone());
        }
        Ok(events)
    };
    let receipts = keys.append(asked, propose).await?;
    keys.stop().await;
    Ok(Done { events: events.await.unwrap_or_default(), receipts })
}
