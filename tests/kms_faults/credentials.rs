//! Where credentials come from, and what is said of each way that fails. The emulator gives every role to everybody, so a proxy refuses.

use std::path::Path;

use claviger::keystore::aws_kms::AwsKmsSettings;
use claviger::keystore::{Class, Keystore as _, KeystoreError};
use claviger_audit::Algorithm;

use crate::support::kms::{Kms, SECRET, TOKEN};
use crate::support::proxy::{Act, Match, Proxy, Rule};
use crate::{Bench, within};

/// Changes of a child's environment.
type Changes = Vec<(&'static str, Option<String>)>;

/// No credentials in the environment itself.
fn bare() -> Changes {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(|name| (name, None)).to_vec()
}

fn write(folder: &Path, file: &str, text: &str) -> String {
    let file = folder.join(file);
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("a path in UTF-8").to_owned()
}

fn role(kms: &Kms) -> String {
    format!("arn:aws:iam::{}:role/claviger", kms.account())
}

/// A profile with keys, and one whose role is assumed with them.
fn profiles(kms: &Kms, folder: &Path) -> Changes {
    let keys = format!("[keys]\naws_access_key_id = {}\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n", kms.account());
    let config = format!(
        "[profile role]\nrole_arn = {}\nsource_profile = keys\n[profile program]\ncredential_process = /bin/true\n[profile half]\nregion = x\n",
        role(kms)
    );
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", Some(write(folder, "credentials", &keys))),
        ("AWS_CONFIG_FILE", Some(write(folder, "config", &config))),
    ];
    bare().into_iter().chain(files).collect()
}

/// A role for whoever has this token.
fn web_identity(kms: &Kms, folder: &Path) -> Changes {
    let role =
        [("AWS_ROLE_ARN", Some(role(kms))), ("AWS_WEB_IDENTITY_TOKEN_FILE", Some(write(folder, "token", "a-token-that-nobody-may-print")))];
    bare().into_iter().chain(role).collect()
}

/// STS as the SDK's own way to a role sees it: behind a proxy with this rule.
fn sts(kms: &Kms, rule: Rule) -> (Proxy, (&'static str, Option<String>)) {
    let proxy = Proxy::before(kms.address());
    proxy.add(rule);
    let url = proxy.url();
    (proxy, ("AWS_ENDPOINT_URL_STS", Some(url)))
}

fn refused(action: &str, status: u16, code: &str) -> Rule {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>a-token-that-nobody-may-print</Message></Error></ErrorResponse>"
    );
    Rule::answer(Match::any().body(&format!("Action={action}&")), status, "text/xml", body)
}

fn with_profile(kms: &Kms, profile: &str) -> Bench {
    Bench::with(kms, |settings| AwsKmsSettings { profile: Some(profile.to_owned()), ..settings })
}

async fn signs(bench: &Bench) {
    let key = bench.key(1, Algorithm::ES256).await;
    bench.sign(&key, Class::Interactive).await.expect("signed");
}

/// What health says, without a secret.
async fn told(bench: &Bench) -> (bool, String) {
    let (lasting, text) = match bench.keystore.health().await {
        Err(KeystoreError::Rejected(text)) => (true, text),
        Err(KeystoreError::Unavailable { reason, .. }) => (false, reason),
        other => panic!("{other:?}"),
    };
    assert!(!text.contains("nobody-may-print"), "{text}");
    (lasting, text)
}

#[test]
fn a_profile_gives_keys_or_a_role() {
    Kms::in_child_with(
        "credentials::a_profile_gives_keys_or_a_role",
        |kms, folder| ((), profiles(kms, folder)),
        |kms| {
            within(async {
                signs(&with_profile(kms, "keys")).await;
                let bench = with_profile(kms, "role");
                signs(&bench).await;
                let authorization = http::header::AUTHORIZATION;
                let signed_as_owner = |asked: &crate::support::proxy::Asked| {
                    asked.header(&authorization).is_some_and(|value| value.contains(&format!("Credential={}/", kms.account())))
                };
                assert!(!bench.proxy.asked().iter().any(signed_as_owner), "the role's own keys sign");
                for profile in ["program", "half", "absent"] {
                    let (lasting, text) = told(&with_profile(kms, profile)).await;
                    assert!(
                        lasting && text.contains("there are no AWS credentials") && text.contains("`credential_process`"),
                        "{profile}: {text}"
                    );
                }
            });
        },
    );
}

#[test]
fn a_web_identity_gives_a_role() {
    Kms::in_child_with(
        "credentials::a_web_identity_gives_a_role",
        |kms, folder| ((), web_identity(kms, folder)),
        |kms| {
            within(async { signs(&Bench::new(kms)).await });
        },
    );
}

#[test]
fn a_role_that_a_profile_may_not_have_is_told_as_such() {
    let change = |kms: &Kms, folder: &Path| {
        let (proxy, endpoint) = sts(kms, refused("AssumeRole", 403, "AccessDenied"));
        (proxy, profiles(kms, folder).into_iter().chain([endpoint]).collect())
    };
    Kms::in_child_with("credentials::a_role_that_a_profile_may_not_have_is_told_as_such", change, |kms| {
        within(async {
            let (lasting, text) = told(&with_profile(kms, "role")).await;
            assert!(lasting, "{text}");
            for part in ["STS refuses the role", "AccessDenied", "trust policy", "`role_arn`"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        });
    });
}

#[test]
fn a_web_identity_that_is_refused_is_told_as_such() {
    let change = |kms: &Kms, folder: &Path| {
        let (proxy, endpoint) = sts(kms, refused("AssumeRoleWithWebIdentity", 400, "InvalidIdentityToken"));
        (proxy, web_identity(kms, folder).into_iter().chain([endpoint]).collect())
    };
    Kms::in_child_with("credentials::a_web_identity_that_is_refused_is_told_as_such", change, |kms| {
        within(async {
            let (lasting, text) = told(&Bench::new(kms)).await;
            assert!(lasting && text.contains("STS refuses the role") && text.contains("InvalidIdentityToken"), "{text}");
            assert!(text.contains("AWS_ROLE_ARN") && text.contains("service account's token"), "{text}");
        });
    });
}

#[test]
fn what_gives_credentials_and_fails_is_told_apart_from_having_none() {
    let change = |kms: &Kms, folder: &Path| {
        let (proxy, endpoint) = sts(kms, Rule::new(Match::any().body("AssumeRole"), Act::LoseRequest));
        let changes = profiles(kms, folder)
            .into_iter()
            .chain(web_identity(kms, folder))
            .chain([("AWS_WEB_IDENTITY_TOKEN_FILE", Some("/nonexistent/token".to_owned())), endpoint]);
        (proxy, changes.collect())
    };
    Kms::in_child_with("credentials::what_gives_credentials_and_fails_is_told_apart_from_having_none", change, |kms| {
        within(async {
            for (bench, part) in [(Bench::new(kms), "No such file"), (with_profile(kms, "role"), "whether STS is reachable")] {
                let (lasting, text) = told(&bench).await;
                assert!(!lasting && text.contains("what gives the AWS credentials") && text.contains("failed"), "{text}");
                assert!(text.contains(part) && text.contains("hop limit of 2"), "{part}: {text}");
            }
        });
    });
}
