//! A trial of a token: everything that Claviger will ask of it, done once with throw-away keys, and what was found.
//!
//! In scope: the order of the trial, its one PIN try, and that nothing is left behind: keys are removed on success, on failure, when the run
//! is stopped and when it panics; what a kill leaves is found by the next run. Out of scope: asking people (the caller's [`Talk`] does), and
//! printing.
//!
//! In reading order: `report` (what comes out), `desk` (module, token, session), `yard` (throw-away keys), `facts` (what the token says),
//! `shapes` over `signing` (one kind of key), `load` and `tune` (sessions, workers), `lives` (logins, handles), `features` (what it means).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::algorithm::KeyShape;
use claviger_audit::names::KeyName;

pub use self::report::{AlgorithmRow, AttributeRow, Check, Cleanup, Feature, LoadStep, MechanismRow, Report, Sessions, Verdict};

use self::desk::Desk;
use self::signing::TrialKey;
use self::tune::Next;
use self::yard::Yard;
use super::fault::Fault;
use super::{MOST_WORKERS, TokenSelector};
use crate::clock::Clock;
use crate::secret::SecretFile;

mod desk;
mod facts;
mod features;
mod lives;
mod load;
mod report;
mod shapes;
mod signing;
mod tune;
mod yard;

/// What the label of each throw-away key begins with; no installation may be called so.
pub const PREFIX: &str = "claviger-hsm-check";
/// Sessions that Claviger needs at least: one holds the login, one signs.
const FEWEST_SESSIONS: usize = 2;
/// How many sessions are opened by default.
pub const SESSIONS: usize = 64;
/// The most sessions that can be asked for: the largest devices serve some hundred, shared by all their clients.
pub const MOST_SESSIONS: usize = 1024;
/// How long each step under load takes by default.
pub const SECONDS: u64 = 2;
/// The longest step under load, in seconds: beyond that it is a benchmark.
pub const MOST_SECONDS: u64 = 60;
/// Without tuning, this many workers are tried; with it, as many as pay.
const WORKERS: [usize; 4] = [1, 2, 4, 8];
/// The kinds of keys, most used first.
const SHAPES: [KeyShape; 5] = [KeyShape::P256, KeyShape::P384, KeyShape::P521, KeyShape::Ed25519, KeyShape::Rsa];

/// What is tried, and on which token.
#[derive(Clone, Debug)]
pub struct TrialSettings {
    /// The module's shared library.
    pub module: PathBuf,
    /// The token.
    pub token: TokenSelector,
    /// The file with the user's PIN.
    pub pin: SecretFile,
    /// The folder for the marker that stops a wrong PIN from being tried twice.
    pub state: PathBuf,
    /// The algorithms that must work; if empty, every one that the token offers.
    pub algorithms: Vec<Algorithm>,
    /// How many sessions are opened at most, the one that holds the login included; 2 to [`MOST_SESSIONS`].
    pub sessions: usize,
    /// How long each step under load takes, at most [`MOST_SECONDS`].
    pub span: Duration,
    /// Whether the number of workers is looked for.
    pub tune: bool,
}

/// Whom a trial talks to while it runs. Called from the trial's own thread.
pub trait Talk: Send + Sync {
    /// Says what is done next.
    fn progress(&self, text: &str);
    /// Whether these throw-away keys, which an earlier run left, may be removed.
    fn may_remove(&self, labels: &[String]) -> bool;
}

/// Why there is no report. The texts hold no PIN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// The module or the token cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// The PIN was refused, now or before, or may not be tried.
    #[error("{0}")]
    Login(String),
}

/// Runs a trial to its end, or until `stop` says so; blocks the calling thread for seconds to minutes.
///
/// # Errors
///
/// [`TrialError`], if there is no token, or no login. Whatever goes wrong later is a finding.
pub fn run(settings: &TrialSettings, clock: &dyn Clock, stop: &AtomicBool, talk: &dyn Talk) -> Result<Report, TrialError> {
    let unavailable = |fault: Fault| TrialError::Unavailable(said(&fault));
    talk.progress("loading the module and finding the token");
    let desk = Desk::open(settings).map_err(unavailable)?;
    let yard = Yard::new().map_err(unavailable)?;
    let report = empty(yard.run());
    let mut trial = Trial { settings, clock, stop, talk, desk, yard, report };
    trial.facts().map_err(unavailable)?;
    talk.progress("logging in");
    trial.desk.log_in().map_err(|fault| match fault {
        Fault::Refused(reason) => TrialError::Login(reason),
        fault => unavailable(fault),
    })?;
    trial.report.checks.push(Check::new("pin.login", "the PIN was accepted", Verdict::Ok));
    trial.leftovers();
    trial.shapes();
    trial.sessions();
    trial.keys_at_work();
    trial.clean_up();
    Ok(trial.conclude())
}

fn empty(run: &str) -> Report {
    Report {
        run: run.to_owned(),
        complete: false,
        usable: false,
        checks: Vec::new(),
        mechanisms: Vec::new(),
        attributes: Vec::new(),
        algorithms: Vec::new(),
        sessions: None,
        load: Vec::new(),
        workers: None,
        features: Vec::new(),
        cleanup: Cleanup::default(),
    }
}

