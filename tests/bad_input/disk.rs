//! A full disk: nothing is signed, JWKS goes on for as long as verifiers may trust it, and nothing that was acknowledged is lost.
//!
//! In scope: appends that fail, by a limit on the size of files (EFBIG where a full disk says ENOSPC). Out of scope: sync errors and torn
//! lines, which the journal's own tests inject.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::extra::settle;
use crate::harness::daemon::BINARY;
use crate::harness::{Address, Client, Keyring, Place, Setup, on_softhsm, setup, until};
use crate::{good, refused};

/// In blocks of 512 bytes, as `ulimit -f` of a POSIX shell counts: 48 KiB hold the first records and some dozens of signatures.
const FILE_SIZE: u32 = 96;
/// More signatures than fit.
const MOST_SIGNATURES: usize = 1000;

/// A daemon whose files cannot grow beyond a size.
struct Limited {
    child: Child,
    log: PathBuf,
}

impl Limited {
    fn start(place: &Place<'_>) -> Self {
        let log = place.root().join("limited.log");
        let script = format!("trap '' XFSZ; ulimit -f {FILE_SIZE}; exec \"$0\" --config \"$1\" serve");
        let mut command = Command::new("sh");
        command.args(["-c", &script, BINARY]).arg(place.config()).stdin(Stdio::null());
        let child = command.stderr(fs::File::create(&log).expect("a new file")).spawn().expect("a shell");
        Self { child, log }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.log).expect("our own file")
    }

    /// A client on the TCP listener.
    fn client(&self) -> Client {
        Client::new(until("a listener", || {
            let text = self.stderr();
            let bound = text.split("address=Some(").nth(1).and_then(|rest| rest.split(')').next());
            bound.and_then(|address| address.parse::<SocketAddr>().ok()).map(Address::Tcp).ok_or(text)
        }))
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let status = until("its end", || self.child.try_wait().ok().flatten().ok_or_else(|| self.stderr()));
        (status, self.stderr())
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Writes receipts to files and lets the verifier prove each of them.
fn prove(place: &Place<'_>, receipts: &[Value]) {
    let mut arguments = vec!["--trust".to_owned(), text(&place.trust())];
    for (number, receipt) in receipts.iter().enumerate() {
        let file = place.root().join(format!("receipt-{number}"));
        fs::write(&file, receipt.to_string()).expect("a new file");
        arguments.extend(["--receipt".to_owned(), text(&file)]);
    }
    let (code, report) = place.verify(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{} receipts: {report}", receipts.len());
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn a_full_disk_stops_signatures_and_loses_nothing() {
    on_softhsm("disk::a_full_disk_stops_signatures_and_loses_nothing", |hsm| {
        // E - D - e: JWKS goes on for 9 s.
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256").set("max_exposure", "12s")));
        let mut daemon = place.start();
        settle(&mut daemon, &["access"]);
        assert!(daemon.stop().success());
        let limited = Limited::start(&place);
        let (mut demo, mut anonymous) = (limited.client().bearer(setup::BEARER), limited.client());
        until("ready", || if demo.try_get("/readyz/sign")?.status == 200 { Ok(()) } else { Err(limited.stderr()) });
        let served = anonymous.get("/.well-known/jwks.json");
        let mut receipts = Vec::new();
        let full = (0..MOST_SIGNATURES).find_map(|_| {
            let answer = demo.post("/sign", &good());
            if answer.status != 200 {
                return Some(answer);
            }
            receipts.push(answer.json()["receipt"].clone());
            None
        });
        let problem = refused(&full.expect("the disk is full at last"), 503, "log_unwritable");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("nothing may be signed or changed")), "{problem}");
        assert!(!receipts.is_empty(), "some were signed before");

        // Nothing is signed any more, the set is served on, and the reason is where operators look.
        refused(&demo.post("/sign", &good()), 503, "log_unwritable");
        let answer = anonymous.get("/.well-known/jwks.json");
        assert_eq!((answer.status, &answer.body), (200, &served.body));
        let row = anonymous.get("/readyz/sign").json()["keyrings"][0].clone();
        assert_eq!(row["code"], "log_unwritable", "{row}");
        assert!(!row.to_string().contains("/tmp") && !row.to_string().contains("os error"), "internal text goes out in {row}");
        assert_eq!(anonymous.get("/readyz").status, 200);
        assert!(anonymous.get("/metrics").text().contains("claviger_log_writable{log=\"uses\"} 0"));
        let doctor = place.claviger(&["doctor", "--output", "json"]);
        assert_eq!(doctor.status.code(), Some(1));
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(told.contains("cannot write"), "doctor tells operators why: {told}");

        let (status, printed) = limited.wait();
        assert_eq!(status.code(), Some(74), "{printed}");
        assert!(printed.contains("the audit log is dead") && printed.contains("make room"), "{printed}");
        assert!(!printed.contains(setup::BEARER), "no secret is printed");

        // With room again everything goes on, and everything that was acknowledged is there.
        let mut daemon = place.start();
        receipts.push(daemon.demo().post("/sign", &good()).ok()["receipt"].clone());
        assert!(daemon.stop().success());
        prove(&place, &receipts);
        place.check_stopped();
    });
}
