//! Throw-away soft tokens of a PKCS#11 module, each test in a process of its own.
//!
//! In scope: what is the same for every module. Out of scope: how one module is configured and how a token of it is made (`softhsm.rs`,
//! `kryoptic.rs`).
//!
//! A module reads where its configuration is from the environment when it is initialised, once in a process. So a test runs its own binary
//! again, for itself alone, with that environment; the child does the work, and the parent asserts its success. The child leaves as the daemon
//! does, at once: what libraries run at exit (OpenSSL frees its tables) would run under the keystores' threads, which nobody waits for.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use claviger::clock::Clock;
use claviger::keystore::pkcs11::{DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, DEFAULT_WORKERS, DeviceProfile, Pkcs11Keystore, Pkcs11Settings};
use claviger::secret::SecretFile;
use claviger_audit::Algorithm;
use rustix::process::{Pid, Signal, kill_process_group};

/// The user's PIN of every token that is made here.
pub(crate) const PIN: &str = "4711-right";
/// The security officer's PIN of every token that is made here.
pub(crate) const OFFICER_PIN: &str = "0815-officer";

/// Names the root folder to a child.
const CHILD: &str = "CLAVIGER_TEST_CHILD";
/// What a child says when its work is done: without it, it ran no test.
const DONE: &str = "the child is done";

/// What stands before numbers that a test in a child wants on record, such as the seed of a random run.
pub(crate) const NUMBERS: &str = "==> ";

/// What has to be known of a module.
pub(crate) struct Module {
    /// Where its shared library is.
    pub(crate) library: fn() -> PathBuf,
    /// What the child has in its environment for it.
    pub(crate) environment: fn(&Tokens) -> Vec<(&'static str, PathBuf)>,
    /// Its configuration; there is no token yet.
    pub(crate) configuration: fn(&Tokens) -> String,
    /// Starts the server that it needs, if it needs one.
    pub(crate) server: fn(&Tokens) -> Option<Server>,
    /// Makes a token with this label.
    pub(crate) make: fn(&Tokens, &str),
    /// The algorithms that it cannot serve; every other one it must.
    pub(crate) lacks: &'static [Algorithm],
}

/// The first of these libraries that is there.
pub(crate) fn first_of(libraries: &[&str]) -> PathBuf {
    let mut paths = libraries.iter().map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    paths.find(|path| path.exists()).unwrap_or_else(|| panic!("none of {libraries:?} is there: run tests/install.sh"))
}

/// A process that leads a group of its own, and ends with the test.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).expect("our own group");
        self.0.wait().expect("our own child");
    }
}

/// A folder with tokens of one module, their PIN and a state folder.
pub(crate) struct Tokens {
    root: PathBuf,
    /// Whose tokens they are.
    pub(crate) module: &'static Module,
    server: Mutex<Option<Server>>,
}

impl Tokens {
    /// Whether this process is a test's child.
    #[expect(clippy::disallowed_methods, reason = "the parent hands the child its folder this way")]
    pub(crate) fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    /// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
    pub(crate) fn in_child(module: &'static Module, test: &str, body: impl FnOnce(&Self)) {
        Self::all_in_child(&[module], test, |tokens| body(&tokens[0]));
    }

