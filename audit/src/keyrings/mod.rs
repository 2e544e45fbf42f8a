//! The state of all keyrings: what the key log says, and nothing else.
//!
//! In scope: the keys, their states and dates, and the questions that signing, planning, publishing and verifying ask. The only way to
//! change anything is [`Keyrings::apply`], the one transition table, which the daemon calls before it writes and the verifier calls again
//! when it reads. Out of scope: files, clocks, and what should happen next (the daemon plans that).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::algorithm::Algorithm;
use crate::event::{Purpose, UsesHead, UsesPruned};
use crate::jwk::PublicKey;
use crate::jwks::{self, SetName};
use crate::merkle::Hash;
use crate::names::KeyName;
use crate::time::Timestamp;
use crate::timing::Timing;

mod apply;
mod beginning;
mod keystores;
mod retention;
mod rule;
#[cfg(test)]
mod tests;

pub use keystores::{Drift, LONGEST_FOUND, Wedged};
pub use rule::{Illegal, Rule};

/// The state of a key, in the terms of NIST SP 800-57 part 1 where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum State {
    Requested,
    Created,
    Published,
    Active,
    Suspended,
    Retiring,
    Withdrawn,
    Compromised,
    Abandoned,
    Destroyed,
}

impl State {
    /// Whether a key in this state is part of its sets.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Published | Self::Active | Self::Suspended | Self::Retiring)
    }

    /// Whether the key is on its way to become active.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Requested | Self::Created | Self::Published)
    }

    /// The name that records, tables and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Created => "created",
            Self::Published => "published",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Retiring => "retiring",
            Self::Withdrawn => "withdrawn",
            Self::Compromised => "compromised",
            Self::Abandoned => "abandoned",
            Self::Destroyed => "destroyed",
        }
    }
}

/// One key and its story.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in the keystore; `None` for an imported public key.
    pub name: Option<KeyName>,
    /// The thumbprint (or, imported, the kid as it was); `None` before `key.created`.
    pub kid: Option<String>,
    /// The public key, likewise.
    pub public: Option<PublicKey>,
    /// What it signs.
    pub algorithm: Algorithm,
    /// Where it lives; empty for an imported key.
    pub keystore: String,
    /// Where it is within its keystore; `None` before `key.created`.
    pub locator: Option<String>,
    /// What `key.created` recorded of it, by attribute; empty before that, and for an imported key. Never changed, so copies share it.
    pub attributes: Arc<BTreeMap<String, String>>,
    /// The state now.
    pub state: State,
    /// Every state with the sequence number and time of the record that brought it, in order. What a former log brought has number 0.
    pub history: Vec<(u64, Timestamp, State)>,
    /// When each node first served it in each set.
    pub served: BTreeMap<(String, SetName), Timestamp>,
    /// The date that `key.published` promised; it may not sign before, whatever the settings become.
    pub earliest_activation: Option<Timestamp>,
    /// When it began to sign.
    pub activated: Option<Timestamp>,
    /// When it stopped signing for good; `None` for a key that never could.
    pub stopped: Option<Timestamp>,
    /// When it may leave the JWKS (I3), or, imported, when it does.
    pub withdraw_after: Option<Timestamp>,
    /// When it may be destroyed.
    pub destroy_after: Option<Timestamp>,
    /// From when on its signatures are in doubt.
    pub compromised_since: Option<Timestamp>,
    /// What it had become in its keystore, as last recorded; `None` for a key that is as it was made, as far as anybody knows. It decides
    /// nothing: who may sign depends on the state alone. Kept when the key is withdrawn or ends.
    pub drift: Option<Drift>,
}

impl Key {
    /// The state after the first `size` records of the key log.
    pub fn state_at(&self, size: u64) -> Option<State> {
        let entries = self.history.partition_point(|(seq, _, _)| *seq < size);
        self.history[..entries].last().map(|(_, _, state)| *state)
    }

    /// When the key entered the state it is in.
    pub fn entered(&self) -> Timestamp {
        self.history.last().map(|(_, time, _)| *time).unwrap_or_default()
    }

