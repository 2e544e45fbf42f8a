//! `claviger doctor`: look at everything, and say what is wrong and what to do.
//!
//! In scope: which things are looked at, and the verdict. Out of scope: repairing anything. A running daemon is asked; keystores are opened
//! here only while no daemon holds the state folder.

use std::path::Path;
use std::sync::Arc;

use claviger_audit::keyrings::Keyrings;
use serde_json::{Value, json};

use super::client::Client;
use super::exit;
use super::output::{self, Format, Outcome};
use crate::clock::Clock;
use crate::config::{self, Config, KeystoreConfig, files};
use crate::daemon::{self, setup};
use crate::inspect::{self, Finding};
use crate::journal::peek;
use crate::journal::space::{LOW_PERCENT, Room, Space, VERY_LOW_PERCENT};
use crate::journal::state::StateError;
use crate::rotation::risk::{self, Facts};
use crate::views;

pub(super) async fn run(file: &Path, client: Option<Client>, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return Ok(verdict(&[Finding::new("configuration", Err(error.to_string()))], format)),
    };
    let mut findings = vec![Finding::new("configuration", Ok(format!("{} can be kept", file.display())))];
    findings.push(policies(&config));
    findings.extend(tls(&config));
    findings.extend(witnesses(&config));
    findings.push(state_folder(&config));
    findings.push(disk(&config));
    match inspect::lock(&config) {
        Ok(state) => {
            findings.extend(inspect::unfinished(&state));
            findings.push(Finding::new("daemon", Ok("not running; keystores are opened here".to_owned())));
            let keyrings = peek::keyrings(&config.state);
            let clock_state = keyrings.as_ref().ok().map(Keyrings::last_time);
            findings
                .push(Finding::new("key log", keyrings.as_ref().map(|k| format!("{} records, replayed", k.size())).map_err(Clone::clone)));
            if let Some(last) = clock_state {
                let late = last.since(clock.wall());
                let state = if late.is_zero() {
                    Ok("not behind the last record".to_owned())
                } else {
                    Err(format!("the clock stands {late:?} before the last record: set it right"))
                };
                findings.push(Finding::new("clock", state));
            }
            if let Ok(keyrings) = &keyrings {
                let found = risk::risks(keyrings, clock.wall(), &Facts::default());
                findings.extend(found.iter().map(views::risk).map(|row| at_risk(&row)));
            }
            findings.extend(inspect::keystores(&config, keyrings.as_ref().ok(), &clock).await);
        }
        Err(StateError::Locked { pid, .. }) => findings.extend(running(&config, client, &pid).await),
        Err(error) => findings.push(Finding::new("state folder", Err(error.to_string()))),
    }
    Ok(verdict(&findings, format))
}

fn policies(config: &Config) -> Finding {
    let loaded = files::policies(&config.policies).map_err(|error| error.to_string());
    let state = loaded.and_then(|files| setup::policies(config, None, &files).map_err(|errors| setup::problems(&errors)));
    let state = state.and_then(|policies| match policies.lint().as_slice() {
        [] => Ok(format!("{} are valid", policies.len())),
        findings => Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    });
    Finding::new("policies", state)
}

fn tls(config: &Config) -> Vec<Finding> {
    let files = config.listeners.iter().filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    let look = |(listener, files): (&config::Listener, &config::TlsFiles)| {
        Finding::new(format!("TLS of {}", listener.bind), daemon::check_tls(files).map(|()| "certificate and key fit".to_owned()))
    };
    files.map(look).collect()
}

fn witnesses(config: &Config) -> Option<Finding> {
    let file = config.witnesses.as_ref()?.policy.display();
    let state = setup::witnesses(config).map(|settings| format!("{} can be asked", settings.map_or(0, |settings| settings.targets.len())));
    Some(Finding::new(format!("witnesses of {file}"), state))
}

fn state_folder(config: &Config) -> Finding {
    let state = peek::mode(&config.state).and_then(|mode| {
        if mode & 0o077 == 0 { Ok(format!("mode {mode:04o}")) } else { Err(format!("mode {mode:04o}: others can reach it; make it 0700")) }
    });
    Finding::new(format!("state folder {}", config.state.display()), state)
}

fn disk(config: &Config) -> Finding {
    let state = Space::of(&config.state).map_err(|error| error.to_string()).and_then(|space| {
        let free = format!("{:.0} % free", space.ratio() * 100.0);
        match space.room() {
            Room::Enough => Ok(free),
            Room::Low => Ok(format!("{free}, less than {LOW_PERCENT} %: make room soon, the log stops when the disk is full")),
            Room::VeryLow => Err(format!("{free}, less than {VERY_LOW_PERCENT} %: make room, the log stops when the disk is full")),
        }
    });
    Finding::new("disk of the state folder", state)
}

