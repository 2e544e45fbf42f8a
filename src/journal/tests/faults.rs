//! Single faults, full disks and damaged files beside the log: what is dead stays dead, what is not goes on, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};

use claviger_audit::event::LogKind;
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::crash::{FIRST, check, keys_on, lines, new_disk, run, uses_on};
use super::fake::{FakeDisk, Fault, Left, Plan};
use super::harness::{denied, records, signer, started, stopped, until};
use crate::journal::disk::Disk as _;
use crate::journal::{AppendError, KeyLog, OpenError, UseLog};

const FAULTS: [Fault; 2] = [Fault::Lost, Fault::Done];

fn folder(kind: LogKind) -> PathBuf {
    Path::new("/log").join(kind.name())
}

/// Every file of both logs, in bytes.
fn used(disk: &FakeDisk) -> u64 {
    let folders = [LogKind::Keys, LogKind::Uses].map(folder);
    let files = folders.iter().flat_map(|folder| disk.list(folder).unwrap().into_iter().map(|name| folder.join(name)));
    files.map(|path| disk.content(&path).len() as u64).sum()
}

#[tokio::test]
async fn one_fault_in_any_call_loses_nothing_that_was_acknowledged() {
    let fresh = new_disk();
    let calls = {
        let disk = fresh.after_crash(Left::Everything);
        disk.plan(Plan::Nothing);
        run(&disk).await;
        disk.calls()
    };
    let mut promised = Vec::new();
    for call in 1..=calls {
        for fault in FAULTS {
            let disk = fresh.after_crash(Left::Everything);
            disk.plan(Plan::Once(call, fault));
            let receipts = run(&disk).await;
            promised.push(receipts.len());
            for left in [Left::Nothing, Left::Everything] {
                check(&disk.after_crash(left), &receipts, &format!("only call {call}, {fault:?}, {left:?} left")).await;
            }
        }
    }
    // Some faults end a log, and some, in what stands beside it, end nothing.
    assert!(promised.iter().any(|count| *count < 18) && promised.contains(&18), "{promised:?}");
}

#[tokio::test]
async fn a_use_log_whose_sync_failed_once_is_dead_too() {
    for fault in FAULTS {
        let disk = new_disk();
        let keys = KeyLog::open(&keys_on(&disk)).unwrap().log;
        let log = UseLog::open(&uses_on(&disk), keys.clone()).unwrap().log;
        until(&log, 2).await;
        let kept = log.append(denied("kept")).await.unwrap();
        disk.plan(Plan::Sync(1, fault));
        assert!(matches!(log.append(denied("lost")).await, Err(AppendError::Unwritable(_))));
        let calls = disk.calls();
        assert!(matches!(log.append(denied("later")).await, Err(AppendError::Unwritable(_))));
        assert_eq!((disk.calls(), log.head().size), (calls, 3), "a dead log touched the disk, or shows what may not be durable");
        // The other log is not dead by that.
        keys.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
        log.stop().await;
        keys.stop().await;
        for left in [Left::Nothing, Left::Everything] {
            check(&disk.after_crash(left), std::slice::from_ref(&kept), "a failed sync").await;
        }
    }
}

#[tokio::test]
async fn a_log_whose_folder_could_not_be_synced_once_is_dead() {
    for fault in FAULTS {
        let disk = new_disk();
        let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
        // The only folder that a log syncs while it is written is that of a new segment.
        disk.plan(Plan::FolderSync(1, fault));
        let mut receipts = Vec::new();
        let failed = loop {
            match log.append(Asked::default(), |_, _| Ok(vec![stopped("until the segment is full")])).await {
                Ok(appended) => receipts.extend(appended),
                Err(error) => break error,
            }
            assert!(receipts.len() < 100, "a segment never ended");
        };
        assert!(matches!(failed, AppendError::Unwritable(_)), "{failed:?}");
        let calls = disk.calls();
        assert!(log.append(Asked::default(), |_, _| Ok(vec![stopped("later")])).await.is_err());
        assert_eq!(disk.calls(), calls);
        log.stop().await;
        for left in [Left::Nothing, Left::Half, Left::Everything] {
            check(&disk.after_crash(left), &receipts, &format!("{fault:?}, {left:?} left")).await;
        }
    }
}

