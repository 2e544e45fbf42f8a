//! Cosignatures are gathered until they are enough; who does not give any delays nobody.

use crate::harness::on_softhsm;
use crate::harness::witness::{Temper, Witness};
use crate::{Place, TWO_OF_THREE, metric, report, stored, three, until, wait_stored, witnessed};

/// Runs a verb with `--output json`: its exit code, and its document.
fn verb(place: &Place<'_>, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = place.claviger(&[&["--output", "json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), document)
}

fn active(place: &Place<'_>) -> String {
    let (_, shown) = verb(place, &["keyring", "show", "access"]);
    shown["active"].as_str().expect("an active key").to_owned()
}

#[test]
fn two_of_three_are_enough_and_the_dead_one_delays_nothing() {
    on_softhsm("quorum::two_of_three_are_enough_and_the_dead_one_delays_nothing", |hsm| {
        let witnesses = three();
        let place = witnessed(hsm, &witnesses, TWO_OF_THREE);
        let mut daemon = place.start();
        let first = wait_stored(&place, [1, 1]);
        let mut client = daemon.demo();
        for _ in 0..20 {
            assert_eq!(client.sign("access").expect("an answer").status, 200);
        }
        let later = wait_stored(&place, [first[0], first[1] + 20]);
        // Grown from what each had: the proofs were checked by the witnesses themselves.
        let heard = witnesses[0].heard();
        assert!(heard.iter().any(|heard| heard.old > 0 && heard.proof > 0 && heard.status == 200), "{heard:?}");
        assert!(heard.iter().all(|heard| matches!(heard.status, 200 | 409)), "{heard:?}");

        let kid = active(&place);
        let (code, done) = verb(&place, &["key", "suspend", &kid, "--reason", "test", "--wait-witnessed", "20s"]);
        assert_eq!((code, &done["witnessed"]["reached"]), (Some(0), &true.into()), "{done}");
        let seq = done["receipts"][0]["seq"].as_u64().expect("a record");
        assert!(done["witnessed"]["size"].as_u64().expect("a size") > seq && stored(&place, "keys").expect("stored") > seq);
        let (code, done) = verb(&place, &["key", "resume", &kid, "--reason", "test"]);
        assert!(code == Some(0) && done["witnessed"].is_null(), "nobody was to be waited for");

        assert_eq!(metric(&mut daemon, "claviger_witness_up{witness=\"w1\"}"), 1);
        assert_eq!(metric(&mut daemon, "claviger_witness_up{witness=\"w3\"}"), 0);
        assert_eq!(metric(&mut daemon, "claviger_witness_alarm{witness=\"w3\"}"), 0);
        assert!(metric(&mut daemon, "claviger_log_witnessed_size{log=\"uses\"}") >= i64::try_from(later[1]).expect("small"));
        assert!(report(&place, "w3")["failure"].as_str().expect("a reason").contains("did not answer within"));
        let doctor = place.claviger(&["doctor"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(said.contains("witness w3") && doctor.status.code() == Some(1), "{said}");
        place.check(daemon);
    });
}

#[test]
fn a_wrong_cosignature_counts_for_nothing_and_a_verb_says_that_it_is_not_witnessed() {
    on_softhsm("quorum::a_wrong_cosignature_counts_for_nothing_and_a_verb_says_that_it_is_not_witnessed", |hsm| {
        let witnesses = [Witness::start("w1", 11), Witness::start("w2", 12)];
        witnesses[1].set(Temper::Lying);
        let place = witnessed(hsm, &witnesses, "group g all w1 w2\nquorum g");
        let daemon = place.start();
        let kid = active(&place);
        let (code, done) = verb(&place, &["key", "suspend", &kid, "--reason", "test", "--wait-witnessed", "1s"]);
        assert_eq!((code, &done["witnessed"]["reached"]), (Some(75), &false.into()), "{done}");
        assert_eq!(done["events"][0]["event"], "key.suspended", "it is done all the same");
        assert!(stored(&place, "keys").is_err());
        assert_eq!(report(&place, "w2")["failure"], "its cosignature is not valid");
        assert_eq!(report(&place, "w2")["alarm"], serde_json::Value::Null);

        witnesses[1].set(Temper::Honest);
        let (code, done) = verb(&place, &["key", "resume", &kid, "--reason", "test", "--wait-witnessed", "2m"]);
        assert_eq!((code, &done["witnessed"]["reached"]), (Some(0), &true.into()), "{done}");
        assert!(stored(&place, "keys").is_ok());
        place.check(daemon);
    });
}

#[test]
fn a_witness_that_forgot_is_brought_up_to_date_and_one_that_contradicts_raises_an_alarm() {
    on_softhsm("quorum::a_witness_that_forgot_is_brought_up_to_date_and_one_that_contradicts_raises_an_alarm", |hsm| {
        let witnesses = [Witness::start("w1", 11), Witness::start("w2", 12)];
        let place = witnessed(hsm, &witnesses, "group g any w1 w2\nquorum g");
        let mut daemon = place.start();
        until("both know both logs", || {
            let sizes = [&witnesses[0], &witnesses[1]].map(|witness| (witness.size("/keys"), witness.size("/node-a")));
            if sizes.iter().all(|(keys, uses)| *keys > 1 && *uses > 1) { Ok(()) } else { Err(format!("{sizes:?}")) }
        });
        let old = witnesses[0].memory();
        let mut client = daemon.demo();
        let sign = |client: &mut crate::Client| assert_eq!(client.sign("access").expect("an answer").status, 200);
        sign(&mut client);
        let before = witnesses[0].size("/node-a");
        until("more cosigned", || if witnesses[0].size("/node-a") > before { Ok(()) } else { Err(before.to_string()) });
        witnesses[0].remember(old.clone());
        sign(&mut client);
        let known = old.iter().find(|(origin, _)| origin.ends_with("/node-a")).map(|(_, (size, _))| *size).expect("it knew the log");
        until("the proof from the size that it names", || {
            let heard = witnesses[0].heard();
            let caught_up = heard.iter().rev().take(4).any(|heard| heard.old == known && heard.status == 200 && heard.size > before);
            if caught_up { Ok(()) } else { Err(format!("{heard:?}")) }
        });
        assert_eq!(metric(&mut daemon, "claviger_witness_alarm{witness=\"w1\"}"), 0);

        for (witness, temper) in witnesses.iter().zip([Temper::Claiming(1_000_000), Temper::Refusing]) {
            witness.set(temper);
            sign(&mut client);
            let metric_name = format!("claviger_witness_alarm{{witness=\"{}\"}}", witness.name);
            until("the alarm", || if metric(&mut daemon, &metric_name) == 1 { Ok(()) } else { Err("no alarm".to_owned()) });
        }
        // It has cosigned since the start, so that it is its word against ours: people must look, and signing goes on.
        sign(&mut client);
        let ready = daemon.anonymous().get("/readyz/sign");
        let alarms = ready.ok()["alarms"].to_string();
        assert!(alarms.contains("w1 knows 1000000 records") && alarms.contains("w2 cosigned another history"), "{alarms}");
        place.check(daemon);
    });
}

#[test]
fn without_witnesses_nobody_waits_in_vain() {
    on_softhsm("quorum::without_witnesses_nobody_waits_in_vain", |hsm| {
        let setup = crate::Setup::new().keyring(crate::Keyring::jwt("access", "ES256"));
        let place = Place::new(hsm, setup);
        let daemon = place.start();
        let kid = active(&place);
        let output = place.claviger(&["key", "suspend", &kid, "--reason", "test", "--wait-witnessed"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(65) && said.contains("no witnesses are configured, so nothing was done"), "{said}");
        assert_eq!(active(&place), kid);
        place.check(daemon);
    });
}
