//! The daemon: from a configuration to listeners that answer, and an orderly end.
//!
//! In scope: the order of the start (JWKS first, whatever else is broken; then witnesses are asked; then the first record), reload, what
//! happens when the log dies, graceful stop. Out of scope: every story that runs in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_audit::event::{DaemonStop, Event};
use claviger_audit::record::Asked;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::{Calls, most_in_flight};
use crate::clock::Clock;
use crate::clock_watch::ClockWatch;
use crate::config::{Config, TlsFiles, files};
use crate::health::Health;
use crate::http::{App, Parts, RequestLimits};
use crate::journal::prune::Pruner;
use crate::journal::pseudonym::Pseudonyms;
use crate::journal::space::{LOW_PERCENT, Room, Space, VERY_LOW_PERCENT};
use crate::journal::state::StateError;
use crate::journal::{Checkpointer, KeyLog, OpenError, TokenCounter, UseLog};
use crate::lateness::Lateness;
use crate::metrics::Metrics;
use crate::operator::{Operator, ReloadRequest};
use crate::publisher::Publisher;
use crate::readiness::Readiness;
use crate::rotator::{Rotator, uses_head};
use crate::signer::{Keystores, PerCaller, Signer};
use crate::upkeep::Upkeep;

pub mod adopt;
mod beginning;
pub mod init;
mod listeners;
pub mod log_key;
pub mod offline;
mod outside;
mod reload;
pub mod setup;

use beginning::{
    boot_name, check_identity, config_event, first_records, lines, load_policies, lock, open_logs, policy_event, record_start,
    start_checkpoints,
};

/// How long a stop waits for requests that are under way, beyond their own deadline.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a stop waits for the last checkpoints: a dead keystore must not hold it.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);
/// How long a stop waits for a keystore to have finished what it is at.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// How often counted refusals are written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the log died, and whether the policy folder was mounted anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Reloads that may wait for their turn.
const RELOADS: usize = 4;

/// Whether a certificate and its key can serve.
pub fn check_tls(files: &TlsFiles) -> Result<(), String> {
    listeners::load(files).map(drop)
}

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The state folder is in use, or cannot be.
    #[error(transparent)]
    State(#[from] StateError),
    /// A log cannot be opened.
    #[error("the {log} log: {source}")]
    Log {
        /// Which log.
        log: &'static str,
        /// Why.
        source: OpenError,
    },
    /// What an adoption left half done nobody else may open.
    #[error("an adoption of these logs was begun and not finished: run `claviger audit adopt --accept-loss` again")]
    Adopting,
    /// A listener cannot be bound.
    #[error("cannot listen on {address}: {reason}; free the address, or change `bind`")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and stopped in order.
    Stopped,
    /// The log died; JWKS was served as long as verifiers may trust it.
    LogDied,
    /// Calls to a keystore hang: it stopped in order, so that a new process can use the keystore again.
    Wedged,
}

/// Everything that a running daemon consists of.
struct Daemon {
    config_file: PathBuf,
    config: Config,
    app: App,
    rotator: Arc<Rotator>,
    health: Arc<Health>,
    keystores: Keystores,
    calls: Arc<Calls>,
    keys: KeyLog,
    uses: UseLog,
    checkpoints: [Checkpointer; 2],
    tls: listeners::TlsSlots,
    reloads: mpsc::Receiver<ReloadRequest>,
    stop: CancellationToken,
    /// The first records of this run, while witnesses are still to be asked.
    unrecorded: Option<Vec<Event>>,
}

/// Serves until a signal or the end of the log.
pub async fn serve(config_file: &Path, clock: Arc<dyn Clock>) -> Result<Ended, StartError> {
    let config = Config::load(config_file).map_err(|error| StartError::Config(error.to_string()))?;
    let daemon = Daemon::open(config_file, config, clock).await?;
    daemon.run().await
}

