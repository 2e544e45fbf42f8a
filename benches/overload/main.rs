//! What overload does to those whose work is taken, and what refusing the others costs: `cargo bench --bench overload`.
//!
//! In scope: the release binary on a token whose `C_Sign` the fault-injecting module slows to 500 a second, with 5,000 requests a second
//! offered whatever becomes of them (open loop); and how soon it signs again after a loss. Out of scope: the speed of a token that nothing slows (the bench `signing`), and judging.
//!
//! SoftHSM and the module read their settings from the environment, so the bench makes a token, then runs itself again with that environment,
//! once for each `queue_wait`; those processes start the daemon and measure.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what a bench is for")]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each bench uses its own part")]
mod common;
#[path = "../signing/load.rs"]
#[allow(dead_code, reason = "this bench has a load of its own")]
mod load;
mod offered;
mod recovery;
#[path = "../signing/stage.rs"]
#[allow(dead_code, reason = "this bench needs a part of it")]
mod stage;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

pub(crate) use common::Outcome;
use common::table::{count, machine, quantile};
use common::{cpu, table};
use offered::{Answers, offer};
use serde_json::{Value, json};

/// The argument with which the bench runs itself again; the folder and the longest wait follow.
const MEASURE: &str = "measure-in";
/// What the token can do, in signatures a second.
const CAPACITY: u32 = 500;
/// What is asked of it in the overload, a second.
const OFFERED: u32 = 5_000;
/// What is asked of it before, for comparison: it can just do that.
const COMFORTABLE: u32 = 400;
/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(8);
/// The longest waits that are compared: a short one, and the default.
const WAITS: [&str; 2] = ["10ms", "500ms"];

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "this is a main")]
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == MEASURE);
    let outcome = match at.map(|at| (arguments.get(at + 1), arguments.get(at + 2))) {
        Some((Some(folder), Some(wait))) => measure(Path::new(folder), wait),
        _ => prepare(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the bench could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the module, makes a token for each wait, and measures each in a process of its own.
fn prepare() -> Outcome<ExitCode> {
    let module = build_module()?;
    let before = cpu::load_average();
    for wait in WAITS {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let token = stage::make_token(folder.path())?;
        let softhsm = put_between(&token.join("keystore.toml"), &module, wait)?;
        let status = Command::new(std::env::current_exe()?)
            .arg(MEASURE)
            .arg(folder.path())
            .arg(wait)
            .env("SOFTHSM2_CONF", token.join("softhsm2.conf"))
            .env("PKCS11_FAULT_TARGET", softhsm)
            .env("PKCS11_FAULT_SOCKET", folder.path().join("control"))
            .status()?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    machine([&before, &cpu::load_average()]);
    Ok(ExitCode::SUCCESS)
}

fn build_module() -> Outcome<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet", "--package", "pkcs11-fault-module", "--target-dir"]).arg(target);
    if !cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success() {
        return Err("the fault-injecting module cannot be built".into());
    }
    Ok(target.join("release").join("libpkcs11_fault_module.so"))
}

/// Puts the fault-injecting module into the keystore's settings, with this longest wait; gives the module that was there.
fn put_between(settings: &Path, module: &Path, wait: &str) -> Outcome<String> {
    let text = fs::read_to_string(settings)?;
    let table: toml::Table = text.parse()?;
    let softhsm = table["keystore"]["hsm"]["module"].as_str().ok_or("no module in the token's settings")?.to_owned();
    let changed = text.replace(&softhsm, &module.display().to_string());
    fs::write(settings, format!("{}\nqueue_wait = \"{wait}\"\n", changed.trim_end()))?;
    Ok(softhsm)
}

fn measure(folder: &Path, wait: &str) -> Outcome<ExitCode> {
    let stage = stage::Stage::open(folder)?;
    tell(&folder.join("control"), &json!({ "do": "pace", "function": "C_Sign", "per_second": CAPACITY }))?;
    let request = stage::sign_request(stage::ES256);
    let comfortable = offer((stage.address, stage.daemon()), &request, COMFORTABLE, SPAN)?;
    let overloaded = offer((stage.address, stage.daemon()), &request, OFFERED, SPAN)?;
    report(wait, &comfortable, &overloaded);
    tell(&folder.join("control"), &json!({ "do": "reset" }))?;
    recovery::report(&stage, &folder.join("control"))?;
    stage.close()?;
    Ok(ExitCode::SUCCESS)
}

fn report(wait: &str, comfortable: &Answers, overloaded: &Answers) {
    // Two threads take turns at one signature each 2 ms, so each of theirs takes two turns.
    let own = 2.0 / f64::from(CAPACITY);
    let each = comfortable.cpu.as_secs_f64() / count(comfortable.signed.len());
    let refusing = (overloaded.cpu.as_secs_f64() - each * count(overloaded.signed.len())) / count(overloaded.refused.len().max(1));
    let goodput = count(overloaded.signed.len()) / SPAN.as_secs_f64();
    println!("\nqueue_wait = {wait}: {CAPACITY} signatures a second at most");
    for (name, answers) in [("comfortable", comfortable), ("overload", overloaded)] {
        println!(
            "  {name:<12} {:>6} signed, {:>6} refused, {:>4} not sent for want of a connection; signed p50 {:.1} ms, p99 {:.1} ms",
            answers.signed.len(),
            answers.refused.len(),
            answers.unsent,
            quantile(&answers.signed, 0.5) * 1e3,
            quantile(&answers.signed, 0.99) * 1e3,
        );
    }
    table::work();
    let late = (quantile(&overloaded.signed, 0.99) - own) * 1e3;
    row("overload: p99 beside its own signing, ms", [late, 15.0], ("<=", 1.0));
    row("overload: goodput, signatures/s", [goodput, f64::from(CAPACITY)], (">=", 0.9));
    row("overload: CPU of a refusal, us", [refusing * 1e6, 50.0], ("<=", 1.0));
}

fn row(name: &str, [measured, limit]: [f64; 2], bar: (&str, f64)) {
    table::line(name, [measured, limit], measured / limit, bar);
}

/// One command for the module, which must be carried out.
fn tell(socket: &Path, command: &Value) -> Outcome<()> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    writeln!(stream.get_mut(), "{command}")?;
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    if answer["ok"] == true { Ok(()) } else { Err(format!("{command}: {answer}").into()) }
}
