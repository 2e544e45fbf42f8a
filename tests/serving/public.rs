//! Key sets, discovery, health and metrics: what anybody may read.

use http::{Method, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::extra::settle;
use crate::harness::{Answer, Client, Keyring, Place, Setup, on_softhsm, setup};

const SET: &str = "/.well-known/jwks.json";

fn two_keyrings() -> Setup {
    Setup::new()
        .keyring(Keyring::jwt("access", "ES256").set("jwks_max_age", "60s").set("max_exposure", "2m"))
        .keyring(Keyring::jws("hooks", "RS256"))
}

fn ask(client: &mut Client, method: Method, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
    let request = headers.iter().fold(client.request(method, path), |request, (name, value)| request.header(name, *value));
    client.send(request.body(Full::default()).expect("a request")).expect("an answer")
}

fn kids(set: &Value) -> Vec<&str> {
    set["keys"].as_array().expect("a set").iter().map(|key| key["kid"].as_str().expect("a kid")).collect()
}

#[test]
fn a_set_has_the_headers_that_caches_and_browsers_need() {
    on_softhsm("public::a_set_has_the_headers_that_caches_and_browsers_need", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        settle(&mut daemon, &["access"]);
        let mut client = daemon.anonymous();
        let answer = client.get(SET);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/jwk-set+json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
        let etag = answer.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 66, "a strong tag, the SHA-256 of the body: {etag}");
        // The cache life is computed: A, jittered downward by up to a tenth (I4).
        let mut ages = Vec::new();
        for _ in 0..32 {
            let cache = client.get(SET).header("cache-control").to_owned();
            let age = cache.strip_prefix("public, max-age=").and_then(|rest| rest.strip_suffix(", must-revalidate"));
            ages.push(age.and_then(|age| age.parse::<u64>().ok()).unwrap_or_else(|| panic!("{cache}")));
        }
        assert!(ages.iter().all(|age| (54..=60).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age != ages[0]), "caches must not all come back at once: {ages:?}");

        let body = answer.json();
        for key in body["keys"].as_array().expect("a set") {
            let members: Vec<&String> = key.as_object().expect("a JWK").keys().collect();
            assert_eq!(members, ["kty", "kid", "use", "alg", "crv", "x", "y"], "public members alone, in a stable order");
            assert_eq!((&key["use"], &key["alg"]), (&json!("sig"), &json!("ES256")));
        }

        let fresh = |client: &mut Client, tags: &str| ask(client, Method::GET, SET, &[(header::IF_NONE_MATCH, tags)]);
        for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), format!("W/\"x\" , W/{etag}"), "*".to_owned()] {
            let answer = fresh(&mut client, &tags);
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{tags}");
            assert_eq!(answer.header("etag"), etag, "RFC 9110 section 15.4.5");
            assert!(answer.header("cache-control").starts_with("public, max-age="), "{tags}");
        }
        for tags in ["\"other\"", "other", "", &etag[1..etag.len() - 1]] {
            assert_eq!(fresh(&mut client, tags).status, 200, "{tags}");
        }

        let head = ask(&mut client, Method::HEAD, SET, &[]);
        assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, etag.as_str()));
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
        let preflight = ask(&mut client, Method::OPTIONS, SET, &[(header::ORIGIN, "https://app.example")]);
        assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "GET, HEAD"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let answer = ask(&mut client, method, SET, &[]);
            assert_eq!(answer.problem(405), "method_not_allowed");
            assert_eq!(answer.header("allow"), "GET, HEAD", "RFC 9110 section 15.5.6");
        }
        place.check(daemon);
    });
}

#[test]
fn each_set_holds_its_own_keys_and_no_others() {
    on_softhsm("public::each_set_holds_its_own_keys_and_no_others", |hsm| {
        let second = "\n[issuer.second]\nurl = \"https://second.example\"\npath = \"/second\"\n";
        let other = Keyring::jwt("other", "EdDSA").set("issuer", "second");
        let place = Place::new(hsm, two_keyrings().keyring(other).more(second));
        let mut daemon = place.start();
        settle(&mut daemon, &["access", "hooks", "other"]);
        let mut client = daemon.anonymous();
        let main = client.get(SET);
        assert_eq!(client.get("/main/.well-known/jwks.json").body, main.body, "the default issuer is also at the root");
        let (main, access) = (main.json(), client.get("/keyrings/access/jwks.json").ok());
        assert_eq!(kids(&main), kids(&access), "the only keyring of its issuer");
        let hooks = client.get("/keyrings/hooks/jwks.json").ok();
        let second = client.get("/second/.well-known/jwks.json").ok();
        assert_eq!((&hooks["keys"][0]["alg"], &second["keys"][0]["alg"]), (&json!("RS256"), &json!("EdDSA")));
        // Else whoever may sign a webhook's payload could sign a payload that is an access token.
        assert!(kids(&main).iter().all(|kid| !kids(&hooks).contains(kid) && !kids(&second).contains(kid)));
        assert!(!kids(&second).iter().any(|kid| kids(&hooks).contains(kid)));

        let discovery = client.get("/.well-known/openid-configuration");
        assert_eq!(discovery.header("content-type"), "application/json");
        assert_eq!(discovery.header("access-control-allow-origin"), "*");
        let document = discovery.ok();
        assert_eq!(document["issuer"], setup::ISSUER);
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
        for member in ["jwks_uri", "response_types_supported", "subject_types_supported"] {
            assert!(!document[member].is_null(), "OpenID Connect Discovery 1.0 requires {member}");
        }
        assert_eq!(client.get("/main/.well-known/openid-configuration").ok(), document);
        for path in [
            "/second/.well-known/openid-configuration",
            "/keyrings/nope/jwks.json",
            "/nope",
            "/",
            "/.well-known/jwks.json/",
            "/admin/keyrings",
        ] {
            assert_eq!(client.get(path).problem(404), "not_found", "{path}");
        }
        // Routes go by path, never by Host.
        let answer = ask(&mut client, Method::GET, SET, &[(header::HOST, "second.example")]);
        assert!(answer.status == 400 || answer.json() == main, "{}", answer.text());
        place.check(daemon);
    });
}

