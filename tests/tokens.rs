//! Tokens and signatures of every algorithm, verified from the served sets by libraries that share no code with Claviger, before, during
//! and after a rotation.
//!
//! In scope: what PyJWT and panva/jose accept, and that each receipt names its record. Out of scope: load, and rotation by the clock
//! (`rotation_under_load`).

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::receipts::{Receipt, assert_provable, assert_verifies};
use harness::verifiers::{Library, Verifier};
use harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, until};
use serde_json::{Value, json};

const ALGORITHMS: [&str; 11] = ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519"];
/// The issuer's set.
const SET: &str = "/.well-known/jwks.json";
/// Bytes that are neither text nor valid in a JSON string.
const PAYLOAD: &[u8] = b"{\"order\": 1}\x00\xff\n.";
/// What PyJWT 2.15.1 says of `Ed25519`, RFC 9864's name for what it knows as EdDSA: it leaves such keys out of the set that it reads.
const PYJWT_LACKS_ED25519: &str = "Unable to find a signing key";

/// Keyrings by algorithm; their names are what the algorithms are called, in small letters.
fn keyring_of(algorithm: &str) -> String {
    algorithm.to_ascii_lowercase()
}

/// The kids of a set.
fn kids(client: &mut Client, path: &str) -> BTreeSet<String> {
    let set = client.get(path).ok();
    let keys = set["keys"].as_array().expect("a set has keys");
    keys.iter().map(|key| key["kid"].as_str().expect("a key has a kid").to_owned()).collect()
}

/// One token of each keyring, with its receipt.
fn tokens(client: &mut Client) -> BTreeMap<&'static str, Value> {
    let sign = |algorithm: &'static str| (algorithm, client.sign(&keyring_of(algorithm)).expect("an answer").ok());
    ALGORITHMS.into_iter().map(sign).collect()
}

fn text<'v>(reply: &'v Value, member: &str) -> &'v str {
    reply[member].as_str().unwrap_or_else(|| panic!("{member} in {reply}"))
}

/// Both verifiers, following the issuer's set with a cache of one second and no second look for an unknown kid.
fn verifiers(daemon: &mut Daemon) -> [Verifier; 2] {
    let (url, all) = (daemon.url(SET), ALGORITHMS.join(","));
    let caching = ["--cache-seconds", "1", "--no-refetch"];
    let arguments = [&Verifier::for_tokens(&all)[..], &caching].concat();
    [Library::PyJwt, Library::Jose].map(|library| Verifier::start(library, &url, &arguments))
}

/// Both accept each token, but for what PyJWT does not know.
fn assert_accepted([pyjwt, jose]: &mut [Verifier; 2], tokens: &BTreeMap<&'static str, Value>) {
    for (algorithm, reply) in tokens {
        assert_eq!(text(reply, "alg"), *algorithm);
        let accepted = json!([true, text(reply, "kid")]);
        let answer = jose.judge(text(reply, "token"));
        assert_eq!(json!([answer["ok"], answer["kid"]]), accepted, "jose, {algorithm}: {answer}");
        assert_eq!(answer["claims"]["jti"], reply["jti"], "{answer}");
        let answer = pyjwt.judge(text(reply, "token"));
        if *algorithm == "Ed25519" {
            assert_eq!(answer["ok"], false, "PyJWT knows Ed25519 now: {answer}");
            assert!(text(&answer, "error").contains(PYJWT_LACKS_ED25519), "{answer}");
        } else {
            assert_eq!(json!([answer["ok"], answer["kid"]]), accepted, "PyJWT, {algorithm}: {answer}");
        }
    }
}

/// Rotates every keyring as an operator would, each as soon as every verifier can know its next key.
fn rotate_all(place: &Place<'_>) {
    let mut operator = place.admin_socket();
    for algorithm in ALGORITHMS {
        let path = format!("/admin/keyrings/{}/rotate", keyring_of(algorithm));
        until(&path, || match operator.post(&path, &json!({})) {
            answer if answer.status == 200 => Ok(()),
            answer => {
                assert_eq!(answer.status, 409, "{}", answer.text());
                Err(answer.text())
            }
        });
    }
}

