//! `claviger hsm check`: try a token before it is trusted with keys.
//!
//! In scope: arguments, asking first, progress, exit codes. Out of scope: what is tried (`inspect::hsm`), and the tables ([`tables`]). Needs
//! no configuration and no daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use claviger_audit::Algorithm;

use super::output::{self, Failure, Format, Outcome};
use super::{exit, verb};
use crate::clock::Clock;
use crate::config::local;
use crate::inspect::hsm::{
    self, CheckError, MOST_SECONDS, MOST_SESSIONS, PREFIX, Report, SECONDS, SESSIONS, Talk, TrialError, TrialSettings,
};

mod tables;

const EXAMPLE: &str = "\
Example:
  claviger hsm check --module /usr/lib/softhsm/libsofthsm2.so --token claviger --pin-file pin --tune

Exit codes: 0 everything that Claviger needs works; 1 something that it needs does not; 64 arguments that do not go together, or nobody can
answer and there is no --yes; 66 no such keystore; 69 no module or no token; 73 no state folder; 75 stopped before the end, and all keys
removed; 77 the PIN was refused or may not be tried; 78 the configuration cannot be used.

A PIN is tried once: if it is refused, a marker in the state folder stops every later try with the same PIN, as in the daemon.";

/// What can be done with a token.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Try everything that Claviger asks of a token, with throw-away keys, and say what works
    ///
    /// Makes keys whose labels begin with `claviger-hsm-check.`, signs with them, and removes them again, whatever happens; what a kill
    /// leaves, the next check finds. Touches no other object. Run one check of a token at a time: it would take the keys of another one for
    /// left ones.
    #[command(after_long_help = EXAMPLE)]
    Check(Args),
}

/// Which token, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module's shared library
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// The token: its label, or serial=NUMBER
    #[arg(long)]
    token: Option<String>,
    /// The file that holds the user's PIN; nobody else may read it
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// A keystore of the configuration, instead of module, token and PIN file
    #[arg(long, value_name = "NAME")]
    keystore: Option<String>,
    /// Where a PIN that was refused is remembered; by default $XDG_STATE_HOME/claviger or ~/.local/state/claviger, and with --keystore the
    /// state folder of the configuration, if it is there
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// An algorithm that must work (may repeat); by default every one that the token offers
    #[arg(long = "algorithm", value_name = "ALG")]
    algorithms: Vec<Algorithm>,
    /// How many sessions to open at most
    #[arg(long, value_name = "N", default_value_t = SESSIONS as u64, value_parser = clap::value_parser!(u64).range(2..=MOST_SESSIONS as u64))]
    sessions: u64,
    /// How long each step under load takes
    #[arg(long, value_name = "N", default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    seconds: u64,
    /// Look for the number of workers that pays
    #[arg(long)]
    tune: bool,
    /// Do not ask before keys are made, and before keys that an earlier check left are removed
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub(super) async fn run(command: &Command, config: &Path, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    let Command::Check(args) = command;
    let settings = settings(args, config)?;
    let question = format!(
        "Log in to the token with the {} in {}, with one PIN try, make throw-away keys ({PREFIX}.*), and remove them again?",
        settings.token,
        settings.module.display()
    );
    verb::confirm(args.yes, &question).map_err(as_usage)?;
    local::private_folder(&settings.state).map_err(|error| Failure::new(exit::CANNOT_CREATE, error))?;
    let talk = Arc::new(Terminal { yes: args.yes });
    let report = hsm::check(settings, clock, talk).await.map_err(|error| Failure::new(code(&error), error))?;
    match format {
        Format::Json => {
            let value = serde_json::to_value(&report).map_err(|error| Failure::new(exit::IO, error))?;
            output::json(&value);
        }
        Format::Table => tables::print(&report),
    }
    Ok(verdict(&report))
}

/// Where nobody can answer, the command was called wrongly.
fn as_usage(failure: Failure) -> Failure {
    Failure { code: if failure.code == exit::DATA { exit::USAGE } else { failure.code }, ..failure }
}

fn settings(args: &Args, file: &Path) -> Result<TrialSettings, Failure> {
    let usage = |text: &str| Failure::new(exit::USAGE, text);
    let (module, token, pin, configured) = match (&args.keystore, &args.module, &args.token, &args.pin_file) {
        (Some(name), None, None, None) => {
            let config = super::config::load(file)?;
            let missing = || Failure::new(exit::NOT_FOUND, format!("{} has no keystore {name:?} that is a token", file.display()));
            let (module, token, pin) = hsm::keystore(&config, name).ok_or_else(missing)?;
            (module, token, pin, Some(config.state))
        }
        (None, module, Some(token), pin) => {
            let (module, token, pin) = hsm::named(token, module.as_deref(), pin.as_deref()).map_err(|error| usage(&error))?;
            (module, token, pin, None)
        }
        _ => return Err(usage("say either --module, --token and --pin-file, or --keystore")),
    };
    // A daemon's state folder is its own to make.
    let state = args.state.clone().or(configured.filter(|state| state.is_dir())).or_else(local::user_state);
    let state = state.ok_or_else(|| usage("say --state: the environment names no home"))?;
    Ok(TrialSettings {
        module,
        token,
        pin,
        state,
        algorithms: args.algorithms.clone(),
        sessions: usize::try_from(args.sessions).unwrap_or(SESSIONS),
        span: Duration::from_secs(args.seconds),
        tune: args.tune,
    })
}

fn code(error: &CheckError) -> u8 {
    match error {
        CheckError::Trial(TrialError::Login(_)) => exit::DENIED,
        CheckError::Trial(TrialError::Unavailable(_)) | CheckError::Abandoned | CheckError::Crashed | CheckError::Start(_) => {
            exit::UNAVAILABLE
        }
    }
}

fn verdict(report: &Report) -> u8 {
    match (report.usable, report.complete, report.cleanup.left.as_slice()) {
        (true, ..) => exit::OK,
        (false, false, []) => exit::LATER,
        (false, ..) => exit::FOUND,
    }
}

/// The person at the terminal, if there is one.
struct Terminal {
    yes: bool,
}

impl Talk for Terminal {
    fn progress(&self, text: &str) {
        output::remark(format_args!("… {text}"));
    }

    fn may_remove(&self, labels: &[String]) -> bool {
        let question = format!("An earlier check left these keys:\n  {}\nRemove them, and nothing else?", labels.join("\n  "));
        if self.yes {
            output::remark(format_args!("An earlier check left these keys, which are removed:\n  {}", labels.join("\n  ")));
        }
        verb::confirm(self.yes, &question).is_ok()
    }
}
