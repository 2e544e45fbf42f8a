//! Reload, by SIGHUP and by `policy reload`: all or nothing, recorded, and honest about what needs a restart.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Daemon, Keyring, Place, Setup, on_softhsm, until};
use crate::{DATA, UNAVAILABLE, fails, json, kid, records, served};

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// Sends SIGHUP and waits until the daemon's log holds one more line with `part`.
fn hang_up(daemon: &Daemon, part: &str) -> String {
    let count = |text: &str| text.lines().filter(|line| line.contains(part)).count();
    let before = count(&daemon.stderr());
    daemon.signal(Signal::HUP);
    until(part, || {
        let text = daemon.stderr();
        if count(&text) > before { Ok(text.lines().rfind(|line| line.contains(part)).unwrap_or_default().to_owned()) } else { Err(text) }
    })
}

fn edit_policies(place: &Place<'_>, edit: impl FnOnce(String) -> String) {
    let path = place.root().join("policies/test.cedar");
    let text = fs::read_to_string(&path).expect("our own file");
    fs::write(&path, edit(text)).expect("our own file");
}

#[test]
fn a_broken_policy_keeps_the_old_set_and_says_so() {
    on_softhsm("reload::a_broken_policy_keeps_the_old_set_and_says_so", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        let loads = |place: &Place<'_>| records(place, "policy.loaded").len();
        let before = loads(&place);
        edit_policies(&place, |text| text.replace("principal.groups", "principal.grups"));
        let said = fails(&place, DATA, &["policy", "reload"]);
        assert!(said.contains("nothing was reloaded") && said.contains("test.cedar:") && said.contains("grups"), "{said}");
        hang_up(&daemon, "nothing was reloaded");
        assert_eq!(demo.sign("access").expect("an answer").status, 200, "the old set is in force");
        assert_eq!(loads(&place), before, "and nothing was recorded");

        // A changed policy is in force when the verb returns; a file that nobody reloads changes nothing.
        edit_policies(&place, |text| text.replace("principal.grups", "principal.groups").replace("\"issuers\"", "\"signers\""));
        assert_eq!(demo.sign("access").expect("an answer").status, 200);
        let answer = json(&place, &["policy", "reload"]);
        assert_eq!((&answer["policies"], &answer["needs_restart"]), (&json!(2), &json!([])));
        assert_eq!(demo.sign("access").expect("an answer").problem(403), "denied");
        let loaded = records(&place, "policy.loaded");
        assert_eq!(loaded.len(), before + 1);
        let hashes: Vec<&Value> = loaded.iter().map(|record| &record["sha256"]).collect();
        assert_ne!(hashes[before - 1], hashes[before], "recorded with its hash");
        edit_policies(&place, |text| text.replace("\"signers\"", "\"issuers\""));
        hang_up(&daemon, " reloaded ");
        assert_eq!(demo.sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_start_with_broken_policies_serves_jwks_and_signs_nothing() {
    on_softhsm("reload::a_start_with_broken_policies_serves_jwks_and_signs_nothing", |hsm| {
        let place = Place::new(hsm, one_keyring());
        assert!(place.start().stop().success());
        edit_policies(&place, |text| text.replace("principal.groups", "principal.grups"));
        let mut daemon = place.spawn();
        assert!(!served(&mut daemon.anonymous()).is_empty());
        assert_eq!(daemon.demo().sign("access").expect("an answer").problem(503), "policy_invalid");
        assert!(daemon.stderr().contains("grups"), "{}", daemon.stderr());
        edit_policies(&place, |text| text.replace("principal.grups", "principal.groups"));
        // No policy permits a reload where there is no policy; a signal needs none.
        hang_up(&daemon, " reloaded ");
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_new_keyring_appears_and_changed_timing_is_recorded() {
    on_softhsm("reload::a_new_keyring_appears_and_changed_timing_is_recorded", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        place.edit_config(|text| {
            let added = text.replace("[keyring.access]", "[keyring.extra]\npurpose = \"jws\"\nalgorithm = \"EdDSA\"\nkeystore = \"hsm\"\nverify_within = \"10s\"\nmax_exposure = \"2h\"\n\n[keyring.access]");
            added.replace("token_ttl = \"10s\"", "token_ttl = \"20s\"")
        });
        let answer = json(&place, &["policy", "reload"]);
        assert!(answer["keyring_records"].as_u64().is_some_and(|records| records >= 2), "{answer}");
        let active = kid(&place, "extra", "active");
        let payload = json!({ "keyring": "extra", "payload": "aGVsbG8" });
        assert_eq!(daemon.demo().post("/sign", &payload).ok()["kid"], active.as_str());
        let set = daemon.anonymous().get("/keyrings/extra/jwks.json").ok();
        assert_eq!(set["keys"][0]["kid"], active.as_str());
        assert_eq!(json(&place, &["keyring", "show", "access"])["timing"]["settings"]["token_ttl_ms"], 20_000);
        let timing = records(&place, "keyring.timing");
        let access: Vec<&Value> = timing.iter().filter(|record| record["keyring"] == "access").collect();
        assert_eq!(access.len(), 2, "every change of timing is a record: {timing:?}");

        // Purpose, issuer and typ are fixed by a keyring's first event: nothing of such a file is loaded.
        place.edit_config(|text| text.replace("access+jwt", "other+jwt").replace("token_ttl = \"20s\"", "token_ttl = \"10s\""));
        let said = fails(&place, DATA, &["policy", "reload"]);
        assert!(said.contains("nothing was reloaded") && said.contains("its typ is fixed"), "{said}");
        assert_eq!(json(&place, &["keyring", "show", "access"])["timing"]["settings"]["token_ttl_ms"], 20_000);
        place.edit_config(|text| text.replace("other+jwt", "access+jwt"));
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_keyring_that_left_the_file_is_reported_and_goes_on() {
    on_softhsm("reload::a_keyring_that_left_the_file_is_reported_and_goes_on", |hsm| {
        let place = Place::new(hsm, one_keyring().keyring(Keyring::jwt("other", "ES256")));
        let mut daemon = place.start();
        let active = kid(&place, "other", "active");
        let before = fs::read_to_string(place.config()).expect("our own file");
        place.edit_config(|text| text.split("[keyring.other]").next().unwrap_or_default().to_owned());
        assert_eq!(json(&place, &["policy", "reload"])["not_in_the_file"], json!(["other"]));
        assert!(served(&mut daemon.anonymous()).contains(&active), "verifiers still have its key");
        let own = daemon.anonymous().get("/keyrings/other/jwks.json").ok();
        assert_eq!(own["keys"][0]["kid"], active.as_str(), "whichever address they know");
        assert_eq!(kid(&place, "other", "active"), active);
        fs::write(place.config(), before).expect("our own file");
        assert_eq!(json(&place, &["policy", "reload"])["not_in_the_file"], json!([]));
        assert_eq!(daemon.demo().sign("other").expect("an answer").ok()["kid"], active.as_str());
        place.check(daemon);
    });
}

#[test]
fn what_needs_a_restart_is_said_each_time() {
    on_softhsm("reload::what_needs_a_restart_is_said_each_time", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        place.edit_config(|text| text.replace("127.0.0.1:0", "127.0.0.2:0"));
        for _ in 0..2 {
            let answer = json(&place, &["policy", "reload"]);
            assert!(answer["needs_restart"].to_string().contains("listener"), "{answer}");
        }
        place.edit_config(|text| text.replace("127.0.0.2:0", "127.0.0.1:0"));
        assert_eq!(json(&place, &["policy", "reload"])["needs_restart"], json!([]));
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        let daemon = {
            assert!(daemon.stop().success());
            fails(&place, UNAVAILABLE, &["policy", "reload"]);
            place.start()
        };
        place.check(daemon);
    });
}

#[test]
fn a_folder_that_is_mounted_anew_is_loaded_and_a_changed_file_is_not() {
    on_softhsm("reload::a_folder_that_is_mounted_anew_is_loaded_and_a_changed_file_is_not", |hsm| {
        let place = Place::new(hsm, one_keyring());
        // As Kubernetes mounts a volume: `..data` names the version, and the files are links through it.
        let (folder, text) =
            (place.root().join("policies"), fs::read_to_string(place.root().join("policies/test.cedar")).expect("our own file"));
        for (version, text) in [("..1", text.clone()), ("..2", text.replace("\"issuers\"", "\"signers\""))] {
            fs::create_dir(folder.join(version)).expect("a new folder");
            fs::write(folder.join(version).join("test.cedar"), text).expect("a new file");
        }
        fs::remove_file(folder.join("test.cedar")).expect("our own file");
        symlink("..1", folder.join("..data")).expect("a new link");
        symlink("..data/test.cedar", folder.join("test.cedar")).expect("a new link");
        let mut daemon = place.start();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        symlink("..2", folder.join("..next")).expect("a new link");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("the swap of a mount");
        until("the reload", || if daemon.stderr().contains(" reloaded ") { Ok(()) } else { Err(daemon.stderr()) });
        assert_eq!(daemon.demo().sign("access").expect("an answer").problem(403), "denied");
        place.check(daemon);
    });
}
