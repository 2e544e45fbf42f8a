//! The independent verifiers: PyJWT and panva/jose, each as a process that follows a served set with its own cache.
//!
//! In scope: their processes and their answers, one per token. Out of scope: how they verify (`tests/verifiers`), and installing them
//! (`tests/install.sh`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Which library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    PyJwt,
    Jose,
    /// Jose for signatures whose payload travels apart.
    JoseDetached,
}

/// A running verifier.
pub(crate) struct Verifier {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Verifier {
    /// Starts one that follows the set at `jwks`; `arguments` are the script's own.
    pub(crate) fn start(library: Library, jwks: &str, arguments: &[&str]) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let scripts = here.join("tests/verifiers");
        let node = PathBuf::from("node");
        let (program, script) = match library {
            Library::PyJwt => (here.join("target/test-tools/venv/bin/python"), "pyjwt_follow.py"),
            Library::Jose => (node, "jose_follow.mjs"),
            Library::JoseDetached => (node, "jose_detached.mjs"),
        };
        let mut command = Command::new(program);
        command
            .arg(scripts.join(script))
            .args(["--jwks", jwks])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("tests/install.sh installs the verifiers");
        let input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { child, input, output }
    }

    /// Arguments for the tokens of `jwt` keyrings with these algorithms, separated by commas.
    pub(crate) fn for_tokens(algorithms: &str) -> [&str; 6] {
        ["--algorithms", algorithms, "--issuer", super::setup::ISSUER, "--audience", super::setup::AUDIENCE]
    }

    /// Hands over one token and waits for the answer.
    pub(crate) fn judge(&mut self, token: &str) -> Value {
        self.ask(&json!({ "token": token }))
    }

    /// Hands over one line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.input, "{line}").expect("the verifier reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the verifier answers");
        assert!(!line.is_empty(), "the verifier ended; run tests/install.sh");
        serde_json::from_str(&line).expect("an answer is JSON")
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
