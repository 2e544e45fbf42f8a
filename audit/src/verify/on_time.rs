//! What must happen happens: rotations that are due, keys that must leave the JWKS, standbys that must exist, somebody who signs.
//!
//! In scope: from the entries of the key log alone, with the settings of that time, whether one run of a daemon had the time for a duty and
//! did not do it. Out of scope: what came too early, which the transition table refuses.
//!
//! An honest log must never fail, so a duty is late only if nothing excused it for a whole tolerance on end: a daemon ran (from its start,
//! and D + e after it, until its stop or, where there was none, the last record before the next start), its clock was not in doubt (I12;
//! a clock that an operator confirmed counts D + e later, as after a start), and, where a new key is needed for it, neither a keystore was recorded as lost nor the key as rejected, and no operator changed what is
//! to be done. A machine that sleeps looks as if it ran until `clock.stepped` says so, a little after it woke; so a finding counts only
//! once the log goes on for long enough without that record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::Event;
use crate::keyrings::{Key, Keyring, Keyrings, State};
use crate::names::KeyName;
use crate::record::Record;
use crate::time::Timestamp;

use super::finding::{Finding, Findings, Location, Verdict};

/// One tick: how late a rotator may look again, whatever it last said about its next date.
const TICK: Duration = Duration::from_secs(10);
/// What a slow disk or a busy machine may take beside it, over all the records of a duty.
const STALL: Duration = Duration::from_secs(50);

/// No time of a record is later.
const NEVER: Timestamp = Timestamp::LATEST;

/// Something that a keyring owes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Duty {
    /// Another key signs: the date is that of the record that set it.
    Rotate(Timestamp),
    /// Some key signs.
    Sign,
    /// A key that fits the settings exists beside the one that signs.
    Standby,
    /// The key of this kid leaves the sets.
    Withdraw(String),
}

/// How a duty stands.
#[derive(Clone, Debug)]
struct Owed {
    due: Timestamp,
    /// Since when nothing excuses it; `None` while something does.
    since: Option<Timestamp>,
    /// D + e + G + a tick and a stall: the largest since then.
    tolerance: Duration,
    /// How long a finding waits: G + a tick and a stall.
    step: Duration,
    is_reported: bool,
}

impl Owed {
    /// Until when it must be done; `None` while nobody can tell.
    fn last(&self, held_until: Timestamp) -> Option<Timestamp> {
        let since = self.since.filter(|_| !self.is_reported)?;
        Some(since.max(self.due).max(held_until) + self.tolerance)
    }
}

/// A finding that a step of the clock may still explain.
#[derive(Debug)]
struct Doubtful {
    until: Timestamp,
    finding: Finding,
}

/// Whose duties a record may change.
enum Concern<'r> {
    Nobody,
    Keyring(&'r str),
    Everybody,
}

/// The duties of all keyrings while the key log is replayed. A record costs as much as the keyring that it concerns has keys.
#[derive(Debug)]
pub(super) struct OnTime {
    running: BTreeSet<String>,
    /// Nodes whose clock is in doubt.
    stepped: BTreeSet<String>,
    /// The time of the last `daemon.start` or `clock.confirmed`: dates wait for D + e after it.
    trusted_from: Timestamp,
    rejected: BTreeSet<KeyName>,
    owed: BTreeMap<String, BTreeMap<Duty, Owed>>,
    /// Nothing is late before this.
    earliest: Timestamp,
    doubtful: Vec<Doubtful>,
}

impl Default for OnTime {
    fn default() -> Self {
        let (running, stepped, rejected) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (trusted_from, earliest) = (Timestamp::default(), NEVER);
        Self { running, stepped, trusted_from, rejected, owed: BTreeMap::new(), earliest, doubtful: Vec::new() }
    }
}

impl OnTime {
    /// Judges the time between the record before and this one, in the state before this one.
    pub(super) fn before(&mut self, keyrings: &Keyrings, record: &Record, at: &Location, findings: &mut Findings) {
        let now = record.time;
        for certain in self.doubtful.extract_if(.., |doubtful| doubtful.until < now) {
            findings.push(certain.finding);
        }
        // Nobody knows how long a run before this start went on, or how long the clock stood wrong before this was noticed.
        if matches!(record.event, Event::DaemonStart(_) | Event::ClockStepped(_)) {
            self.doubtful.clear();
            self.owed.values_mut().flat_map(BTreeMap::values_mut).for_each(|owed| owed.since = None);
        } else if now > self.earliest {
            self.judge(keyrings, now, at);
        }
    }

