//! Decisions: deny by default, forbids win, failures deny, and slices change nothing but the time it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger_audit::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::caller::CallerAttributes;
use super::super::request::{Origin, TokenFacts};
use super::super::vocabulary::{ClaimType, Purpose};
use super::*;

pub(in crate::policy) fn file(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

fn keyring(name: &str, purpose: Purpose) -> KeyringFacts {
    let policy_claims = BTreeMap::from([("tenant".to_owned(), ClaimType::String), ("level".to_owned(), ClaimType::Long)]);
    let issuer = (purpose == Purpose::Jwt).then(|| "https://auth.example.org".to_owned());
    KeyringFacts { name: name.into(), purpose, issuer, audiences: vec!["https://api.example.org".into()], policy_claims }
}

/// One keyring, `access`, and one configured attribute, `tenant`.
pub(in crate::policy) fn vocabulary() -> Vocabulary {
    Vocabulary { keyrings: vec![keyring("access", Purpose::Jwt)], caller_attributes: BTreeSet::from(["tenant".to_owned()]) }
}

fn load(text: &str) -> PolicySet {
    PolicySet::load(&[file("a.cedar", text)], &vocabulary()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn caller(id: &str) -> Caller {
    let attributes = CallerAttributes::new(vec!["issuers".into()], BTreeMap::from([("tenant".into(), "t1".into())])).unwrap();
    Caller::new(id.parse().unwrap(), &attributes)
}

fn claims(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("not an object: {value}") };
    members
}

struct Question {
    caller: Caller,
    action: Action,
    claims: Map<String, Value>,
    origin: Origin,
}

impl Question {
    fn new(id: &str, action: Action, value: Value) -> Self {
        let origin = Origin { source_address: Some("192.0.2.1".parse().unwrap()), user_agent: Some("test/1".into()) };
        Self { caller: caller(id), action, claims: claims(value), origin }
    }

    fn ask<T>(&self, resource: Resource<'_>, answer: impl FnOnce(&DecisionRequest<'_>) -> T) -> T {
        let (aud, scopes) = (["https://api.example.org".to_owned()], ["read".to_owned()]);
        let token = TokenFacts {
            typ: "at+jwt",
            iss: "https://auth.example.org",
            aud: &aud,
            lifetime: Duration::from_millis(899_001),
            scopes: &scopes,
            claims: &self.claims,
        };
        let time = Timestamp::from_millis(1_800_000_000_123);
        answer(&DecisionRequest { caller: &self.caller, action: self.action, resource, origin: &self.origin, time, token: Some(&token) })
    }

    fn decide(&self, set: &PolicySet) -> Decision {
        self.ask(Resource::Keyring("access"), |request| set.decide(request))
    }
}

fn sign(set: &PolicySet, value: Value) -> Decision {
    Question::new("dns:a.example", Action::Sign, value).decide(set)
}

#[test]
fn nothing_is_permitted_by_default() {
    let set = PolicySet::load(&[], &vocabulary()).unwrap();
    assert!(set.is_empty());
    for action in Action::ALL {
        for resource in [Resource::Keyring("access"), Resource::Keyring("unknown"), Resource::Installation] {
            let decision = Question::new("unix:uid=0", action, json!({})).ask(resource, |request| set.decide(request));
            assert_eq!(decision, Decision { refusal: Some(Refusal::Denied), determining: vec![], errors: vec![] });
        }
    }
}

#[test]
fn an_unknown_keyring_is_denied_even_to_those_who_may_everything() {
    let set = load("permit (principal, action, resource);");
    let decision = Question::new("unix:uid=0", Action::Sign, json!({})).ask(Resource::Keyring("other"), |request| set.decide(request));
    assert_eq!(decision.code(), Some("denied"));
}

#[test]
fn the_whole_context_can_be_read() {
    let set = load(
        r#"@id("all") permit (principal, action == Action::"sign", resource) when {
             principal.id == "unix:uid=7" && principal.kind == "unix" && principal.groups == ["issuers"] && principal has uid && principal.uid == 7 &&
             principal has gid && principal.gid == 8 && principal has tenant && principal.tenant == "t1" &&
             resource.name == "access" && resource.purpose == "jwt" && resource.issuer == context.iss &&
             resource.audiences.containsAll(context.aud) && context.typ == "at+jwt" && context.lifetime == 900 && context.scopes == ["read"] &&
             context has tenant && context.tenant == principal.tenant && context has level && context.level == 3 &&
             context has sourceAddress && context.sourceAddress == ip("192.0.2.1") && context has userAgent && context.userAgent like "test/*" &&
             context.time == datetime("2027-01-15T08:00:00.123Z")
           };"#,
    );
    let mut question = Question::new("unix:uid=7", Action::Sign, json!({ "tenant": "t1", "level": 3, "unread": [] }));
    question.caller =
        Caller::unix(7, 8, &CallerAttributes::new(vec!["issuers".into()], BTreeMap::from([("tenant".into(), "t1".into())])).unwrap());
    assert_eq!(question.decide(&set), Decision { refusal: None, determining: vec!["all".into()], errors: vec![] });
}

