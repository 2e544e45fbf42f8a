//! The command `claviger-audit`: verifies the audit logs of Claviger offline.
//!
//! In scope: arguments, the wall clock and the system's `curl`, which nothing else of this package reads or runs. Out of scope: everything
//! that is done with them (`claviger_audit::command`).

use std::io::{self, Write as _};
use std::process::{self, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use claviger_audit::Timestamp;
use claviger_audit::command::{self, CURL, Command, Failure, Fetched};

/// Verify and read the audit logs of Claviger, offline.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = command::run(&cli.command, wall_clock(), &fetch, &mut io::BufWriter::new(io::stdout().lock()));
    ExitCode::from(result.unwrap_or_else(|failure| {
        let is_closed = matches!(&failure, Failure::Io(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if !is_closed {
            // If standard error is gone too, the exit code still says it.
            let _ = writeln!(io::stderr(), "claviger-audit: {failure}");
        }
        failure.exit_code()
    }))
}

/// Runs the system's curl, without a shell. The daemon's command line has the same few lines: this package may start no process.
fn fetch(url: &str) -> Result<Fetched, String> {
    let output = process::Command::new(CURL).args(command::curl_arguments(url)).output().map_err(|error| error.to_string())?;
    command::curl_answer(output.status.success(), &output.stdout, &output.stderr)
}

#[expect(clippy::disallowed_methods, reason = "the default of --now; this is the one place of the package that reads a clock")]
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
