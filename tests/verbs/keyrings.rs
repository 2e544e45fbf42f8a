//! `claviger keyring`: list, show, plan, rotate, retire, import-jwks.

use std::fs;
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use claviger_audit::Timestamp;
use claviger_audit::names::KeyName;
use serde_json::{Value, json};

use crate::harness::{Keyring, Place, Setup, on_softhsm, until};
use crate::{DATA, DENIED, LATER, NOT_FOUND, USAGE, eligible_standby, fails, held, in_state, json, kid, records, served};

#[test]
fn keyrings_are_listed_shown_and_planned() {
    on_softhsm("keyrings::keyrings_are_listed_shown_and_planned", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(Keyring::jws("hooks", "EdDSA")));
        let daemon = place.start();
        let listed = json(&place, &["keyring", "list"]);
        let names: Vec<&str> = listed["keyrings"].as_array().expect("a list").iter().filter_map(|row| row["keyring"].as_str()).collect();
        assert_eq!(names, ["access", "hooks"]);
        let table = place.command(&["keyring", "list"]);
        assert!(["active key", "next rotation", "access", "hooks"].iter().all(|part| table.contains(part)), "{table}");

        let shown = json(&place, &["keyring", "show", "access"]);
        assert_eq!((&shown["purpose"], &shown["typ"], &shown["algorithm"]), (&json!("jwt"), &json!("access+jwt"), &json!("ES256")));
        assert_eq!(shown["sets"], json!(["issuer/main", "keyring/access"]));
        assert_eq!((&shown["timing"]["lead_ms"], &shown["timing"]["overlap_ms"]), (&json!(3000), &json!(14000)));
        assert_eq!(json(&place, &["keyring", "show", "hooks"])["sets"], json!(["keyring/hooks"]), "never in an issuer's set");
        let table = place.command(&["keyring", "show", "access"]);
        assert!(table.contains("lead (D + e)") && table.contains("overlap (Q + T + 2e)") && table.contains("14s"), "{table}");

        let active = kid(&place, "access", "active");
        let entries = json(&place, &["keyring", "plan", "access"])["entries"].as_array().cloned().expect("entries");
        let ahead: Vec<&Value> = entries.iter().filter(|entry| entry["done"] == false).collect();
        let withdrawn = ahead.iter().find(|entry| entry["state"] == "withdrawn" && entry["key"] == active).expect("the plan goes on");
        assert_eq!(withdrawn["rule"], "I3");
        let drawn = place.command(&["keyring", "plan", "access"]);
        assert!(drawn.contains('●') && drawn.contains('○') && drawn.contains("set by I3"), "{drawn}");

        for verb in ["show", "plan", "rotate"] {
            assert!(fails(&place, NOT_FOUND, &["keyring", verb, "acces"]).contains("no keyring is called \"acces\""));
        }
        place.check(daemon);
    });
}

#[test]
fn rotating_too_early_names_the_invariant_and_the_time() {
    on_softhsm("keyrings::rotating_too_early_names_the_invariant_and_the_time", |hsm| {
        // Verifiers that look once in ten minutes: no test waits until they have seen a standby.
        let slow = Keyring::jwt("access", "ES256").set("verifier_poll", "10m").set("max_exposure", "1h").set("rotate_every", "2h");
        let place = Place::new(hsm, Setup::new().keyring(slow));
        let daemon = place.start();
        let (old, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        let date = until("a date for the standby", || {
            let key = json(&place, &["key", "show", &standby]);
            key["eligible_at"].as_str().map(str::to_owned).ok_or_else(|| key.to_string())
        });
        let said = fails(&place, LATER, &["keyring", "rotate", "access"]);
        assert!(said.contains("I1") && said.contains(&format!("It will be allowed at {date}.")), "{said}");
        assert!(said.contains("(request "), "{said}");
        assert_eq!(kid(&place, "access", "active"), old, "nothing changed");

        // By force it goes, with a reason that the log keeps.
        fails(&place, USAGE, &["keyring", "rotate", "access", "--force"]);
        let done = json(&place, &["keyring", "rotate", "access", "--force", "--reason", "rehearsal"]);
        assert_eq!((&done["events"][0]["from"], &done["events"][0]["to"]), (&json!(old), &json!(standby)));
        assert_eq!(kid(&place, "access", "active"), standby);
        let rotated = records(&place, "key.rotated");
        let last = rotated.last().expect("a record");
        assert_eq!((&last["forced"], &last["note"]), (&json!(true), &json!("rehearsal")));
        place.check(daemon);
    });
}

#[test]
fn a_rotated_key_is_kept_then_withdrawn() {
    on_softhsm("keyrings::a_rotated_key_is_kept_then_withdrawn", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256").set("token_ttl", "2s")));
        let mut daemon = place.start();
        let (mut client, mut demo) = (daemon.anonymous(), daemon.demo());
        let old = kid(&place, "access", "active");
        let new = eligible_standby(&place, "access");
        let said = fails(&place, LATER, &["key", "destroy", &old, "--yes"]);
        assert!(said.contains("I11") && said.contains("the key is active"), "{said}");
        place.command(&["keyring", "rotate", "access"]);
        assert_eq!(demo.sign("access").expect("an answer").ok()["kid"], new.as_str(), "the new key signs at once");
        assert!(served(&mut client).contains(&old), "the old one is kept");

        // Withdrawn only when its last token is dead (I3), and destroyed only after that (I11).
        let key = json(&place, &["key", "show", &old]);
        let date = key["withdraw_after"].as_str().expect("a date");
        let said = fails(&place, LATER, &["key", "destroy", &old, "--yes"]);
        assert!(said.contains("I3") && said.contains(date), "{date}: {said}");
        until("the withdrawal", || {
            let kids = served(&mut client);
            if kids.contains(&old) { Err(format!("{kids:?}")) } else { Ok(()) }
        });
        until("the record", || if in_state(&place, "access", "withdrawn").len() == 1 { Ok(()) } else { Err("not yet".to_owned()) });
        let said = fails(&place, DATA, &["key", "destroy", &old]);
        assert!(said.contains("final") && said.contains("--yes"), "nobody can answer here: {said}");
        let key = json(&place, &["key", "show", &old]);
        let date = key["destroy_after"].as_str().expect("a date");
        let said = fails(&place, LATER, &["key", "destroy", &old, "--yes"]);
        assert!(said.contains("I11") && said.contains(date), "{date}: {said}");
        place.check(daemon);
    });
}

