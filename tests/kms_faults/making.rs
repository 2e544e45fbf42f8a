//! Keys while KMS is eventually consistent, refuses, cuts its listings or loses answers.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::types::KeyState;
use claviger::clock::Clock as _;
use claviger::keystore::aws_kms::AwsKmsSettings;
use claviger::keystore::{Class, Keystore as _, KeystoreError};
use claviger_audit::Algorithm;
use http::Response;
use hyper::body::Bytes;
use tokio::time::timeout;

use crate::support::contract::verified;
use crate::support::kms::Kms;
use crate::support::proxy::{Act, Match, Rule};
use crate::{Bench, JSON, SOON, faulty, name, on_a_bench, refusal, within};

/// What was just made is not seen for a while: neither the key nor its first signature fails.
#[test]
fn a_new_key_that_is_not_seen_yet_is_asked_for_again() {
    on_a_bench("making::a_new_key_that_is_not_seen_yet_is_asked_for_again", |bench| async move {
        let unseen = |action, skip| bench.proxy.add(refusal(action, 400, "NotFoundException", "not yet").skip(skip).times(2));
        // The first description is that of the alias.
        let rules = [
            unseen("DescribeKey", 1),
            unseen("ListResourceTags", 0),
            unseen("GetPublicKey", 0),
            unseen("CreateAlias", 0),
            unseen("Sign", 0),
        ];
        let key = bench.key(1, Algorithm::ES256).await;
        let signature = bench.sign(&key, Class::Own).await.expect("signed");
        assert!(verified(&key.public, Algorithm::ES256, b"x", &signature.bytes));
        for rule in &rules {
            assert_eq!(rule.acted(), 2);
        }
        // Tags count in policies later than elsewhere.
        let denied = refusal("Sign", 400, "AccessDeniedException", "because no identity-based policy allows the kms:Sign action");
        let denied = bench.proxy.add(denied.times(2));
        bench.sign(&key, Class::Own).await.expect("signed");
        assert_eq!(denied.acted(), 2);
        assert_eq!(bench.asked("CreateKey"), 1);
    });
}

/// A key that this process did not make is not young: what AWS says of it counts at once.
#[test]
fn a_key_that_is_gone_is_gone_at_once() {
    on_a_bench("making::a_key_that_is_gone_is_gone_at_once", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let later = Bench::new(&bench.kms);
        later.keystore.health().await.expect("healthy");
        let missing = later.proxy.add(refusal("Sign", 400, "NotFoundException", "no such key"));
        assert!(matches!(later.sign(&key, Class::Interactive).await, Err(KeystoreError::Gone(_))));
        assert_eq!(missing.acted(), 1);
        let missing = later.proxy.add(refusal("DescribeKey", 400, "NotFoundException", "no such key"));
        assert!(matches!(later.keystore.inspect(&key.locator).await, Err(KeystoreError::Gone(_))));
        later.keystore.destroy(&key.locator).await.expect("it is not there");
        assert_eq!(missing.acted(), 2);
    });
}

#[test]
fn a_listing_that_is_cut_off_makes_no_key() {
    on_a_bench("making::a_listing_that_is_cut_off_makes_no_key", |bench| async move {
        let cut = "{\"Keys\":[],\"Truncated\":true}";
        bench.proxy.add(Rule::answer(Match::target("ListKeys"), 200, JSON, cut));
        let outcome = bench.keystore.create(&name(1), Algorithm::ES256).await;
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(bench.keystore.inventory("faults").await.is_err());
        assert_eq!(bench.asked("CreateKey"), 0, "the key may be among those that were not listed");
    });
}