    /// The same with several modules in one child: a token folder for each, the first in the root folder, the others below it. No two of
    /// them may want the same variable in the child's environment.
    pub(crate) fn all_in_child(modules: &[&'static Module], test: &str, body: impl FnOnce(&[Self])) {
        let all = |root: &Path| -> Vec<Self> {
            let place = |index| if index == 0 { root.to_owned() } else { root.join(format!("module-{index}")) };
            modules.iter().enumerate().map(|(index, module)| Self { root: place(index), module, server: Mutex::default() }).collect()
        };
        #[expect(clippy::disallowed_methods, reason = "the parent hands the child its folder this way")]
        if let Some(root) = std::env::var_os(CHILD) {
            let tokens = all(Path::new(&root));
            tokens.iter().for_each(Self::start_server);
            body(&tokens);
            tokens.iter().for_each(Self::stop_server);
            writeln!(io::stdout(), "{DONE}").expect("the parent listens");
            signal_hook::low_level::exit(0);
        }
        let root = tempfile::tempdir().expect("a temporary folder");
        let tokens = all(root.path());
        for tokens in &tokens {
            for folder in [tokens.folder(), tokens.state()] {
                fs::create_dir_all(folder).expect("a new folder");
            }
            fs::write(tokens.configuration(), (tokens.module.configuration)(tokens)).expect("a new file");
        }
        let child = Command::new(std::env::current_exe().expect("the test binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD, root.path())
            .envs(tokens.iter().flat_map(|tokens| (tokens.module.environment)(tokens)))
            .output()
            .expect("the test binary runs again");
        let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        output.lines().filter_map(|line| line.split_once(NUMBERS)).for_each(|(_, numbers)| show(numbers));
        assert!(child.status.success() && output.contains(DONE), "in the child of {test} ({}):\n{output}", child.status);
        assert!(!output.contains(PIN) && !output.contains(OFFICER_PIN), "{test} printed a PIN");
    }

    /// Makes a token with this label, before any keystore is opened.
    pub(crate) fn token(&self, label: &str) {
        assert!(self.folder().is_dir(), "the tokens are in sight");
        (self.module.make)(self, label);
    }

    /// Starts the server that the module needs, if it needs one; there is one when `body` begins.
    pub(crate) fn start_server(&self) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = (self.module.server)(self);
    }

    /// Ends the server, under whatever call it serves.
    pub(crate) fn stop_server(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Moves all tokens out of the module's sight, or back.
    pub(crate) fn hide_tokens(&self, hidden: bool) {
        let (seen, unseen) = (self.folder(), self.root.join("unseen"));
        let (from, to) = if hidden { (&seen, &unseen) } else { (&unseen, &seen) };
        if !hidden {
            fs::remove_dir_all(to).expect("the stand-in folder");
        }
        fs::rename(from, to).expect("both in one folder");
        if hidden {
            fs::create_dir(from).expect("an empty folder in its place");
        }
    }

    /// Settings for a token, with `pin` in its PIN file.
    pub(crate) fn settings(&self, token: &str, pin: &str) -> Pkcs11Settings {
        let path = self.root.join("pin");
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("{pin}\n")).expect("a new file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("our own file");
        Pkcs11Settings {
            module: (self.module.library)(),
            token: token.parse().expect("a token's name"),
            workers: DEFAULT_WORKERS,
            pin: SecretFile::new(path, None),
            profile: DeviceProfile::default(),
            state: self.state(),
            queue_wait: DEFAULT_QUEUE_WAIT,
            hang_after: DEFAULT_HANG_AFTER,
        }
    }

    /// The lines of a `[keystore.NAME]` table for a token, with the right PIN in its file.
    pub(crate) fn table(&self, token: &str) -> String {
        let Pkcs11Settings { module, workers, .. } = self.settings(token, PIN);
        let (module, pin) = (module.display(), self.root.join("pin").display().to_string());
        format!("type = \"pkcs11\"\nmodule = \"{module}\"\ntoken = \"{token}\"\npin_file = \"{pin}\"\nworkers = {workers}\n")
    }

    /// A keystore on a token that exists, with the right PIN.
    pub(crate) fn open(&self, token: &str, clock: Arc<dyn Clock>) -> Pkcs11Keystore {
        Pkcs11Keystore::open(self.settings(token, PIN), clock)
    }

    /// The state folder of the keystores.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The module's shared library.
    pub(crate) fn library(&self) -> PathBuf {
        (self.module.library)()
    }

    /// The folder of everything that belongs to the test.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The module's configuration.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.root.join("module.conf")
    }

    /// The folder that holds the tokens.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join("tokens")
    }
}

#[expect(clippy::print_stdout, reason = "the child's words would be lost")]
fn show(numbers: &str) {
    println!("{NUMBERS}{numbers}");
}
