//! What needs no daemon: `policy check|test|explain|list`, `config check`, `sign --dry-run --as`, `audit`, and `doctor` with and without one.
//!
//! `sign` without `--as` stands here too, beside its offline sibling.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Keyring, Place, Setup, on_softhsm, setup};
use crate::{CONFIG, DATA, FOUND, NOT_FOUND, UNAVAILABLE, USAGE, doctor, fails, json, kid};

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// Writes a file beside the configuration, and gives its path.
fn file(place: &Place<'_>, name: &str, content: &str) -> String {
    let path = place.root().join(name);
    fs::write(&path, content).expect("a new file");
    path.to_str().expect("a plain path").to_owned()
}

fn claims(place: &Place<'_>, name: &str, claims: &Value) -> String {
    file(place, name, &claims.to_string())
}

#[test]
fn policies_are_checked_listed_explained_and_tested_from_their_files() {
    on_softhsm("offline::policies_are_checked_listed_explained_and_tested_from_their_files", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let good = claims(&place, "claims.json", &json!({ "sub": "u", "aud": setup::AUDIENCE }));
        assert!(place.command(&["policy", "check"]).contains("2 policies are valid; 0 findings"));
        let listed = json(&place, &["policy", "list", "access"])["policies"].as_array().cloned().expect("policies");
        let ids: Vec<&str> = listed.iter().filter_map(|policy| policy["id"].as_str()).collect();
        assert_eq!(ids, ["issuers-sign", "operators-do-everything-else"]);
        assert!(place.command(&["policy", "list", "access"]).contains("// test.cedar:"), "as written, with its place");

        let explain = ["policy", "explain", "--keyring", "access", "--claims", &good, "--as"];
        let with = |caller| [&explain[..], &[caller]].concat();
        let allowed = json(&place, &with("token:demo"));
        assert_eq!((&allowed["allowed"], &allowed["determining"]), (&json!(true), &json!(["issuers-sign"])));
        let denied = fails(&place, FOUND, &with("token:stranger"));
        assert!(denied.contains("denied") && denied.contains("issuers-sign"), "{denied}");
        assert!(fails(&place, DATA, &with("nobody")).contains("unix:uid=N"));
        fails(&place, DATA, &["policy", "explain", "--keyring", "acces", "--claims", &good, "--as", "token:demo"]);
        let rotate = ["policy", "explain", "--keyring", "access", "--action", "rotate", "--as", "token:demo"];
        assert!(fails(&place, FOUND, &rotate).contains("denied"));

        let table = |expected: &str| {
            format!(
                "[[case]]\nname = \"the demo caller\"\nas = \"token:demo\"\naction = \"sign\"\nkeyring = \"access\"\nexpect = \"{expected}\"\n"
            )
        };
        let right = file(&place, "right.toml", &table("allow"));
        let wrong = file(&place, "wrong.toml", &table("deny"));
        let passed = json(&place, &["policy", "test", &right]);
        assert_eq!((&passed["passed"], &passed["failed"]), (&json!(1), &json!([])));
        assert!(fails(&place, FOUND, &["policy", "test", &wrong]).contains("the demo caller"));

        // What is misspelt is an error with its place, not a silent no.
        let policies = place.root().join("policies/test.cedar");
        let text = fs::read_to_string(&policies).expect("our own file");
        fs::write(&policies, text.replacen("principal.groups", "principal.group", 1)).expect("our own file");
        let said = fails(&place, DATA, &["policy", "check"]);
        assert!(said.contains("test.cedar:") && said.contains("group"), "{said}");
        fs::write(&policies, text).expect("our own file");
        place.check(place.start());
    });
}

#[test]
fn a_configuration_tells_what_is_computed_from_it() {
    on_softhsm("offline::a_configuration_tells_what_is_computed_from_it", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let row = json(&place, &["config", "check"])["keyrings"]["access"].clone();
        assert_eq!((&row["seen_by_all"], &row["lead"], &row["overlap"]), (&json!("2s"), &json!("3s"), &json!("14s")), "{row}");
        assert!(place.command(&["config", "check"]).contains("lead (D + e)"));
        place.edit_config(|text| text.replace("max_exposure = \"20s\"", "max_exposure = \"2s\""));
        assert!(fails(&place, CONFIG, &["config", "check"]).contains("raise max_exposure to 3s"));
        fails(&place, CONFIG, &["keyring", "list"]);
        place.edit_config(|text| text.replace("max_exposure = \"2s\"", "max_exposure = \"20s\""));
        let said = fails(&place, UNAVAILABLE, &["keyring", "list"]);
        assert!(said.contains("admin.sock") && said.contains("claviger serve"), "{said}");
        fails(&place, USAGE, &["keyring", "lst"]);
        place.check(place.start());
    });
}