#[test]
fn a_forbid_wins_and_is_named() {
    let set = load("@id(\"yes\") permit (principal, action, resource);\n\nforbid (principal, action == Action::\"sign\", resource);");
    assert_eq!(sign(&set, json!({})).determining, ["a.cedar:3"]);
    assert_eq!(Question::new("dns:a.example", Action::Rotate, json!({})).decide(&set).determining, ["yes"]);
}

#[test]
fn a_policy_that_fails_denies_whatever_the_others_say() {
    let overflow = "when { context has level && context.level + 9223372036854775807 > 0 }";
    for effect in ["forbid", "permit"] {
        let set = load(&format!(
            "@id(\"yes\") permit (principal, action, resource);\n@id(\"bad\") {effect} (principal, action == Action::\"sign\", resource) {overflow};"
        ));
        let decision = sign(&set, json!({ "level": 1 }));
        assert_eq!(decision.code(), Some("policy_error"), "{effect}");
        assert!(decision.errors[0].starts_with("bad: ") && decision.errors.len() == 1, "{decision:?}");
        assert!(sign(&set, json!({})).allowed(), "{effect}");
        let outcomes: Vec<Outcome> = Question::new("dns:a.example", Action::Sign, json!({ "level": 1 }))
            .ask(Resource::Keyring("access"), |request| set.explain(request).considered.into_iter().map(|c| c.outcome).collect());
        assert!(matches!(outcomes[..], [Outcome::Matched, Outcome::Failed(_)]));
    }
}

#[test]
fn a_claim_of_the_wrong_type_denies() {
    let set = load("permit (principal, action, resource);");
    let decision = sign(&set, json!({ "tenant": ["t1"] }));
    assert_eq!(decision.code(), Some("policy_error"));
    assert!(decision.errors[0].contains("tenant"));
}

#[test]
fn a_signature_without_its_token_is_denied() {
    let (set, caller, origin) = (load("permit (principal, action, resource);"), caller("dns:a.example"), Origin::default());
    let request = DecisionRequest {
        caller: &caller,
        action: Action::Sign,
        resource: Resource::Keyring("access"),
        origin: &origin,
        time: Timestamp::from_seconds(0),
        token: None,
    };
    assert_eq!(set.decide(&request).code(), Some("policy_error"));
}

