//! `claviger key`: list, show, explain, suspend, resume, compromise, abandon.

use claviger_audit::Timestamp;
use claviger_audit::names::KeyName;
use serde_json::{Value, json};

use crate::harness::{Keyring, Place, Setup, on_softhsm, until};
use crate::{DATA, LATER, NOT_FOUND, UNAVAILABLE, eligible_standby, fails, held, in_state, json, kid, records, served};

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// The name under which a key lives in its keystore.
fn name(place: &Place<'_>, kid: &str) -> KeyName {
    json(place, &["key", "show", kid])["name"].as_str().expect("a name").parse().expect("a key's name")
}

/// Waits until the token holds a key no more, and the log says so.
fn gone(place: &Place<'_>, hsm: &crate::harness::SoftHsm, kid: &str) {
    let name = name(place, kid);
    until("the record of its end", || {
        let key = json(place, &["key", "show", kid]);
        if key["state"] == "destroyed" { Ok(()) } else { Err(key.to_string()) }
    });
    let held = held(hsm);
    assert!(!held.contains(&name), "{name} in {held:?}");
}

#[test]
fn keys_are_listed_shown_and_explained() {
    on_softhsm("keys::keys_are_listed_shown_and_explained", |hsm| {
        let place = Place::new(hsm, one_keyring().keyring(Keyring::jws("hooks", "EdDSA")));
        let daemon = place.start();
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        kid(&place, "hooks", "published");
        assert_eq!(json(&place, &["key", "list"])["keys"].as_array().map(Vec::len), Some(4));
        let listed = json(&place, &["key", "list", "--keyring", "access"])["keys"].as_array().cloned().expect("keys");
        assert_eq!(listed.iter().map(|key| &key["kid"]).collect::<Vec<_>>(), [&json!(active), &json!(standby)]);
        let table = place.command(&["key", "list"]);
        assert!(["keyring", "kid", "state", &active, &standby, "published"].iter().all(|part| table.contains(part)), "{table}");

        // A key is known by its kid and by its name, and no private member is ever shown.
        let shown = json(&place, &["key", "show", &active]);
        assert_eq!(json(&place, &["key", "show", shown["name"].as_str().expect("a name")]), shown);
        let members: Vec<&String> = shown["jwk"].as_object().expect("a JWK").keys().collect();
        assert_eq!(members, ["kty", "crv", "x", "y"]);
        let story = json(&place, &["key", "explain", &active]);
        let states = |done: bool| -> Vec<String> {
            let entries = story["story"].as_array().expect("entries").iter().filter(|entry| entry["done"] == done);
            entries.map(|entry| entry["state"].as_str().expect("a state").to_owned()).collect()
        };
        assert_eq!(states(true), ["requested", "created", "published", "active"]);
        assert!(states(false).starts_with(&["retiring".to_owned(), "withdrawn".to_owned()]), "{story}");
        let told = place.command(&["key", "explain", &active]);
        assert!(told.contains("is active in keyring access") && told.contains("takes over"), "{told}");

        // A kid may begin with a hyphen, as one in 64 does; it is no option.
        for unknown in ["nope", "-Bk2xY5nKqT8pYwHc0Z4mQ", "--xk2xY5nKqT8pYwHc0Z4mQ", "-h0k2xY5nKqT8pYwHc0Z4mQ"] {
            for verb in ["show", "explain"] {
                assert!(fails(&place, NOT_FOUND, &["key", verb, unknown]).contains("no key has the kid or name"));
            }
            for verb in ["suspend", "resume", "abandon"] {
                fails(&place, NOT_FOUND, &["key", verb, unknown, "--reason", "x"]);
            }
            fails(&place, NOT_FOUND, &["key", "compromise", unknown, "--reason", "x", "--yes"]);
            fails(&place, NOT_FOUND, &["key", "destroy", "--yes", unknown]);
        }
        place.check(daemon);
    });
}

