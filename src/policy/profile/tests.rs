//! Every rule is broken on purpose, alone and together with all the others.

use super::*;
use proptest::prelude::*;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1000 + 999)
}

fn profile() -> Profile {
    Profile {
        typ: "at+jwt".into(),
        issuer: "https://auth.example.org/t1".into(),
        audiences: vec!["https://api.example.org".into(), "https://files.example.org".into()],
        token_ttl: Duration::from_mins(15),
        clock_skew: Duration::from_secs(30),
        required: vec!["tenant".into()],
        forbidden: FORBIDDEN_BY_DEFAULT.map(String::from).to_vec(),
        max_bytes: 2000,
        subject_pattern: Some("user-*".parse().unwrap()),
        claim_types: BTreeMap::from([("level".to_owned(), ClaimType::Long)]),
    }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("not an object: {value}") };
    members
}

fn good() -> Map<String, Value> {
    let claims = object(json!({ "sub": "user-1", "aud": "https://api.example.org", "tenant": "t1", "scope": "read write", "level": 3 }));
    profile().complete(claims, now(), "j-1".into())
}

#[test]
fn what_is_absent_is_added_and_passes() {
    let checked = profile().check(&good(), Some(&object(json!({ "typ": "at+jwt", "x-note": 1 }))), now()).unwrap();
    let expected = Checked {
        typ: "at+jwt".into(),
        iss: "https://auth.example.org/t1".into(),
        sub: Some("user-1".into()),
        aud: vec!["https://api.example.org".into()],
        jti: "j-1".into(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 900,
        lifetime: Duration::from_mins(15),
        scopes: vec!["read".into(), "write".into()],
    };
    assert_eq!(checked, expected);
}

#[test]
fn the_edges_of_time_pass_and_one_second_more_does_not() {
    let check = |name: &str, value: i64| {
        let mut claims = good();
        claims.insert(name.into(), json!(value));
        profile().check(&claims, None, now()).map(|_| ()).map_err(|broken| broken.iter().map(|b| b.rule).collect::<Vec<_>>())
    };
    for name in ["iat", "nbf"] {
        assert_eq!(check(name, NOW + 30), Ok(()));
        assert_eq!(check(name, NOW - 30), Ok(()));
        assert_eq!(check(name, NOW + 31), Err(vec![Rule::NotNow]));
        assert_eq!(check(name, NOW - 31), Err(vec![Rule::NotNow]));
    }
    assert_eq!(check("exp", NOW + 900), Ok(()));
    assert_eq!(check("exp", NOW + 901), Err(vec![Rule::LivesTooLong]));
    assert_eq!(check("exp", NOW + 1), Ok(()));
    assert_eq!(check("exp", NOW), Err(vec![Rule::Expired, Rule::ExpiresBeforeStart]));
    assert_eq!(check("exp", i64::MAX), Err(vec![Rule::LivesTooLong]));
    assert_eq!(check("nbf", i64::MIN), Err(vec![Rule::NotNow]));
}

/// A violation, what it does to claims or header, and the broken rule that must be named.
type Violation = (&'static str, Value, Rule);

/// Each changes another claim, so that any of them can be planted together.
fn violations() -> Vec<Violation> {
    vec![
        ("tenant", Value::Null, Rule::Missing),
        ("password", json!("x"), Rule::Forbidden),
        ("client_secret", Value::Null, Rule::Forbidden),
        ("level", json!(1.5), Rule::Type),
        ("iss", json!("https://auth.example.org/t1/"), Rule::Issuer),
        ("aud", json!(["https://api.example.org", "https://evil.example"]), Rule::Audience),
        ("sub", json!("root"), Rule::Subject),
        ("exp", json!(NOW + 901), Rule::LivesTooLong),
        ("iat", json!(NOW + 3600), Rule::NotNow),
        ("nbf", json!(NOW - 3600), Rule::NotNow),
        ("jti", json!(""), Rule::TokenId),
        ("scope", json!(7), Rule::Type),
        ("filler", json!("x".repeat(3000)), Rule::TooLarge),
        ("header.alg", json!("none"), Rule::Header),
        ("header.kid", json!("k"), Rule::Header),
        ("header.jku", json!("https://evil.example"), Rule::Header),
        ("header.jwk", json!({}), Rule::Header),
        ("header.x5u", json!("u"), Rule::Header),
        ("header.crit", json!([]), Rule::Header),
        ("header.typ", json!("JWT"), Rule::Header),
        ("header.cty", json!("JWT"), Rule::Header),
    ]
}

fn planted(violations: &[Violation]) -> Vec<(Rule, String)> {
    let (mut claims, mut header) = (good(), Map::new());
    for (path, value, _) in violations {
        match path.strip_prefix("header.") {
            Some(name) => header.insert(name.into(), value.clone()),
            None => claims.insert((*path).into(), value.clone()),
        };
    }
    let broken = profile().check(&claims, Some(&header), now()).err().unwrap_or_default();
    let mut named: Vec<(Rule, String)> = broken.into_iter().map(|broken| (broken.rule, broken.path)).collect();
    named.sort();
    named
}

fn expected(violations: &[Violation]) -> Vec<(Rule, String)> {
    let path = |path: &str, rule| if rule == Rule::TooLarge { "payload".to_owned() } else { path.to_owned() };
    let mut named: Vec<(Rule, String)> = violations.iter().map(|(at, _, rule)| (*rule, path(at, *rule))).collect();
    named.sort();
    named
}

#[test]
fn other_ways_to_be_wrong() {
    let cases = [
        ("aud", json!([]), Rule::Audience),
        ("aud", json!("https://evil.example"), Rule::Audience),
        ("aud", json!({}), Rule::Type),
        ("aud", json!(["https://api.example.org", 1]), Rule::Type),
        ("sub", json!(1), Rule::Type),
        ("jti", json!(1), Rule::Type),
        ("jti", json!("x".repeat(257)), Rule::TokenId),
        ("exp", json!("1800000100"), Rule::Type),
        ("exp", json!(1_800_000_100.0), Rule::Type),
        ("exp", Value::Null, Rule::Type),
        ("iat", json!(1.5), Rule::Type),
    ];
    for case in cases {
        assert_eq!(planted(std::slice::from_ref(&case)), expected(&[case]));
    }
}

#[test]
fn what_is_missing_is_named() {
    let broken = profile().check(&Map::new(), None, now()).unwrap_err();
    let named: Vec<&str> = broken.iter().map(|broken| broken.path.as_str()).collect();
    assert_eq!(named, ["iss", "sub", "aud", "jti", "iat", "nbf", "exp", "tenant"]);
    assert!(broken.iter().all(|broken| broken.rule == Rule::Missing));
}

#[test]
fn a_payload_has_a_size_and_a_content_type() {
    let profile = JwsProfile { typ: None, content_types: vec!["application/json".into()], max_bytes: 10 };
    assert_eq!(profile.check(10, Some(&object(json!({ "cty": "application/json" })))), Ok(()));
    let broken = profile.check(11, Some(&object(json!({ "cty": "text/html", "b64": false, "typ": "x" })))).unwrap_err();
    assert_eq!(broken.iter().map(|b| b.path.as_str()).collect::<std::collections::BTreeSet<_>>().len(), 4);
}

#[test]
fn rule_codes_are_distinct() {
    let codes: std::collections::BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.code()).collect();
    assert_eq!(codes.len(), Rule::ALL.len());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (NOW - 1000..NOW + 1000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z:/. -]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

proptest! {
    #[test]
    fn every_planted_violation_is_named_and_nothing_else(chosen in prop::sample::subsequence(violations(), 0..=21)) {
        prop_assert_eq!(planted(&chosen), expected(&chosen));
    }

    #[test]
    fn checking_is_total_and_completing_changes_nothing(
        claims in prop::collection::btree_map(
            prop::sample::select(vec!["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "scp", "tenant", "level", "secret"]),
            json_value(),
            0..8,
        ),
        at in any::<i64>(),
    ) {
        let now = Timestamp::from_millis(at);
        let claims: Map<String, Value> = claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let completed = profile().complete(claims.clone(), now, "j".into());
        for (name, value) in &claims {
            prop_assert_eq!(completed.get(name), Some(value));
        }
        if let Ok(checked) = profile().check(&completed, None, now) {
            prop_assert!(checked.exp > now.seconds() && checked.exp <= now.seconds() + 900 && checked.exp > checked.nbf);
            prop_assert!(!completed.contains_key("secret") && !checked.aud.is_empty());
        }
    }
}
