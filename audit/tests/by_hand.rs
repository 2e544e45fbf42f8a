//! The check by hand that `README.md` gives to whoever has nothing but a shell, run as it stands there.
//!
//! In scope: every link of the golden key log, and every line of it changed. Out of scope: the verifier.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too: what fails here fails the test that asked")]

use std::fs;
use std::path::Path;
use std::process::Command;

const SEGMENT: &str = "00000000000000000000.jsonl";

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shell lines of the README, verbatim.
fn snippet() -> String {
    let readme = fs::read_to_string(package().join("README.md")).unwrap();
    let (_, after) = readme.split_once("One link can be checked by hand.").expect("the README says how to check a link by hand");
    let (_, block) = after.split_once("```sh\n").unwrap();
    block.split_once("```\n").unwrap().0.to_owned()
}

/// The two lines that the snippet prints in `folder`, for the link after `line`, counted from 1.
fn run(folder: &Path, line: usize) -> (String, String) {
    let snippet = snippet();
    assert_eq!(snippet.matches(" line=4\n").count(), 1, "the README's example is about line 4: {snippet}");
    let output =
        Command::new("sh").args(["-euc", &snippet.replace(" line=4\n", &format!(" line={line}\n"))]).current_dir(folder).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let [hash, prev] = printed.lines().collect::<Vec<_>>()[..] else { panic!("not two lines: {printed:?}, {:?}", output.stderr) };
    assert!([hash, prev].iter().all(|text| text.len() == 64 && output.status.success()), "{printed}");
    (hash.to_owned(), prev.to_owned())
}

#[test]
fn each_link_of_the_golden_key_log() {
    let folder = package().join("testdata/valid/log/keys");
    let lines = fs::read_to_string(folder.join(SEGMENT)).unwrap().lines().count();
    assert!(lines > 4);
    for line in 1..lines {
        let (hash, prev) = run(&folder, line);
        assert_eq!(hash, prev, "line {line}");
    }
}

#[test]
fn a_changed_line_does_not_fit_the_next() {
    let golden = fs::read_to_string(package().join("testdata/valid/log/keys").join(SEGMENT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<&str> = golden.lines().collect();
    for line in 1..lines.len() {
        let changed = lines[line - 1].replacen("\"node\":\"a\"", "\"node\":\"b\"", 1);
        assert_ne!(changed, lines[line - 1]);
        let all: String =
            lines.iter().enumerate().map(|(at, text)| if at + 1 == line { format!("{changed}\n") } else { format!("{text}\n") }).collect();
        fs::write(folder.path().join(SEGMENT), all).unwrap();
        let (hash, prev) = run(folder.path(), line);
        assert_ne!(hash, prev, "line {line}");
    }
}
