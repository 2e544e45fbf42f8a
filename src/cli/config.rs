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

/// What is shown of each kind of keystore: settings, and what they are called.
const KEYSTORE_COLUMNS: &[(&str, &[(&str, &str)])] = &[
    ("pkcs11", &[("token", "token"), ("module", "module"), ("workers", "workers"), ("profile", "profile"), ("omits", "may be missing")]),
    (
        "aws-kms",
        &[
            ("account", "AWS account"),
            ("region", "region"),
            ("endpoint", "endpoint"),
            ("requests_per_second", "requests a second"),
            ("deletion_window", "deleted after"),
        ],
    ),
    (
        "vault",
        &[
            ("address", "Vault"),
            ("mount", "engine"),
            ("namespace", "namespace"),
            ("login", "login"),
            ("authorities", "authorities"),
            ("in_flight", "in flight"),
        ],
    ),
];

pub(super) fn run(command: Command, file: &Path, format: Format) -> Outcome {
    let Command::Check = command;
    let config = load(file)?;
    let effective = config.effective();
    let value = serde_json::to_value(&effective).map_err(|error| Failure::new(exit::CONFIG, error))?;
    if format == Format::Json {
        return Ok(output::json(&value));
    }
    let keystores = value["keystores"].as_object().cloned().unwrap_or_default();
    if keystores.is_empty() {
        output::line("It has no keystore.");
    }
    for (kind, columns) in KEYSTORE_COLUMNS {
        let of_kind = keystores.iter().filter(|(_, row)| row["type"] == *kind);
        let told = |row: &Value| columns.iter().map(|(column, _)| told(&row[*column])).collect();
        let rows = of_kind.map(|(name, row)| [vec![name.clone()], told(row)].concat()).collect::<Vec<_>>();
        if !rows.is_empty() {
            let head = ["keystore"].into_iter().chain(columns.iter().map(|(_, title)| *title)).collect::<Vec<_>>();
            output::table(&head, rows, "");
        }
    }
    let keyrings = value["keyrings"].as_object().cloned().unwrap_or_default();
    let head =
        ["keyring", "algorithm", "keystore", "standby keystore", "seen by all (D)", "lead (D + e)", "overlap", "exposure", "rotates every"];
    let columns = ["algorithm", "keystore", "standby_keystore", "seen_by_all", "lead", "overlap", "exposure", "rotate_every"];
    let rows = keyrings.iter().map(|(name, row)| [vec![name.clone()], columns.iter().map(|c| cell(&row[*c])).collect()].concat());
    output::table(&head, rows.collect(), "It has no keyring.");
    output::line(format_args!("{} can be kept.", file.display()));
    Ok(exit::OK)
}

/// A value as a cell; of a list its items.
fn told(value: &Value) -> String {
    value.as_array().map_or_else(|| cell(value), |items| items.iter().map(cell).collect::<Vec<_>>().join(", "))
}

/// Loads the file, or says everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| Failure::new(exit::CONFIG, error))
}
