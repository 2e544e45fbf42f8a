//! The fault-injecting module between a client and SoftHSM, and its control socket.
//!
//! In scope: building it, a child process that loads it, and asking it. Out of scope: what it can do (`tests/fault-module/README.md`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::softhsm;
use super::tokens::{Module, Tokens};

/// SoftHSM behind the module, whose control socket is there once it is loaded.
static MODULE: Module = Module {
    library: built,
    environment: |tokens| {
        let own = [("PKCS11_FAULT_TARGET", (softhsm::MODULE.library)()), ("PKCS11_FAULT_SOCKET", control(tokens))];
        own.into_iter().chain(softhsm::environment(tokens)).collect()
    },
    configuration: softhsm::configuration,
    server: |_| None,
    make: softhsm::make,
    lacks: softhsm::MODULE.lacks,
};

/// Builds the module beside this test, in its profile. What is built already is only looked at.
pub(crate) fn build() {
    let [profile, target] = folders();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "pkcs11-fault-module", "--locked", "--quiet", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let outcome = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}

/// Where [`build`] puts the module.
pub(crate) fn built() -> PathBuf {
    let [profile, _] = folders();
    profile.join(format!("{}pkcs11_fault_module{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

/// The folders of this test's profile, and of all profiles: the test is `<target>/<profile>/deps/<test>`.
fn folders() -> [PathBuf; 2] {
    let test = std::env::current_exe().expect("the test binary");
    [2, 3].map(|up| test.ancestors().nth(up).expect("cargo's folders").to_owned())
}

/// Runs `body` in a child process whose tokens are behind the module. The control socket is there when the module is loaded.
pub(crate) fn with_faults(test: &str, body: impl FnOnce(&Tokens, &Faults)) {
    if !Tokens::is_child() {
        build();
    }
    Tokens::in_child(&MODULE, test, |tokens| body(tokens, &Faults::at(&control(tokens))));
}

/// The same, with tokens of another module beside them.
pub(crate) fn with_faults_beside(other: &'static Module, test: &str, body: impl FnOnce(&Tokens, &Faults, &Tokens)) {
    if !Tokens::is_child() {
        build();
    }
    Tokens::all_in_child(&[&MODULE, other], test, |tokens| body(&tokens[0], &Faults::at(&control(&tokens[0])), &tokens[1]));
}

fn control(tokens: &Tokens) -> PathBuf {
    tokens.root().join("control")
}

/// A client of the control socket. Connects when it is used first, and stays connected.
pub(crate) struct Faults {
    socket: PathBuf,
    connection: Mutex<Option<BufReader<UnixStream>>>,
}

impl Faults {
    /// Of the module that listens there, or will.
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: Mutex::default() }
    }

    /// Another client of the same module, on a connection of its own.
    pub(crate) fn again(&self) -> Self {
        Self::at(&self.socket)
    }

    /// Says one line, and gives the answer.
    pub(crate) fn say(&self, line: &str) -> Value {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connect = || BufReader::new(UnixStream::connect(&self.socket).expect("the module listens once it is loaded"));
        let connection = connection.get_or_insert_with(connect);
        writeln!(connection.get_mut(), "{line}").expect("the module reads");
        let mut answer = String::new();
        connection.read_line(&mut answer).expect("the module answers");
        serde_json::from_str(&answer).expect("an answer is JSON")
    }

    /// Gives a command that must be carried out, and gives the answer.
    pub(crate) fn tell(&self, command: Value) -> Value {
        let answer = self.say(&command.to_string());
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }

    /// Puts a rule in force, and gives its number.
    pub(crate) fn rule(&self, command: Value) -> u64 {
        self.tell(command)["rule"].as_u64().expect("a rule's number")
    }

    /// Has `function` answer `code`, as `when` says (`{}`: always).
    pub(crate) fn fail(&self, function: &str, code: &str, when: Value) -> u64 {
        self.rule(json!({ "do": "fail", "function": function, "code": code, "when": when }))
    }

    /// Everything that the module tells of itself.
    pub(crate) fn status(&self) -> Value {
        self.tell(json!({ "do": "status" }))
    }

    /// How often a function was called, without calls that only ask for a length.
    pub(crate) fn calls(&self, function: &str) -> u64 {
        self.status()["calls"][function].as_u64().unwrap_or(0)
    }

    /// How often a rule acted.
    pub(crate) fn fired(&self, rule: u64) -> u64 {
        let status = self.status();
        let rules = status["rules"].as_array().expect("a list of rules");
        rules.iter().find(|known| known["rule"] == rule).and_then(|known| known["fired"].as_u64()).expect("a rule in force")
    }

    /// Back to plain forwarding.
    pub(crate) fn reset(&self) {
        self.tell(json!({ "do": "reset" }));
    }
}
