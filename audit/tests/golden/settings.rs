//! The keyring of all stories, and its settings: those that a configuration has by default.
//!
//! In scope: names and numbers. Out of scope: what follows from them.

use claviger_audit::Algorithm;
use claviger_audit::event::{KeyringCreated, Purpose};
use claviger_audit::timing::Timing;

pub(crate) fn keyring() -> KeyringCreated {
    KeyringCreated {
        keyring: "access".into(),
        purpose: Purpose::Jwt,
        issuer: Some("main".into()),
        issuer_url: Some("https://auth.example.org".into()),
        typ: Some("at+jwt".into()),
        algorithm: Algorithm::EdDSA,
        keystore: "hsm".into(),
        standby_keystore: None,
    }
}

pub(crate) fn timing() -> Timing {
    Timing {
        jwks_max_age_ms: 300_000,
        jwks_stale_ms: 0,
        verifier_poll_ms: 600_000,
        propagation_ms: 10_000,
        token_ttl_ms: 900_000,
        clock_skew_ms: 30_000,
        signing_lease_ms: 0,
        deadline_ms: 2_000,
        rotate_every_ms: 30 * 86_400_000,
        provisioning_budget_ms: 600_000,
        max_exposure_ms: 3_600_000,
        destroy_after_ms: 7 * 86_400_000,
    }
}
