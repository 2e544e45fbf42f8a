//! `pull` and `follow` over a key log that is served as tiles: what is copied is what is served, and a fork or a rollback ends the watch.
//!
//! In scope: both commands, with a [`Fetch`] that answers from memory as a `log` listener would. Out of scope: HTTP and curl, which the
//! daemon's own tests go through.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use claviger_audit::Timestamp;
use claviger_audit::checkpoint::Checkpoint;
use claviger_audit::command::{self, Command, Failure, Fetched, Machine};
use claviger_audit::jwk::PublicKey;
use claviger_audit::merkle::{Frontier, Hash, leaf_hash};
use claviger_audit::note::{VerifierKey, signed_note};
use claviger_audit::tiles::{Content, Tile, encode_bundle};
use ed25519_dalek::{Signer as _, SigningKey};

const URL: &str = "https://auth.example.org/log/keys";

#[derive(clap::Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn valid() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/valid")
}

fn lines() -> Vec<Vec<u8>> {
    let bytes = fs::read(valid().join("log/keys/00000000000000000000.jsonl")).unwrap();
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap().to_vec()).collect()
}

/// A log as a daemon serves it.
#[derive(Clone)]
struct Served {
    lines: Vec<Vec<u8>>,
    checkpoint: Vec<u8>,
}

impl Served {
    /// The first `size` lines, under a checkpoint by the golden log's own key.
    fn first(lines: &[Vec<u8>], size: usize) -> Self {
        let secret = SigningKey::from_bytes(&[1; 32]);
        let trust = fs::read_to_string(valid().join("trust")).unwrap();
        let origin = trust.lines().find_map(|line| line.strip_prefix("log ")?.split_once('+').map(|(name, _)| name.to_owned())).unwrap();
        let mut frontier = Frontier::new();
        frontier.extend(lines[..size].iter().map(|line| leaf_hash(line)));
        let text = Checkpoint::new(&origin, size as u64, frontier.root()).to_string();
        let key = VerifierKey::from_jwk(&origin, &PublicKey::from_ed25519(secret.verifying_key().as_bytes())).unwrap();
        let note = signed_note(&text, &[(&key, secret.sign(text.as_bytes()).to_bytes())]).unwrap();
        Self { lines: lines[..size].to_vec(), checkpoint: note.to_string().into_bytes() }
    }

    fn get(&self, url: &str) -> Result<Fetched, String> {
        let path = url.strip_prefix(URL).and_then(|path| path.strip_prefix('/')).unwrap();
        let body = if path == "checkpoint" {
            self.checkpoint.clone()
        } else {
            let tile: Tile = path.parse().map_err(|_| format!("404 {path}"))?;
            assert_eq!(tile.content(), Content::Entries);
            let first = usize::try_from(tile.first().unwrap()).unwrap();
            let records = self.lines.get(first..first + usize::from(tile.width())).ok_or_else(|| format!("404 {path}"))?;
            encode_bundle(records.iter().map(Vec::as_slice)).unwrap()
        };
        Ok(Fetched { body, log_size: None })
    }
}

/// What is served now, and what happens while a command waits.
struct Site {
    served: RefCell<Served>,
    requests: Cell<usize>,
    later: RefCell<Vec<Served>>,
}

impl Site {
    fn new(served: Served, later: Vec<Served>) -> Self {
        Self { served: RefCell::new(served), requests: Cell::new(0), later: RefCell::new(later) }
    }

    fn run(&self, arguments: &[&str]) -> (Result<u8, Failure>, String) {
        let fetch = |url: &str| {
            self.requests.set(self.requests.get() + 1);
            self.served.borrow().get(url)
        };
        let wait = |_| {
            if !self.later.borrow().is_empty() {
                let next = self.later.borrow_mut().remove(0);
                self.served.replace(next);
            }
        };
        let clock = || "2026-02-01T00:00:00.000Z".parse::<Timestamp>().unwrap();
        let command = Cli::parse_from(["claviger-audit"].iter().chain(arguments)).command;
        let mut out = Vec::new();
        let result = command::run(&command, &Machine { clock: &clock, fetch: &fetch, wait: &wait }, &mut out);
        (result, String::from_utf8(out).unwrap())
    }
}

fn copied(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("keys/00000000000000000000.jsonl")).unwrap()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
}