#[test]
fn a_token_is_returned_bare_to_whoever_wants_it_so() {
    on_softhsm("public::a_token_is_returned_bare_to_whoever_wants_it_so", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let mut demo = daemon.demo();
        let mut accept = |kinds: &str, body: Value| {
            let request =
                demo.request(Method::POST, "/sign").header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, kinds);
            demo.send(request.body(Full::from(body.to_string())).expect("a request")).expect("an answer")
        };
        let good = json!({ "keyring": "access", "claims": { "sub": "u", "aud": setup::AUDIENCE } });
        for kinds in ["application/jwt", "text/html, application/JWT;q=0.9"] {
            let answer = accept(kinds, good.clone());
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/jwt"));
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.text().split('.').count(), 3, "{}", answer.text());
        }
        for kinds in ["application/json", "*/*", ""] {
            assert_eq!(accept(kinds, good.clone()).header("content-type"), "application/json");
        }
        let refused = accept("application/jwt", json!({ "keyring": "access", "claims": {} }));
        assert_eq!(refused.problem(422), "profile", "a refusal is a problem document whatever is accepted");
        let dry = demo.post("/sign?dry_run=1", &good).ok();
        assert!(dry["token"].is_null() && dry["permitted"] == true && dry["claims"]["iss"] == setup::ISSUER, "{dry}");
        place.check(daemon);
    });
}

/// A line of OpenMetrics text: a comment, or a name with labels and a number.
fn is_metric_line(line: &str) -> bool {
    if let Some(comment) = line.strip_prefix("# ") {
        return comment == "EOF" || ["HELP ", "TYPE ", "UNIT "].iter().any(|kind| comment.starts_with(kind));
    }
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let (name, labels) = series.split_once('{').map_or((series, None), |(name, labels)| (name, Some(labels)));
    let named = name.starts_with("claviger_") && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    named && labels.is_none_or(|labels| labels.ends_with('}')) && value.parse::<f64>().is_ok()
}

#[test]
fn health_and_metrics_need_no_identity_and_name_no_caller() {
    on_softhsm("public::health_and_metrics_need_no_identity_and_name_no_caller", |hsm| {
        let place = Place::new(hsm, two_keyrings());
        let mut daemon = place.start();
        let mut client = daemon.anonymous();
        assert_eq!(client.get("/livez").ok(), json!({ "status": "ok" }));
        let green = client.get("/readyz").ok();
        // What is at risk is told too; how full the disk of this machine is, is not ours to say.
        let risks = green["risks"].as_array().expect("a list").iter().filter(|risk| risk["code"] != "disk_low");
        assert_eq!((&green["status"], risks.count()), (&json!("ok"), 0), "{green}");
        let ready = client.get("/readyz/sign").ok();
        assert_eq!(ready["keyrings"].as_array().map(Vec::len), Some(2), "{ready}");
        let one = client.get("/readyz/sign?keyring=hooks").ok();
        assert_eq!(one["keyrings"], json!([{ "keyring": "hooks", "ready": true }]));
        assert_eq!(client.get("/readyz/sign?keyring=nope").problem(404), "unknown_keyring");

        let signed = daemon.demo().sign("access").expect("an answer").ok();
        daemon.demo().sign("nope").expect("an answer").problem(404);
        let answer = client.get("/metrics");
        assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let text = answer.text();
        assert!(text.lines().all(is_metric_line) && text.ends_with("# EOF\n"), "{text}");
        for name in [
            "claviger_sign_requests_total{keyring=\"access\",keystore=\"hsm\",outcome=\"ok\"} 1",
            "claviger_sign_duration_seconds_bucket{",
            "claviger_keystore_up{keystore=\"hsm\"} 1",
            "claviger_key_next_transition_timestamp_seconds{keyring=\"access\"}",
            "claviger_signer_ready{keyring=\"hooks\"} 1",
            "claviger_log_writable{log=\"keys\"} 1",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(!text.contains("nope"), "what strangers write is no label: {text}");
        for private in ["token:demo", "user-1", signed["kid"].as_str().expect("a kid")] {
            assert!(!text.contains(private), "{private} in {text}");
        }
        place.check(daemon);
    });
}
