//! On a real disk.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::event::{Event, KeyringCreated, LogKind, Purpose, UsesHead};
use claviger_audit::merkle::{Hash, leaf_hash};
use claviger_audit::note::Note;
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::harness::{
    Logs, ManualClock, ORIGIN, USES_ORIGIN, both, denied, failing_signer, make, opening, records, reopen, signer, started, stopped, until,
    verifier_key,
};
use crate::journal::checkpoint::CheckpointError;
use crate::journal::uses::USES_HEARTBEAT;
use crate::journal::{AppendError, KeyLog, LogKey, OpenError, Signers, UseLog};

const FIRST: &str = "00000000000000000000.jsonl";

fn keyring(name: &str) -> Event {
    Event::KeyringCreated(KeyringCreated {
        keyring: name.to_owned(),
        purpose: Purpose::Jws,
        issuer: None,
        issuer_url: None,
        typ: None,
        algorithm: Algorithm::ES256,
        keystore: "soft".to_owned(),
        standby_keystore: None,
    })
}

fn segment(folder: &Path, kind: &str) -> Vec<u8> {
    fs::read(folder.join(kind).join(FIRST)).unwrap()
}

async fn stop(logs: &Logs) {
    logs.uses.log.stop().await;
    logs.keys.log.stop().await;
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    let log = &logs.keys.log;
    let receipts = log.append(Asked::default(), |_, _| Ok(vec![started(), keyring("api")])).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [1, 2]);
    let before = log.snapshot();
    assert_eq!((before.keyrings.size(), before.leaf), (3, receipts[1].leaf));
    assert!(before.keyrings.keyring("api").is_some());
    let used = logs.uses.log.append(denied("policy")).await.unwrap();
    stop(&logs).await;
    assert!(matches!(log.append(Asked::default(), |_, _| Ok(vec![started()])).await, Err(AppendError::Stopped)));
    assert!(matches!(logs.uses.log.append(denied("late")).await, Err(AppendError::Stopped)));

    let again = reopen(folder.path(), logs.clock);
    let after = again.keys.log.snapshot();
    assert_eq!(format!("{:?}", after.keyrings), format!("{:?}", before.keyrings));
    assert_eq!((after.leaf, again.keys.recovery.dropped.clone()), (before.leaf, None));
    let lines = segment(folder.path(), "uses");
    let line = lines.split(|byte| *byte == b'\n').nth(usize::try_from(used.seq).unwrap()).unwrap();
    assert_eq!(leaf_hash(line), used.leaf);
}

#[tokio::test]
async fn an_illegal_proposal_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    let log = &logs.keys.log;
    let before = segment(folder.path(), "keys");
    let refused = log.append(Asked::default(), |_, _| Ok(vec![keyring("api"), keyring("api")])).await;
    assert!(matches!(refused, Err(AppendError::Illegal(_))), "{refused:?}");
    assert!(matches!(log.append(Asked::default(), |_, _| Ok(vec![denied("x").event])).await, Err(AppendError::Illegal(_))));
    assert_eq!(log.append(Asked::default(), |_, _| Ok(vec![])).await.unwrap(), []);
    assert_eq!(segment(folder.path(), "keys"), before);
    assert!(log.snapshot().keyrings.keyring("api").is_none());
    // The first of the two is still legal.
    log.append(Asked::default(), |_, _| Ok(vec![keyring("api")])).await.unwrap();
}

#[tokio::test]
async fn records_never_go_back_in_time_and_proposals_see_that_time() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    let (first, clock) = (logs.keys.log.head().time, logs.clock.clone());
    logs.keys.log.stop().await;
    let earlier = ManualClock::start();
    clock.pass(Duration::from_secs(5));
    let log = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).unwrap().log;
    log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    log.stop().await;
    let log = KeyLog::open(&opening(LogKind::Keys, folder.path(), &earlier)).unwrap().log;
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let propose = move |_: &_, at| {
        *note.lock().unwrap() = Some(at);
        Ok(vec![stopped("test")])
    };
    log.append(Asked::default(), propose).await.unwrap();
    assert_eq!(log.head().time, first + Duration::from_secs(5));
    assert_eq!(*seen.lock().unwrap(), Some(log.head().time));
}

