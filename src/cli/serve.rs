//! `claviger serve`: run the daemon.
//!
//! In scope: exit codes. Out of scope: the daemon.

use std::path::Path;
use std::sync::Arc;

use super::exit;
use super::output::{Failure, Outcome};
use crate::clock::Clock;
use crate::daemon::{self, Ended, StartError};
use crate::journal::OpenError;
use crate::journal::state::StateError;

/// Runs until it is told to stop.
pub(super) async fn run(config: &Path, clock: Arc<dyn Clock>) -> Outcome {
    match daemon::serve(config, clock).await {
        Ok(Ended::Stopped) => Ok(exit::OK),
        Ok(Ended::LogDied) => Err(Failure::new(
            exit::IO,
            "the audit log could not be written; see the log above, make room or replace the disk, and start again",
        )),
        Ok(Ended::Wedged) => {
            Err(Failure::new(exit::LATER, "calls to a keystore hang, and only a new process can use it again; start the daemon again"))
        }
        Err(error) => Err(Failure::new(code(&error), error)),
    }
}

fn code(error: &StartError) -> u8 {
    match error {
        StartError::Config(_) | StartError::Log { source: OpenError::Missing { .. } | OpenError::OtherNode { .. }, .. } => exit::CONFIG,
        StartError::State(StateError::Locked { .. }) | StartError::Listen { .. } => exit::UNAVAILABLE,
        StartError::State(StateError::Io { .. }) | StartError::Log { source: OpenError::Io { .. }, .. } => exit::IO,
        StartError::Log { .. } | StartError::Adopting => exit::DATA,
    }
}