impl Daemon {
    /// Opens the logs and puts the parts together. Only a log that cannot be trusted, a state folder in use or a configuration that cannot
    /// be read stops it here: keystores, policies and a full disk do not.
    async fn open(config_file: &Path, config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let state = Arc::new(lock(&config)?);
        let (keys, uses, use_log) = open_logs(&config, &state, &clock)?;
        let keystores = setup::keystores(&config, &clock);
        let checkpoints = [start_checkpoints(keys.coverage, &keystores, &clock)?, start_checkpoints(uses.coverage, &keystores, &clock)?];
        let (keys, uses, stop) = (keys.log, uses.log, CancellationToken::new());
        let logs = [(checkpoints[0].clone(), keys.standing().clone()), (checkpoints[1].clone(), uses.standing().clone())];
        let witnesses = outside::start_witnesses(&config, logs, &clock, &stop)?;
        let logbook = outside::open_logbook(&config, &checkpoints[0], witnesses.as_deref())?;
        let wake = Arc::new(Notify::new());
        let health = Arc::new(Health::new(keys.clone(), &config.node, clock.clone(), wake.clone()));
        let (publisher, metrics) = (Arc::new(Publisher::new(keys.clone(), &config.node)), Arc::new(Metrics::default()));
        let policies = load_policies(&config, &keys.snapshot().keyrings);
        let loaded = policies.as_ref().ok().map(policy_event);
        let rules = setup::rules(&config, policies.inspect_err(|error| tracing::error!("{error}")).ok());
        let pseudonyms = Arc::new(Pseudonyms::new(setup::subject_mode(&config), &config.state));
        let (calls, watch) = (Arc::new(Calls::new(uses.clone(), &keystores)), Arc::new(ClockWatch::start(clock.clone())));
        let signer = Arc::new(Signer::new(
            (keys.clone(), uses.clone()),
            (keystores.clone(), calls.clone(), health.complaints.clone()),
            rules,
            (pseudonyms.clone(), per_caller(&config)),
            (clock.clone(), metrics.clone()),
        ));
        let (reload, reloads) = mpsc::channel(RELOADS);
        let operator = Arc::new(Operator {
            keys: keys.clone(),
            uses: uses.clone(),
            tokens: TokenCounter::new(use_log.clone()),
            keystores: keystores.clone(),
            signer: signer.clone(),
            publisher: publisher.clone(),
            wake: wake.clone(),
            clock: clock.clone(),
            watch: watch.clone(),
            health: health.clone(),
            node: config.node.clone(),
            own_uid: rustix::process::geteuid().as_raw(),
            witnesses,
            reload,
        });
        let upkeep = Arc::new(Upkeep {
            operator: operator.clone(),
            state,
            checkpoints: checkpoints.clone(),
            pseudonyms,
            log_keystore: config.log_keystore.clone(),
            installation: config.installation.clone(),
            pruner: Pruner::new(use_log),
            retention: config.audit_retention,
            turn: tokio::sync::Mutex::default(),
        });
        // Before anything is recorded that names a subject.
        upkeep.resume();
        let rotator = Arc::new(Rotator {
            keys: keys.clone(),
            uses: uses.clone(),
            node: config.node.clone(),
            keystores: keystores.clone(),
            calls: calls.clone(),
            health: health.clone(),
            publisher: publisher.clone(),
            clock: clock.clone(),
            wake,
            refused: std::sync::Mutex::default(),
            watch: watch.clone(),
        });
        let readiness = Arc::new(Readiness {
            keys: keys.clone(),
            uses: uses.clone(),
            publisher: publisher.clone(),
            health: health.clone(),
            keystores: keystores.clone(),
            checkpoints: checkpoints.clone(),
            space: Arc::default(),
            watch,
            lateness: Lateness::default(),
            clock: clock.clone(),
            stopping: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        });
        let app = App::from(Parts {
            signer,
            operator,
            upkeep,
            publisher,
            readiness,
            logbook,
            callers: Arc::new(ArcSwap::from_pointee(setup::callers(&config))),
            routes: Arc::new(ArcSwap::from_pointee(setup::routes(&config, &keys.snapshot().keyrings))),
            limits: request_limits(&config),
            metrics,
            clock,
        });
        let mut unrecorded = Some(first_records(&keys, &config, most_in_flight(&keystores), loaded)?);
        if app.operator.witnesses.is_none() {
            record_start(&keys, &uses, &config.node, unrecorded.take()).await?;
        }
        let (tls, config_file) = (listeners::TlsSlots::default(), config_file.to_owned());
        Ok(Self { config_file, config, app, rotator, health, keystores, calls, keys, uses, checkpoints, tls, reloads, stop, unrecorded })
    }