#[tokio::test]
async fn uses_name_the_key_log_whenever_it_grew() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    until(&logs.uses.log, 2).await;
    let keys = logs.keys.log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    logs.uses.log.note(denied("not waited for"));
    logs.uses.log.append(denied("one")).await.unwrap();
    logs.uses.log.append(denied("two")).await.unwrap();
    let records = records(&segment(folder.path(), "uses"));
    let names: Vec<_> = records.iter().map(|record| record.event.name()).collect();
    assert_eq!(names, ["log.created", "keys.seen", "keys.seen", "sign.denied", "sign.denied", "sign.denied"]);
    let Event::KeysSeen(seen) = &records[2].event else { panic!("{:?}", records[2]) };
    assert_eq!((seen.size, seen.leaf), (2, keys[0].leaf));
    assert_eq!(records[5].durable, 5);
    assert_eq!(logs.uses.log.dropped_notes(), 0);
}

#[tokio::test]
async fn a_log_that_idles_says_that_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    stop(&logs).await;
    // A clock that runs: after ten milliseconds without a record there is a heartbeat, and after ten more the next.
    let clock = Arc::new(crate::clock::SystemClock::start());
    let keys = KeyLog::open(&opening(LogKind::Keys, folder.path(), &logs.clock)).unwrap();
    let usual = opening(LogKind::Uses, folder.path(), &logs.clock);
    let quick = crate::journal::Opening { clock, heartbeat: Duration::from_millis(10), ..usual };
    let uses = UseLog::open(&quick, keys.log).unwrap();
    until(&uses.log, uses.recovery.size + 3).await;
    uses.log.stop().await;
    let records = records(&segment(folder.path(), "uses"));
    assert_eq!(records.last().unwrap().event.name(), "log.heartbeat");
}

#[tokio::test]
async fn a_log_grows_in_segments_that_vouch_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut logs = both(folder.path());
    stop(&logs).await;
    for _ in 0..2 {
        let keys = KeyLog::open(&opening(LogKind::Keys, folder.path(), &logs.clock)).unwrap();
        let small = crate::journal::Opening { segment_bytes: 1000, ..opening(LogKind::Uses, folder.path(), &logs.clock) };
        logs = Logs { uses: UseLog::open(&small, keys.log.clone()).unwrap(), keys, clock: logs.clock };
        for number in 0..10 {
            logs.uses.log.append(denied(&number.to_string())).await.unwrap();
        }
        stop(&logs).await;
    }
    // One more run makes the checkpoints, one for each sealed segment among them.
    let Logs { clock, keys, uses } = reopen(folder.path(), logs.clock);
    let checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    checkpoints.checkpoint_now().await.unwrap();
    uses.log.stop().await;
    let mut names: Vec<_> = fs::read_dir(folder.path().join("uses")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    names.sort();
    assert!(names.len() > 3, "{names:?}");
    for pair in names.windows(2) {
        let sealed = fs::read(&pair[0]).unwrap();
        assert_eq!(fs::metadata(&pair[0]).unwrap().permissions().mode() & 0o777, 0o400);
        let Event::LogSegment(first) = records(&fs::read(&pair[1]).unwrap()).remove(0).event else { panic!("{pair:?}") };
        assert_eq!((first.size, first.sha256), (sealed.len() as u64, Hash::digest(&sealed)));
        let note = Note::parse(&fs::read(pair[0].with_extension("checkpoint")).unwrap()).unwrap();
        let (checkpoint, _) = Checkpoint::from_note(&note, USES_ORIGIN, &[verifier_key(USES_ORIGIN)]).unwrap();
        let last = records(&sealed).pop().unwrap();
        assert_eq!(checkpoint.size, last.seq + 1);
    }
    // One byte of a sealed segment, and the log is refused.
    let mut sealed = fs::read(&names[1]).unwrap();
    let at = sealed.len() / 2;
    sealed[at] ^= 1;
    fs::remove_file(&names[1]).unwrap();
    fs::write(&names[1], sealed).unwrap();
    for name in ["checkpoint", "frontier"] {
        fs::remove_file(folder.path().join("uses").join(name)).unwrap();
    }
    let refused = UseLog::open(&opening(LogKind::Uses, folder.path(), &clock), keys.log.clone());
    let Err(OpenError::Tampered { file, .. }) = refused else { panic!("{:?}", refused.err()) };
    assert_eq!(file, names[1]);
}