    fn judge(&mut self, keyrings: &Keyrings, now: Timestamp, at: &Location) {
        let held_until = self.trusted_from + longest_lead(keyrings, self.trusted_from);
        self.earliest = NEVER;
        for (name, duties) in &mut self.owed {
            for (duty, owed) in duties {
                let (Some(last), Some(since)) = (owed.last(held_until), owed.since) else { continue };
                if now <= last {
                    self.earliest = self.earliest.min(last);
                    continue;
                }
                owed.is_reported = true;
                let (rule, text) = duty.broken(name, owed.due);
                let finding = Finding::new(Verdict::Illegal, text).rule(rule).at(at);
                let finding = finding.differ(format_args!("done by {last}, since a daemon could do it from {since} on"), now);
                self.doubtful.push(Doubtful { until: now + owed.step, finding });
            }
        }
    }

    /// Takes the record in, which was legal, and the duties that it leaves.
    pub(super) fn after(&mut self, keyrings: &Keyrings, record: &Record) {
        self.follow(record);
        match concern(keyrings, record) {
            Concern::Nobody => {}
            Concern::Keyring(name) => keyrings.keyring(name).into_iter().for_each(|keyring| self.take_stock(keyrings, keyring, record)),
            Concern::Everybody => keyrings.all().for_each(|keyring| self.take_stock(keyrings, keyring, record)),
        }
    }

    /// What one keyring owes from now on; what it owed before goes on.
    fn take_stock(&mut self, keyrings: &Keyrings, keyring: &Keyring, record: &Record) {
        let now = record.time;
        let trusted = self.running.iter().any(|node| !self.stepped.contains(node));
        let waits = self.waits_for_key(keyrings, keyring);
        let begins_anew = changes(record);
        let mut before = self.owed.remove(&keyring.name).unwrap_or_default();
        let (step, tolerance) = (step_time(keyring), keyring.lead_at(now) + step_time(keyring));
        let mut owed = BTreeMap::new();
        for (duty, due) in duties(keyring) {
            // A withdrawal only writes a record: it needs no key, and no keystore.
            let needs_key = !matches!(duty, Duty::Withdraw(_));
            let before = before.remove(&duty).filter(|_| !(needs_key && begins_anew));
            let since = before.as_ref().and_then(|before| before.since).or(Some(now)).filter(|_| trusted && !(needs_key && waits));
            let (known, is_reported) = before.map_or((Duration::ZERO, false), |before| (before.tolerance, before.is_reported));
            let now_owed = Owed { due, since, tolerance: known.max(tolerance), step, is_reported };
            self.earliest = now_owed.last(Timestamp::default()).map_or(self.earliest, |last| last.min(self.earliest));
            owed.insert(duty, now_owed);
        }
        self.owed.insert(keyring.name.clone(), owed);
    }

    fn follow(&mut self, record: &Record) {
        match &record.event {
            Event::DaemonStart(_) => {
                self.trusted_from = record.time;
                self.stepped.remove(&record.node);
                self.running.insert(record.node.clone());
            }
            Event::DaemonStop(_) => drop(self.running.remove(&record.node)),
            Event::ClockStepped(_) => drop(self.stepped.insert(record.node.clone())),
            Event::ClockSettled(_) => drop(self.stepped.remove(&record.node)),
            Event::ClockConfirmed(_) => {
                self.trusted_from = record.time;
                self.stepped.remove(&record.node);
            }
            Event::KeystoreRejected(event) => self.rejected.extend(event.key.clone()),
            _ => {}
        }
    }

    /// Whether the next key cannot come: its keystore is lost, or refuses to make it.
    fn waits_for_key(&self, keyrings: &Keyrings, keyring: &Keyring) -> bool {
        let lost = |keystore: &str| keyrings.lost_keystores().contains(keystore);
        let refused = |key: &Key| key.state == State::Requested && key.name.as_ref().is_some_and(|name| self.rejected.contains(name));
        lost(keyring.next_keystore()) || keyring.pending().any(|key| lost(&key.keystore) || refused(key))
    }
}

