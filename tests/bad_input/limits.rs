//! Too much, too fast, too late.
//!
//! In scope: rates, batches, deadlines, heads of requests. Out of scope: bodies that cannot be read (`requests.rs`).

use http::{HeaderName, Method, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Keyring, Place, Setup, on_softhsm, setup, until};
use crate::{good, refused};

const DEADLINE: HeaderName = HeaderName::from_static("claviger-deadline-ms");
/// More headers than any proxy adds.
const MANY_HEADERS: usize = 200;

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// A batch of items with good claims.
fn batch(items: usize) -> Value {
    json!({ "keyring": "access", "items": vec![json!({ "claims": { "sub": "u", "aud": setup::AUDIENCE } }); items] })
}

fn with_header(client: &mut Client, (name, value): (&HeaderName, &str), path: &str, body: &Value) -> Result<Answer, String> {
    let request = client.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json").header(name, value);
    client.send(request.body(Full::from(body.to_string())).expect("a request"))
}

#[test]
fn a_caller_over_its_rate_is_told_when_to_come_back() {
    on_softhsm("limits::a_caller_over_its_rate_is_told_when_to_come_back", |hsm| {
        let place = Place::new(hsm, one_keyring().more("\n[limits]\nrate = 1\nburst = 1\n"));
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        assert_eq!(demo.sign("access").expect("an answer").status, 200);
        let answer = until("the limit", || {
            let answer = demo.sign("access")?;
            if answer.status == 200 { Err("it was signed".to_owned()) } else { Ok(answer) }
        });
        refused(&answer, 429, "rate_limited");
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{:?}", answer.headers);
        // Another caller has a bucket of its own.
        assert_eq!(place.sign_socket().sign("access").expect("an answer").status, 200);
        // No wait makes room for a batch that is larger than the bucket, so no date is named.
        let answer = demo.post("/sign/batch", &batch(2));
        let problem = refused(&answer, 429, "rate_limited");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("smaller batches")), "{problem}");
        assert_eq!(answer.header("retry-after"), "");
        // Refusals that strangers could multiply are one record a second, with their count.
        let log = place.log();
        until("the count in the log", || {
            let shown =
                place.command(&["audit", "show", log.to_str().expect("a plain path"), "--event", "sign.refused", "--format", "json"]);
            if shown.contains("rate_limited") { Ok(()) } else { Err(shown) }
        });
        place.check(daemon);
    });
}

#[test]
fn a_batch_answers_each_item_in_order() {
    on_softhsm("limits::a_batch_answers_each_item_in_order", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        for items in [json!([]), json!({}), Value::Null, batch(257)["items"].clone()] {
            let problem = refused(&demo.post("/sign/batch", &json!({ "keyring": "access", "items": items })), 400, "malformed");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1 to 256")), "{problem}");
        }
        let claims = |subject: &str| json!({ "claims": { "sub": subject, "aud": setup::AUDIENCE } });
        let items = json!([claims("a"), { "claims": { "sub": "b" } }, 7, { "payload": "YQ" }, claims("e"), { "x": 1 }]);
        let results = demo.post("/sign/batch", &json!({ "keyring": "access", "items": items })).ok()["results"].clone();
        let outcome = |result: &Value| result["problem"]["code"].as_str().unwrap_or("signed").to_owned();
        let outcomes: Vec<String> = results.as_array().expect("a list").iter().map(outcome).collect();
        assert_eq!(outcomes, ["signed", "profile", "malformed", "malformed", "signed", "malformed"]);
        assert_eq!(results[1]["problem"]["broken"][0]["claim"], "aud");
        assert_eq!(results[1]["problem"]["status"], 422);
        let full = demo.post("/sign/batch", &batch(256)).ok()["results"].clone();
        let receipts: Vec<u64> = full.as_array().expect("a list").iter().filter_map(|result| result["receipt"]["seq"].as_u64()).collect();
        assert_eq!(receipts.len(), 256, "{full}");
        let unknown = demo.post("/sign/batch", &json!({ "keyring": "nope", "items": [claims("a")] })).ok();
        assert_eq!(unknown["results"][0]["problem"]["code"], "unknown_keyring");
        place.check(daemon);
    });
}

#[test]
fn a_deadline_is_kept_and_only_shortens() {
    on_softhsm("limits::a_deadline_is_kept_and_only_shortens", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        for value in ["soon", "0", "-5", "1.5", "99999999999999999999999"] {
            let problem = refused(&with_header(&mut demo, (&DEADLINE, value), "/sign", &good()).expect("an answer"), 400, "malformed");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Claviger-Deadline-Ms")), "{problem}");
        }
        assert_eq!(with_header(&mut demo, (&DEADLINE, "3600000"), "/sign", &good()).expect("an answer").status, 200);
        // No token signs so many items within a millisecond: what comes too late is refused, and never half done.
        let results = with_header(&mut demo, (&DEADLINE, "1"), "/sign/batch", &batch(256)).expect("an answer").ok()["results"].clone();
        let results = results.as_array().expect("a list");
        let late: Vec<&Value> = results.iter().map(|result| &result["problem"]).filter(|problem| problem.is_object()).collect();
        assert!(!late.is_empty(), "256 signatures within a millisecond");
        for problem in late {
            assert_eq!(problem["status"], 503, "{problem}");
            assert!(["keystore_unavailable", "overloaded"].contains(&problem["code"].as_str().expect("a code")), "{problem}");
        }
        assert!(results.iter().all(|result| result["token"].is_string() || result["problem"].is_object()));
        assert_eq!(demo.sign("access").expect("an answer").status, 200, "the keystore works on after late work");
        place.check(daemon);
    });
}

#[test]
fn an_oversized_head_is_refused_before_it_is_kept() {
    on_softhsm("limits::an_oversized_head_is_refused_before_it_is_kept", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        let large = "a".repeat(100 * 1024);
        let answer = with_header(&mut daemon.demo(), (&HeaderName::from_static("x-large"), &large), "/sign", &good());
        // The connection may already be closed while the rest of the head is still on its way.
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
        let mut demo = daemon.demo();
        let request = demo.request(Method::POST, "/sign").header(header::CONTENT_TYPE, "application/json");
        let request = (0..MANY_HEADERS).fold(request, |request, number| request.header(format!("x-{number}"), "1"));
        let answer = demo.send(request.body(Full::from(good().to_string())).expect("a request"));
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
        let usual = "a".repeat(8 * 1024);
        let answer = with_header(&mut daemon.demo(), (&HeaderName::from_static("x-large"), &usual), "/sign", &good());
        assert_eq!(answer.expect("an answer").status, 200);
        place.check(daemon);
    });
}
