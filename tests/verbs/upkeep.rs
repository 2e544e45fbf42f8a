//! Verbs for the logs themselves: another log key, an erased year.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::{Keystore as _, Locator};
use claviger_audit::names::LOG_KEYRING;
use serde_json::{Value, json};

use crate::harness::place::TOKEN;
use crate::harness::{Keyring, Place, Setup, SoftHsm, on_softhsm, until};
use crate::{DATA, DENIED, FOUND, LATER, NOT_FOUND, UNAVAILABLE, USAGE, doctor, fails, held, json, records};

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

fn log_keys(place: &Place<'_>) -> Vec<String> {
    let names = held(place.hsm).into_iter().filter(|name| name.keyring() == LOG_KEYRING);
    names.map(|name| name.to_string()).collect()
}

fn intent(place: &Place<'_>, log: &str) -> PathBuf {
    place.state().join(format!("log-key-intent-{log}.json"))
}

fn plain(path: &std::path::Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The exit code of the verifier with only these lines of the trust file.
fn verify_with(place: &Place<'_>, keep: impl Fn(&str) -> bool) -> (i32, String) {
    let text = fs::read_to_string(place.trust()).expect("our own file");
    let some: Vec<&str> = text.lines().filter(|line| !line.starts_with("log ") || keep(line)).collect();
    let path = place.root().join("some-trust");
    fs::write(&path, some.join("\n") + "\n").expect("a new file");
    place.verify(&["--trust", plain(&path), "--min-size", "1"])
}

#[test]
fn a_log_is_handed_over_to_another_key_and_goes_on_after_a_restart() {
    on_softhsm("upkeep::a_log_is_handed_over_to_another_key_and_goes_on_after_a_restart", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let first = fs::read_to_string(place.trust()).expect("our own file");
        assert_eq!(log_keys(&place).len(), 2);
        fails(&place, USAGE, &["audit", "rotate-key"]);

        let turned = json(&place, &["audit", "rotate-key", "uses", "--reason", "a test"]);
        assert_eq!((&turned["events"][0]["event"], &turned["covered"]), (&json!("log.key_rotated"), &json!(true)), "{turned}");
        place.trust_too(&turned["trust"]);
        assert!(first.contains(turned["old"]["verifier_key"].as_str().expect("a key")), "{first}");
        let said = place.command(&["audit", "rotate-key", "keys"]);
        let line = said.lines().find(|line| line.starts_with("log ")).expect("a line for trust files").to_owned();
        assert!(said.contains("trust file of every verifier now") && said.contains("destroyed there by hand"), "{said}");
        place.trust_too(&json!(line));

        // The next numbers, beside the old keys, which are never destroyed here.
        let names = log_keys(&place);
        let numbers: Vec<&str> =
            names.iter().map(|name| name.split('.').next_back().unwrap_or_default().split('-').next().unwrap_or_default()).collect();
        assert_eq!(numbers, ["1", "2", "3", "4"]);
        assert!(!intent(&place, "keys").exists() && !intent(&place, "uses").exists());
        let rotations = records(&place, "log.key_rotated");
        assert_eq!(rotations.iter().map(|record| record["log"].as_str()).collect::<Vec<_>>(), [Some("keys"), Some("uses")]);
        assert!(rotations.iter().all(|record| record["caller"].as_str().is_some_and(|caller| caller.starts_with("unix:uid="))));

        // What both keys signed is kept.
        for record in &rotations {
            let (log, seq) = (record["log"].as_str().expect("a log"), record["seq"].as_u64().expect("a number"));
            let note = fs::read_to_string(place.log().join(log).join(format!("{seq:020}.checkpoint"))).expect("a checkpoint");
            assert_eq!(note.lines().filter(|line| line.starts_with("\u{2014} ")).count(), 2, "{note}");
        }
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        assert!(daemon.stop().success());
        place.check_logs();
        let newest = fs::read_to_string(place.log().join("keys/checkpoint")).expect("a checkpoint");
        assert_eq!(newest.lines().filter(|line| line.starts_with("\u{2014} ")).count(), 1, "{newest}");
        // Who knows the old keys alone is told that something is missing, and is not told that all is well.
        let (code, report) = verify_with(&place, |line| first.contains(line));
        assert_eq!(code, 13, "{report}");

        // The next run signs with the new keys, and rotates again.
        let mut daemon = place.start();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.trust_too(&json(&place, &["audit", "rotate-key", "uses"])["trust"]);
        assert_eq!(log_keys(&place).len(), 5);
        assert_eq!(doctor(&place)["wrong"], 0);
        let free = place.admin_socket().get("/admin/status").ok()["disk"]["free_ratio"].as_f64().expect("a ratio");
        assert!((0.0..=1.0).contains(&free));
        assert!(daemon.anonymous().get("/metrics").text().contains("claviger_log_disk_free_ratio 0."));
        assert!(daemon.stop().success());
        let found = doctor(&place);
        assert_eq!(found["wrong"], 0, "no log key is an orphan: {found}");
        place.check(place.start());
    });
}

