//! One daemon with several keystores, each a real one: what one of them suffers is no other's concern, and a keyring outlives any of them.
//!
//! In scope: a keystore that hangs, is slow or is gone while everything else goes on; moving a keyring to another keystore under load; losing
//! the keystore of the key that signs, with a standby in another one. Out of scope: what one keystore's outage looks like (`hsm_outages`), and
//! what the plan does at which moment (unit tests and the simulation of `rotation`).

#[path = "support/court.rs"]
mod court;
#[path = "several_keystores/dead.rs"]
mod dead;
mod harness;
#[cfg(feature = "aws-kms")]
#[path = "support/kms.rs"]
mod kms;
#[path = "support/load.rs"]
mod load;
#[path = "several_keystores/lost.rs"]
mod lost;
#[path = "several_keystores/moved.rs"]
mod moved;
#[cfg(feature = "aws-kms")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "several_keystores/servers.rs"]
mod servers;
#[path = "support/vault.rs"]
mod vault;

use std::sync::Mutex;

use claviger_audit::Timestamp;
use harness::{Client, Daemon, Place, until, wait};
use serde_json::Value;

/// The second keystore, and its token.
pub(crate) const OTHER: &str = "other";

/// Few enough that a busy machine judges their tokens in time: here it is the moves that matter, not the rate.
pub(crate) const CLIENTS: usize = 4;
/// Held by each test that loads a daemon: two loads at once, with their verifiers, are more than two cores can judge in time.
pub(crate) static ONE_LOAD: Mutex<()> = Mutex::new(());

/// A busy machine makes a request wait; it is refused only when its deadline has passed.
pub(crate) fn patient(place: &Place<'_>) {
    place.edit_config(|text| text.replace("workers = 2\n", "workers = 2\nqueue_wait = \"2s\"\n"));
}

/// What a command answers as JSON.
pub(crate) fn json(place: &Place<'_>, arguments: &[&str]) -> Value {
    let text = place.command(&[&["--output", "json"], arguments].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The keys of a keyring in this state, oldest first.
pub(crate) fn in_state(place: &Place<'_>, keyring: &str, state: &str) -> Vec<Value> {
    let keys = json(place, &["keyring", "show", keyring])["keys"].as_array().expect("a list").clone();
    keys.into_iter().filter(|key| key["state"] == state).collect()
}

/// The state of a key.
pub(crate) fn state(place: &Place<'_>, kid: &str) -> String {
    json(place, &["key", "show", kid])["state"].as_str().expect("a state").to_owned()
}

/// Waits until a key is in this state.
pub(crate) fn becomes(place: &Place<'_>, kid: &str, expected: &str) {
    until(expected, || match state(place, kid) {
        state if state == expected => Ok(()),
        state => Err(state),
    });
}

/// Waits until the only standby lives in this keystore and may sign, and gives its kid.
pub(crate) fn standby_in(place: &Place<'_>, daemon: &mut Daemon, keyring: &str, keystore: &str) -> String {
    let series = format!("claviger_standby_eligible{{keyring=\"{keyring}\"}} 1");
    until("a standby that may sign", || {
        let keys = in_state(place, keyring, "published");
        let kid = match keys.as_slice() {
            [key] if key["keystore"] == keystore => key["kid"].as_str().expect("a kid").to_owned(),
            _ => return Err(format!("{keys:?}")),
        };
        let metrics = daemon.anonymous().try_get("/metrics")?.text();
        if metrics.lines().any(|line| line.starts_with(&series)) { Ok(kid) } else { Err("too young".to_owned()) }
    })
}

/// The kid and keystore of the key that signs.
pub(crate) fn signer(place: &Place<'_>, keyring: &str) -> (String, String) {
    let keys = in_state(place, keyring, "active");
    let [key] = keys.as_slice() else { panic!("one key signs: {keys:?}") };
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    (text("kid"), text("keystore"))
}

/// Asks for one token until it is given.
pub(crate) fn signs_again(client: &mut Client, keyring: &str) {
    until("signed again", || match client.sign(keyring)? {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text()),
    });
}

/// The records of the key log with this event.
pub(crate) fn records(place: &Place<'_>, event: &str) -> Vec<Value> {
    let lines = harness::receipts::lines(place, "keys");
    let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a record is JSON"));
    records.filter(|record| record["event"] == event).collect()
}

/// A time that stands in a record.
pub(crate) fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a text").parse().expect("a time")
}
