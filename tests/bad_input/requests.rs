//! Requests for a signature that must not have one.
//!
//! In scope: bodies, shapes, profiles, keyrings, identities. Out of scope: how much and how fast (`limits.rs`).

use http::{HeaderName, Method, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Client, Keyring, Place, Setup, on_softhsm, setup, until};
use crate::{good, refused};

/// A `jwt` and a `jws` keyring.
fn two_keyrings() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(Keyring::jws("hooks", "ES256"))
}

/// Bodies that have no reading, or more than one, with a part of the sentence that tells so.
const UNREADABLE: &[(&str, &str)] = &[
    ("", "ends in the middle"),
    (r#"{"keyring":"#, "ends in the middle"),
    (r#"{"keyring":"access",}"#, "at byte 20"),
    (r#"{"keyring":"access"} {}"#, "at byte 21"),
    (r#"{"keyring":"access","claims":{"sub":"a"},"claims":{"sub":"b"}}"#, "two members of this name"),
    (r#"{"keyring":"access","claims":{"act":{"sub":[{"x":1,"x":1}]}}}"#, "two members of this name"),
    (r#"{"keyring":"access","claims":{"a":1,"\u0061":2}}"#, "two members of this name"),
    (r#"{"keyring":"access","claims":{"sub":"\ud800"}}"#, "surrogate"),
    (r#"{"keyring":"access","claims":{"sub":"\udc00\ud800"}}"#, "surrogate"),
    (r#"{"keyring":"access","claims":{"sub":"a\u0000b"}}"#, "NUL"),
    (r#"{"keyring":"access","claims":{"n":9007199254740993}}"#, "no exact form"),
    (r#"{"keyring":"access","claims":{"n":[1e400]}}"#, "no exact form"),
    (r#"{"keyring":"access","claims":{"n":0.1000000000000000055511151231257827}}"#, "no exact form"),
    ("[]", "another JSON value"),
    ("\"access\"", "another JSON value"),
];

/// Bodies that can be read, and ask for nothing that is known.
const MISSHAPEN: &[(&str, &str)] = &[
    ("{}", "`keyring` is missing"),
    (r#"{"keyring":7,"claims":{}}"#, "`keyring` is missing or not a string"),
    (r#"{"keyring":"access"}"#, "either `claims` (an object) or `payload`"),
    (r#"{"keyring":"access","claims":[]}"#, "either `claims` (an object) or `payload`"),
    (r#"{"keyring":"access","claims":{},"payload":"YQ"}"#, "either `claims` (an object) or `payload`"),
    (r#"{"keyring":"access","claims":{},"alg":"none"}"#, "\"alg\" is not known here"),
    (r#"{"keyring":"access","claims":{},"header":"x"}"#, "`header` is not an object"),
    (r#"{"keyring":"access","payload":"YQ"}"#, "signs claims"),
    (r#"{"keyring":"hooks","claims":{}}"#, "signs payloads"),
    (r#"{"keyring":"hooks","payload":"YQ=="}"#, "unpadded base64url"),
    (r#"{"keyring":"hooks","payload":"YQ","detached":"yes"}"#, "`detached` is not true or false"),
];

#[test]
fn what_has_no_single_reading_is_malformed() {
    on_softhsm("requests::what_has_no_single_reading_is_malformed", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let mut client = daemon.demo();
        let mut send = |kind: &str, body: &[u8]| client.try_post_bytes("/sign", kind, body.to_vec()).expect("an answer");
        for (body, part) in UNREADABLE.iter().chain(MISSHAPEN) {
            let problem = refused(&send("application/json", body.as_bytes()), 400, "malformed");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{body}: {problem}");
        }
        for body in [&b"\xff\xfe"[..], b"\xef\xbb\xbf{}", b"{\"keyring\":\"\xc3\x28\"}"] {
            refused(&send("application/json", body), 400, "malformed");
        }
        let good = good().to_string();
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jwt", ""] {
            refused(&send(kind, good.as_bytes()), 415, "wrong_type");
        }
        // Far more than a socket holds: the refusal must reach a client that is still sending.
        refused(&send("application/json", &vec![b'a'; 4 << 20]), 413, "too_large");
        let answer = send("application/json; charset=utf-8", good.as_bytes()).ok();
        assert_eq!(answer["receipt"]["log"], "test.example/claviger/uses/node-a", "{answer}");
        place.check(daemon);
    });
}

/// The rules that a refused token breaks, as `rule claim`.
fn broken(client: &mut Client, body: &Value) -> Vec<String> {
    let problem = refused(&client.post("/sign", body), 422, "profile");
    let text = |rule: &Value, name: &str| rule[name].as_str().expect("a text").to_owned();
    let rules = problem["broken"].as_array().expect("the list of broken rules");
    assert!(rules.iter().all(|rule| !text(rule, "detail").is_empty()), "{problem}");
    rules.iter().map(|rule| format!("{} {}", text(rule, "rule"), text(rule, "claim"))).collect()
}

#[test]
fn a_broken_profile_names_every_rule_to_those_who_may_know() {
    on_softhsm("requests::a_broken_profile_names_every_rule_to_those_who_may_know", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        let claims = |claims: Value| json!({ "keyring": "access", "claims": claims });
        let audience = setup::AUDIENCE;
        assert_eq!(broken(&mut demo, &claims(json!({ "sub": "u" }))), ["missing aud"]);
        assert_eq!(broken(&mut demo, &claims(json!({ "aud": audience, "exp": 4_000_000_000_u64 }))), ["lives_too_long exp"]);
        assert_eq!(broken(&mut demo, &claims(json!({ "aud": [audience, "https://other.example"] }))), ["audience aud"]);
        assert_eq!(broken(&mut demo, &claims(json!({ "aud": audience, "exp": "soon" }))), ["type exp"]);
        let worst = json!({ "iss": "https://evil.example", "sub": 1, "iat": 5, "exp": 4_000_000_000_u64, "password": "p", "secret": 1 });
        let mut rules = broken(&mut demo, &claims(worst.clone()));
        rules.sort();
        let all = ["forbidden password", "forbidden secret", "issuer iss", "lives_too_long exp", "missing aud", "not_now iat", "type sub"];
        assert_eq!(rules, all);
        // The header is Claviger's own: whatever could change what a verifier checks is refused, for both purposes.
        for name in ["alg", "kid", "jku", "x5u", "jwk", "crit"] {
            let header = json!({ name: "none" });
            let rule = [format!("header header.{name}")];
            assert_eq!(broken(&mut demo, &json!({ "keyring": "access", "claims": { "aud": audience }, "header": header })), rule);
            assert_eq!(broken(&mut demo, &json!({ "keyring": "hooks", "payload": "YQ", "header": header })), rule);
        }
        // Whoever may not sign learns nothing about the profile.
        let mut stranger = daemon.anonymous().bearer(setup::STRANGER);
        refused(&stranger.post("/sign", &claims(worst)), 403, "denied");
        assert!(demo.post("/sign", &good()).ok()["token"].is_string());
        place.check(daemon);
    });
}

#[test]
fn an_unknown_keyring_is_told_to_those_who_may_know_alone() {
    on_softhsm("requests::an_unknown_keyring_is_told_to_those_who_may_know_alone", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let (mut demo, mut stranger) = (daemon.demo(), daemon.anonymous().bearer(setup::STRANGER));
        let unknown = json!({ "keyring": "acces", "claims": {} });
        let problem = refused(&demo.post("/sign", &unknown), 404, "unknown_keyring");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("\"acces\"")), "{problem}");
        let known = refused(&stranger.post("/sign", &good()), 403, "denied");
        let hidden = refused(&stranger.post("/sign", &unknown), 403, "denied");
        assert_eq!(known["detail"], hidden["detail"], "the refusals must not tell which keyring exists");
        refused(&demo.post("/admin/keyrings/access/rotate", &json!({})), 404, "not_found");
        // Both denials are records with who and what, under the id that the caller was given.
        let log = place.log();
        for (problem, keyring) in [(&known, "access"), (&hidden, "acces")] {
            // A refusal does not wait for its record.
            let found = until("the record of a denial", || {
                let show = ["audit", "show", log.to_str().expect("a plain path"), "--event", "sign.denied", "--format", "json"];
                let shown = place.command(&show);
                let mut records = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
                records.find(|record| record["request"] == problem["request"]).ok_or(shown.clone())
            });
            assert_eq!(
                (&found["caller"], &found["keyring"], &found["code"]),
                (&json!("token:stranger"), &json!(keyring), &json!("denied"))
            );
        }
        place.check(daemon);
    });
}

#[test]
fn every_request_has_exactly_one_identity() {
    on_softhsm("requests::every_request_has_exactly_one_identity", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let ask = |client: &mut Client, more: &[(HeaderName, &str)]| {
            let request = client.request(Method::POST, "/sign").header(header::CONTENT_TYPE, "application/json");
            let request = more.iter().fold(request, |request, (name, value)| request.header(name, *value));
            client.send(request.body(Full::from(good().to_string())).expect("a request")).expect("an answer")
        };
        let authorization = |value| vec![(header::AUTHORIZATION, value)];
        let bearer = format!("Bearer {}", setup::BEARER);
        let (mut anonymous, mut demo, mut socket) = (daemon.anonymous(), daemon.demo(), place.sign_socket());
        let long = format!("Bearer {}", "a".repeat(600));
        let basic = authorization("Basic dXNlcjpwYXNz");
        let cases = [
            ("none", &mut anonymous, vec![], "needs an identity"),
            ("a wrong token", &mut daemon.anonymous(), authorization("Bearer wrong"), "not known here"),
            ("a token cut short", &mut daemon.anonymous(), authorization(&bearer[..bearer.len() - 1]), "not known here"),
            ("a token that is too long", &mut daemon.anonymous(), authorization(&long), "not a bearer token"),
            ("another scheme", &mut daemon.anonymous(), basic, "not a bearer token"),
            ("two tokens", &mut demo, authorization(&bearer), "two Authorization headers"),
            ("a socket's and a token's", &mut socket, authorization(&bearer), "two identities"),
        ];
        for (name, client, headers, part) in cases {
            let answer = ask(client, &headers);
            let problem = refused(&answer, 401, "unauthenticated");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{name}: {problem}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{name}");
        }
        let lower = bearer.replacen("Bearer", "bearer", 1);
        assert_eq!(ask(&mut daemon.anonymous(), &authorization(&lower)).status, 200, "the scheme knows no case (RFC 9110 section 11.1)");
        let named = ask(&mut place.sign_socket(), &[(HeaderName::from_static("x-request-id"), "mine-1")]);
        assert_eq!((named.status, named.header("x-request-id")), (200, "mine-1"));
        let forged = ask(&mut place.sign_socket(), &[(HeaderName::from_static("x-request-id"), "a\" level=ERROR")]);
        assert!(forged.status == 200 && !forged.header("x-request-id").contains("level"), "{:?}", forged.headers);
        place.check(daemon);
    });
}
