//! Pruning: what may go, what is kept, how a pruned log opens, and a crash at every call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::{Event, LogAdopted, LogCreated, LogKind, UsesHead, UsesPruned};
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::note::Note;
use claviger_audit::record::Asked;
use proptest::prelude::*;
use tokio::runtime::Handle;

use super::fake::{FakeDisk, Fault, Left, Plan};
use super::harness::{ManualClock, USES_ORIGIN, created, denied, in_small_segments, make, records, signed, signer, verifier_key};
use crate::clock::Clock as _;
use crate::journal::create::create_with;
use crate::journal::disk::Disk as _;
use crate::journal::prune::{Order, Prunable, PruneError, Pruner, look};
use crate::journal::{KeyLog, OpenError, Opened, UseLog};

const USES: &str = "/log/uses";
const MINUTE: Duration = Duration::from_mins(1);

/// A use log of several segments, a record a minute, covered by a checkpoint. `token` is the record that signs, and for how many minutes.
async fn filled(count: u32, token: Option<(u32, u64)>) -> (FakeDisk, Arc<ManualClock>) {
    let (disk, clock) = (FakeDisk::default(), ManualClock::start());
    for kind in [LogKind::Keys, LogKind::Uses] {
        make(&in_small_segments(&disk, kind, &clock), kind);
    }
    let keys = KeyLog::open(&in_small_segments(&disk, LogKind::Keys, &clock)).unwrap();
    let uses = UseLog::open(&in_small_segments(&disk, LogKind::Uses, &clock), keys.log.clone()).unwrap();
    let checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    for number in 0..count {
        clock.pass(MINUTE);
        let draft = match token.filter(|(at, _)| *at == number) {
            Some((_, minutes)) => signed("kid", clock.wall() + MINUTE * u32::try_from(minutes).unwrap()),
            None => denied(&number.to_string()),
        };
        uses.log.append(draft).await.unwrap();
    }
    checkpoints.checkpoint_now().await.unwrap();
    uses.log.stop().await;
    keys.log.stop().await;
    (disk, clock)
}

fn segments(disk: &FakeDisk) -> Vec<u64> {
    let names = disk.list(Path::new(USES)).unwrap();
    names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).collect()
}

fn content(disk: &FakeDisk, first: u64) -> Vec<u8> {
    disk.content(&Path::new(USES).join(format!("{first:020}.jsonl")))
}

/// Everything that is old enough, as far as a checkpoint covers it.
fn order(clock: &ManualClock, keep: bool) -> Order {
    Order { before: clock.wall() + MINUTE, covered: u64::MAX, keep }
}

/// What the shell does: hashes, record, deletion.
async fn prune(disk: &FakeDisk, clock: &Arc<ManualClock>, covered: u64) -> Result<Prunable, String> {
    let keys = KeyLog::open(&in_small_segments(disk, LogKind::Keys, clock)).map_err(|error| error.to_string())?.log;
    let pruner = Pruner::new(in_small_segments(disk, LogKind::Uses, clock));
    let covered = covered.min(checkpoint(disk).0);
    let old = pruner.look(Order { covered, ..order(clock, true) }).await.map_err(|error| error.to_string());
    let old = match old {
        Ok(old) if !old.segments.is_empty() => old,
        other => {
            keys.stop().await;
            return other;
        }
    };
    let head = UsesHead { of: "n1".to_owned(), origin: USES_ORIGIN.to_owned(), size: old.first, root: old.root };
    let (of, origin, reason) = (head.of.clone(), head.origin.clone(), "old".to_owned());
    let pruned = UsesPruned { of, origin, first: old.first, root: old.root, before: clock.wall(), reason };
    let events = vec![Event::UsesHead(head), Event::UsesPruned(pruned)];
    let appended = keys.append(Asked::default(), move |_, _| Ok(events.clone())).await;
    keys.stop().await;
    appended.map_err(|error| error.to_string())?;
    pruner.delete(old.first).await.map_err(|error| error.to_string())?;
    Ok(old)
}