#[test]
fn a_suspended_key_does_not_sign_until_it_is_resumed() {
    on_softhsm("keys::a_suspended_key_does_not_sign_until_it_is_resumed", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let (mut demo, mut client) = (daemon.demo(), daemon.anonymous());
        let active = kid(&place, "access", "active");
        let done = json(&place, &["key", "suspend", &active, "--reason", "doubt"]);
        assert_eq!((&done["events"][0]["event"], &done["events"][0]["reason"]), (&json!("key.suspended"), &json!("doubt")));
        assert_eq!(demo.sign("access").expect("an answer").problem(503), "suspended");
        assert!(served(&mut client).contains(&active), "verifiers go on with what it signed");
        assert_eq!(client.get("/readyz").status, 200);
        let row = client.get("/readyz/sign").json()["keyrings"][0].clone();
        assert_eq!((&row["ready"], &row["code"]), (&json!(false), &json!("suspended")));
        assert!(fails(&place, LATER, &["key", "suspend", &active, "--reason", "again"]).contains("suspended"));

        place.command(&["key", "resume", &active, "--reason", "it was nothing"]);
        assert_eq!(demo.sign("access").expect("an answer").ok()["kid"], active.as_str());
        assert!(fails(&place, LATER, &["key", "resume", &active, "--reason", "again"]).contains("not suspended"));
        let standby = kid(&place, "access", "published");
        assert!(fails(&place, LATER, &["key", "suspend", &standby, "--reason", "x"]).contains("not active"));
        place.check(daemon);
    });
}

#[test]
fn a_compromised_key_is_gone_before_the_verb_returns_and_the_standby_signs() {
    on_softhsm("keys::a_compromised_key_is_gone_before_the_verb_returns_and_the_standby_signs", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256").set("token_ttl", "10m")));
        let mut daemon = place.start();
        let (mut demo, mut client) = (daemon.demo(), daemon.anonymous());
        let (active, standby) = (kid(&place, "access", "active"), eligible_standby(&place, "access"));
        assert!(fails(&place, DATA, &["key", "compromise", &active, "--reason", "stolen"]).contains("--yes"));
        let future = "2999-01-01T00:00:00.000Z";
        let said = fails(&place, DATA, &["key", "compromise", &active, "--since", future, "--reason", "x", "--yes"]);
        assert!(said.contains("future"), "{said}");
        assert!(served(&mut client).contains(&active), "nothing happened yet");
        let mut socket = place.sign_socket();
        let signed = [demo.sign("access"), socket.sign("access"), demo.sign("access"), demo.sign("access")];
        let ends = signed.map(|answer| answer.expect("an answer").ok()["exp"].as_i64().expect("seconds"));
        let until = Timestamp::from_seconds(ends.into_iter().max().expect("four")).to_string();

        let done = json(&place, &["key", "compromise", &active, "--reason", "stolen", "--yes"]);
        assert_eq!((&done["events"][0]["kid"], &done["events"][0]["to"]), (&json!(active), &json!(standby)));
        let uid = format!("unix:uid={}", rustix::process::geteuid().as_raw());
        let callers = json!([{ "caller": "token:demo", "count": 3 }, { "caller": uid, "count": 1 }]);
        assert_eq!(done["live_tokens"], json!({ "count": 4, "until": until, "callers": callers, "complete": true }));
        assert!(!served(&mut client).contains(&active), "out of the set before the verb returns");
        assert_eq!(demo.sign("access").expect("an answer").ok()["kid"], standby.as_str(), "and no gap");
        gone(&place, hsm, &active);
        fails(&place, LATER, &["key", "compromise", &active, "--reason", "again", "--yes"]);
        assert_eq!(json(&place, &["key", "show", &active])["compromised_since"].as_str().map(str::len), Some(24), "its mark stays");
        // The standby signed one token, and people are told as programs are.
        let told = place.command(&["key", "compromise", &standby, "--reason", "stolen too", "--yes"]);
        assert!(told.contains("can still be alive: 1, the last until ") && told.contains("1  token:demo"), "{told}");
        place.check(daemon);
    });
}

