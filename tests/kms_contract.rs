//! The keystore contract on AWS KMS, as far as its emulator goes, and what is special about KMS: names, aliases, makers that were interrupted,
//! keys that are not ours, destruction that can be taken back.

#![cfg(feature = "aws-kms")]

use std::sync::Arc;

use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::types::{KeySpec, KeyState, KeyUsageType, OriginType, Tag};
use claviger::clock::SystemClock;
use claviger::keystore::aws_kms::{AwsKmsKeystore, AwsKmsSettings};
use claviger::keystore::{KeystoreError, Locator};
use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;

use crate::support::contract::{Contract, input};
use crate::support::kms::Kms;
use crate::support::proxy::{Act, Match, Proxy, Rule};

mod support;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A keystore with these settings, as the contract wants it.
fn opened(settings: AwsKmsSettings) -> Contract {
    let clock = Arc::new(SystemClock::start());
    Contract::new(Arc::new(AwsKmsKeystore::open(settings, clock.clone())), clock)
}

fn name(number: u32) -> KeyName {
    KeyName::new("special", "kms", number, 0xabad_cafe).expect("a well-formed name")
}

/// A key that somebody makes past Claviger, with the tags of one of ours.
async fn planted(kms: &Kms, name: &KeyName, origin: OriginType, spec: KeySpec, usage: KeyUsageType) -> String {
    let tags = [("claviger:installation", name.installation()), ("claviger:keyring", name.keyring()), ("claviger:name", name.as_str())];
    let tag = |(key, value): (&str, &str)| Tag::builder().tag_key(key).tag_value(value).build().expect("a tag");
    let request = kms.owner().create_key().key_usage(usage).key_spec(spec).origin(origin).set_tags(Some(tags.map(tag).to_vec()));
    request.send().await.expect("made").key_metadata.expect("described").arn.expect("an ARN")
}

async fn alias(kms: &Kms, name: &KeyName, arn: &str) {
    let alias = format!("alias/claviger/{}", name.as_str().replace('.', "/"));
    kms.owner().create_alias().alias_name(alias).target_key_id(arn).send().await.expect("an alias");
}

/// How many keys the account has.
async fn keys(kms: &Kms) -> usize {
    kms.owner().list_keys().send().await.expect("a list").keys().len()
}

#[test]
fn the_contract_is_kept() {
    Kms::in_child("the_contract_is_kept", |kms| {
        runtime().block_on(opened(kms.settings(&kms.url())).check_all(&[]));
    });
}

#[test]
fn keys_survive_a_new_keystore() {
    Kms::in_child("keys_survive_a_new_keystore", |kms| {
        runtime().block_on(async {
            let made = opened(kms.settings(&kms.url())).keystore.create(&name(1), Algorithm::ES256).await.expect("made");
            assert!(made.backend_request.is_some(), "AWS's own id of the request");
            let later = opened(kms.settings(&kms.url()));
            let found = later.keystore.create(&name(1), Algorithm::ES256).await.expect("found");
            assert_eq!((&found.public, &found.locator, &found.attributes), (&made.public, &made.locator, &made.attributes));
            assert!(found.backend_request.is_none(), "nothing was made");
            later.sign_and_verify(&found, Algorithm::ES256, b"as before").await;
            assert_eq!(keys(kms).await, 1);
        });
    });
}

/// Whatever answer is lost on the way to a key, the next try ends with the one key of that name.
#[test]
fn an_interrupted_making_leaves_one_key() {
    Kms::in_child("an_interrupted_making_leaves_one_key", |kms| {
        runtime().block_on(async {
            let actions = ["CreateKey", "CreateAlias", "DescribeKey", "ListResourceTags", "GetPublicKey"];
            for (number, action) in (1..).zip(actions) {
                for (offset, act) in [(0, Act::LoseAnswer), (10, Act::LoseRequest)] {
                    let proxy = Proxy::before(kms.address());
                    // The first description is that of an alias that is not there yet.
                    let skip = u64::from(action == "DescribeKey");
                    let rule = proxy.add(Rule::new(Match::target(action), act).skip(skip).times(1));
                    let before = keys(kms).await;
                    let name = name(number + offset);
                    let interrupted = opened(kms.settings(&proxy.url())).keystore.create(&name, Algorithm::ES256).await;
                    let error = interrupted.expect_err("the answer was lost");
                    assert_eq!((error, rule.acted()), (KeystoreError::Unanswered, 1), "{action}");
                    // A new process, as after a crash, that remembers nothing.
                    let later = opened(kms.settings(&kms.url()));
                    let made = later.keystore.create(&name, Algorithm::ES256).await.unwrap_or_else(|error| panic!("{action}: {error}"));
                    later.sign_and_verify(&made, Algorithm::ES256, b"whole").await;
                    assert_eq!(keys(kms).await, before + 1, "{action}: one key");
                }
            }
        });
    });
}

