//! A configuration that cannot hold, and state that is not there, not ours, or in use.
//!
//! In scope: what `serve`, `init` and `config check` say, and with which exit code. Out of scope: reload (`verbs.rs`).

use std::fs;
use std::process::Output;

use crate::harness::{Keyring, Place, Setup, on_softhsm};

/// Exit codes of sysexits.h.
const UNAVAILABLE: Option<i32> = Some(69);
const CANNOT_CREATE: Option<i32> = Some(73);
const CONFIG: Option<i32> = Some(78);

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_setting_that_cannot_hold_is_named_with_its_line_and_the_way_out() {
    on_softhsm("settings::a_setting_that_cannot_hold_is_named_with_its_line_and_the_way_out", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let good = fs::read_to_string(place.config()).expect("our own file");
        let cases: [(&str, &str, &[&str]); 8] = [
            ("token_ttl =", "token_tll =", &["token_tll", "did you mean `token_ttl`?", "line "]),
            ("[keyring.access]", "[keyring.access]\njwks_max_agee = \"1s\"", &["did you mean `jwks_max_age`?"]),
            ("[keystore.hsm]", "[keystor.hsm]", &["did you mean `keystore`?"]),
            (
                "max_exposure = \"20s\"",
                "max_exposure = \"2s\"",
                &["I4: max_exposure (2s) must be at least D + e = 2s + 1s = 3s", "raise max_exposure to 3s"],
            ),
            (
                "rotate_every = \"1h\"",
                "rotate_every = \"5s\"",
                &["I5: rotate_every (5s) must be at least D + e + G", "raise rotate_every to"],
            ),
            ("algorithm = \"ES256\"", "algorithm = \"HS256\"", &["\"HS256\" is not an algorithm", "ES256"]),
            ("serves = [\"admin\"]", "serves = [\"admin\", \"public\"]", &["admin"]),
            ("installation = \"test\"", "installation = \"Test!\"", &["installation"]),
        ];
        for (from, to, parts) in cases {
            assert!(good.contains(from), "{from}");
            fs::write(place.config(), good.replacen(from, to, 1)).expect("our own file");
            let (status, printed) = place.spawn().wait();
            assert_eq!(status.code(), CONFIG, "{to}: {printed}");
            let checked = place.claviger(&["config", "check"]);
            assert_eq!(checked.status.code(), CONFIG, "{to}");
            for part in parts {
                assert!(printed.contains(part) && errors(&checked).contains(part), "{part:?} in {printed}");
            }
        }
        // Every error is told at once.
        let two = good.replacen("token_ttl =", "token_tll =", 1).replacen("workers = 2", "worker = 2", 1);
        fs::write(place.config(), two).expect("our own file");
        let told = errors(&place.claviger(&["config", "check"]));
        assert!(told.contains("`token_ttl`") && told.contains("`workers`"), "{told}");
        fs::remove_file(place.config()).expect("our own file");
        let (status, printed) = place.spawn().wait();
        assert_eq!(status.code(), CONFIG, "{printed}");
        fs::write(place.config(), good).expect("our own file");
        let daemon = place.start();
        place.check(daemon);
    });
}

#[test]
fn a_uri_opens_the_keystore_and_a_pin_in_one_is_printed_by_no_command() {
    on_softhsm("settings::a_uri_opens_the_keystore_and_a_pin_in_one_is_printed_by_no_command", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let good = fs::read_to_string(place.config()).expect("our own file");
        let line = |name: &str| good.lines().find(|line| line.starts_with(name)).expect("a setting of the keystore");
        let value = |name: &str| line(name).split('"').nth(1).expect("a quoted value");
        let (module, pin, token) = (value("module = "), value("pin_file = "), value("token = "));
        let bare = good.replace(line("module = "), "").replace(line("pin_file = "), "");
        let with = |uri: &str| fs::write(place.config(), bare.replace(line("token = "), &format!("token = {uri}"))).expect("our own file");
        with(&format!("\"pkcs11:token={token};model=SoftHSM%20v2?module-path={module}&pin-source=file:{pin}\""));
        let mut daemon = place.start();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);

        for uri in [
            &*format!("\"pkcs11:token={token}?module-path={module}&pin-value=S3CR3T\""),
            "\"pkcs11:token=%zz;slot-id=1?pin-value=S3CR3T\"",
            "\"PKCS11:S3CR3T\"",
            "\"pkcs11:token=a?pin-value=S3CR3T",
            "pkcs11:token=a?pin-value=S3CR3T",
            "\"a\"\n\"pkcs11:token=a?pin-value=S3CR3T\" = 1",
        ] {
            with(uri);
            let (status, printed) = place.spawn().wait();
            assert!(status.code() == CONFIG && !printed.contains("S3CR3T"), "{printed}");
            for (command, code) in [(&["config", "check"][..], CONFIG), (&["doctor"], Some(1)), (&["doctor", "--output", "json"], Some(1))]
            {
                let output = place.claviger(command);
                let said = String::from_utf8_lossy(&output.stdout).into_owned() + &errors(&output);
                assert_eq!(output.status.code(), code, "{said}");
                assert!(!said.contains("S3CR3T") && said.contains("line "), "{said}");
            }
        }
    });
}

