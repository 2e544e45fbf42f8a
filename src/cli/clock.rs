//! `claviger clock`: vouch for a clock that was stepped.
//!
//! In scope: arguments. Out of scope: deciding anything; the daemon does.

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::output::{Format, Outcome};
use super::verb;

/// What can be said of the clock.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say that the wall clock is right after it was stepped, so that keys rotate again once D + e have passed; `claviger doctor` tells of a step
    Confirm {
        /// Why, for the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: verb::Wait,
    },
}

/// Runs it.
pub(super) async fn run(command: Command, client: &Client, format: Format) -> Outcome {
    let Command::Confirm { reason, wait } = command;
    let done = client.order("/admin/clock/confirm", &json!({ "reason": reason }), wait.wait_witnessed).await?;
    Ok(verb::report(&done, format))
}
