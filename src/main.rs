//! The `claviger` command: arguments in, exit code out.
//!
//! In scope: reading arguments and the environment (clap does), logging, the runtime, leaving. Out of scope: what each command does (`cli`).

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use claviger::cli::{Cli, Leave};
use tracing_subscriber::EnvFilter;

/// Libraries that log whole requests or answers below this, and with them session tokens, whatever filter somebody asks for.
const NEVER_MORE: [&str; 5] =
    ["aws_config=warn", "aws_runtime=warn", "aws_sigv4=warn", "aws_smithy_http_client=warn", "aws_smithy_runtime=warn"];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(cli.log_filter()).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = NEVER_MORE.iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive);
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
