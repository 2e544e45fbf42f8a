//! Another key signs the checkpoints of a log: both once, then the new one alone; and after every crash the right one.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::{Event, LogKind};
use claviger_audit::note::Note;
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::fake::{FakeDisk, Fault, Left, Plan};
use super::harness::{
    FIRST_KEY, Logs, ManualClock, ORIGIN, USES_ORIGIN, both, denied, in_small_segments, key_rotated, make, only_some, opening, reopen,
    signer, stopped, verifier_key_of,
};
use crate::journal::checkpoint::CheckpointError;
use crate::journal::disk::Disk;
use crate::journal::{AppendError, Draft, KeyLog, OpenError, Opening, UseLog};

const SEGMENT: &str = "00000000000000000000.jsonl";
/// The seed of the key that follows the first.
const SECOND_KEY: u8 = 8;

fn turned(origin: &str) -> Event {
    key_rotated(origin, FIRST_KEY, SECOND_KEY)
}

fn draft(event: Event) -> Draft {
    Draft { asked: Asked::default(), event }
}

/// The size of a checkpoint, and the seeds of the keys that signed it; each signature is verified.
fn signed_by(bytes: &[u8], origin: &str) -> (u64, Vec<u8>) {
    let note = Note::parse(bytes).unwrap();
    let keys: Vec<_> = (FIRST_KEY..FIRST_KEY + 4).map(|seed| verifier_key_of(seed, origin)).collect();
    let (checkpoint, signatures) = Checkpoint::from_note(&note, origin, &keys).unwrap();
    assert_eq!(note.signatures().len(), signatures.iter().count(), "a signature by a stranger");
    let seed = |key| FIRST_KEY + u8::try_from(keys.iter().position(|known| known == key).unwrap()).unwrap();
    (checkpoint.size, signatures.iter().map(|signature| seed(&signature.key)).collect())
}

#[tokio::test]
async fn the_checkpoint_that_covers_the_rotation_has_both_signatures_and_the_next_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { clock, keys, uses } = both(folder.path());
    let newest = |log: &str, origin: &str| signed_by(&fs::read(folder.path().join(log).join("checkpoint")).unwrap(), origin);
    let kept = |log: &str, origin: &str, seq: u64| {
        signed_by(&fs::read(folder.path().join(format!("{log}/{seq:020}.checkpoint"))).unwrap(), origin)
    };

    let checkpoints = keys.coverage.start(signer(), Handle::current()).unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    assert_eq!(newest("keys", ORIGIN), (1, vec![FIRST_KEY]));
    assert_eq!(checkpoints.tenure().since, 0);
    let turn = |log: &KeyLog, event: Event| {
        let log = log.clone();
        async move { log.append(Asked::default(), move |_, _| Ok(vec![event.clone()])).await }
    };
    let receipts = turn(&keys.log, turned(ORIGIN)).await.unwrap();
    assert_eq!((receipts[0].seq, checkpoints.tenure().since), (1, 2));
    checkpoints.checkpoint_now().await.unwrap();
    assert_eq!(newest("keys", ORIGIN), (2, vec![FIRST_KEY, SECOND_KEY]));
    turn(&keys.log, stopped("later")).await.unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    assert_eq!((newest("keys", ORIGIN), kept("keys", ORIGIN, 1)), ((3, vec![SECOND_KEY]), (2, vec![FIRST_KEY, SECOND_KEY])));
    // Whoever is not in force hands nothing over.
    for wrong in [turned(ORIGIN), key_rotated(ORIGIN, SECOND_KEY, FIRST_KEY), key_rotated(USES_ORIGIN, SECOND_KEY, 9)] {
        assert!(matches!(turn(&keys.log, wrong).await, Err(AppendError::Illegal(_))));
    }

    // The use log is read from its checkpoint on; which key signed that one stands beside it.
    let checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    let seq = uses.log.append(draft(turned(USES_ORIGIN))).await.unwrap().seq;
    checkpoints.checkpoint_now().await.unwrap();
    uses.log.append(denied("one")).await.unwrap();
    let size = checkpoints.checkpoint_now().await.unwrap();
    assert_eq!((newest("uses", USES_ORIGIN), kept("uses", USES_ORIGIN, seq).1), ((size, vec![SECOND_KEY]), vec![FIRST_KEY, SECOND_KEY]));
    uses.log.stop().await;
    keys.log.stop().await;

    // Without that file, or with an older or a damaged one, the log is read from its first record, and tells the same.
    let frontier = folder.path().join("uses/frontier");
    let older = fs::read_to_string(&frontier).unwrap();
    assert!(older.contains(&format!("\nkey {} ", seq + 1)), "{older}");
    for case in ["as it is", "older", "damaged", "missing"] {
        let newest_frontier = fs::read_to_string(&frontier).unwrap();
        match case {
            "older" => fs::write(&frontier, &older).unwrap(),
            "damaged" => fs::write(&frontier, newest_frontier.replace("\nkey ", "\nkez ")).unwrap(),
            "missing" => fs::remove_file(&frontier).unwrap(),
            _ => {}
        }
        let again = reopen(folder.path(), Arc::clone(&clock));
        for (coverage, since) in [(again.keys.coverage, 2), (again.uses.coverage, seq + 1)] {
            let checkpoints = coverage.start(only_some(|seed| seed == SECOND_KEY), Handle::current()).unwrap();
            assert_eq!(checkpoints.tenure().since, since, "{case}");
            checkpoints.checkpoint_now().await.unwrap();
        }
        again.uses.log.stop().await;
        again.keys.log.stop().await;
        assert_eq!((newest("keys", ORIGIN).1, newest("uses", USES_ORIGIN).1), (vec![SECOND_KEY], vec![SECOND_KEY]), "{case}");
    }
}

