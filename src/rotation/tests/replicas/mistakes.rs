//! The planted mistakes: a name, who must catch it, and the change.
//!
//! In scope: the list. Out of scope: playing it (`super::mutants`).

use claviger_audit::event::RotationReason;

use super::mutants::{Mistake, early_withdrawal, hasty};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Every mistake, with the property or the rule of the table that catches it first.
pub(super) const MISTAKES: &[(&str, &str, Mistake)] = &[
    ("half an overlap", "the table, I3", Mistake::Event(|_, event| overlap(event, |span| span / 2))),
    ("an overlap without the skew", "the table, I3", Mistake::Event(|_, event| overlap(event, |span| span.saturating_sub(2 * SKEW)))),
    (
        "an overlap without the release window",
        "the table, I3",
        Mistake::Event(|_, event| overlap(event, |span| span.saturating_sub(SECOND))),
    ),
    ("an overlap by the newest settings only", "the table, I3", Mistake::Event(newest_overlap)),
    ("a withdrawal a second early", "the table, I3", Mistake::Plan(|knows, honest| early_withdrawal(knows, honest, SECOND))),
    ("no withdrawal", "the log, liveness", Mistake::Plan(|_, honest| without(honest, "key.withdrawn"))),
    ("half a lead", "the table, I1", Mistake::Plan(|k, honest| hasty(k, honest, |timing| timing.lead() / 2, RotationReason::OnDemand))),
    (
        "a lead without the skew",
        "the table, I1",
        Mistake::Plan(|k, honest| hasty(k, honest, Timing::seen_by_all, RotationReason::OnDemand)),
    ),
    (
        "a lead from publication, not from the last node",
        "the table, I1",
        Mistake::Plan(|k, honest| hasty(k, honest, Timing::lead, RotationReason::OnDemand)),
    ),
    (
        "a start with age zero after a set was served",
        "the table, I1",
        Mistake::Plan(|k, honest| hasty(k, honest, |_| Duration::ZERO, RotationReason::Bootstrap)),
    ),
    ("an early promise in key.published", "the table, I1", Mistake::Event(early_promise)),
    ("a rotation before its date", "the table, I8", Mistake::Event(early_next)),
    ("no scheduled rotation", "the log, liveness", Mistake::Plan(|_, honest| without(honest, "key.rotated"))),
    ("a rotation in two events", "the table, I11", Mistake::Event(two_events)),
    ("a standby only when it is due", "the log, liveness", Mistake::Plan(late_standby)),
    ("a key destroyed while tokens live", "the table, I11", Mistake::Plan(early_destruction)),
    ("a compromised key that is not disabled", "the log, liveness", Mistake::Plan(not_disabled)),
    ("a key made before its record", "orphans: a key that no record names", Mistake::Plan(made_first)),
    ("a set that is rebuilt at rotations only", "verifiers: trust a compromised key for too long (E)", Mistake::Body(at_rotations)),
    ("a set that keeps a compromised key", "verifiers: trust a compromised key for too long (E)", Mistake::Body(keeps_compromised)),
    ("a set that is one change behind", "the table, I9", Mistake::Behind),
    ("an empty first set", "the table, I10", Mistake::Sets(|keyrings| keyrings.sets().into_iter().collect())),
    (
        "no shorter cache life after a compromise",
        "I4: no shorter cache life after a compromise",
        Mistake::Life(|life| CacheLife { hurry_until: None, ..life }),
    ),
    ("a cache life beyond A", "verifiers: unknown kid (I1)", Mistake::Life(|life| CacheLife { max_age: 12 * life.max_age, ..life })),
    ("a lease to sign that never lapses", "verifiers: the kid of a live token left (I3)", Mistake::Leases { sign: true, serve: false }),
    (
        "a lease to serve that never lapses",
        "verifiers: trust a compromised key for too long (E)",
        Mistake::Leases { sign: false, serve: true },
    ),
    ("a clock that nobody watches", "verifiers: the kid of a live token left (I3)", Mistake::NoWatch),
    ("a log ahead of the clock that retires keys", "verifiers: the kid of a live token left (I3)", Mistake::Gate(ignores_the_log)),
    (
        "dates that are not held after a start",
        "the log, I12",
        Mistake::Gate(|_, gate| if matches!(gate, DateGate::Held { .. }) { DateGate::Open } else { gate }),
    ),
    ("a wake in the past", "I9: a wake that is not in the future", Mistake::Plan(|knows, honest| rewake(honest, Some(knows.now)))),
    ("no wake", "the log, liveness", Mistake::Plan(|_, honest| rewake(honest, None))),
    ("a dead keystore that holds up everything", "the log, liveness", Mistake::Plan(held_up)),
    ("a standby beside the key that signs", "I9: a busy loop", Mistake::Plan(beside)),
    ("a suspended key that signs", "I2: a suspended key signs", Mistake::Signer(Keyring::current)),
    (
        "a standby that signs",
        "verifiers: unknown kid (I1)",
        Mistake::Signer(|ring| ring.pending().find(|key| key.state == State::Published).or(ring.active())),
    ),
    (
        "a former key that signs",
        "verifiers: the kid of a live token left (I3)",
        Mistake::Signer(|ring| ring.keys.iter().find(|key| key.state == State::Retiring).or(ring.active())),
    ),
    ("a token that outlives T", "verifiers: the kid of a live token left (I3)", Mistake::TokenLife(|life| 2 * life)),
    (
        "a release long after the deadline",
        "verifiers: the kid of a live token left (I3)",
        Mistake::Deadline(|deadline| deadline + Duration::from_mins(1)),
    ),
];

