//! The `claviger` command: arguments in, exit code out.
//!
//! In scope: reading arguments and the environment (clap does), logging, the runtime, leaving. Out of scope: what each command does (`cli`).

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::{Cli, Leave};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(cli.log_filter()).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    if cli.logs_json() {
        logs.json().init();
    } else {
        logs.init();
    }
    match claviger::cli::run(cli) {
        Leave::Code(code) => ExitCode::from(code),
        // A keystore's module may run code of its own at exit, under calls that hang: the daemon leaves without it.
        Leave::AtOnce(code) => signal_hook::low_level::exit(i32::from(code)),
    }
}
