//! Ways to break the machine, each of which must be caught.
//!
//! In scope: one mistake for each mutant, put around an honest answer, and the table of who catches it. An event that the log's own table
//! refuses counts as caught by that rule: the daemon would never write it. Out of scope: hooks in production code; there are none.

use std::cell::RefCell;

use claviger_audit::event::{KeyRotated, KeyWithdrawn, RotationReason};

use super::mistakes::{MISTAKES, blind};
use super::*;

/// Schedules within which a mutant must have been caught.
const PATIENCE: u64 = 600;

/// One mistake; the decision that it changes gives its shape.
#[derive(Clone, Copy)]
pub(super) enum Mistake {
    /// Another step than the honest one.
    Plan(fn(&Knows<'_>, Plan) -> Plan),
    /// Another record than the planned one.
    Event(fn(&Keyrings, &mut Event)),
    /// Another body than the events make; given are the honest and the served one.
    Body(for<'a> fn(&Keyrings, &'a [u8], &'a [u8]) -> &'a [u8]),
    Sets(fn(&Keyrings) -> Vec<SetName>),
    /// Always one change behind.
    Behind,
    Life(fn(CacheLife) -> CacheLife),
    Gate(fn(&Readings, DateGate) -> DateGate),
    /// Nobody compares the clocks.
    NoWatch,
    /// The leases to sign and to serve never lapse.
    Leases {
        sign: bool,
        serve: bool,
    },
    Signer(for<'a> fn(&'a Keyring) -> Option<&'a Key>),
    TokenLife(fn(Duration) -> Duration),
    Deadline(fn(Duration) -> Duration),
}

type Bodies = Vec<Vec<u8>>;

/// A machine with one mistake.
pub(super) struct Mutant {
    mistake: Mistake,
    /// For each set the newest honest body, for the mutant that serves it late.
    newest: RefCell<BTreeMap<(SetName, String), Bodies>>,
}

impl Mutant {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, newest: RefCell::default() }
    }

    pub(super) fn named(name: &str) -> Self {
        let found = MISTAKES.iter().find(|(known, ..)| *known == name);
        Self::new(found.expect("a mistake of the list").2)
    }
}

impl Machine for Mutant {
    fn plan(&self, knows: &Knows<'_>) -> Plan {
        let honest = Honest.plan(knows);
        if let Mistake::Plan(change) = self.mistake { change(knows, honest) } else { honest }
    }

    fn sets(&self, knows: &Knows<'_>) -> Vec<SetName> {
        if let Mistake::Sets(sets) = self.mistake { sets(knows.keyrings) } else { Honest.sets(knows) }
    }

    fn event(&self, keyrings: &Keyrings, mut event: Event) -> Event {
        if let Mistake::Event(change) = self.mistake {
            change(keyrings, &mut event);
        }
        event
    }

    fn body(&self, node: &str, keyrings: &Keyrings, set: &SetName, served: Option<&[u8]>) -> Vec<u8> {
        let honest = Honest.body(node, keyrings, set, served);
        let known = served.filter(|served| !served.is_empty());
        match (self.mistake, known) {
            (Mistake::Body(choose), Some(served)) => choose(keyrings, &honest, served).to_vec(),
            (Mistake::Behind, _) => {
                let mut newest = self.newest.borrow_mut();
                let bodies = newest.entry((set.clone(), node.to_owned())).or_default();
                if bodies.last() != Some(&honest) {
                    bodies.push(honest);
                }
                bodies[bodies.len().saturating_sub(if bodies.len() > 6 { 2 } else { 1 })].clone()
            }
            _ => honest,
        }
    }

    fn cache_life(&self, keyrings: &Keyrings, set: &SetName) -> CacheLife {
        let honest = Honest.cache_life(keyrings, set);
        if let Mistake::Life(change) = self.mistake { change(honest) } else { honest }
    }

    fn gate(&self, readings: &Readings, skew: Duration, lead: Duration, recorded: Timestamp) -> DateGate {
        let honest = Honest.gate(readings, skew, lead, recorded);
        match self.mistake {
            Mistake::Gate(change) => change(readings, honest),
            Mistake::NoWatch => DateGate::Open,
            _ => honest,
        }
    }

    fn is_stepped(&self, readings: &Readings, skew: Duration) -> bool {
        !matches!(self.mistake, Mistake::NoWatch) && Honest.is_stepped(readings, skew)
    }

    fn may_sign(&self, lease: Lease, now: Monotonic, timing: &Timing) -> bool {
        matches!(self.mistake, Mistake::Leases { sign: true, .. }) || Honest.may_sign(lease, now, timing)
    }

