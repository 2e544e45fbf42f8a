//! A keystore that hangs, is slow or is gone delays nobody who lives elsewhere, and no record, not even of its own keys.
//!
//! In scope: two keyrings in two keystores, one of them SoftHSM behind the fault-injecting module, and settings of seconds: during each
//! outage keys fall due to rotate, to leave the JWKS and to be destroyed in both. Out of scope: signatures of the keystore that is dead.

use std::time::Duration;

use serde_json::json;

use crate::harness::faults::{Faults, with_faults_beside};
use crate::harness::tokens::Tokens;
use crate::harness::{Daemon, Keyring, Place, Setup, remote, rest, until};
use crate::load::SECONDS;
use crate::{OTHER, becomes, in_state, records, signs_again, state, time};

/// The rest between two tokens.
const PACE: Duration = Duration::from_millis(30);
/// Far less than a keystore may take for one step, and far more than a record takes on a slow machine.
const ON_TIME: Duration = Duration::from_secs(20);

/// `left` in the keystore that will fail, `right` and the log keys in another one.
fn setup(other: &Tokens) -> Setup {
    other.token(OTHER);
    let setup = Setup::new().keystore(OTHER, &other.table(OTHER)).log_keystore(OTHER);
    setup.keyring(Keyring::jwt("left", "ES256").timing(SECONDS)).keyring(Keyring::jwt("right", "ES256").keystore(OTHER).timing(SECONDS))
}

/// Breaks the keystore of `left` when one of its keys has just stopped signing. Until that key has left the JWKS, and `right` has rotated,
/// every request of `right` is answered in time; then the keystore is mended, and what waited for it is done.
pub(crate) fn nobody_else_notices(place: &Place<'_>, daemon: &mut Daemon, what: &str, breaks: impl FnOnce(), mends: impl FnOnce()) {
    let retiring = || in_state(place, "left", "retiring").last().and_then(|key| Some(key["kid"].as_str()?.to_owned()));
    let old = until("a key that stopped signing", || retiring().ok_or_else(|| "none".to_owned()));
    breaks();
    let (mut client, mut looker) = (daemon.demo(), daemon.anonymous());
    let mut signs = || {
        let reply = client.sign("right").expect("an answer").ok();
        rest(PACE);
        reply["kid"].as_str().expect("a kid").to_owned()
    };
    let first = signs();
    until(what, || {
        let kid = signs();
        for path in ["/keyrings/left/jwks.json", "/keyrings/right/jwks.json", "/.well-known/jwks.json", "/livez", "/metrics"] {
            assert_eq!(looker.try_get(path)?.status, 200, "{what}: {path}");
        }
        let gone = state(place, &old);
        if kid != first && gone == "withdrawn" { Ok(()) } else { Err(format!("signed by {kid} after {first}, {old} is {gone}")) }
    });
    // It is to be destroyed a second later. That waits for its keystore, and for nothing else.
    for other in in_state(place, "right", "withdrawn") {
        becomes(place, other["kid"].as_str().expect("a kid"), "destroyed");
    }
    assert_eq!(state(place, &old), "withdrawn", "{what}");
    let due =
        records(place, "key.rotated").iter().find(|record| record["from"] == old.as_str()).map(|record| time(&record["withdraw_after"]));
    let gone = records(place, "key.withdrawn").iter().find(|record| record["kid"] == old.as_str()).map(|record| time(&record["time"]));
    let late = gone.expect("withdrawn").since(due.expect("it stopped signing"));
    assert!(late < ON_TIME, "{what}: withdrawn {late:?} after its date");
    mends();
    becomes(place, &old, "destroyed");
    signs_again(&mut daemon.demo(), "left");
}

#[test]
fn a_dead_keystore_delays_nobody() {
    with_faults_beside(&remote::MODULE, "dead::a_dead_keystore_delays_nobody", |hsm, faults, other| {
        let place = Place::new(hsm, setup(other));
        // Longer than any of this: a keystore that is given up would end the daemon.
        place.edit_config(|text| text.replace("workers = 2\n", "workers = 2\nhang_after = \"10m\"\n"));
        let mut daemon = place.start();
        let all = |command: &str, more: serde_json::Value| {
            let mut rule = json!({ "do": command, "function": "*" });
            rule.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
            rule
        };
        let breaks = |rule| {
            faults.rule(rule);
        };
        nobody_else_notices(&place, &mut daemon, "hung", || breaks(all("hang", json!({}))), || faults.reset());
        nobody_else_notices(&place, &mut daemon, "slow", || breaks(all("delay", json!({ "ms": 3_000 }))), || faults.reset());
        let tell = |faults: &Faults, what: &str| drop(faults.tell(json!({ "do": what })));
        nobody_else_notices(&place, &mut daemon, "gone", || tell(faults, "remove"), || tell(faults, "return"));
        let lost = records(&place, "keystore.lost");
        assert!(lost.iter().all(|record| record["keystore"] == "hsm") && !lost.is_empty(), "{lost:?}");
        place.check(daemon);
    });
}

/// Start, reload, doctor and stop ask each keystore by itself.
#[test]
fn a_daemon_starts_reloads_and_stops_beside_a_dead_keystore() {
    with_faults_beside(&remote::MODULE, "dead::a_daemon_starts_reloads_and_stops_beside_a_dead_keystore", |hsm, _, other| {
        other.token(OTHER);
        let setup = Setup::new().keystore(OTHER, &other.table(OTHER)).keyring(Keyring::jwt("left", "ES256"));
        let place = Place::new(hsm, setup.keyring(Keyring::jwt("right", "ES256").keystore(OTHER)));
        other.stop_server();
        let mut daemon = place.spawn();
        let mut client = daemon.anonymous();
        // The set of both begins without the keyring that cannot.
        for path in ["/readyz/sign?keyring=left", "/keyrings/left/jwks.json", "/.well-known/jwks.json", "/readyz"] {
            until(path, || match client.try_get(path)? {
                answer if answer.status == 200 => Ok(()),
                answer => Err(answer.text()),
            });
        }
        signs_again(&mut daemon.demo(), "left");
        assert_eq!(client.get("/readyz/sign").status, 503);
        let metrics = client.get("/metrics").text();
        for series in ["claviger_keystore_up{keystore=\"hsm\"} 1", "claviger_keystore_up{keystore=\"other\"} 0"] {
            assert!(metrics.contains(series), "{series} in {metrics}");
        }
        place.edit_config(|text| text.replace("[keyring.left]\n", "[keyring.left]\nstandby_keystore = \"other\"\n"));
        assert_eq!(crate::json(&place, &["policy", "reload"])["keyring_records"], 1);
        let found = |place: &Place<'_>| {
            let output = place.claviger(&["--output", "json", "doctor"]);
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let rows = document["findings"].as_array().expect("findings").clone();
            let of = |name: &str| rows.iter().find(|row| row["what"] == format!("keystore {name}").as_str()).map(|row| row["fine"].clone());
            (of("hsm"), of(OTHER))
        };
        let fine = |hsm, other| (Some(json!(hsm)), Some(json!(other)));
        assert_eq!(found(&place), fine(true, false), "asked of the daemon");
        place.remember_heads();
        assert!(daemon.stop().success(), "a dead keystore holds no stop");
        assert_eq!(found(&place), fine(true, false), "asked of the keystores");
        other.start_server();
        let mut daemon = place.start();
        signs_again(&mut daemon.demo(), "right");
        place.check(daemon);
    });
}
