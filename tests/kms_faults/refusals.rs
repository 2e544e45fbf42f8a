//! What AWS refuses for good, and the sentences that say what to do. `claviger doctor` shows the same ones (`tests/kms_doctor.rs`).

use std::fmt::Debug;
use std::io::Write as _;
use std::time::Duration;

use claviger::clock::Clock as _;
use claviger::keystore::{Class, Keystore as _, KeystoreError};
use claviger_audit::Algorithm;
use http::{HeaderValue, Response};
use hyper::body::Bytes;

use crate::support::kms::{Kms, SECRET, TOKEN};
use crate::support::proxy::{Act, Match, Rule};
use crate::{Bench, JSON, faulty, on_a_bench, refusal, within};

fn rejected<T: Debug>(outcome: Result<T, KeystoreError>) -> String {
    match outcome {
        Err(KeystoreError::Rejected(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_credential_is_told_with_what_to_do() {
    on_a_bench("refusals::a_refused_credential_is_told_with_what_to_do", |bench| async move {
        for (code, told) in [
            ("UnrecognizedClientException", "AWS does not know the access key"),
            ("ExpiredTokenException", "session token that kms:ListAliases on * was signed with has expired"),
            ("MissingAuthenticationToken", "give Claviger a valid one"),
            ("SomethingNew", "AWS refuses kms:ListAliases on *: SomethingNew, HTTP 400"),
        ] {
            bench.proxy.add(refusal("ListAliases", 400, code, "The security token included in the request is invalid.").times(1));
            let text = rejected(bench.keystore.health().await);
            assert!(text.contains(told) && text.contains("kms:ListAliases"), "{code}: {text}");
        }
        bench.keystore.health().await.expect("healthy");
        // STS speaks XML, and is asked first.
        let fresh = Bench::new(&bench.kms);
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>x</Message></Error></ErrorResponse>";
        fresh.proxy.add(Rule::answer(Match::any().body("GetCallerIdentity"), 403, "text/xml", body));
        let text = rejected(fresh.keystore.health().await);
        assert!(text.contains("sts:GetCallerIdentity") && text.contains("does not know the access key"), "{text}");
    });
}

#[test]
fn a_missing_permission_names_the_action_and_the_resource() {
    on_a_bench("refusals::a_missing_permission_names_the_action_and_the_resource", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        // A process that did not make the key a moment ago waits for nothing.
        let later = Bench::new(&bench.kms);
        later.keystore.health().await.expect("healthy");
        let arn = key.locator.as_str();
        let says = format!("User: arn:aws:iam::1:user/x is not authorized to perform: kms:Sign on resource: {arn}");
        let denied = later.proxy.add(refusal("Sign", 400, "AccessDeniedException", &says));
        let text = rejected(later.sign(&key, Class::Interactive).await);
        for part in ["AWS denies kms:Sign", arn, "deploy/aws/policy.json", "arn:aws:iam::1:user/x"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(denied.acted(), 1);
        for action in ["DisableKey", "ScheduleKeyDeletion"] {
            let rule = later.proxy.add(refusal(action, 400, "AccessDeniedException", "no"));
            let text = rejected(later.keystore.destroy(&key.locator).await);
            assert!(text.contains(&format!("kms:{action} on {arn}")), "{text}");
            later.proxy.remove(&rule);
            // Disabling was denied, deleting was not: the key is gone all the same.
            later.keystore.destroy(&key.locator).await.expect("destroyed");
            if action == "DisableKey" {
                bench.kms.owner().cancel_key_deletion().key_id(arn).send().await.expect("cancelled");
            }
        }
    });
}

/// Tags of a new key may not count yet, so a denial is waited for; what is left at the end is told as a denial, not as a lost answer.
#[test]
fn a_denial_that_stays_on_a_new_key_is_told_as_one() {
    on_a_bench("refusals::a_denial_that_stays_on_a_new_key_is_told_as_one", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let denied = bench.proxy.add(refusal("Sign", 400, "AccessDeniedException", "is not authorized to perform: kms:Sign"));
        for outcome in [bench.sign(&key, Class::Interactive).await, bench.sign_within(&key, Duration::from_millis(500)).await] {
            let Err(KeystoreError::Rejected(reason)) = outcome else { panic!("{outcome:?}") };
            for part in ["AWS denies kms:Sign", key.locator.as_str(), "up to 5 minutes"] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        assert!(denied.acted() > 3, "it was asked for again");
        // After that time it is a denial and nothing else.
        bench.clock.put(Duration::from_mins(5));
        let text = rejected(bench.sign(&key, Class::Interactive).await);
        assert!(text.contains("AWS denies kms:Sign") && !text.contains("minutes"), "{text}");
        bench.proxy.remove(&denied);
        bench.sign(&key, Class::Interactive).await.expect("it was no outage");
    });
}

#[test]
fn a_skewed_clock_is_told_apart_from_a_wrong_secret() {
    on_a_bench("refusals::a_skewed_clock_is_told_apart_from_a_wrong_secret", |bench| async move {
        let dated = |seconds: i64, code: &str| {
            let date = httpdate(bench.clock.wall().seconds() + seconds);
            let body = format!("{{\"__type\":\"{code}\",\"message\":\"Signature expired\"}}");
            let answer = Response::builder().status(400).header("content-type", JSON).header("date", date).body(Bytes::from(body));
            faulty("ListAliases", Act::Answer(answer.expect("a response"))).times(1)
        };
        for (seconds, told) in [(-700, "s ahead of AWS's"), (700, "s behind AWS's")] {
            for code in ["InvalidSignatureException", "RequestExpired"] {
                bench.proxy.add(dated(seconds, code));
                let text = rejected(bench.keystore.health().await);
                assert!(text.contains(told) && text.contains("NTP"), "{text}");
                assert!(["69", "70"].iter().any(|start| text.contains(&format!("is {start}"))), "the number of seconds: {text}");
            }
        }
        bench.proxy.add(dated(3, "InvalidSignatureException"));
        let text = rejected(bench.keystore.health().await);
        assert!(text.contains("secret access key does not belong") && text.contains("the clock is right"), "{text}");
    });
}

/// RFC 9110 section 5.6.7.
fn httpdate(seconds: i64) -> HeaderValue {
    use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
    let date = DateTime::from_secs(seconds).fmt(DateTimeFormat::HttpDate).expect("a date");
    HeaderValue::from_str(&date).expect("text")
}

#[test]
fn what_is_not_aws_is_told_as_such() {
    on_a_bench("refusals::what_is_not_aws_is_told_as_such", |bench| async move {
        for status in [401, 403, 404, 407] {
            bench
                .proxy
                .add(Rule::answer(Match::target("ListAliases"), status, "text/html", "<html>Log in to this network</html>").times(1));
            let text = rejected(bench.keystore.health().await);
            assert!(text.contains("something that is not AWS") && text.contains(&format!("HTTP {status}")), "{text}");
        }
    });
}

#[test]
fn a_key_of_another_kind_is_told_as_such() {
    on_a_bench("refusals::a_key_of_another_kind_is_told_as_such", |bench| async move {
        let key = bench.key(1, Algorithm::RS256).await;
        let text = rejected(bench.sign(&key, Class::Interactive).await);
        assert!(text.contains("is not what the key was made for"), "{text}");
    });
}

/// AWS quotes the request when it refuses a signature, and the session token stands in it.
#[test]
fn no_secret_is_in_any_answer() {
    on_a_bench("refusals::no_secret_is_in_any_answer", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let sent = bench.proxy.asked();
        let header = http::HeaderName::from_static("x-amz-security-token");
        assert!(sent.iter().any(|asked| asked.header(&header) == Some(TOKEN)), "the token is what AWS gets");
        assert!(!sent.iter().any(|asked| format!("{asked:?}").contains(SECRET)), "and the secret nobody");
        let canonical = format!("The Canonical String for this request should have been 'POST x-amz-security-token:{TOKEN} {SECRET}'");
        for code in
            ["InvalidSignatureException", "SignatureDoesNotMatch", "ValidationException", "IncompleteSignature", "DisabledException", "New"]
        {
            for action in ["Sign", "ListAliases", "CreateKey", "DescribeKey"] {
                bench.proxy.add(refusal(action, 400, code, &canonical));
            }
            let told = [
                format!("{:?}", bench.sign(&key, Class::Interactive).await),
                format!("{:?}", bench.keystore.create(&crate::name(2), Algorithm::ES256).await),
                format!("{:?}", bench.keystore.inspect(&key.locator).await),
                format!("{:?} {:?}", bench.keystore.condition(), bench.kms.settings("http://127.0.0.1")),
            ];
            bench.proxy.clear();
            for text in told {
                // The parent looks through all output once more.
                writeln!(std::io::stdout(), "{text}").expect("the parent listens");
                assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
            }
        }
    });
}

/// What the environment says of credentials is all that is taken from it; without any, the sentence names every way to give some.
#[test]
fn a_missing_credential_is_told_with_every_way_to_give_one() {
    Kms::in_child("refusals::a_missing_credential_is_told_with_every_way_to_give_one", |kms| {
        within(async {
            let bench =
                Bench::with(kms, |settings| claviger::keystore::aws_kms::AwsKmsSettings { profile: Some("absent".into()), ..settings });
            let text = rejected(bench.keystore.health().await);
            for part in ["there are no AWS credentials", "AWS_ACCESS_KEY_ID", "`profile`", "SSO", "`credential_process` are not supported"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert_eq!(bench.proxy.asked().len(), 0);
        });
    });
}
