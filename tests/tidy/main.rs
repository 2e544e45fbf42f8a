//! Holds the never-rules of the architecture: who may import whom, who may read time, files and environment, and what no file may hold.
//!
//! In scope: every Rust file of the two packages, and the hosts that any text names. The rules are in `rules.rs`; `plants.rs` breaks each of
//! them once, so that a rule which finds nothing is known to be able to. Out of scope: what the compiler and clippy already refuse.

mod plants;
mod rules;
mod source;

use std::path::{Path, PathBuf};

use rules::{Finding, judge, judge_hosts};
use source::Source;

/// Folders that hold no sources of the project.
const FOREIGN: &[&str] = &[".git", ".claviger", "target", "node_modules", "__pycache__"];
/// Cargo writes its default source into the lock files; no one chooses it.
const WRITTEN_BY_TOOLS: &[&str] = &["Cargo.lock", "audit/fuzz/Cargo.lock", "tests/kryoptic/Cargo.lock"];

#[test]
fn every_source_keeps_the_rules() {
    let sources: Vec<Source> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| ["src", "audit", "tests"].iter().any(|room| path.starts_with(root().join(room))))
        .map(|path| Source::new(&name(&path), &read(&path)))
        .collect();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the sources were not found under {}", root().display());
    report(&sources.iter().flat_map(judge).collect::<Vec<_>>());
}

#[test]
fn no_text_names_a_package_registry() {
    let texts = files().into_iter().map(|path| (name(&path), path)).filter(|(name, _)| !WRITTEN_BY_TOOLS.contains(&name.as_str()));
    let findings: Vec<Finding> = texts.flat_map(|(name, path)| judge_hosts(&name, &read(&path))).collect();
    report(&findings);
}

fn report(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(|finding| format!("{}: {} ({})", finding.place, finding.rule, finding.what)).collect();
    assert!(lines.is_empty(), "{} rules broken:\n{}", lines.len(), lines.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).expect("every file was found under the root").to_string_lossy().replace('\\', "/")
}

/// A file that is not text (a golden log may be broken on purpose) names nothing that a reader could read.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("a listed file can be read")).into_owned()
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a listed folder can be read") {
            let entry = entry.expect("a folder's entry can be read");
            let kind = entry.file_type().expect("an entry has a kind");
            if kind.is_dir() && !FOREIGN.contains(&entry.file_name().to_string_lossy().as_ref()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}
