//! Where the emulator differs from AWS. Each lie is asserted, so that an emulator which was put right tells us; what Claviger must do all the same,
//! `tests/kms_faults.rs` shows behind a proxy that does as AWS does.

#![cfg(feature = "aws-kms")]

use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};

use crate::support::kms::Kms;

mod support;

fn in_an_account<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Client) -> F) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Kms::in_child(test, |kms| runtime().block_on(body(kms.owner())));
}

async fn key(client: &Client, spec: KeySpec) -> String {
    let made = client.create_key().key_spec(spec).key_usage(KeyUsageType::SignVerify).send().await.expect("made");
    made.key_metadata.expect("described").arn.expect("an ARN")
}

/// AWS: `ValidationException`, 4,096 octets at most (`Sign`, parameter `Message`).
#[test]
fn it_signs_messages_of_any_length() {
    in_an_account("it_signs_messages_of_any_length", |client| async move {
        let key = key(&client, KeySpec::EccNistEdwards25519).await;
        let request = client.sign().key_id(key).message(Blob::new(vec![7; 5000])).message_type(MessageType::Raw);
        assert!(request.signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512).send().await.is_ok());
    });
}

/// AWS: `DryRunOperationException`, and no signature (`Sign`, parameter `DryRun`).
#[test]
fn a_dry_run_returns_a_signature() {
    in_an_account("a_dry_run_returns_a_signature", |client| async move {
        let key = key(&client, KeySpec::EccNistP256).await;
        let request = client.sign().key_id(key).message(Blob::new([7; 32])).message_type(MessageType::Digest).dry_run(true);
        let signed = request.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await.expect("signed");
        assert!(signed.signature().is_some());
    });
}

/// AWS: `DisabledException`, and `KMSInvalidStateException` while a deletion is pending (`GetPublicKey`, "Errors").
#[test]
fn the_public_key_of_a_disabled_key_is_shown() {
    in_an_account("the_public_key_of_a_disabled_key_is_shown", |client| async move {
        let key = key(&client, KeySpec::EccNistP256).await;
        client.disable_key().key_id(&key).send().await.expect("disabled");
        assert!(client.get_public_key().key_id(&key).send().await.is_ok());
        client.schedule_key_deletion().key_id(&key).send().await.expect("scheduled");
        assert!(client.get_public_key().key_id(&key).send().await.is_ok());
    });
}

/// AWS: `NextMarker` whenever `Truncated` is true (`ListKeys`).
#[test]
fn a_truncated_list_has_no_marker() {
    in_an_account("a_truncated_list_has_no_marker", |client| async move {
        for _ in 0..3 {
            key(&client, KeySpec::EccNistP256).await;
        }
        let page = client.list_keys().limit(2).send().await.expect("a list");
        assert_eq!((page.keys().len(), page.truncated, page.next_marker()), (2, true, None));
    });
}

/// AWS: `KMSInvalidStateException` (`ScheduleKeyDeletion`: the key state must be compatible).
#[test]
fn a_deletion_may_be_scheduled_twice() {
    in_an_account("a_deletion_may_be_scheduled_twice", |client| async move {
        let key = key(&client, KeySpec::EccNistP256).await;
        for _ in 0..2 {
            client.schedule_key_deletion().key_id(&key).send().await.expect("scheduled");
        }
    });
}

/// Not a lie, but what the tests lean on: the states and kinds of keys are as AWS has them.
#[test]
fn it_refuses_what_aws_refuses() {
    in_an_account("it_refuses_what_aws_refuses", |client| async move {
        let key = key(&client, KeySpec::EccNistP256).await;
        let sign = |digest: usize, algorithm: SigningAlgorithmSpec| {
            let request = client.sign().key_id(&key).message(Blob::new(vec![7; digest])).message_type(MessageType::Digest);
            let sent = request.signing_algorithm(algorithm).send();
            async { sent.await.map(drop).map_err(|error| error.into_service_error().code().map(str::to_owned)) }
        };
        let code = |code: &str| Err(Some(code.to_owned()));
        assert_eq!(sign(32, SigningAlgorithmSpec::EcdsaSha256).await, Ok(()));
        assert_eq!(sign(31, SigningAlgorithmSpec::EcdsaSha256).await, code("ValidationException"));
        assert_eq!(sign(48, SigningAlgorithmSpec::EcdsaSha384).await, code("InvalidKeyUsageException"));
        client.disable_key().key_id(&key).send().await.expect("disabled");
        assert_eq!(sign(32, SigningAlgorithmSpec::EcdsaSha256).await, code("DisabledException"));
        client.schedule_key_deletion().key_id(&key).send().await.expect("scheduled");
        assert_eq!(sign(32, SigningAlgorithmSpec::EcdsaSha256).await, code("KMSInvalidStateException"));
    });
}
