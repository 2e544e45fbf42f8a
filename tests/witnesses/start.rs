//! What witnesses know decides whether a start goes on: a log that was rolled back is not extended, and nothing is signed on it.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::on_softhsm;
use crate::harness::witness::{Temper, Witness};
use crate::{Place, TWO_OF_THREE, fs, metric, reader, restore, snapshot, three, until, wait_stored, witnessed};

/// Runs a daemon, stops it, keeps a copy, runs it again until the witnesses know more, and puts the copy back.
fn rolled_back(place: &Place<'_>) -> u64 {
    let daemon = place.start();
    wait_stored(place, [1, 1]);
    assert!(daemon.stop().success());
    let old = snapshot(place);
    let mut daemon = place.start();
    let mut client = daemon.demo();
    for _ in 0..5 {
        assert_eq!(client.sign("access").expect("an answer").status, 200);
    }
    let covered = place.admin_socket().get("/admin/status").ok()["log"]["keys"]["size"].as_u64().expect("a size");
    let known = wait_stored(place, [covered, 1])[0];
    assert!(daemon.stop().success());
    restore(place, &old);
    known
}

fn segments(place: &Place<'_>) -> Vec<u8> {
    fs::read(place.log().join("keys/00000000000000000000.jsonl")).expect("the key log")
}

#[test]
fn a_start_refuses_a_log_that_is_shorter_than_a_witness_knows() {
    on_softhsm("start::a_start_refuses_a_log_that_is_shorter_than_a_witness_knows", |hsm| {
        let witnesses = three();
        let place = witnessed(hsm, &witnesses, TWO_OF_THREE);
        let known = rolled_back(&place);
        let before = segments(&place);
        // A start that is refused adds nothing, so that no number of them makes the log long enough.
        for _ in 0..2 {
            let (status, said) = place.spawn().wait();
            assert_eq!(status.code(), Some(65), "{said}");
            let witness = ["w1", "w2"].iter().any(|name| said.contains(&format!("the key log: the witness {name} knows {known} records")));
            assert!(witness && said.contains("claviger audit adopt --accept-loss"), "{said}");
        }
        assert_eq!(segments(&place), before);
        place.check_secrets_alone();
    });
}

