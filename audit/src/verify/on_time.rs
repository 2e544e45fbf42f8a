//! What must happen happens: rotations that are due, keys that must leave the JWKS, standbys that must exist, somebody who signs.
//!
//! In scope: from the entries of the key log alone, with the settings of that time, whether one run of a daemon had the time for a duty and
//! did not do it. Out of scope: what came too early, which the transition table refuses.
//!
//! An honest log must never fail, so a duty is late only if nothing excused it for a whole tolerance on end: a daemon ran (from its start,
//! and D + e after it, until its stop or, where there was none, the last record before the next start), its clock was not in doubt (I12),
//! and, where a new key is needed for it, neither a keystore was recorded as lost nor the key as rejected, and no operator changed what is
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
    is_reported: bool,
}

/// A finding that a step of the clock may still explain.
#[derive(Debug)]
struct Doubtful {
    until: Timestamp,
    finding: Finding,
}

/// The duties of all keyrings while the key log is replayed.
#[derive(Debug, Default)]
pub(super) struct OnTime {
    running: BTreeSet<String>,
    /// Nodes whose clock is in doubt.
    stepped: BTreeSet<String>,
    /// The time of the last `daemon.start`.
    started: Timestamp,
    rejected: BTreeSet<KeyName>,
    owed: BTreeMap<(String, Duty), Owed>,
    doubtful: Vec<Doubtful>,
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
            self.owed.values_mut().for_each(|owed| owed.since = None);
            return;
        }
        let held_until = self.started + longest_lead(keyrings);
        for ((name, duty), owed) in &mut self.owed {
            let (Some(since), Some(keyring)) = (owed.since, keyrings.keyring(name)) else { continue };
            owed.tolerance = owed.tolerance.max(tolerance(keyring, now));
            let last = since.max(owed.due).max(held_until) + owed.tolerance;
            if now > last && !owed.is_reported {
                owed.is_reported = true;
                let (rule, text) = duty.broken(name, owed.due);
                let finding = Finding::new(Verdict::Illegal, text).rule(rule).at(at);
                let finding = finding.differ(format_args!("done by {last}, since a daemon could do it from {since} on"), now);
                self.doubtful.push(Doubtful { until: now + step_time(keyring), finding });
            }
        }
    }

    /// Takes the record in, which was legal, and the duties that it leaves.
    pub(super) fn after(&mut self, keyrings: &Keyrings, record: &Record) {
        self.follow(record);
        let (now, trusted) = (record.time, self.running.iter().any(|node| !self.stepped.contains(node)));
        let mut owed = BTreeMap::new();
        for keyring in keyrings.all() {
            let excused = !trusted || self.waits_for_key(keyrings, keyring);
            for (duty, due) in duties(keyring) {
                let is_excused = if matches!(duty, Duty::Withdraw(_)) { !trusted } else { excused };
                let restarts = !matches!(duty, Duty::Withdraw(_)) && changes(record, keyring);
                let place = (keyring.name.clone(), duty);
                let before = self.owed.remove(&place).filter(|_| !restarts);
                let since = before.as_ref().and_then(|before| before.since).or(Some(now)).filter(|_| !is_excused);
                let (known, is_reported) = before.map_or((Duration::ZERO, false), |before| (before.tolerance, before.is_reported));
                owed.insert(place, Owed { due, since, tolerance: known.max(tolerance(keyring, now)), is_reported });
            }
        }
        self.owed = owed;
    }

    fn follow(&mut self, record: &Record) {
        match &record.event {
            Event::DaemonStart(_) => {
                self.started = record.time;
                self.stepped.remove(&record.node);
                self.running.insert(record.node.clone());
            }
            Event::DaemonStop(_) => drop(self.running.remove(&record.node)),
            Event::ClockStepped(_) => drop(self.stepped.insert(record.node.clone())),
            Event::ClockSettled(_) => drop(self.stepped.remove(&record.node)),
            Event::KeystoreRejected(event) => self.rejected.extend(event.key.clone()),
            _ => {}
        }
    }

    /// Whether the next key cannot come: its keystore is lost, or refuses to make it.
    fn waits_for_key(&self, keyrings: &Keyrings, keyring: &Keyring) -> bool {
        let lost = |keystore: &String| keyrings.lost_keystores().contains(keystore);
        let refused = |key: &Key| key.state == State::Requested && key.name.as_ref().is_some_and(|name| self.rejected.contains(name));
        lost(&keyring.keystore) || keyring.pending().any(|key| lost(&key.keystore) || refused(key))
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

/// Whether the record changes what the next key of the keyring must be, or takes it away, so that the work begins anew.
fn changes(record: &Record, keyring: &Keyring) -> bool {
    let of_kid = |kid: &str| keyring.key(kid).is_some();
    match &record.event {
        Event::KeyringChanged(event) => event.keyring == keyring.name,
        Event::KeyringTiming(event) => event.keyring == keyring.name,
        Event::KeyCompromised(event) => of_kid(&event.kid),
        // What the machine abandons by itself, it has replaced.
        Event::KeyAbandoned(event) => event.key.keyring() == keyring.name && record.asked.caller.is_some(),
        _ => false,
    }
}

/// How long a duty may take: to make a key (G), to have it known everywhere (D + e), and a little.
fn tolerance(keyring: &Keyring, now: Timestamp) -> Duration {
    keyring.lead_at(now) + step_time(keyring)
}

/// How long one step of a rotator may take, in which it does not look at its clock: to make a key.
fn step_time(keyring: &Keyring) -> Duration {
    let budget = keyring.timing().map(|in_force| in_force.timing.provisioning_budget_ms).unwrap_or_default();
    Duration::from_millis(budget) + TICK + STALL
}

/// How long a daemon waits after its start before it acts on dates that fell due meanwhile (I12).
fn longest_lead(keyrings: &Keyrings) -> Duration {
    keyrings.all().filter_map(Keyring::timing).map(|in_force| in_force.timing.lead()).max().unwrap_or_default()
}