#[tokio::test]
async fn without_the_old_key_a_rotation_stays_uncovered_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { clock, keys: mut opened, .. } = both(folder.path());
    let living = Arc::new(AtomicU8::new(FIRST_KEY));
    let answering = Arc::clone(&living);
    let signers = only_some(move |seed| seed == answering.load(Ordering::SeqCst));
    let path = folder.path().join("keys/checkpoint");
    for round in 0..3 {
        let checkpoints = opened.coverage.start(Arc::clone(&signers), Handle::current()).unwrap();
        if round == 0 {
            checkpoints.checkpoint_now().await.unwrap();
            living.store(SECOND_KEY, Ordering::SeqCst);
        }
        let event = if round == 0 { turned(ORIGIN) } else { stopped("later") };
        opened.log.append(Asked::default(), move |_, _| Ok(vec![event.clone()])).await.unwrap();
        let made = checkpoints.checkpoint_now().await;
        assert!(matches!(made, Err(CheckpointError::Unsigned(_))), "{made:?}");
        assert_eq!((checkpoints.covered(), checkpoints.tenure().since, checkpoints.failures() > 0), (1, 2, true));
        assert_eq!(signed_by(&fs::read(&path).unwrap(), ORIGIN), (1, vec![FIRST_KEY]));
        opened.log.stop().await;
        opened = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).unwrap();
    }
    // Once both answer, all is covered at once.
    let checkpoints = opened.coverage.start(signer(), Handle::current()).unwrap();
    assert_eq!(checkpoints.checkpoint_now().await.unwrap(), opened.log.head().size);
    assert_eq!(signed_by(&fs::read(&path).unwrap(), ORIGIN).1, [FIRST_KEY, SECOND_KEY]);
}

