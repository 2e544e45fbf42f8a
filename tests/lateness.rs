//! Lateness is loud: the real daemon says what is late, or will be, in `/readyz`, in its metrics and in `doctor`; and says when it is over.
//!
//! In scope: a keystore that goes while rotations fall due, a suspended key, orphans, keys that were changed in their keystore, and that every
//! metric which the alert rules and the board of `deploy/` name is exported. Out of scope: when exactly each risk begins (unit tests of
//! `rotation::risk`), and what the rules say (promtool, in `deploy/prometheus/alerts_test.yml`).

#[path = "lateness/drift.rs"]
mod drift;
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore as _;
use claviger::rotation::risk::Code;
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use claviger_audit::note::VerifierKey;
use harness::place::TOKEN;
use harness::witness::Witness;
use harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, until};
use serde_json::Value;

/// D = A + V = 2 s, D + e = 3 s, D + e + G = 5 s: two seconds are left for a slow machine to make a key before that is a risk.
const SECONDS: &[(&str, &str)] = &[("rotate_every", "8s"), ("provisioning_budget", "2s"), ("destroy_after", "1s")];
/// The alert rules that are shipped.
const RULES: &str = include_str!("../deploy/prometheus/alerts.yml");
/// The board that is shipped.
const BOARD: &str = include_str!("../deploy/grafana/claviger.json");

/// The risks in `/readyz`, which is green whatever they are.
fn risks(client: &mut Client) -> Vec<Value> {
    rows(&client.get("/readyz").ok())
}

/// The risks of an answer, but for how full the disk of this machine is.
fn rows(answer: &Value) -> Vec<Value> {
    let rows = answer["risks"].as_array().expect("a list").iter();
    rows.filter(|row| row["code"] != "disk_low").cloned().collect()
}

fn codes(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| row["code"].as_str().expect("a code").to_owned()).collect()
}

/// Waits until exactly these risks are told, and gives them.
fn wait_for(daemon: &mut Daemon, expected: &[&str]) -> Vec<Value> {
    let mut client = daemon.anonymous();
    let expected: BTreeSet<String> = expected.iter().map(|code| (*code).to_owned()).collect();
    until(&format!("{expected:?}"), || {
        let told = risks(&mut client);
        if codes(&told) == expected { Ok(told) } else { Err(format!("{told:?}\n{}", daemon.stderr())) }
    })
}

/// What doctor says of risks, and whether it found anything wrong.
fn doctor(place: &Place<'_>) -> (BTreeSet<String>, Value) {
    let output = place.claviger(&["--output", "json", "doctor"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(i32::from(document["wrong"] != 0)), "{document}");
    let found = document["findings"].as_array().expect("findings").clone();
    let wrong = found
        .iter()
        .filter(|row| row["fine"] == false)
        .filter_map(|row| row["what"].as_str()?.strip_prefix("risk "))
        .filter(|what| *what != "disk_low");
    (wrong.map(|what| what.split(' ').next().expect("a code").to_owned()).collect(), document)
}

/// The value of the series that begins so; `None` if there is none. On a connection of its own: the daemon closes idle ones.
fn metric(daemon: &mut Daemon, begin: &str) -> Option<f64> {
    let text = daemon.anonymous().get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(begin))?.to_owned();
    line.rsplit(' ').next()?.parse().ok()
}

