//! How fast the daemon signs, as ratios to floors of the same run: `cargo bench --bench signing`.
//!
//! In scope: the bars of the signing path over HTTP (ES256, RS256, batches) and of JWKS, each beside the parts that no daemon could do without:
//! `C_Sign`, a verification, an `fdatasync`, a bare HTTP exchange. Out of scope: the log alone (the bench `log`), and judging. Nothing fails because it
//! is slow; the exit code says only whether everything could be run. `benches/README.md` says what each row means.
//!
//! SoftHSM reads its configuration's path from the environment once in a process, so the bench makes a token, then runs itself again with
//! that variable set; the second process starts the daemon and measures.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what a bench is for")]

mod bare;
#[path = "../common/mod.rs"]
mod common;
mod floors;
mod load;
mod report;
mod rounds;
mod stage;

use std::path::Path;
use std::process::{Command, ExitCode};

pub(crate) use common::Outcome;

/// The argument with which the bench runs itself again; the folder follows.
const MEASURE: &str = "measure-in";

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "this is a main")]
    let arguments: Vec<String> = std::env::args().collect();
    let folder = arguments.iter().position(|argument| argument == MEASURE).and_then(|at| arguments.get(at + 1));
    let outcome = folder.map_or_else(prepare, |folder| measure(Path::new(folder)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the bench could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the token in a throw-away folder on the disk of the build, whose syncs are real, and measures in a second process.
fn prepare() -> Outcome<ExitCode> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let token = stage::make_token(folder.path())?;
    let status = Command::new(std::env::current_exe()?)
        .arg(MEASURE)
        .arg(folder.path())
        .env("SOFTHSM2_CONF", token.join("softhsm2.conf"))
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(folder: &Path) -> Outcome<ExitCode> {
    let stage = stage::Stage::open(folder)?;
    let found = rounds::run(&stage)?;
    report::print(&found);
    stage.close()?;
    Ok(ExitCode::SUCCESS)
}
