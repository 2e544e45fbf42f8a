//! The commands: what `claviger-audit` does, and `claviger audit` with it.
//!
//! In scope: arguments, reading the files that they name, writing the answer. Out of scope: reading arguments from the environment and the
//! clock from the machine (`main` does, or the daemon's command line).

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use crate::time::Timestamp;
use crate::verify::{Finding, Input, Options, Report, Verdict, verify};

mod args;
mod files;
mod find;
mod forks;
mod heads;
mod lines;
mod proofs;
mod proving;
mod publish;
mod show;
mod verifying;
mod writing;

pub use find::FindArgs;
pub use proofs::{AnswerFormat, VerifyConsistencyArgs, VerifyForkArgs, VerifyProofArgs};
pub use proving::{ProveArgs, ProveConsistencyArgs};
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
}

impl Command {
    /// Chooses JSON wherever there is a choice, for a command line that has one switch for all its commands.
    pub fn choose_json(&mut self) {
        match self {
            Self::Verify(args) => args.format = Format::Json,
            Self::Show(args) => args.format = show::Output::Json,
            Self::VerifyProof(args) => args.format = AnswerFormat::Json,
            Self::VerifyConsistency(args) => args.format = AnswerFormat::Json,
            Self::VerifyFork(args) => args.format = AnswerFormat::Json,
            Self::Find(_) | Self::Jwks(_) | Self::Prove(_) | Self::ProveConsistency(_) | Self::Trust(_) => {}
        }
    }
}

/// Nothing was found; `verify` never gives this.
pub const EXIT_NOT_FOUND: u8 = 1;
/// The arguments make no sense together.
pub const EXIT_USAGE: u8 = 2;
/// A file could not be read or written (`EX_IOERR` of sysexits).
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
            Self::File { .. } | Self::Io(_) => EXIT_IO,
            Self::Unproven(verdict, _) | Self::Refused(verdict, _) => verdict.exit_code(),
        }
    }
}

/// Runs a command and gives its exit code. `now` is the default of `--now`.
///
/// # Errors
///
/// [`Failure`], with its own exit code: there is no verdict then.
pub fn run(command: &Command, now: Timestamp, out: &mut dyn Write) -> Result<u8, Failure> {
    match command {
        Command::Verify(args) => verifying::run(args, now, out),
        Command::Show(args) => show::run(args, out),
        Command::Find(args) => find::run(args, out),
        Command::Jwks(args) => publish::jwks(args, now, out),
        Command::Prove(args) => proving::prove(args, out),
        Command::VerifyProof(args) => proofs::verify_proof(args, now, out),
        Command::ProveConsistency(args) => proving::prove_consistency(args, out),
        Command::VerifyConsistency(args) => proofs::verify_consistency(args, out),
        Command::VerifyFork(args) => proofs::verify_fork(args, out),
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