#[test]
fn pages_are_followed_to_the_end() {
    on_a_bench("making::pages_are_followed_to_the_end", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let page = |arn: &str, next: &str| {
            let body = format!("{{\"Keys\":[{{\"KeyId\":\"x\",\"KeyArn\":\"{arn}\"}}],\"Truncated\":true,\"NextMarker\":\"{next}\"}}");
            Rule::answer(Match::target("ListKeys"), 200, JSON, body)
        };
        let other = format!("arn:aws:kms:eu-central-1:{}:key/not-there", bench.kms.account());
        bench.proxy.add(page(&other, "one").times(1));
        bench.proxy.add(Rule::new(Match::target("ListKeys").body("\"Marker\":\"one\""), Act::Pass));
        let held = bench.keystore.inventory("faults").await.expect("listed");
        assert_eq!(held, [(name(1), key.locator)]);
        assert_eq!(bench.asked("ListKeys"), 3, "one for the making, two pages");
    });
}

/// Keys that are not ours may keep us out; a missing permission of our own is another matter.
#[test]
fn a_key_whose_policy_keeps_us_out_is_not_ours() {
    on_a_bench("making::a_key_whose_policy_keeps_us_out_is_not_ours", |bench| async move {
        let foreign = bench.kms.owner().create_key().send().await.expect("made").key_metadata.expect("described");
        let id = foreign.key_id();
        let denial = |why: &str| {
            let message =
                format!("User: arn:aws:iam::1:user/x is not authorized to perform: kms:ListResourceTags because no {why} allows it");
            Rule::answer(
                Match::target("ListResourceTags").body(id),
                400,
                JSON,
                format!("{{\"__type\":\"AccessDeniedException\",\"message\":\"{message}\"}}"),
            )
        };
        let by_key = bench.proxy.add(denial("resource-based policy"));
        let key = bench.key(1, Algorithm::ES256).await;
        assert_eq!(bench.keystore.inventory("faults").await.expect("listed"), [(name(1), key.locator)]);
        assert_eq!(by_key.acted(), 2);
        bench.proxy.remove(&by_key);
        bench.proxy.add(denial("identity-based policy"));
        let error = bench.keystore.create(&name(2), Algorithm::ES256).await.expect_err("nobody knows whether it is there");
        assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains("kms:ListResourceTags")), "{error:?}");
        assert_eq!(bench.asked("CreateKey"), 1);
    });
}

/// Disabled at once, deleted later: whichever answer is lost, the next try ends there.
#[test]
fn an_interrupted_destruction_is_finished_by_the_next() {
    on_a_bench("making::an_interrupted_destruction_is_finished_by_the_next", |bench| async move {
        for (number, action) in (1..).zip(["DescribeKey", "DisableKey", "ScheduleKeyDeletion"]) {
            for (offset, act) in [(0, Act::LoseAnswer), (10, Act::LoseRequest)] {
                let key = bench.key(number + offset, Algorithm::ES256).await;
                let lost = bench.proxy.add(faulty(action, act).times(1));
                let outcome = bench.keystore.destroy(&key.locator).await;
                assert!(matches!(outcome, Err(KeystoreError::Unanswered)), "{action}: {outcome:?}");
                assert_eq!(lost.acted(), 1);
                bench.keystore.destroy(&key.locator).await.unwrap_or_else(|error| panic!("{action}: {error}"));
                let described = bench.kms.owner().describe_key().key_id(key.locator.as_str()).send().await.expect("described");
                assert_eq!(described.key_metadata().expect("described").key_state(), Some(&KeyState::PendingDeletion), "{action}");
            }
        }
        // AWS refuses to schedule what is scheduled, and its description may be an older one.
        let key = bench.key(20, Algorithm::ES256).await;
        bench.keystore.inspect(&key.locator).await.expect("seen");
        bench.kms.owner().schedule_key_deletion().key_id(key.locator.as_str()).send().await.expect("scheduled");
        bench.proxy.add(faulty("DescribeKey", Act::Older).times(1));
        let state = |action| refusal(action, 400, "KMSInvalidStateException", "is pending deletion");
        let refused = [bench.proxy.add(state("DisableKey")), bench.proxy.add(state("ScheduleKeyDeletion"))];
        bench.keystore.destroy(&key.locator).await.expect("destroyed already");
        assert!(refused[0].acted() == 1 && refused[1].acted() == 1);
        // It is no excuse for a key that lives.
        let key = bench.key(21, Algorithm::ES256).await;
        let outcome = bench.keystore.destroy(&key.locator).await;
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{outcome:?}");
    });
}