    fn may_serve(&self, lease: Lease, now: Monotonic, timing: &Timing) -> bool {
        matches!(self.mistake, Mistake::Leases { serve: true, .. }) || Honest.may_serve(lease, now, timing)
    }

    fn signer<'a>(&self, keyring: &'a Keyring) -> Option<&'a Key> {
        if let Mistake::Signer(signer) = self.mistake { signer(keyring) } else { Honest.signer(keyring) }
    }

    fn token_life(&self, timing: &Timing) -> Duration {
        let honest = Honest.token_life(timing);
        if let Mistake::TokenLife(change) = self.mistake { change(honest) } else { honest }
    }

    fn deadline(&self, timing: &Timing) -> Duration {
        let honest = Honest.deadline(timing);
        if let Mistake::Deadline(change) = self.mistake { change(honest) } else { honest }
    }
}

/// A rotation of the first keyring that has a standby of this age, without asking whether I1 holds.
pub(super) fn hasty(knows: &Knows<'_>, honest: Plan, age: fn(&Timing) -> Duration, reason: RotationReason) -> Plan {
    let rash = knows.keyrings.all().filter(|ring| ring.retired.is_none()).find_map(|ring| {
        let in_force = ring.timing()?;
        let old = |key: &&Key| key.state == State::Published && key.entered() + age(&in_force.timing) <= knows.now;
        let standby = ring.pending().find(old)?;
        let from = ring.current();
        let eager = knows.keyrings.eligible_at(ring, standby, knows.now).is_none_or(|date| date > knows.now);
        (eager && ring.was_active).then_some(())?;
        Some(Event::KeyRotated(KeyRotated {
            keyring: ring.name.clone(),
            from: from.and_then(|key| key.kid.clone()),
            to: standby.kid.clone()?,
            reason,
            forced: false,
            note: None,
            withdraw_after: from.map(|key| knows.now + ring.overlap_at(key, knows.now)),
            next_rotation: knows.now + in_force.timing.rotate_every(),
            timing: in_force.seq,
        }))
    });
    rash.map_or(honest, Plan::Append)
}

/// A withdrawal of the first key that stopped signing, this long before its date.
pub(super) fn early_withdrawal(knows: &Knows<'_>, honest: Plan, early: Duration) -> Plan {
    let retiring = knows.keyrings.all().flat_map(|ring| &ring.keys).filter(|key| key.state == State::Retiring);
    let mut due = retiring.filter(|key| key.withdraw_after.is_some_and(|date| date <= knows.now + early));
    let withdrawn = due.find_map(|key| Some(KeyWithdrawn { kid: key.kid.clone()?, destroy_after: knows.now + HOUR }));
    withdrawn.map_or(honest, |withdrawn| Plan::Append(Event::KeyWithdrawn(withdrawn)))
}

/// The first schedule that catches it, and who does.
fn caught(mistake: Mistake) -> Option<(u64, Caught)> {
    (0..PATIENCE).find_map(|seed| play(&Mutant::new(mistake), &schedule::schedule(seed)).err().map(|caught| (seed + 1, caught)))
}

#[test]
fn each_planted_mistake_is_caught() {
    let mut wrong = Vec::new();
    report(&format!("{:<58} {:>9}  caught by", "mistake", "schedules"));
    for (name, by, mistake) in MISTAKES {
        match caught(*mistake) {
            Some((schedules, caught)) => {
                report(&format!("{name:<58} {schedules:>9}  {}", caught.by));
                if caught.by != *by {
                    wrong.push(format!("{name}: caught by {:?} instead of {by:?}: {}", caught.by, caught.why));
                }
            }
            None => wrong.push(format!("{name}: not caught within {PATIENCE} schedules")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MISTAKES.len(), wrong.join("\n"));
    assert!(MISTAKES.len() >= 20);
}

/// Chance meets this one too seldom: a keyring's second keystore, with its standby, is away when that is due to sign.
#[test]
fn a_rotation_into_a_dead_keystore_is_caught() {
    let away = [Action::Store { store: 1, trouble: Trouble::Down, seconds: 8_000 }, Action::Wait(8_000)];
    let actions = [Action::Standby(0), Action::Wait(40_000)].into_iter().chain(away.iter().cloned().cycle().take(24)).collect();
    let schedule = Schedule { offsets_ms: vec![0], actions };
    play(&Honest, &schedule).unwrap_or_else(|caught| panic!("{}: {}", caught.by, caught.why));
    let caught = play(&Mutant::new(Mistake::Plan(blind)), &schedule).expect_err("it is caught");
    assert_eq!(caught.by, "keystores: a rotation into one that does not answer", "{}", caught.why);
}
