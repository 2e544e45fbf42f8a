//! `claviger audit`: the verifier, as `claviger-audit` has it, and what is done to the logs themselves.
//!
//! In scope: arguments, and what is said. Out of scope: everything else. The verifier never asks the daemon anything, but for what lies under a
//! URL that it is given; the verbs do nothing without it; `adopt` works while none runs, and has a file of its own.

use std::process;

use clap::Subcommand;
use claviger_audit::Timestamp;
use claviger_audit::command::{self, CURL, Fetched, Machine};
use serde_json::{Value, json};

use super::adopt;
use super::client::Client;
use super::output::{self, Failure, Format, Outcome, cell};
use super::verb;
use crate::clock::Clock;

/// What can be asked of the logs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What needs files alone.
    #[command(flatten)]
    Offline(Box<command::Command>),
    /// What only the daemon can do.
    #[command(flatten)]
    Verb(Verb),
    /// Go on with a log that lost its tail: tells what is lost, and accepts it with --accept-loss. No daemon may run
    Adopt(adopt::Args),
}

/// What is done to the logs themselves.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Let another key sign the checkpoints of a log; the old one signs once more, beside it
    ///
    /// The new key is made in the keystore that [log] names. Verifiers take it only from their trust files: the line that is printed must
    /// be in them, or they answer 13. The old key is never destroyed here.
    RotateKey {
        /// Which log
        // `--log` is taken: it says what is logged to standard error.
        #[arg(value_enum)]
        which: Log,
        /// Why, for the daemon's own log
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete old records of the use log, whole segments at a time; their hashes are kept, so that every proof still works
    ///
    /// Nothing goes that is younger than `[audit] retention`, or whose tokens lived until then, whatever DATE is.
    Prune {
        /// Only records before this day or time (UTC), such as 2026-01-31 or 2026-01-31T12:00:00.000Z
        #[arg(long, value_name = "DATE", value_parser = date)]
        before: Timestamp,
        /// Why, for the log
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Destroy the key of a past year's pseudonyms: nobody can tell any more whose they were
    Erase {
        /// The year, as it stands in the pseudonyms (hmac-2025:...)
        #[arg(long)]
        year: u64,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// One of the two logs.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Log {
    /// The key log
    Keys,
    /// The use log
    Uses,
}

/// Looks at files.
pub(super) fn offline(mut command: Box<command::Command>, clock: &dyn Clock, format: Format) -> Outcome {
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

/// Asks the daemon.
pub(super) async fn run(verb: Verb, client: &Client, format: Format) -> Outcome {
    match verb {
        Verb::RotateKey { which, reason } => {
            let name = match which {
                Log::Keys => "keys",
                Log::Uses => "uses",
            };
            let turned = client.post(&format!("/admin/log/{name}/rotate-key"), &json!({ "reason": reason })).await?;
            Ok(report(&turned, format))
        }
        Verb::Prune { before, reason, dry_run, yes } => {
            if !dry_run {
                verb::confirm(yes, &format!("Delete use records from before {before}? This is final."))?;
            }
            let body = json!({ "before": before, "reason": reason, "dry_run": dry_run });
            let pruned = client.post("/admin/log/uses/prune", &body).await?;
            Ok(pruned_report(&pruned, format))
        }
        Verb::Erase { year, reason, yes } => {
            verb::confirm(yes, &format!("Destroy the key of {year}? This is final. Copies of the state folder, in backups too, keep it."))?;
            let done = client.post(&format!("/admin/subjects/{year}/erase"), &json!({ "reason": reason })).await?;
            Ok(verb::report(&done, format))
        }
    }
}

/// A day is its first moment.
fn date(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00.000Z") } else { text.to_owned() };
    whole.parse().map_err(|_| format!("{text:?} is no date; write 2026-01-31 or 2026-01-31T12:00:00.000Z"))
}

fn pruned_report(pruned: &Value, format: Format) -> u8 {
    if format == Format::Json {
        return output::json(pruned);
    }
    let segments = pruned["segments"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = segments.iter().map(|old| vec![cell(&old["first"]), cell(&old["records"]), cell(&old["bytes"])]).collect();
    let nothing = format!("Nothing to delete: no sealed and covered segment has only records from before {}.", cell(&pruned["before"]));
    output::table(&["from record", "records", "bytes"], rows, &nothing);
    if !segments.is_empty() {
        let what = if pruned["deleted"] == true { "deleted" } else { "would be deleted" };
        output::line(format_args!(
            "{} records in {} bytes {what}; the first that is left is {}.",
            pruned["records"], pruned["bytes"], pruned["first_left"]
        ));
    }
    super::exit::OK
}

fn report(turned: &Value, format: Format) -> u8 {
    let code = verb::report(turned, format);
    if format == Format::Json {
        return code;
    }
    output::line(
        "\nAdd this line to the trust file of every verifier now; beside the old one, for old checkpoints keep their signature:\n",
    );
    output::line(format_args!("{}\n", cell(&turned["trust"])));
    if turned["covered"] == true {
        output::line("A checkpoint with the signatures of both keys covers the rotation; the next have the new one alone.");
    } else {
        output::line(
            "No checkpoint covers the rotation yet: it needs the signatures of both keys. `claviger doctor` says whether one does.",
        );
    }
    let old = &turned["old"];
    output::line(format_args!(
        "The old key is still in keystore {} ({}). It may be destroyed there by hand once a checkpoint covers the rotation and every verifier has the line.",
        cell(&old["keystore"]),
        cell(&old["locator"])
    ));
    code
}
