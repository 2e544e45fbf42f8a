//! `claviger policy`: check, test, explain and list policies offline; ask the daemon to load them.
//!
//! In scope: files in, verdicts out. Out of scope: how policies decide (`policy`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::exit;
use super::output::{self, Failure, Format, Outcome};
use crate::clock::Clock;
use crate::config::{Config, files};
use crate::daemon::setup;
use crate::policy::table::Table;
use crate::policy::{Action, Caller, CallerAttributes, Identity, Outcome as Verdict, PolicySet};
use crate::signer::Rules;

/// What can be asked of policies.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Parse and validate all policies; find those that can never match, and keyrings that no permit names
    Check,
    /// Run the tables in `policies/tests`, or the given ones
    Test {
        /// TOML tables
        tables: Vec<PathBuf>,
    },
    /// Tell which policies decide a request, and how each of them judged it
    Explain {
        /// The caller, e.g. `unix:uid=1000`
        #[arg(long = "as", value_name = "CALLER")]
        as_caller: String,
        /// The keyring
        #[arg(long)]
        keyring: String,
        /// The action
        #[arg(long, default_value = "sign")]
        action: String,
        /// A JSON object of claims, for `sign` and `signBatch`
        #[arg(long)]
        claims: Option<PathBuf>,
    },
    /// List the permits and forbids that can match a keyring, as written
    List {
        /// The keyring
        keyring: String,
    },
    /// Ask the daemon to load configuration and policies anew, all or nothing
    Reload,
}

pub(super) async fn run(command: Command, file: &Path, client: Result<Client, Failure>, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    if let Command::Reload = command {
        return Ok(output::json(&client?.post("/admin/reload", &json!({})).await?));
    }
    let config = super::config::load(file)?;
    match command {
        Command::Check => check(&config, format),
        Command::Test { tables } => test(&config, tables, clock.as_ref(), format),
        Command::Explain { as_caller, keyring, action, claims } => {
            explain(&config, (&as_caller, &keyring, &action), claims.as_deref(), clock.as_ref(), format)
        }
        Command::List { keyring } => list(&config, &keyring, format),
        Command::Reload => Ok(exit::OK),
    }
}

fn files(config: &Config) -> Result<Vec<(String, String)>, Failure> {
    files::policies(&config.policies).map_err(|error| Failure::new(exit::NOT_FOUND, error))
}

fn load(config: &Config) -> Result<PolicySet, Failure> {
    setup::policies(config, None, &files(config)?).map_err(|errors| Failure::new(exit::DATA, setup::problems(&errors)))
}

/// The rules of files alone.
pub(super) fn offline_rules(config: &Config) -> Result<Rules, Failure> {
    Ok(setup::rules(config, Some(load(config)?)))
}

/// A caller as the configuration knows it.
pub(super) fn caller(config: &Config, text: &str) -> Result<Caller, Failure> {
    let identity: Identity = text.parse().map_err(|error| Failure::new(exit::DATA, error))?;
    let none = CallerAttributes::default();
    let attributes = config.callers.get(&identity).map_or(&none, |caller| &caller.attributes);
    Ok(Caller::new(identity, attributes))
}

fn check(config: &Config, format: Format) -> Outcome {
    let policies = load(config)?;
    let findings = policies.lint();
    if format == Format::Json {
        let rows: Vec<Value> = findings.iter().map(|finding| json!({ "policy": finding.policy, "message": finding.message })).collect();
        output::json(&json!({ "policies": policies.len(), "findings": rows }));
    } else {
        for finding in &findings {
            output::line(finding);
        }
        output::line(format_args!("{} policies are valid; {} findings", policies.len(), findings.len()));
    }
    Ok(if findings.is_empty() { exit::OK } else { exit::FOUND })
}

