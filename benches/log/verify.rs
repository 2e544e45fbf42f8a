//! Verification of the whole log, beside plain SHA-256 of the same bytes, and what its parts take alone.
//!
//! In scope: CPU time of the one thread that verifies, since that is what "per core" means; the files are in the page cache. Out of scope: the
//! disk, and the time of printing.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::clock::{Clock as _, SystemClock};
use claviger_audit::event::LogKind;
use claviger_audit::merkle::{Frontier, Hash, SegmentHasher};
use claviger_audit::record::Reader;
use claviger_audit::trust::Policy;
use claviger_audit::verify::{Input, LogFiles, MinSize, NoteFile, Options, Pruned, Segment, Verdict, verify};

use crate::common::cpu;
use crate::{Outcome, folder_of, made};

/// How many rounds. Odd, so that a median is something that was measured.
const ROUNDS: usize = 7;
/// How much of a segment is read at once, as the command does.
const READ_BUFFER: usize = 1 << 17;

/// Seconds for the whole log in one round: of CPU, but for `wall`.
pub(crate) struct Round {
    /// Plain SHA-256 of all bytes, one segment after the other.
    pub(crate) sha256: f64,
    /// Leaf hashes, the tree, and the seals.
    pub(crate) hashing: f64,
    /// Reading all records.
    pub(crate) reading: f64,
    /// The whole verification.
    pub(crate) verifying: f64,
    /// The whole verification, by the clock.
    pub(crate) wall: f64,
}

/// Verifies again and again. A verdict other than "verified" ends the run.
pub(crate) fn rounds(folder: &Path, clock: &Arc<SystemClock>) -> Outcome<Vec<Round>> {
    let segments = segments_of(&folder_of(folder, LogKind::Uses))?;
    let input = Input { keys: Some(log_files(folder, LogKind::Keys)?), uses: vec![log_files(folder, LogKind::Uses)?], ..Input::default() };
    let keys = [made::verifier_key(LogKind::Keys)?, made::verifier_key(LogKind::Uses)?];
    let trust = Policy::parse(format!("log {}\nlog {}\nquorum none\n", keys[0], keys[1]).as_bytes())?;
    let options = Options { trust: Some(trust), min_sizes: vec![MinSize { origin: None, size: 1 }], ..Options::default() };
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        eprintln!("verification, round {number} of {ROUNDS}");
        let mut round = Round { sha256: 0.0, hashing: 0.0, reading: 0.0, verifying: 0.0, wall: 0.0 };
        parts(&segments, &mut round)?;
        let (begun, used) = (clock.monotonic(), cpu::of_thread()?);
        let report = verify(&input, &options, clock.wall())?;
        round.verifying = cpu::of_thread()?.saturating_sub(used).as_secs_f64();
        round.wall = clock.monotonic().since(begun).as_secs_f64();
        if report.verdict != Verdict::Verified {
            return Err(format!("the log is {}: {:?}", report.verdict.name(), report.findings.list()).into());
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// Each part alone, over the same bytes in memory.
fn parts(segments: &[PathBuf], round: &mut Round) -> Outcome<()> {
    let mut frontier = Frontier::new();
    let mut reader = Reader::default();
    for (index, segment) in segments.iter().enumerate() {
        let text = fs::read_to_string(segment)?;
        round.sha256 += used(|| Hash::digest(text.as_bytes()))?;
        let lines: Vec<&str> = text.lines().collect();
        let followed = index + 1 < segments.len();
        round.hashing += used(|| {
            let mut hasher = SegmentHasher::default();
            for line in &lines {
                let line = line.as_bytes();
                frontier.push(if followed { hasher.line(line) } else { claviger_audit::merkle::leaf_hash(line) });
            }
            hasher.finish()
        })?;
        let records = || lines.iter().filter(|line| black_box(reader.read(line)).is_ok()).count();
        round.reading += used(records)?;
    }
    Ok(())
}

/// Seconds of CPU.
fn used<T>(work: impl FnOnce() -> T) -> Outcome<f64> {
    let before = cpu::of_thread()?;
    black_box(work());
    Ok(cpu::of_thread()?.saturating_sub(before).as_secs_f64())
}

/// The segments in a log's folder, in order.
pub(crate) fn segments_of(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn log_files(folder: &Path, kind: LogKind) -> Outcome<LogFiles<'static>> {
    let folder = folder_of(folder, kind);
    let segment = |path: PathBuf| {
        let name = path.display().to_string();
        let open = move || Ok(Box::new(BufReader::with_capacity(READ_BUFFER, File::open(&path)?)) as Box<dyn BufRead>);
        Segment { name, open: Box::new(open) }
    };
    let note = NoteFile { name: "checkpoint".to_owned(), bytes: fs::read(folder.join("checkpoint"))? };
    let segments = segments_of(&folder)?.into_iter().map(segment).collect();
    Ok(LogFiles { name: kind.name().to_owned(), segments, notes: vec![note], pruned: Pruned::default() })
}
