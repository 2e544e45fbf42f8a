//! Signatures while KMS throttles, fails, hangs or loses answers.

use std::time::Duration;

use claviger::keystore::{Class, Keystore as _, KeystoreError, Made};
use claviger_audit::Algorithm;
use http::Response;
use hyper::body::Bytes;
use tokio::time::timeout;

use crate::support::contract::verified;
use crate::support::kms::Kms;
use crate::support::proxy::{Act, Match, Rule};
use crate::{Bench, SOON, faulty, on_a_bench, refusal, within};

fn unavailable(outcome: Result<claviger::keystore::Signature, KeystoreError>) -> (String, Duration) {
    match outcome {
        Err(KeystoreError::Unavailable { reason, after }) => (reason, after),
        other => panic!("{other:?}"),
    }
}

/// Asks until KMS signs again: the breaker lets one through now and then.
async fn signs_again(bench: &Bench, key: &Made) {
    let asking = async {
        loop {
            match bench.sign(key, Class::Interactive).await {
                Ok(signature) => break signature,
                Err(KeystoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let signature = timeout(SOON, asking).await.expect("soon");
    assert!(verified(&key.public, Algorithm::ES256, b"x", &signature.bytes));
}

/// Asks until KMS is left alone. The first pause is short, so that a stalled machine may miss it; the pauses grow.
async fn left_alone(bench: &Bench, key: &Made, rule: &Rule) -> (String, Duration) {
    loop {
        let before = rule.acted();
        let outcome = bench.sign(key, Class::Interactive).await;
        if rule.acted() == before {
            return unavailable(outcome);
        }
    }
}

#[test]
fn throttling_is_told_and_sheds_batches_first() {
    on_a_bench("signing::throttling_is_told_and_sheds_batches_first", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        for (status, code) in [(400, "ThrottlingException"), (400, "RequestLimitExceeded"), (429, "")] {
            // The wait of batches lasts a second, which a stalled machine may miss: then KMS throttles once more.
            let shed = async {
                loop {
                    let rule = bench.proxy.add(refusal("Sign", status, code, "Rate exceeded").times(1));
                    let (reason, after) = unavailable(bench.sign(&key, Class::Own).await);
                    assert!(reason.contains("kms:Sign") && reason.contains("requests_per_second"), "{reason}");
                    assert_eq!((after, rule.acted()), (Duration::from_secs(1), 1));
                    let before = bench.asked("Sign");
                    if matches!(bench.sign(&key, Class::Batch).await, Err(KeystoreError::Overloaded)) {
                        assert_eq!(bench.asked("Sign"), before, "AWS is not asked");
                        break;
                    }
                }
            };
            timeout(SOON, shed).await.expect("a batch waits");
            bench.sign(&key, Class::Own).await.expect("Claviger's own work goes on");
        }
        assert_eq!(bench.keystore.condition().reopened.sessions, 0, "throttling is no outage");
        bench.keystore.health().await.expect("healthy");
    });
}

#[test]
fn a_budget_that_is_used_up_refuses_before_aws_is_asked() {
    Kms::in_child("signing::a_budget_that_is_used_up_refuses_before_aws_is_asked", |kms| {
        within(async {
            let bench = Bench::with(kms, |settings| claviger::keystore::aws_kms::AwsKmsSettings { requests_per_second: 1, ..settings });
            let key = bench.key(1, Algorithm::ES256).await;
            // Spends everything, and more than comes back within the next minute.
            for _ in 0..60 {
                bench.sign(&key, Class::Own).await.expect("Claviger's own work goes on");
            }
            let before = bench.asked("Sign");
            for class in [Class::Batch, Class::Interactive] {
                assert!(matches!(bench.sign(&key, class).await, Err(KeystoreError::Overloaded)), "{class:?}");
            }
            assert_eq!(bench.asked("Sign"), before);
            // RSA has a quota of its own.
            let rsa = bench.key(2, Algorithm::RS256).await;
            let terms = claviger::keystore::Terms { class: Class::Interactive, ..claviger::keystore::Terms::own(far(&bench)) };
            let digest = crate::support::contract::input(Algorithm::RS256, b"x");
            bench.keystore.sign(&rsa.locator, Algorithm::RS256, digest, terms).await.expect("signed");
        });
    });
}

fn far(bench: &Bench) -> claviger::clock::Monotonic {
    use claviger::clock::Clock as _;
    bench.clock.monotonic().plus(SOON)
}

#[test]
fn an_outage_is_noticed_left_alone_and_ends_by_itself() {
    on_a_bench("signing::an_outage_is_noticed_left_alone_and_ends_by_itself", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        for (number, rule) in (1..).zip([
            refusal("Sign", 500, "KMSInternalException", "try again"),
            refusal("Sign", 400, "DependencyTimeoutException", "try again"),
            refusal("Sign", 503, "ServiceUnavailable", ""),
        ]) {
            let rule = bench.proxy.add(rule);
            for _ in 0..3 {
                let (reason, _) = unavailable(bench.sign(&key, Class::Interactive).await);
                assert!(reason.contains("kms:Sign"), "{reason}");
            }
            assert_eq!(rule.acted(), 3);
            let (_, after) = left_alone(&bench, &key, &rule).await;
            assert!(!after.is_zero() && after <= Duration::from_secs(8), "{after:?}");
            bench.proxy.remove(&rule);
            signs_again(&bench, &key).await;
            let reopened = bench.keystore.condition().reopened;
            assert_eq!(reopened.sessions, number, "{reopened:?}");
            assert!(reopened.cause.contains("kms:Sign"), "{reopened:?}");
        }
    });
}

#[test]
fn what_is_refused_at_the_door_was_never_sent() {
    Kms::in_child("signing::what_is_refused_at_the_door_was_never_sent", |kms| {
        within(async {
            let bench = Bench::new(kms);
            let key = bench.key(1, Algorithm::ES256).await;
            let nobody =
                std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port without a listener");
            let closed = Bench::with(kms, |settings| claviger::keystore::aws_kms::AwsKmsSettings {
                endpoint: Some(format!("http://{nobody}")),
                ..settings
            });
            let (reason, _) = unavailable(closed.sign(&key, Class::Own).await);
            assert!(reason.contains("could not be sent") && reason.contains("`endpoint`"), "{reason}");
        });
    });
}

/// A proxy or a load balancer that got no answer does not know whether KMS signed.
#[test]
fn what_stands_before_kms_and_fails_may_hide_a_signature() {
    on_a_bench("signing::what_stands_before_kms_and_fails_may_hide_a_signature", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        for status in [502, 503, 504] {
            let rule = bench.proxy.add(Rule::answer(Match::target("Sign"), status, "text/html", "<html>Bad Gateway</html>"));
            let outcome = bench.sign(&key, Class::Interactive).await;
            assert!(matches!(outcome, Err(KeystoreError::Unanswered)), "{status}: {outcome:?}");
            bench.proxy.remove(&rule);
            bench.sign(&key, Class::Interactive).await.expect("signed");
        }
        let rule = bench.proxy.add(Rule::answer(Match::target("Sign"), 502, "text/html", "<html>Bad Gateway</html>"));
        for _ in 0..3 {
            assert!(matches!(bench.sign(&key, Class::Interactive).await, Err(KeystoreError::Unanswered)));
        }
        let (reason, _) = left_alone(&bench, &key, &rule).await;
        assert!(reason.contains("HTTP 502") && reason.contains("load balancer"), "{reason}");
    });
}

/// KMS answers everything but signatures: that is an outage, and no other answer ends it.
#[test]
fn only_a_signature_ends_an_outage_of_signatures() {
    on_a_bench("signing::only_a_signature_ends_an_outage_of_signatures", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let rule = bench.proxy.add(refusal("Sign", 500, "KMSInternalException", "try again"));
        for _ in 0..3 {
            unavailable(bench.sign(&key, Class::Interactive).await);
            bench.keystore.health().await.expect("it answers");
        }
        assert_eq!(rule.acted(), 3);
        assert!(bench.asked("ListAliases") >= 3, "health did ask");
        // Each answer lets one signature try, and none is a recovery.
        for _ in 0..3 {
            bench.keystore.health().await.expect("it answers");
            unavailable(bench.sign(&key, Class::Interactive).await);
            left_alone(&bench, &key, &rule).await;
            assert_eq!(bench.keystore.condition().reopened.sessions, 0);
        }
        bench.proxy.remove(&rule);
        bench.keystore.health().await.expect("it answers");
        bench.sign(&key, Class::Interactive).await.expect("signed");
        bench.keystore.health().await.expect("it answers");
        assert_eq!(bench.keystore.condition().reopened.sessions, 1);
    });
}

