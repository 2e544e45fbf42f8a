//! Peers that take their time, and an orderly end.
//!
//! In scope: time limits on silent and slow peers, graceful stop, the last records and checkpoints. Out of scope: crashes (`kill.rs`).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Address, Daemon, Keyring, Place, Setup, on_softhsm, setup, until};

/// Far longer than the header time limit that is configured here; only a peer that is never dropped waits so long.
const NEVER: Duration = Duration::from_mins(1);

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

fn connect(daemon: &mut Daemon) -> TcpStream {
    let Address::Tcp(address) = daemon.tcp() else { unreachable!("asked for TCP") };
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(NEVER)).expect("a socket");
    stream
}

/// Everything that comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "never closed"),
    }
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_peer_that_says_too_little_is_dropped() {
    on_softhsm("stop::a_peer_that_says_too_little_is_dropped", |hsm| {
        let place = Place::new(hsm, one_keyring().more("\n[limits]\nheader_timeout = \"1s\"\n"));
        let mut daemon = place.start();
        // Nothing; half of either protocol's first bytes; a head without an end; the second request of a connection.
        let get = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        let second = format!("{get}GET /li");
        let said = ["", "P", "PRI * HTTP/2.0\r\n", "GET", "GET /livez HTTP/1.1\r\nHost: x\r\nA: ", get, &second];
        let streams: Vec<(&str, TcpStream)> = said
            .into_iter()
            .map(|text| {
                let mut stream = connect(&mut daemon);
                stream.write_all(text.as_bytes()).expect("a socket");
                (text, stream)
            })
            .collect();
        for (text, stream) in streams {
            let answer = rest(stream);
            assert_eq!(answer.contains("200 OK"), text.starts_with(get), "{text:?}: {answer}");
        }
        // A body that trickles in is bounded by the deadline of its request.
        let mut stream = connect(&mut daemon);
        let head = format!(
            "POST /sign HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
            setup::BEARER
        );
        stream.write_all(head.as_bytes()).expect("a socket");
        let answer = rest(stream);
        assert!(answer.contains("400 Bad Request") && answer.contains("did not arrive within the deadline"), "{answer}");
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_stop_answers_what_is_in_flight_and_covers_everything() {
    on_softhsm("stop::a_stop_answers_what_is_in_flight_and_covers_everything", |hsm| {
        let place = Place::new(hsm, one_keyring().more("\n[limits]\ndeadline = \"20s\"\n"));
        let mut daemon = place.start();
        // A request whose head is in and whose body is not: the daemon waits for it as it stops.
        let body = json!({ "keyring": "access", "claims": { "sub": "last", "aud": setup::AUDIENCE } }).to_string();
        let mut stream = connect(&mut daemon);
        let head = format!(
            "POST /sign HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            setup::BEARER,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("a socket");
        // The interim answer says that the handler reads the body now.
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).expect("an interim answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        daemon.signal(rustix::process::Signal::TERM);
        let address = daemon.tcp();
        until("no new connection is accepted", || {
            let Address::Tcp(address) = &address else { unreachable!("asked for TCP") };
            if TcpStream::connect(address).is_err() { Ok(()) } else { Err("it is".to_owned()) }
        });
        stream.write_all(body.as_bytes()).expect("a socket");
        let answer = rest(stream);
        assert!(answer.contains("200 OK") && answer.contains("\"token\""), "{answer}");
        let (status, printed) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{printed}");

        let log = place.log();
        let log = log.to_str().expect("a plain path");
        let shown = place.command(&["audit", "show", log, "--format", "json"]);
        let records: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
        let last = records.iter().rfind(|record| record["log"] == "keys").expect("a record");
        assert_eq!((&last["event"], &last["reason"]), (&json!("daemon.stop"), &json!("signal")));
        let (trust, heads) = (place.trust(), place.heads());
        let arguments =
            ["--trust", trust.to_str().expect("a plain path"), "--head", heads.to_str().expect("a plain path"), "--format", "json"];
        let (code, report) = place.verify(&arguments);
        assert_eq!(code, 0, "{report}");
        let report: Value = serde_json::from_str(&report).expect("a report");
        for row in report["logs"].as_array().expect("both logs") {
            assert_eq!((&row["uncovered"], &row["torn"]), (&json!(0), &json!(0)), "the last checkpoint covers everything: {row}");
        }
        // A stop is no crash: the next start says so.
        let daemon = place.start();
        let starts = place.command(&["audit", "show", log, "--event", "daemon.start", "--format", "json"]);
        let last: Value = serde_json::from_str(starts.lines().last().expect("a start")).expect("a record");
        assert_eq!(last["unclean"], false, "{last}");
        place.check(daemon);
    });
}
