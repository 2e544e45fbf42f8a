//! One run of the daemon's binary.
//!
//! In scope: starting it, its addresses, its standard error, ending it by a signal to the process that was started. Out of scope: what it
//! serves, and what becomes of its files ([`super::place`]).

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::{Address, Client, until};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_claviger");

/// Lines that a process wrote, as they come.
pub(crate) type Captured = Arc<Mutex<Vec<String>>>;

/// A daemon that was started here; it is killed when this value goes.
pub(crate) struct Daemon {
    child: Child,
    lines: Captured,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `claviger serve` and waits for nothing. What it writes is kept here, and in `printed`, with all that was ever printed.
    pub(super) fn spawn(config: &Path, environment: &[(String, OsString)], printed: &Captured) -> Self {
        let mut command = Command::new(BINARY);
        command.envs(environment.iter().cloned());
        command.arg("--config").arg(config).arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built");
        let errors = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let lines = Captured::default();
        let (mine, all) = (lines.clone(), printed.clone());
        let reader = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                all.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                mine.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { child, lines, reader: Some(reader) }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this run wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The addresses of the listeners, in the order of the configuration, once all of `count` are bound.
    pub(crate) fn addresses(&mut self, count: usize) -> Vec<Address> {
        until("listening", || {
            self.assert_runs();
            let text = self.stderr();
            let found: Vec<Address> = text.lines().filter(|line| line.contains(" listening ")).map(address).collect();
            if found.len() == count { Ok(found) } else { Err(format!("{} of {count} listeners\n{text}", found.len())) }
        })
    }

    /// Where the daemon answers on TCP; it has one such listener in a [`super::Setup`].
    pub(crate) fn tcp(&mut self) -> Address {
        let is_tcp = |address: &Address| matches!(address, Address::Tcp(_));
        until("a TCP listener", || {
            self.assert_runs();
            let text = self.stderr();
            text.lines().filter(|line| line.contains(" listening ")).map(address).find(is_tcp).ok_or(text)
        })
    }

    /// The URL of a path on the TCP listener.
    pub(crate) fn url(&mut self, path: &str) -> String {
        match self.tcp() {
            Address::Tcp(address) => format!("http://{address}{path}"),
            Address::Unix(_) => unreachable!("asked for TCP"),
        }
    }

    /// A client without identity on the TCP listener.
    pub(crate) fn anonymous(&mut self) -> Client {
        Client::new(self.tcp())
    }

    /// The client `token:demo`, who may sign, on the TCP listener.
    pub(crate) fn demo(&mut self) -> Client {
        self.anonymous().bearer(super::setup::BEARER)
    }

    /// Waits until every keyring can sign.
    pub(crate) fn ready(&mut self) {
        let mut client = self.anonymous();
        until("ready to sign", || {
            self.assert_runs();
            let answer = client.try_get("/readyz/sign")?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}\n{}", answer.text(), self.stderr())) }
        });
    }

    /// Panics with what it said if it has ended: nothing is worth waiting for then.
    fn assert_runs(&mut self) {
        let ended = self.child.try_wait();
        assert!(matches!(ended, Ok(None)), "the daemon has ended ({ended:?}):\n{}", self.stderr());
    }

    /// Stops it by SIGTERM, as an operator would, and gives its exit status.
    pub(crate) fn stop(self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    /// Ends it by SIGKILL, as a crash would.
    pub(crate) fn kill(self) {
        self.end(Signal::KILL);
    }

    /// Waits until it ends by itself, and gives its exit status and standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.reap();
        (status, self.stderr())
    }

    /// Sends a signal, such as HUP, and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a process of ours that nobody has waited for");
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.reap()
    }

    fn reap(&mut self) -> ExitStatus {
        let status = until("the daemon's end", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}\n{}", self.stderr())),
        });
        self.read_out();
        status
    }

    fn read_out(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that fails leaves nothing running either.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.read_out();
        if std::thread::panicking() {
            print_failed(&self.stderr());
        }
    }
}

#[expect(clippy::print_stderr, reason = "whoever reads of a failed test needs the daemon's words too")]
fn print_failed(stderr: &str) {
    eprintln!("---- the daemon's standard error\n{stderr}");
}

/// From the log line of a listener.
fn address(line: &str) -> Address {
    let tcp = line.split("address=Some(").nth(1).and_then(|rest| rest.split(')').next()).and_then(|text| text.parse().ok());
    let unix = || line.split("bind=unix:").nth(1).and_then(|rest| rest.split(' ').next()).map(|path| Address::Unix(path.into()));
    tcp.map(Address::Tcp).or_else(unix).unwrap_or_else(|| panic!("a listener's address in {line}"))
}