/// A destroyed key waits for its deletion, and everybody who asks hears until when.
#[test]
fn a_destruction_says_when_the_key_is_deleted() {
    on_a_bench("making::a_destruction_says_when_the_key_is_deleted", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let on = bench.keystore.destroy(&key.locator).await.expect("destroyed").expect("a date");
        let days = (on.seconds() - bench.clock.wall().seconds() + 43_200) / 86_400;
        assert_eq!(days, i64::from(claviger::keystore::aws_kms::DEFAULT_DELETION_WINDOW), "{on}");
        assert_eq!(bench.keystore.destroy(&key.locator).await.expect("destroyed already"), Some(on));
    });
}

/// `GetPublicKey` fails on a disabled key, where AWS says `DisabledException`: what was recorded of it goes on being served.
#[test]
fn a_disabled_key_is_told_though_its_public_half_is_not_shown() {
    on_a_bench("making::a_disabled_key_is_told_though_its_public_half_is_not_shown", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        bench.kms.owner().disable_key().key_id(key.locator.as_str()).send().await.expect("disabled");
        bench.proxy.add(refusal("GetPublicKey", 409, "DisabledException", "is disabled"));
        let seen = bench.keystore.inspect(&key.locator).await.expect("seen");
        assert_eq!(seen.attributes["key-state"].as_deref(), Some("Disabled"));
        assert!(seen.public.as_ref().is_err_and(|why| why.contains("public key")), "{seen:?}");
        let outcome = bench.sign(&key, Class::Interactive).await;
        assert!(matches!(&outcome, Err(KeystoreError::Rejected(text)) if text.contains("enable-key")), "{outcome:?}");
        bench.kms.owner().schedule_key_deletion().key_id(key.locator.as_str()).send().await.expect("scheduled");
        let outcome = bench.sign(&key, Class::Interactive).await;
        assert!(matches!(outcome, Err(KeystoreError::Gone(_))), "{outcome:?}");
    });
}

#[test]
fn credentials_of_another_account_make_and_sign_nothing() {
    Kms::in_child("making::credentials_of_another_account_make_and_sign_nothing", |kms| {
        within(async {
            let right = Bench::new(kms);
            let key = right.key(1, Algorithm::ES256).await;
            let wrong = Bench::with(kms, |settings| AwsKmsSettings { account: "000000000001".into(), ..settings });
            let health = wrong.keystore.health().await.expect_err("another account");
            let KeystoreError::Rejected(text) = &health else { panic!("{health:?}") };
            assert!(text.contains(kms.account()) && text.contains("000000000001"), "{text}");
            assert_eq!(wrong.keystore.create(&name(2), Algorithm::ES256).await.expect_err("refused"), health);
            assert_eq!(wrong.keystore.inventory("faults").await.expect_err("refused"), health);
            assert!(matches!(wrong.sign(&key, Class::Own).await, Err(KeystoreError::Rejected(_))));
            assert!(wrong.proxy.asked().iter().all(|asked| asked.operation().is_none()), "KMS was never asked, only STS");

            // Credentials may change while a daemon runs: the next key is not made elsewhere.
            let answer = "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>000000000002</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
            right.proxy.add(Rule::answer(Match::any().body("GetCallerIdentity"), 200, "text/xml", answer));
            let changed = right.keystore.create(&name(3), Algorithm::ES256).await;
            assert!(matches!(&changed, Err(KeystoreError::Rejected(text)) if text.contains("000000000002")), "{changed:?}");
            let outcome = right.sign(&key, Class::Interactive).await;
            assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "nor is anything signed: {outcome:?}");
        });
    });
}

