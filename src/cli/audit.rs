//! `claviger audit`: the verifier, as `claviger-audit` has it.
//!
//! In scope: running it with the daemon's command line. Out of scope: everything else; it never asks the daemon anything, but for a JWKS
//! under a URL that it is given.

use std::process;

use claviger_audit::command::{self, CURL, Command, Fetched, Machine};

use super::output::{Failure, Format, Outcome};
use crate::clock::Clock;

pub(super) fn run(mut command: Command, clock: &dyn Clock, format: Format) -> Outcome {
    if format == Format::Json {
        command.choose_json();
    }
    let mut out = anstream::stdout();
    let machine = Machine { clock: &|| clock.wall(), fetch: &fetch, wait: &std::thread::sleep };
    command::run(&command, &machine, &mut out).map_err(|failure| Failure::new(failure.exit_code(), failure))
}

/// Runs the system's curl, without a shell; the package of the verifier may start no process.
fn fetch(url: &str) -> Result<Fetched, String> {
    let output = process::Command::new(CURL).args(command::curl_arguments(url)).output().map_err(|error| error.to_string())?;
    command::curl_answer(output.status.success(), &output.stdout, &output.stderr)
}
