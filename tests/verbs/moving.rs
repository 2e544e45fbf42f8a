//! A keyring moves to another algorithm, then to another keystore, by rotation, while it signs.
//!
//! In scope: what is served at every moment has the key of every token that is alive. Out of scope: verifiers' own caches
//! (`rotation_under_load.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use claviger_audit::names::KeyName;
use serde_json::json;

use crate::harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, rest, until};
use crate::{DATA, fails, held, held_in, in_state, json, kid, records, served};

const SECOND: &str = "second";
/// The rest between two tokens.
const PACE: Duration = Duration::from_millis(30);

/// Signs until told to stop; after each token the set must have the key of every token that is alive still. Gives how many tokens each key
/// signed.
fn sign_and_look(mut signer: Client, mut looker: Client, stop: &AtomicBool) -> BTreeMap<String, usize> {
    let clock = SystemClock::start();
    let (mut ends, mut signed): (BTreeMap<String, i64>, BTreeMap<String, usize>) = (BTreeMap::new(), BTreeMap::new());
    while !stop.load(Ordering::SeqCst) {
        let reply = signer.sign("access").expect("an answer").ok();
        let kid = reply["kid"].as_str().expect("a kid").to_owned();
        *signed.entry(kid.clone()).or_default() += 1;
        ends.insert(kid, reply["exp"].as_i64().expect("seconds"));
        let kids = served(&mut looker);
        // Read after the answer: what is alive now was alive when the set was served.
        let now = clock.wall().seconds();
        for (kid, end) in &ends {
            assert!(*end <= now || kids.contains(kid), "{kid} lives until {end}, and at {now} the set is {kids:?}");
        }
        rest(PACE);
    }
    signed
}

/// Waits until the only standby is one of these settings and old enough, rotates to it, and gives its kid.
fn rotate_to(place: &Place<'_>, algorithm: &str, keystore: &str) -> String {
    let fits = |key: &serde_json::Value| key["algorithm"] == algorithm && key["keystore"] == keystore;
    until("a standby of the new settings, alone", || match in_state(place, "access", "published").as_slice() {
        [key] if fits(key) => Ok(()),
        keys => Err(format!("{keys:?}")),
    });
    let next = kid(place, "access", "published");
    until("the rotation", || {
        let output = place.claviger(&["keyring", "rotate", "access"]);
        // Too early (I1) until every verifier can know it.
        if output.status.code() == Some(0) { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    next
}

/// Waits until a key that stopped signing has left the set.
fn withdrawn(place: &Place<'_>, kid: &str) {
    until("the withdrawal", || {
        let key = json(place, &["key", "show", kid]);
        if key["state"] == "withdrawn" { Ok(()) } else { Err(key.to_string()) }
    });
}

fn moves(place: &Place<'_>, daemon: &mut Daemon) -> [String; 3] {
    let first = kid(place, "access", "active");
    let fallback = kid(place, "access", "published");
    place.edit_config(|text| text.replace("algorithm = \"ES256\"", "algorithm = \"RS256\""));
    assert_eq!(json(place, &["policy", "reload"])["keyring_records"], 1);
    let second = rotate_to(place, "RS256", "hsm");
    assert!(daemon.demo().sign("access").is_ok_and(|answer| answer.ok()["alg"] == "RS256"));
    // The standby of the old settings stayed until the new one could take over, and then was abandoned.
    assert!(["abandoned", "destroyed"].contains(&json(place, &["key", "show", &fallback])["state"].as_str().expect("a state")));
    withdrawn(place, &first);

    place.edit_config(|text| {
        let (before, own) = text.split_once("[keyring.access]").expect("our own file");
        format!("{before}[keyring.access]{}", own.replace("keystore = \"hsm\"", &format!("keystore = \"{SECOND}\"")))
    });
    json(place, &["policy", "reload"]);
    let third = rotate_to(place, "RS256", SECOND);
    withdrawn(place, &second);
    [first, second, third]
}

#[test]
fn a_keyring_moves_to_another_algorithm_and_keystore_and_no_token_is_lost() {
    on_softhsm("moving::a_keyring_moves_to_another_algorithm_and_keystore_and_no_token_is_lost", |hsm| {
        hsm.token(SECOND);
        let setup = Setup::new().keyring(Keyring::jwt("access", "ES256").set("token_ttl", "2s")).keystore(SECOND, &hsm.table(SECOND));
        let place = Place::new(hsm, setup);
        let mut daemon = place.start();
        let stop = AtomicBool::new(false);
        let (keys, signed) = thread::scope(|scope| {
            let (signer, looker, stop) = (daemon.demo(), daemon.anonymous(), &stop);
            let load = scope.spawn(move || sign_and_look(signer, looker, stop));
            // Whatever fails here, the load must end, or nobody hears of it.
            let keys = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| moves(&place, &mut daemon)));
            stop.store(true, Ordering::SeqCst);
            let signed = load.join().expect("every look was fine");
            (keys.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), signed)
        });
        assert!(keys.iter().all(|kid| signed.get(kid).is_some_and(|count| *count > 0)) && signed.len() == 3, "{keys:?}: {signed:?}");
        let changed: Vec<_> = records(&place, "keyring.changed").iter().map(|r| (r["algorithm"].clone(), r["keystore"].clone())).collect();
        assert_eq!(changed, [(json!("RS256"), json!("hsm")), (json!("RS256"), json!(SECOND))]);
        let name = json(&place, &["key", "show", &keys[2]])["name"].as_str().expect("a name").parse::<KeyName>().expect("a key's name");
        assert!(held_in(hsm, SECOND).contains(&name) && !held(hsm).contains(&name), "it lives in the second token alone");
        place.check(daemon);
    });
}

#[test]
fn a_keystore_that_is_not_open_is_refused_by_a_reload_and_opened_by_a_restart() {
    on_softhsm("moving::a_keystore_that_is_not_open_is_refused_by_a_reload_and_opened_by_a_restart", |hsm| {
        hsm.token(SECOND);
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let daemon = place.start();
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        place.edit_config(|text| {
            let (before, own) = text.split_once("[keyring.access]").expect("our own file");
            let own = own.replace("keystore = \"hsm\"", &format!("keystore = \"{SECOND}\""));
            format!("{before}[keyring.access]{own}\n[keystore.{SECOND}]\n{}", hsm.table(SECOND))
        });
        let said = fails(&place, DATA, &["policy", "reload"]);
        assert!(said.contains("nothing was reloaded") && said.contains("opened at a restart only"), "{said}");
        assert!(records(&place, "keyring.changed").is_empty());
        assert!(daemon.stop().success());
        let daemon = place.start();
        until("a standby in the second keystore", || {
            let keys = in_state(&place, "access", "published");
            if keys.iter().any(|key| key["keystore"] == SECOND) { Ok(()) } else { Err(format!("{keys:?}")) }
        });
        assert!(in_state(&place, "access", "active").iter().all(|key| key["kid"] == active.as_str()));
        until("the end of the old standby", || {
            let key = json(&place, &["key", "show", &standby]);
            if key["state"] == "destroyed" { Ok(()) } else { Err(key.to_string()) }
        });
        place.check(daemon);
    });
}
