//! The command line: every verb's happy path and its refusals, through the binary, for people and for programs.
//!
//! In scope: exit codes, JSON, what the log and the served sets say afterwards. Out of scope: requests over HTTP (`bad_input.rs`), and rotation
//! by the clock.

#[path = "verbs/adoption.rs"]
mod adoption;
#[path = "verbs/clock.rs"]
mod clock;
mod harness;
#[path = "verbs/keyrings.rs"]
mod keyrings;
#[path = "verbs/keys.rs"]
mod keys;
#[path = "verbs/moving.rs"]
mod moving;
#[path = "verbs/offline.rs"]
mod offline;
#[path = "verbs/pruning.rs"]
mod pruning;
#[path = "verbs/refusals.rs"]
mod refusals;
#[path = "verbs/reload.rs"]
mod reload;
#[path = "verbs/stopped.rs"]
mod stopped;
#[path = "verbs/upkeep.rs"]
mod upkeep;

use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore as _;
use claviger_audit::Timestamp;
use claviger_audit::names::KeyName;
use harness::place::TOKEN;
use harness::{Client, Place, SoftHsm, until};
use serde_json::Value;

/// Exit codes of sysexits.h, and 1 for a command that ran and found something.
const FOUND: i32 = 1;
const USAGE: i32 = 2;
const DATA: i32 = 65;
const NOT_FOUND: i32 = 66;
const UNAVAILABLE: i32 = 69;
const LATER: i32 = 75;
const DENIED: i32 = 77;
const CONFIG: i32 = 78;

/// Runs a command that must succeed with `--output json`, and gives its document.
fn json(place: &Place<'_>, arguments: &[&str]) -> Value {
    let printed = place.command(&[&["--output", "json"], arguments].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {printed}"))
}

/// What `doctor` finds, but for the room on this machine's own disk, which no test knows; `wrong` counts the rest.
fn doctor(place: &Place<'_>) -> Value {
    let output = place.claviger(&["doctor", "--output", "json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!([Some(0), Some(FOUND)].contains(&output.status.code()), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut document: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"));
    let findings = document["findings"].as_array().cloned().expect("a list");
    let is_about_disk =
        |row: &Value| row["what"] == "disk of the state folder" || row["text"].as_str().is_some_and(|text| text.contains(" disk"));
    let findings: Vec<Value> = findings.into_iter().filter(|row| !is_about_disk(row)).collect();
    document["wrong"] = findings.iter().filter(|row| row["fine"] == false).count().into();
    document["findings"] = findings.into();
    document
}

/// Runs a command that must fail with this code, and gives all that it said.
fn fails(place: &Place<'_>, code: i32, arguments: &[&str]) -> String {
    let output = place.claviger(arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// The records of an event, oldest first.
fn records(place: &Place<'_>, event: &str) -> Vec<Value> {
    let log = place.log();
    let shown = place.command(&["audit", "show", log.to_str().expect("a plain path"), "--event", event, "--format", "json"]);
    shown.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The keys of a keyring in this state.
fn in_state(place: &Place<'_>, keyring: &str, state: &str) -> Vec<Value> {
    let keys = json(place, &["keyring", "show", keyring])["keys"].as_array().cloned().expect("keys");
    keys.into_iter().filter(|key| key["state"] == state).collect()
}

/// The kid of the only key in this state.
fn kid(place: &Place<'_>, keyring: &str, state: &str) -> String {
    until(&format!("a key that is {state}"), || match in_state(place, keyring, state).as_slice() {
        [key] => key["kid"].as_str().map(str::to_owned).ok_or_else(|| key.to_string()),
        keys => Err(format!("{keys:?}")),
    })
}

/// Waits until the standby of a keyring may be used, by the daemon's own clock, and gives its kid.
fn eligible_standby(place: &Place<'_>, keyring: &str) -> String {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    until("a standby that may be used", || {
        let standby = in_state(place, keyring, "published");
        let [key] = standby.as_slice() else { return Err(format!("{standby:?}")) };
        let now = time(&json(place, &["keyring", "plan", keyring])["now"]).expect("a time");
        let since = time(&key["eligible_at"]).filter(|date| *date <= now);
        since.and(key["kid"].as_str()).map(str::to_owned).ok_or_else(|| format!("{key} at {now}"))
    })
}

/// The names of all keys in the first token, looked up by a second process beside the daemon.
fn held(hsm: &SoftHsm) -> Vec<KeyName> {
    held_in(hsm, TOKEN)
}

/// The names of all keys in a token.
fn held_in(hsm: &SoftHsm, token: &str) -> Vec<KeyName> {
    let keystore = hsm.open(token, Arc::new(SystemClock::start()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // The keystore opens on threads of its own.
    let listed = until("the inventory", || runtime.block_on(keystore.inventory("test")).map_err(|error| error.to_string()));
    listed.into_iter().map(|(name, _)| name).collect()
}

/// The kids of the default issuer's set.
fn served(client: &mut Client) -> Vec<String> {
    let keys = client.get("/.well-known/jwks.json").ok()["keys"].as_array().cloned().expect("a set");
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}