/// A request that was sent and not wholly answered may have been served: whoever counts signatures must know.
#[test]
fn a_lost_or_broken_answer_is_not_called_a_refusal() {
    on_a_bench("signing::a_lost_or_broken_answer_is_not_called_a_refusal", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        for act in [Act::LoseRequest, Act::LoseAnswer, Act::CutAnswer(0), Act::CutAnswer(20)] {
            let rule = bench.proxy.add(faulty("Sign", act).times(1));
            let outcome = bench.sign(&key, Class::Interactive).await;
            assert!(matches!(outcome, Err(KeystoreError::Unanswered)), "{outcome:?}");
            assert_eq!(rule.acted(), 1, "one request, and none made again behind the signer's back");
            bench.sign(&key, Class::Interactive).await.expect("the next one");
        }
    });
}

#[test]
fn a_hang_is_waited_for_no_longer_than_the_deadline() {
    on_a_bench("signing::a_hang_is_waited_for_no_longer_than_the_deadline", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let hang = bench.proxy.add(faulty("Sign", Act::Hang));
        let hurried = bench.sign_within(&key, Duration::from_millis(200));
        let outcome = timeout(SOON, hurried).await.expect("the deadline holds");
        assert!(matches!(outcome, Err(KeystoreError::Unanswered)), "{outcome:?}");
        // Whoever has no deadline to speak of is not held for it; after three of them KMS is left alone.
        let patient = || async { bench.sign_within(&key, Duration::from_hours(1)).await };
        let (one, two, three) = timeout(SOON, async { tokio::join!(patient(), patient(), patient()) }).await.expect("given up");
        for outcome in [one, two, three] {
            assert!(matches!(outcome, Err(KeystoreError::Unanswered)), "{outcome:?}");
        }
        let (reason, _) = left_alone(&bench, &key, &hang).await;
        assert!(reason.contains("no whole answer"), "{reason}");
        bench.proxy.remove(&hang);
        signs_again(&bench, &key).await;
    });
}

