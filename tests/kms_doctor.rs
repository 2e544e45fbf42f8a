//! What `claviger doctor` and a daemon say of an AWS account that does not let Claviger in, or whose keys are not what they were.

#![cfg(feature = "aws-kms")]

mod harness;
#[path = "support/kms.rs"]
mod kms;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;

use harness::{Keyring, Place, Setup, on_softhsm, wait};
use http::Response;
use hyper::body::Bytes;
use kms::{Kms, SECRET, TOKEN};
use proxy::{Act, Match, Proxy, Rule};
use serde_json::Value;

const JSON: &str = "application/x-amz-json-1.1";

/// An installation whose keyring `access` is in the account, and whose log keys are on a token.
fn setup(kms: &Kms, proxy: &Proxy) -> Setup {
    let setup = Setup::new().keyring(Keyring::jwt("access", "ES256").keystore("kms")).keystore("kms", &kms.table(&proxy.url()));
    let setup = kms.environment().into_iter().fold(setup, |setup, (name, value)| setup.environment(name, value));
    setup.secret(SECRET).secret(TOKEN)
}

/// What doctor finds: what is wrong, by what was looked at.
fn wrong(place: &Place<'_>) -> BTreeMap<String, String> {
    let output = place.claviger(&["doctor", "--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = told["findings"].as_array().expect("findings").iter().filter(|finding| finding["fine"] == false);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    findings.map(|finding| (text(&finding["what"]), text(&finding["text"]))).collect()
}

fn refusal(action: &str, code: &str, message: &str) -> Rule {
    Rule::aws_error(Match::target(action), 400, code, message)
}

#[test]
fn doctor_says_what_is_wrong_with_an_account_and_what_to_do() {
    on_softhsm("doctor_says_what_is_wrong_with_an_account_and_what_to_do", |hsm| {
        let kms = Kms::account_of("doctor");
        let proxy = Proxy::before(kms.address());
        let place = Place::new(hsm, setup(&kms, &proxy));
        let mut daemon = place.start();
        daemon.ready();
        assert!(daemon.stop().success());
        let fine = wrong(&place);
        assert!(!fine.contains_key("keystore kms"), "{fine:?}");

        let late = Response::builder().status(400).header("content-type", JSON).header("date", "Thu, 01 Jan 2026 00:00:00 GMT");
        let late =
            late.body(Bytes::from("{\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired\"}")).expect("a response");
        let denied = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:ListAliases because no identity-based policy allows it";
        for (rule, parts) in [
            (refusal("ListAliases", "UnrecognizedClientException", "x"), ["does not know the access key", "give Claviger a valid one"]),
            (refusal("ListAliases", "AccessDeniedException", denied), ["AWS denies kms:ListAliases on *", "deploy/aws/policy.json"]),
            (refusal("ListKeys", "AccessDeniedException", denied), ["AWS denies kms:ListKeys on *", "deploy/aws/policy.json"]),
            (Rule::new(Match::target("ListAliases"), Act::Answer(late)), ["clock of this machine is", "set it right"]),
        ] {
            let rule = proxy.add(rule);
            let found = wrong(&place);
            let text = found.get("keystore kms").unwrap_or_else(|| panic!("{found:?}"));
            for part in parts {
                assert!(text.contains(part), "{part}: {text}");
            }
            proxy.remove(&rule);
        }
        // Whether signing is permitted is asked without signing.
        let dry = || Match::target("Sign").body("\"DryRun\":true");
        let answer = |status, code: &str, message: &str| Rule::aws_error(dry(), status, code, message);
        let permitted =
            proxy.add(answer(412, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."));
        let found = wrong(&place);
        assert!(permitted.acted() == 1 && !found.keys().any(|what| what.contains("keystore kms")), "{found:?}");
        proxy.remove(&permitted);
        let denied = proxy.add(answer(400, "AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform: kms:Sign"));
        let found = wrong(&place);
        let text = found.get("permissions in keystore kms").unwrap_or_else(|| panic!("{found:?}"));
        assert!(text.contains("AWS denies kms:Sign") && text.contains("deploy/aws/policy.json"), "{text}");
        proxy.remove(&denied);
        place.edit_config(|text| text.replace(&format!("account = \"{}\"", kms.account()), "account = \"000000000001\""));
        let text = wrong(&place).remove("keystore kms").expect("another account");
        assert!(text.contains(kms.account()) && text.contains("correct `account`"), "{text}");
        place.edit_config(|text| text.replace("account = \"000000000001\"", &format!("account = \"{}\"", kms.account())));
        place.check_stopped();
    });
}

/// Keys that somebody disabled, ended, or gave other tags past Claviger.
#[test]
fn doctor_says_which_key_is_not_what_it_was() {
    on_softhsm("doctor_says_which_key_is_not_what_it_was", |hsm| {
        let kms = Kms::account_of("drift");
        let proxy = Proxy::before(kms.address());
        let place = Place::new(hsm, setup(&kms, &proxy));
        let mut daemon = place.start();
        daemon.ready();
        assert!(daemon.stop().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let keys = runtime.block_on(kms.owner().list_keys().send()).expect("a list");
        let signing = keys.keys()[0].key_arn().expect("an ARN").to_owned();
        let told = |place: &Place<'_>| {
            wrong(place).into_iter().filter(|(what, _)| what.starts_with("key ")).map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(told(&place), Vec::<String>::new());

        // A second key of its name, made past Claviger: nothing uses it.
        let tags = runtime.block_on(kms.owner().list_resource_tags().key_id(&signing).send()).expect("tags").tags().to_vec();
        let request = kms.owner().create_key().key_spec("ECC_NIST_P256".into()).key_usage("SIGN_VERIFY".into()).set_tags(Some(tags));
        let second = runtime.block_on(request.send()).expect("made").key_metadata.and_then(|metadata| metadata.arn).expect("an ARN");
        let found = told(&place);
        assert!(found.len() == 1 && found[0].contains("a second key of this name") && found[0].contains(&second), "{found:?}");
        runtime.block_on(kms.owner().schedule_key_deletion().key_id(&second).send()).expect("scheduled");
        assert_eq!(told(&place), Vec::<String>::new());

        runtime.block_on(kms.owner().disable_key().key_id(&signing).send()).expect("disabled");
        let found = told(&place);
        assert!(found.len() == 1 && found[0].contains("key-state is Disabled, was Enabled"), "{found:?}");
        assert!(found[0].contains("aws kms enable-key"), "{found:?}");

        runtime.block_on(kms.owner().schedule_key_deletion().key_id(&signing).send()).expect("scheduled");
        let found = told(&place);
        assert!(found.len() == 1 && found[0].contains("aws kms cancel-key-deletion"), "{found:?}");

        runtime.block_on(kms.owner().cancel_key_deletion().key_id(&signing).send()).expect("cancelled");
        runtime.block_on(kms.owner().enable_key().key_id(&signing).send()).expect("enabled");
        let edit = |answer: &mut Response<Bytes>| {
            let text = String::from_utf8_lossy(answer.body()).replace("\"KeySpec\": \"ECC_NIST_P256\"", "\"KeySpec\": \"ECC_NIST_P384\"");
            *answer.body_mut() = Bytes::from(text);
        };
        proxy.add(Rule::new(Match::target("DescribeKey").body(&signing), Act::Edit(std::sync::Arc::new(edit))));
        let found = told(&place);
        assert!(found.len() == 1 && found[0].contains("key-spec is ECC_NIST_P384, was ECC_NIST_P256"), "{found:?}");
        proxy.clear();
        place.check_stopped();
    });
}
