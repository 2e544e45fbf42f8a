//! The machine as the world drives it: the pure functions of this room, one method each.
//!
//! In scope: the honest answers, as defaults. Out of scope: mistakes; each of `super::mutants` overrides one answer.

use super::*;

/// What a node knows when it decides.
pub(super) struct Knows<'a> {
    pub(super) keyrings: &'a Keyrings,
    /// The later of its wall clock and the last record.
    pub(super) now: Timestamp,
    pub(super) conditions: Conditions<'a>,
}

/// Every decision that the world asks for.
pub(super) trait Machine {
    fn plan(&self, knows: &Knows<'_>) -> Plan {
        plan(knows.keyrings, knows.now, &knows.conditions)
    }

    fn sets(&self, knows: &Knows<'_>) -> Vec<SetName> {
        sets_to_serve(knows.keyrings, &knows.conditions)
    }

    /// The record that is written for a planned event.
    fn event(&self, _keyrings: &Keyrings, event: Event) -> Event {
        event
    }

    /// The body of a set. `served` is the one that this node serves.
    fn body(&self, _node: &str, keyrings: &Keyrings, set: &SetName, _served: Option<&[u8]>) -> Vec<u8> {
        jwks::body(keyrings, set).expect("a set that exists")
    }

    fn cache_life(&self, keyrings: &Keyrings, set: &SetName) -> CacheLife {
        CacheLife::of(keyrings, set)
    }

    fn gate(&self, readings: &Readings, skew: Duration, lead: Duration, recorded: Timestamp) -> DateGate {
        readings.date_gate(skew, lead, recorded)
    }

    fn is_stepped(&self, readings: &Readings, skew: Duration) -> bool {
        readings.is_stepped(skew)
    }

    fn may_sign(&self, lease: Lease, now: Monotonic, timing: &Timing) -> bool {
        lease.may_sign(now, timing)
    }

    fn may_serve(&self, lease: Lease, now: Monotonic, timing: &Timing) -> bool {
        lease.may_serve(now, timing)
    }

    /// The key that signs for a keyring.
    fn signer<'a>(&self, keyring: &'a Keyring) -> Option<&'a Key> {
        keyring.active()
    }

    /// The longest life that a token may be given.
    fn token_life(&self, timing: &Timing) -> Duration {
        timing.token_life()
    }

    /// How long after it was accepted a token may still leave.
    fn deadline(&self, timing: &Timing) -> Duration {
        Duration::from_millis(timing.deadline_ms)
    }
}

/// The machine as it is.
pub(super) struct Honest;

impl Machine for Honest {}
