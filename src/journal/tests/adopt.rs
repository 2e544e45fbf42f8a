//! Adoption: each log alone and both, again and again, and cut off at every call.

use std::path::Path;
use std::sync::Arc;

use claviger_audit::event::{Event, LogCreated, LogKind, UsesHead};
use claviger_audit::names::{KeyName, LOG_KEYRING};
use claviger_audit::record::Asked;
use tokio::runtime::Handle;

use super::fake::{FakeDisk, Fault, Left, Plan};
use super::harness::{ManualClock, ORIGIN, created, denied, make, on_disk, records, signer, started, stopped, until, verifier_key};
use crate::journal::adopt::{self, AdoptError, Intent, Survey};
use crate::journal::disk::Disk as _;
use crate::journal::{KeyLog, OpenError, Opening, UseLog};

const LOGS: &str = "/log";
const FIRST: &str = "00000000000000000000.jsonl";
const KINDS: [LogKind; 2] = [LogKind::Keys, LogKind::Uses];

fn on(disk: &FakeDisk, kind: LogKind) -> Opening {
    on_disk(Arc::new(disk.clone()), kind, Path::new(LOGS), &ManualClock::start())
}

fn survey(disk: &FakeDisk) -> Result<Survey, OpenError> {
    adopt::survey(&on(disk, LogKind::Keys), &on(disk, LogKind::Uses), &[])
}

/// Both logs with a few records, each covered by a checkpoint, and the key log naming the use log.
async fn filled() -> FakeDisk {
    let disk = FakeDisk::default();
    for kind in KINDS {
        make(&on(&disk, kind), kind);
    }
    fill(&disk).await;
    disk
}

async fn fill(disk: &FakeDisk) {
    let keys = KeyLog::open(&on(disk, LogKind::Keys)).unwrap();
    let uses = UseLog::open(&on(disk, LogKind::Uses), keys.log.clone()).unwrap();
    // The first record of this run names the key log before it grows.
    until(&uses.log, uses.recovery.size + 1).await;
    let checkpoints = [keys.coverage, uses.coverage].map(|coverage| coverage.start(signer(), Handle::current()).unwrap());
    for reason in ["one", "two", "three"] {
        keys.log.append(Asked::default(), move |_, _| Ok(vec![started(), stopped(reason)])).await.unwrap();
        uses.log.append(denied(reason)).await.unwrap();
    }
    let head = uses.log.head();
    let named = UsesHead { of: "n1".to_owned(), origin: uses.log.origin().to_string(), size: head.size, root: head.root };
    keys.log.append(Asked::default(), move |_, _| Ok(vec![Event::UsesHead(named.clone())])).await.unwrap();
    for checkpoints in checkpoints {
        checkpoints.checkpoint_now().await.unwrap();
    }
    uses.log.stop().await;
    keys.log.stop().await;
}

/// Drops the last `lines` of a log.
fn cut(disk: &FakeDisk, kind: LogKind, lines: usize) {
    let folder = Path::new(LOGS).join(kind.name());
    let bytes = disk.content(&folder.join(FIRST));
    let all: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let kept = all[..all.len() - lines].concat();
    disk.remove(&folder.join(FIRST)).unwrap();
    let mut tail = disk.create(&folder.join(FIRST)).unwrap();
    tail.append(&kept).unwrap();
    tail.sync().unwrap();
    disk.sync_folder(&folder).unwrap();
}

fn first(origin: &str, kind: LogKind) -> LogCreated {
    LogCreated { origin: origin.to_owned(), key: verifier_key(origin).to_string(), ..created(kind) }
}

/// What the shell does, but for the keystore: an earlier intent, or a new one; build all; swap all; forget.
fn run(disk: &FakeDisk) -> Result<(), AdoptError> {
    let logs = Path::new(LOGS);
    let intent = if let Some(intent) = Intent::earlier(disk, logs)? {
        intent
    } else {
        let survey = survey(disk)?;
        let names = (1..=2).map(|number| KeyName::new("test", LOG_KEYRING, number, 7).unwrap()).collect();
        let intent = Intent::new(disk, logs, &survey.short(), names, Some("a drill"))?;
        intent.write(disk, logs)?;
        intent
    };
    for successor in &intent.logs {
        adopt::build(&on(disk, successor.kind), successor, Asked::default(), first(&successor.origin, successor.kind))?;
    }
    for successor in &intent.logs {
        adopt::swap(&on(disk, successor.kind), successor, intent.number)?;
    }
    Intent::forget(disk, logs)
}