/// A trial that is under way. Dropping it removes every key that it made.
struct Trial<'t> {
    settings: &'t TrialSettings,
    clock: &'t dyn Clock,
    stop: &'t AtomicBool,
    talk: &'t dyn Talk,
    desk: Desk,
    yard: Yard,
    report: Report,
}

impl Trial<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fails(&mut self, check: &str, fault: &Fault) {
        self.report.checks.push(Check::new(check, said(fault), Verdict::Fails));
    }

    /// What module and token say of themselves; changes nothing.
    fn facts(&mut self) -> Result<(), Fault> {
        let library = Check::new("module.library", self.settings.module.display().to_string(), Verdict::Ok);
        self.report.checks.push(library);
        self.report.checks.extend(self.desk.ask(|library, _| facts::module(library))?);
        let token = self.desk.token()?;
        self.report.checks.extend(self.desk.ask(|_, slot| Ok(facts::token(slot, &token)))?);
        self.report.mechanisms = self.desk.ask(facts::mechanisms)?;
        Ok(())
    }

    /// Finds what an earlier run left, and removes exactly that, if one may.
    fn leftovers(&mut self) {
        self.talk.progress("looking for keys that an earlier check left");
        let found = match self.desk.with(|session| yard::leftovers(session, self.yard.run())) {
            Ok(found) => found,
            Err(fault) => return self.fails("leftovers", &fault),
        };
        if found.is_empty() {
            self.report.checks.push(Check::new("leftovers", "none of an earlier check", Verdict::Ok));
            return;
        }
        let labels: Vec<String> = found.iter().map(ToString::to_string).collect();
        if self.talk.may_remove(&labels) {
            for name in &found {
                match self.desk.with(|session| yard::remove(session, name)) {
                    Ok(()) => self.report.cleanup.removed_leftovers.push(name.to_string()),
                    Err(fault) => {
                        self.fails("leftovers", &fault);
                        self.report.cleanup.kept_leftovers.push(name.to_string());
                    }
                }
            }
        } else {
            self.report.cleanup.kept_leftovers = labels;
        }
        let (removed, kept) = (self.report.cleanup.removed_leftovers.len(), self.report.cleanup.kept_leftovers.len());
        self.report.checks.push(Check::new("leftovers", format!("{removed} removed, {kept} kept"), Verdict::Note));
    }

    /// The algorithms that are tried: what the token offers, unless the caller asked for fewer.
    fn algorithms(&self) -> Vec<Algorithm> {
        let wanted = |algorithm: &Algorithm| self.settings.algorithms.is_empty() || self.settings.algorithms.contains(algorithm);
        let offered = self.report.mechanisms.iter().filter(|row| row.offered).filter_map(|row| row.algorithm.parse().ok());
        offered.filter(wanted).collect()
    }

    fn shapes(&mut self) {
        let algorithms = self.algorithms();
        for shape in SHAPES {
            let of_shape: Vec<Algorithm> = algorithms.iter().copied().filter(|algorithm| algorithm.key_shape() == shape).collect();
            if of_shape.is_empty() || self.stopped() {
                continue;
            }
            self.talk.progress(&format!("{}: making a key, signing with it, destroying it", shapes::name_of(shape)));
            let tried = shapes::try_shape(&self.desk, &mut self.yard, shape, &of_shape, self.clock);
            self.report.algorithms.extend(tried.algorithms);
            self.report.attributes.extend(tried.attributes);
            self.report.checks.extend(tried.checks);
        }
    }

    fn sessions(&mut self) {
        if self.stopped() {
            return;
        }
        self.talk.progress("counting sessions");
        match load::sessions(&self.desk, self.settings.sessions) {
            Ok(sessions) => {
                let beyond = sessions.beyond.as_deref().map_or_else(String::new, |code| format!("; the next one gives {code}"));
                let text = format!("{} of {} open at once{beyond}", sessions.opened, sessions.bound);
                self.report.checks.push(Check::new("sessions.opened", text, Verdict::of(sessions.opened >= FEWEST_SESSIONS)));
                let (text, verdict) = if sessions.read_only {
                    ("available", Verdict::Ok)
                } else {
                    ("not available; Claviger takes read-write ones", Verdict::Note)
                };
                self.report.checks.push(Check::new("sessions.read_only", text, verdict));
                self.report.sessions = Some(sessions);
            }
            Err(fault) => self.fails("sessions.opened", &fault),
        }
    }

    /// What needs keys that stay for a while: load, and the ends of logins.
    fn keys_at_work(&mut self) {
        let works = |algorithm: &Algorithm| {
            let is_it = |row: &&AlgorithmRow| row.algorithm == algorithm.name();
            self.report.algorithms.iter().find(is_it).is_some_and(|row| row.verdict == Verdict::Ok)
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(works) else { return };
        if self.stopped() {
            return;
        }
        self.talk.progress(&format!("making two keys for {algorithm}"));
        let pair = match self.make(algorithm).and_then(|first| Ok([first, self.make(algorithm)?])) {
            Ok(pair) => pair,
            Err(fault) => return self.fails("pair", &fault),
        };
        self.load(&pair[0]);
        if self.stopped() {
            return;
        }
        self.talk.progress("logging out, closing sessions, initialising the module again");
        lives::tell(&mut self.desk, &pair, &mut self.report.checks);
    }

    fn make(&mut self, algorithm: Algorithm) -> Result<TrialKey, Fault> {
        let name = self.yard.name()?;
        self.desk.with(|session| TrialKey::make(session, &name, algorithm))
    }

    fn load(&mut self, key: &TrialKey) {
        let sessions = self.report.sessions.as_ref().map_or(1, |sessions| sessions.opened.saturating_sub(1));
        let most = sessions.clamp(1, MOST_WORKERS);
        let fixed: Vec<usize> = WORKERS.into_iter().filter(|workers| *workers <= most).collect();
        while !self.stopped() {
            let measured: Vec<tune::Measured> = self.report.load.iter().map(measured).collect();
            let workers = match tune::next(&measured, most) {
                Next::Try(workers) if self.settings.tune => workers,
                Next::Keep(workers) if self.settings.tune => {
                    self.report.workers = Some(workers);
                    return;
                }
                _ => match fixed.get(measured.len()) {
                    Some(workers) => *workers,
                    None => return,
                },
            };
            self.talk.progress(&format!("under load: {}, workers: {workers}, for {} s", key.algorithm, self.settings.span.as_secs()));
            self.report.load.push(load::step(&self.desk, key, workers, self.settings.span, self.clock, self.stop));
        }
    }

    /// Removes every key that this run made; those that it cannot remove are told.
    fn clean_up(&mut self) {
        if self.yard.names().is_empty() {
            return;
        }
        self.talk.progress("removing the throw-away keys");
        let names: Vec<KeyName> = self.yard.names().to_vec();
        // A device that was away may need the module to begin anew. None of this tries a PIN that was refused (`pin.rs`).
        let ready = self.desk.with(super::pin::is_logged_in).unwrap_or(false)
            || self.desk.log_in().is_ok()
            || self.desk.reinitialise().and_then(|()| self.desk.log_in()).is_ok();
        for name in names {
            if ready && self.desk.with(|session| yard::remove(session, &name)).is_ok() {
                self.yard.forget(&name);
            }
        }
    }

    fn conclude(mut self) -> Report {
        let mut report = std::mem::replace(&mut self.report, empty(""));
        report.cleanup.created = self.yard.created();
        report.cleanup.left = self.yard.give_up().iter().map(ToString::to_string).collect();
        report.complete = !self.stopped();
        let (text, verdict) = if report.cleanup.left.is_empty() {
            (format!("{} throw-away keys made, none is left", report.cleanup.created), Verdict::Ok)
        } else {
            (format!("{} throw-away keys may be left; the next check looks for them", report.cleanup.left.len()), Verdict::Fails)
        };
        report.checks.push(Check::new("cleanup", text, verdict));
        report.features = features::features(&report, &self.settings.algorithms);
        report.usable = features::usable(&report);
        report
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        // After a conclusion there is nothing to do. Otherwise something panicked: the keys go all the same.
        self.clean_up();
    }
}

