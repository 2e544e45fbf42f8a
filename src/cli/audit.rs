//! `claviger audit`: the verifier, as `claviger-audit` has it.
//!
//! In scope: running it with the daemon's command line. Out of scope: everything else; it never asks the daemon anything.

use claviger_audit::command::{self, Command};

use super::output::{Failure, Format, Outcome};
use crate::clock::Clock;

pub(super) fn run(mut command: Command, clock: &dyn Clock, format: Format) -> Outcome {
    if format == Format::Json {
        command.choose_json();
    }
    let mut out = anstream::stdout();
    command::run(&command, clock.wall(), &mut out).map_err(|failure| Failure::new(failure.exit_code(), failure))
}