/// `CreateKey` was asked and not answered, and the key is not in the list yet: it is waited for, not made twice.
#[test]
fn a_key_that_may_have_been_made_is_waited_for() {
    Kms::in_child("a_key_that_may_have_been_made_is_waited_for", |kms| {
        runtime().block_on(async {
            let proxy = Proxy::before(kms.address());
            let contract = opened(kms.settings(&proxy.url()));
            contract.keystore.health().await.expect("healthy");
            assert_eq!(contract.keystore.inventory("special").await.expect("listed"), []);
            proxy.add(Rule::new(Match::target("CreateKey"), Act::LoseAnswer).times(1));
            let lost = contract.keystore.create(&name(1), Algorithm::ES256).await;
            assert_eq!(lost.expect_err("lost"), KeystoreError::Unanswered);
            // Lists stay as they were for three more looks.
            let stale = proxy.add(Rule::new(Match::target("ListKeys"), Act::Older).times(3));
            contract.keystore.create(&name(1), Algorithm::ES256).await.expect("found");
            assert_eq!((stale.acted(), keys(kms).await), (3, 1));
        });
    });
}

#[test]
fn two_makers_at_once_make_one_key() {
    Kms::in_child("two_makers_at_once_make_one_key", |kms| {
        runtime().block_on(async {
            // The other maker's key and alias come between our look and our alias.
            let proxy = Proxy::before(kms.address());
            let other = opened(kms.settings(&kms.url()));
            let held = proxy.add(Rule::new(Match::target("CreateAlias"), Act::Delay(std::time::Duration::from_hours(1))));
            let ours = opened(kms.settings(&proxy.url()));
            let wanted = name(1);
            let (first, second) = tokio::join!(ours.keystore.create(&wanted, Algorithm::ES256), async {
                while held.acted() == 0 {
                    tokio::task::yield_now().await;
                }
                // It sees no key by its alias, and none by its tags: ours is hidden from it as a young one can be.
                let blind = Proxy::before(kms.address());
                blind.add(Rule::answer(Match::target("ListKeys"), 200, "application/x-amz-json-1.1", "{\"Keys\":[],\"Truncated\":false}"));
                let made = opened(kms.settings(&blind.url())).keystore.create(&name(1), Algorithm::ES256).await;
                proxy.remove(&held);
                made
            });
            let theirs = second.expect("made");
            assert_eq!(first.expect("the other one's").locator, theirs.locator);
            let again = ours.keystore.create(&name(1), Algorithm::ES256).await.expect("found");
            assert_eq!(again.locator, theirs.locator);
            let living = other.keystore.inventory("special").await.expect("listed");
            assert_eq!(living, [(name(1), theirs.locator)], "the key that came second was given up");
        });
    });
}

#[test]
fn two_keys_of_one_name_are_never_guessed_between() {
    Kms::in_child("two_keys_of_one_name_are_never_guessed_between", |kms| {
        runtime().block_on(async {
            let contract = opened(kms.settings(&kms.url()));
            let name = KeyName::new("special", "kms", 1, 7).expect("a name");
            let plant = || planted(kms, &name, OriginType::AwsKms, KeySpec::EccNistP256, KeyUsageType::SignVerify);
            let (one, other) = (plant().await, plant().await);
            let error = contract.keystore.create(&name, Algorithm::ES256).await.expect_err("which one?");
            let KeystoreError::Rejected(text) = &error else { panic!("{error:?}") };
            assert!(text.contains(&one) && text.contains(&other) && text.contains("schedule the deletion of all but one"), "{text}");
            assert_eq!(keys(kms).await, 2, "no third one");
            kms.owner().schedule_key_deletion().key_id(&one).send().await.expect("scheduled");
            let made = contract.keystore.create(&name, Algorithm::ES256).await.expect("the other one");
            assert_eq!(made.locator.as_str(), other);
        });
    });
}

#[test]
fn a_key_that_is_not_as_ours_are_is_neither_used_nor_replaced() {
    Kms::in_child("a_key_that_is_not_as_ours_are_is_neither_used_nor_replaced", |kms| {
        runtime().block_on(async {
            let contract = opened(kms.settings(&kms.url()));
            let (made_here, sign) = (OriginType::AwsKms, KeyUsageType::SignVerify);
            for (number, origin, spec, usage, reason) in [
                (1, made_here.clone(), KeySpec::EccNistP384, sign.clone(), "key-spec is ECC_NIST_P384, must be ECC_NIST_P256"),
                (2, OriginType::External, KeySpec::EccNistP256, sign.clone(), "origin is EXTERNAL, must be AWS_KMS"),
                (3, made_here.clone(), KeySpec::EccNistP256, KeyUsageType::KeyAgreement, "key-usage is KEY_AGREEMENT, must be SIGN_VERIFY"),
            ] {
                let arn = planted(kms, &name(number), origin, spec, usage).await;
                let error = contract.keystore.create(&name(number), Algorithm::ES256).await.expect_err("refused");
                let KeystoreError::Rejected(text) = &error else { panic!("{error:?}") };
                assert!(text.contains(reason) && text.contains(&arn), "{text}");
            }
            // Disabled, and a key without our tags behind our alias.
            let disabled = planted(kms, &name(4), made_here.clone(), KeySpec::EccNistP256, sign.clone()).await;
            kms.owner().disable_key().key_id(&disabled).send().await.expect("disabled");
            let untagged = kms.owner().create_key().key_usage(sign).key_spec(KeySpec::EccNistP256).send().await.expect("made");
            alias(kms, &name(5), untagged.key_metadata().expect("described").key_id()).await;
            for (number, reason) in [(4, "key-state is Disabled"), (5, "tag-name is not reported")] {
                let error = contract.keystore.create(&name(number), Algorithm::ES256).await.expect_err("refused");
                assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains(reason)), "{error:?}");
            }
            assert_eq!(keys(kms).await, 5, "none was made in their place");
            for key in kms.owner().list_keys().send().await.expect("a list").keys() {
                let seen = kms.owner().describe_key().key_id(key.key_id().expect("an id")).send().await.expect("described");
                let state = seen.key_metadata().expect("described").key_state().cloned();
                assert!(!matches!(state, Some(KeyState::PendingDeletion)), "none was destroyed");
            }
        });
    });
}