#[test]
fn every_algorithm_is_accepted_before_during_and_after_a_rotation() {
    on_softhsm("every_algorithm_is_accepted_before_during_and_after_a_rotation", |hsm| {
        let keyring =
            |setup: Setup, algorithm: &&str| setup.keyring(Keyring::jwt(&keyring_of(algorithm), algorithm).set("token_ttl", "5s"));
        let place = Place::new(hsm, ALGORITHMS.iter().fold(Setup::new(), keyring));
        let mut daemon = place.start();
        let (mut client, mut verifiers) = (daemon.demo(), verifiers(&mut daemon));

        let before = tokens(&mut client);
        assert_accepted(&mut verifiers, &before);
        // RSA keys take their time; from here on all rotations fall into one overlap.
        until("a standby of every keyring", || match kids(&mut client, SET).len() {
            count if count == 2 * ALGORITHMS.len() => Ok(()),
            count => Err(format!("{count} keys")),
        });
        rotate_all(&place);
        let during = tokens(&mut client);
        assert_accepted(&mut verifiers, &during);
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            before.values().map(|reply| text(reply, "kid").to_owned()).collect(),
            during.values().map(|reply| text(reply, "kid").to_owned()).collect(),
        );
        assert!(old.is_disjoint(&new), "each keyring signs with another key");
        assert!(
            kids(&mut client, SET).is_superset(&new) && kids(&mut client, SET).is_superset(&old),
            "tokens of old keys may still be alive"
        );

        until("the old keys to leave the set", || {
            let left: Vec<_> = kids(&mut client, SET).intersection(&old).cloned().collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let after = tokens(&mut client);
        assert_accepted(&mut verifiers, &after);
        assert_eq!(new, after.values().map(|reply| text(reply, "kid").to_owned()).collect(), "one rotation, not two");
        let held: Vec<Receipt> = before.values().chain(during.values()).chain(after.values()).map(Receipt::of).collect();
        drop(verifiers);
        place.check(daemon);
        assert_provable(&place, &held);
        assert_verifies(&place, &held);
    });
}

#[test]
fn payloads_are_accepted_compact_detached_and_unencoded() {
    on_softhsm("payloads_are_accepted_compact_detached_and_unencoded", |hsm| {
        let setup = Setup::new().keyring(Keyring::jws("webhooks", "ES256")).keyring(Keyring::jws("invoices", "EdDSA"));
        let place = Place::new(hsm, setup);
        let mut daemon = place.start();
        let mut client = daemon.demo();
        let payload = URL_SAFE_NO_PAD.encode(PAYLOAD);
        let mut held = Vec::new();
        for (keyring, algorithm) in [("webhooks", "ES256"), ("invoices", "EdDSA")] {
            let url = daemon.url(&format!("/keyrings/{keyring}/jwks.json"));
            let arguments = ["--algorithms", algorithm];
            let mut sign = |more: Value| {
                let mut request = json!({ "keyring": keyring, "payload": payload });
                request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
                let reply = client.post("/sign", &request).ok();
                held.push(Receipt::of(&reply));
                reply
            };
            let reply = sign(json!({}));
            for library in [Library::PyJwt, Library::Jose] {
                let answer = Verifier::start(library, &url, &[&arguments[..], &["--jws"]].concat()).judge(text(&reply, "token"));
                let seen = json!([answer["ok"], answer["kid"], answer["payload"]]);
                assert_eq!(seen, json!([true, reply["kid"], payload]), "{library:?}: {answer}");
            }
            let mut jose = Verifier::start(Library::JoseDetached, &url, &arguments);
            for (more, encoded) in [(json!({ "detached": true }), true), (json!({ "detached": true, "b64": false }), false)] {
                let reply = sign(more);
                let answer = jose.ask(&json!({ "token": text(&reply, "token"), "payload": payload }));
                assert_eq!(answer, json!({ "ok": true, "kid": reply["kid"], "b64": encoded }), "{reply}");
                let other = jose.ask(&json!({ "token": text(&reply, "token"), "payload": URL_SAFE_NO_PAD.encode(b"another") }));
                assert_eq!(other["ok"], false, "{other}");
            }
        }
        place.check(daemon);
        assert_provable(&place, &held);
        assert_verifies(&place, &held);
    });
}