#[test]
fn a_rotation_that_was_cut_off_is_told_and_finished_with_the_same_key() {
    on_softhsm("upkeep::a_rotation_that_was_cut_off_is_told_and_finished_with_the_same_key", |hsm| {
        let place = Place::new(hsm, one_keyring());
        assert!(place.start().stop().success());
        // As a crash leaves it after the intent, and before or after the key was made.
        let name = "test.log.3-0badcafe";
        let text = json!({ "key": name, "keystore": "hsm", "after": 5 }).to_string();
        fs::write(intent(&place, "keys"), &text).expect("a new file");
        let wrong = |doctor: Value| {
            doctor["findings"].as_array().cloned().unwrap_or_default().into_iter().filter(|row| row["fine"] == false).collect::<Vec<_>>()
        };
        assert!(wrong(doctor(&place))[0]["text"].as_str().is_some_and(|text| text.contains("start it")));

        let daemon = place.start();
        assert!(daemon.stderr().contains("`claviger audit rotate-key keys` finishes it"), "{}", daemon.stderr());
        assert_eq!(wrong(doctor(&place))[0]["what"], "key of log keys");
        assert_eq!(log_keys(&place).len(), 2, "a start makes no key");
        let turned = json(&place, &["audit", "rotate-key", "keys"]);
        place.trust_too(&turned["trust"]);
        assert!(log_keys(&place).contains(&name.to_owned()) && log_keys(&place).len() == 3);
        assert!(!intent(&place, "keys").exists());
        assert_eq!(doctor(&place)["wrong"], 0);

        // As a crash leaves it after the record: the log says that it was carried out.
        assert!(daemon.stop().success());
        fs::write(intent(&place, "keys"), &text).expect("a new file");
        let daemon = place.start();
        assert!(!intent(&place, "keys").exists() && !daemon.stderr().contains("finishes it"), "{}", daemon.stderr());
        assert_eq!(records(&place, "log.key_rotated").len(), 1);

        // An intent for a keystore that is gone is no reason to make another key.
        fs::write(intent(&place, "uses"), json!({ "key": "test.log.4-0badcafe", "keystore": "other", "after": 9999 }).to_string())
            .expect("a new file");
        let said = fails(&place, UNAVAILABLE, &["audit", "rotate-key", "uses"]);
        assert!(said.contains("\"other\"") && said.contains("configure it again"), "{said}");
        fs::remove_file(intent(&place, "uses")).expect("our own file");
        place.check(daemon);
    });
}

#[test]
fn a_rotation_waits_for_an_old_key_that_cannot_sign() {
    on_softhsm("upkeep::a_rotation_waits_for_an_old_key_that_cannot_sign", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let created = records(&place, "log.created");
        let of_uses = created.iter().find(|record| record["log"] == "uses").expect("the first record");
        destroy(hsm, of_uses["locator"].as_str().expect("a locator"));
        let said = place.command(&["audit", "rotate-key", "uses"]);
        assert!(said.contains("No checkpoint covers the rotation yet"), "{said}");
        place.trust_too(&json!(said.lines().find(|line| line.starts_with("log ")).expect("a line for trust files")));
        // The new key alone is never believed: nothing covers the record, everybody is told, and signing goes on.
        let said = fails(&place, FOUND, &["doctor"]);
        assert!(said.contains("no checkpoint with both signatures covers that"), "{said}");
        let said = fails(&place, LATER, &["audit", "rotate-key", "uses"]);
        assert!(said.contains("must sign once more"), "{said}");
        assert_eq!(log_keys(&place).len(), 2, "one is gone, one is new: {:?}", log_keys(&place));
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        let newest = fs::read_to_string(place.log().join("uses/checkpoint")).expect("a checkpoint");
        let covered: u64 = newest.lines().nth(1).and_then(|size| size.parse().ok()).expect("a size");
        assert!(covered <= records(&place, "log.key_rotated")[0]["seq"].as_u64().expect("a number"), "{newest}");
        // So it stays after a restart.
        assert!(daemon.stop().success());
        let daemon = place.start();
        assert!(fails(&place, FOUND, &["doctor"]).contains("no checkpoint with both signatures covers that"));
        place.check(daemon);
    });
}