#[test]
fn what_is_copied_is_what_is_served() {
    let (lines, folder) = (lines(), tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let site = Site::new(Served::first(&lines, 9), Vec::new());
    for size in [9, lines.len(), 3] {
        site.served.replace(Served::first(&lines, size));
        let (result, said) = site.run(&["pull", URL, path]);
        assert_eq!(result.unwrap(), 0, "{said}");
        // A log that shrinks is copied as such: the head of the last run is what shows it.
        assert_eq!(copied(folder.path()), joined(&lines[..size]));
        assert_eq!(fs::read(folder.path().join("keys/checkpoint")).unwrap(), site.served.borrow().checkpoint);
    }
}

#[test]
fn a_copy_of_many_segments_is_the_log_file_by_file() {
    // Lines that are no records are copied as they are; `log.segment` alone begins a file.
    let uses = valid().join("log/uses");
    let mut names: Vec<_> = fs::read_dir(&uses).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.strip_suffix(".jsonl").is_some());
    names.sort();
    let files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(uses.join(name)).unwrap()).collect();
    let mut lines: Vec<Vec<u8>> =
        files.concat().split_inclusive(|byte| *byte == b'\n').map(|line| line[..line.len() - 1].to_vec()).collect();
    // More than one bundle, so that the second copy takes the first from the disk.
    lines.extend((0..600).map(|number| format!("no record {number}").into_bytes()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let site = Site::new(Served::first(&lines, 300), Vec::new());
    site.run(&["pull", URL, path]).0.unwrap();
    assert_eq!(site.requests.replace(0), 3, "a checkpoint and two bundles");
    site.served.replace(Served::first(&lines, lines.len()));
    site.run(&["pull", URL, path]).0.unwrap();
    assert_eq!(site.requests.replace(0), 3, "the first bundle was on the disk");
    assert_eq!(fs::read(folder.path().join("keys").join(&names[0])).unwrap(), files[0]);
    let last = fs::read(folder.path().join("keys").join(&names[1])).unwrap();
    assert!(last.starts_with(&files[1]) && last.ends_with(b"no record 599\n"));
    // Another history from the first bundle on: nothing of the copy is used again.
    lines[5] = b"another".to_vec();
    site.served.replace(Served::first(&lines, lines.len()));
    let (result, said) = site.run(&["pull", URL, path]);
    assert_eq!(result.unwrap(), 0);
    assert!(said.contains("fetched again"), "{said}");
    assert!(copied(folder.path()).windows(9).any(|nine| nine == b"\nanother\n"));
}

#[test]
fn a_copy_is_only_replaced_by_one_that_leads_to_its_checkpoint() {
    let (lines, folder) = (lines(), tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let site = Site::new(Served::first(&lines, 9), Vec::new());
    site.run(&["pull", URL, path]).0.unwrap();
    let before = copied(folder.path());
    let mut changed = Served::first(&lines, 12);
    changed.lines[4] = b"changed".to_vec();
    let mut cut_off = Served::first(&lines, 12);
    cut_off.lines.truncate(11);
    let no_note = Served { checkpoint: b"nonsense".to_vec(), ..Served::first(&lines, 12) };
    for (served, exit) in [(changed, 10), (cut_off, 74), (no_note, 13)] {
        site.served.replace(served);
        let (result, said) = site.run(&["pull", URL, path]);
        assert_eq!(result.unwrap_err().exit_code(), exit, "{said}");
        assert_eq!(copied(folder.path()), before);
    }
    assert_eq!(site.run(&["pull", "http://auth.example.org/log/keys", path]).0.unwrap_err().exit_code(), 2, "never in the clear");
}

/// Follows what is served for as many rounds as there are states, and gives the exit code and what was said.
fn follow(states: Vec<Served>, more: &[&str]) -> (u8, String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, trust) = (folder.path().to_str().unwrap().to_owned(), valid().join("trust"));
    let rounds = states.len().to_string();
    let site = Site::new(states[0].clone(), states[1..].to_vec());
    let mut arguments = vec!["follow", &path, "--from", URL, "--trust", trust.to_str().unwrap(), "--rounds", &rounds];
    arguments.extend(more);
    let (result, said) = site.run(&arguments);
    (result.unwrap(), said)
}

#[test]
fn a_watch_prints_what_is_new_and_ends_with_what_is_wrong() {
    let lines = lines();
    let state = |size| Served::first(&lines, size);
    let (code, said) = follow(vec![state(9), state(9), state(12), state(lines.len())], &["--format", "json"]);
    assert_eq!((code, said.into_bytes()), (0, joined(&lines[9..])));
    let (_, said) = follow(vec![state(9)], &["--format", "json", "--all"]);
    assert_eq!(said.into_bytes(), joined(&lines[..9]));
    let (code, said) = follow(vec![state(12), state(9)], &[]);
    assert_eq!(code, 11, "{said}");
    // Two histories of one size, both signed by the log key: the records after the common part differ.
    let other = Served::first(&[&lines[..10], &[lines[10].clone()], &[with_another_root(&lines[11])]].concat(), 12);
    let (code, said) = follow(vec![state(12), other], &[]);
    assert!(code == 12 && said.contains("forked"), "{code}: {said}");
    let (code, said) = follow(vec![state(lines.len())], &["--max-age", "1h"]);
    assert_eq!(code, 14, "{said}");
}

/// The same record with another letter in its `boot`, so that its hash is another one.
fn with_another_root(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(line.to_vec()).unwrap();
    let at = text.find("\"boot\":\"").unwrap() + 8;
    let letter = if &text[at..=at] == "a" { "b" } else { "a" };
    let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
    assert_ne!(Hash::digest(changed.as_bytes()), Hash::digest(line));
    changed.into_bytes()
}
