//! Which keys sign the checkpoints of a log, and since when.
//!
//! In scope: the key of `log.created`, those that `log.key_rotated` brought, and which of them a checkpoint needs. Out of scope: making
//! keys, and asking keystores for signatures ([`super::SignNote`]).

use claviger_audit::event::{LogCreated, LogKeyRotated};
use claviger_audit::note::VerifierKey;

/// A key that signs checkpoints, and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// Its public half, called by the log's origin.
    pub key: VerifierKey,
    /// The keystore that holds it.
    pub keystore: String,
    /// Where it is within that keystore.
    pub locator: String,
}

impl LogKey {
    /// The key that a log began with.
    pub(super) fn of(created: &LogCreated) -> Result<Self, String> {
        let key: VerifierKey = created.key.parse().map_err(|error| format!("the log's key {:?}: {error}", created.key))?;
        if key.name() != created.origin {
            return Err(format!("the log {:?} names the key of {:?}", created.origin, key.name()));
        }
        Ok(Self { key, keystore: created.keystore.clone(), locator: created.locator.clone() })
    }
}

/// A key, and from which size of the log on it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The smallest size whose checkpoint it signs: zero, or one more than the sequence number of its `log.key_rotated`.
    pub since: u64,
    /// The key.
    pub holder: LogKey,
}

impl Tenure {
    /// One line of the `frontier` file. The locator comes last: of all words it alone may have spaces.
    pub(super) fn line(&self) -> String {
        let LogKey { key, keystore, locator } = &self.holder;
        format!("key {} {key} {keystore} {locator}\n", self.since)
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("key ")?.splitn(4, ' ');
        let since = words.next()?.parse().ok()?;
        let holder = LogKey { key: words.next()?.parse().ok()?, keystore: words.next()?.to_owned(), locator: words.next()?.to_owned() };
        Some(Self { since, holder })
    }
}

/// The keys of a log, oldest first; there is always one.
#[derive(Clone, Debug)]
pub(super) struct Tenures {
    first: Tenure,
    later: Vec<Tenure>,
}

impl Tenures {
    pub(super) fn begin(first: Tenure) -> Self {
        Self { first, later: Vec::new() }
    }

    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Tenure> {
        std::iter::once(&self.first).chain(&self.later)
    }

    pub(super) fn newest(&self) -> &Tenure {
        self.later.last().unwrap_or(&self.first)
    }

    /// The key in force at a size.
    pub(super) fn at(&self, size: u64) -> &Tenure {
        self.all().rev().find(|tenure| tenure.since <= size).unwrap_or(&self.first)
    }

    /// Who must sign the checkpoint of `size` if the newest one until then has the size `covered`: whoever was in force anywhere from there
    /// to here. So the checkpoint that covers a rotation carries both signatures, one before it the old key's alone, and one after it the new key's alone.
    pub(super) fn signers(&self, covered: u64, size: u64) -> impl Iterator<Item = &Tenure> {
        let oldest = self.at(covered.min(size)).since;
        self.all().filter(move |tenure| (oldest..=size).contains(&tenure.since))
    }

    /// Follows a `log.key_rotated` with this sequence number. The error says why it is none of this log.
    pub(super) fn turn(&mut self, seq: u64, event: &LogKeyRotated) -> Result<(), String> {
        let newest = &self.newest().holder.key;
        if event.old != newest.to_string() {
            return Err(format!("the log key is {newest}, not {}", event.old));
        }
        let key: VerifierKey = event.new.parse().map_err(|error| format!("the new log key {:?}: {error}", event.new))?;
        if key.name() != newest.name() || self.all().any(|tenure| tenure.holder.key == key) {
            return Err(format!("{key} cannot follow {newest}: it must be a new key of the same origin"));
        }
        let holder = LogKey { key, keystore: event.keystore.clone(), locator: event.locator.clone() };
        self.later.push(Tenure { since: seq + 1, holder });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use claviger_audit::jwk::PublicKey;

    use super::*;

    fn key(seed: u8) -> VerifierKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        VerifierKey::from_jwk("a.example/keys", &PublicKey::from_ed25519(pair.public_key().as_ref().try_into().unwrap())).unwrap()
    }

    fn rotated(old: u8, new: u8) -> LogKeyRotated {
        LogKeyRotated { old: key(old).to_string(), new: key(new).to_string(), keystore: "soft".to_owned(), locator: format!("{new} here") }
    }

    fn three() -> Tenures {
        let holder = LogKey { key: key(1), keystore: "soft".to_owned(), locator: "1 here".to_owned() };
        let mut tenures = Tenures::begin(Tenure { since: 0, holder });
        tenures.turn(4, &rotated(1, 2)).unwrap();
        tenures.turn(7, &rotated(2, 3)).unwrap();
        tenures
    }

    #[test]
    fn a_checkpoint_is_signed_by_whoever_was_in_force_since_the_one_before() {
        let tenures = three();
        let signers = |covered, size| tenures.signers(covered, size).map(|tenure| tenure.since).collect::<Vec<_>>();
        // Record 4 is covered from size 5 on, record 7 from size 8 on.
        let cases: [(u64, u64, &[u64]); 9] = [
            (0, 3, &[0]),
            (3, 4, &[0]),
            (4, 5, &[0, 5]),
            (2, 7, &[0, 5]),
            (5, 6, &[5]),
            (5, 5, &[5]),
            (6, 8, &[5, 8]),
            (4, 9, &[0, 5, 8]),
            (8, 9, &[8]),
        ];
        for (covered, size, expected) in cases {
            assert_eq!(signers(covered, size), expected, "{covered} to {size}");
        }
        let at = |size| tenures.at(size).holder.key.clone();
        assert_eq!([at(0), at(4), at(5), at(7), at(8)], [key(1), key(1), key(2), key(2), key(3)]);
    }

    #[test]
    fn only_the_key_in_force_hands_over_and_only_to_a_new_key_of_the_log() {
        let mut tenures = three();
        let mut foreign = rotated(3, 4);
        foreign.new = foreign.new.replace("a.example", "b.example");
        let mut nonsense = rotated(3, 4);
        nonsense.new = "nonsense".to_owned();
        for wrong in [rotated(1, 4), rotated(3, 3), rotated(3, 1), foreign, nonsense] {
            assert!(tenures.turn(9, &wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(tenures.newest().since, 8);
        tenures.turn(9, &rotated(3, 4)).unwrap();
    }

    #[test]
    fn a_tenure_is_read_as_it_was_written() {
        for tenure in three().all() {
            let line = tenure.line();
            assert_eq!(Tenure::parse(line.trim_end_matches('\n')).as_ref(), Some(tenure));
            assert_eq!(Tenure::parse(&line[1..]), None);
        }
        assert_eq!(Tenure::parse("key 5 soft here"), None);
    }
}
