//! The settings of the keyring of all stories: those that a configuration has by default.
//!
//! In scope: numbers. Out of scope: what follows from them.

use claviger_audit::timing::Timing;

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
