//! The daemon before judges who share no line with it: Go's checksum database, a witness written over it, and Tessera's fsck.
//!
//! In scope: what the real daemon serves, stores and sends, with its log keys in a real token. Out of scope: what the judges refuse, case by
//! case (`claviger-audit`'s test `judges`). The judges are built by `tests/install.sh`; without them these tests fail.

mod harness;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use claviger_audit::note::VerifierKey;
use harness::{Address, Daemon, Keyring, Place, Setup, on_softhsm, until};
use serde_json::{Value, json};

/// More records than one tile holds, so that tiles of both levels are served.
const RELOADS: usize = 140;

/// A program that `tests/install.sh` built.
fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/bin").join(name);
    assert!(path.is_file(), "{} is missing: run tests/install.sh, which builds the judges", path.display());
    path
}

fn judge(name: &str, arguments: &[&str]) -> Output {
    Command::new(tool(name)).args(arguments).output().expect("a judge that runs")
}

fn accepts(name: &str, arguments: &[&str]) -> String {
    let output = judge(name, arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    said
}

/// The witness, which ends with its standard input.
struct GoWitness {
    child: Child,
    address: String,
    vkey: String,
}

impl GoWitness {
    fn start(state: &Path, logs: &[VerifierKey]) -> Self {
        fs::create_dir(state).expect("a new folder");
        let mut command = Command::new(tool("judges"));
        command.args(["witness", "-listen", "127.0.0.1:0", "-name", "witness.example/go", "-state"]).arg(state);
        for log in logs {
            command.arg("-log").arg(log.to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a witness that runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("standard output is piped")).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("a line of JSON");
        let member = |name: &str| said[name].as_str().expect("a text").to_owned();
        Self { child, address: member("address"), vkey: member("vkey") }
    }
}

impl Drop for GoWitness {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn log_keys(place: &Place<'_>) -> Vec<VerifierKey> {
    let trust = fs::read_to_string(place.trust()).expect("our own file");
    trust.lines().filter_map(|line| line.strip_prefix("log ")?.parse().ok()).collect()
}

/// An installation whose logs the witness cosigns and whose key log is shown, and the trust file of somebody who demands the witness.
fn witnessed(place: &Place<'_>, witness: &GoWitness) -> PathBuf {
    let line = format!("witness go {} http://{}\nquorum go\n", witness.vkey, witness.address);
    fs::write(place.root().join("witnesses.policy"), &line).expect("a new file");
    place.edit_config(|text| text.replace("[log]\n", "[log]\nwitnesses = \"witnesses.policy\"\n"));
    let strict = place.root().join("strict.trust");
    let own = fs::read_to_string(place.trust()).expect("our own file").replace("quorum none\n", "");
    fs::write(&strict, own + &line).expect("a new file");
    strict
}

/// Waits until the witness has cosigned every record of both logs that there is now, and verifies them as pinned by it alone.
fn wait_cosigned(place: &Place<'_>, strict: &str) {
    let status = place.admin_socket().get("/admin/status").ok();
    for log in ["keys", "uses"] {
        let size = status["log"][log]["size"].as_u64().expect("a size");
        until("a cosignature that covers everything", || {
            let note = fs::read_to_string(place.log().join(log).join("witnessed.checkpoint")).map_err(|error| error.to_string())?;
            let cosigned: u64 = note.lines().nth(1).and_then(|line| line.parse().ok()).ok_or("no size")?;
            if cosigned >= size { Ok(()) } else { Err(format!("{log}: {cosigned} of {size}")) }
        });
    }
    // Nothing else is brought along: with a trust file that demands no witness this would be exit 16.
    let (code, report) = place.verify(&["--trust", strict]);
    assert_eq!(code, 0, "{report}");
}

fn shown(daemon: &mut Daemon) -> String {
    match &daemon.addresses(4)[3] {
        Address::Tcp(address) => format!("http://{address}/log/keys"),
        Address::Unix(_) => unreachable!("the last listener is on TCP"),
    }
}

#[test]
fn what_the_daemon_shows_convinces_strangers() {
    on_softhsm("what_the_daemon_shows_convinces_strangers", |hsm| {
        let listener = "\n[[listener]]\nbind = \"127.0.0.2:0\"\nserves = [\"log\"]\n";
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).more(listener));
        let keys = log_keys(&place);
        let witness = GoWitness::start(&place.root().join("witness"), &keys);
        let strict = witnessed(&place, &witness);
        let (strict, log) = (strict.to_str().expect("a plain path"), place.log());
        let log = log.to_str().expect("a plain path");
        let mut daemon = place.start();
        let mut admin = place.admin_socket();
        for _ in 0..RELOADS {
            assert_eq!(admin.post("/admin/reload", &json!({})).status, 200);
        }
        let signed = daemon.demo().sign("access").expect("an answer").ok();

        wait_cosigned(&place, strict);

        let url = shown(&mut daemon);
        let own = keys.iter().find(|key| key.name().ends_with("/keys")).expect("the key log's key").to_string();
        let key_file = place.root().join("key");
        fs::write(&key_file, &own).expect("a new file");
        let key_path = key_file.to_str().expect("a plain path");
        let storage = format!("{url}/");
        let fsck =
            ["--storage_url", &storage, "--public_key", key_path, "--origin", "test.example/claviger/keys", "--ui=false", "--N", "16"];
        let said = accepts("fsck", &fsck);
        assert!(said.contains("Successfully fsck'd log") && !said.contains("fsck failed"), "{said}");

        let checkpoint = place.root().join("served.checkpoint");
        let copied = Command::new("curl").args(["-fsS", "-o"]).arg(&checkpoint).arg(format!("{url}/witnessed.checkpoint")).status();
        assert!(copied.expect("curl runs").success());
        let checkpoint = checkpoint.to_str().expect("a plain path");
        let said = accepts("judges", &["checkpoint", "-key", &own, "-key", &witness.vkey, checkpoint]);
        let size = serde_json::from_str::<Value>(&said).expect("JSON")["size"].as_u64().expect("a size");
        assert!(size > 256, "{said}");

        // A receipt becomes a proof that the judge believes, and the verifier with the witness's word and the token beside it.
        let (receipt, token) = (place.root().join("receipt.json"), place.root().join("token.jwt"));
        fs::write(&receipt, signed["receipt"].to_string()).expect("a new file");
        fs::write(&token, signed["token"].as_str().expect("a token")).expect("a new file");
        let (receipt, token) = (receipt.to_str().expect("a plain path"), token.to_str().expect("a plain path"));
        let proof = place.root().join("sign.tlog-proof");
        let proof = proof.to_str().expect("a plain path");
        place.command(&["audit", "prove", log, "--receipt", receipt, "--trust", strict, "--save", proof]);
        let uses = keys.iter().find(|key| key.name().contains("/uses/")).expect("the use log's key").to_string();
        accepts("judges", &["inclusion", "-key", &uses, proof]);
        place.command(&["audit", "verify-proof", proof, "--trust", strict, "--token", token]);
        let damaged = place.root().join("damaged.tlog-proof");
        let text = fs::read_to_string(proof).expect("the proof");
        let index = text.lines().find(|line| line.starts_with("index ")).expect("an index");
        fs::write(&damaged, text.replace(index, "index 1")).expect("a new file");
        let damaged = damaged.to_str().expect("a plain path");
        assert!(!judge("judges", &["inclusion", "-key", &uses, damaged]).status.success());
        assert_eq!(place.claviger(&["audit", "verify-proof", damaged, "--trust", strict]).status.code(), Some(10));
        place.check(daemon);
    });
}

#[test]
fn a_stranger_of_a_witness_stops_a_log_that_was_rolled_back() {
    on_softhsm("a_stranger_of_a_witness_stops_a_log_that_was_rolled_back", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let witness = GoWitness::start(&place.root().join("witness"), &log_keys(&place));
        let strict = witnessed(&place, &witness);
        let strict = strict.to_str().expect("a plain path");
        let daemon = place.start();
        wait_cosigned(&place, strict);
        assert!(daemon.stop().success());
        let snapshot = place.root().join("snapshot");
        let copy = |from: &Path, to: &Path| assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs").success());
        copy(&place.state(), &snapshot);

        let mut daemon = place.start();
        daemon.demo().sign("access").expect("an answer").ok();
        wait_cosigned(&place, strict);
        assert!(daemon.stop().success());
        fs::remove_dir_all(place.state()).expect("our own folder");
        copy(&snapshot, &place.state());

        let (status, said) = place.spawn().wait();
        assert_eq!(status.code(), Some(65), "{said}");
        assert!(said.contains("the witness go knows") && said.contains("claviger audit adopt --accept-loss"), "{said}");
        place.check_secrets_alone();
    });
}
