//! Throw-away SoftHSM tokens, each test in a process of its own.
//!
//! SoftHSM reads the path of its configuration from the environment when it is initialised, once in a process. So a test runs its own binary
//! again, for itself alone, with that variable set; the child does the work, and the parent asserts its success.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use claviger::clock::Clock;
use claviger::keystore::pkcs11::{DEFAULT_HANG_AFTER, DEFAULT_QUEUE_WAIT, DEFAULT_WORKERS, Pkcs11Keystore, Pkcs11Settings};
use claviger::secret::SecretFile;

/// The user's PIN of every token that is made here.
pub(crate) const PIN: &str = "4711-right";
/// Set in the child alone; SoftHSM reads it too.
const CONFIGURATION: &str = "SOFTHSM2_CONF";
/// Where distributions put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
];

/// Set in the child alone: the module to use, where it is not SoftHSM itself.
pub(crate) const MODULE: &str = "CLAVIGER_TEST_MODULE";

/// A folder with tokens, their PIN and a state folder.
pub(crate) struct SoftHsm {
    root: PathBuf,
    module: PathBuf,
}

/// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&SoftHsm)) {
    in_child_with(test, |_| Vec::new(), body);
}

/// The same, with further variables for the child: the parent makes them when it has made the root folder, whose path it gives.
pub(crate) fn in_child_with(test: &str, variables: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>, body: impl FnOnce(&SoftHsm)) {
    #[expect(clippy::disallowed_methods, reason = "the parent hands the child its folder this way, and SoftHSM takes it no other way")]
    if let Some(configuration) = std::env::var_os("CLAVIGER_TEST_CHILD").and(std::env::var_os(CONFIGURATION)) {
        let root = Path::new(&configuration).parent().expect("the configuration lies in the root folder").to_owned();
        let module = std::env::var_os(MODULE).map_or_else(softhsm, PathBuf::from);
        return body(&SoftHsm { root, module });
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    for folder in ["tokens", "state"] {
        fs::create_dir(root.path().join(folder)).expect("a new folder");
    }
    let configuration = root.path().join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", root.path().join("tokens").display());
    fs::write(&configuration, text).expect("a new file");
    let child = Command::new(std::env::current_exe().expect("the test binary"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("CLAVIGER_TEST_CHILD", "1")
        .env(CONFIGURATION, &configuration)
        .envs(variables(root.path()))
        .output()
        .expect("the test binary runs again");
    let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && output.contains("1 passed"), "in the child of {test}:\n{output}");
}

impl SoftHsm {
    /// Imports a private key, given as PKCS#8 in PEM, that was never made in the token.
    pub(crate) fn import(&self, token: &str, pem: &str, label: &str, id: &str) {
        let path = self.root.join("imported.pem");
        fs::write(&path, pem).expect("a new file");
        let path = path.to_str().expect("a plain path");
        util(&["--import", path, "--token", token, "--label", label, "--id", id, "--pin", PIN]);
    }

    /// Makes a token with this label.
    pub(crate) fn token(&self, label: &str) {
        assert!(self.root.join("tokens").is_dir(), "the tokens are in sight");
        util(&["--init-token", "--free", "--label", label, "--so-pin", "0815-officer", "--pin", PIN]);
    }

    /// Moves all tokens out of the module's sight, or back.
    pub(crate) fn hide_tokens(&self, hidden: bool) {
        let (seen, unseen) = (self.root.join("tokens"), self.root.join("unseen"));
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
            module: self.module.clone(),
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

    /// The module that [`Self::settings`] name.
    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// The state folder of the keystores.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}

/// SoftHSM's own module.
pub(crate) fn softhsm() -> PathBuf {
    MODULES.iter().map(PathBuf::from).find(|path| path.exists()).expect("SoftHSM is installed")
}

fn util(arguments: &[&str]) {
    let outcome = Command::new("softhsm2-util").args(arguments).output().expect("softhsm2-util is installed");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}
