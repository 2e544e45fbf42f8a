//! Witnesses and readers from outside: the real daemon beside servers that follow C2SP tlog-witness, and its key log over HTTP.
//!
//! In scope: quorum, dead and lying witnesses, what a start refuses, verbs that wait, tiles and records. Out of scope: the protocol's text, which
//! has unit tests.

mod harness;
#[path = "witnesses/quorum.rs"]
mod quorum;
#[path = "witnesses/served.rs"]
mod served;
#[path = "witnesses/start.rs"]
mod start;

use std::fs;
use std::path::PathBuf;

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::note::{Note, VerifierKey};
use claviger_audit::trust::Policy;
use harness::witness::{Temper, Witness};
use harness::{Address, Client, Daemon, Keyring, Place, Setup, SoftHsm, until};
use serde_json::Value;

/// An installation with one keyring whose logs these witnesses cosign; `quorum` are the policy file's last lines. The key log is shown on a
/// Unix socket, `log.sock`, to everyone, and on `readers.sock` to those who may read it.
fn witnessed<'h>(hsm: &'h SoftHsm, witnesses: &[Witness], quorum: &str) -> Place<'h> {
    let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
    let root = place.root().display().to_string();
    place.edit_config(|text| {
        let log = "[log]\nwitnesses = \"witnesses.policy\"\nwitness_timeout = \"1s\"\n";
        let shown = format!("\n[[listener]]\nbind = \"unix:{root}/log.sock\"\nserves = [\"log\"]\n");
        let asked = format!("\n[[listener]]\nbind = \"unix:{root}/readers.sock\"\nserves = [\"log\", \"ops\"]\ncallers = [\"bearer\"]\n");
        text.replace("[log]\n", log) + &shown + &asked
    });
    let lines: String = witnesses.iter().map(Witness::line).collect();
    fs::write(place.root().join("witnesses.policy"), format!("{lines}{quorum}\n")).expect("a new file");
    let keys = log_keys(&place);
    for witness in witnesses {
        witness.trust(&keys);
    }
    place
}

/// The verifier keys of both logs, as `init` printed them: keys, uses.
fn log_keys(place: &Place<'_>) -> Vec<VerifierKey> {
    let trust = fs::read_to_string(place.trust()).expect("our own file");
    trust.lines().filter_map(|line| line.strip_prefix("log ")?.parse().ok()).collect()
}

/// A client of the socket that shows the key log to everyone.
fn reader(place: &Place<'_>) -> Client {
    Client::new(Address::Unix(place.root().join("log.sock")))
}

/// Size of a log's `witnessed.checkpoint`, after checking it against the policy file as a verifier would.
fn stored(place: &Place<'_>, log: &str) -> Result<u64, String> {
    let bytes = fs::read(place.log().join(log).join("witnessed.checkpoint")).map_err(|error| format!("{log}: {error}"))?;
    let note = Note::parse(&bytes).map_err(|error| error.to_string())?;
    let policy = fs::read(place.root().join("witnesses.policy")).expect("our own file");
    let policy = Policy::parse(&policy).expect("our own policy");
    let logs = log_keys(place);
    let key = logs.iter().find(|key| key.name().contains(&format!("/{log}"))).expect("both logs have keys");
    let keys: Vec<VerifierKey> = logs.iter().cloned().chain(policy.keys()).collect();
    let (checkpoint, signatures) = Checkpoint::from_note(&note, key.name(), &keys).map_err(|error| error.to_string())?;
    policy.quorum_met(&signatures).map_err(|error| error.to_string())?;
    Ok(checkpoint.size)
}

/// Waits until the witnessed checkpoints of both logs cover this many records, and gives how many they do.
fn wait_stored(place: &Place<'_>, least: [u64; 2]) -> [u64; 2] {
    let mut log = 0;
    ["keys", "uses"].map(|name| {
        let size = until(&format!("a witnessed checkpoint of {name}"), || {
            let size = stored(place, name)?;
            if size >= least[log] { Ok(size) } else { Err(format!("{size} records")) }
        });
        log += 1;
        size
    })
}

/// The value of a metric line that begins so.
fn metric(daemon: &mut Daemon, begin: &str) -> i64 {
    let text = daemon.anonymous().get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin} in {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// What the daemon says of a witness.
fn report(place: &Place<'_>, name: &str) -> Value {
    let status = place.admin_socket().get("/admin/status").ok();
    let rows = status["witnesses"].as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["witness"] == name).expect("a configured witness")
}

/// A copy of the state folder, as a snapshot of the machine would hold it.
fn snapshot(place: &Place<'_>) -> PathBuf {
    let to = place.root().join("snapshot");
    copy(&place.state(), &to);
    to
}

/// Puts a copy in place of the state folder.
fn restore(place: &Place<'_>, from: &std::path::Path) {
    fs::remove_dir_all(place.state()).expect("our own folder");
    copy(from, &place.state());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

/// Two honest witnesses and one that hangs.
fn three() -> [Witness; 3] {
    let witnesses = [Witness::start("w1", 11), Witness::start("w2", 12), Witness::start("w3", 13)];
    witnesses[2].set(Temper::Hanging);
    witnesses
}

const TWO_OF_THREE: &str = "group g 2 w1 w2 w3\nquorum g";
