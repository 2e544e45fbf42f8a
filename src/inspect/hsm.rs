//! What `hsm check` asks of a token: the trial, on a thread of its own, and the signals that end it early.
//!
//! In scope: running it, stopping it, waiting until its keys are gone. Out of scope: what is tried (`keystore::pkcs11::trial`), and what is
//! printed (`cli`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use crate::keystore::pkcs11::TokenSelector;
pub use crate::keystore::pkcs11::trial::{
    AlgorithmRow, AttributeRow, Check, Cleanup, Feature, LoadStep, MOST_SECONDS, MOST_SESSIONS, MechanismRow, PREFIX, Report, SECONDS,
    SESSIONS, Sessions, Talk, TrialError, TrialSettings, Verdict,
};

use crate::clock::Clock;
use crate::config::{Config, KeystoreConfig};
use crate::keystore::pkcs11::{BadTokenSelector, TokenUri, trial};
use crate::secret::SecretFile;

/// How long a trial that was told to stop may take to remove its keys: one call that is under way, such as making an RSA key, and a few quick
/// ones.
const CLEAN_UP: Duration = Duration::from_mins(1);

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The trial says why.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// It panicked; its keys were removed, or the next run finds them.
    #[error("the check ended by itself, which is a defect of Claviger; run it again, so that keys which it may have left are found")]
    Crashed,
    /// It was told to stop, and did not come to its end: a call hangs in the module.
    #[error("the module does not answer, so throw-away keys may be left; run the check again, so that they are found")]
    Abandoned,
    /// The system gives no thread or no signals.
    #[error("the check cannot start: {0}")]
    Start(String),
}

/// What is in the configuration's keystore of this name; `None` if it has none that is a token.
pub fn keystore(config: &Config, name: &str) -> Option<(PathBuf, TokenSelector, SecretFile)> {
    let KeystoreConfig::Pkcs11(pkcs11) = config.keystores.get(name)? else { return None };
    Some((pkcs11.module.clone(), pkcs11.token.clone(), pkcs11.pin.clone()))
}

/// The module, token and PIN file of a command line: `token` is a label, `serial=NUMBER` or an RFC 7512 URI, which may name the files too. The
/// error says what is wrong and what to do, and repeats nothing of the text: in a URI a PIN may stand in it.
pub fn named(token: &str, module: Option<&Path>, pin_file: Option<&Path>) -> Result<(PathBuf, TokenSelector, SecretFile), String> {
    let wrong = |error: BadTokenSelector| format!("--token {}: {}", error.problem, error.remedy);
    let uri = if TokenUri::is_meant_by(token) {
        token.parse().map_err(wrong)?
    } else {
        TokenUri { token: token.parse().map_err(wrong)?, module_path: None, pin_source: None }
    };
    let file = |given: Option<&Path>, in_uri: Option<String>, option: &str, attribute: &str| match (given, in_uri.map(PathBuf::from)) {
        (Some(given), Some(other)) if given != other => Err(format!("{option} is not the file that the URI names: name it in one place")),
        (Some(given), _) => Ok(given.to_owned()),
        (None, Some(other)) => Ok(other),
        (None, None) => Err(format!("say {option}, or {attribute} in the URI of --token")),
    };
    let module = file(module, uri.module_path, "--module", "module-path")?;
    let pin = file(pin_file, uri.pin_source, "--pin-file", "pin-source")?;
    Ok((module, uri.token, SecretFile::new(pin, None)))
}

/// Runs a trial. SIGINT, SIGTERM and SIGHUP (a terminal that went away) stop it: its keys are removed, and the report says that it is not
/// complete. A second signal, or a module that does not answer for a minute, ends the wait.
pub async fn check(settings: TrialSettings, clock: Arc<dyn Clock>, talk: Arc<dyn Talk>) -> Result<Report, CheckError> {
    let mut signals = Signals::new().map_err(|error| CheckError::Start(error.to_string()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (reply, mut answer) = oneshot::channel();
    let (its_stop, its_talk) = (Arc::clone(&stop), Arc::clone(&talk));
    let work = move || drop(reply.send(trial::run(&settings, &*clock, &its_stop, &*its_talk)));
    std::thread::Builder::new().name("p11-trial".to_owned()).spawn(work).map_err(|error| CheckError::Start(error.to_string()))?;
    tokio::select! {
        outcome = &mut answer => return report(outcome),
        () = signals.next() => {}
    }
    stop.store(true, Ordering::Relaxed);
    talk.progress("stopping, and removing the throw-away keys; a second signal leaves at once");
    tokio::select! {
        outcome = timeout(CLEAN_UP, &mut answer) => outcome.map_or(Err(CheckError::Abandoned), report),
        () = signals.next() => Err(CheckError::Abandoned),
    }
}

/// The signals that ask for an end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: signal(SignalKind::hangup())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn report(outcome: Result<Result<Report, TrialError>, oneshot::error::RecvError>) -> Result<Report, CheckError> {
    // Without an answer the thread panicked; its keys were removed while it did.
    Ok(outcome.map_err(|_| CheckError::Crashed)??)
}
