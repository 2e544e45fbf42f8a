//! The commands: what `claviger-audit` does, and `claviger audit` with it.
//!
//! In scope: arguments, reading the files that they name, writing the answer. Out of scope: reading arguments from the environment and the
//! clock from the machine, waiting, and fetching a URL ([`Machine`]: `main` has them, or the daemon's command line).

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::time::Timestamp;
use crate::verify::{Finding, Input, Options, Report, Verdict, verify};

mod args;
mod backends;
mod fetch;
mod files;
mod find;
mod follow;
mod forks;
mod heads;
mod lines;
mod proofs;
mod proving;
mod publish;
mod pull;
mod show;
mod verifying;
mod writing;

pub use backends::BackendArg;
pub use fetch::{CURL, Fetch, Fetched, curl_answer, curl_arguments};
pub use find::FindArgs;
pub use follow::FollowArgs;
pub use proofs::{AnswerFormat, VerifyConsistencyArgs, VerifyForkArgs, VerifyProofArgs};
pub use proving::{ProveArgs, ProveConsistencyArgs};
pub use publish::{JwksArgs, TrustArgs};
pub use pull::PullArgs;
pub use show::ShowArgs;
pub use verifying::{Format, VerifyArgs};

/// What can be asked of a log.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Verify logs offline; the exit code is the verdict
    ///
    /// 0 verified, 2 usage, 10 tampered, 11 truncated or rolled back, 12 fork, 13 signature or quorum missing, 14 stale, 15 a rule is
    /// broken, 16 nothing verified or nothing pinned, 17 a keystore's own record differs (--reconcile), 74 a file or URL could not be read (no
    /// verdict). Of several findings the first of 10, 12, 11, 13, 16, 15, 17, 14 decides.
    Verify(VerifyArgs),
    /// Print records as readable lines; nothing is verified
    Show(ShowArgs),
    /// Find who made a token: its record and its receipt; nothing is verified
    Find(FindArgs),
    /// Print the exact JWKS bytes that the key log makes
    Jwks(JwksArgs),
    /// Print a proof (C2SP tlog-proof) that a record is in a log, for somebody who does not have the log
    ///
    /// The newest checkpoint that covers the record, that verifies and that enough witnesses cosigned is part of it. Exit codes: 0 made,
    /// 1 no such record, 10 another record than the receipt's, 11 the log is too short for the receipt, 13 no such checkpoint, 16 another
    /// log.
    Prove(ProveArgs),
    /// Check such a proof offline
    ///
    /// 0 it holds, 10 it does not, or the record is another one, 13 signature or quorum missing, 14 older than --max-age, 16 no trust file,
    /// another log, or nothing that says which record it is about.
    VerifyProof(VerifyProofArgs),
    /// Print a proof that the log of one size is the beginning of the log of another size
    ProveConsistency(ProveConsistencyArgs),
    /// Check such a proof offline
    ///
    /// 0 it holds, and the log signed for the larger size, 10 it does not hold, 13 signature or quorum missing, 16 no trust file, another
    /// log, or nothing is signed.
    VerifyConsistency(VerifyConsistencyArgs),
    /// Check the proof of a fork, as `verify` writes it, offline
    ///
    /// 12 the log key signed two histories, 10 the file does not prove it, 13 a note is not signed by the log, 16 no trust file or another
    /// log; never 0.
    VerifyFork(VerifyForkArgs),
    /// Print a trust file that holds the logs' own keys: trust on first use
    Trust(TrustArgs),
    /// Copy a key log that is served over HTTP (C2SP tlog-tiles), for the other commands; nothing is verified
    ///
    /// The copy is what the served checkpoint covers, and replaces the last one as a whole. 10: the records that are served do not lead to
    /// the root that is served; the last copy is left as it was.
    Pull(PullArgs),
    /// Watch a key log: print new records as they are covered, and end with the verdict of the first thing that is wrong
    ///
    /// Each round verifies against the round before, so a fork ends it with 12, a rollback with 11.
    Follow(FollowArgs),
}

impl Command {
    /// Chooses JSON wherever there is a choice, for a command line that has one switch for all its commands.
    pub fn choose_json(&mut self) {
        match self {
            Self::Verify(args) => args.format = Format::Json,
            Self::Show(args) => args.format = show::Output::Json,
            Self::Follow(args) => args.format = show::Output::Json,
            Self::VerifyProof(args) => args.format = AnswerFormat::Json,
            Self::VerifyConsistency(args) => args.format = AnswerFormat::Json,
            Self::VerifyFork(args) => args.format = AnswerFormat::Json,
            Self::Find(_) | Self::Jwks(_) | Self::Prove(_) | Self::ProveConsistency(_) | Self::Pull(_) | Self::Trust(_) => {}
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
    /// There is no proof of what was asked for.
    #[error("no proof ({}, exit {}): {}", .0.name(), .0.exit_code(), .1)]
    Unproven(Verdict, String),
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
            Self::Unproven(verdict, _) | Self::Refused(verdict, _) => verdict.exit_code(),
        }
    }
}

/// What a command may ask of the machine. This package has no clock, no socket and no thread of its own.
#[derive(Clone, Copy)]
pub struct Machine<'m> {
    /// The wall clock: the default of `--now`.
    pub clock: &'m dyn Fn() -> Timestamp,
    /// Opens a URL.
    pub fetch: &'m Fetch<'m>,
    /// Returns after this long.
    pub wait: &'m dyn Fn(Duration),
}

/// Runs a command and gives its exit code.
///
/// # Errors
///
/// [`Failure`], with its own exit code: there is no verdict then.
pub fn run(command: &Command, machine: &Machine<'_>, out: &mut dyn Write) -> Result<u8, Failure> {
    let (now, fetch) = ((machine.clock)(), machine.fetch);
    match command {
        Command::Verify(args) => verifying::run(args, now, fetch, out),
        Command::Show(args) => show::run(args, out),
        Command::Find(args) => find::run(args, out),
        Command::Jwks(args) => publish::jwks(args, now, out),
        Command::Prove(args) => proving::prove(args, out),
        Command::VerifyProof(args) => proofs::verify_proof(args, now, out),
        Command::ProveConsistency(args) => proving::prove_consistency(args, out),
        Command::VerifyConsistency(args) => proofs::verify_consistency(args, out),
        Command::VerifyFork(args) => proofs::verify_fork(args, out),
        Command::Trust(args) => publish::trust(args, now, out),
        Command::Pull(args) => pull::run(args, fetch, out),
        Command::Follow(args) => follow::run(args, machine, out),
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
