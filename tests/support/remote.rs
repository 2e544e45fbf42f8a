//! Throw-away tokens of SoftHSM in another process: p11-kit's server holds them, and its client is the module.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use claviger_audit::Algorithm;

use super::softhsm;
use super::tokens::{Module, Server, Tokens, first_of};

/// The module.
pub(crate) static MODULE: Module = Module {
    // Where distributions put the client.
    library: || {
        first_of(&[
            "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
            "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
            "/usr/lib64/pkcs11/p11-kit-client.so",
            "/usr/lib/pkcs11/p11-kit-client.so",
        ])
    },
    environment: |tokens| vec![("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", socket(tokens)).into())],
    configuration: softhsm::configuration,
    server: |tokens| Some(serve(tokens)),
    make: softhsm::make,
    // p11-kit 0.24 hands over no mechanism that it does not know.
    lacks: &[Algorithm::EdDSA, Algorithm::Ed25519],
};

/// Runs `body` in a child process that sees a fresh, empty token folder. `test` is the full name of the calling test.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&Tokens)) {
    Tokens::in_child(&MODULE, test, body);
}

/// The server forks for each client and loads SoftHSM there, so that it sees whatever tokens there are then.
fn serve(tokens: &Tokens) -> Server {
    let _ = fs::remove_file(socket(tokens));
    let mut server = Command::new("p11-kit")
        .args(["server", "--foreground", "--name", &socket(tokens), "--provider"])
        .arg((softhsm::MODULE.library)())
        .arg("pkcs11:")
        .envs(softhsm::environment(tokens))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("p11-kit is installed");
    // It says where it listens as soon as it does.
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
    assert!(line.starts_with("P11_KIT_SERVER_ADDRESS="), "{line}");
    Server(server)
}

fn socket(tokens: &Tokens) -> String {
    tokens.root().join("socket").display().to_string()
}
