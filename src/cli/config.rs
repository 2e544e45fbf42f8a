//! `claviger config`: what a configuration means.
//!
//! In scope: loading it for every command, and `config check`. Out of scope: its rules (`config`).

use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use super::exit;
use super::output::{self, Failure, Format, Outcome, cell};
use crate::config::Config;

/// What can be asked of a configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the file, and print what is computed from it: D, lead, overlap, exposure
    Check,
}

pub(super) fn run(command: Command, file: &Path, format: Format) -> Outcome {
    let Command::Check = command;
    let config = load(file)?;
    let effective = config.effective();
    let value = serde_json::to_value(&effective).map_err(|error| Failure::new(exit::CONFIG, error))?;
    if format == Format::Json {
        return Ok(output::json(&value));
    }
    let keystores = value["keystores"].as_object().cloned().unwrap_or_default();
    let missing = |row: &Value| row["omits"].as_array().into_iter().flatten().map(cell).collect::<Vec<_>>().join(", ");
    let columns = ["token", "module", "workers", "profile"];
    let rows = keystores.iter().map(|(name, row)| {
        let told = columns.iter().map(|column| cell(&row[*column]));
        [name.clone()].into_iter().chain(told).chain([missing(row)]).collect()
    });
    output::table(&["keystore", "token", "module", "workers", "profile", "may be missing"], rows.collect(), "It has no keystore.");
    let keyrings = value["keyrings"].as_object().cloned().unwrap_or_default();
    let head = ["keyring", "algorithm", "keystore", "seen by all (D)", "lead (D + e)", "overlap", "exposure", "rotates every"];
    let columns = ["algorithm", "keystore", "seen_by_all", "lead", "overlap", "exposure", "rotate_every"];
    let rows = keyrings.iter().map(|(name, row)| [vec![name.clone()], columns.iter().map(|c| cell(&row[*c])).collect()].concat());
    output::table(&head, rows.collect(), "It has no keyring.");
    output::line(format_args!("{} can be kept.", file.display()));
    Ok(exit::OK)
}

/// Loads the file, or says everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| Failure::new(exit::CONFIG, error))
}
