//! The settings that decide how long everything waits, and what follows from them.
//!
//! Operators set what they know (token life, cache life, polling); lead and overlap are computed. In scope: the symbols of the rotation
//! design, the sums, and the inequalities that must hold. Out of scope: parsing configuration, and proposing a smallest change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One keyring's settings, in milliseconds, as a `keyring.timing` record holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// A: the largest max-age that the JWKS response carries.
    pub jwks_max_age_ms: u64,
    /// S: stale-while-revalidate and stale-if-error allowances of caches in front of us.
    pub jwks_stale_ms: u64,
    /// V: how often the slowest verifier refreshes.
    pub verifier_poll_ms: u64,
    /// R: replicas and content delivery networks.
    pub propagation_ms: u64,
    /// T: the longest life of a token; for `jws` keyrings, how long verifiers may go on accepting a signature.
    pub token_ttl_ms: u64,
    /// e: how far two clocks may differ; at least one second.
    pub clock_skew_ms: u64,
    /// l: how long a replica may sign without having heard from the key log; zero where the log is a file.
    pub signing_lease_ms: u64,
    /// The longest time between accepting a request and releasing its signature.
    pub deadline_ms: u64,
    /// L: how long a key is active.
    pub rotate_every_ms: u64,
    /// G: time to create a key, retries included.
    pub provisioning_budget_ms: u64,
    /// E: how long verifiers may go on trusting a compromised key.
    pub max_exposure_ms: u64,
    /// The grace between withdrawn and destroyed.
    pub destroy_after_ms: u64,
}

/// One inequality that the settings break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule, e.g. `I5`.
    pub rule: &'static str,
    /// The inequality in symbols, e.g. `L >= D + e + G`.
    pub inequality: &'static str,
    /// The setting whose change is the smallest remedy.
    pub setting: &'static str,
    /// Left side, in milliseconds.
    pub left_ms: u64,
    /// Right side, in milliseconds.
    pub right_ms: u64,
}

impl Timing {
    /// D = A + S + V + R: after D every well-behaved verifier has seen a change. A sum, since a poller may sit behind a shared cache.
    pub fn seen_by_all(&self) -> Duration {
        millis(&[self.jwks_max_age_ms, self.jwks_stale_ms, self.verifier_poll_ms, self.propagation_ms])
    }

    /// D + e: how long a key is visible before it may sign (I1), and the longest exposure of a compromised key (I4).
    pub fn lead(&self) -> Duration {
        self.seen_by_all().saturating_add(self.skew())
    }

    /// Q = l + deadline: how long after the end of signing a signature may still be released.
    pub fn release_window(&self) -> Duration {
        millis(&[self.signing_lease_ms, self.deadline_ms])
    }

    /// Q + T + 2e: how long a key stays published after it stopped signing (I3).
    pub fn overlap(&self) -> Duration {
        self.release_window().saturating_add(self.token_life()).saturating_add(self.skew()).saturating_add(self.skew())
    }

    /// T as a duration.
    pub fn token_life(&self) -> Duration {
        Duration::from_millis(self.token_ttl_ms)
    }

    /// e as a duration.
    pub fn skew(&self) -> Duration {
        Duration::from_millis(self.clock_skew_ms)
    }

    /// L as a duration.
    pub fn rotate_every(&self) -> Duration {
        Duration::from_millis(self.rotate_every_ms)
    }

    /// The grace between withdrawn and destroyed.
    pub fn destroy_after(&self) -> Duration {
        Duration::from_millis(self.destroy_after_ms)
    }

    /// Every inequality that does not hold; empty for settings that can be kept.
    pub fn broken(&self) -> Vec<Broken> {
        let lead = to_millis(self.lead());
        let least_life = lead.saturating_add(self.provisioning_budget_ms);
        let rules = [
            ("I5", "L >= D + e + G", "rotate_every", self.rotate_every_ms, least_life),
            ("I4", "E >= D + e", "max_exposure", self.max_exposure_ms, lead),
            ("I4", "A >= 1 s", "jwks_max_age", self.jwks_max_age_ms, 1000),
            ("I1", "e >= 1 s", "clock_skew", self.clock_skew_ms, 1000),
            ("I2", "T >= 1 s", "token_ttl", self.token_ttl_ms, 1000),
            ("I2", "deadline >= 10 ms", "deadline", self.deadline_ms, 10),
            // Keeps every sum of dates far from the end of the calendar.
            ("I8", "100 years >= the longest setting", "the longest setting", LONGEST_MS, self.longest_ms()),
        ];
        let broken = rules.into_iter().filter(|(_, _, _, left, right)| left < right);
        broken.map(|(rule, inequality, setting, left_ms, right_ms)| Broken { rule, inequality, setting, left_ms, right_ms }).collect()
    }

    fn longest_ms(&self) -> u64 {
        let all = [
            self.jwks_max_age_ms,
            self.jwks_stale_ms,
            self.verifier_poll_ms,
            self.propagation_ms,
            self.token_ttl_ms,
            self.clock_skew_ms,
            self.signing_lease_ms,
            self.deadline_ms,
            self.rotate_every_ms,
            self.provisioning_budget_ms,
            self.max_exposure_ms,
            self.destroy_after_ms,
        ];
        all.into_iter().max().unwrap_or_default()
    }
}

/// One hundred years.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

fn millis(parts: &[u64]) -> Duration {
    Duration::from_millis(parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part)))
}

fn to_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn defaults() -> Timing {
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

    #[test]
    fn the_defaults_hold() {
        assert_eq!(defaults().broken(), []);
        assert_eq!(defaults().seen_by_all(), Duration::from_secs(910));
        assert_eq!(defaults().lead(), Duration::from_secs(940));
        assert_eq!(defaults().overlap(), Duration::from_secs(2 + 900 + 60));
    }

    #[test]
    fn each_inequality_is_named() {
        let timing = Timing { rotate_every_ms: 1_539_999, max_exposure_ms: 939_999, clock_skew_ms: 30_000, ..defaults() };
        let rules: Vec<_> = timing.broken().iter().map(|b| (b.inequality, b.right_ms)).collect();
        assert_eq!(rules, [("L >= D + e + G", 1_540_000), ("E >= D + e", 940_000)]);
    }
}