#[test]
fn what_is_wrong_with_a_policy_is_told_with_file_and_line() {
    let wrong = [
        ("permit (principal, action, resource)\nwhen { principal.tennant == \"x\" };", 2, "tennant"),
        ("permit (principal, action == Action::\"sign\", resource)\n\nwhen { context.tenant == \"x\" };", 3, "tenant"),
        ("permit (principal, action == Action::\"rotate\", resource)\nwhen { context.lifetime < 3 };", 2, "lifetime"),
        ("\npermit (principal, action == Action::\"sing\", resource);", 2, "sing"),
        ("\npermit (principal, action, resource) when {", 2, "unexpected end"),
        ("\n\npermit (principal == ?principal, action, resource);", 3, "templates"),
        ("@id(\"a\") permit (principal, action, resource);\n@id(\"a\") permit (principal, action, resource);", 2, "already"),
        ("@id(\"a b\") permit (principal, action, resource);", 1, "letters"),
        ("permit (principal, action, resource)\nwhen { Keyring::\"access\".purpose == \"jwt\" };", 2, ""),
        ("permit (principal, action == Action::\"sign\", resource)\nwhen { context.lifetime == \"x\" };", 2, ""),
    ];
    for (text, line, word) in wrong {
        let PolicyErrors(problems) = PolicySet::load(&[file("ok.cedar", ""), file("bad.cedar", text)], &vocabulary()).unwrap_err();
        let found = problems.iter().any(|p| p.file.as_deref() == Some("bad.cedar") && p.line == Some(line) && p.message.contains(word));
        assert!(found, "{text}\n{problems:?}");
    }
}

#[test]
fn an_explanation_holds_the_policies_that_were_looked_at() {
    let set = load(
        r#"@id("other") permit (principal == Caller::"dns:b.example", action, resource);
@id("mine") permit (principal == Caller::"dns:a.example", action == Action::"sign", resource == Keyring::"access");
@id("general") forbid (principal, action, resource is Keyring) when { resource.name == "x" };"#,
    );
    let explanation =
        Question::new("dns:a.example", Action::Sign, json!({})).ask(Resource::Keyring("access"), |request| set.explain(request));
    let told: Vec<(&str, usize, bool, &Outcome)> =
        explanation.considered.iter().map(|c| (c.policy.id.as_str(), c.policy.line, c.policy.forbids, &c.outcome)).collect();
    assert_eq!(told, [("mine", 2, false, &Outcome::Matched), ("general", 3, true, &Outcome::NotMatched)]);
    assert!(explanation.decision.allowed());
}

