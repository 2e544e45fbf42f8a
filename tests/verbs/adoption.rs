//! `audit adopt`: a log that lost its tail is refused, its loss is told, accepted, and verified; nothing signs until it is resumed.
//!
//! In scope: the whole way of an operator, with a restored copy of each log. Out of scope: crashes on the way (the journal's own tests).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore as _;
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use serde_json::{Value, json};

use crate::harness::place::TOKEN;
use crate::harness::{Keyring, Place, Setup, SoftHsm, on_softhsm, until};
use crate::{DATA, FOUND, fails, held, json, kid};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("a readable folder").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// Puts an older copy in place of a log, as whoever restores a snapshot does.
fn restore(place: &Place<'_>, log: &str, copied: &Path) {
    fs::remove_dir_all(place.log().join(log)).expect("our own folder");
    copy(copied, &place.log().join(log));
}

/// A key that no record names, as a lost one would be.
fn forgotten_key(hsm: &SoftHsm) -> KeyName {
    let keystore = hsm.open(TOKEN, Arc::new(SystemClock::start()));
    let name = KeyName::new("test", "access", 77, 0xabcd).expect("a name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    until("the key", || runtime.block_on(keystore.create(&name, Algorithm::ES256)).map_err(|error| error.to_string()));
    name
}

/// Signs, stops in order, and remembers what an auditor would.
fn sign_and_stop(place: &Place<'_>) {
    let mut daemon = place.start();
    daemon.demo().sign("access").expect("an answer").ok();
    assert!(daemon.stop().success());
    place.remember_heads();
}

/// Adds what `adopt` printed to the trust file.
fn trust(place: &Place<'_>, keys: &Value) {
    let lines: Vec<String> = keys.as_array().expect("keys").iter().map(|key| format!("log {}\n", key.as_str().expect("a key"))).collect();
    let text = fs::read_to_string(place.trust()).expect("our own file");
    fs::write(place.trust(), lines.concat() + &text).expect("our own file");
}

/// After the adoption: the logs verify, nothing signs, and after `key resume` it does.
fn goes_on(place: &Place<'_>, least: &[&str]) {
    let trust = place.trust();
    let pins: Vec<&str> = ["--trust", trust.to_str().expect("a plain path")].iter().copied().chain(least.iter().copied()).collect();
    let (code, report) = place.verify(&pins);
    assert_eq!(code, 0, "{report}");
    assert!(report.contains("/adopted-2 with a loss of "), "{report}");
    // What was remembered of the log that ended is larger than what is left of it.
    let heads = place.heads();
    let (code, report) = place.verify(&[&pins[..], &["--head", heads.to_str().expect("a plain path")]].concat());
    assert_eq!(code, 11, "{report}");
    fs::remove_dir_all(&heads).expect("our own folder");

    let mut daemon = place.spawn();
    let mut client = daemon.demo();
    until("an answer", || client.try_get("/healthz"));
    assert_eq!(client.sign("access").expect("an answer").problem(503), "suspended");
    let suspended = kid(place, "access", "suspended");
    place.command(&["key", "resume", &suspended, "--reason", "looked into"]);
    client.sign("access").expect("an answer").ok();
    daemon.ready();
    place.remember_heads();
    place.check(daemon);
}

#[test]
fn a_key_log_that_was_restored_goes_on_as_a_new_one() {
    on_softhsm("adoption::a_key_log_that_was_restored_goes_on_as_a_new_one", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        sign_and_stop(&place);
        let copied = place.root().join("copy");
        copy(&place.log().join("keys"), &copied);
        sign_and_stop(&place);
        // With a whole log there is nothing to accept.
        assert!(place.command(&["audit", "adopt", "--accept-loss"]).contains("No log is shorter"));
        restore(&place, "keys", &copied);

        let said = fails(&place, DATA, &["serve"]);
        assert!(said.contains("the use log has seen") && said.contains("audit adopt --accept-loss"), "{said}");
        let lost = forgotten_key(hsm);
        let said = fails(&place, FOUND, &["audit", "adopt"]);
        let (named, told) = (said.find(lost.as_str()), said.find("known to be lost"));
        assert!(named.is_some() && named < told, "what no record names comes first: {said}");
        assert!(said.contains("Nothing was changed"), "{said}");
        let said = fails(&place, FOUND, &["--output", "json", "audit", "adopt", "--known-size", "test.example/claviger/uses/node-a=1000"]);
        let told: Value = serde_json::from_str(said.trim()).expect("JSON");
        assert_eq!((&told["adopted"], &told["unknown_keys"]), (&json!(false), &json!([{ "keystore": "hsm", "name": lost.as_str() }])));
        let logs = told["logs"].as_array().expect("logs");
        assert_eq!(logs.iter().map(|log| &log["log"]).collect::<Vec<_>>(), ["keys", "uses"]);
        assert!(logs[0]["lost"].as_u64() > Some(0) && logs[1]["known"][0]["size"] == 1000, "{said}");

        let adopted = json(&place, &["audit", "adopt", "--accept-loss", "--reason", "a snapshot was restored"]);
        assert_eq!(adopted["logs"][1]["lost"], 0, "{adopted}");
        assert_eq!(adopted["suspended"].as_array().map(Vec::len), Some(1), "{adopted}");
        assert!(held(hsm).contains(&lost), "nothing is deleted");
        let before = json(&place, &["audit", "adopt"]);
        assert_eq!(before, json!({ "adopted": false, "logs": [] }), "it is done once");
        let unknown = place.verify(&["--trust", place.trust().to_str().expect("a plain path"), "--min-size", "2"]);
        assert_eq!(unknown.0, 16, "a verifier believes the new keys only from its trust file: {}", unknown.1);
        trust(&place, &adopted["verifier_keys"]);
        goes_on(&place, &["--min-size", "2"]);
    });
}

#[test]
fn a_use_log_that_was_restored_goes_on_alone() {
    on_softhsm("adoption::a_use_log_that_was_restored_goes_on_alone", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        sign_and_stop(&place);
        let copied = place.root().join("copy");
        copy(&place.log().join("uses"), &copied);
        sign_and_stop(&place);
        restore(&place, "uses", &copied);
        let said = fails(&place, DATA, &["serve"]);
        assert!(said.contains("the use log: the log has ") && said.contains("audit adopt --accept-loss"), "{said}");
        assert!(fails(&place, FOUND, &["audit", "adopt"]).contains("by the key log, which names its size"));
        // While an adoption is not finished, nobody else opens the logs; one that nobody here began is not gone on with.
        let intent = place.log().join("adopt-intent.json");
        fs::write(&intent, "{}").expect("a new file");
        for command in [&["serve"][..], &["key", "suspend", "kid", "--reason", "r", "--offline"], &["audit", "adopt"]] {
            let said = fails(&place, DATA, command);
            assert!(said.contains("was begun and not finished") || said.contains("is not one of `claviger audit adopt`"), "{said}");
        }
        fs::remove_file(&intent).expect("our own file");
        let adopted = json(&place, &["audit", "adopt", "--accept-loss"]);
        assert_eq!((adopted["logs"].as_array().map(Vec::len), &adopted["logs"][0]["log"]), (Some(1), &json!("uses")), "{adopted}");
        assert_eq!(adopted["verifier_keys"].as_array().map(Vec::len), Some(1), "{adopted}");
        trust(&place, &adopted["verifier_keys"]);
        goes_on(&place, &["--min-size", "2", "--min-size", "test.example/claviger/uses/node-a/adopted-2=2"]);
    });
}