#[test]
fn key_sets_are_served_while_witnesses_are_asked_and_nothing_is_signed() {
    on_softhsm("start::key_sets_are_served_while_witnesses_are_asked_and_nothing_is_signed", |hsm| {
        let witnesses = [Witness::start("w1", 11)];
        let place = witnessed(hsm, &witnesses, "quorum w1");
        // Long enough for all that is asserted below, however slow the machine.
        place.edit_config(|text| text.replace("witness_timeout = \"1s\"", "witness_timeout = \"20s\""));
        let daemon = place.start();
        wait_stored(&place, [1, 1]);
        assert!(daemon.stop().success());
        witnesses[0].set(Temper::Hanging);
        let before = segments(&place);
        let mut daemon = place.spawn();
        daemon.addresses(5);
        assert!(daemon.stop().success(), "a stop while witnesses are asked is in order");
        assert_eq!(segments(&place), before, "nothing had begun, so that nothing ended");
        let mut daemon = place.spawn();
        daemon.addresses(5);
        daemon.signal(Signal::HUP);
        let mut client = daemon.demo();
        let set = client.get("/.well-known/jwks.json");
        assert_eq!(set.status, 200);
        let size: u64 = set.header("claviger-log-size").parse().expect("a size");
        assert!(size > 1);
        assert_eq!(client.sign("access").expect("an answer").problem(503), "log_doubted");
        let suspend = place.admin_socket().post("/admin/keyrings/access/rotate", &json!({}));
        assert_eq!(suspend.problem(503), "log_doubted");
        assert!(daemon.anonymous().get("/readyz/sign").text().contains("witnesses are being asked"));
        witnesses[0].set(Temper::Honest);
        daemon.ready();
        assert_eq!(client.sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_witness_that_answers_late_is_believed_then() {
    on_softhsm("start::a_witness_that_answers_late_is_believed_then", |hsm| {
        let witnesses = [Witness::start("w1", 11)];
        let place = witnessed(hsm, &witnesses, "quorum w1");
        let known = rolled_back(&place);
        witnesses[0].set(Temper::Hanging);
        let mut daemon = place.spawn();
        daemon.ready();
        let mut client = daemon.demo();
        assert_eq!(client.sign("access").expect("an answer").status, 200, "who cannot be reached stops nothing");
        witnesses[0].set(Temper::Honest);
        let doubted = until("the doubt", || match client.sign("access")? {
            answer if answer.status == 503 => Ok(answer),
            answer => Err(answer.text()),
        });
        assert_eq!(doubted.problem(503), "log_doubted");
        let ready = daemon.anonymous().get("/readyz/sign");
        // By then the log has gone on: either it is still shorter, or another history.
        let said = ready.text();
        assert!(ready.status == 503 && said.contains("the witness w1") && said.contains("--accept-loss"), "{said} {known}");
        assert_eq!(metric(&mut daemon, "claviger_witness_alarm{witness=\"w1\"}"), 1);
        assert_eq!(client.get("/.well-known/jwks.json").status, 200, "key sets are served all the same");

        // What protects verifiers is still possible; its record is covered by no checkpoint, and is not shown.
        let covered = place.admin_socket().get("/admin/status").ok()["log"]["keys"]["covered"].as_u64().expect("a size");
        let keyring = place.admin_socket().get("/admin/keyrings/access").ok();
        let kid = keyring["active"].as_str().expect("an active key");
        let admin = |path: String| place.admin_socket().post(&path, &json!({ "reason": "test" }));
        assert_eq!(admin(format!("/admin/keys/{kid}/suspend")).status, 200);
        assert_eq!(admin(format!("/admin/keys/{kid}/resume")).problem(503), "log_doubted");
        let mut reader = reader(&place);
        let records = reader.get(&format!("/log/keys/records?from={covered}"));
        assert_eq!((records.status, records.header("claviger-log-size"), records.body.len()), (200, covered.to_string().as_str(), 0));
        let last = reader.get(&format!("/log/keys/records?from={}", covered - 1));
        assert_eq!(last.text().lines().count(), 1, "only what is covered");
        for kind in ["0", "entries"] {
            assert_eq!(reader.get(&format!("/log/keys/tile/{kind}/000.p/{covered}")).status, 200);
            assert_eq!(reader.get(&format!("/log/keys/tile/{kind}/000.p/{}", covered + 1)).problem(404), "not_found");
        }
        assert!(daemon.stop().success());
        place.check_secrets_alone();
    });
}

#[test]
fn a_policy_that_asks_nobody_is_refused() {
    on_softhsm("start::a_policy_that_asks_nobody_is_refused", |hsm| {
        let witness = Witness::start("w1", 11);
        let place = witnessed(hsm, &[], "quorum none");
        let file = place.root().join("witnesses.policy");
        let plain = witness.line().replace("http://127.0.0.1", "http://witness.example");
        let nowhere = format!("witness w1 {}\n", witness.key());
        for (text, expected) in [
            ("quorum none\n".to_owned(), "`quorum none` asks for no cosignature"),
            (format!("{nowhere}quorum w1\n"), "witness w1: its line has no URL"),
            (format!("{plain}quorum w1\n"), "plain HTTP leaves this machine"),
            ("quorum w1\n".to_owned(), "line 1"),
        ] {
            fs::write(&file, &text).expect("our own file");
            let (status, said) = place.spawn().wait();
            assert!(status.code() == Some(78) && said.contains(expected), "{text}: {said}");
            let doctor = place.claviger(&["doctor"]);
            assert!(String::from_utf8_lossy(&doctor.stdout).contains("witnesses of"), "doctor looks at it too");
        }
        place.check_stopped();
    });
}