#[test]
fn a_list_holds_what_can_match_as_written() {
    let set = load(
        r#"permit (principal, action, resource == Keyring::"access"); // mine
permit (principal, action, resource == Keyring::"other");
permit (principal, action == Action::"readLog", resource);
@id("x")  forbid (principal, action in [Action::"rotate"], resource is Keyring);"#,
    );
    let texts: Vec<String> = set.list("access").into_iter().map(|policy| policy.text).collect();
    let expected = [
        "permit (principal, action, resource == Keyring::\"access\");",
        "@id(\"x\")  forbid (principal, action in [Action::\"rotate\"], resource is Keyring);",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn whom_a_permit_could_be_meant_for() {
    let set = load(
        r#"permit (principal == Caller::"dns:a.example", action == Action::"sign", resource == Keyring::"access") when { context.lifetime < 1 };
permit (principal, action == Action::"rotate", resource) when { principal.groups.contains("issuers") && context.time < datetime("1999-01-01") };
permit (principal, action == Action::"suspend", resource) when { principal.groups.contains("operators") && context.time < datetime("1999-01-01") };
permit (principal, action == Action::"resume", resource) when { resource.purpose == "jwt" } unless { context has sourceAddress };
forbid (principal, action, resource);"#,
    );
    let could = |id: &str, action, name| set.could_permit(&caller(id), action, Resource::Keyring(name));
    assert!(could("dns:a.example", Action::Sign, "access"));
    assert!(!could("dns:b.example", Action::Sign, "access"));
    assert!(could("dns:b.example", Action::Rotate, "access") && could("dns:b.example", Action::Rotate, "unknown"));
    assert!(!could("dns:b.example", Action::Suspend, "access"));
    assert!(could("dns:b.example", Action::Resume, "access") && !could("dns:b.example", Action::Resume, "unknown"));
    assert!(!could("dns:a.example", Action::Sign, "unknown") && !could("dns:a.example", Action::Destroy, "access"));
}

#[test]
fn the_hash_speaks_of_names_and_texts_but_not_of_their_order() {
    let hash = |files: &[(String, String)]| PolicySet::load(files, &vocabulary()).unwrap().content_hash();
    let (a, b) = (file("a", "// x"), file("b", "// y"));
    assert_eq!(hash(&[a.clone(), b.clone()]), hash(&[b.clone(), a.clone()]));
    let others = [vec![a.clone()], vec![file("a", "// y"), file("b", "// x")], vec![file("a", "// x\n"), b], vec![a, file("c", "// y")]];
    let distinct: BTreeSet<[u8; 32]> = others.iter().map(|files| hash(files)).collect();
    assert_eq!(distinct.len(), others.len());
}

/// A small world in which every part of a scope is named, wide or absent.
fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal is Caller",
        "principal == Caller::\"dns:a.example\"",
        "principal == Caller::\"dns:b.example\"",
        "principal in Caller::\"dns:a.example\"",
    ]);
    let action = prop::sample::select(vec![
        "action",
        "action == Action::\"sign\"",
        "action in [Action::\"sign\", Action::\"rotate\"]",
        "action == Action::\"readLog\"",
        "action in Action::\"approve\"",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource == Keyring::\"access\"",
        "resource == Keyring::\"hooks\"",
        "resource is Keyring",
        "resource in Keyring::\"access\"",
        "resource == Installation::\"self\"",
        "resource is Installation",
    ]);
    let condition = prop::sample::select(vec![
        "",
        "when { principal.groups.contains(\"issuers\") }",
        "when { principal.id == \"dns:b.example\" }",
        "unless { context has level }",
        "when { context has level && context.level + 9223372036854775807 > 0 }",
    ]);
    (prop::bool::weighted(0.3), principal, action, resource, condition).prop_map(|(forbid, principal, action, resource, condition)| {
        format!("{} ({principal}, {action}, {resource}) {condition};", if forbid { "forbid" } else { "permit" })
    })
}

/// Every policy of the set, evaluated in one go by Cedar itself.
fn without_slices(set: &PolicySet, request: &DecisionRequest<'_>) -> Decision {
    let all = CedarSet::from_policies(set.entries.iter().map(|entry| entry.policy.clone())).unwrap();
    let subject = set.subject(request.resource).unwrap();
    let prepared = set.prepare(request, &subject).unwrap();
    let mut answers = Answers::default();
    answers.add(&set.authorizer, &prepared, &all);
    set.conclude(answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn slices_decide_what_the_whole_set_decides(texts in prop::collection::vec(policy(), 0..8)) {
        // Policies that can never apply (an installation's action on a keyring) are warnings, so every generated set loads.
        let keyrings = vec![keyring("access", Purpose::Jwt), keyring("hooks", Purpose::Jws)];
        let vocabulary = Vocabulary { keyrings, caller_attributes: BTreeSet::from(["tenant".to_owned()]) };
        let set = PolicySet::load(&[file("a.cedar", &texts.join("\n"))], &vocabulary).unwrap_or_else(|errors| panic!("{errors}\n{texts:#?}"));
        for id in ["dns:a.example", "dns:b.example", "unix:uid=1"] {
            for action in [Action::Sign, Action::Rotate, Action::ReadLog, Action::Approve] {
                for level in [json!({}), json!({ "level": 1 })] {
                    let question = Question::new(id, action, level);
                    for resource in [Resource::Keyring("access"), Resource::Keyring("hooks"), Resource::Installation] {
                        question.ask(resource, |request| {
                            let sliced = set.decide(request);
                            // With an error, which forbids matched besides differs in nothing but Cedar's reporting.
                            prop_assert_eq!(&sliced, &without_slices(&set, request), "{:?}", (id, action, resource));
                            prop_assert!(!sliced.allowed() || set.could_permit(&question.caller, action, resource));
                            Ok(())
                        })?;
                    }
                }
            }
        }
    }
}
