//! Which server the contract is tried on: one of the test's own, or with `CLAVIGER_LIVE_VAULT=1` a Vault or OpenBao that somebody runs.
//!
//! In scope: its address and credentials, which deploy/vault/README.md explains, and leaving it as it was. The keys that are made there belong to
//! the installations `contract`, `mine` and `mine-too`; nothing else is looked at, and all of them are deleted, also after a failure.

use std::fs;
use std::path::PathBuf;

use claviger::keystore::vault::{DEFAULT_IN_FLIGHT, VaultLogin, VaultSettings, tls_config};
use claviger::secret::SecretFile;

use super::*;

/// The installations of the keys that the contract makes.
const INSTALLATIONS: [&str; 3] = ["contract", "mine", "mine-too"];

/// The server to use, and the test's own one, if it is that.
fn server() -> (VaultSettings, Option<Vault>) {
    if variable("CLAVIGER_LIVE_VAULT").as_deref() != Some("1") {
        let vault = Vault::start(&INSTALLATIONS);
        return (vault.settings(), Some(vault));
    }
    let needed = |name: &str| variable(name).unwrap_or_else(|| panic!("CLAVIGER_LIVE_VAULT=1 needs {name}"));
    let authorities = variable("CLAVIGER_LIVE_VAULT_CA_FILE").map(|file| fs::read(file).expect("the file of authorities"));
    let settings = VaultSettings {
        address: needed("CLAVIGER_LIVE_VAULT_ADDR").parse().expect("https://HOST[:PORT]"),
        mount: variable("CLAVIGER_LIVE_VAULT_MOUNT").as_deref().unwrap_or("transit").parse().expect("a mount"),
        namespace: variable("CLAVIGER_LIVE_VAULT_NAMESPACE").map(|namespace| namespace.parse().expect("a namespace")),
        tls: tls_config(authorities.as_deref()),
        login: VaultLogin::Token { token: SecretFile::new(PathBuf::from(needed("CLAVIGER_LIVE_VAULT_TOKEN_FILE")), None) },
        in_flight: DEFAULT_IN_FLIGHT,
    };
    (settings, None)
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the live suite says so in the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_and_nothing_is_left() {
    let (settings, _own) = server();
    let clock = clock();
    let keystore = Arc::new(VaultKeystore::open(settings, clock.clone()));
    let contract = Contract::new(keystore.clone(), clock);
    let checked = tokio::spawn(async move { contract.check_all(&[]).await }).await;
    let mut left = 0;
    for installation in INSTALLATIONS {
        for (_, locator) in keystore.inventory(installation).await.expect("listed") {
            keystore.destroy(&locator).await.expect("deleted");
            left += 1;
        }
    }
    // A failure of the contract is told as it was, after the server is clean again.
    if let Err(failed) = checked {
        std::panic::resume_unwind(failed.into_panic());
    }
    assert_eq!(left, 0, "the contract deletes what it makes");
}