#[test]
fn health_tells_an_outage_and_its_end() {
    on_a_bench("signing::health_tells_an_outage_and_its_end", |bench| async move {
        bench.keystore.health().await.expect("healthy");
        let hang = bench.proxy.add(faulty("ListAliases", Act::Hang));
        let outcome = timeout(SOON, bench.keystore.health()).await.expect("health is quick");
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "no signature was asked for: {outcome:?}");
        bench.proxy.remove(&hang);
        let broken = bench.proxy.add(refusal("ListAliases", 503, "ServiceUnavailable", ""));
        let outcome = bench.keystore.health().await;
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
        bench.proxy.remove(&broken);
        let throttled = bench.proxy.add(refusal("ListAliases", 400, "ThrottlingException", "").times(1));
        bench.keystore.health().await.expect("it answers, though it is busy");
        assert_eq!(throttled.acted(), 1);
        bench.keystore.health().await.expect("healthy");
    });
}

#[test]
fn ed25519_takes_4096_bytes_and_no_more() {
    on_a_bench("signing::ed25519_takes_4096_bytes_and_no_more", |bench| async move {
        let key = bench.key(1, Algorithm::EdDSA).await;
        let message = vec![7; 4096];
        let signature = bench.sign_message(&key, message.clone()).await.expect("signed");
        assert!(verified(&key.public, Algorithm::EdDSA, &message, &signature.bytes));
        let before = bench.asked("Sign");
        let outcome = bench.sign_message(&key, vec![7; 4097]).await;
        assert!(matches!(&outcome, Err(KeystoreError::Rejected(text)) if text.contains("at most 4096")), "{outcome:?}");
        assert_eq!(bench.asked("Sign"), before, "the emulator would have signed it");
    });
}

#[test]
fn what_is_no_signature_is_not_handed_on() {
    on_a_bench("signing::what_is_no_signature_is_not_handed_on", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        for nonsense in ["{", "{}", "<html>welcome to this network</html>"] {
            let answer = Response::builder().status(200).header("x-amzn-requestid", "its-id").body(Bytes::from(nonsense));
            bench.proxy.add(faulty("Sign", Act::Answer(answer.expect("a response"))).times(1));
            let outcome = bench.sign(&key, Class::Interactive).await;
            let Err(KeystoreError::Unusable { backend_request, .. }) = &outcome else { panic!("{nonsense}: {outcome:?}") };
            assert_eq!(backend_request.as_deref(), Some("its-id"), "AWS's record may show a signature");
            bench.sign(&key, Class::Own).await.expect("the next one");
        }
        for signature in ["", "AAAA", "MEQCIA=="] {
            let body = format!("{{\"KeyId\":\"x\",\"Signature\":\"{signature}\",\"SigningAlgorithm\":\"ECDSA_SHA_256\"}}");
            bench.proxy.add(Rule::answer(Match::target("Sign"), 200, crate::JSON, body).times(1));
            let outcome = bench.sign(&key, Class::Interactive).await;
            assert!(matches!(outcome, Err(KeystoreError::Unusable { .. })), "{outcome:?}");
        }
    });
}
