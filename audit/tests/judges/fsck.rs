//! Tessera's fsck over our logs as C2SP tlog-tiles: it finds a true log whole, and finds fault with a damaged one.
//!
//! In scope: the golden key log, larger trees with full tiles, and one damage of each kind. Out of scope: serving tiles over HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::tiles::{HashTiles, encode_bundle, of_tree};

use crate::process::run;
use crate::signers::{Signer, note};
use crate::{golden_keys, golden_lines, golden_trust, root};

/// The files of a log by C2SP tlog-tiles, by path below its prefix.
type Tiles = BTreeMap<String, Vec<u8>>;

const LOG: &str = "log.example/keys";
/// At least as many as any log here has tiles: where one of them is wrong, fsck waits for ever for a worker that has gone.
const WORKERS: &str = "16";

fn tiles(lines: &[Vec<u8>], checkpoint: Vec<u8>) -> Tiles {
    let mut tree = HashTiles::new();
    for line in lines {
        tree.push(leaf_hash(line));
    }
    let mut files = Tiles::from([("checkpoint".to_owned(), checkpoint)]);
    for tile in of_tree(tree.size()) {
        let first = usize::try_from(tile.first().unwrap()).unwrap();
        let entries = || encode_bundle(lines[first..first + usize::from(tile.width())].iter().map(Vec::as_slice)).unwrap();
        files.insert(tile.to_string(), tree.tile(&tile).unwrap_or_else(entries));
    }
    files
}

fn write(folder: &Path, files: &Tiles) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What fsck says. Its exit code is 0 either way, so the verdict is its last words.
fn fsck(files: &Tiles, key: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("log"), files);
    let key_file = folder.path().join("key");
    fs::write(&key_file, key).unwrap();
    let url = format!("file://{}", folder.path().join("log").display());
    let origin = key.split('+').next().unwrap();
    let arguments = ["--storage_url", &url, "--public_key", key_file.to_str().unwrap(), "--origin", origin, "--ui=false", "--N", WORKERS];
    let output = run("fsck", &arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    let found = said.find("Successfully fsck'd log").map(|at| said[at..].trim_end().to_owned());
    assert_ne!(found.is_some(), said.contains("fsck failed: "), "no verdict, or two: {said}");
    found.ok_or(said)
}

/// The golden key log, and the key that its trust file names.
fn golden() -> (Tiles, String) {
    let key = golden_trust().keys().into_iter().find(|key| key.name().ends_with("/keys")).unwrap();
    (tiles(&golden_lines(), fs::read(golden_keys().join("checkpoint")).unwrap()), key.to_string())
}

/// A log of `count` lines, with a checkpoint of its own or of another root.
fn grown(count: usize, other_root: Option<Hash>) -> (Tiles, String) {
    let log = Signer::p256(LOG, 2);
    let lines: Vec<Vec<u8>> = (0..count).map(|n| format!("{{\"seq\":{n}}}").into_bytes()).collect();
    let mut frontier = Frontier::new();
    frontier.extend(lines.iter().map(|line| leaf_hash(line)));
    let text = Checkpoint::new(LOG, count as u64, other_root.unwrap_or(frontier.root())).to_string();
    (tiles(&lines, note(&text, &[&log]).into_bytes()), log.key.to_string())
}

fn flipped(files: &Tiles, name: &str, at: usize) -> Tiles {
    let mut copy = files.clone();
    copy.get_mut(name).unwrap()[at] ^= 1;
    copy
}

fn without(files: &Tiles, name: &str) -> Tiles {
    let mut copy = files.clone();
    copy.remove(name).unwrap();
    copy
}

#[test]
fn the_golden_key_log_is_whole() {
    let (files, key) = golden();
    let leaves: Vec<Hash> = golden_lines().iter().map(|line| leaf_hash(line)).collect();
    let said = fsck(&files, &key).unwrap();
    assert!(said.contains(&format!("with size {} ", leaves.len())) && said.contains(&root(&leaves).to_string()), "{said}");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["checkpoint", "tile/0/000.p/23", "tile/entries/000.p/23"]);
}

#[test]
fn no_damage_to_the_golden_key_log_goes_unseen() {
    let (files, key) = golden();
    let faulty = |files: &Tiles, why: &str| {
        let said = fsck(files, &key).unwrap_err();
        assert!(said.contains(why), "expected {why:?}: {said}");
    };
    for at in [0, 31, 32, 23 * 32 - 1] {
        faulty(&flipped(&files, "tile/0/000.p/23", at), "tile/0/000.p/23: log has:");
    }
    let bundle = files["tile/entries/000.p/23"].len();
    // The length of the first entry, its first byte, and the last byte of the last.
    faulty(&flipped(&files, "tile/entries/000.p/23", 0), "unmarshal");
    for at in [2, bundle - 1] {
        faulty(&flipped(&files, "tile/entries/000.p/23", at), "tile/0/000.p/23: log has:");
    }
    faulty(&without(&files, "tile/0/000.p/23"), "no such file");
    faulty(&without(&files, "tile/entries/000.p/23"), "no such file");
    faulty(&without(&files, "checkpoint"), "no such file");
    let mut shorter = files.clone();
    let text = str::from_utf8(&files["checkpoint"]).unwrap().replace("\n23\n", "\n22\n");
    shorter.insert("checkpoint".to_owned(), text.into_bytes());
    faulty(&shorter, "failed to fetch and verify checkpoint");
    let stranger = Signer::ed25519(key.split('+').next().unwrap(), 9).key.to_string();
    assert!(fsck(&files, &stranger).unwrap_err().contains("failed to fetch and verify checkpoint"));
}

#[test]
fn full_tiles_and_a_second_level() {
    for count in [1, 255, 256, 257, 600] {
        let (files, key) = grown(count, None);
        assert!(fsck(&files, &key).is_ok_and(|said| said.contains(&format!("with size {count} "))), "{count} lines");
    }
    let (files, key) = grown(600, None);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ];
    assert_eq!(names, expected);
    for name in &expected[1..] {
        assert!(fsck(&flipped(&files, name, files[*name].len() - 1), &key).is_err(), "{name} was changed");
        assert!(fsck(&without(&files, name), &key).is_err(), "{name} is missing");
    }
}

#[test]
fn a_checkpoint_of_another_root_is_not_this_logs() {
    let (files, key) = grown(300, Some(leaf_hash(b"another root")));
    let said = fsck(&files, &key).unwrap_err();
    assert!(said.contains("but checkpoint claims"), "{said}");
}