/// What AWS said of the account is believed while STS is away, but for a new key: that could only be deleted where it was made.
#[test]
fn a_dead_sts_ends_nothing_but_making() {
    on_a_bench("making::a_dead_sts_ends_nothing_but_making", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let sts = || Match::any().body("GetCallerIdentity");
        for act in [Act::LoseRequest, Act::Hang] {
            bench.clock.put(Duration::from_hours(2));
            let away = bench.proxy.add(Rule::new(sts(), act));
            timeout(SOON, bench.keystore.health()).await.expect("health is quick").expect("healthy");
            assert_eq!(away.acted(), 1);
            bench.keystore.health().await.expect("healthy");
            bench.keystore.inspect(&key.locator).await.expect("seen");
            assert_eq!(bench.keystore.inventory("faults").await.expect("listed").len(), 1);
            assert_eq!(away.acted(), 1, "it is not asked each time");
            let outcome = bench.keystore.create(&name(2), Algorithm::ES256).await;
            assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
            bench.proxy.remove(&away);
        }
        assert_eq!(bench.asked("CreateKey"), 1);
        // A process that never heard whose account it is knows nothing to believe.
        let fresh = Bench::new(&bench.kms);
        let away = fresh.proxy.add(Rule::new(sts(), Act::Hang));
        let outcome = fresh.sign_own_within(&key, Duration::from_millis(200)).await;
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "no signature was asked for: {outcome:?}");
        fresh.proxy.remove(&away);
        bench.clock.put(Duration::from_hours(2));
        let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>x</Message></Error></ErrorResponse>";
        bench.proxy.add(Rule::answer(sts(), 403, "text/xml", refused));
        assert!(matches!(bench.keystore.health().await, Err(KeystoreError::Rejected(_))));
        assert!(matches!(bench.keystore.destroy(&key.locator).await, Err(KeystoreError::Rejected(_))));
    });
}

/// Throttled calls did nothing, so they are made again, whichever step they are.
#[test]
fn throttled_steps_of_a_making_are_made_again() {
    on_a_bench("making::throttled_steps_of_a_making_are_made_again", |bench| async move {
        let steps = ["DescribeKey", "ListKeys", "CreateKey", "CreateAlias", "ListResourceTags", "GetPublicKey"];
        let throttled = |action: &&str| bench.proxy.add(refusal(action, 400, "ThrottlingException", "Rate exceeded").times(1));
        let rules = steps.iter().map(throttled).collect::<Vec<_>>();
        let key = bench.key(1, Algorithm::ES256).await;
        assert!(rules.iter().all(|rule| rule.acted() == 1));
        let listed = bench.proxy.add(refusal("ListResourceTags", 400, "ThrottlingException", "Rate exceeded").times(1));
        assert_eq!(bench.keystore.inventory("faults").await.expect("listed"), [(name(1), key.locator.clone())]);
        assert_eq!(listed.acted(), 1);
        let ending = ["DisableKey", "ScheduleKeyDeletion"].map(|action| throttled(&action));
        bench.keystore.destroy(&key.locator).await.expect("destroyed");
        assert!(ending.iter().all(|rule| rule.acted() == 1));
    });
}

/// A making that broke in AWS may have made the key: it is looked for until it is seen, and none is made beside it.
#[test]
fn a_making_that_broke_is_looked_for() {
    on_a_bench("making::a_making_that_broke_is_looked_for", |bench| async move {
        let broken = |status, body: &'static str| {
            Act::Edit(Arc::new(move |answer: &mut Response<Bytes>| {
                *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                *answer.body_mut() = Bytes::from(body);
            }))
        };
        for (number, act) in (1..).zip([broken(500, "{\"__type\":\"KMSInternalException\"}"), broken(502, "<html>Bad Gateway</html>")]) {
            let made = bench.proxy.add(faulty("CreateKey", act).times(1));
            assert!(bench.keystore.create(&name(number), Algorithm::ES256).await.is_err());
            assert_eq!(made.acted(), 1);
            // The first listing is an older one.
            let unseen = bench.proxy.add(Rule::answer(Match::target("ListKeys"), 200, JSON, "{\"Keys\":[],\"Truncated\":false}").times(1));
            bench.key(number, Algorithm::ES256).await;
            assert_eq!(unseen.acted(), 1);
            assert_eq!(bench.asked("CreateKey"), usize::try_from(number).expect("few"), "one key for each name");
        }
    });
}