/// The newest checkpoint: size and root.
fn checkpoint(disk: &FakeDisk) -> (u64, Hash) {
    let note = Note::parse(&disk.content(&Path::new(USES).join("checkpoint"))).unwrap();
    let (checkpoint, _) = Checkpoint::from_note(&note, USES_ORIGIN, &[verifier_key(USES_ORIGIN)]).unwrap();
    (checkpoint.size, checkpoint.root)
}

/// The leaf hash of every record that ever was, from the hashes that are kept and the lines that are left.
fn leaves(disk: &FakeDisk) -> Vec<Hash> {
    let (mut leaves, begins) = (Vec::new(), segments(disk)[0]);
    while (leaves.len() as u64) < begins {
        let bytes = disk.content(&Path::new(USES).join(format!("{:020}.hashes", leaves.len())));
        leaves.extend(bytes.as_chunks::<32>().0.iter().map(|hash| Hash::from_bytes(*hash)));
    }
    let lines: Vec<u8> = segments(disk).into_iter().flat_map(|first| content(disk, first)).collect();
    leaves.extend(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(leaf_hash));
    leaves
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(leaves.iter().copied());
    frontier.root()
}

/// Opens the use log, appends to it, and signs a checkpoint, which must be that of all records that ever were. Gives where the log begins.
async fn open(disk: &FakeDisk, clock: &Arc<ManualClock>) -> Result<u64, OpenError> {
    let keys = KeyLog::open(&in_small_segments(disk, LogKind::Keys, clock))?.log;
    let opened = UseLog::open(&in_small_segments(disk, LogKind::Uses, clock), keys.clone());
    if opened.is_err() {
        keys.stop().await;
    }
    let Opened { log, coverage, .. } = opened?;
    assert_eq!(log.poisoned(), None);
    let checkpoints = coverage.start(signer(), Handle::current()).unwrap();
    log.append(denied("again")).await.unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    log.stop().await;
    keys.stop().await;
    let (size, signed) = checkpoint(disk);
    assert_eq!(signed, root(&leaves(disk)[..usize::try_from(size).unwrap()]));
    Ok(segments(disk)[0])
}

#[tokio::test]
async fn whole_old_covered_segments_may_go_and_no_other() {
    let (disk, clock) = filled(16, None).await;
    let all = segments(&disk);
    assert!(all.len() > 4, "{all:?}");
    let found = |order| look(&disk, Path::new(USES), order).unwrap().first;
    // The last segment is the one that is being written.
    assert_eq!(found(order(&clock, false)), all[all.len() - 1]);
    // One that no checkpoint covers, with the record after it, stays.
    assert_eq!(found(Order { covered: all[2], ..order(&clock, false) }), all[1]);
    assert_eq!(found(Order { covered: all[2] + 1, ..order(&clock, false) }), all[2]);
    // Every record must be older.
    let last = records(&content(&disk, all[1])).last().unwrap().time;
    let before = |before| found(Order { before, ..order(&clock, false) });
    assert_eq!((before(last), before(last + Duration::from_millis(1))), (all[1], all[2]));
    assert_eq!(before(claviger_audit::Timestamp::default()), 0);
    assert_eq!(segments(&disk), all, "looking changes nothing");
    assert!(disk.list(Path::new(USES)).unwrap().iter().all(|name| !name.ends_with(".hashes")));
}

#[tokio::test]
async fn a_token_that_lives_holds_its_record() {
    let (disk, clock) = filled(16, Some((3, 1000))).await;
    let all = segments(&disk);
    let signs = |first: &u64| records(&content(&disk, *first)).iter().any(|record| matches!(record.event, Event::Sign(_)));
    let holds = all.iter().position(signs).unwrap();
    let found = look(&disk, Path::new(USES), order(&clock, false)).unwrap();
    assert_eq!(found.first, all[holds], "{all:?}");
    clock.pass(MINUTE * 1000);
    assert_eq!(look(&disk, Path::new(USES), order(&clock, false)).unwrap().first, all[all.len() - 1]);
}

