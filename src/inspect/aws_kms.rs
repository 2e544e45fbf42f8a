//! What `doctor` asks of AWS KMS beside what it asks of every keystore: whether the credentials may sign.
//!
//! In scope: KMS's dry run of `kms:Sign` for each key that is in use. Out of scope: making and ending keys, for which KMS has no dry run; and the
//! calls that only read, which every look makes.

use std::sync::Arc;

use claviger_audit::Algorithm;

use super::Finding;
use crate::clock::Clock;
use crate::keystore::Locator;
use crate::keystore::aws_kms::{AwsKmsKeystore, AwsKmsSettings};

/// One finding for each different reason why a key of the keystore of this name may not be used.
pub(super) async fn permissions(
    settings: &AwsKmsSettings,
    name: &str,
    keys: &[(Locator, Algorithm)],
    clock: &Arc<dyn Clock>,
) -> Vec<Finding> {
    let keystore = AwsKmsKeystore::open(settings.clone(), clock.clone());
    let mut findings = Vec::new();
    for (locator, algorithm) in keys {
        if let Err(error) = keystore.may_sign(locator, *algorithm).await {
            let finding = Finding::new(format!("permissions in keystore {name}"), Err(error.to_string()));
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}