#[tokio::test]
async fn checkpoints_cover_the_log_and_the_next_start_reads_only_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    let dead = Arc::new(Mutex::new(true));
    let Logs { clock, keys, uses } = logs;
    let checkpoints = uses.coverage.start(failing_signer(Arc::clone(&dead)), Handle::current()).unwrap();
    uses.log.append(denied("one")).await.unwrap();
    assert!(matches!(checkpoints.checkpoint_now().await, Err(CheckpointError::Unsigned(_))));
    // A keystore that does not sign delays no record.
    uses.log.append(denied("two")).await.unwrap();
    *dead.lock().unwrap() = false;
    assert_eq!(checkpoints.checkpoint_now().await.unwrap(), 4);
    assert!(checkpoints.failures() > 0);
    uses.log.append(denied("three")).await.unwrap();
    uses.log.stop().await;
    keys.log.stop().await;

    let again = reopen(folder.path(), Arc::clone(&clock));
    assert!(again.uses.recovery.covered >= 4 && again.uses.recovery.size == 5, "{:?}", again.uses.recovery);
    let checkpoints = again.uses.coverage.start(signer(), Handle::current()).unwrap();
    again.uses.log.append(denied("four")).await.unwrap();
    assert_eq!(checkpoints.checkpoint_now().await.unwrap(), again.uses.log.head().size);
    again.uses.log.stop().await;
    again.keys.log.stop().await;

    // Whole records cut below the checkpoint are a rollback, also where the frontier file is gone.
    let path = folder.path().join("uses").join(FIRST);
    let bytes = fs::read(&path).unwrap();
    let kept = bytes.split_inclusive(|byte| *byte == b'\n').take(3).map(<[u8]>::len).sum();
    fs::write(&path, &bytes[..kept]).unwrap();
    for _ in 0..2 {
        let keys = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).unwrap();
        let refused = UseLog::open(&opening(LogKind::Uses, folder.path(), &clock), keys.log);
        assert!(matches!(refused, Err(OpenError::RolledBack { have: 3, checkpoint: 7 })), "{:?}", refused.err());
        let _ = fs::remove_file(folder.path().join("uses/frontier"));
    }
}

#[tokio::test]
async fn what_the_disk_holds_is_compared_before_it_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { keys, uses, .. } = both(folder.path());
    uses.log.append(denied("one")).await.unwrap();
    let path = folder.path().join("uses").join(FIRST);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    assert!(matches!(checkpoints.checkpoint_now().await, Err(CheckpointError::Dead(_))));
    assert!(matches!(uses.log.append(denied("two")).await, Err(AppendError::Unwritable(_))));
    assert!(!folder.path().join("uses/checkpoint").exists());
    assert_eq!(keys.log.poisoned(), None);
}

#[tokio::test]
async fn a_lifecycle_event_wakes_the_checkpointer_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { keys, .. } = both(folder.path());
    let bell = &keys.coverage.shared.bell;
    keys.log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    keys.log.append(Asked::default(), |_, _| Ok(vec![stopped("test")])).await.unwrap();
    assert!(!bell.wait(Duration::ZERO).now);
    keys.log.append(Asked::default(), |_, _| Ok(vec![keyring("api")])).await.unwrap();
    assert!(bell.wait(Duration::from_mins(1)).now);
}