    /// The key's number in its keyring; zero for an imported key.
    pub fn number(&self) -> u32 {
        self.name.as_ref().map_or(0, KeyName::number)
    }
}

/// Settings and since when they are in force.
#[derive(Clone, Copy, Debug)]
pub struct InForce {
    /// Sequence number of the `keyring.timing` record; 0 if it stands in a former log.
    pub seq: u64,
    /// Its time.
    pub since: Timestamp,
    /// The settings.
    pub timing: Timing,
}

/// A named series of keys for one purpose.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Its name.
    pub name: String,
    /// What it signs.
    pub purpose: Purpose,
    /// The name of its issuer.
    pub issuer: Option<String>,
    /// The `iss` of its tokens.
    pub issuer_url: Option<String>,
    /// The `typ` of its tokens.
    pub typ: Option<String>,
    /// Of the next key.
    pub algorithm: Algorithm,
    /// Of the next key, unless [`Keyring::next_keystore`] says another.
    pub keystore: String,
    /// The other keystore, if it has two.
    pub standby_keystore: Option<String>,
    /// All settings that ever were in force, in order.
    pub timings: Vec<InForce>,
    /// All keys that ever were, in order of their request.
    pub keys: Vec<Key>,
    /// When the next scheduled rotation is due; `None` while no key is active.
    pub next_rotation: Option<Timestamp>,
    /// Whether a key of it was ever active.
    pub was_active: bool,
    /// When it was retired.
    pub retired: Option<Timestamp>,
}

impl Keyring {
    /// The settings in force: those of the last `keyring.timing` record (I8).
    pub fn timing(&self) -> Option<&InForce> {
        self.timings.last()
    }

    /// The key that signs.
    pub fn active(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.state == State::Active)
    }

    /// The key that signs, or would if it were not suspended.
    pub fn current(&self) -> Option<&Key> {
        self.keys.iter().find(|key| matches!(key.state, State::Active | State::Suspended))
    }

    /// Keys on their way to become active, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.state.is_pending())
    }

    /// Every key that is in the sets now.
    pub fn published(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.state.is_published())
    }

    /// The key with this kid.
    pub fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.kid.as_deref() == Some(kid))
    }

    /// Where the next key is to live. A keyring with two keystores has its standby in the one in which the key that signs, or would if it
    /// were not suspended, is not: whichever of them is lost, the next rotation survives it.
    pub fn next_keystore(&self) -> &str {
        let signs_here = |key: &Key| key.keystore == self.keystore;
        self.standby_keystore.as_deref().filter(|_| self.current().is_some_and(signs_here)).unwrap_or(&self.keystore)
    }

    /// Whether the key is as the settings want the next key to be; a standby that is not is only a fallback. While nobody signs a key in
    /// either keystore will do.
    pub fn fits(&self, key: &Key) -> bool {
        let lives_well = key.keystore == self.next_keystore()
            || (self.current().is_none() && self.standby_keystore.as_deref() == Some(key.keystore.as_str()));
        key.algorithm == self.algorithm && lives_well
    }

    /// D + e as it counts at `now`: a lowered D counts only one old D + e after its record (I8).
    pub fn lead_at(&self, now: Timestamp) -> Duration {
        let next_since = self.timings.iter().skip(1).map(|next| next.since);
        let superseded = self.timings.iter().zip(next_since);
        let still_counts = superseded.filter(|(old, since)| now < *since + old.timing.lead()).map(|(old, _)| old.timing.lead());
        still_counts.chain(self.timing().map(|t| t.timing.lead())).max().unwrap_or_default()
    }

    /// From when on I1 holds for a key that became visible at `visible`, as seen at `now`. Where a longer lead stops counting (I8) before
    /// it has passed, the date is that moment, or the end of the shorter lead.
    fn aged_at(&self, visible: Timestamp, now: Timestamp) -> Timestamp {
        let by_now = visible + self.lead_at(now);
        let superseded = self.timings.iter().zip(self.timings.iter().skip(1));
        let falls = superseded.map(|(old, next)| next.since + old.timing.lead()).filter(|date| *date > now);
        falls.map(|date| date.max(visible + self.lead_at(date))).fold(by_now, Timestamp::min)
    }

    /// How long the key that is active or suspended must stay published once it stops at `now` (I3): Q + T + 2e, each the largest that
    /// was in force while the key could sign.
    pub fn overlap_at(&self, key: &Key, now: Timestamp) -> Duration {
        let activated = key.activated.unwrap_or(now);
        let ends = self.timings.iter().skip(1).map(|next| next.since).chain([now]);
        let while_active = self.timings.iter().zip(ends).filter(|(_, end)| *end >= activated).map(|(settings, _)| settings.timing);
        let (mut window, mut life, mut skew) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for timing in while_active {
            window = window.max(timing.release_window());
            life = life.max(timing.token_life());
            skew = skew.max(timing.skew());
        }
        window + life + skew + skew
    }

    pub(crate) fn published_jwks(&self) -> Vec<String> {
        let mut published: Vec<&Key> = self.published().collect();
        published.sort_by(|a, b| (a.number(), &a.kid).cmp(&(b.number(), &b.kid)));
        let texts = published.into_iter().filter_map(|key| Some((key.kid.as_deref()?, key.algorithm, key.public.as_ref()?)));
        texts.map(|(kid, algorithm, public)| jwks::jwk_text(kid, algorithm, public)).collect()
    }
}