#[tokio::test]
async fn a_pruned_log_opens_and_goes_on_with_the_same_tree() {
    let (whole, clock) = filled(16, None).await;
    let disk = whole.after_crash(Left::Everything);
    let all = segments(&disk);
    let lines: Vec<Vec<u8>> = all.iter().map(|first| content(&disk, *first)).collect();
    let before = leaves(&disk);
    let old = prune(&disk, &clock, all[2] + 1).await.unwrap();
    assert_eq!((old.first, old.segments.len(), segments(&disk)), (all[2], 2, all[2..].to_vec()));
    assert_eq!(
        old.segments.iter().map(|old| (old.first, old.bytes)).collect::<Vec<_>>(),
        [(0, lines[0].len() as u64), (all[1], lines[1].len() as u64)]
    );
    let kept = disk.content(&Path::new(USES).join("00000000000000000000.hashes"));
    let first: Vec<u8> = before[..usize::try_from(all[1]).unwrap()].iter().flat_map(|leaf| *leaf.as_bytes()).collect();
    assert_eq!(kept, first);
    let genesis = disk.content(&Path::new(USES).join("genesis"));
    assert_eq!(genesis, lines[0].split_inclusive(|byte| *byte == b'\n').next().unwrap());
    assert_eq!(leaves(&disk), before);
    // With its frontier, and without it from the hashes alone.
    let without = disk.after_crash(Left::Everything);
    for name in ["frontier", "checkpoint"] {
        without.remove(&Path::new(USES).join(name)).unwrap();
    }
    assert_eq!(open(&disk, &clock).await.unwrap(), all[2]);
    assert_eq!(open(&without, &clock).await.unwrap(), all[2]);
    // And once more, from where it begins now.
    let again = prune(&disk, &clock, u64::MAX).await.unwrap();
    assert_eq!((again.segments[0].first, again.root), (all[2], root(&leaves(&disk)[..usize::try_from(again.first).unwrap()])));
    assert_eq!(leaves(&disk)[..before.len()], before);
    assert_eq!(open(&disk, &clock).await.unwrap(), again.first);
}