fn test(config: &Config, tables: Vec<PathBuf>, clock: &dyn Clock, format: Format) -> Outcome {
    let files = files(config)?;
    let vocabulary = setup::vocabulary(config, None);
    let callers: BTreeMap<String, CallerAttributes> =
        config.callers.iter().map(|(identity, caller)| (identity.to_string(), caller.attributes.clone())).collect();
    let tables = if tables.is_empty() {
        files::with_extension(&config.policies.join("tests"), "toml").map_err(|error| Failure::new(exit::NOT_FOUND, error))?
    } else {
        tables
    };
    let (mut passed, mut differences) = (0, Vec::new());
    for path in &tables {
        let fails = |error: String| Failure::new(exit::DATA, format!("{}: {error}", path.display()));
        let text = files::bytes(path).map_err(|error| fails(error.to_string()))?;
        let table = Table::parse(&String::from_utf8_lossy(&text)).map_err(|error| fails(error.to_string()))?;
        for case in table.run(&files, &vocabulary, &callers, clock.wall()).map_err(|error| fails(error.to_string()))? {
            match case.difference {
                None => passed += 1,
                Some(difference) => differences.push((path.display().to_string(), case.name, difference)),
            }
        }
    }
    if format == Format::Json {
        let rows: Vec<Value> =
            differences.iter().map(|(file, case, text)| json!({ "file": file, "case": case, "difference": text })).collect();
        output::json(&json!({ "passed": passed, "failed": rows }));
    } else {
        for (file, case, text) in &differences {
            output::line(format_args!("{file}: {case}: {text}"));
        }
        output::line(format_args!("{passed} cases passed, {} failed", differences.len()));
    }
    Ok(if differences.is_empty() { exit::OK } else { exit::FOUND })
}

fn explain(
    config: &Config,
    (who, keyring, action): (&str, &str, &str),
    claims: Option<&Path>,
    clock: &dyn Clock,
    format: Format,
) -> Outcome {
    let rules = offline_rules(config)?;
    let caller = caller(config, who)?;
    let action: Action = action.parse().map_err(|error| Failure::new(exit::DATA, error))?;
    let claims = claims.map(super::input::json_object).transpose()?.unwrap_or_default();
    let explained = crate::signer::offline_explanation(&rules, &caller, keyring, action, claims, clock.wall());
    let explanation = explained.map_err(|refusal| Failure::new(exit::DATA, refusal_lines(&refusal)))?;
    let verdict = |outcome: &Verdict| format!("{outcome:?}");
    let rows = explanation.considered.iter().map(|considered| {
        let policy = &considered.policy;
        let effect = if policy.forbids { "forbid" } else { "permit" };
        vec![policy.id.clone(), effect.to_owned(), verdict(&considered.outcome), format!("{}:{}", policy.file, policy.line)]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let allowed = explanation.decision.allowed();
    if format == Format::Json {
        output::json(&json!({
            "allowed": allowed,
            "code": explanation.decision.code(),
            "determining": explanation.decision.determining,
            "errors": explanation.decision.errors,
            "considered": rows.iter().map(|row| json!({ "id": row[0], "effect": row[1], "outcome": row[2], "place": row[3] })).collect::<Vec<_>>(),
        }));
    } else {
        output::table(&["policy", "effect", "judged", "where"], rows, "No policy can match this request, so it is denied.");
        for error in &explanation.decision.errors {
            output::line(format_args!("failed: {error}"));
        }
        output::line(if allowed { "allowed" } else { "denied" });
    }
    Ok(if allowed { exit::OK } else { exit::FOUND })
}

fn refusal_lines(refusal: &crate::refusal::Refusal) -> String {
    let broken = refusal.broken.iter().map(|b| format!("\n  {}: {} [{}]", b.claim, b.detail, b.rule));
    format!("{}{}", refusal.detail, broken.collect::<String>())
}

fn list(config: &Config, keyring: &str, format: Format) -> Outcome {
    let policies = load(config)?.list(keyring);
    if format == Format::Json {
        let rows = policies.iter().map(
            |policy| json!({ "id": policy.id, "file": policy.file, "line": policy.line, "forbids": policy.forbids, "text": policy.text }),
        );
        return Ok(output::json(&json!({ "policies": rows.collect::<Vec<_>>() })));
    }
    for policy in policies {
        output::line(format_args!("// {}:{}\n{}\n", policy.file, policy.line, policy.text.trim()));
    }
    Ok(exit::OK)
}
