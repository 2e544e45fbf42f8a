//! The contract on AWS itself, if you ask for it: `CLAVIGER_LIVE_AWS=1`, with `CLAVIGER_LIVE_AWS_REGION`, `CLAVIGER_LIVE_AWS_ACCOUNT` and credentials where
//! the SDK looks for them. Unless you do, the same run goes against the emulator, so that what would run on AWS is known to run.
//!
//! In scope: the contract, and leaving nothing behind but keys that wait for their deletion, in 7 days. Out of scope: faults (`kms_faults.rs`).

#![cfg(feature = "aws-kms")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use claviger::clock::SystemClock;
use claviger::keystore::Keystore;
use claviger::keystore::aws_kms::{AwsKmsKeystore, AwsKmsSettings, DEFAULT_REQUESTS_PER_SECOND, LEAST_DELETION_WINDOW};

use crate::support::contract::Contract;
use crate::support::kms::Kms;

mod support;

/// How long AWS may take to show what was done, to whoever asks: KMS is eventually consistent.
const SETTLE: Duration = Duration::from_mins(5);

#[test]
fn the_contract_is_kept_where_it_is_asked_for() {
    match live() {
        Some(settings) => run(settings, SETTLE),
        None => Kms::in_child("the_contract_is_kept_where_it_is_asked_for", |kms| {
            writeln!(std::io::stdout(), "CLAVIGER_LIVE_AWS is not 1: on the emulator").expect("somebody listens");
            run(AwsKmsSettings { requests_per_second: DEFAULT_REQUESTS_PER_SECOND, ..kms.settings(&kms.url()) }, Duration::ZERO);
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

fn run(settings: AwsKmsSettings, settle: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let clock = Arc::new(SystemClock::start());
    let keystore: Arc<dyn Keystore> = Arc::new(AwsKmsKeystore::open(settings, clock.clone()));
    let suffix = format!("-{:08x}", u32::from_be_bytes(random()));
    let contract = Contract { settle, suffix, ..Contract::new(keystore, clock) };
    let installations = contract.installations().join(",");
    writeln!(
        std::io::stdout(),
        "the keys of this run; if it is cut off, this ends them:\naws resourcegroupstaggingapi get-resources --tag-filters \
         Key=claviger:installation,Values={installations} --query 'ResourceTagMappingList[].[ResourceARN]' --output text \
         | xargs -n 1 aws kms schedule-key-deletion --pending-window-in-days {LEAST_DELETION_WINDOW} --key-id"
    )
    .expect("somebody listens");

    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(contract.check_all(&[]))));
    let left = runtime.block_on(contract.left());
    for locator in &left {
        runtime.block_on(contract.keystore.destroy(locator)).expect("what a failed run leaves is ended");
    }
    outcome.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    assert!(left.is_empty(), "the contract leaves nothing behind: {left:?}");
}

fn random() -> [u8; 4] {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).expect("the machine has randomness");
    bytes
}
