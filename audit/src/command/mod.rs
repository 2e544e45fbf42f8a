//! The commands: what `claviger-audit` does, and `claviger audit` with it.
//!
//! In scope: arguments, reading the files that they name, writing the answer. Out of scope: reading arguments from the environment and the
//! clock from the machine, and fetching a URL (`main` does, or the daemon's command line).

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use crate::time::Timestamp;
use crate::verify::{Finding, Input, Options, Report, Verdict, verify};

mod args;
mod fetch;
mod files;
mod find;
mod heads;
mod lines;
mod publish;
mod show;
mod verifying;

pub use fetch::{CURL, Fetch, Fetched, curl_answer, curl_arguments};
pub use find::FindArgs;
pub use publish::{JwksArgs, TrustArgs};
pub use show::ShowArgs;
pub use verifying::{Format, VerifyArgs};

/// What can be asked of a log.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Verify logs offline; the exit code is the verdict
    ///
    /// 0 verified, 2 usage, 10 tampered, 11 truncated or rolled back, 12 fork, 13 signature missing, 14 stale, 15 a rule is broken,
    /// 16 nothing verified or nothing pinned, 74 a file could not be read (no verdict). Of several findings the first of 10, 12, 11, 13,
    /// 16, 15, 14 decides.
    Verify(VerifyArgs),
    /// Print records as readable lines; nothing is verified
    Show(ShowArgs),
    /// Find who made a token: its record and its receipt; nothing is verified
    Find(FindArgs),
    /// Print the exact JWKS bytes that the key log makes
    Jwks(JwksArgs),
    /// Print a trust file that holds the logs' own keys: trust on first use
    Trust(TrustArgs),
}

impl Command {
    /// Chooses JSON wherever there is a choice, for a command line that has one switch for all its commands.
    pub fn choose_json(&mut self) {
        match self {
            Self::Verify(args) => args.format = Format::Json,
            Self::Show(args) => args.format = show::Output::Json,
            Self::Find(_) | Self::Jwks(_) | Self::Trust(_) => {}
        }
    }
}

/// Nothing was found; `verify` never gives this.
pub const EXIT_NOT_FOUND: u8 = 1;
/// The arguments make no sense together.
pub const EXIT_USAGE: u8 = 2;
/// A file could not be read or written, or a URL not be fetched (`EX_IOERR` of sysexits).
pub const EXIT_IO: u8 = 74;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments make no sense together, or a file that they name holds something else.
    #[error("{0}")]
    Usage(String),
    /// The log does not have what was asked for.
    #[error("{0}")]
    NotFound(String),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A URL could not be fetched.
    #[error("{url} could not be fetched: {reason} (it is fetched by the system's curl, which must be installed)")]
    Fetch {
        /// Which.
        url: String,
        /// What curl said, or why it did not run.
        reason: String,
    },
    /// The answer could not be written, or a log not be read to its end.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log is in no state to answer from.
    #[error("the log is {}: {}", .0.name(), .1)]
    Refused(Verdict, String),
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::NotFound(_) => EXIT_NOT_FOUND,
            Self::File { .. } | Self::Fetch { .. } | Self::Io(_) => EXIT_IO,
            Self::Refused(verdict, _) => verdict.exit_code(),
        }
    }
}

/// Runs a command and gives its exit code. `now` is the default of `--now`; `fetch` opens URLs, and only `verify --jwks URL` asks for one.
///
/// # Errors
///
/// [`Failure`], with its own exit code: there is no verdict then.
pub fn run(command: &Command, now: Timestamp, fetch: &Fetch<'_>, out: &mut dyn Write) -> Result<u8, Failure> {
    match command {
        Command::Verify(args) => verifying::run(args, now, fetch, out),
        Command::Show(args) => show::run(args, out),
        Command::Find(args) => find::run(args, out),
        Command::Jwks(args) => publish::jwks(args, now, out),
        Command::Trust(args) => publish::trust(args, now, out),
    }
}

/// A log that nothing pins is good enough to read from, but not one that is damaged.
fn verify_unpinned(input: &Input<'_>, keys_only: bool, now: Timestamp) -> Result<Report, Failure> {
    let report = verify(input, &Options { keys_only, ..Options::default() }, now)?;
    let is_damage =
        |finding: &&Finding| matches!(finding.verdict, Verdict::Tampered | Verdict::Truncated | Verdict::Forked | Verdict::Illegal);
    let damages: Vec<&Finding> = report.findings.list().iter().filter(is_damage).collect();
    let worst = Verdict::worst(damages.iter().map(|finding| finding.verdict));
    match damages.iter().find(|finding| finding.verdict == worst) {
        Some(finding) => Err(Failure::Refused(worst, finding.text.clone())),
        None => Ok(report),
    }
}