#[test]
fn without_an_old_enough_standby_nobody_signs_and_verifiers_come_back_soon() {
    on_softhsm("keys::without_an_old_enough_standby_nobody_signs_and_verifiers_come_back_soon", |hsm| {
        let slow = Keyring::jwt("access", "ES256").set("jwks_max_age", "5m").set("max_exposure", "1h").set("rotate_every", "2h");
        let place = Place::new(hsm, Setup::new().keyring(slow));
        let mut daemon = place.start();
        let (mut demo, mut client) = (daemon.demo(), daemon.anonymous());
        let mut max_age = || -> u64 {
            let cache = client.get("/.well-known/jwks.json").header("cache-control").to_owned();
            let age = cache.strip_prefix("public, max-age=").and_then(|rest| rest.split(',').next());
            age.and_then(|age| age.parse().ok()).unwrap_or_else(|| panic!("{cache}"))
        };
        // A, jittered downward by up to a tenth (I4).
        assert!((270..=300).contains(&max_age()));
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        let told = place.command(&["key", "compromise", &active, "--reason", "stolen", "--yes"]);
        assert!(told.contains("Nobody signs for this keyring"), "{told}");
        assert!((1..=30).contains(&max_age()), "while a key is compromised, verifiers are asked to come back soon (I4)");
        assert_eq!(served(&mut daemon.anonymous()), std::slice::from_ref(&standby));
        let answer = demo.sign("access").expect("an answer");
        assert_eq!(answer.problem(503), "no_signer");
        let date = json(&place, &["key", "show", &standby])["eligible_at"].as_str().expect("a date").to_owned();
        assert!(answer.text().contains(&date) && answer.header("retry-after").parse::<u64>().is_ok(), "{date}: {}", answer.text());
        let row = daemon.anonymous().get("/readyz/sign").json()["keyrings"][0].clone();
        assert!(row["code"] == "no_signer" && row["detail"].as_str().is_some_and(|detail| detail.contains(&date)), "{row}");
        // An operator may decide that an outage is worse.
        place.command(&["keyring", "rotate", "access", "--force", "--reason", "no time to wait"]);
        assert_eq!(demo.sign("access").expect("an answer").ok()["kid"], standby.as_str());
        place.check(daemon);
    });
}

#[test]
fn a_standby_is_abandoned_and_another_follows() {
    on_softhsm("keys::a_standby_is_abandoned_and_another_follows", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        assert!(fails(&place, LATER, &["key", "abandon", &active, "--reason", "x"]).contains("never signed"));
        place.command(&["key", "abandon", &standby, "--reason", "made on the wrong token"]);
        assert!(!served(&mut daemon.anonymous()).contains(&standby));
        let abandoned = records(&place, "key.abandoned");
        assert_eq!(abandoned.iter().map(|record| &record["reason"]).collect::<Vec<_>>(), ["made on the wrong token"]);
        gone(&place, hsm, &standby);
        assert_ne!(kid(&place, "access", "published"), standby);
        place.check(daemon);
    });
}

#[test]
fn a_key_that_cannot_be_destroyed_now_is_destroyed_when_its_token_is_back() {
    on_softhsm("keys::a_key_that_cannot_be_destroyed_now_is_destroyed_when_its_token_is_back", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let (active, standby) = (kid(&place, "access", "active"), eligible_standby(&place, "access"));
        hsm.hide_tokens(true);
        // The module notices a lost token when it is used.
        until("the loss", || match daemon.demo().sign("access")?.status {
            200 => Err("it was signed".to_owned()),
            _ => Ok(()),
        });
        // The record is what counts: out of the set and never used again, whatever the keystore does.
        let done = json(&place, &["key", "compromise", &active, "--reason", "stolen", "--yes"]);
        assert_eq!(done["events"][0]["to"], standby.as_str());
        assert!(!served(&mut daemon.anonymous()).contains(&active));
        let said = fails(&place, UNAVAILABLE, &["key", "destroy", &active, "--yes"]);
        assert!(said.contains("keystore"), "{said}");
        let waits = json(&place, &["key", "explain", &active])["next"].clone();
        assert!(waits["blocked_by"].as_str().is_some_and(|why| why.contains("hsm")), "{waits}");
        assert_eq!(in_state(&place, "access", "compromised").len(), 1);
        hsm.hide_tokens(false);
        gone(&place, hsm, &active);
        daemon.ready();
        let signed = until("a signature", || {
            let answer = daemon.demo().sign("access")?;
            if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
        });
        assert_eq!(signed["kid"], Value::from(standby));
        place.check(daemon);
    });
}