#[test]
fn serve_never_begins_a_history() {
    on_softhsm("settings::serve_never_begins_a_history", |hsm| {
        let place = Place::uninitialised(hsm, one_keyring());
        for _ in 0..2 {
            let (status, printed) = place.spawn().wait();
            assert_eq!(status.code(), CONFIG, "{printed}");
            assert!(printed.contains("claviger init") && printed.contains("mount the volume"), "{printed}");
            assert!(!place.log().exists(), "nothing was begun");
        }
        place.init();
        let again = place.claviger(&["init"]);
        assert_eq!(again.status.code(), CANNOT_CREATE);
        assert!(errors(&again).contains("holds a log already") && errors(&again).contains("claviger serve"), "{}", errors(&again));
        let mut daemon = place.start();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_new_state_folder_beside_an_old_token_is_no_new_installation() {
    on_softhsm("settings::a_new_state_folder_beside_an_old_token_is_no_new_installation", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        assert!(daemon.stop().success());
        // The volume with the state is not mounted.
        let elsewhere = place.root().join("elsewhere");
        fs::rename(place.state(), &elsewhere).expect("both in one folder");
        let (status, printed) = place.spawn().wait();
        assert_eq!(status.code(), CONFIG, "{printed}");
        let refused = place.claviger(&["init"]);
        assert_eq!(refused.status.code(), CANNOT_CREATE);
        let told = errors(&refused);
        assert!(told.contains("already holds the log key test.log.") && told.contains("a second history must not begin"), "{told}");
        assert!(!place.log().exists(), "nothing was begun");
        fs::remove_dir_all(place.state()).expect("the folder that was made in its place");
        fs::rename(&elsewhere, place.state()).expect("both in one folder");
        let daemon = place.start();
        place.check(daemon);
    });
}

#[test]
fn what_init_fixed_cannot_be_changed_by_the_file() {
    on_softhsm("settings::what_init_fixed_cannot_be_changed_by_the_file", |hsm| {
        let place = Place::new(hsm, one_keyring());
        assert!(place.start().stop().success());
        let changes = [
            ("installation = \"test\"", "installation = \"other\"", "`installation`"),
            ("origin = \"test.example/claviger\"", "origin = \"other.example/claviger\"", "`origin`"),
            ("node = \"a\"", "node = \"b\"", "`node`"),
        ];
        for (from, to, setting) in changes {
            place.edit_config(|text| text.replacen(from, to, 1));
            let (status, printed) = place.spawn().wait();
            assert_eq!(status.code(), CONFIG, "{printed}");
            assert!(printed.contains(setting) && printed.contains("fixed by `claviger init`"), "{printed}");
            place.edit_config(|text| text.replacen(to, from, 1));
        }
        place.check(place.start());
    });
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused() {
    on_softhsm("settings::a_second_daemon_on_the_same_folder_is_refused", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let owner = format!("in use by process {}", daemon.pid());
        let (status, printed) = place.spawn().wait();
        assert_eq!(status.code(), UNAVAILABLE, "{printed}");
        assert!(printed.contains(&owner), "{printed}");
        let refused = place.claviger(&["init"]);
        assert_eq!(refused.status.code(), CANNOT_CREATE);
        assert!(errors(&refused).contains(&owner), "{}", errors(&refused));
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200, "the first goes on");
        place.check(daemon);
    });
}
