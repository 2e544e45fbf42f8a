//! What the daemon serves while its token misbehaves: SoftHSM behind the fault-injecting module (`tests/fault-module`).
//!
//! In scope: no signature leaves that does not verify under the published set, whatever key the token signed with. Out of scope: what the
//! adapter makes of each fault (`pkcs11_faults.rs`).

mod harness;

use harness::faults::{Faults, with_faults};
use harness::verifiers::{Library, Verifier};
use harness::{Client, Keyring, Place, Setup, until};
use serde_json::{Value, json};

/// The issuer's set.
const SET: &str = "/.well-known/jwks.json";

/// Two keyrings of one algorithm: where the token confuses its keys, each can sign as the other.
fn setup() -> Setup {
    Setup::new().keyring(Keyring::jwt("left", "ES256")).keyring(Keyring::jwt("right", "ES256"))
}

fn verifier(url: &str) -> Verifier {
    let arguments = [&Verifier::for_tokens("ES256")[..], &["--cache-seconds", "1"]].concat();
    Verifier::start(Library::PyJwt, url, &arguments)
}

/// Asks for a token; one that is given must verify. Otherwise the code of the refusal.
fn sign(client: &mut Client, verifier: &mut Verifier, keyring: &str) -> Result<(), String> {
    let answer = client.sign(keyring).expect("an answer");
    if answer.status != 200 {
        return Err(answer.problem(503));
    }
    let reply = answer.json();
    let judged = verifier.judge(reply["token"].as_str().expect("a token"));
    assert_eq!((&judged["ok"], &judged["kid"]), (&json!(true), &reply["kid"]), "a wrong signature was released: {judged}");
    Ok(())
}

fn wrong_signatures(client: &mut Client, keyring: &str) -> u64 {
    let metrics = client.get("/metrics").text();
    let line = metrics.lines().find(|line| line.starts_with("claviger_wrong_signatures_total") && line.contains(keyring));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Rotates as an operator would, as soon as the next key may sign.
fn rotate(place: &Place<'_>, keyring: &str) {
    let mut operator = place.admin_socket();
    let path = format!("/admin/keyrings/{keyring}/rotate");
    until(&path, || match operator.post(&path, &json!({})) {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text()),
    });
}

#[test]
fn a_signature_by_another_key_is_not_released_and_ends_the_keys_use() {
    with_faults("a_signature_by_another_key_is_not_released_and_ends_the_keys_use", |hsm, faults| {
        let place = Place::new(hsm, setup());
        let mut daemon = place.start();
        let (mut client, mut verifier) = (daemon.demo(), verifier(&daemon.url(SET)));
        sign(&mut client, &mut verifier, "left").expect("signed");

        faults.rule(json!({ "do": "wrong-key" }));
        for _ in 0..3 {
            assert_eq!(sign(&mut client, &mut verifier, "left"), Err("keystore_unavailable".to_owned()));
        }
        faults.reset();
        assert_eq!(wrong_signatures(&mut client, "left"), 1, "the key is not asked again");
        assert_eq!(sign(&mut client, &mut verifier, "left"), Err("keystore_unavailable".to_owned()), "an operator must look first");
        sign(&mut client, &mut verifier, "right").expect("the other keyring is not concerned");
        rotate(&place, "left");
        sign(&mut client, &mut verifier, "left").expect("signed with the next key");
        place.check(daemon);
    });
}

#[test]
fn no_token_is_wrong_while_the_token_loses_sessions_logins_and_numbers() {
    with_faults("no_token_is_wrong_while_the_token_loses_sessions_logins_and_numbers", |hsm, faults| {
        let place = Place::new(hsm, setup());
        let mut daemon = place.start();
        let (mut client, mut verifier) = (daemon.demo(), verifier(&daemon.url(SET)));
        let lose = |faults: &Faults, what: &str| {
            // Between a loss and the next call there may be no session to renumber or log out with.
            let answer = faults.say(&json!({ "do": what }).to_string());
            assert!(answer["ok"] == true || answer["error"].as_str().is_some_and(|error| error.contains("no session")), "{answer}");
        };
        let losses = [&["drop-sessions"][..], &["logout"], &["remove", "return"], &["renumber", "drop-sessions"], &["renumber", "logout"]];
        let mut signed = 0;
        for loss in losses {
            for round in 0..10 {
                for what in loss {
                    lose(faults, what);
                }
                let keyring = if round % 2 == 0 { "left" } else { "right" };
                signed += u32::from(sign(&mut client, &mut verifier, keyring).is_ok());
                // Healed by itself: nothing was wrong with the keys.
                until("signing again", || sign(&mut client, &mut verifier, keyring));
            }
        }
        assert!(signed > 0, "every loss was seen by a caller");
        let wrong: Value = ["left", "right"].map(|keyring| wrong_signatures(&mut client, keyring)).to_vec().into();
        assert_eq!(wrong, json!([0, 0]));
        assert_eq!(faults.status()["finalized_while_busy"], 0);

        // Nothing tells the daemon of this one: the first signature is wrong, is caught, and nothing more is asked of that key.
        lose(faults, "renumber");
        for _ in 0..5 {
            for keyring in ["left", "right"] {
                let _ = sign(&mut client, &mut verifier, keyring);
            }
        }
        faults.tell(json!({ "do": "logout" }));
        for keyring in ["left", "right"] {
            rotate(&place, keyring);
            until("signing again", || sign(&mut client, &mut verifier, keyring));
        }
        place.check(daemon);
    });
}