#[tokio::test]
async fn checkpoints_are_made_without_being_asked_and_once_more_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let Logs { clock, keys, .. } = both(folder.path());
    let (asked, mut texts) = tokio::sync::mpsc::channel(16);
    let signers: Signers = Arc::new(move |key: &LogKey| {
        let (asked, sign) = (asked.clone(), signer()(key));
        Arc::new(move |text: Vec<u8>| {
            let (asked, signed) = (asked.clone(), sign(text.clone()));
            Box::pin(async move {
                asked.send(String::from_utf8(text).unwrap()).await.unwrap();
                signed.await
            }) as _
        })
    });
    let checkpoints = keys.coverage.start(signers, Handle::current()).unwrap();
    keys.log.append(Asked::default(), |_, _| Ok(vec![keyring("api")])).await.unwrap();
    while !texts.recv().await.unwrap().starts_with(&format!("{ORIGIN}\n2\n")) {}
    keys.log.append(Asked::default(), |_, _| Ok(vec![stopped("test")])).await.unwrap();
    keys.log.stop().await;
    assert_eq!(checkpoints.checkpoint_now().await.unwrap(), 3);
    let again = KeyLog::open(&opening(LogKind::Keys, folder.path(), &clock)).unwrap();
    assert_eq!(again.recovery.covered, 3);
}

#[tokio::test]
async fn a_torn_tail_is_dropped_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    logs.keys.log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    let good = segment(folder.path(), "keys");
    logs.keys.log.append(Asked::default(), |_, _| Ok(vec![keyring("a"), stopped("test")])).await.unwrap();
    stop(&logs).await;
    let whole = segment(folder.path(), "keys");
    let line_ends: Vec<usize> = (good.len()..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    for cut in good.len() + 1..whole.len() {
        let place = tempfile::tempdir().unwrap();
        let opening = opening(LogKind::Keys, place.path(), &logs.clock);
        fs::create_dir(&opening.folder).unwrap();
        fs::write(opening.folder.join(FIRST), &whole[..cut]).unwrap();
        fs::write(opening.folder.join("ballast"), "any").unwrap();
        let opened = KeyLog::open(&opening).unwrap();
        let kept = line_ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(good.len());
        if kept == cut {
            assert_eq!(opened.recovery.dropped, None, "{cut}");
            continue;
        }
        let dropped = opened.recovery.dropped.unwrap();
        assert_eq!((dropped.bytes, dropped.sha256), ((cut - kept) as u64, Hash::digest(&whole[kept..cut])), "{cut}");
        assert_eq!(fs::read(opening.folder.join(format!("{FIRST}.suspect"))).unwrap(), &whole[..cut]);
        opened.log.stop().await;
        let lines = segment(place.path(), "keys");
        assert_eq!(&lines[..kept], &whole[..kept]);
        assert_eq!(records(&lines[kept..])[0].event, Event::LogRecovered(dropped));
        if cut % 16 == 0 {
            assert_eq!(KeyLog::open(&opening).unwrap().recovery.dropped, None);
        }
    }
}

#[tokio::test]
async fn the_key_log_remembers_how_long_the_use_log_was() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    logs.uses.log.append(denied("one")).await.unwrap();
    let head = logs.uses.log.head();
    let uses_head = UsesHead { of: "n1".to_owned(), origin: USES_ORIGIN.to_owned(), size: head.size, root: head.root };
    logs.keys.log.append(Asked::default(), move |_, _| Ok(vec![Event::UsesHead(uses_head.clone())])).await.unwrap();
    stop(&logs).await;
    let path = folder.path().join("uses").join(FIRST);
    let bytes = fs::read(&path).unwrap();
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&path, &bytes[..last]).unwrap();
    let keys = KeyLog::open(&opening(LogKind::Keys, folder.path(), &logs.clock)).unwrap();
    let refused = UseLog::open(&opening(LogKind::Uses, folder.path(), &logs.clock), keys.log).err();
    assert!(matches!(refused, Some(OpenError::RolledBack { have: 2, checkpoint: 3 })), "{refused:?}");
}

