//! How long caches may keep a set (I4).
//!
//! In scope: the max-age to emit, from the events and the time. Out of scope: HTTP, and who answers.

use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::jwks::{self, SetName};
use claviger_audit::keyrings::{Keyrings, State};

/// While a key is compromised, verifiers are asked to come back this soon, for one D.
const MAX_AGE_AFTER_COMPROMISE: Duration = Duration::from_secs(30);

/// The cache life of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLife {
    /// A: the shortest of the set's keyrings.
    pub max_age: Duration,
    /// Until when verifiers are asked to hurry, one D after the last compromise.
    pub hurry_until: Option<Timestamp>,
}

impl CacheLife {
    /// As the events say.
    pub fn of(keyrings: &Keyrings, set: &SetName) -> Self {
        let members = || keyrings.all().filter(|keyring| jwks::sets_of(keyring).contains(set));
        let ages = members().filter_map(|keyring| keyring.timing()).map(|settings| Duration::from_millis(settings.timing.jwks_max_age_ms));
        let hurries = members().filter_map(|keyring| {
            let exposed = keyring.keys.iter().filter(|key| key.compromised_since.is_some());
            let since = exposed.filter_map(|key| key.history.iter().find(|(_, _, state)| *state == State::Compromised));
            Some(since.map(|(_, at, _)| *at).max()? + keyring.timing()?.timing.seen_by_all())
        });
        Self { max_age: ages.min().unwrap_or(Duration::from_secs(1)), hurry_until: hurries.max() }
    }

    /// The max-age to emit at `now`, in whole seconds, at least 1: A, or less for one D after a compromise; `jitter` (0 to 255) takes up
    /// to a tenth off, so that caches do not all come back at once.
    pub fn emitted(&self, now: Timestamp, jitter: u8) -> u64 {
        let hurry = self.hurry_until.is_some_and(|until| now < until);
        let longest = if hurry { self.max_age.min(MAX_AGE_AFTER_COMPROMISE) } else { self.max_age };
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let off = millis / 10 * u64::from(jitter) / 255;
        ((millis - off) / 1000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compromise_shortens_the_cache_life_until_its_end() {
        let now: Timestamp = "2026-01-01T00:00:00.000Z".parse().expect("a time");
        let life = CacheLife { max_age: Duration::from_mins(5), hurry_until: Some(now + Duration::from_mins(15)) };
        assert_eq!([life.emitted(now, 0), life.emitted(now, 255)], [30, 27]);
        assert_eq!([life.emitted(now + Duration::from_mins(15), 0), life.emitted(now + Duration::from_mins(15), 255)], [300, 270]);
        assert_eq!(CacheLife { max_age: Duration::from_millis(1), hurry_until: None }.emitted(now, 0), 1);
    }
}
