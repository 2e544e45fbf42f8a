//! The command line: one file per command.
//!
//! In scope: arguments, help, exit codes. Out of scope: state, which only the daemon opens: commands ask it over its socket, or work offline
//! on files that are arguments.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::clock::{Clock, SystemClock};

mod adopt;
mod audit;
pub mod client;
mod clock;
mod config;
mod doctor;
pub mod exit;
mod hsm;
mod init;
mod input;
mod key;
mod keyring;
pub mod output;
mod policy;
mod serve;
mod sign;
mod verb;

use client::Client;
use output::{Failure, Format, Outcome};

/// Keeps signing keys in an HSM, signs for whom a policy permits, rotates with overlap, and proves every use.
#[derive(Debug, Parser)]
#[command(name = "claviger", version, about, max_term_width = 110)]
pub struct Cli {
    /// The configuration file
    #[arg(long, global = true, env = "CLAVIGER_CONFIG", default_value = "/etc/claviger/claviger.toml")]
    config: PathBuf,
    /// The daemon's admin socket; without it, the one of the configuration
    #[arg(long, global = true, env = "CLAVIGER_SOCKET")]
    socket: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Format,
    /// What is logged to standard error, e.g. `info` or `claviger=debug`
    #[arg(long, global = true, env = "CLAVIGER_LOG", default_value = "info")]
    log: String,
    /// Log lines as JSON
    #[arg(long, global = true, env = "CLAVIGER_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the state of a new installation: log keys in the keystore, and the first record of each log
    Init,
    /// Run the daemon
    Serve,
    /// Sign one token or payload, or see what would be signed
    Sign(sign::Args),
    /// Look at keyrings, rotate, retire, import
    #[command(subcommand)]
    Keyring(keyring::Command),
    /// Look at keys, suspend, resume, compromise, abandon, destroy
    #[command(subcommand)]
    Key(key::Command),
    /// Confirm a clock that was stepped
    #[command(subcommand)]
    Clock(clock::Command),
    /// Verify the audit log, show its records, find a token's record, rotate its key, erase a year's pseudonyms, go on after a loss
    #[command(subcommand)]
    Audit(audit::Command),
    /// Check, test, explain, list and reload policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Look at everything, and say what is wrong and what to do
    Doctor,
    /// Check a token before it is trusted with keys
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// Check the configuration, and see what is computed from it
    #[command(subcommand)]
    Config(config::Command),
}

/// How to leave the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With this exit code.
    Code(u8),
    /// With this exit code, without running exit handlers of loaded modules.
    AtOnce(u8),
}

impl Cli {
    /// What is logged.
    pub fn log_filter(&self) -> &str {
        match self.command {
            Command::Serve => &self.log,
            _ if self.log != "info" => &self.log,
            // The library complains of each mechanism of a token that it does not know, and none of them matters.
            Command::Hsm(_) => "warn,cryptoki::mechanism=off",
            // A command that is not the daemon speaks by its results; only warnings stand beside them.
            _ => "warn",
        }
    }

    /// Whether log lines are JSON.
    pub fn logs_json(&self) -> bool {
        self.log_json
    }

    fn client(&self) -> Result<Client, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Client::new(socket));
        }
        let config = config::load(&self.config)?;
        let socket = crate::daemon::setup::socket_of(&config, crate::config::Surface::Admin);
        let missing =
            || Failure::new(exit::CONFIG, format!("{} has no admin listener on a Unix socket; say --socket", self.config.display()));
        socket.map(Client::new).ok_or_else(missing)
    }
}

/// Runs a command.
pub fn run(cli: Cli) -> Leave {
    let adopts = matches!(cli.command, Command::Audit(audit::Command::Adopt(_)));
    let opens_keystores = adopts || matches!(cli.command, Command::Serve | Command::Init | Command::Doctor | Command::Hsm(_));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)).unwrap_or_else(|failure| output::failure(&failure)),
        Err(error) => output::failure(&Failure::new(exit::UNAVAILABLE, format!("cannot start: {error}"))),
    };
    if opens_keystores { Leave::AtOnce(code) } else { Leave::Code(code) }
}

async fn dispatch(cli: Cli) -> Outcome {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let format = cli.output;
    match &cli.command {
        Command::Init => return init::run(&cli.config, clock, format).await,
        Command::Serve => return serve::run(&cli.config, clock).await,
        Command::Audit(audit::Command::Adopt(args)) => return adopt::run(args, &cli.config, clock, format).await,
        Command::Hsm(command) => return hsm::run(command, &cli.config, clock, format).await,
        Command::Doctor => return doctor::run(&cli.config, cli.client().ok(), clock, format).await,
        Command::Key(command) => {
            if let Some(verb) = key::offline(command)? {
                return key::run_offline(verb, &cli.config, clock, format).await;
            }
        }
        _ => {}
    }
    let client = cli.client();
    match cli.command {
        Command::Sign(args) => sign::run(args, &cli.config, clock, format).await,
        Command::Keyring(command) => keyring::run(command, &client?, format).await,
        Command::Key(command) => key::run(command, &client?, format).await,
        Command::Clock(command) => clock::run(command, &client?, format).await,
        Command::Audit(audit::Command::Offline(command)) => audit::offline(command, clock.as_ref(), format),
        Command::Audit(audit::Command::Verb(verb)) => audit::run(verb, &client?, format).await,
        Command::Policy(command) => policy::run(command, &cli.config, client, clock, format).await,
        Command::Config(command) => config::run(command, &cli.config, format),
        Command::Init | Command::Serve | Command::Doctor | Command::Hsm(_) | Command::Audit(audit::Command::Adopt(_)) => Ok(exit::OK),
    }
}