    async fn run(mut self) -> Result<Ended, StartError> {
        let (stop, tasks) = (self.stop.clone(), TaskTracker::new());
        let accepting = listeners::start(&self.config, &self.app, &mut self.tls, &stop).await?;
        if !self.confirm().await? {
            return Ok(Ended::Stopped);
        }
        self.spawn_loops(&stop, &tasks);
        tracing::info!(node = self.config.node, "serving");
        // Nobody listens where systemd did not start us.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let ended = self.wait().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.app.readiness.stopping.store(true, Ordering::SeqCst);
        stop.cancel();
        tasks.close();
        let patience = self.config.limits.deadline + DRAIN;
        if tokio::time::timeout(patience, async { tokio::join!(accepting.wait(), tasks.wait()) }).await.is_err() {
            tracing::warn!("requests were still under way at the end of the stop's patience");
        }
        self.close(ended).await;
        Ok(ended)
    }

    fn spawn_loops(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        for (name, keystore) in &self.keystores {
            let (health, name, keystore, stop) = (self.health.clone(), name.clone(), keystore.clone(), stop.clone());
            // Not waited for at the stop: a keystore that hangs must not hold it.
            tokio::spawn(async move {
                tokio::join!(health.watch(name.clone(), keystore.clone(), stop.clone()), health.watch_contents(name, keystore, stop))
            });
        }
        let (rotator, stopped) = (self.rotator.clone(), stop.clone());
        tokio::spawn(async move { rotator.run(stopped).await });
        let (signer, stopped) = (self.app.signer.clone(), stop.clone());
        tasks.spawn(async move {
            while !stopped.is_cancelled() {
                tokio::select! { () = stopped.cancelled() => {}, () = tokio::time::sleep(FLUSH_EVERY) => {} }
                signer.flush_counts().await;
            }
        });
    }