#[tokio::test]
async fn a_start_refuses_a_checkpoint_of_a_key_that_was_not_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { clock, keys, uses } = both(folder.path());
    let checkpoints = keys.coverage.start(signer(), Handle::current()).unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    let path = folder.path().join("keys/checkpoint");
    let before = fs::read(&path).unwrap();
    keys.log.append(Asked::default(), |_, _| Ok(vec![turned(ORIGIN)])).await.unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    keys.log.append(Asked::default(), |_, _| Ok(vec![stopped("later")])).await.unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    uses.log.stop().await;
    keys.log.stop().await;
    let open = || KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock));
    let after = fs::read(&path).unwrap();
    // An older one is as good as it was; the next covers the rotation again, with both signatures.
    fs::write(&path, &before).unwrap();
    let opened = open().unwrap();
    let checkpoints = opened.coverage.start(signer(), Handle::current()).unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    opened.log.stop().await;
    assert_eq!(signed_by(&fs::read(&path).unwrap(), ORIGIN), (3, vec![FIRST_KEY, SECOND_KEY]));
    // The old key alone says nothing of a size that the new one answers for, nor the new one of a size before it.
    let resigned = |bytes: &[u8], seed: u8| {
        let note = Note::parse(bytes).unwrap();
        let key = crate::journal::LogKey { key: verifier_key_of(seed, ORIGIN), keystore: "soft".to_owned(), locator: seed.to_string() };
        let (text, sign) = (note.text().to_owned(), signer()(&key));
        async move {
            let raw = sign(text.clone().into_bytes()).await.unwrap();
            claviger_audit::note::signed_note(&text, &[(&key.key, raw.try_into().unwrap())]).unwrap().to_string()
        }
    };
    for (bytes, seed) in [(&after, FIRST_KEY), (&before, SECOND_KEY), (&after, 9)] {
        fs::write(&path, resigned(bytes, seed).await).unwrap();
        let refused = open().err();
        assert!(matches!(refused, Some(OpenError::Unsound { .. })), "{refused:?}");
    }
    fs::write(&path, after).unwrap();
    open().unwrap().log.stop().await;
}

#[tokio::test]
async fn a_log_that_was_cut_below_the_rotation_is_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { clock, keys, uses } = both(folder.path());
    let before: Vec<_> = ["keys", "uses"].map(|log| fs::read(folder.path().join(log).join(SEGMENT)).unwrap()).into();
    let (keys_checkpoints, uses_checkpoints) =
        (keys.coverage.start(signer(), Handle::current()).unwrap(), uses.coverage.start(signer(), Handle::current()).unwrap());
    for event in [turned(ORIGIN), stopped("later")] {
        keys.log.append(Asked::default(), move |_, _| Ok(vec![event.clone()])).await.unwrap();
        keys_checkpoints.checkpoint_now().await.unwrap();
    }
    for event in [turned(USES_ORIGIN), denied("later").event] {
        uses.log.append(draft(event)).await.unwrap();
        uses_checkpoints.checkpoint_now().await.unwrap();
    }
    uses.log.stop().await;
    keys.log.stop().await;
    let whole = fs::read(folder.path().join("keys").join(SEGMENT)).unwrap();
    fs::write(folder.path().join("uses").join(SEGMENT), &before[1]).unwrap();
    let log = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).unwrap().log;
    let refused = UseLog::open(&opening(LogKind::Uses, folder.path(), &clock), log.clone()).err();
    assert!(matches!(refused, Some(OpenError::RolledBack { .. })), "{refused:?}");
    log.stop().await;
    // The record that brought the key is gone; the checkpoint of that key is still the log's.
    assert!(whole.len() > before[0].len());
    fs::write(folder.path().join("keys").join(SEGMENT), &before[0]).unwrap();
    let refused = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).err();
    assert!(matches!(refused, Some(OpenError::RolledBack { have: 1, checkpoint: 3 })), "{refused:?}");
}

fn on(disk: &FakeDisk, kind: LogKind) -> Opening {
    in_small_segments(disk, kind, &ManualClock::start())
}

