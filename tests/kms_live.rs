//! The contract on AWS itself, if you ask for it: `CLAVIGER_LIVE_AWS=1`, with `CLAVIGER_LIVE_AWS_REGION`, `CLAVIGER_LIVE_AWS_ACCOUNT` and credentials where
//! the SDK looks for them. Unless you do, the same run goes against the emulator, so that what would run on AWS is known to run.
//!
//! In scope: the contract, and leaving nothing behind but keys that wait for their deletion, in 7 days. Out of scope: faults (`kms_faults.rs`).

#![cfg(feature = "aws-kms")]

use std::io::Write as _;
use std::sync::Arc;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore;
use claviger::keystore::aws_kms::{AwsKmsKeystore, AwsKmsSettings, DEFAULT_REQUESTS_PER_SECOND, LEAST_DELETION_WINDOW};

use crate::support::contract::Contract;
use crate::support::kms::Kms;

mod support;

/// The installations that the contract makes keys for.
const INSTALLATIONS: [&str; 3] = ["contract", "mine", "mine-too"];

#[test]
fn the_contract_is_kept_where_it_is_asked_for() {
    match live() {
        Some(settings) => run(settings),
        None => Kms::in_child("the_contract_is_kept_where_it_is_asked_for", |kms| {
            writeln!(std::io::stdout(), "CLAVIGER_LIVE_AWS is not 1: on the emulator").expect("somebody listens");
            run(AwsKmsSettings { requests_per_second: DEFAULT_REQUESTS_PER_SECOND, ..kms.settings(&kms.url()) });
        }),
    }
}

/// Settings for AWS itself, if they are asked for.
#[expect(clippy::disallowed_methods, reason = "who runs the tests says so in the environment")]
fn live() -> Option<AwsKmsSettings> {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("CLAVIGER_LIVE_AWS=1 needs {name}, too"));
    std::env::var("CLAVIGER_LIVE_AWS").is_ok_and(|asked| asked == "1").then(|| AwsKmsSettings {
        region: variable("CLAVIGER_LIVE_AWS_REGION"),
        account: variable("CLAVIGER_LIVE_AWS_ACCOUNT"),
        endpoint: None,
        sts_endpoint: None,
        profile: None,
        deletion_window: LEAST_DELETION_WINDOW,
        requests_per_second: DEFAULT_REQUESTS_PER_SECOND,
    })
}

fn run(settings: AwsKmsSettings) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let clock = Arc::new(SystemClock::start());
    let keystore: Arc<dyn Keystore> = Arc::new(AwsKmsKeystore::open(settings, clock.clone()));
    // Somebody's real installation may be called so: its keys are neither counted nor ended.
    let strangers = runtime.block_on(held(keystore.as_ref()));
    assert!(strangers.is_empty(), "an installation of this account is called as the contract's are: {strangers:?}; use another account");

    let contract = Contract { keystore: keystore.clone(), clock };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(contract.check_all(&[]))));
    let left = runtime.block_on(held(keystore.as_ref()));
    for locator in &left {
        runtime.block_on(keystore.destroy(locator)).expect("what a failed run leaves is ended");
    }
    outcome.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    assert!(left.is_empty(), "the contract leaves nothing behind: {left:?}");
}

async fn held(keystore: &dyn Keystore) -> Vec<claviger::keystore::Locator> {
    let mut all = Vec::new();
    for installation in INSTALLATIONS {
        all.extend(keystore.inventory(installation).await.expect("listed").into_iter().map(|(_, locator)| locator));
    }
    all
}
