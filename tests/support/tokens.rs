//! Throw-away soft tokens of a PKCS#11 module, each test in a process of its own.
//!
//! In scope: what is the same for every module. Out of scope: how one module is configured and how a token of it is made (`softhsm.rs`,
//! `kryoptic.rs`).
//!
//! A module reads the path of its configuration from the environment when it is initialised, once in a process. So a test runs its own binary
//! again, for itself alone, with that variable set; the child does the work, and the parent asserts its success. The child leaves as the daemon
//! does, at once: what libraries run at exit (OpenSSL frees its tables) would run under the keystores' threads, which nobody waits for.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use claviger::clock::Clock;
use claviger::keystore::pkcs11::{DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, DEFAULT_WORKERS, Pkcs11Keystore, Pkcs11Settings};
use claviger::secret::SecretFile;
use claviger_audit::Algorithm;

/// The user's PIN of every token that is made here.
pub(crate) const PIN: &str = "4711-right";
/// The security officer's PIN of every token that is made here.
pub(crate) const OFFICER_PIN: &str = "0815-officer";

/// Set in the child alone: the library to load, where it is not the module's own but stands between.
pub(crate) const LIBRARY: &str = "CLAVIGER_TEST_LIBRARY";
/// What a child says when its work is done: without it, it ran no test.
const DONE: &str = "the child is done";

/// What has to be known of a module.
pub(crate) struct Module {
    /// Its shared library: the first of these that exists.
    pub(crate) libraries: &'static [&'static str],
    /// The variable that names its configuration; set in the child alone.
    pub(crate) variable: &'static str,
    /// Its configuration, given the folder for its tokens; no token is in it yet.
    pub(crate) configuration: fn(&Path) -> String,
    /// Makes a token with this label.
    pub(crate) make: fn(&Tokens, &str),
    /// The algorithms that it cannot serve; every other one it must.
    pub(crate) lacks: &'static [Algorithm],
}

impl Module {
    /// Its shared library.
    pub(crate) fn library(&self) -> PathBuf {
        let mut paths = self.libraries.iter().map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        paths.find(|path| path.exists()).unwrap_or_else(|| panic!("none of {:?}: run tests/install.sh", self.libraries))
    }
}

/// A folder with tokens of one module, their PIN and a state folder.
pub(crate) struct Tokens {
    root: PathBuf,
    library: PathBuf,
    /// Whose tokens they are.
    pub(crate) module: &'static Module,
}

impl Tokens {
    /// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
    pub(crate) fn in_child(module: &'static Module, test: &str, body: impl FnOnce(&Self)) {
        Self::in_child_with(module, test, |_| Vec::new(), body);
    }

    /// The same, with further variables for the child: the parent makes them when it has made the root folder, whose path it gives.
    pub(crate) fn in_child_with(
        module: &'static Module,
        test: &str,
        variables: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>,
        body: impl FnOnce(&Self),
    ) {
        #[expect(clippy::disallowed_methods, reason = "the parent hands the child its folder this way, and modules take it no other way")]
        if let Some(configuration) = std::env::var_os("CLAVIGER_TEST_CHILD").and(std::env::var_os(module.variable)) {
            let root = Path::new(&configuration).parent().expect("the configuration lies in the root folder").to_owned();
            let library = std::env::var_os(LIBRARY).map_or_else(|| module.library(), PathBuf::from);
            body(&Self { root, library, module });
            writeln!(io::stdout(), "{DONE}").expect("the parent listens");
            signal_hook::low_level::exit(0);
        }
        let root = tempfile::tempdir().expect("a temporary folder");
        for folder in ["tokens", "state"] {
            fs::create_dir(root.path().join(folder)).expect("a new folder");
        }
        let tokens = Self { root: root.path().to_owned(), library: module.library(), module };
        fs::write(tokens.configuration(), (module.configuration)(&tokens.folder())).expect("a new file");
        let child = Command::new(std::env::current_exe().expect("the test binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("CLAVIGER_TEST_CHILD", "1")
            .env(module.variable, tokens.configuration())
            .envs(variables(root.path()))
            .output()
            .expect("the test binary runs again");
        let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && output.contains(DONE), "in the child of {test}:\n{output}");
    }

    /// Makes a token with this label, before any keystore is opened.
    pub(crate) fn token(&self, label: &str) {
        assert!(self.folder().is_dir(), "the tokens are in sight");
        (self.module.make)(self, label);
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
            module: self.library.clone(),
            token: token.parse().expect("a token's name"),
            workers: DEFAULT_WORKERS,
            pin: SecretFile::new(path, None),
            state: self.state(),
            queue_wait: DEFAULT_QUEUE_WAIT,
            hang_after: DEFAULT_HANG_AFTER,
        }
    }

    /// A keystore on a token that exists, with the right PIN.
    pub(crate) fn open(&self, token: &str, clock: Arc<dyn Clock>) -> Pkcs11Keystore {
        Pkcs11Keystore::open(self.settings(token, PIN), clock)
    }

    /// The state folder of the keystores.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The shared library to load: the module's own, or the one that stands between.
    pub(crate) fn library(&self) -> PathBuf {
        self.library.clone()
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