/// Whose duties the record may change, in the state after it.
fn concern<'r>(keyrings: &'r Keyrings, record: &'r Record) -> Concern<'r> {
    let of_kid = |kid: &str| keyrings.key(kid).map_or(Concern::Nobody, |(keyring, _)| Concern::Keyring(&keyring.name));
    match &record.event {
        Event::KeyringCreated(event) => Concern::Keyring(&event.keyring),
        Event::KeyringChanged(event) => Concern::Keyring(&event.keyring),
        Event::KeyringTiming(event) => Concern::Keyring(&event.keyring),
        Event::KeyringRetired(event) => Concern::Keyring(&event.keyring),
        Event::KeyRequested(event) => Concern::Keyring(&event.keyring),
        Event::KeyRotated(event) => Concern::Keyring(&event.keyring),
        Event::KeyImported(event) => Concern::Keyring(&event.keyring),
        Event::KeyCreated(event) => Concern::Keyring(event.key.keyring()),
        Event::KeyAbandoned(event) => Concern::Keyring(event.key.keyring()),
        Event::KeyPublished(event) => of_kid(&event.kid),
        Event::KeySuspended(event) => of_kid(&event.kid),
        Event::KeyResumed(event) => of_kid(&event.kid),
        Event::KeyCompromised(event) => of_kid(&event.kid),
        Event::KeyWithdrawn(event) => of_kid(&event.kid),
        Event::DaemonStart(_)
        | Event::DaemonStop(_)
        | Event::ClockStepped(_)
        | Event::ClockSettled(_)
        | Event::ClockConfirmed(_)
        | Event::KeystoreLost(_)
        | Event::KeystoreRecovered(_)
        | Event::KeystoreRejected(_)
        | Event::LogAdopted(_) => Concern::Everybody,
        _ => Concern::Nobody,
    }
}

impl Duty {
    /// The rule that its lateness breaks, and how that reads.
    fn broken(&self, keyring: &str, due: Timestamp) -> (&'static str, String) {
        match self {
            Self::Rotate(_) => ("on time", format!("the rotation of keyring {keyring} that was due at {due} is late")),
            Self::Sign => ("liveness", format!("no key of keyring {keyring} signs, although one could")),
            Self::Standby => ("liveness", format!("keyring {keyring} has no standby, although one could have been made")),
            Self::Withdraw(kid) => {
                ("liveness", format!("key {kid} of keyring {keyring} was to leave the JWKS at {due}, and is still there"))
            }
        }
    }
}

/// What a keyring owes in this state, and from when on.
fn duties(keyring: &Keyring) -> Vec<(Duty, Timestamp)> {
    let retiring = keyring.keys.iter().filter(|key| key.state == State::Retiring);
    let withdrawals = retiring.filter_map(|key| Some((Duty::Withdraw(key.kid.clone()?), key.withdraw_after?)));
    let mut duties: Vec<(Duty, Timestamp)> = withdrawals.collect();
    if keyring.retired.is_some() || keyring.timing().is_none() {
        return duties;
    }
    match (keyring.current().map(|key| key.state), keyring.next_rotation) {
        // A suspended key waits for an operator.
        (Some(State::Suspended), _) => {}
        (Some(_), Some(due)) => duties.push((Duty::Rotate(due), due)),
        _ => duties.push((Duty::Sign, Timestamp::default())),
    }
    let exists = |key: &Key| matches!(key.state, State::Created | State::Published) && keyring.fits(key);
    if !keyring.pending().any(exists) {
        duties.push((Duty::Standby, Timestamp::default()));
    }
    duties
}

/// Whether the record changes what the next key of its keyring must be, or takes it away, so that the work begins anew.
fn changes(record: &Record) -> bool {
    match &record.event {
        Event::KeyringChanged(_) | Event::KeyringTiming(_) | Event::KeyCompromised(_) => true,
        // What the machine abandons by itself, it has replaced.
        Event::KeyAbandoned(_) => record.asked.caller.is_some(),
        _ => false,
    }
}

/// How long one step of a rotator may take, in which it does not look at its clock: to make a key.
fn step_time(keyring: &Keyring) -> Duration {
    let budget = keyring.timing().map(|in_force| in_force.timing.provisioning_budget_ms).unwrap_or_default();
    Duration::from_millis(budget) + TICK + STALL
}

/// How long a daemon waits after its start, or after its clock was confirmed, before it acts on dates (I12): a lead that was lowered since
/// then still counts (I8).
fn longest_lead(keyrings: &Keyrings, from: Timestamp) -> Duration {
    keyrings.all().map(|keyring| keyring.lead_at(from)).max().unwrap_or_default()
}