/// Whether the last record is `log.halt`.
fn halted(disk: &FakeDisk, kind: LogKind) -> bool {
    let last = lines(disk, &folder(kind)).pop().unwrap();
    last.ends_with(b"\n") && records(&last)[0].event.name() == "log.halt"
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_write_halts_the_log_in_the_room_of_the_ballast() {
    let fresh = new_disk();
    let (before, after) = {
        let disk = fresh.after_crash(Left::Everything);
        run(&disk).await;
        (used(&fresh), used(&disk))
    };
    assert!(after - before > 4000, "{before} {after}");
    let mut halts = [0; 2];
    for with_ballast in [true, false] {
        // A step of less than a record: every write meets the end of the room somewhere within it.
        for room in (0..after - before).step_by(170) {
            let disk = fresh.after_crash(Left::Everything);
            let what = format!("{room} bytes of room, ballast: {with_ballast}");
            let keys = KeyLog::open(&keys_on(&disk)).unwrap();
            let uses = UseLog::open(&uses_on(&disk), keys.log.clone()).unwrap();
            until(&uses.log, 2).await;
            if !with_ballast {
                for kind in [LogKind::Keys, LogKind::Uses] {
                    disk.remove(&folder(kind).join("ballast")).unwrap();
                }
            }
            disk.plan(Plan::Full(used(&disk) + room));
            let checkpoints = keys.coverage.start(signer(), Handle::current()).unwrap();
            let mut receipts = Vec::new();
            for _ in 0..8 {
                receipts.extend(keys.log.append(Asked::default(), |_, _| Ok(vec![stopped("more")])).await.unwrap_or_default());
                receipts.extend(uses.log.append(denied("more")).await);
                let _ = checkpoints.checkpoint_now().await;
            }
            let dead = [(LogKind::Keys, keys.log.poisoned()), (LogKind::Uses, uses.log.poisoned())];
            uses.log.stop().await;
            keys.log.stop().await;
            for (kind, reason) in dead {
                assert_eq!(halted(&disk, kind), reason.is_some() && with_ballast, "{what}: {} is dead by {reason:?}", kind.name());
                halts[usize::from(with_ballast)] += u32::from(reason.is_some());
                assert!(reason.is_none_or(|reason| reason.contains("nor could this be recorded") != with_ballast), "{what}");
            }
            check(&disk.after_crash(Left::Nothing), &receipts, &what).await;
        }
    }
    assert!(halts[0] > 10 && halts[1] > 10, "{halts:?}");
}

#[tokio::test]
async fn a_write_that_is_cut_short_at_any_length_leaves_no_part_of_a_record() {
    let fresh = new_disk();
    let disk = fresh.after_crash(Left::Everything);
    let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
    log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    let whole = disk.content(Path::new(FIRST));
    log.append(Asked::default(), |_, _| Ok(vec![stopped("cut")])).await.unwrap();
    log.stop().await;
    let line = disk.content(Path::new(FIRST)).len() - whole.len();
    for taken in 0..line {
        let disk = fresh.after_crash(Left::Everything);
        let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
        let receipts = log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
        disk.plan(Plan::Short(1, taken));
        let cut = log.append(Asked::default(), |_, _| Ok(vec![stopped("cut")])).await;
        assert!(matches!(cut, Err(AppendError::Unwritable(_))), "{taken}: {cut:?}");
        log.stop().await;
        let held = disk.after_crash(Left::Nothing);
        let names: Vec<_> = records(&held.content(Path::new(FIRST))).iter().map(|record| record.event.name()).collect();
        assert_eq!(names, ["log.created", "daemon.start", "log.halt"], "{taken}");
        // What is on the disk is the same for every length; to open it once in a while is enough.
        if taken % 64 == 0 {
            let again = KeyLog::open(&keys_on(&held)).unwrap();
            assert_eq!((again.recovery.dropped, again.log.poisoned()), (None, None), "{taken}");
            again.log.stop().await;
            check(&held, &receipts, &format!("{taken} bytes taken")).await;
        }
    }
}

/// Puts a file in place of another, durably.
fn put(disk: &FakeDisk, path: &Path, bytes: &[u8]) {
    let _ = disk.remove(path);
    let mut file = disk.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_folder(path.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn what_stands_beside_the_log_may_be_old_but_not_torn() {
    let disk = new_disk();
    let mut receipts = run(&disk).await;
    let held = |disk: &FakeDisk, name: &str| disk.content(&folder(LogKind::Uses).join(name));
    let older = disk.after_crash(Left::Everything);
    receipts.extend(run(&disk).await);
    assert_ne!(held(&older, "checkpoint"), held(&disk, "checkpoint"));
    let damaged = |checkpoint: &[u8], frontier: &[u8]| {
        let copy = disk.after_crash(Left::Everything);
        put(&copy, &folder(LogKind::Uses).join("checkpoint"), checkpoint);
        put(&copy, &folder(LogKind::Uses).join("frontier"), frontier);
        copy
    };
    // An older version of either or both is a shorter start: the log itself tells the rest.
    for (checkpoint, frontier) in [(&older, &disk), (&disk, &older), (&older, &older)] {
        let copy = damaged(&held(checkpoint, "checkpoint"), &held(frontier, "frontier"));
        check(&copy, &receipts, "an older file").await;
    }
    // A frontier that is torn is none. A checkpoint is never torn by a crash: it is written beside the old one and renamed.
    let (checkpoint, frontier) = (held(&disk, "checkpoint"), held(&disk, "frontier"));
    for cut in (0..frontier.len()).step_by(23) {
        check(&damaged(&checkpoint, &frontier[..cut]), &receipts, &format!("a frontier of {cut} bytes")).await;
    }
    for cut in 0..checkpoint.len() {
        let copy = damaged(&checkpoint[..cut], &frontier);
        let keys = KeyLog::open(&keys_on(&copy)).unwrap().log;
        let refused = UseLog::open(&uses_on(&copy), keys.clone()).err();
        assert!(matches!(refused, Some(OpenError::Unsound { .. })), "a checkpoint of {cut} bytes: {refused:?}");
        keys.stop().await;
    }
}
