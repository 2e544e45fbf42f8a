//! What operators' verbs share: asking first, saying what was done, drawing a timeline.
//!
//! In scope: the terminal. Out of scope: the verbs themselves.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use owo_colors::OwoColorize as _;
use serde_json::Value;

use super::exit;
use super::output::{self, Failure, Format, cell};
use crate::rotation::duration::parse_duration;

/// Asks, unless `yes`; where nobody can answer, refuses.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(exit::DATA, format!("{question}\nNobody can answer here; say --yes.")));
    }
    output::remark(format_args!("{question} [yes/no]"));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(Failure::new(exit::FOUND, "Nothing was done.")) }
}

/// Whether a verb waits for witnesses.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Wait {
    /// Answer only when a checkpoint with a quorum of cosignatures covers the record, or after this time (30s) with exit code 75: it is
    /// done then all the same
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "30s", value_parser = parse_duration)]
    pub(super) wait_witnessed: Option<Duration>,
}

/// Says what a verb did, with the records that prove it.
pub(super) fn report(done: &Value, format: Format) -> u8 {
    // Absent if nobody was to be waited for.
    let late = done["witnessed"]["reached"] == false;
    let code = if late { exit::LATER } else { exit::OK };
    if format == Format::Json {
        output::json(done);
        return code;
    }
    let events = done["events"].as_array().cloned().unwrap_or_default();
    let receipts = done["receipts"].as_array().cloned().unwrap_or_default();
    for (event, receipt) in events.iter().zip(&receipts) {
        output::line(format_args!("{} (record {})", event["event"].as_str().unwrap_or_default().bold(), cell(&receipt["seq"])));
        let shown = ["kid", "from", "to", "key", "withdraw_after", "next_rotation", "until", "difference_ms"];
        for name in shown.iter().filter(|name| event.get(**name).is_some_and(|value| !value.is_null())) {
            output::line(format_args!("{name:>16}  {}", cell(&event[*name])));
        }
        if event["event"] == "key.compromised" && event["to"].is_null() {
            output::line("Nobody signs for this keyring until a standby is old enough (I1); `claviger keyring plan` shows when.");
        }
    }
    if !done["live_tokens"].is_null() {
        live_tokens(&done["live_tokens"]);
    }
    if late {
        output::remark("It is done, but not witnessed yet: no quorum has cosigned its record; `claviger doctor` tells of each witness.");
    } else if !done["witnessed"].is_null() {
        output::line(format_args!("witnessed: a quorum cosigned {} records", cell(&done["witnessed"]["size"])));
    }
    code
}

/// Which tokens of a compromised key can still be alive, and whom to warn.
fn live_tokens(live: &Value) {
    let least = if live["complete"] == true { "" } else { "at least " };
    let until = live["until"].as_str().map(|date| format!(", the last until {date}")).unwrap_or_default();
    output::line(format_args!("Tokens that it signed on this node and that can still be alive: {least}{}{until}.", live["count"]));
    for row in live["callers"].as_array().into_iter().flatten() {
        output::line(format_args!("{:>16}  {}", row["count"], cell(&row["caller"])));
    }
}

/// How long verifiers may go on trusting a compromised key.
pub(super) fn exposure(story: &Value) {
    let stopped = cell(&story["key"]["stopped"]);
    output::line(format_args!("It signs nothing since {stopped}. Verifiers that cache as configured forget it within D + e."));
}

/// Draws a timeline: what is done, what is ahead, and what each date hangs on.
pub(super) fn draw(entries: &Value, clock_paused: &Value) {
    if *clock_paused == true {
        output::line("The wall clock was stepped: nothing that lies ahead happens before it is right or confirmed (I12).");
    }
    for entry in entries.as_array().into_iter().flatten() {
        let done = entry["done"] == true;
        let mark = if done { "●".green().to_string() } else { "○".yellow().to_string() };
        let at = entry["at"].as_str().map_or_else(|| "no date yet".to_owned(), str::to_owned);
        let mut why = Vec::new();
        if let Some(rule) = entry["rule"].as_str() {
            why.push(format!("set by {rule}"));
        }
        if let Some(blocked) = entry["blocked_by"].as_str() {
            why.push(blocked.to_owned());
        }
        let key: String = cell(&entry["key"]).chars().take(SHOWN_OF_A_KID).collect();
        output::line(format_args!(
            "{mark} {at:<24}  {:<11}  {key:<width$}  {}",
            cell(&entry["state"]),
            why.join("; "),
            width = SHOWN_OF_A_KID
        ));
    }
}

/// Enough of a kid or name to tell keys apart in one line.
const SHOWN_OF_A_KID: usize = 43;
