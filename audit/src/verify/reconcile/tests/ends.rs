//! Near the ends of the logs, and where nobody signed for them yet: what can be said there.

use super::world::*;
use crate::event::*;

#[test]
fn what_is_near_an_end_is_not_judged() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 0);
    // CloudTrail has not delivered it yet.
    let request = world.next();
    world.sign_record(END - 600, 0, &request);
    let mut late = world.clone();
    let mut world = world.ended();
    // Nobody can say whether a record is on its way.
    let request = world.next();
    world.entry(END + 60, 3, &request, None);
    let (result, findings) = world.compare();
    assert_eq!((result.too_new, result.outside, findings), (1, 1, Vec::new()));
    // Vault writes at once; and long after the end of the log no record is on its way.
    late.sign_record(END - 600, 2, "none");
    let mut late = late.ended();
    let request = late.next();
    late.entry(END + 600, 3, &request, None);
    late.traffic(END + 700);
    assert_eq!(late.differences().len(), 2);
}

/// Whoever stopped has recorded everything: then nothing waits for its record, up to the last second and after it.
#[test]
fn logs_that_were_stopped_are_judged_to_their_end() {
    let stopped = |world: &mut World| world.record(LogKind::Keys, END, Event::DaemonStop(DaemonStop { reason: "signal".into() }));
    let mut world = World::new().ended();
    let request = world.next();
    world.entry(END + 60, 3, &request, None);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (1, 0));
    stopped(&mut world);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (0, 1));
    // The next one runs.
    world.boot += 1;
    world.started(END + 30, false);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (1, 0));
}

/// The keystore of the log key is away: records go on and are not signed for, an hour apart each, and so do signatures.
#[test]
fn a_log_key_that_is_away_makes_no_difference() {
    let mut world = World::new();
    for hour in 2..10 {
        world.sign(BEGIN + hour * 3_600, usize::try_from(hour).unwrap() % KEYS);
    }
    for unsigned in 0..=8 {
        let mut world = world.clone();
        world.unsigned.insert(LogKind::Uses, unsigned);
        let (result, findings) = world.compare();
        assert_eq!((result.uncovered, result.matched, findings), (unsigned, 12 - unsigned, Vec::new()));
        // It stops in order meanwhile, and the key log is signed for.
        world.record(LogKind::Keys, BEGIN + 36_100, Event::DaemonStop(DaemonStop { reason: "signal".into() }));
        let (result, findings) = world.compare();
        assert_eq!((result.uncovered, findings), (unsigned, Vec::new()));
    }
}

/// A line that is added long after a theft does not explain it, nor does one that says something else.
#[test]
fn a_record_that_nobody_signed_for_explains_only_what_it_fits() {
    let theft = BEGIN + 7_200;
    for (later, as_key, differing) in [(1, 2, 0), (3_600, 2, 1), (1, 3, 1)] {
        let mut world = World::new();
        let request = world.signed(theft, 2);
        let mut world = world.ended();
        world.sign_record(theft + later, as_key, &request);
        world.unsigned.insert(LogKind::Uses, 1);
        let (result, findings) = world.compare();
        assert_eq!((result.uncovered, findings.len() as u64), (1 - differing, differing), "{later} {as_key}");
    }
}

/// A stop that nobody signed for ends nothing.
#[test]
fn a_stop_counts_once_it_is_signed_for() {
    let mut world = World::new().ended();
    world.signed(END + 60, 3);
    world.record(LogKind::Keys, END, Event::DaemonStop(DaemonStop { reason: "signal".into() }));
    world.unsigned.insert(LogKind::Keys, 1);
    assert_eq!((world.compare().0.too_new, world.differences().len()), (1, 0));
}

#[test]
fn what_is_older_than_what_a_pruning_left_is_not_judged() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 2);
    world.signed(BEGIN + 10_000, 2);
    world.sign(BEGIN + 14_400, 2);
    world.signed(BEGIN + 20_000, 2);
    let mut world = world.ended();
    let left = world.uses.len() as u64 - 2;
    world.uses.retain(|record| record.seq == 0 || record.seq >= left);
    world.pruned = true;
    let (result, findings) = world.compare();
    // The first two are before the first record that is left; the last one is a theft.
    assert_eq!((result.too_old, findings.len()), (2, 1), "{findings:?}");
    assert!(findings[0].text.contains("that no record explains"));
}

/// Two nodes: each log ends at its own time, and only a node that stopped in order has no record on its way.
#[test]
fn each_node_has_an_end_of_its_own() {
    let shorter = END - 3_600;
    let world = || {
        let mut world = World::new();
        world.other_record(BEGIN + 10, Event::LogHeartbeat(LogHeartbeat {}));
        world.other_record(shorter, Event::LogHeartbeat(LogHeartbeat {}));
        world.signed(shorter + 60, 3);
        world
    };
    let (result, findings) = world().ended().compare();
    assert_eq!((result.too_new, findings), (1, Vec::new()));
    // It stopped in order.
    let mut stopped = world();
    stopped.record(LogKind::Keys, shorter, Event::DaemonStop(DaemonStop { reason: "signal".into() }));
    stopped.keys.last_mut().unwrap().node = "b".to_owned();
    assert_eq!(stopped.ended().differences().len(), 1);
    // Long after it, its log would have gone on.
    let mut later = world();
    later.signed(shorter + 600, 3);
    assert_eq!(later.ended().differences().len(), 1);
}
