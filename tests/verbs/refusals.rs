//! What every verb refuses to do, as the admin API says it: a 409 problem document with the invariant, and the time from which on time alone
//! would allow it.
//!
//! In scope: each verb in each state of a key that forbids it. Out of scope: malformed requests, and what a stepped clock forbids (`clock`).

use claviger_audit::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Client, Keyring, Place, Setup, on_softhsm, until};
use crate::{in_state, json, kid, served};

/// A date that lies far ahead.
const LATER: &str = "2100-01-01T00:00:00.000Z";

/// The invariant and the date of a refusal.
fn refused(admin: &mut Client, path: &str, body: &Value) -> (String, Option<Timestamp>) {
    let answer = admin.post(path, body);
    assert_eq!(answer.problem(409), "not_now", "{path}");
    let problem = answer.json();
    let invariant = problem["invariant"].as_str().unwrap_or_else(|| panic!("{path}: {problem}")).to_owned();
    let detail = problem["detail"].as_str().expect("a sentence");
    assert!(detail.contains(&format!("({invariant})")), "{path}: {problem}");
    (invariant, problem.get("until").map(|date| date.as_str().expect("a date").parse().expect("a time")))
}

fn reason() -> Value {
    json!({ "reason": "rehearsal" })
}

/// A date of a key.
fn date(place: &Place<'_>, kid: &str, name: &str) -> Option<Timestamp> {
    json(place, &["key", "show", kid])[name].as_str().map(|date| date.parse().expect("a time"))
}

/// Rotates by force, once there is a standby, and gives the kid that stopped signing.
fn force(place: &Place<'_>, admin: &mut Client) -> String {
    let old = kid(place, "access", "active");
    kid(place, "access", "published");
    assert_eq!(admin.post("/admin/keyrings/access/rotate", &json!({ "force": true, "reason": "rehearsal" })).status, 200);
    old
}

#[test]
fn every_refusal_names_its_invariant_and_its_date() {
    on_softhsm("refusals::every_refusal_names_its_invariant_and_its_date", |hsm| {
        // No verifier looks soon, and nothing is withdrawn or destroyed while the test lasts.
        let slow = |name: &str| Keyring::jwt(name, "ES256").set("verifier_poll", "10m").set("max_exposure", "1h").set("token_ttl", "10m");
        let place = Place::new(hsm, Setup::new().keyring(slow("access")).keyring(slow("other")));
        let daemon = place.start();
        let mut admin = place.admin_socket();
        let mut no = |path: String, body: Value| refused(&mut admin, &path, &body);
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        let eligible = until("a date for the standby", || date(&place, &standby, "eligible_at").ok_or_else(String::new));
        assert_eq!(no("/admin/keyrings/access/rotate".into(), json!({})), ("I1".into(), Some(eligible)));

        let key = |kid: &str, verb: &str| format!("/admin/keys/{kid}/{verb}");
        let i11 = || ("I11".to_owned(), None);
        for (kid, verbs) in [(&active, &["resume", "abandon"][..]), (&standby, &["suspend", "resume"])] {
            for verb in verbs {
                assert_eq!(no(key(kid, verb), reason()), i11(), "{verb}");
            }
            assert_eq!(no(key(kid, "destroy"), json!({})), i11());
        }
        // An empty reason is none.
        for verb in ["suspend", "compromise"] {
            assert_eq!(no(key(&active, verb), json!({ "reason": " " })), ("form".into(), None), "{verb}");
        }

        let mut operator = place.admin_socket();
        let old = force(&place, &mut operator);
        assert_eq!(old, active);
        let gone = date(&place, &old, "withdraw_after").expect("a date");
        let (rule, end) = no(key(&old, "destroy"), json!({}));
        assert!(rule == "I3" && end.is_some_and(|end| end > gone), "{gone}: {end:?}");
        for verb in ["suspend", "resume", "abandon"] {
            assert_eq!(no(key(&old, verb), reason()), i11(), "{verb} of a key that stopped signing");
        }

        assert_eq!(operator.post(&key(&standby, "suspend"), &reason()).status, 200);
        for verb in ["suspend", "abandon"] {
            assert_eq!(no(key(&standby, verb), reason()), i11(), "{verb} of a suspended key");
        }
        assert_eq!(no(key(&standby, "destroy"), json!({})), i11());
        assert_eq!(operator.post(&key(&standby, "compromise"), &reason()).status, 200);
        for verb in ["suspend", "resume", "abandon", "compromise"] {
            assert_eq!(no(key(&standby, verb), reason()), i11(), "{verb} of a compromised key");
        }

        assert_eq!(operator.post("/admin/keyrings/other/retire", &reason()).status, 200);
        for (verb, body) in [("rotate", json!({ "force": true, "reason": "x" })), ("retire", reason())] {
            assert_eq!(no(format!("/admin/keyrings/other/{verb}"), body), ("form".into(), None), "{verb} of a retired keyring");
        }
        place.check(daemon);
    });
}

/// RFC 7517 appendix A.1: a P-256 key of somebody else, under many names.
fn foreign(count: usize) -> Value {
    let key = |number: usize| {
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": format!("old-{number}"),
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" })
    };
    json!({ "keys": (0..count).map(key).collect::<Vec<_>>() })
}

#[test]
fn a_set_that_is_full_takes_no_key_and_no_rotation_until_one_has_left() {
    on_softhsm("refusals::a_set_that_is_full_takes_no_key_and_no_rotation_until_one_has_left", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256").set("token_ttl", "1h")));
        let mut daemon = place.start();
        let (mut admin, mut client) = (place.admin_socket(), daemon.anonymous());
        kid(&place, "access", "published");
        let import = |count: usize, until: &str| json!({ "jwks": foreign(count), "until": until, "reason": "move" });
        let path = "/admin/keyrings/access/import-jwks";
        // Two keys of our own, and room for two more.
        assert_eq!(refused(&mut admin, path, &import(97, LATER)), ("I6".into(), None));
        assert_eq!(refused(&mut admin, path, &import(1, "2001-01-01T00:00:00.000Z")), ("form".into(), None));
        assert_eq!(admin.post(path, &import(96, LATER)).status, 200);
        assert_eq!(refused(&mut admin, path, &import(1, LATER)), ("form".into(), None), "its kid is known");
        assert_eq!(refused(&mut admin, "/admin/keys/old-0/destroy", &json!({})), ("form".into(), None), "it lives elsewhere");

        let first = force(&place, &mut admin);
        force(&place, &mut admin);
        until("a full set", || {
            let count = served(&mut client).len();
            if count == 100 { Ok(()) } else { Err(count.to_string()) }
        });
        let gone = date(&place, &first, "withdraw_after").expect("a date");
        let rotate = json!({ "force": true, "reason": "rehearsal" });
        assert_eq!(refused(&mut admin, "/admin/keyrings/access/rotate", &rotate), ("I6".into(), Some(gone)));
        assert_eq!(in_state(&place, "access", "published").len(), 1);
        place.check(daemon);
    });
}
