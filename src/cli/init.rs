//! `claviger init`: make the state of a new installation.
//!
//! In scope: what is said. Out of scope: what is done (`daemon::init`).

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::exit;
use super::output::{self, Failure, Format, Outcome};
use crate::clock::Clock;
use crate::daemon::init::{self, InitError};

pub(super) async fn run(file: &Path, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    let config = super::config::load(file)?;
    let made = init::init(&config, clock).await.map_err(|error| Failure::new(code(&error), error))?;
    if format == Format::Json {
        return Ok(output::json(&json!({ "logs": made.logs, "verifier_keys": made.verifier_keys })));
    }
    output::line(format_args!("The logs are in {}. Keep these three lines as the trust file of your verifiers:\n", made.logs.display()));
    for key in &made.verifier_keys {
        output::line(format_args!("log {key}"));
    }
    // C2SP tlog-policy wants the line; witnesses would be named above it.
    output::line("quorum none");
    output::remark("\nNext: claviger serve");
    Ok(exit::OK)
}

fn code(error: &InitError) -> u8 {
    match error {
        InitError::Keystore { .. } => exit::UNAVAILABLE,
        InitError::Io { .. } => exit::IO,
        InitError::State(_) | InitError::Log(_) | InitError::Exists(_) | InitError::ForeignKey { .. } | InitError::BadIntent(_) => {
            exit::CANNOT_CREATE
        }
    }
}
