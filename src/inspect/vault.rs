//! What `doctor` asks of a Vault beside what it asks of every keystore: whether the token may do what Claviger does.
//!
//! In scope: one sentence for each permission that is missing. Out of scope: logins, seals and certificates, which every call explains.

use std::sync::Arc;

use super::Finding;
use crate::clock::Clock;
use crate::config::VaultConfig;
use crate::daemon::setup;
use crate::keystore::vault::VaultKeystore;

/// What is missing in the keystore of this name, for the keys of this installation.
pub(super) async fn permissions(config: &VaultConfig, (name, installation): (&str, &str), clock: &Arc<dyn Clock>) -> Vec<Finding> {
    let keystore = VaultKeystore::open(setup::vault_settings(config), clock.clone());
    let finding = |text: String| Finding::new(format!("permissions in keystore {name}"), Err(text));
    match keystore.permissions(installation).await {
        Ok(missing) => missing.into_iter().map(finding).collect(),
        Err(error) => vec![finding(error.to_string())],
    }
}
