//! `claviger key`: look at keys, and order what concerns one.
//!
//! In scope: arguments and tables. Out of scope: deciding anything; the daemon does.

use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::output::{self, Failure, Format, Outcome, cell};
use super::{exit, verb};
use crate::clock::Clock;
use crate::daemon::offline::{self, OfflineError};
use crate::journal::AppendError;
use crate::journal::state::StateError;
use crate::operator::Verb;
use crate::views;

/// What can be asked of keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys of a keyring, or of all
    List {
        /// Only this keyring
        #[arg(long)]
        keyring: Option<String>,
    },
    /// Show one key with its public half
    Show {
        /// Its kid or its name
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Tell the story of a key, and what its next step waits for
    Explain {
        /// Its kid or its name
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Declare a key compromised: out of the JWKS now, never signs again, the standby promoted, destroyed in its keystore (final on PKCS#11)
    Compromise {
        /// Its kid
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// From when on its signatures are in doubt, e.g. 2026-11-01T08:00:00.000Z; now if left out
        #[arg(long)]
        since: Option<String>,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// While no daemon runs: take the lock of the state folder, and append the record here
        #[arg(long, conflicts_with = "wait_witnessed")]
        offline: bool,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// Let the active key not sign until it is resumed; it stays in the JWKS, and nobody else signs meanwhile
    Suspend {
        /// Its kid
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        /// While no daemon runs: take the lock of the state folder, and append the record here
        #[arg(long, conflicts_with = "wait_witnessed")]
        offline: bool,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// Let a suspended key sign again
    Resume {
        /// Its kid
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// Give up a key that never signed
    Abandon {
        /// Its kid or its name
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: verb::Wait,
    },
    /// Destroy a withdrawn, compromised or abandoned key in its keystore, for good
    Destroy {
        /// Its kid or its name
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: verb::Wait,
    },
}

/// The head of a table of keys.
pub(super) const HEAD: [&str; 7] = ["#", "kid", "state", "since", "algorithm", "keystore", "next date"];

/// Runs it.
pub(super) async fn run(command: Command, client: &Client, format: Format) -> Outcome {
    let post = async |key: &str, name: &str, body: Value, wait: verb::Wait| {
        let done = client.order(&format!("/admin/keys/{}/{name}", segment(key)), &body, wait.wait_witnessed).await?;
        Ok(verb::report(&done, format))
    };
    match command {
        Command::List { keyring } => list(client, keyring.as_deref(), format).await,
        Command::Show { key } => {
            let answer = client.get(&format!("/admin/keys/{}", segment(&key))).await?;
            Ok(output::json(&answer["key"]))
        }
        Command::Explain { key } => explain(client, &key, format).await,
        Command::Compromise { kid, since, reason, yes, wait, .. } => {
            verb::confirm(yes, &format!("Take {kid} out of the JWKS and destroy it? This is final; `key suspend` can be undone."))?;
            let path = format!("/admin/keys/{}/compromise", segment(&kid));
            let done = client.order(&path, &json!({ "since": since, "reason": reason }), wait.wait_witnessed).await?;
            let code = verb::report(&done, format);
            // Whoever may compromise need not be allowed to read: what was done is done, and is said above.
            if format == Format::Table
                && let Ok(story) = client.get(&format!("/admin/keys/{}", segment(&kid))).await
            {
                verb::exposure(&story);
            }
            Ok(code)
        }
        Command::Suspend { kid, reason, wait, .. } => post(&kid, "suspend", json!({ "reason": reason }), wait).await,
        Command::Resume { kid, reason, wait } => post(&kid, "resume", json!({ "reason": reason }), wait).await,
        Command::Abandon { key, reason, wait } => post(&key, "abandon", json!({ "reason": reason }), wait).await,
        Command::Destroy { key, yes, wait } => {
            verb::confirm(yes, &format!("Destroy {key} in its keystore? On PKCS#11 this is final."))?;
            post(&key, "destroy", json!({}), wait).await
        }
    }
}

/// What `--offline` asks for, if it does: the verb, after the question that it needs.
pub(super) fn offline(command: &Command) -> Result<Option<Verb>, Failure> {
    match command {
        Command::Compromise { kid, since, reason, yes, offline: true, .. } => {
            verb::confirm(*yes, &format!("Take {kid} out of the JWKS? This is final; `key suspend` can be undone."))?;
            let since = since.as_deref().map(str::parse).transpose().map_err(|error| Failure::new(exit::DATA, error))?;
            Ok(Some(Verb::Compromise { kid: kid.clone(), since, reason: reason.clone() }))
        }
        Command::Suspend { kid, reason, offline: true, .. } => Ok(Some(Verb::Suspend { kid: kid.clone(), reason: reason.clone() })),
        _ => Ok(None),
    }
}

/// Appends the verb's record while no daemon runs.
pub(super) async fn run_offline(verb: Verb, config: &Path, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    let config = super::config::load(config)?;
    let code = |error: &OfflineError| match error {
        OfflineError::State(StateError::Locked { .. }) => exit::UNAVAILABLE,
        OfflineError::State(_) => exit::IO,
        OfflineError::Append(AppendError::Illegal(_)) => exit::LATER,
        OfflineError::Log(_) | OfflineError::Append(_) | OfflineError::Adopting => exit::DATA,
    };
    let done = offline::append(&config, clock, verb).await.map_err(|error| Failure::new(code(&error), error))?;
    Ok(verb::report(&views::done(&done), format))
}

async fn list(client: &Client, only: Option<&str>, format: Format) -> Outcome {
    let answer = match only {
        Some(keyring) => json!({ "keyrings": [client.get(&format!("/admin/keyrings/{}", segment(keyring))).await?] }),
        None => client.get("/admin/keyrings").await?,
    };
    let keyrings = answer["keyrings"].as_array().cloned().unwrap_or_default();
    if format == Format::Json {
        let keys: Vec<Value> = keyrings.iter().flat_map(|keyring| keyring["keys"].as_array().cloned().unwrap_or_default()).collect();
        return Ok(output::json(&json!({ "keys": keys })));
    }
    let rows = keyrings.iter().flat_map(|keyring| rows(keyring).into_iter().map(|row| [vec![cell(&keyring["keyring"])], row].concat()));
    let head = [&["keyring"][..], &HEAD].concat();
    output::table(&head, rows.collect(), "There is no key that you may see.");
    Ok(exit::OK)
}

async fn explain(client: &Client, key: &str, format: Format) -> Outcome {
    let answer = client.get(&format!("/admin/keys/{}", segment(key))).await?;
    if format == Format::Json {
        return Ok(output::json(&answer));
    }
    output::line(format_args!("{} is {} in keyring {}", key, cell(&answer["key"]["state"]), cell(&answer["keyring"])));
    drift(&answer["key"]);
    verb::draw(&answer["story"], &answer["clock_paused"]);
    Ok(exit::OK)
}

/// What a key had become in its keystore, if it was not what its record says.
pub(super) fn drift(key: &Value) {
    if let Some(found) = key["drift"]["found"].as_str() {
        let since = cell(&key["drift"]["since"]);
        output::line(format_args!("Key {} is not in its keystore what it was made as, since {since}: {found}", cell(&key["kid"])));
    }
}

/// The rows of a keyring's keys.
pub(super) fn rows(keyring: &Value) -> Vec<Vec<String>> {
    let keys = keyring["keys"].as_array().into_iter().flatten();
    let rows = keys.map(|key| {
        let next = match key["state"].as_str() {
            Some("published") => &key["eligible_at"],
            Some("active") => &keyring["next_rotation"],
            Some("retiring") => &key["withdraw_after"],
            Some("withdrawn") => &key["destroy_after"],
            _ => &Value::Null,
        };
        let name = cell(&key["name"]);
        let number = name.rsplit('.').next().and_then(|last| last.split('-').next()).unwrap_or("-").to_owned();
        let columns = ["kid", "state", "since", "algorithm", "keystore"];
        [vec![number], columns.iter().map(|column| cell(&key[*column])).collect(), vec![cell(next)]].concat()
    });
    rows.collect()
}
