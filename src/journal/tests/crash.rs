//! On a disk that fails: what was acknowledged survives, and what is dead stays dead.

use std::future::Future as _;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use claviger_audit::event::LogKind;
use claviger_audit::merkle::leaf_hash;
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::fake::{FakeDisk, Fault, Left, Plan};
use super::harness::{ManualClock, denied, in_small_segments, make, records, signer, started, stopped, until};
use crate::journal::disk::Disk as _;
use crate::journal::{AppendError, KeyLog, Opening, Receipt, UseLog};

pub(super) const FIRST: &str = "/log/keys/00000000000000000000.jsonl";

pub(super) fn keys_on(disk: &FakeDisk) -> Opening {
    in_small_segments(disk, LogKind::Keys, &ManualClock::start())
}

pub(super) fn uses_on(disk: &FakeDisk) -> Opening {
    in_small_segments(disk, LogKind::Uses, &ManualClock::start())
}

pub(super) fn new_disk() -> FakeDisk {
    let disk = FakeDisk::default();
    make(&keys_on(&disk), LogKind::Keys);
    make(&uses_on(&disk), LogKind::Uses);
    disk
}

/// A run of both logs with checkpoints in between; the receipts are what it was promised.
pub(super) async fn run(disk: &FakeDisk) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    let Ok(keys) = KeyLog::open(&keys_on(disk)) else { return receipts };
    let Ok(uses) = UseLog::open(&uses_on(disk), keys.log.clone()) else { return receipts };
    let keys_checkpoints = keys.coverage.start(signer(), Handle::current()).unwrap();
    let uses_checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    for number in 0..6 {
        let propose = move |_: &_, _| Ok(vec![stopped(&format!("number {number}")), started()]);
        receipts.extend(keys.log.append(Asked::default(), propose).await.unwrap_or_default());
        receipts.extend(uses.log.append(denied(&number.to_string())).await);
        if number % 3 == 1 {
            let _ = keys_checkpoints.checkpoint_now().await;
            let _ = uses_checkpoints.checkpoint_now().await;
        }
    }
    uses.log.stop().await;
    keys.log.stop().await;
    receipts
}

