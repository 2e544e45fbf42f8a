//! What reaches beyond this machine: witnesses, who are asked before anything is signed, and readers of the key log.
//!
//! In scope: starting both, and the end of a start that a witness contradicts. Out of scope: what they do.

use std::sync::Arc;

use claviger_audit::event::LogKind;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Daemon, StartError, record_start, setup};
use crate::clock::Clock;
use crate::config::{Config, Surface};
use crate::journal::{Checkpointer, Standing};
use crate::logbook::Logbook;
use crate::witness::Witnesses;

impl Daemon {
    /// Asks the witnesses whether they know more of the logs, while key sets are served and nothing is signed; then the start is recorded.
    /// `false` if a signal said stop meanwhile: then there is nothing to record.
    pub(super) async fn confirm(&mut self) -> Result<bool, StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let Some(witnesses) = self.app.operator.witnesses.clone() else { return Ok(true) };
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        // A hang-up is only kept from ending the process: what is in the files is about to be in force anyway.
        let (Ok(mut terminate), Ok(mut interrupt), Ok(_hangup)) = signals else {
            return Err(StartError::Config("signals cannot be received".to_owned()));
        };
        let asked = tokio::select! {
            asked = witnesses.asked() => Some(asked),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        if let Some(Ok(())) = asked {
            self.keys.standing().confirm();
            self.uses.standing().confirm();
            record_start(&self.keys, &self.uses, &self.config.node, self.unrecorded.take()).await?;
            return Ok(true);
        }
        self.stop.cancel();
        self.uses.stop().await;
        self.keys.stop().await;
        match asked {
            Some(Err((kind, source))) => Err(StartError::Log { log: if kind == LogKind::Keys { "key" } else { "use" }, source }),
            _ => Ok(false),
        }
    }
}

/// Starts asking those who cosign the logs, if anybody does.
pub(super) fn start_witnesses(
    config: &Config,
    logs: [(Checkpointer, Standing); 2],
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<Arc<Witnesses>>, StartError> {
    let Some(settings) = setup::witnesses(config).map_err(StartError::Config)? else { return Ok(None) };
    let started = Witnesses::start(settings, logs, (clock, stop), &Handle::current());
    started.map(|witnesses| Some(Arc::new(witnesses))).map_err(|error| StartError::Config(format!("cannot start a thread: {error}")))
}

/// What shows the key log, if some listener does.
pub(super) fn open_logbook(
    config: &Config,
    checkpoints: &Checkpointer,
    witnesses: Option<&Witnesses>,
) -> Result<Option<Logbook>, StartError> {
    if !config.listeners.iter().any(|listener| listener.serves.contains(&Surface::Log)) {
        return Ok(None);
    }
    let opened = Logbook::open(checkpoints.clone(), witnesses.map(|witnesses| witnesses.log(LogKind::Keys).clone()));
    opened.map(Some).map_err(|error| StartError::Config(format!("cannot start a thread: {error}")))
}