/// Destroys a key in the token, behind the daemon's back.
fn destroy(hsm: &SoftHsm, locator: &str) {
    let keystore = hsm.open(TOKEN, Arc::new(SystemClock::start()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let locator = Locator::new(locator);
    until("the destruction", || runtime.block_on(keystore.destroy(&locator)).map_err(|error| error.to_string()));
}

#[test]
fn a_past_year_is_erased_once_and_for_all() {
    on_softhsm("upkeep::a_past_year_is_erased_once_and_for_all", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        daemon.demo().sign("access").expect("an answer").ok();
        let now: claviger_audit::Timestamp = records(&place, "daemon.start")[0]["time"].as_str().expect("a time").parse().expect("a time");
        let this_year: u64 = now.to_string()[..4].parse().expect("a year");
        let key = |year: u64| place.state().join(format!("subject-{year}.key"));
        assert!(key(this_year).exists(), "the source address has a pseudonym");
        let (past, older) = (this_year - 1, this_year - 2);
        for year in [past, older] {
            fs::write(key(year), [7; 32]).expect("a new file");
        }
        let year_and = |year: u64, code: i32, more: &[&str]| {
            let year = year.to_string();
            let arguments = [&["audit", "erase", "--reason", "the years are over", "--year", &year], more].concat();
            if code == 0 { place.command(&arguments) } else { fails(&place, code, &arguments) }
        };
        for year in [this_year, this_year + 1] {
            let said = year_and(year, LATER, &["--yes"]);
            assert!(said.contains("is not over") && said.contains(&format!("{}-01-01T", year + 1)), "{said}");
        }
        assert!(year_and(this_year - 3, NOT_FOUND, &["--yes"]).contains("there is no key of"));
        assert!(year_and(past, DATA, &[]).contains("say --yes"));
        assert!(key(past).exists());

        assert!(year_and(past, 0, &["--yes"]).contains("subject.erased"));
        assert!(!key(past).exists() && key(older).exists() && key(this_year).exists());
        let erased = records(&place, "subject.erased");
        assert_eq!(erased.len(), 1);
        assert_eq!((&erased[0]["of"], &erased[0]["year"], &erased[0]["reason"]), (&json!("a"), &json!(past), &json!("the years are over")));
        assert!(year_and(past, LATER, &["--yes"]).contains("was erased before"));
        assert!(daemon.stop().success());

        // A crash between the record and the deletion is completed at the next start, and said.
        fs::write(key(past), [7; 32]).expect("a new file");
        let daemon = place.start();
        assert!(!key(past).exists() && key(older).exists());
        assert!(daemon.stderr().contains("the key of an erased year was still there"), "{}", daemon.stderr());
        assert_eq!(records(&place, "subject.erased").len(), 1);
        place.check(daemon);
    });
}

#[test]
fn whoever_may_not_maintain_the_log_is_denied_and_recorded() {
    on_softhsm("upkeep::whoever_may_not_maintain_the_log_is_denied_and_recorded", |hsm| {
        let all_but = r#"@id("all-but-one") permit (principal, action, resource) unless { action == Action::"maintainLog" };"#;
        let place = Place::new(hsm, one_keyring().policies(all_but));
        let daemon = place.start();
        for arguments in [&["audit", "rotate-key", "keys"][..], &["audit", "erase", "--year", "2001", "--reason", "x", "--yes"]] {
            assert!(fails(&place, DENIED, arguments).contains("no policy permits this"));
        }
        let denials = records(&place, "admin.denied");
        assert_eq!(denials.iter().map(|record| record["verb"].as_str()).collect::<Vec<_>>(), [Some("maintainLog"); 2]);
        assert_eq!(log_keys(&place).len(), 2);
        let mut admin = place.admin_socket();
        assert_eq!(admin.post("/admin/log/other/rotate-key", &json!({})).problem(404), "not_found");
        assert_eq!(admin.post("/admin/log/keys/rotate-key", &json!({ "surplus": 1 })).problem(400), "malformed");
        assert_eq!(admin.post("/admin/subjects/last/erase", &json!({ "reason": "x" })).problem(400), "malformed");
        assert_eq!(admin.post("/admin/subjects/2001/erase", &json!({})).problem(400), "malformed");
        place.check(daemon);
    });
}
