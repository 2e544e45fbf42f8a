//! Witnesses: others who say that a log only ever grew (C2SP tlog-witness, tlog-cosignature, tlog-policy).
//!
//! In scope: every checkpoint of both logs goes to every witness of the policy file, each with a thread of its own, so that a dead one delays
//! nothing; what they say is gathered until the quorum is reached; what they know at the start is compared with what the disk holds. Out of
//! scope: the logs (`journal`), and what is refused while a log is in doubt (signer, operator). Nothing here is ever waited for by a signature
//! or a transition.
//!
//! Files by story: [`submission`] is the protocol's text, `client` its transport; [`gathering`] counts; `desk` is the loop of one witness.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::event::LogKind;
use claviger_audit::trust::Policy;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::journal::{Checkpointer, OpenError, Standing};
use crate::metrics::{LogLabel, Metrics, WitnessLabel};

mod client;
mod desk;
pub mod gathering;
pub mod submission;
#[cfg(test)]
mod tests;

pub use client::{ClientError, Target, tls_config};
pub use gathering::Gathering;

use desk::{Counter, Desk};

/// Most witnesses: each has a thread and a connection of its own.
pub const MOST_WITNESSES: usize = 32;
/// The two logs, in the order in which they are served: a verb may wait for the key log.
pub const LOGS: [LogKind; 2] = [LogKind::Keys, LogKind::Uses];

/// Whom to ask, and how.
pub struct Settings {
    /// Witnesses with their submission prefixes, and the quorum.
    pub policy: Arc<Policy>,
    /// Where each witness of the policy is reached, in its order.
    pub targets: Vec<Target>,
    /// For one exchange, from connecting to the end of the answer.
    pub timeout: Duration,
    /// Whom to believe about `https` witnesses.
    pub tls: Arc<ClientConfig>,
}

/// How things stand with one witness.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether its last answer was a cosignature, or at least well-formed.
    pub up: bool,
    /// It said something that must not be; stays until a restart.
    pub alarm: Option<String>,
    /// Why the last exchange brought nothing.
    pub failure: Option<String>,
    /// Exchanges that brought nothing, since the start.
    pub failures: u64,
    /// What it is known to have cosigned: keys, uses.
    pub sizes: [u64; 2],
    /// Whether it was tried for the log since the start, whatever came of it.
    tried: [bool; 2],
}

/// All statuses, in the order of the policy.
pub(crate) struct Board {
    statuses: Mutex<Vec<Status>>,
    changed: watch::Sender<()>,
    /// What the start must not go on with: the log, and why.
    refuted: Mutex<Option<(LogKind, OpenError)>>,
}

impl Board {
    fn new(witnesses: usize) -> Self {
        Self { statuses: Mutex::new(vec![Status::default(); witnesses]), changed: watch::Sender::new(()), refuted: Mutex::default() }
    }

    fn update(&self, witness: usize, change: impl FnOnce(&mut Status)) {
        if let Some(status) = self.lock().get_mut(witness) {
            change(status);
        }
        self.changed.send_replace(());
    }

    fn refute(&self, kind: LogKind, error: OpenError) {
        self.refuted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((kind, error));
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Status>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All witnesses of a daemon.
pub struct Witnesses {
    policy: Arc<Policy>,
    timeout: Duration,
    logs: [Arc<Gathering>; 2],
    board: Arc<Board>,
}

impl Witnesses {
    /// Starts a thread for each witness; they end with `stop`. `logs` are the key log and the use log, each with what is to be told if the
    /// first word of a witness refutes it.
    pub fn start(
        settings: Settings,
        logs: [(Checkpointer, Standing); 2],
        (clock, stop): (&Arc<dyn Clock>, &CancellationToken),
        runtime: &Handle,
    ) -> io::Result<Self> {
        let Settings { policy, targets, timeout, tls } = settings;
        let board = Arc::new(Board::new(targets.len()));
        let gather = |checkpoints| Arc::new(Gathering::new(checkpoints, &policy, timeout * ROUND_IN_TIMEOUTS));
        let logs = logs.map(|(checkpoints, standing)| (gather(checkpoints), standing));
        for (index, (witness, target)) in policy.witnesses().iter().zip(targets).enumerate() {
            let counters = [0, 1].map(|log: usize| Counter::new(LOGS[log], logs[log].0.clone(), logs[log].1.clone(), index));
            let desk = Desk {
                index,
                name: witness.name.clone(),
                key: witness.key.clone(),
                counters,
                client: client::Client::new(target, tls.clone(), timeout),
                board: board.clone(),
                clock: clock.clone(),
                stop: stop.clone(),
            };
            let runtime = runtime.clone();
            std::thread::Builder::new().name(format!("witness-{index}")).spawn(move || desk.run(&runtime))?;
        }
        Ok(Self { policy, timeout, logs: logs.map(|(gathering, _)| gathering), board })
    }

    /// Returns once every witness was tried for both logs, or the time for that has passed. `Err` if one of them knows more of a log than
    /// the disk does, or another history.
    pub async fn asked(&self) -> Result<(), (LogKind, OpenError)> {
        let mut changed = self.board.changed.subscribe();
        let all = async {
            while !self.board.lock().iter().all(|status| status.tried == [true; 2]) {
                if self.is_refuted() || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Two logs, each with a second attempt at the size that the witness names, a second apart.
        if tokio::time::timeout(self.timeout * 4 + desk::PACE * 2, all).await.is_err() {
            tracing::warn!("not every witness could be asked; whoever answers later is believed then");
        }
        let refuted = self.board.refuted.lock().unwrap_or_else(PoisonError::into_inner).take();
        refuted.map_or(Ok(()), Err)
    }

    fn is_refuted(&self) -> bool {
        self.board.refuted.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What was gathered for a log.
    pub fn log(&self, kind: LogKind) -> &Arc<Gathering> {
        &self.logs[usize::from(kind == LogKind::Uses)]
    }

    /// Every witness with how it stands.
    pub fn report(&self) -> Value {
        let statuses = self.board.lock().clone();
        let rows = self.policy.witnesses().iter().zip(statuses).map(|(witness, status)| {
            json!({
                "witness": witness.name,
                "up": status.up,
                "alarm": status.alarm,
                "failure": status.failure,
                "failures": status.failures,
                "keys": status.sizes[0],
                "uses": status.sizes[1],
            })
        });
        rows.collect()
    }

    /// What witnesses said that must not be, a sentence each.
    pub fn alarms(&self) -> Vec<String> {
        self.board.lock().iter().filter_map(|status| status.alarm.clone()).collect()
    }

    /// Brings the gauges up to date.
    pub fn measure(&self, metrics: &Metrics) {
        for (witness, status) in self.policy.witnesses().iter().zip(self.board.lock().iter()) {
            let label = WitnessLabel { witness: witness.name.clone() };
            metrics.witness_up.get_or_create(&label).set(status.up.into());
            metrics.witness_alarm.get_or_create(&label).set(status.alarm.is_some().into());
        }
        for (kind, gathering) in LOGS.iter().zip(&self.logs) {
            let size = i64::try_from(gathering.witnessed()).unwrap_or(i64::MAX);
            metrics.log_witnessed_size.get_or_create(&LogLabel { log: kind.name() }).set(size);
        }
    }
}

/// After this many times the patience for one exchange, a checkpoint that has no quorum yet gives way to a newer one.
const ROUND_IN_TIMEOUTS: u32 = 2;
