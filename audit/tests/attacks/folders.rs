//! Attacks on the file system: what cannot be read is an error (74), and never a verdict.
//!
//! Out of scope: what readable files say.

use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::process::Command;

use claviger_audit::verify::{Input, LogFiles, Pruned, Segment, verify};

use super::builder::{END, Story, at};
use super::corpus::{KEYS, Truth};

/// The true pair with its pins in a folder of its own.
fn laid_out(truth: &Truth) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in &truth.files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// The exit code and what was said.
fn command(folder: &Path) -> (i32, String) {
    let now = at(END + 60).to_string();
    let arguments = ["verify", "log", "--trust", "trust", "--head", "head", "--receipt", "receipt.json", "--now", &now];
    let output = Command::new(env!("CARGO_BIN_EXE_claviger-audit")).current_dir(folder).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_file_that_is_none_is_no_verdict() {
    let truth = Truth::new(Story::Valid);
    assert_eq!(command(laid_out(&truth).path()).0, 0);
    for name in truth.files.keys().filter(|name| *name != "jwks.json") {
        let folder = laid_out(&truth);
        let path = folder.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(command(folder.path()).0, 74, "{name} is a folder");
        fs::remove_dir(&path).unwrap();
        // Root may read whatever a mode forbids, but nobody can follow a link to itself.
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&path, &path).unwrap();
            let (code, text) = command(folder.path());
            assert_eq!(code, 74, "{name} is a link to itself");
            assert!(!text.contains("(exit 0)") && text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
        }
    }
}

#[test]
fn an_empty_folder_is_no_log() {
    let truth = Truth::new(Story::Valid);
    let emptied = |folders: &[&str]| {
        let folder = laid_out(&truth);
        for name in folders {
            fs::remove_dir_all(folder.path().join(name)).unwrap();
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        command(folder.path()).0
    };
    // What is remembered of a trusted log says that it was not empty.
    assert_eq!(emptied(&["log"]), 11);
    assert_eq!(emptied(&["log/keys"]), 11);
    assert_eq!(emptied(&["log/uses"]), 11);
    assert_eq!(emptied(&["log/keys", "log/uses"]), 11);
    // A folder that remembers nothing is no memory.
    assert_eq!(emptied(&["head"]), 16);
    let gone = laid_out(&truth);
    fs::remove_dir_all(gone.path().join("log")).unwrap();
    assert_eq!(command(gone.path()).0, 74);
    let file = laid_out(&truth);
    fs::remove_dir_all(file.path().join("log/uses")).unwrap();
    fs::write(file.path().join("log/uses"), "a file").unwrap();
    assert_eq!(command(file.path()).0, 11);
}

/// A disk that fails after some bytes.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk has failed")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_disk_that_fails_is_no_verdict_wherever_it_fails() {
    let truth = Truth::new(Story::Valid);
    let bytes = truth.pair.bytes(KEYS);
    for length in (0..=bytes.len()).step_by(61).chain([bytes.len()]) {
        let readable = bytes[..length].to_vec();
        let open = move || Ok(Box::new(BufReader::new(Failing(Cursor::new(readable.clone())))) as Box<dyn BufRead>);
        let segment = Segment { name: KEYS.to_owned(), open: Box::new(open) };
        let keys = LogFiles { name: "log/keys/".to_owned(), segments: vec![segment], notes: Vec::new(), pruned: Pruned::default() };
        let input = Input { keys: Some(keys), uses: truth.pair.input().uses, ..Input::default() };
        let error = verify(&input, &truth.min_size, at(END + 60)).unwrap_err();
        assert_eq!(error.to_string(), "the disk has failed", "after {length} bytes");
    }
    let closed = Segment { name: KEYS.to_owned(), open: Box::new(|| Err(io::ErrorKind::PermissionDenied.into())) };
    let keys = LogFiles { name: "log/keys/".to_owned(), segments: vec![closed], notes: Vec::new(), pruned: Pruned::default() };
    let error = verify(&Input { keys: Some(keys), ..Input::default() }, &truth.min_size, at(END + 60)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
