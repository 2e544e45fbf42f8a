//! What covers a signature without a record, and how far.

use super::world::*;
use super::{APART, HEARTBEAT};
use crate::event::*;
use crate::merkle::Hash;
use crate::verify::Verdict;

/// The last record before the kill, which is a second before it.
const KILL: u64 = BEGIN + 7_200;

/// Killed in the middle of one call, of two that its start allows.
fn killed() -> World {
    let mut world = World::new();
    world.sign(KILL - 600, 2);
    world.killed(KILL, 2);
    world
}

#[test]
fn an_allowance_goes_to_whom_only_it_can_cover() {
    let mut world = World::new();
    world.sign(BEGIN + 7_000, 2);
    // Far from the kill, covered by its own count alone; near it, both could cover.
    world.signed(BEGIN + 7_100, 2);
    let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(2), count: 1 };
    world.record(LogKind::Uses, BEGIN + 7_200, Event::SignUnanswered(unanswered));
    world.signed(BEGIN + 7_350, 2);
    world.killed(BEGIN + 7_351, 2);
    let (result, findings) = world.ended().compare();
    assert_eq!((result.allowed_count, findings), (3, Vec::new()));
}

#[test]
fn a_kill_covers_as_many_signatures_as_were_in_flight() {
    let mut world = killed();
    world.signed(KILL + 1, 0);
    let (result, findings) = world.clone().ended().compare();
    assert_eq!((result.allowed_count, findings), (2, Vec::new()));
    world.signed(KILL + 2, 3);
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1, "{differences:?}");
}

#[test]
fn a_kill_covers_no_longer_than_a_living_log_is_silent() {
    let reach = (HEARTBEAT + APART).as_secs();
    for (later, differing) in [(reach, 0), (reach + 1, 1)] {
        let mut world = killed();
        // The last record of the run that was killed came a second before the kill.
        world.signed(KILL - 1 + later, 2);
        assert_eq!(world.ended().differences().len(), differing, "{later}");
    }
}

#[test]
fn a_kill_covers_only_keys_that_signed() {
    // In Vault the name tells whose it is; no record knows it.
    let mut unknown = killed();
    unknown.signed(KILL, 7);
    assert!(unknown.ended().differences()[0].contains("that no record knows"));
    // A standby, made long before; then one that signed no more.
    let with_standby = |extra: &dyn Fn(&mut World)| {
        let mut world = World::new();
        world.made(BEGIN + 20, 5);
        extra(&mut world);
        world.killed(KILL, 2);
        world.signed(KILL, 5);
        world.ended().differences().len()
    };
    assert_eq!(with_standby(&|_| {}), 1);
    assert_eq!(with_standby(&|world| world.activated(KILL - 3_600, 5)), 0);
    let suspended = KeySuspended { kid: kid(5), reason: "an operator's".into() };
    for (before, differing) in [(3_600, 1), (60, 0)] {
        let stop = |world: &mut World| {
            world.activated(BEGIN + 30, 5);
            world.record(LogKind::Keys, KILL - before, Event::KeySuspended(suspended.clone()));
        };
        assert_eq!(with_standby(&stop), differing, "{before}");
    }
}

/// The self-test of a key that was being made may be in flight too, whether or not it was made in the end.
#[test]
fn a_kill_covers_the_self_test_of_a_new_key() {
    for is_made in [true, false] {
        let mut world = World::new();
        let requested =
            KeyRequested { key: name(5), keyring: "access".into(), keystore: "vault".into(), algorithm: crate::Algorithm::EdDSA };
        world.record(LogKind::Keys, KILL - 10, Event::KeyRequested(requested));
        world.signed(KILL, 5);
        world.killed(KILL + 1, 2);
        if is_made {
            world.made(KILL + 3_700, 5);
        }
        let (result, findings) = world.ended().compare();
        assert_eq!((result.allowed_count, findings), (2, Vec::new()));
    }
}

/// The run that was killed had a keystore that the file names no more, or the other way round.
#[test]
fn a_kill_covers_what_the_run_before_could_have_in_flight() {
    for (before, after) in [(2, 0), (0, 2)] {
        let mut world = World::with(before);
        world.in_flight = after;
        world.killed(KILL, 2);
        world.signed(KILL, 3);
        let (result, findings) = world.ended().compare();
        assert_eq!((result.allowed_count, findings), (2, Vec::new()), "{before} {after}");
    }
}

/// Each log keeps its own times in order: that of the start may be before the last one of the use log.
#[test]
fn a_start_may_be_a_little_before_the_last_record_of_the_run_before() {
    let mut world = World::new();
    world.record(LogKind::Uses, KILL + 2, Event::LogHeartbeat(LogHeartbeat {}));
    world.signed(KILL, 2);
    world.boot += 1;
    world.started(KILL + 1, true);
    let (result, findings) = world.ended().compare();
    assert_eq!((result.allowed_count, findings), (1, Vec::new()));
}

/// Whoever can write the file can add a line; only the log key makes it count.
#[test]
fn what_nobody_signed_for_covers_nothing() {
    let unsigned = |kind, event: Event| {
        let mut world = World::new();
        world.signed(KILL, 2);
        let mut world = world.ended();
        if kind == LogKind::Keys {
            world.boot += 1;
        }
        world.record(kind, KILL, event);
        let signed = world.differences().len();
        world.unsigned.insert(kind, 1);
        (signed, world.differences().len())
    };
    let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(2), count: 1_000_000 };
    assert_eq!(unsigned(LogKind::Uses, Event::SignUnanswered(unanswered)), (0, 1));
    let start = DaemonStart { version: "1".into(), unclean: true, in_flight: 1_000_000 };
    assert_eq!(unsigned(LogKind::Keys, Event::DaemonStart(start)), (0, 1));
    let adopted = LogAdopted { origin: "example.org/uses".into(), size: 1, root: Hash::EMPTY_ROOT, lost: 9, reason: None };
    assert_eq!(unsigned(LogKind::Uses, Event::LogAdopted(adopted)), (0, 1));
}

/// A line that nobody signed for must not say when a run was killed.
#[test]
fn what_nobody_signed_for_moves_no_kill() {
    let mut world = killed();
    world.signed(KILL + 1_800, 2);
    let boot = world.boot;
    let mut world = world.ended();
    assert_eq!(world.differences().len(), 1);
    world.boot = boot - 1;
    world.record(LogKind::Uses, KILL + 1_800, Event::LogHeartbeat(LogHeartbeat {}));
    world.unsigned.insert(LogKind::Uses, 1);
    assert_eq!(world.differences().len(), 1);
}

/// Without the log before, nothing says when it lost its records: not in 1970.
#[test]
fn an_adoption_of_a_log_that_is_not_here_covers_what_is_near() {
    for (before, differing) in [(60, 0), (3_600, 1)] {
        let mut world = World::new();
        world.signed(KILL - before, 2);
        let adopted = LogAdopted { origin: "example.org/other".into(), size: 9, root: Hash::EMPTY_ROOT, lost: 9, reason: None };
        world.record(LogKind::Uses, KILL, Event::LogAdopted(adopted));
        let (result, findings) = world.ended().compare();
        assert_eq!((result.allowed_count, findings.len()), (1 - differing, usize::try_from(differing).unwrap()), "{before}");
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Differs));
    }
}
