//! A folder with everything that one installation consists of, made by the real `claviger init`.
//!
//! In scope: token, PIN, configuration, policies, state, trust file, remembered heads, and commands run there. Out of scope: running daemons
//! ([`super::daemon`]), and the judgement at the end ([`super::check`]).

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::PoisonError;

use super::daemon::{BINARY, Captured};
use super::{Address, Client, Daemon, Setup, SoftHsm, until};

/// The label of the token of the keystore [`super::setup::HSM`].
pub(crate) const TOKEN: &str = "claviger";

/// An installation. Every test ends with [`Place::check`]; a place that goes unchecked fails its test.
pub(crate) struct Place<'h> {
    pub(crate) hsm: &'h SoftHsm,
    pub(super) setup: Setup,
    pub(super) root: PathBuf,
    pub(super) printed: Captured,
    pub(super) checked: Cell<bool>,
}

impl<'h> Place<'h> {
    /// Token, files and `claviger init`.
    pub(crate) fn new(hsm: &'h SoftHsm, setup: Setup) -> Self {
        let place = Self::uninitialised(hsm, setup);
        place.init();
        place
    }

    /// Token and files, without state: `init` was never run. Nothing is there to check before [`Place::init`].
    pub(crate) fn uninitialised(hsm: &'h SoftHsm, setup: Setup) -> Self {
        if setup.has_hsm() {
            hsm.token(TOKEN);
        }
        let table = hsm.table(TOKEN);
        let root = hsm.state().parent().expect("the state lies in the root folder").to_owned();
        fs::create_dir(root.join("policies")).expect("a new folder");
        fs::write(root.join("policies/test.cedar"), setup.policy_text()).expect("a new file");
        fs::write(root.join("claviger.toml"), setup.config(&root, &table)).expect("a new file");
        Self { hsm, setup, root, printed: Captured::default(), checked: Cell::new(false) }
    }

    /// Runs `claviger init` and keeps the trust file that it prints.
    pub(crate) fn init(&self) {
        let made = self.claviger(&["init"]);
        assert!(made.status.success(), "init: {}", text(&made.stderr));
        let printed = text(&made.stdout);
        let keys: Vec<&str> = printed.lines().filter(|line| line.starts_with("log ")).collect();
        assert_eq!(keys.len(), 2, "{printed}");
        fs::write(self.trust(), format!("{}\nquorum none\n", keys.join("\n"))).expect("a new file");
    }

    /// Adds the line of a new log key to the trust file, above the quorum.
    pub(crate) fn trust_too(&self, line: &serde_json::Value) {
        let line = line.as_str().filter(|line| line.starts_with("log ")).expect("a line for a trust file");
        let before = fs::read_to_string(self.trust()).expect("our own file");
        fs::write(self.trust(), format!("{line}\n{before}")).expect("our own file");
    }

    /// Starts a daemon, waits until every keyring can sign, and remembers the heads of the logs, as a cautious auditor would.
    pub(crate) fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.ready();
        self.remember_heads();
        daemon
    }

    /// Starts a daemon and waits for nothing.
    pub(crate) fn spawn(&self) -> Daemon {
        Daemon::spawn(&self.config(), &self.setup.environment, &self.printed)
    }

    /// Runs a command of the binary with this configuration.
    pub(crate) fn claviger(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.config()).args(arguments).envs(self.setup.environment.iter().cloned());
        let output = command.output().expect("the binary was built");
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.push(text(&output.stdout));
        printed.push(text(&output.stderr));
        output
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = self.claviger(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs `claviger audit verify` on the logs: the exit code, and the report.
    pub(crate) fn verify(&self, arguments: &[&str]) -> (i32, String) {
        self.verify_at(&self.log(), arguments)
    }

    /// Runs `claviger audit verify` on logs that lie elsewhere.
    pub(crate) fn verify_at(&self, log: &Path, arguments: &[&str]) -> (i32, String) {
        let mut all = vec!["audit", "verify", log.to_str().expect("a plain path")];
        all.extend(arguments);
        let output = self.claviger(&all);
        (output.status.code().expect("an exit code"), text(&output.stdout) + &text(&output.stderr))
    }

    /// Saves the heads that a later verification must extend. The first time there are none yet, and the trust file alone decides.
    pub(crate) fn remember_heads(&self) {
        let (trust, heads) = (self.trust(), self.heads());
        let heads = format!("{}/", heads.display());
        // A checkpoint comes up to a second after the first record.
        until("a head to remember", || {
            let arguments = ["--trust", trust.to_str().expect("a plain path"), "--head", &heads, "--first-run", "--save-head", &heads];
            match self.verify(&arguments) {
                (0, _) => Ok(()),
                // No later checkpoint makes these good; 11 is what a reader of logs that grow meanwhile may see.
                (code @ (10 | 12 | 15), report) => panic!("exit code {code}: {report}"),
                (code, report) => Err(format!("exit code {code}: {report}")),
            }
        });
    }

    /// Rewrites the configuration.
    pub(crate) fn edit_config(&self, edit: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).expect("our own file");
        fs::write(self.config(), edit(text)).expect("our own file");
    }

    /// A client on the Unix socket for signing, who is this user.
    pub(crate) fn sign_socket(&self) -> Client {
        Client::new(Address::Unix(self.root.join("sign.sock")))
    }

    /// A client on the Unix socket for operators, who is this user.
    pub(crate) fn admin_socket(&self) -> Client {
        Client::new(Address::Unix(self.root.join("admin.sock")))
    }

    /// The folder of everything.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("claviger.toml")
    }

    /// The daemon's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("claviger")
    }

    /// The folder of both logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.state().join("log")
    }

    /// The trust file that `init` printed.
    pub(crate) fn trust(&self) -> PathBuf {
        self.root.join("trust")
    }

    /// The folder of remembered heads.
    pub(crate) fn heads(&self) -> PathBuf {
        self.root.join("heads")
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