/// The token goes. One more rotation needs only the standby and a record; the next one can not happen, and everybody can see why. The token
/// comes back, and everything is as it was.
#[test]
fn a_rotation_that_cannot_happen_is_told_and_happens_at_last() {
    on_softhsm("a_rotation_that_cannot_happen_is_told_and_happens_at_last", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256").timing(SECONDS)));
        let mut daemon = place.start();
        let mut client = daemon.anonymous();
        until("a standby that may take over", || match metric(&mut daemon, "claviger_standby_eligible{keyring=\"access\"}") {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        hsm.hide_tokens(true);

        let lost = |row: &Value| row["code"] == "keystore_lost";
        let row = until("the first risk", || risks(&mut client).into_iter().find(lost).ok_or_else(|| "none".to_owned()));
        assert_eq!(row["keyring"], "access", "{row}");
        assert!(row["detail"].as_str().is_some_and(|detail| detail.contains("hsm")) && row["since"].is_string(), "{row}");

        let late = ["key_too_old", "keystore_lost", "no_standby", "rotation_overdue"];
        let told = wait_for(&mut daemon, &late);
        assert!(told.iter().all(|row| row["keyring"] == "access" && row["since"].is_string()), "{told:?}");
        assert!(metric(&mut daemon, "claviger_key_rotation_overdue_seconds{keyring=\"access\"}").is_some_and(|late| late >= 10.0));
        assert_eq!(metric(&mut daemon, "claviger_standby_eligible{keyring=\"access\"}"), Some(0.0));
        assert_eq!(metric(&mut daemon, "claviger_standby_published_timestamp_seconds{keyring=\"access\"}"), Some(0.0));
        for code in late {
            let series = format!("claviger_risk{{keyring=\"access\",code=\"{code}\"}}");
            assert_eq!(metric(&mut daemon, &series), Some(1.0), "{series}");
        }
        let red = daemon.anonymous().get("/readyz/sign?keyring=access");
        assert_eq!((red.status, codes(&rows(&red.json()))), (503, codes(&told)));
        assert_eq!(doctor(&place).0, codes(&told));

        hsm.hide_tokens(false);
        wait_for(&mut daemon, &[]);
        assert_eq!(metric(&mut daemon, "claviger_key_rotation_overdue_seconds{keyring=\"access\"}"), Some(0.0));
        assert_eq!(metric(&mut daemon, "claviger_risk{keyring=\"access\""), None, "what is over is shown no more");
        daemon.ready();
        place.check(daemon);
    });
}

/// A key that no record names was made in the token by somebody else.
#[test]
fn an_orphan_is_counted_and_named_to_operators_alone() {
    on_softhsm("an_orphan_is_counted_and_named_to_operators_alone", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let keystore = hsm.open(TOKEN, Arc::new(SystemClock::start()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let name = KeyName::new("test", "access", 77, 0xdead_beef).expect("a name");
        // The keystore opens on threads of its own.
        until("a key that nobody ordered", || {
            runtime.block_on(keystore.create(&name, Algorithm::ES256)).map_err(|error| error.to_string())
        });
        let mut daemon = place.start();
        let mut client = daemon.anonymous();
        let count = until("a count", || metric(&mut daemon, "claviger_keystore_orphans{keystore=\"hsm\"}").ok_or_else(|| daemon.stderr()));
        assert!((count - 1.0).abs() < f64::EPSILON, "{count}: the keys of the keyring and of the logs are none");
        assert!(!client.get("/metrics").text().contains(name.as_str()));
        let (_, found) = doctor(&place);
        let orphan =
            |row: &&Value| row["what"] == format!("key {name}") && row["text"].as_str().is_some_and(|text| text.contains("an orphan"));
        assert_eq!(found["findings"].as_array().into_iter().flatten().filter(orphan).count(), 1, "{found}");
        place.check(daemon);
    });
}

/// The metrics that rules and board name.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("claviger_")).map(str::to_owned).collect()
}

#[test]
fn alerts_name_only_risks_that_exist() {
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let named: BTreeSet<&str> = RULES.split("{code=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(named.len() > 5 && named.is_subset(&known), "{named:?}");
    // The others have a metric of their own, which knows how late it is.
    let rest: Vec<&str> = known.difference(&named).copied().collect();
    assert_eq!(rest, ["clock_paused", "disk_low", "key_drifted", "log_dead", "log_uncovered", "rotation_overdue"]);
}

/// With a witness, a signature, a key that retires and one that is suspended, there is a series for everything. What no test can bring
/// about here is counted from the start: a signature that does not verify.
#[test]
fn every_metric_that_rules_and_board_name_is_exported() {
    on_softhsm("every_metric_that_rules_and_board_name_is_exported", |hsm| {
        let keyrings = Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(Keyring::jwt("second", "ES256"));
        let place = Place::new(hsm, keyrings);
        let witness = Witness::start("w1", 11);
        place.edit_config(|text| text.replace("[log]\n", "[log]\nwitnesses = \"witnesses.policy\"\n"));
        fs::write(place.root().join("witnesses.policy"), format!("{}quorum w1\n", witness.line())).expect("a new file");
        let trust = fs::read_to_string(place.trust()).expect("our own file");
        let logs: Vec<VerifierKey> = trust.lines().filter_map(|line| line.strip_prefix("log ")?.parse().ok()).collect();
        witness.trust(&logs);
        let mut daemon = place.start();
        let kid = daemon.demo().sign("second").expect("an answer").ok()["kid"].as_str().expect("a kid").to_owned();
        place.command(&["keyring", "rotate", "access", "--force", "--reason", "test"]);
        place.command(&["key", "suspend", &kid, "--reason", "doubt"]);
        let told = wait_for(&mut daemon, &["suspended"]);
        assert_eq!((told[0]["keyring"].as_str(), &told[0]["until"]), (Some("second"), &Value::Null), "{told:?}");
        let mut client = daemon.anonymous();
        let of_access = client.get("/readyz/sign?keyring=access").ok();
        assert_eq!(rows(&of_access), [Value::Null; 0], "another keyring's risk");

        let _: Value = serde_json::from_str(BOARD).expect("the board is JSON");
        let (rules, board) = (names(RULES), names(BOARD));
        assert!(rules.len() > 10 && board.len() > 10, "{rules:?} {board:?}");
        let named: BTreeSet<String> = rules.union(&board).cloned().collect();
        until("every name", || {
            let text = client.get("/metrics").text();
            let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
            let exported: BTreeSet<String> = series.map(str::to_owned).collect();
            let missing: Vec<&String> = named.difference(&exported).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} in {text}")) }
        });
        for transition in ["rotation", "activation", "withdrawal", "destruction"] {
            let series = format!("claviger_key_transition_timestamp_seconds{{keyring=\"access\",transition=\"{transition}\"}}");
            let date = until(&series, || metric(&mut daemon, &series).ok_or_else(|| "no date".to_owned()));
            assert!(date > 1e9, "{series} {date}");
        }
        let rotation = "claviger_key_transition_timestamp_seconds{keyring=\"second\",transition=\"rotation\"}";
        assert_eq!(metric(&mut daemon, rotation), None, "it waits for an operator");
        place.command(&["key", "resume", &kid, "--reason", "it was nothing"]);
        wait_for(&mut daemon, &[]);
        place.check(daemon);
    });
}