#[tokio::test]
async fn a_log_that_begins_in_the_middle_is_accepted_only_where_the_key_log_says_so() {
    let (whole, clock) = filled(16, None).await;
    let all = segments(&whole);
    // The hashes are there, but the key log says nothing.
    let disk = whole.after_crash(Left::Everything);
    Pruner::new(in_small_segments(&disk, LogKind::Uses, &clock)).look(order(&clock, true)).await.unwrap();
    disk.remove(&Path::new(USES).join(format!("{:020}.jsonl", 0))).unwrap();
    let refused = open(&disk, &clock).await;
    assert!(matches!(refused, Err(OpenError::Unsound { .. })), "{refused:?}");
    // It says less than what is missing.
    let disk = whole.after_crash(Left::Everything);
    prune(&disk, &clock, all[1] + 1).await.unwrap();
    assert_eq!(segments(&disk)[0], all[1]);
    Pruner::new(in_small_segments(&disk, LogKind::Uses, &clock)).look(order(&clock, true)).await.unwrap();
    disk.remove(&Path::new(USES).join(format!("{:020}.jsonl", all[1]))).unwrap();
    let refused = open(&disk, &clock).await;
    assert!(matches!(refused, Err(OpenError::Unsound { .. })), "{refused:?}");
    // It says so, but what was kept is gone, or is something else.
    for (name, bytes) in [("genesis", None), ("00000000000000000000.hashes", None), ("00000000000000000000.hashes", Some(vec![7; 64]))] {
        let disk = whole.after_crash(Left::Everything);
        prune(&disk, &clock, u64::MAX).await.unwrap();
        for name in ["frontier", "checkpoint", name] {
            disk.remove(&Path::new(USES).join(name)).unwrap();
        }
        if let Some(bytes) = bytes {
            disk.create(&Path::new(USES).join(name)).unwrap().append(&bytes).unwrap();
        }
        let refused = open(&disk, &clock).await;
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn what_was_changed_is_not_deleted() {
    let (whole, clock) = filled(16, None).await;
    let (path, bytes) = (Path::new(USES).join(format!("{:020}.jsonl", 0)), content(&whole, 0));
    for at in (0..bytes.len()).step_by(37) {
        let disk = whole.after_crash(Left::Everything);
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        disk.remove(&path).unwrap();
        disk.create(&path).unwrap().append(&changed).unwrap();
        let refused = look(&disk, Path::new(USES), order(&clock, true));
        assert!(matches!(refused, Err(PruneError::Open(OpenError::Tampered { .. }))), "byte {at}: {refused:?}");
    }
}

#[tokio::test]
async fn a_crash_at_every_call_deletes_only_what_the_key_log_says_is_gone() {
    let (fresh, clock) = filled(12, None).await;
    let all = segments(&fresh);
    let calls = {
        let disk = fresh.after_crash(Left::Everything);
        disk.plan(Plan::Nothing);
        prune(&disk, &clock, u64::MAX).await.unwrap();
        disk.calls()
    };
    assert!(calls > 15, "{calls}");
    let mut seen = [0; 3];
    for call in 1..=calls {
        for fault in [Fault::Lost, Fault::Done] {
            let crashed = fresh.after_crash(Left::Everything);
            crashed.plan(Plan::From(call, fault));
            let failed = prune(&crashed, &clock, u64::MAX).await;
            for left in [Left::Nothing, Left::Half, Left::Everything] {
                let what = format!("call {call}, {fault:?}, {left:?} left: {failed:?}");
                let disk = crashed.after_crash(left);
                let before = segments(&disk);
                let begins = open(&disk, &clock).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                let (recorded, untouched) = (begins == all[all.len() - 1], begins == 0);
                assert!(recorded || untouched, "{what}: begins at {begins}");
                assert!(recorded || before == all, "{what}: deleted before the key log says so");
                seen[if untouched { 0 } else { 1 + usize::from(before.len() > 1) }] += 1;
                // Either way, asking again does the rest.
                prune(&disk, &clock, u64::MAX).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(segments(&disk)[0] >= all[all.len() - 1], "{what}");
            }
        }
    }
    // Never begun, all done, and recorded but cut off before the last unlink was durable.
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[tokio::test]
async fn a_log_that_goes_on_from_another_keeps_both_its_first_records() {
    let (disk, clock) = (FakeDisk::default(), ManualClock::start());
    make(&in_small_segments(&disk, LogKind::Keys, &clock), LogKind::Keys);
    let origin = format!("{USES_ORIGIN}/adopted-2");
    let first = LogCreated { origin: origin.clone(), key: verifier_key(&origin).to_string(), ..created(LogKind::Uses) };
    let adopted = LogAdopted { origin: USES_ORIGIN.to_owned(), size: 9, root: Hash::digest(b"root"), lost: 1, reason: None };
    let opening = in_small_segments(&disk, LogKind::Uses, &clock);
    let made = (Asked::default(), first, Some(adopted));
    create_with(&opening, LogKind::Uses, made, clock.wall(), &mut |_| Ok(())).unwrap();
    let keys = KeyLog::open(&in_small_segments(&disk, LogKind::Keys, &clock)).unwrap().log;
    let uses = UseLog::open(&opening, keys.clone()).unwrap().log;
    for number in 0..8 {
        uses.append(denied(&number.to_string())).await.unwrap();
    }
    uses.stop().await;
    keys.stop().await;
    let lines = content(&disk, 0);
    look(&disk, Path::new(USES), order(&clock, true)).unwrap();
    let genesis = disk.content(&Path::new(USES).join("genesis"));
    let events: Vec<_> = records(&genesis).into_iter().map(|record| record.event.name()).collect();
    assert_eq!((events, lines.starts_with(&genesis)), (vec!["log.created", "log.adopted"], true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is pruned in whatever steps, what is left opens, and its tree is that of the whole log.
    #[test]
    fn any_prunings_leave_the_tree_as_it_was(steps in proptest::collection::vec(0.0..1.0_f64, 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (disk, clock) = filled(14, None).await;
            let (all, before) = (segments(&disk), leaves(&disk));
            let mut furthest = 0;
            for step in steps {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index of a few")]
                let index = (step * all.len() as f64) as usize;
                let old = prune(&disk, &clock, all[index] + 1).await.unwrap();
                furthest = furthest.max(all[index]);
                assert_eq!(old.first, furthest);
                assert_eq!(segments(&disk)[0], furthest);
            }
            for name in ["frontier", "checkpoint"] {
                disk.remove(&Path::new(USES).join(name)).unwrap();
            }
            assert_eq!(open(&disk, &clock).await.unwrap(), furthest);
            assert_eq!(leaves(&disk)[..before.len()], before);
        });
    }
}