async fn running(config: &Config, client: Option<Client>, pid: &str) -> Vec<Finding> {
    let mut findings = vec![Finding::new("daemon", Ok(format!("process {pid} holds the state folder")))];
    let Some(client) = client else {
        findings.push(Finding::new("admin socket", Err("the configuration names none; say --socket to ask the daemon".to_owned())));
        return findings;
    };
    let status = match client.get("/admin/status").await {
        Ok(status) => status,
        Err(failure) => {
            findings.push(Finding::new("admin socket", Err(failure.text)));
            return findings;
        }
    };
    let served = status["jwks"] == "served";
    let text = status["jwks"].as_str().unwrap_or_default().to_owned();
    findings.push(Finding::new("JWKS", if served { Ok(text) } else { Err(text) }));
    let difference = &status["clock"]["difference_ms"];
    let paused = format!(
        "it moved by {difference} ms against the monotonic clock, and keys do not rotate: set it right, or say `claviger clock confirm`"
    );
    let state = if status["clock"]["paused"] == true { Err(paused) } else { Ok("was not stepped".to_owned()) };
    findings.push(Finding::new("clock", state));
    findings.extend(rows(&status, "keystores").flat_map(|row| keystore(config, row)));
    for row in rows(&status, "keyrings") {
        let state = if row["ready"] == true { Ok("can sign".to_owned()) } else { Err(output::cell(&row["detail"])) };
        findings.push(Finding::new(format!("keyring {}", output::cell(&row["keyring"])), state));
    }
    findings.extend(rows(&status, "risks").map(at_risk));
    if status["policies"].is_null() {
        findings.push(Finding::new(
            "policies in force",
            Err("none: they could not be loaded; correct them and say `claviger policy reload`".to_owned()),
        ));
    }
    for row in rows(&status, "witnesses") {
        let known = format!("cosigned {} records of keys, {} of uses", row["keys"], row["uses"]);
        let failure = |why: &str| format!("does not cosign: {why}");
        let wrong = row["alarm"].as_str().map(str::to_owned).or_else(|| row["failure"].as_str().map(failure));
        findings.push(Finding::new(format!("witness {}", output::cell(&row["witness"])), wrong.map_or(Ok(known), Err)));
    }
    for log in ["keys", "uses"] {
        let row = &status["log"][log];
        let state = row["dead"]
            .as_str()
            .map_or_else(|| Ok(format!("{} records, {} covered by a checkpoint", row["size"], row["covered"])), |why| Err(why.to_owned()));
        findings.push(Finding::new(format!("log {log}"), state));
        let (covered, since) = (row["covered"].as_u64().unwrap_or_default(), row["key_since"].as_u64().unwrap_or_default());
        if covered < since {
            let state = Err(format!(
                "it was rotated with record {}, and no checkpoint with both signatures covers that: the old key's keystore must answer once more",
                since - 1
            ));
            findings.push(Finding::new(format!("key of log {log}"), state));
        }
    }
    for log in rows(&status, "log_keys_cut_off") {
        let log = output::cell(log);
        let state = Err(format!("a rotation was cut off: `claviger audit rotate-key {log}` finishes it with the same key"));
        findings.push(Finding::new(format!("key of log {log}"), state));
    }
    findings
}

/// Whether a keystore answers, what it said last when it did not do its work (most of it says what to do, too), and its orphans.
fn keystore(config: &Config, row: &Value) -> Vec<Finding> {
    let name = output::cell(&row["keystore"]);
    let what = format!("keystore {name}");
    let complaint = |row: &Value| Finding::new(&what, Err(format!("{}: {}", output::cell(&row["work"]), output::cell(&row["text"]))));
    let complaints: Vec<Finding> = rows(row, "complaints").map(complaint).collect();
    let allowance = config.keystores.get(&name).and_then(KeystoreConfig::allowance);
    let answers = allowance.map_or_else(|| "answers".to_owned(), |text| format!("answers; {text}"));
    let state = if row["answers"] == true { Ok(answers) } else { Err("does not answer".to_owned()) };
    let orphan = |row: &Value| Finding::new(format!("key {}", output::cell(&row["key"])), Err(output::cell(&row["text"])));
    let orphans: Vec<Finding> = rows(row, "orphans").map(orphan).collect();
    // A complaint says more than that it does not answer.
    let state = Some(Finding::new(&what, state)).filter(|state| state.state.is_ok() || complaints.is_empty());
    state.into_iter().chain(complaints).chain(orphans).collect()
}

/// A risk as `/readyz` tells it, with its dates.
fn at_risk(row: &Value) -> Finding {
    let of = row["keyring"].as_str().map(|keyring| format!(" of keyring {keyring}")).unwrap_or_default();
    let dates = ["since", "until"].into_iter().filter_map(|name| Some(format!("{name} {}", row[name].as_str()?)));
    let dates = dates.collect::<Vec<_>>().join(", ");
    let detail = output::cell(&row["detail"]);
    let text = if dates.is_empty() { detail } else { format!("{detail} ({dates})") };
    Finding::new(format!("risk {}{of}", output::cell(&row["code"])), Err(text))
}

fn rows<'a>(status: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    status[name].as_array().into_iter().flatten()
}

fn verdict(findings: &[Finding], format: Format) -> u8 {
    let wrong = findings.iter().filter(|finding| finding.state.is_err()).count();
    if format == Format::Json {
        let rows = findings.iter().map(|finding| json!({ "what": finding.what, "fine": finding.state.is_ok(), "text": finding.state.as_ref().unwrap_or_else(|text| text) }));
        output::json(&json!({ "wrong": wrong, "findings": rows.collect::<Vec<_>>() }));
    } else {
        let row = |finding: &Finding| match &finding.state {
            Ok(text) => vec!["fine".to_owned(), finding.what.clone(), text.clone()],
            Err(text) => vec!["WRONG".to_owned(), finding.what.clone(), text.clone()],
        };
        output::table(&["", "what", "how it is"], findings.iter().map(row).collect(), "");
        output::line(if wrong == 0 { "Nothing is wrong.".to_owned() } else { format!("{wrong} things are wrong.") });
    }
    if wrong == 0 { exit::OK } else { exit::FOUND }
}