/// What an operator may do until the waiting period is over, and what Claviger says then.
#[test]
fn a_destruction_can_be_taken_back_by_an_operator_alone() {
    Kms::in_child("a_destruction_can_be_taken_back_by_an_operator_alone", |kms| {
        runtime().block_on(async {
            let contract = opened(AwsKmsSettings { deletion_window: 9, ..kms.settings(&kms.url()) });
            let made = contract.keystore.create(&name(1), Algorithm::ES256).await.expect("made");
            let arn = made.locator.as_str();
            contract.keystore.destroy(&made.locator).await.expect("destroyed");
            let described = kms.owner().describe_key().key_id(arn).send().await.expect("described").key_metadata.expect("described");
            assert_eq!(described.key_state(), Some(&KeyState::PendingDeletion));
            let left = described.deletion_date().expect("a date").secs() - described.creation_date().expect("a date").secs();
            assert!((9 * 86_400 - 5..9 * 86_400 + 600).contains(&left), "after {left} s");

            kms.owner().cancel_key_deletion().key_id(arn).send().await.expect("cancelled");
            let listed = contract.keystore.inventory("special").await.expect("listed");
            assert_eq!(listed, [(name(1), made.locator.clone())], "it lives again");
            let seen = contract.keystore.inspect(&made.locator).await.expect("seen");
            assert_eq!(seen.attributes["key-state"].as_deref(), Some("Disabled"));
            let outcome = contract.keystore.sign(&made.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), contract.terms()).await;
            assert!(matches!(&outcome, Err(KeystoreError::Rejected(text)) if text.contains("aws kms enable-key")), "{outcome:?}");
            kms.owner().enable_key().key_id(arn).send().await.expect("enabled");
            contract.sign_and_verify(&made, Algorithm::ES256, b"as before").await;
        });
    });
}

/// Keys of another region or account are never asked for, though the credentials might reach them.
#[test]
fn a_key_elsewhere_is_refused_before_anybody_is_asked() {
    Kms::in_child("a_key_elsewhere_is_refused_before_anybody_is_asked", |kms| {
        runtime().block_on(async {
            let proxy = Proxy::before(kms.address());
            let contract = opened(kms.settings(&proxy.url()));
            contract.keystore.health().await.expect("healthy");
            let asked = proxy.asked().len();
            for (region, account) in [("eu-west-1", kms.account()), ("eu-central-1", "000000000001")] {
                let strange = Locator::new(format!("arn:aws:kms:{region}:{account}:key/1234abcd-12ab-34cd-56ef-1234567890ab"));
                let outcome = contract.keystore.sign(&strange, Algorithm::ES256, input(Algorithm::ES256, b"x"), contract.terms()).await;
                assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{outcome:?}");
                assert!(matches!(contract.keystore.destroy(&strange).await, Err(KeystoreError::Rejected(_))));
                assert!(matches!(contract.keystore.inspect(&strange).await, Err(KeystoreError::Rejected(_))));
            }
            assert_eq!(proxy.asked().len(), asked);
        });
    });
}

/// An alias that a dead key has is given to the next key of that name, whoever ended the first one.
#[test]
fn a_key_that_somebody_ended_before_it_was_recorded_is_made_anew() {
    Kms::in_child("a_key_that_somebody_ended_before_it_was_recorded_is_made_anew", |kms| {
        runtime().block_on(async {
            let contract = opened(kms.settings(&kms.url()));
            let first = contract.keystore.create(&name(1), Algorithm::EdDSA).await.expect("made");
            kms.owner().schedule_key_deletion().key_id(first.locator.as_str()).send().await.expect("scheduled");
            let second = contract.keystore.create(&name(1), Algorithm::EdDSA).await.expect("made");
            assert_ne!(second.locator, first.locator);
            let alias = kms.owner().describe_key().key_id("alias/claviger/special/kms/1-abadcafe").send().await.expect("an alias");
            assert_eq!(alias.key_metadata().expect("described").arn(), Some(second.locator.as_str()));
            let missing = kms.owner().describe_key().key_id("alias/claviger/special/kms/2-abadcafe").send().await.expect_err("none");
            assert_eq!(missing.into_service_error().code(), Some("NotFoundException"));
        });
    });
}