/// The tags of a new key may be seen later than the key.
#[test]
fn a_new_key_without_tags_is_not_seen_yet() {
    on_a_bench("making::a_new_key_without_tags_is_not_seen_yet", |bench| async move {
        let none =
            bench.proxy.add(Rule::answer(Match::target("ListResourceTags"), 200, JSON, "{\"Tags\":[],\"Truncated\":false}").times(2));
        bench.key(1, Algorithm::ES256).await;
        assert_eq!(none.acted(), 2);
        assert_eq!(bench.asked("CreateKey"), 1);
    });
}

/// Two makers of one name: the second one ends its own key and has the first one's.
#[test]
fn whoever_comes_second_has_the_first_ones_key() {
    on_a_bench("making::whoever_comes_second_has_the_first_ones_key", |bench| async move {
        let holder = bench.key(1, Algorithm::ES256).await;
        let second = Bench::new(&bench.kms);
        // As it was a moment ago: no alias, and no key.
        let alias = "alias/claviger/faults/kms/1-abadcafe";
        let no_alias = format!("{{\"__type\":\"NotFoundException\",\"message\":\"Alias {alias} is not found.\"}}");
        second.proxy.add(Rule::answer(Match::target("DescribeKey").body(alias), 400, JSON, no_alias).times(1));
        second.proxy.add(Rule::answer(Match::target("ListKeys"), 200, JSON, "{\"Keys\":[],\"Truncated\":false}").times(1));
        let throttled = second.proxy.add(refusal("DisableKey", 400, "ThrottlingException", "Rate exceeded").times(1));
        let made = second.key(1, Algorithm::ES256).await;
        assert_eq!((made.locator, made.public), (holder.locator.clone(), holder.public));
        assert_eq!((second.asked("CreateKey"), second.asked("ScheduleKeyDeletion"), throttled.acted()), (1, 1, 1));
        assert_eq!(bench.keystore.inventory("faults").await.expect("listed"), [(name(1), holder.locator)]);
    });
}

/// Where the alias of an ended key is pointed anew, nothing refuses the second maker: it looks, and gives way.
#[test]
fn an_alias_that_somebody_else_pointed_anew_is_respected() {
    on_a_bench("making::an_alias_that_somebody_else_pointed_anew_is_respected", |bench| async move {
        let ended = bench.key(1, Algorithm::ES256).await;
        bench.keystore.destroy(&ended.locator).await.expect("destroyed");
        let holder = Bench::new(&bench.kms).key(1, Algorithm::ES256).await;
        // What the alias pointed at before is shown once more, and the pointing is lost to the other one.
        let older = bench.proxy.add(
            faulty(
                "DescribeKey",
                Act::Edit(Arc::new({
                    let (from, to) = (holder.locator.as_str().to_owned(), ended.locator.as_str().to_owned());
                    move |answer: &mut Response<Bytes>| {
                        let text = String::from_utf8_lossy(answer.body()).replace(&from, &to);
                        *answer.body_mut() = Bytes::from(text.replace("\"KeyState\": \"Enabled\"", "\"KeyState\": \"PendingDeletion\""));
                    }
                })),
            )
            .times(1),
        );
        bench.proxy.add(Rule::answer(Match::target("ListKeys"), 200, JSON, "{\"Keys\":[],\"Truncated\":false}").times(1));
        let pointed = bench.proxy.add(Rule::answer(Match::target("UpdateAlias"), 200, JSON, "{}").times(1));
        let made = bench.key(1, Algorithm::ES256).await;
        assert_eq!(made.locator, holder.locator);
        assert_eq!((older.acted(), pointed.acted()), (1, 1));
        assert_eq!(bench.keystore.inventory("faults").await.expect("listed"), [(name(1), holder.locator)]);
    });
}

