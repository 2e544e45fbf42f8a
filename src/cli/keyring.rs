//! `claviger keyring`: look at keyrings, and order what concerns a whole one.
//!
//! In scope: arguments, tables and the drawn timeline. Out of scope: deciding anything; the daemon does.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::output::{self, Format, Outcome, cell};
use super::{exit, verb};

/// What can be asked of keyrings.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keyrings and who signs for each
    List,
    /// Show one keyring: settings, dates and keys
    Show {
        /// Its name
        keyring: String,
    },
    /// Draw what happened and what will happen, when, and which invariant sets each date
    Plan {
        /// Its name
        keyring: String,
    },
    /// Rotate now; refused while not every verifier can know the standby
    Rotate {
        /// Its name
        keyring: String,
        /// Rotate although some verifiers may not know the standby yet: their tokens will fail
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// End a keyring: nobody signs any more, no key follows, the last one leaves when its last token is dead. Its name is never used again
    Retire {
        /// Its name
        keyring: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// Publish another issuer's public keys beside ours until a date, so that a team can move here without an outage
    ImportJwks {
        /// The keyring whose sets they join
        keyring: String,
        /// A JWK set with public keys, each with `kid` and `alg`
        file: PathBuf,
        /// When they leave, e.g. 2027-01-31T12:00:00.000Z: after the last token of the other issuer is dead
        #[arg(long)]
        until: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: verb::Wait,
    },
}

/// Runs it.
pub(super) async fn run(command: Command, client: &Client, format: Format) -> Outcome {
    match command {
        Command::List => list(client, format).await,
        Command::Show { keyring } => show(client, &keyring, format).await,
        Command::Plan { keyring } => plan(client, &keyring, format).await,
        Command::Rotate { keyring, force, reason, wait } => {
            let path = format!("/admin/keyrings/{}/rotate", segment(&keyring));
            let done = client.order(&path, &json!({ "force": force, "reason": reason }), wait.wait_witnessed).await?;
            Ok(verb::report(&done, format))
        }
        Command::Retire { keyring, reason, yes, wait } => {
            verb::confirm(yes, &format!("End keyring {keyring} for good? Nobody will sign for it any more."))?;
            let path = format!("/admin/keyrings/{}/retire", segment(&keyring));
            Ok(verb::report(&client.order(&path, &json!({ "reason": reason }), wait.wait_witnessed).await?, format))
        }
        Command::ImportJwks { keyring, file, until, reason, wait } => {
            let jwks = super::input::json_object(&file)?;
            let path = format!("/admin/keyrings/{}/import-jwks", segment(&keyring));
            let done = client.order(&path, &json!({ "jwks": jwks, "until": until, "reason": reason }), wait.wait_witnessed).await?;
            Ok(verb::report(&done, format))
        }
    }
}

async fn list(client: &Client, format: Format) -> Outcome {
    let answer = client.get("/admin/keyrings").await?;
    if format == Format::Json {
        return Ok(output::json(&answer));
    }
    let keyrings = answer["keyrings"].as_array().cloned().unwrap_or_default();
    let rows = keyrings.iter().map(|keyring| {
        let count = |state: &str| keyring["keys"].as_array().into_iter().flatten().filter(|key| key["state"] == state).count().to_string();
        vec![
            cell(&keyring["keyring"]),
            cell(&keyring["purpose"]),
            cell(&keyring["algorithm"]),
            [&keyring["keystore"], &keyring["standby_keystore"]].map(cell).join(" ").trim_end().to_owned(),
            if keyring["retired"].is_null() { cell(&keyring["active"]) } else { "retired".to_owned() },
            count("published"),
            count("retiring"),
            cell(&keyring["next_rotation"]),
        ]
    });
    let head = ["keyring", "purpose", "algorithm", "keystores", "active key", "standby", "retiring", "next rotation"];
    output::table(&head, rows.collect(), "There is no keyring that you may see.");
    Ok(exit::OK)
}

async fn show(client: &Client, keyring: &str, format: Format) -> Outcome {
    let answer = client.get(&format!("/admin/keyrings/{}", segment(keyring))).await?;
    if format == Format::Json {
        return Ok(output::json(&answer));
    }
    for name in ["keyring", "purpose", "issuer", "typ", "algorithm", "keystore", "standby_keystore", "active", "next_rotation", "retired"] {
        output::line(format_args!("{name:>16}  {}", cell(&answer[name])));
    }
    if let Some(settings) = answer["timing"]["settings"].as_object() {
        let seconds = |value: &Value| {
            value
                .as_u64()
                .map_or_else(String::new, |ms| format!("{}", crate::rotation::duration::Human(std::time::Duration::from_millis(ms))))
        };
        for (name, value) in settings {
            output::line(format_args!("{:>24}  {}", name.trim_end_matches("_ms"), seconds(value)));
        }
        output::line(format_args!("{:>24}  {}", "lead (D + e)", seconds(&answer["timing"]["lead_ms"])));
        output::line(format_args!("{:>24}  {}", "overlap (Q + T + 2e)", seconds(&answer["timing"]["overlap_ms"])));
    }
    output::table(&super::key::HEAD, super::key::rows(&answer), "It has no key yet.");
    answer["keys"].as_array().into_iter().flatten().for_each(super::key::drift);
    Ok(exit::OK)
}

async fn plan(client: &Client, keyring: &str, format: Format) -> Outcome {
    let answer = client.get(&format!("/admin/keyrings/{}/plan", segment(keyring))).await?;
    if format == Format::Json {
        return Ok(output::json(&answer));
    }
    output::line(format_args!("now {}", cell(&answer["now"])));
    verb::draw(&answer["entries"], &answer["clock_paused"]);
    for risk in answer["risks"].as_array().into_iter().flatten() {
        output::line(format_args!("{}: {}", cell(&risk["code"]), cell(&risk["detail"])));
    }
    Ok(exit::OK)
}