fn plain(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn sign_and_its_dry_runs_say_the_same() {
    on_softhsm("offline::sign_and_its_dry_runs_say_the_same", |hsm| {
        let place = Place::new(hsm, one_keyring().keyring(Keyring::jws("hooks", "EdDSA")));
        let daemon = place.start();
        let good = claims(&place, "good.json", &json!({ "sub": "u", "aud": setup::AUDIENCE }));
        let bad = claims(&place, "bad.json", &json!({ "sub": "u", "password": "p" }));
        let sign = ["sign", "--keyring", "access", "--claims"];
        let with =
            |file: &str, more: &[&str]| -> Vec<String> { sign.iter().chain(&[file]).chain(more).map(|text| (*text).to_owned()).collect() };
        let token = place.command(&plain(&with(&good, &[])));
        assert_eq!(token.trim().split('.').count(), 3, "nothing but the token: {token}");
        let reply = json(&place, &plain(&with(&good, &[])));
        assert_eq!(reply["kid"], kid(&place, "access", "active").as_str());
        let payload = file(&place, "payload", "hello");
        assert!(place.command(&["sign", "--keyring", "hooks", "--payload", &payload, "--detached"]).contains(".."));

        // The daemon and the files alone come to the same judgement, and to the same exit code.
        let uid = format!("unix:uid={}", rustix::process::geteuid().as_raw());
        for as_caller in [&[][..], &["--as", &uid]] {
            let more = [&["--dry-run"], as_caller].concat();
            let run = json(&place, &plain(&with(&good, &more)));
            assert_eq!((&run["permitted"], &run["broken"]), (&json!(true), &json!([])));
            assert_eq!((&run["claims"]["iss"], &run["claims"]["jti"]), (&json!(setup::ISSUER), &json!("(random)")));
            let said = fails(&place, FOUND, &plain(&with(&bad, &more)));
            assert!(said.contains("broken: aud:") && said.contains("broken: password:"), "{said}");
        }
        let said = fails(&place, FOUND, &plain(&with(&good, &["--dry-run", "--as", "token:stranger"])));
        assert!(said.contains("denied") && said.contains("policy explain"), "{said}");
        let said = fails(&place, DATA, &plain(&with(&bad, &[])));
        assert!(said.contains("[missing]") && said.contains("[forbidden]"), "{said}");
        let twice = file(&place, "twice.json", r#"{"sub":"a","sub":"b"}"#);
        assert!(fails(&place, DATA, &plain(&with(&twice, &[]))).contains("two members of this name"));
        fails(&place, NOT_FOUND, &plain(&with("/no/such/file", &[])));
        fails(&place, NOT_FOUND, &["sign", "--keyring", "acces", "--claims", &good]);
        fails(&place, NOT_FOUND, &["sign", "--keyring", "acces", "--claims", &good, "--dry-run", "--as", "token:demo"]);
        fails(&place, USAGE, &["sign", "--keyring", "access"]);
        // A socket that does not sign, and one that is not there.
        let admin = place.root().join("admin.sock");
        fails(&place, NOT_FOUND, &plain(&with(&good, &["--sign-socket", admin.to_str().expect("a plain path")])));
        fails(&place, UNAVAILABLE, &plain(&with(&good, &["--sign-socket", "/no/such/socket"])));
        place.check(daemon);
    });
}

#[test]
fn the_log_is_shown_searched_and_verified() {
    on_softhsm("offline::the_log_is_shown_searched_and_verified", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let reply = daemon.demo().sign("access").expect("an answer").ok();
        let log = place.log();
        let log = log.to_str().expect("a plain path");
        let table = place.command(&["audit", "show", log, "--event", "key."]);
        assert!(table.contains("key.requested") && !table.contains("daemon.start"), "{table}");
        // One switch for all commands: JSON lines are the records as they are.
        for arguments in [&["--output", "json", "audit", "show", log][..], &["audit", "show", log, "--format", "json"]] {
            let shown = place.command(arguments);
            let first: Value = serde_json::from_str(shown.lines().next().expect("a line")).expect("a record");
            assert_eq!((&first["event"], &first["seq"]), (&json!("log.created"), &json!(0)));
        }
        let report = place.verify(&["--format", "json"]);
        let (code, report): (i32, Value) = (report.0, serde_json::from_str(&report.1).expect("a report"));
        assert_eq!((code, &report["verdict"]), (16, &json!("unpinned")), "a clean result that nothing pins is no ok");

        let receipt = format!("\"seq\":{}", reply["receipt"]["seq"]);
        let token = file(&place, "token", reply["token"].as_str().expect("a token"));
        let found = place.command(&["audit", "find", log, "--token", &token]);
        assert!(found.contains(&receipt) && found.contains("token:demo") && found.contains("issuers-sign"), "{found}");
        let found = place.command(&["audit", "find", log, "--jti", reply["jti"].as_str().expect("a jti")]);
        assert!(found.contains(&receipt), "{found}");
        // A jti may begin with a hyphen, as one in 64 does; it is no option.
        assert!(fails(&place, FOUND, &["audit", "find", log, "--jti", "-aGVsbG8"]).contains("no record"));
        place.check(daemon);
    });
}

#[test]
fn two_spellings_of_one_token_are_found_by_doctor_and_a_profile_is_shown() {
    on_softhsm("offline::two_spellings_of_one_token_are_found_by_doctor_and_a_profile_is_shown", |hsm| {
        let place = Place::new(hsm, one_keyring());
        place.edit_config(|text| {
            let module = text.lines().find(|line| line.starts_with("module = ")).expect("the keystore's module").to_owned();
            let pin = text.lines().find(|line| line.starts_with("pin_file = ")).expect("the keystore's PIN").to_owned();
            let token = "token = \"pkcs11:manufacturer=SoftHSM%20project\"\nprofile = \"opencryptoki-before-3.16\"\nomits = [\"derive\"]";
            format!("{text}\n[keystore.again]\ntype = \"pkcs11\"\n{module}\n{pin}\n{token}\n")
        });
        let shown = place.command(&["config", "check"]);
        assert!(shown.contains("manufacturer \"SoftHSM project\"") && shown.contains("copyable, derive"), "{shown}");
        assert_eq!(json(&place, &["config", "check"])["keystores"]["hsm"]["profile"], "strict");
        let found = doctor(&place);
        let wrong = found["findings"].as_array().into_iter().flatten().filter(|row| row["fine"] == false);
        let wrong: Vec<String> = wrong.map(|row| format!("{}: {}", row["what"], row["text"])).collect();
        assert!(wrong.len() == 1 && wrong[0].contains("both name one token") && wrong[0].contains("keystore again"), "{wrong:?}");
        assert!(found["findings"].to_string().contains("profile opencryptoki-before-3.16, copyable, derive may be missing"), "{found}");
        place.edit_config(|text| text[..text.find("\n[keystore.again]").expect("added above")].to_owned());
        place.check_stopped();
    });
}

#[test]
fn doctor_asks_a_running_daemon_and_looks_itself_without_one() {
    on_softhsm("offline::doctor_asks_a_running_daemon_and_looks_itself_without_one", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let daemon = place.start();
        let found = doctor(&place);
        let texts = |found: &Value| found["findings"].to_string();
        assert_eq!(found["wrong"], 0, "{found}");
        assert!(texts(&found).contains(&format!("process {} holds the state folder", daemon.pid())), "{found}");
        assert!(texts(&found).contains("answers; profile strict"), "{found}");
        assert!(["keystore hsm", "keyring access", "log keys", "policies"].iter().all(|what| texts(&found).contains(what)), "{found}");
        assert!(daemon.stop().success());

        let found = doctor(&place);
        assert_eq!(found["wrong"], 0, "{found}");
        assert!(texts(&found).contains("not running; keystores are opened here"), "{found}");
        assert!(texts(&found).contains("keys of this installation; profile strict"), "{found}");
        hsm.hide_tokens(true);
        let said = fails(&place, FOUND, &["doctor"]);
        assert!(said.contains("WRONG") && said.contains("no token has the label"), "{said}");
        hsm.hide_tokens(false);
        place.edit_config(|text| text.replace("token_ttl", "token_tll"));
        assert!(fails(&place, FOUND, &["doctor"]).contains("`token_ttl`"));
        place.edit_config(|text| text.replace("token_tll", "token_ttl"));
        fails(&place, UNAVAILABLE, &["policy", "reload"]);
        place.check_stopped();
    });
}