/// No request waits for the question whose account it is.
#[test]
fn until_the_account_is_known_only_claviger_itself_signs() {
    on_a_bench("making::until_the_account_is_known_only_claviger_itself_signs", |bench| async move {
        let key = bench.key(1, Algorithm::ES256).await;
        let later = Bench::new(&bench.kms);
        let hang = later.proxy.add(Rule::new(Match::any().body("GetCallerIdentity"), Act::Hang));
        let outcome = timeout(SOON, later.sign(&key, Class::Interactive)).await.expect("at once");
        assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
        assert_eq!(later.proxy.asked().len(), 0);
        later.proxy.remove(&hang);
        later.sign(&key, Class::Own).await.expect("signed");
        later.sign(&key, Class::Interactive).await.expect("signed");
    });
}

/// The environment points every AWS service at the emulator, as a forgotten variable does. It is not where keys are made.
#[test]
fn an_endpoint_of_the_environment_makes_no_key() {
    Kms::in_child("making::an_endpoint_of_the_environment_makes_no_key", |kms| {
        within(async {
            // A region that does not exist: its address has no name anywhere.
            let lost =
                Bench::with(kms, |settings| AwsKmsSettings { region: "nowhere-1".into(), endpoint: None, sts_endpoint: None, ..settings });
            let outcome = lost.keystore.create(&name(1), Algorithm::ES256).await;
            assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. } | KeystoreError::Unanswered)), "{outcome:?}");
            assert_eq!(kms.owner().list_keys().send().await.expect("a list").keys().len(), 0);
            // And where the file names it, the environment's region and number of attempts are not taken either.
            let bench = Bench::new(kms);
            let rule = bench.proxy.add(refusal("CreateKey", 500, "KMSInternalException", ""));
            let outcome = bench.keystore.create(&name(1), Algorithm::ES256).await;
            assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
            assert_eq!(rule.acted(), 1, "no attempt behind our back");
            bench.proxy.clear();
            assert!(bench.key(1, Algorithm::ES256).await.locator.as_str().contains(":eu-central-1:"));
        });
    });
}

/// An answer that names another public key is not a key that anybody verified: it is told, never adopted.
#[test]
fn what_kms_reports_is_read_strictly() {
    on_a_bench("making::what_kms_reports_is_read_strictly", |bench| async move {
        let edit = |from: &'static str, to: &'static str| {
            Act::Edit(Arc::new(move |answer: &mut Response<Bytes>| {
                let text = String::from_utf8_lossy(answer.body()).replace(from, to);
                *answer.body_mut() = Bytes::from(text);
            }))
        };
        for (action, from, to, reason) in [
            ("DescribeKey", "\"MultiRegion\": false", "\"MultiRegion\": true", "multi-region is true"),
            ("DescribeKey", "\"KeyManager\": \"CUSTOMER\"", "\"KeyManager\": \"AWS\"", "key-manager is AWS"),
            ("GetPublicKey", "\"PublicKey\": \"MFk", "\"PublicKey\": \"MFo", "the public key of"),
        ] {
            let rule = bench.proxy.add(faulty(action, edit(from, to)));
            let error = bench.keystore.create(&name(1), Algorithm::ES256).await.expect_err(reason);
            assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains(reason)), "{error:?}");
            bench.proxy.remove(&rule);
        }
        assert_eq!(bench.asked("CreateKey"), 1, "one key all the time");
        bench.key(1, Algorithm::ES256).await;
    });
}
