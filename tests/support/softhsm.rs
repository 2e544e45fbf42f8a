//! Throw-away tokens of SoftHSM, made by its own tool.

use std::path::PathBuf;
use std::process::Command;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use super::tokens::PIN;
use super::tokens::{Module, OFFICER_PIN, Tokens, first_of};

/// A folder with tokens of SoftHSM.
pub(crate) type SoftHsm = Tokens;

/// SoftHSM in the test's own process.
pub(crate) static MODULE: Module = Module {
    // Where distributions put it.
    library: || {
        first_of(&[
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/lib64/softhsm/libsofthsm2.so",
        ])
    },
    environment,
    configuration,
    server: |_| None,
    make,
    lacks: &[],
};

/// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&SoftHsm)) {
    Tokens::in_child(&MODULE, test, body);
}

/// Where SoftHSM finds its configuration.
pub(crate) fn environment(tokens: &Tokens) -> Vec<(&'static str, PathBuf)> {
    vec![("SOFTHSM2_CONF", tokens.configuration())]
}

/// Tokens lie in their folder, each as a folder of files.
pub(crate) fn configuration(tokens: &Tokens) -> String {
    format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.folder().display())
}

/// Makes a token in a process of its own, which a module that is loaded already notices when it is initialised again.
pub(crate) fn make(tokens: &Tokens, label: &str) {
    let arguments = ["--init-token", "--free", "--label", label, "--so-pin", OFFICER_PIN, "--pin", PIN];
    let outcome = Command::new("softhsm2-util").args(arguments).envs(environment(tokens)).output().expect("softhsm2-util is installed");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}