/// Every line of a log, over all segments.
pub(super) fn lines(disk: &FakeDisk, folder: &Path) -> Vec<Vec<u8>> {
    let mut names = disk.list(folder).unwrap();
    names.retain(|name| name.strip_suffix(".jsonl").is_some());
    names.sort();
    let bytes: Vec<u8> = names.iter().flat_map(|name| disk.content(&folder.join(name))).collect();
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Opens what a crash left, goes on with it, and finds every receipt in it.
pub(super) async fn check(disk: &FakeDisk, receipts: &[Receipt], what: &str) {
    let keys = KeyLog::open(&keys_on(disk)).unwrap_or_else(|error| panic!("{what}: {error}")).log;
    let uses = UseLog::open(&uses_on(disk), keys.clone()).unwrap_or_else(|error| panic!("{what}: {error}")).log;
    assert_eq!((keys.poisoned(), uses.poisoned()), (None, None), "{what}");
    keys.append(Asked::default(), |_, _| Ok(vec![stopped("after the crash")])).await.unwrap();
    uses.append(denied("after the crash")).await.unwrap();
    uses.stop().await;
    keys.stop().await;
    let held = [(keys.origin(), lines(disk, Path::new("/log/keys"))), (uses.origin(), lines(disk, Path::new("/log/uses")))];
    for receipt in receipts {
        let (_, lines) = held.iter().find(|(origin, _)| **origin == receipt.log).unwrap();
        let line = lines.get(usize::try_from(receipt.seq).unwrap()).unwrap_or_else(|| panic!("{what}: {receipt:?} is lost"));
        assert_eq!(leaf_hash(line.strip_suffix(b"\n").unwrap()), receipt.leaf, "{what}");
    }
    let reopened = KeyLog::open(&keys_on(disk)).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!(reopened.recovery.size, held[0].1.len() as u64, "{what}");
    let reopened = UseLog::open(&uses_on(disk), reopened.log).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!((reopened.recovery.size, reopened.recovery.dropped), (held[1].1.len() as u64, None), "{what}");
    reopened.log.stop().await;
}

#[tokio::test]
async fn every_receipt_survives_a_crash_at_every_call() {
    let fresh = new_disk();
    let calls = {
        let disk = fresh.after_crash(Left::Everything);
        disk.plan(Plan::Nothing);
        assert_eq!(run(&disk).await.len(), 18);
        disk.calls()
    };
    assert!(calls > 60, "{calls}");
    for call in 1..=calls {
        for fault in [Fault::Lost, Fault::Done] {
            let disk = fresh.after_crash(Left::Everything);
            disk.plan(Plan::From(call, fault));
            let receipts = run(&disk).await;
            for left in [Left::Nothing, Left::Half, Left::Everything] {
                check(&disk.after_crash(left), &receipts, &format!("call {call}, {fault:?}, {left:?} left")).await;
            }
        }
    }
}

#[tokio::test]
async fn a_log_whose_sync_failed_once_is_dead_even_if_the_next_would_succeed() {
    for fault in [Fault::Lost, Fault::Done] {
        let disk = new_disk();
        let opened = KeyLog::open(&keys_on(&disk)).unwrap();
        let log = opened.log;
        let kept = log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
        let before = log.snapshot();
        disk.plan(Plan::Sync(1, fault));
        let failed = log.append(Asked::default(), |_, _| Ok(vec![stopped("lost")])).await;
        assert!(matches!(failed, Err(AppendError::Unwritable(_))), "{failed:?}");
        let calls = disk.calls();
        let refused = log.append(Asked::default(), |_, _| Ok(vec![stopped("later")])).await;
        assert!(matches!(refused, Err(AppendError::Unwritable(_))), "{refused:?}");
        assert!(log.poisoned().is_some());
        assert_eq!((disk.calls(), disk.syncs()), (calls, 1), "a dead log touched the disk");
        assert!(Arc::ptr_eq(&log.snapshot(), &before), "a record that may not be durable became visible");
        log.stop().await;
        check(&disk.after_crash(Left::Nothing), &kept, "lost").await;
        check(&disk.after_crash(Left::Everything), &kept, "kept").await;
    }
}

#[tokio::test]
async fn a_full_disk_still_takes_the_record_that_it_is_full() {
    let disk = new_disk();
    let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
    let used: usize = ["keys", "uses"]
        .iter()
        .flat_map(|log| {
            disk.list(&Path::new("/log").join(log)).unwrap().into_iter().map(move |name| Path::new("/log").join(log).join(name))
        })
        .map(|path| disk.content(&path).len())
        .sum();
    for room in [0, 100] {
        let disk = disk.after_crash(Left::Everything);
        let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
        disk.plan(Plan::Full(used as u64 + room));
        let failed = log.append(Asked::default(), |_, _| Ok(vec![started()])).await;
        assert!(matches!(failed, Err(AppendError::Unwritable(_))), "{failed:?}");
        log.stop().await;
        let records = records(&disk.after_crash(Left::Nothing).content(Path::new(FIRST)));
        assert_eq!(records.iter().map(|record| record.event.name()).collect::<Vec<_>>(), ["log.created", "log.halt"], "room {room}");
        let again = KeyLog::open(&keys_on(&disk.after_crash(Left::Nothing))).unwrap();
        assert_eq!((again.recovery.size, again.log.poisoned()), (2, None));
    }
    log.stop().await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_still_gives_the_keyrings() {
    let disk = new_disk();
    let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
    log.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    log.stop().await;
    disk.plan(Plan::From(1, Fault::Lost));
    let opened = KeyLog::open(&keys_on(&disk)).unwrap();
    assert_eq!(opened.log.snapshot().keyrings.size(), 2);
    assert!(opened.log.poisoned().is_some());
    let refused = opened.log.append(Asked::default(), |_, _| Ok(vec![started()])).await;
    assert!(matches!(refused, Err(AppendError::Unwritable(_))));
    opened.log.stop().await;
}

#[tokio::test]
async fn many_appends_share_one_sync() {
    let disk = new_disk();
    let keys = KeyLog::open(&keys_on(&disk)).unwrap().log;
    let log = UseLog::open(&uses_on(&disk), keys).unwrap().log;
    until(&log, 2).await;
    disk.plan(Plan::Nothing);
    let mut appends: Vec<_> = (0..64).map(|number| Box::pin(log.append(denied(&number.to_string())))).collect();
    // While the disk is held, everyone queues behind the first.
    let held = disk.hold();
    for append in &mut appends {
        assert!(append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    drop(held);
    let mut seqs = Vec::new();
    for append in appends {
        seqs.push(append.await.unwrap().seq);
    }
    assert_eq!(seqs, (2..66).collect::<Vec<_>>());
    assert!(disk.syncs() <= 2, "{} syncs for 64 records", disk.syncs());
}

#[tokio::test]
async fn what_the_disk_cannot_take_in_time_is_turned_away() {
    let disk = new_disk();
    let keys = KeyLog::open(&keys_on(&disk)).unwrap().log;
    let log = UseLog::open(&uses_on(&disk), keys).unwrap().log;
    until(&log, 2).await;
    let held = disk.hold();
    let before = disk.arrived();
    log.note(denied("first"));
    // From here on the log's thread waits for the disk and takes nothing from the queue.
    while disk.arrived() == before {
        std::thread::yield_now();
    }
    for number in 0..2000 {
        log.note(denied(&number.to_string()));
    }
    // Notes fill a quarter of the queue; appends have the rest.
    assert_eq!(log.dropped_notes(), 2000 - 1024);
    let mut appends: Vec<_> = (0..5000).map(|_| Box::pin(log.append(denied("waits")))).collect();
    let mut overloaded = 0;
    appends.retain_mut(|append| match append.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(answer) => {
            assert!(matches!(answer, Err(AppendError::Overloaded)), "{answer:?}");
            overloaded += 1;
            false
        }
    });
    assert_eq!((appends.len(), overloaded), (4096 - 1024, 5000 - (4096 - 1024)));
    drop(held);
    for append in appends {
        append.await.unwrap();
    }
    log.append(denied("again")).await.unwrap();
}

#[tokio::test]
async fn a_proposal_that_panics_ends_the_log_and_is_no_orderly_stop() {
    let disk = new_disk();
    let log = KeyLog::open(&keys_on(&disk)).unwrap().log;
    let failed = log.append(Asked::default(), |_, _| panic!("a defect")).await;
    assert!(matches!(failed, Err(AppendError::Unwritable(_))), "{failed:?}");
    let refused = log.append(Asked::default(), |_, _| Ok(vec![started()])).await;
    assert!(matches!(refused, Err(AppendError::Unwritable(_))), "{refused:?}");
    log.stop().await;
}