/// Both logs turn to the second key between other records; `true` where the records of the rotations were acknowledged.
async fn turn_both(disk: &FakeDisk) -> [bool; 2] {
    let mut done = [false; 2];
    let Ok(keys) = KeyLog::open(&on(disk, LogKind::Keys)) else { return done };
    let Ok(uses) = UseLog::open(&on(disk, LogKind::Uses), keys.log.clone()) else { return done };
    let keys_checkpoints = keys.coverage.start(signer(), Handle::current()).unwrap();
    let uses_checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    for round in 0..3 {
        let (one, other) = if round == 1 { (turned(ORIGIN), turned(USES_ORIGIN)) } else { (stopped("not now"), denied("no").event) };
        let appended = keys.log.append(Asked::default(), move |_, _| Ok(vec![one.clone()])).await.is_ok();
        let used = uses.log.append(draft(other)).await.is_ok();
        if round == 1 {
            done = [appended, used];
        }
        let _ = keys_checkpoints.checkpoint_now().await;
        let _ = uses_checkpoints.checkpoint_now().await;
    }
    uses.log.stop().await;
    keys.log.stop().await;
    // The last pass of each checkpointer: from here on nothing touches this disk.
    let _ = keys_checkpoints.checkpoint_now().await;
    let _ = uses_checkpoints.checkpoint_now().await;
    done
}

/// Whether the notes that lie on a disk are signed as they should be: `since` is the smallest size that the new key answers for.
fn check_notes(disk: &FakeDisk, folder: &str, origin: &str, since: u64, what: &str) {
    let path = Path::new(folder);
    let mut notes = Vec::new();
    for name in disk.list(path).unwrap().into_iter().filter(|name| name.ends_with("checkpoint")) {
        let (size, seeds) = signed_by(&disk.content(&path.join(&name)), origin);
        assert_eq!(size < since, seeds == [FIRST_KEY], "{what}: {folder}/{name} of size {size} is signed by {seeds:?}");
        notes.push((size, seeds.len()));
    }
    let covering = notes.iter().any(|(size, signatures)| *size >= since && *signatures == 2);
    assert!(covering || notes.iter().all(|(size, _)| *size < since), "{what}: no checkpoint hands {folder} over: {notes:?}");
}

/// Goes on after a crash, until everything is covered again.
async fn go_on(disk: &FakeDisk, done: [bool; 2], what: &str) {
    let keys = KeyLog::open(&on(disk, LogKind::Keys)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let uses = UseLog::open(&on(disk, LogKind::Uses), keys.log.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut sinces = Vec::new();
    for (coverage, was_done) in [(keys.coverage, done[0]), (uses.coverage, done[1])] {
        let checkpoints = coverage.start(signer(), Handle::current()).unwrap();
        let since = checkpoints.tenure().since;
        assert!(since > 0 || !was_done, "{what}: a rotation that was acknowledged is lost");
        checkpoints.checkpoint_now().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        sinces.push(if since == 0 { u64::MAX } else { since });
    }
    check_notes(disk, "/log/keys", ORIGIN, sinces[0], what);
    check_notes(disk, "/log/uses", USES_ORIGIN, sinces[1], what);
    uses.log.stop().await;
    keys.log.stop().await;
}

#[tokio::test]
async fn a_crash_at_every_call_of_a_rotation_leaves_the_right_key_in_force() {
    let fresh = FakeDisk::default();
    for kind in [LogKind::Keys, LogKind::Uses] {
        make(&on(&fresh, kind), kind);
    }
    let calls = {
        let disk = fresh.after_crash(Left::Everything);
        disk.plan(Plan::Nothing);
        assert_eq!(turn_both(&disk).await, [true, true]);
        disk.calls()
    };
    assert!(calls > 40, "{calls}");
    let mut outcomes = [0; 2];
    for call in 1..=calls {
        for fault in [Fault::Lost, Fault::Done] {
            let disk = fresh.after_crash(Left::Everything);
            disk.plan(Plan::From(call, fault));
            let done = turn_both(&disk).await;
            outcomes[usize::from(done[0])] += 1;
            for left in [Left::Nothing, Left::Half, Left::Everything] {
                go_on(&disk.after_crash(left), done, &format!("call {call}, {fault:?}, {left:?} left")).await;
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    // One fault alone, after which everything else goes on.
    for call in 1..=calls {
        for fault in [Fault::Lost, Fault::Done] {
            let disk = fresh.after_crash(Left::Everything);
            disk.plan(Plan::Once(call, fault));
            let done = turn_both(&disk).await;
            go_on(&disk.after_crash(Left::Everything), done, &format!("only call {call}, {fault:?}")).await;
        }
    }
}