    /// Until a signal says stop, or the log is dead and its last word too old.
    async fn wait(&mut self) -> Ended {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
            tracing::error!("signals cannot be received");
            return Ended::Stopped;
        };
        let mut mounted = files::mounted(&self.config.policies);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    self.look_at_disk();
                    self.app.readiness.look();
                    if let Some(reason) = self.keys.poisoned().or_else(|| self.uses.poisoned()) {
                        return self.outlive_the_log(&reason, (&mut terminate, &mut interrupt)).await;
                    }
                    if self.health.recoveries.restart_is_due() {
                        return Ended::Wedged;
                    }
                    let now = files::mounted(&self.config.policies);
                    if now != mounted {
                        mounted = now;
                        let _ = reload::reload(self).await;
                    }
                }
                _ = terminate.recv() => return Ended::Stopped,
                _ = interrupt.recv() => return Ended::Stopped,
                _ = hangup.recv() => {
                    let _ = reload::reload(self).await;
                }
                Some(reply) = self.reloads.recv() => {
                    let answer = reload::reload(self).await;
                    let _ = reply.send(answer);
                }
            }
        }
    }

    /// Warns once whenever the disk of the logs crosses a threshold.
    fn look_at_disk(&self) {
        let space = match Space::of(&self.config.state) {
            Ok(space) => space,
            Err(error) => return tracing::debug!(%error, "the room on the state's disk is not known"),
        };
        let (free_bytes, size_bytes) = (space.free, space.size);
        match self.app.readiness.space.see(space) {
            None => {}
            Some(Room::Enough) => tracing::info!(free_bytes, size_bytes, "the disk of the logs has room again"),
            Some(Room::Low) => {
                tracing::warn!(free_bytes, size_bytes, "less than {LOW_PERCENT} % of the disk of the logs is free: make room");
            }
            Some(Room::VeryLow) => {
                tracing::warn!(
                    free_bytes,
                    size_bytes,
                    "less than {VERY_LOW_PERCENT} % of the disk of the logs is free: make room, nothing is signed when it is full"
                );
            }
        }
    }

    /// After a sync error nothing is recorded, signed or changed any more. JWKS of the last durable snapshot goes on for E - D - e: so long
    /// may verifiers trust a key that is compromised meanwhile.
    async fn outlive_the_log(
        &self,
        reason: &str,
        (terminate, interrupt): (&mut tokio::signal::unix::Signal, &mut tokio::signal::unix::Signal),
    ) -> Ended {
        let snapshot = self.keys.snapshot();
        let spans = snapshot.keyrings.all().filter_map(|keyring| keyring.timing()).map(|settings| {
            let exposure = Duration::from_millis(settings.timing.max_exposure_ms);
            exposure.saturating_sub(settings.timing.lead())
        });
        let left = spans.min().unwrap_or_default();
        // One log alone goes no further: a transition without its uses, or a use without its transitions, would tell half a story.
        self.uses.stop().await;
        self.keys.stop().await;
        tracing::error!(reason, serving_sets_for = ?left, "the audit log is dead: nothing is signed or changed until a restart");
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.app.readiness.expired.store(true, Ordering::SeqCst);
        Ended::LogDied
    }

    /// Flush, last records, last checkpoints, and the logs closed. Sessions close with the process.
    async fn close(self, ended: Ended) {
        self.app.signer.flush_counts().await;
        // A caller that left does not end the call that was made for it.
        self.calls.finish(self.config.limits.deadline).await;
        if let Err(error) = self.checkpoints[1].checkpoint_now().await {
            tracing::debug!(%error, "no checkpoint before the last records");
        }
        let reason = match ended {
            Ended::Stopped => "signal",
            Ended::LogDied => "log",
            Ended::Wedged => "keystore",
        };
        let stop = DaemonStop { reason: reason.to_owned() };
        let last = vec![Event::UsesHead(uses_head(&self.uses, &self.config.node)), Event::DaemonStop(stop)];
        if let Err(error) = self.keys.append(Asked::default(), move |_, _| Ok(last.clone())).await {
            tracing::warn!(%error, "the stop could not be recorded");
        }
        self.uses.stop().await;
        self.keys.stop().await;
        for (name, checkpoints) in ["keys", "uses"].into_iter().zip(&self.checkpoints) {
            match tokio::time::timeout(LAST_CHECKPOINT, checkpoints.checkpoint_now()).await {
                Ok(Ok(size)) => tracing::info!(log = name, size, "last checkpoint"),
                Ok(Err(error)) => tracing::warn!(log = name, %error, "no last checkpoint"),
                Err(_) => tracing::warn!(log = name, "no last checkpoint: the keystore did not answer"),
            }
        }
        last_answers(&self.keystores).await;
        tracing::info!("stopped");
    }
}

/// Before a process ends: a keystore that is in the middle of a login may be left in pieces (SoftHSM is), and the PIN counts as tried. Its
/// answer says that it is not.
async fn last_answers(keystores: &Keystores) {
    let mut answers = JoinSet::new();
    for keystore in keystores.values() {
        let keystore = keystore.clone();
        answers.spawn(async move { tokio::time::timeout(LAST_ANSWER, keystore.health()).await.is_ok() });
    }
    answers.join_all().await;
}

fn request_limits(config: &Config) -> RequestLimits {
    RequestLimits { body: config.limits.body_bytes, batch_body: config.limits.batch_bytes, deadline: config.limits.deadline }
}

fn per_caller(config: &Config) -> PerCaller {
    PerCaller { rate: config.limits.rate, burst: config.limits.burst, in_flight: config.limits.in_flight.get() }
}