#[tokio::test]
async fn a_changed_byte_below_the_watermark_refuses_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    for reason in ["one", "two", "three"] {
        logs.keys.log.append(Asked::default(), move |_, _| Ok(vec![stopped(reason)])).await.unwrap();
    }
    stop(&logs).await;
    let whole = segment(folder.path(), "keys");
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let path = folder.path().join("keys").join(FIRST);
    // Line feeds too: where one is changed, two lines are none.
    for at in (0..last).filter(|at| at % 7 == 0 || whole[*at] == b'\n') {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = KeyLog::open(&opening(LogKind::Keys, folder.path(), &logs.clock)).err();
        assert!(matches!(refused, Some(OpenError::Tampered { .. } | OpenError::Unsound { .. })), "byte {at}: {refused:?}");
        assert!(refused.unwrap().to_string().contains("claviger audit verify"));
    }
}

#[tokio::test]
async fn a_start_makes_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let opening = opening(LogKind::Keys, folder.path(), &ManualClock::start());
    for _ in 0..2 {
        let missing = KeyLog::open(&opening).err();
        assert!(matches!(missing, Some(OpenError::Missing { .. })) && missing.unwrap().to_string().contains("claviger init"));
        fs::create_dir_all(&opening.folder).unwrap();
    }
    make(&opening, LogKind::Keys);
    let again = crate::journal::create(&opening, LogKind::Keys, Asked::default(), super::harness::created(LogKind::Keys));
    assert!(matches!(again, Err(crate::journal::CreateError::Exists(_))));
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    let path = folder.path().join("keys").join(FIRST);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // The same bytes under the same name are still not the file that is being written.
    OpenOptions::new().create_new(true).write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    logs.clock.pass(Duration::from_secs(1));
    let refused = logs.keys.log.append(Asked::default(), |_, _| Ok(vec![started()])).await;
    assert!(matches!(refused, Err(AppendError::Unwritable(_))), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_noticed_although_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    until(&logs.uses.log, 2).await;
    let before = [segment(folder.path(), "keys"), segment(folder.path(), "uses")];
    fs::remove_file(folder.path().join("uses").join(FIRST)).unwrap();
    let mut changed = logs.uses.log.changed();
    changed.mark_unchanged();
    logs.clock.pass(Duration::from_secs(1));
    // Nobody asks for anything: the log's own thread looks.
    while logs.uses.log.poisoned().is_none() {
        changed.changed().await.unwrap();
    }
    assert!(logs.uses.log.poisoned().unwrap().contains("taken away"));
    // The other log is whole, and looking at it wrote nothing.
    assert_eq!((logs.keys.log.poisoned(), segment(folder.path(), "keys")), (None, before[0].clone()));
    assert_eq!(logs.uses.log.head().size, 2, "{}", String::from_utf8_lossy(&before[1]));
}

#[tokio::test]
async fn looking_does_not_delay_the_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let logs = both(folder.path());
    until(&logs.uses.log, 2).await;
    let mut beats = Vec::new();
    for size in 3..5 {
        // A standing clock: the log looks, and writes nothing.
        logs.clock.pass(Duration::from_secs(59));
        logs.keys.log.append(Asked::default(), |_, _| Ok(vec![])).await.unwrap();
        assert_eq!(logs.uses.log.head().size, size - 1);
        logs.clock.pass(Duration::from_secs(1));
        until(&logs.uses.log, size).await;
        beats.push(logs.uses.log.head().time);
    }
    assert_eq!(beats[1].since(beats[0]), USES_HEARTBEAT);
}