#[test]
fn a_withdrawn_key_is_destroyed_by_hand_once_its_grace_is_over() {
    on_softhsm("keyrings::a_withdrawn_key_is_destroyed_by_hand_once_its_grace_is_over", |hsm| {
        // After a start, what fell due meanwhile waits for D + e (I12), so that the operator comes before the loop does.
        let slow = Keyring::jwt("access", "ES256").set("verifier_poll", "60s").set("max_exposure", "2m");
        let place = Place::new(hsm, Setup::new().keyring(slow.set("token_ttl", "2s").set("destroy_after", "5s")));
        let daemon = place.start();
        let old = kid(&place, "access", "active");
        kid(&place, "access", "published");
        place.command(&["keyring", "rotate", "access", "--force", "--reason", "rehearsal"]);
        assert_eq!(kid(&place, "access", "withdrawn"), old);
        let key = json(&place, &["key", "show", &old]);
        let name: KeyName = key["name"].as_str().expect("a name").parse().expect("a key's name");
        let date: Timestamp = key["destroy_after"].as_str().expect("a date").parse().expect("a time");
        assert!(daemon.stop().success());
        let clock = SystemClock::start();
        until("the end of the grace", || if clock.wall() > date { Ok(()) } else { Err(date.to_string()) });
        let daemon = place.start();
        let done = json(&place, &["key", "destroy", &old, "--yes"]);
        assert_eq!(done["events"][0]["event"], "key.destroyed", "{done}");
        assert_eq!(json(&place, &["key", "show", &old])["state"], "destroyed");
        assert!(!held(hsm).contains(&name), "it is gone from the token");
        place.check(daemon);
    });
}

#[test]
fn a_retired_keyring_signs_no_more_and_its_name_is_never_used_again() {
    on_softhsm("keyrings::a_retired_keyring_signs_no_more_and_its_name_is_never_used_again", |hsm| {
        let short = Keyring::jwt("other", "ES256").set("token_ttl", "2s");
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(short));
        let mut daemon = place.start();
        let (last, standby) = (kid(&place, "other", "active"), kid(&place, "other", "published"));
        assert!(fails(&place, DATA, &["keyring", "retire", "other", "--reason", "over"]).contains("--yes"));
        fails(&place, USAGE, &["keyring", "retire", "other", "--yes"]);
        let done = json(&place, &["keyring", "retire", "other", "--reason", "over", "--yes"]);
        assert_eq!(done["events"][0]["event"], "keyring.retired", "{done}");
        let mut demo = daemon.demo();
        let answer = demo.sign("other").expect("an answer");
        assert_eq!(answer.problem(503), "no_signer");
        assert!(answer.text().contains("retired"), "{}", answer.text());
        assert_eq!(demo.sign("access").expect("an answer").status, 200);
        assert!(served(&mut daemon.anonymous()).contains(&last), "its last tokens are still good");
        assert!(place.command(&["keyring", "list"]).contains("retired"));
        fails(&place, LATER, &["keyring", "retire", "other", "--reason", "again", "--yes"]);
        fails(&place, LATER, &["keyring", "rotate", "other", "--force", "--reason", "again"]);

        // The file still has it. A reload says what to do; a start must not wait for that, or all other keyrings would.
        assert!(fails(&place, DATA, &["policy", "reload"]).contains("remove it from the file"));
        assert!(daemon.stop().success());
        let mut daemon = place.start();
        assert!(daemon.stderr().contains("is retired"), "{}", daemon.stderr());
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        assert_eq!(daemon.demo().sign("other").expect("an answer").problem(503), "no_signer");
        place.edit_config(|text| text.split("[keyring.other]").next().unwrap_or_default().to_owned());
        assert_eq!(json(&place, &["policy", "reload"])["not_in_the_file"], json!([]), "nobody misses it");
        // Its standby goes at once, its last key when its last token is dead, and no key follows.
        until("the end of its keys", || {
            let kids = served(&mut daemon.anonymous());
            if kids.contains(&last) || kids.contains(&standby) { Err(format!("{kids:?}")) } else { Ok(()) }
        });
        assert!(in_state(&place, "other", "published").is_empty() && in_state(&place, "other", "active").is_empty());
        place.check(daemon);
    });
}