/// Opens both logs as a start does, goes on with them, and gives their origins.
async fn open(disk: &FakeDisk) -> Result<[String; 2], OpenError> {
    let keys = KeyLog::open(&on(disk, LogKind::Keys))?.log;
    let uses = UseLog::open(&on(disk, LogKind::Uses), keys.clone())?.log;
    keys.append(Asked::default(), |_, _| Ok(vec![started()])).await.unwrap();
    uses.append(denied("again")).await.unwrap();
    let origins = [keys.origin(), uses.origin()].map(ToString::to_string);
    uses.stop().await;
    keys.stop().await;
    Ok(origins)
}

fn contents(disk: &FakeDisk, folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(Path::new(folder)).unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.content(&Path::new(folder).join(name)))).collect()
}

#[tokio::test]
async fn the_key_log_goes_on_with_the_state_that_is_left_and_the_use_log_ends_with_it() {
    let disk = filled().await;
    cut(&disk, LogKind::Keys, 3);
    let refused = open(&disk).await;
    assert!(matches!(refused, Err(OpenError::RolledBack { have: 5, checkpoint: 8 })), "{refused:?}");
    let found = survey(&disk).unwrap();
    let sizes = |log: &adopt::Standing| (log.size, log.lost());
    assert_eq!((sizes(&found.keys), sizes(&found.uses)), ((5, 3), (8, 0)), "{found:?}");
    let before = ["/log/keys", "/log/uses"].map(|folder| contents(&disk, folder));
    run(&disk).unwrap();
    assert_eq!(["/log/former/1/keys", "/log/former/1/uses"].map(|folder| contents(&disk, folder)), before, "what is left is kept as it is");
    let events = records(&disk.content(Path::new("/log/keys/00000000000000000000.jsonl")));
    let Event::LogAdopted(adopted) = &events[1].event else { panic!("{:?}", events[1]) };
    assert_eq!((adopted.origin.as_str(), adopted.size, adopted.root, adopted.lost), (ORIGIN, 5, found.keys.root, 3));
    assert_eq!(adopted.reason.as_deref(), Some("a drill"));
    assert!(events[0].time >= found.keys.time);
    let origins = open(&disk).await.unwrap();
    assert_eq!(origins, [format!("{ORIGIN}/adopted-2"), "test.example/claviger/uses/n1/adopted-2".to_owned()]);
    let opened = KeyLog::open(&on(&disk, LogKind::Keys)).unwrap().log;
    let keyrings = &opened.snapshot().keyrings;
    // The former log knew that the node runs; the new one counts from its own first record.
    assert_eq!((keyrings.is_running("n1"), keyrings.size()), (true, 3));
    opened.stop().await;
}