/// What a node said it serves for a set.
#[derive(Clone, Debug)]
pub struct Served {
    /// The size of the key log that the body was built from; 0 if that was a former log.
    pub size: u64,
    /// SHA-256 of the body.
    pub sha256: Hash,
    /// When it was recorded.
    pub time: Timestamp,
}

/// How the key log begins: which log it is.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The C2SP origin line of the key log.
    pub origin: String,
    /// Part of every key's name.
    pub installation: String,
    /// The keystore that holds the log key.
    pub keystore: String,
    /// Where the log key is within it.
    pub locator: String,
    /// The log's verifier key in C2SP text form.
    pub verifier_key: String,
}

/// A key log that ended: what the next one must name.
#[derive(Clone, Debug)]
struct Former {
    origin: Origin,
    size: u64,
    root: Hash,
}

/// All keyrings, as the first [`Keyrings::size`] records of the key log made them.
#[derive(Clone, Debug, Default)]
pub struct Keyrings {
    size: u64,
    last_time: Timestamp,
    origin: Option<Origin>,
    /// The log that this one goes on from, until `log.adopted` has named it.
    former: Option<Former>,
    rings: BTreeMap<String, Keyring>,
    kids: HashMap<String, String>,
    names: BTreeSet<KeyName>,
    /// Every node that ever started; a date where it last stopped in order.
    nodes: BTreeMap<String, Option<Timestamp>>,
    served: BTreeMap<(String, SetName), Served>,
    uses_heads: BTreeMap<String, (Timestamp, UsesHead)>,
    /// The last pruning of each use log, by its origin.
    uses_pruned: BTreeMap<String, UsesPruned>,
    /// Years whose pseudonyms nobody can tell any more, by node.
    erased: BTreeSet<(String, u64)>,
    lost_keystores: BTreeSet<String>,
    /// The last time that a keystore was given up, by node.
    wedged: BTreeMap<String, Wedged>,
}

impl Keyrings {
    /// How many records made this state.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The time of the last record.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Which log this is; `None` before its first record.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Every keyring that ever was, by name.
    pub fn all(&self) -> impl Iterator<Item = &Keyring> {
        self.rings.values()
    }

    /// The keyring of this name.
    pub fn keyring(&self, name: &str) -> Option<&Keyring> {
        self.rings.get(name)
    }

    /// The key with this kid, and its keyring.
    pub fn key(&self, kid: &str) -> Option<(&Keyring, &Key)> {
        let keyring = self.rings.get(self.kids.get(kid)?)?;
        Some((keyring, keyring.key(kid)?))
    }

    /// The key with this name, and its keyring.
    pub fn key_named(&self, name: &KeyName) -> Option<(&Keyring, &Key)> {
        let keyring = self.rings.get(name.keyring())?;
        let key = keyring.keys.iter().find(|key| key.name.as_ref() == Some(name))?;
        Some((keyring, key))
    }

