//! AWS KMS: what must be said, and one error for each way to say it wrong.

use super::*;
use crate::config::keystore::KINDS;

const ACCOUNT: &str = "account = \"111122223333\"";

/// The settings of the example's account, with one change.
fn settings(from: &str, to: &str) -> AwsKmsSettings {
    match parse(&with(from, to)).expect("right").keystores.remove("kms").expect("it is there") {
        KeystoreConfig::AwsKms(settings) => settings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn region_and_account_are_enough_and_nothing_else_is_assumed() {
    let text = "type = \"aws-kms\"\nregion = \"eu-central-1\"\naccount = \"111122223333\"\n";
    let start = EXAMPLE.find("[keystore.kms]").unwrap();
    let end = start + EXAMPLE[start..].find("\n\n").unwrap();
    let plain = EXAMPLE.replace(&EXAMPLE[start..end], &format!("[keystore.kms]\n{text}"));
    let config = parse(&plain).expect("right");
    let expected = AwsKmsSettings {
        region: "eu-central-1".into(),
        account: "111122223333".into(),
        endpoint: None,
        sts_endpoint: None,
        profile: None,
        deletion_window: 30,
        requests_per_second: 500,
    };
    assert_eq!(config.keystores["kms"], KeystoreConfig::AwsKms(expected));
    let told = serde_json::to_value(&config.effective().keystores["kms"]).unwrap();
    let expected = serde_json::json!({
        "type": "aws-kms", "account": "111122223333", "region": "eu-central-1", "deletion_window": "30d", "requests_per_second": 500
    });
    assert_eq!(told, expected);
    assert_eq!(config.keystores["kms"].allowance(), None);
    assert!(KINDS.contains(&"aws-kms"));
}

#[test]
fn what_is_wrong_is_told_with_what_to_write() {
    let account = "write the number of the account, 12 digits in quotes: credentials of another one are refused";
    assert_eq!(errors(ACCOUNT, ""), [format!("keystore.kms.account: is missing; {account}")]);
    for wrong in ["\"1111\"", "\"arn:aws:iam:\""] {
        let expected = format!("keystore.kms.account: is not the number of an AWS account; {account}");
        assert_eq!(errors(ACCOUNT, &format!("account = {wrong}")), [expected]);
    }
    assert_eq!(errors(ACCOUNT, "account = 111122223333").len(), 1, "a number loses its zeros");
    assert_eq!(
        errors("region = \"eu-central-1\"", ""),
        ["keystore.kms.region: is missing; write the region, such as \"eu-central-1\": the environment's is not asked"]
    );
    for region in ["", "Frankfurt", "eu_central_1", "eu-central-1/x"] {
        let told = errors("region = \"eu-central-1\"", &format!("region = {region:?}"));
        assert_eq!(told, ["keystore.kms.region: is not a region; write one such as \"eu-central-1\""]);
    }
    let endpoint = "endpoint = \"https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com\"";
    let told = errors(endpoint, "endpoint = \"http://kms.example.org\"");
    assert!(told.len() == 1 && told[0].starts_with("keystore.kms.endpoint: does not begin with https://"), "{told:?}");
    assert_eq!(settings(endpoint, "endpoint = \"http://127.0.0.1:4566\"").endpoint.as_deref(), Some("http://127.0.0.1:4566"));
    let told = errors("profile = \"claviger\"", "profile = \" \"");
    assert!(told.len() == 1 && told[0].starts_with("keystore.kms.profile: is empty"), "{told:?}");
    let told = errors("requests_per_second = 500", "requests_per_second = 0");
    assert_eq!(told, ["keystore.kms.requests_per_second: 0 is out of bounds; write a number from 1 to 100000"]);
}

#[test]
fn a_key_waits_seven_to_thirty_whole_days() {
    let window = "deletion_window = \"30d\"";
    assert_eq!(settings(window, "deletion_window = \"7d\"").deletion_window, 7);
    for wrong in ["6d", "31d", "0s"] {
        let told = errors(window, &format!("deletion_window = {wrong:?}"));
        assert!(told.len() == 1 && told[0].starts_with("keystore.kms.deletion_window: "), "{told:?}");
    }
    let told = errors(window, "deletion_window = \"8d 1h\"");
    assert_eq!(told, ["keystore.kms.deletion_window: is not a number of whole days; write days, such as \"30d\""]);
}

#[test]
fn settings_of_another_kind_have_no_effect_and_are_refused() {
    let told = errors("requests_per_second = 500", "requests_per_second = 500\nworkers = 2");
    assert!(told.len() == 1 && told[0].starts_with("keystore.kms.workers: has no effect on a keystore of type \"aws-kms\""), "{told:?}");
    let text = EXAMPLE.replace("token = \"claviger\"", "token = \"claviger\"\nregion = \"eu-central-1\"");
    let told = errors_of(&text);
    assert!(told.len() == 1 && told[0].starts_with("keystore.hsm.region: has no effect on a keystore of type \"pkcs11\""), "{told:?}");
}

#[test]
fn one_account_in_one_region_is_one_keystore() {
    let second = |region: &str| {
        let endpoint = "endpoint = \"https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com\"";
        format!("{}\n[keystore.two]\ntype = \"aws-kms\"\n{ACCOUNT}\nregion = {region:?}\n{endpoint}\n", *EXAMPLE)
    };
    assert!(parse(&second("eu-west-1")).is_ok());
    assert_eq!(
        errors_of(&second("eu-central-1")),
        ["keystore.two.account: keystore kms has this account and region too; remove one: an account in a region is one keystore"]
    );
}