#[tokio::test]
async fn a_use_log_may_end_alone_and_any_log_may_end_again() {
    let disk = filled().await;
    cut(&disk, LogKind::Uses, 2);
    let refused = open(&disk).await;
    assert!(matches!(refused, Err(OpenError::RolledBack { have: 6, checkpoint: 8 })), "{refused:?}");
    run(&disk).unwrap();
    let uses = "test.example/claviger/uses/n1/adopted-";
    assert_eq!(open(&disk).await.unwrap(), [ORIGIN.to_owned(), format!("{uses}2")]);
    fill(&disk).await;
    cut(&disk, LogKind::Keys, 1);
    run(&disk).unwrap();
    assert_eq!(open(&disk).await.unwrap(), [format!("{ORIGIN}/adopted-2"), format!("{uses}3")]);
    fill(&disk).await;
    cut(&disk, LogKind::Keys, 1);
    run(&disk).unwrap();
    assert_eq!(open(&disk).await.unwrap(), [format!("{ORIGIN}/adopted-3"), format!("{uses}4")]);
    let mut numbers = disk.list(Path::new("/log/former")).unwrap();
    numbers.sort();
    assert_eq!(
        (numbers, disk.list(Path::new("/log/former/1")).unwrap()),
        (vec!["1".into(), "2".into(), "3".into()], vec!["uses".to_owned()])
    );
    // A state that is not carried over from the former logs cannot be reached without them.
    disk.rename(Path::new("/log/former/3"), Path::new("/log/former/aside")).unwrap();
    let refused = open(&disk).await;
    assert!(matches!(refused, Err(OpenError::Illegal { seq: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_only_the_other_log_knows_is_a_loss_too() {
    let disk = filled().await;
    // An older copy of the key log, checkpoint and all.
    let old = disk.after_crash(Left::Everything);
    fill(&disk).await;
    for (name, bytes) in contents(&old, "/log/keys") {
        let path = Path::new("/log/keys").join(name);
        disk.remove(&path).unwrap();
        disk.create(&path).unwrap().append(&bytes).unwrap();
    }
    let refused = open(&disk).await;
    assert!(matches!(refused, Err(OpenError::SeenMore { have: 8, seen: 14 })), "{refused:?}");
    let found = survey(&disk).unwrap();
    assert_eq!((found.keys.size, found.keys.lost(), found.short().len()), (8, 6, 2), "{found:?}");
    // And what nobody here knows, the operator may.
    let told = [("test.example/claviger/uses/n1".to_owned(), 100)];
    let found = adopt::survey(&on(&old, LogKind::Keys), &on(&old, LogKind::Uses), &told).unwrap();
    assert_eq!((found.uses.lost(), found.short().len()), (92, 1));
    assert!(survey(&old).unwrap().short().is_empty());
}

#[tokio::test]
async fn a_log_that_was_changed_is_not_a_short_one() {
    let disk = filled().await;
    let path = Path::new("/log/keys").join(FIRST);
    let mut bytes = disk.content(&path);
    let at = bytes.windows(3).position(|window| window == b"one").unwrap();
    bytes[at] = b'O';
    disk.remove(&path).unwrap();
    disk.create(&path).unwrap().append(&bytes).unwrap();
    let refused = survey(&disk);
    assert!(matches!(refused, Err(OpenError::Tampered { .. })), "{refused:?}");
}

/// At every call, whether it did nothing or all before it failed, and whatever the power cut leaves: the old logs are refused as before, or
/// an adoption is under way, or all is done; and running it again finishes it.
async fn every_crash(cut_from: LogKind) {
    let fresh = filled().await;
    cut(&fresh, cut_from, 2);
    let calls = {
        let disk = fresh.after_crash(Left::Everything);
        disk.plan(Plan::Nothing);
        run(&disk).unwrap();
        disk.calls()
    };
    assert!(calls > 20, "{calls}");
    let mut seen = [0; 3];
    for call in 1..=calls {
        for fault in [Fault::Lost, Fault::Done] {
            let crashed = fresh.after_crash(Left::Everything);
            crashed.plan(Plan::From(call, fault));
            let failed = run(&crashed);
            for left in [Left::Nothing, Left::Half, Left::Everything] {
                let what = format!("call {call}, {fault:?}, {left:?} left: {failed:?}");
                let disk = crashed.after_crash(left);
                if adopt::is_under_way(&disk, Path::new(LOGS)).unwrap() {
                    seen[0] += 1;
                } else {
                    match open(&disk.after_crash(Left::Everything)).await {
                        Err(OpenError::RolledBack { .. }) => seen[1] += 1,
                        Ok(_) => {
                            seen[2] += 1;
                            continue;
                        }
                        other => panic!("{what}: {other:?}"),
                    }
                }
                run(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
                let origins = open(&disk).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(origins[1].ends_with("/adopted-2"), "{what}: {origins:?}");
                assert_eq!(disk.list(Path::new("/log/former")).unwrap(), ["1"], "{what}");
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[tokio::test]
async fn an_adoption_of_both_logs_may_be_cut_off_anywhere() {
    every_crash(LogKind::Keys).await;
}

#[tokio::test]
async fn an_adoption_of_the_use_log_may_be_cut_off_anywhere() {
    every_crash(LogKind::Uses).await;
}