fn overlap(event: &mut Event, change: fn(Duration) -> Duration) {
    if let Event::KeyRotated(e) = event {
        // When the record is written is when its next rotation is counted from.
        e.withdraw_after = e.withdraw_after.map(|date| {
            let written = [DAY, DAY / 2].into_iter().map(|every| e.next_rotation - every).filter(|at| *at < date).max().unwrap_or(date);
            written + change(date.since(written))
        });
    }
}

fn newest_overlap(keyrings: &Keyrings, event: &mut Event) {
    if let Event::KeyRotated(e) = event
        && let Some(timing) = keyrings.keyring(&e.keyring).and_then(Keyring::timing).map(|in_force| in_force.timing)
    {
        let written = e.next_rotation - timing.rotate_every();
        e.withdraw_after = e.withdraw_after.map(|_| written + timing.overlap());
    }
}

fn early_promise(_: &Keyrings, event: &mut Event) {
    if let Event::KeyPublished(e) = event {
        e.earliest_activation = e.earliest_activation - SECOND;
    }
}

fn early_next(_: &Keyrings, event: &mut Event) {
    if let Event::KeyRotated(e) = event {
        e.next_rotation = e.next_rotation - SECOND;
    }
}

fn two_events(_: &Keyrings, event: &mut Event) {
    if let Event::KeyRotated(e) = event {
        (e.from, e.withdraw_after) = (None, None);
    }
}

/// Another step, or none until the next record, in place of a record of this name.
fn without(honest: Plan, name: &str) -> Plan {
    match honest {
        Plan::Append(event) if event.name() == name && !is_bootstrap(&event) => Plan::SleepUntil(None),
        step => step,
    }
}

fn is_bootstrap(event: &Event) -> bool {
    matches!(event, Event::KeyRotated(e) if e.reason == RotationReason::Bootstrap)
}

fn late_standby(knows: &Knows<'_>, honest: Plan) -> Plan {
    let Plan::Append(Event::KeyRequested(e)) = &honest else { return honest };
    let due = knows.keyrings.keyring(&e.keyring).and_then(|ring| ring.next_rotation).filter(|due| *due > knows.now);
    due.map_or(honest, |due| Plan::SleepUntil(Some(due)))
}

fn early_destruction(knows: &Knows<'_>, honest: Plan) -> Plan {
    let mut retiring = knows.keyrings.all().flat_map(|ring| &ring.keys).filter(|key| key.state == State::Retiring);
    let step = retiring.find_map(|key| {
        let name = key.name.clone()?;
        Some(Plan::Destroy { name, keystore: key.keystore.clone(), locator: key.locator.clone() })
    });
    step.unwrap_or(honest)
}

fn not_disabled(knows: &Knows<'_>, honest: Plan) -> Plan {
    match &honest {
        Plan::Destroy { name, .. } if knows.keyrings.key_named(name).is_some_and(|(_, key)| key.state == State::Compromised) => {
            Plan::SleepUntil(None)
        }
        _ => honest,
    }
}

fn made_first(_: &Knows<'_>, honest: Plan) -> Plan {
    match honest {
        Plan::Append(Event::KeyRequested(e)) => Plan::Create { name: e.key, algorithm: e.algorithm, keystore: e.keystore },
        step => step,
    }
}

fn rewake(honest: Plan, wake: Option<Timestamp>) -> Plan {
    if matches!(honest, Plan::SleepUntil(_)) { Plan::SleepUntil(wake) } else { honest }
}

fn held_up(knows: &Knows<'_>, honest: Plan) -> Plan {
    let again = knows.conditions.unavailable.values().filter(|again| **again > knows.now).min();
    again.map_or(honest, |again| Plan::SleepUntil(Some(*again)))
}

/// The step of somebody who never hears that a keystore does not answer.
/// The next key signs though its keystore is away.
pub(super) fn blind(knows: &Knows<'_>, honest: Plan) -> Plan {
    let all_answer = BTreeMap::new();
    let conditions = Conditions { unavailable: &all_answer, ..knows.conditions };
    match (honest, plan(knows.keyrings, knows.now, &conditions)) {
        (_, Plan::Append(event)) if event.name() == "key.rotated" => Plan::Append(event),
        // It wakes for a rotation, too.
        (Plan::SleepUntil(_), Plan::SleepUntil(wake)) => Plan::SleepUntil(wake),
        (honest, _) => honest,
    }
}

fn beside(knows: &Knows<'_>, honest: Plan) -> Plan {
    let Plan::Append(Event::KeyRequested(mut e)) = honest else { return honest };
    if let Some(key) = knows.keyrings.keyring(&e.keyring).and_then(Keyring::current) {
        e.keystore.clone_from(&key.keystore);
    }
    Plan::Append(Event::KeyRequested(e))
}

fn ignores_the_log(readings: &Readings, _: DateGate) -> DateGate {
    readings.date_gate(SKEW, Duration::ZERO, Timestamp::default())
}

/// The served body, as long as it holds every key that signs.
fn at_rotations<'a>(keyrings: &Keyrings, honest: &'a [u8], served: &'a [u8]) -> &'a [u8] {
    let known = |kid: &str| String::from_utf8_lossy(served).contains(kid) || !String::from_utf8_lossy(honest).contains(kid);
    let signers = keyrings.all().filter_map(|ring| ring.active()?.kid.as_deref());
    if signers.into_iter().all(known) { served } else { honest }
}

/// The served body, once it holds a key that is compromised.
fn keeps_compromised<'a>(keyrings: &Keyrings, honest: &'a [u8], served: &'a [u8]) -> &'a [u8] {
    let text = String::from_utf8_lossy(served);
    let mut exposed = keyrings.all().flat_map(|ring| &ring.keys).filter(|key| key.compromised_since.is_some());
    if exposed.any(|key| key.kid.as_deref().is_some_and(|kid| text.contains(kid))) { served } else { honest }
}
