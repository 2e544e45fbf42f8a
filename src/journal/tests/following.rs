//! Readers behind the checkpoints: proofs and pages across segments, and what they make of a disk that is not what was signed.

use std::fs;
use std::path::Path;

use claviger_audit::event::LogKind;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash, verify_consistency};
use tokio::runtime::Handle;

use super::harness::{Logs, both, denied, opening, signer};
use crate::journal::{Checkpointer, FollowError, UseLog};

/// A use log of several small segments, covered by a checkpoint, its lines, and the checkpointer.
async fn long(folder: &Path) -> (Checkpointer, Vec<Vec<u8>>) {
    let Logs { clock, keys, uses } = both(folder);
    uses.log.stop().await;
    let small = crate::journal::Opening { segment_bytes: 1000, ..opening(LogKind::Uses, folder, &clock) };
    let uses = UseLog::open(&small, keys.log.clone()).unwrap();
    let checkpoints = uses.coverage.start(signer(), Handle::current()).unwrap();
    for number in 0..40 {
        uses.log.append(denied(&number.to_string())).await.unwrap();
    }
    checkpoints.checkpoint_now().await.unwrap();
    uses.log.stop().await;
    let mut names: Vec<_> = fs::read_dir(folder.join("uses")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    names.sort();
    assert!(names.len() > 3, "{names:?}");
    let bytes: Vec<u8> = names.iter().flat_map(|name| fs::read(name).unwrap()).collect();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec);
    (checkpoints, lines.collect())
}

fn root(lines: &[Vec<u8>], size: u64) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(lines[..usize::try_from(size).unwrap()].iter().map(|line| leaf_hash(line)));
    frontier.root()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_proves_growth_from_any_size_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoints, lines) = long(folder.path()).await;
    let newest = checkpoints.newest().borrow().clone().unwrap();
    assert_eq!((newest.size, newest.root), (lines.len() as u64, root(&lines, lines.len() as u64)));
    let mut follower = checkpoints.follower();
    // Forwards as a witness goes, back as one that forgot, and again.
    for (old, new) in [(0, 1), (1, 7), (7, newest.size), (3, 20), (20, 20), (20, 33), (0, newest.size), (33, newest.size)] {
        let proof = follower.prove(old, new, root(&lines, new)).unwrap();
        assert_eq!(verify_consistency(old, &root(&lines, old), new, &root(&lines, new), &proof), Ok(()), "{old} to {new}");
        let place = follower.settle(new, root(&lines, new)).unwrap();
        assert_eq!((place.frontier.size(), place.frontier.root()), (new, root(&lines, new)));
    }
    // A row of attempts that bring nothing asks for the same older size and ever newer ones: nothing is read twice, and all hold.
    for new in 10..newest.size {
        let proof = follower.prove(9, new, root(&lines, new)).unwrap();
        assert_eq!(verify_consistency(9, &root(&lines, 9), new, &root(&lines, new), &proof), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_believes_no_remembered_place_and_no_changed_line() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoints, lines) = long(folder.path()).await;
    let size = lines.len() as u64;
    let mut follower = checkpoints.follower();
    let place = follower.settle(size, root(&lines, size)).unwrap();
    checkpoints.store_witnessed("a note\n", &place).unwrap();
    assert_eq!(checkpoints.stored_witnessed().unwrap(), Some(b"a note\n".to_vec()));
    // Every stored place names another log's hashes, at this log's sizes.
    for name in ["frontier", "witnessed.frontier"] {
        let path = folder.path().join("uses").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let damaged = text.lines().map(|line| match line.rsplit_once(' ') {
            Some((rest, hash)) if hash.len() == 64 => format!("{rest} {}\n", Hash::digest(b"another")),
            _ => format!("{line}\n"),
        });
        fs::write(&path, damaged.collect::<String>()).unwrap();
    }
    let mut follower = checkpoints.follower();
    assert_eq!(follower.settle(size, root(&lines, size)).unwrap().frontier.root(), root(&lines, size));
    assert!(matches!(follower.prove(5, 9, root(&lines, 10)), Err(FollowError::Differs(_))), "a root that is not the log's");
    assert!(follower.prove(5, 9, root(&lines, 9)).is_ok(), "and the next question is answered");
    let segment = folder.path().join("uses/00000000000000000000.jsonl");
    fs::remove_file(segment).unwrap();
    assert!(matches!(checkpoints.follower().prove(1, 9, root(&lines, 9)), Err(FollowError::Read(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_are_read_in_any_order_and_only_as_they_were_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoints, lines) = long(folder.path()).await;
    let size = lines.len() as u64;
    let mut pages = checkpoints.pages();
    assert!(matches!(pages.extend(size, root(&lines, size - 1)), Err(FollowError::Differs(_))));
    pages.extend(10, root(&lines, 10)).unwrap();
    assert_eq!(pages.lines(5, 100, usize::MAX).unwrap(), lines[5..10], "what is not indexed is not shown");
    pages.extend(size, root(&lines, size)).unwrap();
    assert_eq!(pages.tiles().root(), root(&lines, size));
    assert_eq!(pages.lines(0, size, usize::MAX).unwrap(), lines);
    assert_eq!(pages.lines(17, 3, usize::MAX).unwrap(), lines[17..20]);
    assert_eq!(pages.lines(17, 3, lines[17].len() + 2).unwrap(), lines[17..19], "the limit is passed by the record that reaches it");
    assert_eq!(pages.lines(size, 1, usize::MAX).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(pages.lines(u64::MAX, u64::MAX, usize::MAX).unwrap(), Vec::<Vec<u8>>::new());
    // A letter of a covered record is changed behind the daemon's back.
    let segment = folder.path().join("uses/00000000000000000000.jsonl");
    let changed = fs::read_to_string(&segment).unwrap().replacen("\"seq\":1", "\"seq\":2", 1);
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, changed).unwrap();
    assert!(matches!(pages.lines(0, 3, usize::MAX), Err(FollowError::Differs(_))));
}
