//! The judges as processes: where they are, how they are asked, and how they end.
//!
//! In scope: starting and stopping by process id, and one verdict for each question. Out of scope: what to ask.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use serde::Deserialize;
use serde_json::Value;

/// So many questions are on their way at once: their answers fit into a pipe, so that neither side ever waits for the other.
const WINDOW: usize = 64;

/// A program that `tests/install.sh` put into `target/test-tools/bin`.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/bin").join(name);
    assert!(path.is_file(), "{} is missing: run tests/install.sh, which builds the judges", path.display());
    path
}

/// `judges batch`: many questions to one process.
pub(crate) struct Judge {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What the judge says.
#[derive(Debug, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) origin: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) root: String,
    #[serde(default)]
    pub(crate) signers: Vec<String>,
}

impl Judge {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(tool("judges")).arg("batch").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(crate) fn ask(&mut self, question: &Value) -> Verdict {
        self.ask_all(std::slice::from_ref(question)).remove(0)
    }

    /// One verdict for each question, in order.
    pub(crate) fn ask_all(&mut self, questions: &[Value]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(questions.len());
        for window in questions.chunks(WINDOW) {
            let lines: Vec<String> = window.iter().map(|question| format!("{question}\n")).collect();
            self.input.write_all(lines.concat().as_bytes()).unwrap();
            for question in window {
                let mut line = String::new();
                self.output.read_line(&mut line).unwrap();
                assert!(!line.is_empty(), "the judge could not answer {question}");
                verdicts.push(serde_json::from_str(&line).unwrap());
            }
        }
        verdicts
    }

    /// Asks all questions, and panics at the first on which the judge and we differ.
    pub(crate) fn agrees<E: Debug>(&mut self, asked: &[(Value, Result<(), E>)]) {
        let questions: Vec<Value> = asked.iter().map(|(question, _)| question.clone()).collect();
        for ((question, ours), theirs) in asked.iter().zip(self.ask_all(&questions)) {
            assert_eq!(ours.is_ok(), theirs.ok, "we say {ours:?}, the judge says {:?}: {question}", theirs.error);
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `judges witness`, listening on a port of its own.
pub(crate) struct Witness {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) address: String,
    pub(crate) vkey: String,
}

/// What an HTTP server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Witness {
    /// Starts one that keeps its memory in `state`, cosigns `logs` and is told `more` arguments.
    pub(crate) fn start(state: &Path, logs: &[String], more: &[&str]) -> Self {
        let mut command = Command::new(tool("judges"));
        command.args(["witness", "-name", "witness.example", "-state"]).arg(state).args(more);
        command.args(logs.iter().flat_map(|log| ["-log", log]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).expect("a witness says where it listens");
        let text = |member: &str| started[member].as_str().unwrap().to_owned();
        Self { input: child.stdin.take(), address: text("address"), vkey: text("vkey"), child }
    }

    pub(crate) fn post(&self, body: &[u8]) -> Response {
        self.request("POST /add-checkpoint", body)
    }

    /// `line` is method and path. HTTP/1.0, so that the end of the connection is the end of the answer.
    pub(crate) fn request(&self, line: &str, body: &[u8]) -> Response {
        let mut stream = self.send(line, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let content_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or_default();
        Response { status, content_type: content_type.to_owned(), body: body.to_owned() }
    }

    /// A connection on which a request is under way.
    pub(crate) fn send(&self, line: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("{line} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        stream
    }

    /// Ends it by closing its standard input; whether it ended well.
    pub(crate) fn close(mut self) -> bool {
        self.input = None;
        self.child.wait().unwrap().success()
    }

    /// Ends it by SIGTERM; whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        sent.success() && self.child.wait().unwrap().success()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a judge once.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(tool(name)).args(arguments).stdin(Stdio::null()).output().unwrap()
}
