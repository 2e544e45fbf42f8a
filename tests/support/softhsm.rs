//! Throw-away tokens of SoftHSM, made by its own tool.

use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use super::tokens::PIN;
use super::tokens::{Module, OFFICER_PIN, Tokens};

/// A folder with tokens of SoftHSM.
pub(crate) type SoftHsm = Tokens;

static MODULE: Module = Module {
    // Where distributions put it.
    libraries: &[
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
    ],
    variable: "SOFTHSM2_CONF",
    configuration: |tokens| format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display()),
    make: |_, label| util(&["--init-token", "--free", "--label", label, "--so-pin", OFFICER_PIN, "--pin", PIN]),
    lacks: &[],
};

/// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&SoftHsm)) {
    Tokens::in_child(&MODULE, test, body);
}

/// The same, with further variables for the child, made from the path of its root folder.
pub(crate) fn in_child_with(test: &str, variables: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>, body: impl FnOnce(&SoftHsm)) {
    Tokens::in_child_with(&MODULE, test, variables, body);
}

/// SoftHSM's own library.
pub(crate) fn softhsm() -> PathBuf {
    MODULE.library()
}

fn util(arguments: &[&str]) {
    let outcome = Command::new("softhsm2-util").args(arguments).output().expect("softhsm2-util is installed");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}
