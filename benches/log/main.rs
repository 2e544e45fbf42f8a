//! How fast the log is, as ratios to floors of the same run: `cargo bench --bench log`.
//!
//! In scope: the durable append beside an `fdatasync`, the verification of a million signatures beside their plain SHA-256, and the start of a
//! daemon that has written them. Out of scope: HTTP and keystores (the bench `signing`), and judging. Nothing fails because it is slow; the
//! exit code says only whether everything could be run. `benches/README.md` says what each row means.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what a bench is for")]

mod append;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod made;
mod report;
#[path = "../../audit/tests/golden/settings.rs"]
mod settings;
mod start;
mod verify;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use claviger::clock::{Clock as _, SystemClock};

pub(crate) use common::Outcome;
use common::cpu;

/// Signatures in the log that is verified and opened: a million, and as many more as nearly fill the last segment, which a start reads.
const SIGNATURES: u64 = 1_080_000;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything in a throw-away folder on the disk of the build, whose syncs are real.
fn measure() -> Outcome<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let clock = Arc::new(SystemClock::start());
    let before = cpu::load_average();
    let (begun, machine, own) = (clock.monotonic(), cpu::of_machine()?, cpu::of_process(std::process::id())?);
    let appends = append::rounds(&folder.path().join("append"), &clock)?;
    let log = folder.path().join("log");
    eprintln!("making a log of {SIGNATURES} signatures");
    let made = made::make(&log, clock.wall(), SIGNATURES)?;
    start::cover(&log, &clock)?;
    let verified = verify::rounds(&log, &clock)?;
    let starts = start::rounds(&log, &clock)?;
    let span = clock.monotonic().since(begun);
    let used = cpu::of_machine()?.saturating_sub(machine);
    let others = used.saturating_sub(cpu::of_process(std::process::id())?.saturating_sub(own));
    let others = others.as_secs_f64() / (span.as_secs_f64() * common::table::count(cpu::cores()));
    common::table::machine([&before, &cpu::load_average()]);
    println!("other processes had {:.0} % of the cores; a ratio is the median of the rounds' own ratios\n", others * 100.0);
    report::append(&appends);
    report::verification(&made, &verified);
    report::start(&starts);
    Ok(())
}

/// The folder of one log within the folder of both.
fn folder_of(log: &Path, kind: claviger_audit::event::LogKind) -> std::path::PathBuf {
    log.join(kind.name())
}
