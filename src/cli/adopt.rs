//! `claviger audit adopt`: what an adoption accepts, and what it did.
//!
//! In scope: what is said, and exit codes. Out of scope: what is done (`daemon::adopt`).

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::exit;
use super::output::{self, Failure, Format, Outcome};
use crate::clock::Clock;
use crate::daemon::adopt::{self, Adopted, AdoptionError, Losses, Wish};
use crate::journal::state::StateError;

/// What `adopt` is given.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept it: a new log goes on from what is left, and every key is suspended until `key resume`. Without this, only tell
    #[arg(long)]
    accept_loss: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// How many records a log is known to have had, from a verifier's head or a receipt (may repeat)
    #[arg(long, value_name = "ORIGIN=N", value_parser = known_size)]
    known_size: Vec<(String, u64)>,
}

fn known_size(text: &str) -> Result<(String, u64), String> {
    let parts = text.rsplit_once('=').and_then(|(origin, size)| Some((origin.to_owned(), size.parse().ok()?)));
    parts.filter(|(origin, _)| !origin.is_empty()).ok_or_else(|| format!("{text:?} is not a size of a log; write ORIGIN=N"))
}

pub(super) async fn run(args: &Args, file: &Path, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    let config = super::config::load(file)?;
    let wish = Wish { accept_loss: args.accept_loss, reason: args.reason.clone(), known_sizes: args.known_size.clone() };
    let outcome = adopt::adopt(&config, clock, &wish).await.map_err(|error| Failure::new(code(&error), error))?;
    match (outcome, format) {
        (adopt::Outcome::Whole, Format::Json) => Ok(output::json(&json!({ "adopted": false, "logs": [] }))),
        (adopt::Outcome::Whole, Format::Table) => {
            output::line("No log is shorter than anything here says. What only others know is told with --known-size ORIGIN=N.");
            Ok(exit::OK)
        }
        (adopt::Outcome::Told(losses), Format::Json) => {
            output::json(&losses_json(&losses, false));
            Ok(exit::FOUND)
        }
        (adopt::Outcome::Told(losses), Format::Table) => {
            tell(&losses);
            output::line(
                "\nNothing was changed. If newer files exist, bring them back instead. To accept the loss: claviger audit adopt --accept-loss",
            );
            Ok(exit::FOUND)
        }
        (adopt::Outcome::Adopted(adopted), Format::Json) => {
            let mut told = losses_json(&adopted.losses, true);
            told["verifier_keys"] = json!(adopted.verifier_keys);
            told["former"] = json!(adopted.former);
            Ok(output::json(&told))
        }
        (adopt::Outcome::Adopted(adopted), Format::Table) => {
            tell_adopted(&adopted);
            Ok(exit::OK)
        }
    }
}

fn losses_json(losses: &Losses, adopted: bool) -> Value {
    let logs = losses.logs.iter().map(|log| {
        let known = log.known.iter().map(|(by, size)| json!({ "by": by, "size": size }));
        json!({
            "log": log.kind, "origin": log.origin, "successor": log.successor, "size": log.size, "lost": log.lost,
            "known": known.collect::<Vec<_>>(),
        })
    });
    let unknown = losses.unknown.iter().map(|(keystore, name)| json!({ "keystore": keystore, "name": name }));
    let unasked = losses.unasked.iter().map(|(keystore, why)| json!({ "keystore": keystore, "reason": why }));
    json!({
        "adopted": adopted, "unknown_keys": unknown.collect::<Vec<_>>(), "unasked_keystores": unasked.collect::<Vec<_>>(),
        "logs": logs.collect::<Vec<_>>(), "suspended": losses.suspended,
    })
}

fn tell(losses: &Losses) {
    let rows = losses.unknown.iter().map(|(keystore, name)| vec![keystore.clone(), name.to_string()]);
    output::table(&["keystore", "key that no record names"], rows.collect(), "Every key that the keystores hold is named by a record.");
    if !losses.unknown.is_empty() {
        output::line("They may have signed. Nothing here deletes them; look who made them, and withdraw what they signed.");
    }
    for (keystore, why) in &losses.unasked {
        output::line(format_args!("Keystore {keystore} could not be asked which keys it holds: {why}"));
    }
    output::line("");
    for log in &losses.logs {
        output::line(format_args!("{} has {} records, and {} more are known to be lost:", log.origin, log.size, log.lost));
        for (by, size) in &log.known {
            output::line(format_args!("  {size} records by {by}"));
        }
        if log.lost == 0 {
            output::line("  nothing of it; it ends because the key log does");
        }
        output::line(format_args!("  {} goes on from record {}", log.successor, log.size));
    }
    output::line("");
    match losses.suspended.as_slice() {
        [] => output::line("No key can sign."),
        kids => output::line(format_args!("These keys are suspended until `claviger key resume KID`:\n  {}", kids.join("\n  "))),
    }
}

fn tell_adopted(adopted: &Adopted) {
    if !adopted.losses.logs.is_empty() {
        tell(&adopted.losses);
        output::line("");
    }
    output::line(format_args!(
        "The logs that ended lie in {}; keep them beside the new ones. Add these lines to the trust file of your verifiers, and leave the old ones:\n",
        adopted.former.display()
    ));
    for key in &adopted.verifier_keys {
        output::line(format_args!("log {key}"));
    }
    output::remark(
        "\nA head that a verifier remembers of a log that ended, and that is larger than what is left, is the evidence of the loss: it gives 11 \
         until you remove it.\nNext: claviger serve, then claviger key resume KID --reason R for each key that you trust",
    );
}

fn code(error: &AdoptionError) -> u8 {
    match error {
        AdoptionError::State(StateError::Locked { .. }) | AdoptionError::Keystore { .. } => exit::UNAVAILABLE,
        AdoptionError::Start(_) => exit::CONFIG,
        error if error.is_io() => exit::IO,
        AdoptionError::State(_) | AdoptionError::Files(_) | AdoptionError::Unfinished(_) => exit::DATA,
    }
}