    /// Every set that some keyring's keys are part of, in order.
    pub fn sets(&self) -> BTreeSet<SetName> {
        self.rings.values().flat_map(jwks::sets_of).collect()
    }

    /// What `node` last said it serves for `set`.
    pub fn served(&self, node: &str, set: &SetName) -> Option<&Served> {
        self.served.get(&(node.to_owned(), set.clone()))
    }

    /// Whether any node ever served `set`.
    pub fn was_served(&self, set: &SetName) -> bool {
        self.served.keys().any(|(_, served)| served == set)
    }

    /// The last `uses.head` of each node, with its time.
    pub fn uses_heads(&self) -> &BTreeMap<String, (Timestamp, UsesHead)> {
        &self.uses_heads
    }

    /// Whether `node` last started without stopping in order.
    pub fn is_running(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(Option::is_none)
    }

    /// Keystores that are recorded as lost.
    pub fn lost_keystores(&self) -> &BTreeSet<String> {
        &self.lost_keystores
    }

    /// When `node` last gave a keystore up until its next start, and which one.
    pub fn last_wedged(&self, node: &str) -> Option<&Wedged> {
        self.wedged.get(node)
    }

    /// The last pruning of the use log of this origin.
    pub fn last_pruning(&self, origin: &str) -> Option<&UsesPruned> {
        self.uses_pruned.get(origin)
    }

    /// The years whose pseudonyms `node` can make no more.
    pub fn erased_years(&self, node: &str) -> impl Iterator<Item = u64> {
        self.erased.iter().filter(move |(of, _)| of == node).map(|(_, year)| *year)
    }

    /// The latest time at which a registered node first served the key in one of its sets; `None` while one of them has not. A node that
    /// stopped in order before it served the key serves nothing since then, so its stop counts instead, else a renamed node would
    /// hold up every rotation for ever.
    pub fn visible(&self, keyring: &Keyring, key: &Key) -> Option<Timestamp> {
        let in_set = |set: SetName| {
            let served = |node: &String| key.served.get(&(node.clone(), set.clone())).copied();
            self.nodes.keys().find_map(served)?;
            let times: Option<Vec<Timestamp>> = self.nodes.iter().map(|(node, stopped)| served(node).or(*stopped)).collect();
            times?.into_iter().max()
        };
        let times: Option<Vec<Timestamp>> = jwks::sets_of(keyring).into_iter().map(in_set).collect();
        times?.into_iter().max()
    }

    /// The first moment at which I1 holds for a published key, by what is known at `now`: visible + D + e, and never before the date that
    /// `key.published` promised. `None` while the key is not visible everywhere.
    pub fn eligible_at(&self, keyring: &Keyring, key: &Key, now: Timestamp) -> Option<Timestamp> {
        if key.state != State::Published {
            return None;
        }
        let aged = keyring.aged_at(self.visible(keyring, key)?, now);
        Some(aged.max(key.earliest_activation.unwrap_or_default()))
    }

    /// The standby for which I1 holds at `now`: one that fits the settings before one that does not, then the oldest.
    pub fn eligible_standby<'a>(&'a self, keyring: &'a Keyring, now: Timestamp) -> Option<&'a Key> {
        let eligible = |key: &&Key| self.eligible_at(keyring, key, now).is_some_and(|date| date <= now);
        keyring.pending().filter(eligible).min_by_key(|key| !keyring.fits(key))
    }

    /// How many keys `set` holds now.
    pub fn published_in(&self, set: &SetName) -> usize {
        self.rings.values().filter(|keyring| jwks::sets_of(keyring).contains(set)).flat_map(Keyring::published).count()
    }

    /// Whether a keyring may start with a key of age zero (I1): it never had an active key, and no set that contains it was ever served.
    pub fn may_bootstrap(&self, keyring: &Keyring) -> bool {
        !keyring.was_active && !jwks::sets_of(keyring).iter().any(|set| self.was_served(set))
    }
}