/// A step as tuning sees it: one that failed has no throughput.
fn measured(step: &LoadStep) -> tune::Measured {
    (step.workers, if step.failure.is_some() { 0.0 } else { step.per_second })
}

/// A failure in the words of the standard: `CKR_SESSION_COUNT (C_OpenSession)`.
fn said(fault: &Fault) -> String {
    match fault {
        Fault::Answer { code, function } => format!("{} (C_{function:?})", ckr(&format!("{code:?}"))),
        other => other.to_string(),
    }
}

/// The name of a return value (PKCS#11 v3.1 section 5.1) from the library's name for it: `SessionCount` to `CKR_SESSION_COUNT`.
fn ckr(name: &str) -> String {
    if let Some(number) = name.split_once('(').and_then(|(_, rest)| rest.trim_end_matches(')').parse::<u64>().ok()) {
        return format!("CKR {number:#010x}");
    }
    let word =
        |text: String, letter: char| text + if letter.is_ascii_uppercase() { "_" } else { "" } + &letter.to_ascii_uppercase().to_string();
    name.chars().fold("CKR".to_owned(), word)
}

fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use cryptoki::error::RvError;

    use super::*;

    #[test]
    fn return_values_are_named_as_in_the_standard() {
        let named = |code: RvError| ckr(&format!("{code:?}"));
        assert_eq!(named(RvError::SessionCount), "CKR_SESSION_COUNT");
        assert_eq!(named(RvError::UserPinNotInitialized), "CKR_USER_PIN_NOT_INITIALIZED");
        assert_eq!(named(RvError::VendorDefined(0x8000_0001)), "CKR 0x80000001");
    }
}