#[test]
fn imported_keys_are_served_until_their_date() {
    on_softhsm("keyrings::imported_keys_are_served_until_their_date", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(Keyring::jwt("other", "ES256")));
        let mut daemon = place.start();
        let mut client = daemon.anonymous();
        // RFC 7517 appendix A.1: a P-256 key of somebody else.
        let foreign = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "old-issuer-1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" });
        let file = place.root().join("old.json");
        let path = file.to_str().expect("a plain path");
        let write = |keys: Value| fs::write(&file, json!({ "keys": keys }).to_string()).expect("a new file");
        let now: Timestamp = json(&place, &["keyring", "plan", "access"])["now"].as_str().expect("a time").parse().expect("a time");
        let date = (now + Duration::from_secs(5)).to_string();
        let import = ["keyring", "import-jwks", "access", path, "--reason", "move", "--until"];
        let with = |date| [&import[..], &[date]].concat();

        let mut private = foreign.clone();
        private["d"] = json!("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
        write(json!([private]));
        assert!(fails(&place, DATA, &with(&date)).contains("exactly the public members"));
        write(json!([foreign]));
        assert!(fails(&place, DATA, &with("tomorrow")).contains("UTC time"));
        fails(&place, LATER, &with("2001-01-01T00:00:00.000Z"));
        fails(&place, NOT_FOUND, &["keyring", "import-jwks", "access", "/no/such/file", "--reason", "x", "--until", &date]);
        assert!(!served(&mut client).contains(&"old-issuer-1".to_owned()), "nothing was imported yet");

        let done = json(&place, &with(&date));
        assert_eq!(done["events"][0]["event"], "key.imported", "{done}");
        assert!(served(&mut client).contains(&"old-issuer-1".to_owned()), "served before the verb returns");
        fails(&place, LATER, &with(&date));
        until("its end", || {
            let kids = served(&mut client);
            if kids.contains(&"old-issuer-1".to_owned()) { Err(format!("{kids:?}")) } else { Ok(()) }
        });
        place.check(daemon);
    });
}

#[test]
fn what_no_policy_permits_is_denied_and_recorded() {
    on_softhsm("keyrings::what_no_policy_permits_is_denied_and_recorded", |hsm| {
        let only_sign = r#"@id("sign") permit (principal, action in [Action::"sign", Action::"signBatch"], resource)
            when { principal.groups.contains("issuers") };"#;
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")).policies(only_sign));
        let mut daemon = place.start();
        let active = daemon.demo().sign("access").expect("an answer").ok()["kid"].as_str().expect("a kid").to_owned();
        let denied: [&[&str]; 7] = [
            &["keyring", "rotate", "access"],
            &["keyring", "show", "access"],
            &["keyring", "retire", "access", "--reason", "x", "--yes"],
            &["key", "destroy", &active, "--yes"],
            &["key", "explain", &active],
            &["policy", "reload"],
            &["clock", "confirm", "--reason", "x"],
        ];
        for arguments in denied {
            assert!(fails(&place, DENIED, arguments).contains("no policy permits this"), "{arguments:?}");
        }
        // What exists and what does not is not told either.
        fails(&place, DENIED, &["keyring", "show", "acces"]);
        fails(&place, DENIED, &["key", "show", "nope"]);
        let denials = records(&place, "admin.denied");
        let verbs: Vec<&str> = denials.iter().filter_map(|record| record["verb"].as_str()).collect();
        assert_eq!(verbs, ["rotate", "readKeyring", "retire", "destroy", "readKeyring", "reloadPolicy", "confirmClock"]);
        assert!(denials.iter().all(|record| record["caller"].as_str().is_some_and(|caller| caller.starts_with("unix:uid="))));

        // A broken policy must not protect a stolen key: the daemon's own user may suspend and compromise, and nothing else.
        place.command(&["key", "suspend", &active, "--reason", "doubt"]);
        assert_eq!(daemon.demo().sign("access").expect("an answer").problem(503), "suspended");
        fails(&place, DENIED, &["key", "resume", &active, "--reason", "fine"]);
        place.command(&["key", "compromise", &active, "--reason", "stolen", "--yes"]);
        assert!(!served(&mut daemon.anonymous()).contains(&active));
        place.check(daemon);
    });
}
