//! The real daemon on a token that fails as devices do: behind the fault-injecting module, sessions are lost, the token goes and comes, calls
//! hang for ever.
//!
//! In scope: what callers, operators, verifiers and auditors see of it: answers, records, metrics, exit codes. Out of scope: each return code
//! of each function, which the adapter alone is tried with (`pkcs11_faults.rs`), and signatures by another key (`served_faults.rs`).

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::faults::{Faults, with_faults};
use harness::{Client, Daemon, Keyring, Place, Setup, until};
use serde_json::{Value, json};

/// The exit code that asks for another start (`EX_TEMPFAIL`).
const START_AGAIN: i32 = 75;

fn setup() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// Records of the key log with this event, oldest first.
fn records(place: &Place<'_>, event: &str) -> Vec<Value> {
    let lines = harness::receipts::lines(place, "keys");
    let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a record is JSON"));
    records.filter(|record| record["event"] == event).collect()
}

/// Waits for the first record with this event beyond the first `known`.
fn record(place: &Place<'_>, event: &str, known: usize) -> Value {
    until(event, || records(place, event).get(known).cloned().ok_or_else(|| format!("{known} records of {event}")))
}

/// The value of the series that begins so, on a connection of its own.
fn metric(daemon: &mut Daemon, begin: &str) -> u64 {
    let text = daemon.anonymous().get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in\n{text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// What needs no keystore answers, whatever the keystore does: sets, health, operators' verbs.
fn the_rest_answers(place: &Place<'_>, daemon: &mut Daemon) {
    let mut client = daemon.anonymous();
    assert!(
        client.get("/keyrings/access/jwks.json").ok()["keys"].as_array().is_some_and(|keys| !keys.is_empty()),
        "the active key is served"
    );
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    assert_eq!(place.admin_socket().get("/admin/keyrings/access").status, 200);
}

fn signs(client: &mut Client) -> Result<(), String> {
    let answer = client.sign("access")?;
    if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
}

/// Keeps asking, two at once, until the module holds so many calls of this rule. One of them may be of a checkpoint, which is signed too; and
/// the daemon may end under the last ones.
fn hang_calls(daemon: &mut Daemon, faults: &Faults, count: u64) -> u64 {
    let times = json!({ "times": count });
    let rule = faults.rule(json!({ "do": "hang", "function": "C_Sign", "when": times }));
    let (clients, enough) = ([daemon.demo(), daemon.demo()], Arc::new(AtomicBool::new(false)));
    let asking = clients.map(|mut client| {
        let enough = Arc::clone(&enough);
        std::thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                match client.sign("access") {
                    Ok(answer) => assert!([200, 503].contains(&answer.status), "{}", answer.text()),
                    Err(_) => break,
                }
            }
        })
    });
    until("calls that hang", || match faults.fired(rule) {
        fired if fired >= count => Ok(()),
        fired => Err(fired.to_string()),
    });
    enough.store(true, Ordering::Relaxed);
    for thread in asking {
        thread.join().expect("a client");
    }
    rule
}

#[test]
fn what_is_lost_is_opened_again_unseen_and_told() {
    with_faults("what_is_lost_is_opened_again_unseen_and_told", |hsm, faults| {
        let place = Place::new(hsm, setup());
        let mut daemon = place.start();
        let mut client = daemon.demo();
        signs(&mut client).expect("a whole keystore");

        // The session that signs is lost alone: nobody who asks sees it.
        for round in 0..3 {
            faults.fail("C_SignInit", "CKR_SESSION_HANDLE_INVALID", json!({ "times": 1 }));
            signs(&mut client).unwrap_or_else(|answer| panic!("round {round}: {answer}"));
        }
        let told = record(&place, "keystore.reopened", 0);
        assert!(
            told["sessions"].as_u64() >= Some(1) && told["reason"].as_str().is_some_and(|why| why.contains("SessionHandleInvalid")),
            "{told}"
        );

        // Somebody logs out behind our back, or all sessions go: a new login, once, and the same request is signed.
        let known = records(&place, "keystore.reopened").len();
        faults.tell(json!({ "do": "logout" }));
        signs(&mut client).expect("after a logout");
        faults.tell(json!({ "do": "drop-sessions" }));
        signs(&mut client).expect("after all sessions were lost");
        let told = record(&place, "keystore.reopened", known);
        assert!(told["logins"].as_u64() >= Some(1), "{told}");

        // The token is pulled, and comes back: refused meanwhile with the reason, signed again after.
        let known = records(&place, "keystore.reopened").len();
        faults.tell(json!({ "do": "remove" }));
        until("a refusal", || match client.sign("access")?.status {
            503 => Ok(()),
            status => Err(status.to_string()),
        });
        let lost = record(&place, "keystore.lost", 0);
        assert_eq!(lost["keystore"], "hsm", "{lost}");
        the_rest_answers(&place, &mut daemon);
        faults.tell(json!({ "do": "return" }));
        until("signed again", || signs(&mut daemon.demo()));
        record(&place, "keystore.recovered", 0);
        let told = record(&place, "keystore.reopened", known);
        assert!(told["modules"].as_u64() >= Some(1), "a removed device needs the module initialised again: {told}");

        for what in ["session", "login", "module"] {
            let series = format!("claviger_keystore_reopened_total{{keystore=\"hsm\",what=\"{what}\"}}");
            assert!(metric(&mut daemon, &series) >= 1, "{series}");
        }
        place.check(daemon);
    });
}

#[test]
fn calls_that_hang_are_given_up_and_their_threads_replaced() {
    with_faults("calls_that_hang_are_given_up_and_their_threads_replaced", |hsm, faults| {
        let place = Place::new(hsm, setup());
        impatient(&place);
        let mut daemon = place.start();
        // Both signing threads hang; their callers are told at their deadline.
        let rule = hang_calls(&mut daemon, faults, 2);
        the_rest_answers(&place, &mut daemon);
        until("other threads sign", || signs(&mut daemon.demo()));
        assert_eq!(metric(&mut daemon, "claviger_keystore_hung_calls{keystore=\"hsm\"}"), 2);
        // The calls return at last: nobody waits for their answers any more, and nothing is left of them.
        faults.tell(json!({ "do": "release", "rule": rule }));
        until("no call hangs", || match metric(&mut daemon, "claviger_keystore_hung_calls{keystore=\"hsm\"}") {
            0 => Ok(()),
            hung => Err(hung.to_string()),
        });
        assert!(metric(&mut daemon, "claviger_keystore_late_answers_total{keystore=\"hsm\"}") >= 1, "a caller had left long before");
        assert_eq!(metric(&mut daemon, "claviger_keystore_wedged{keystore=\"hsm\"}"), 0);
        signs(&mut daemon.demo()).expect("still signing");
        assert!(records(&place, "keystore.wedged").is_empty());
        place.check(daemon);
    });
}

#[test]
fn a_module_that_hangs_for_good_costs_one_restart_and_no_more() {
    with_faults("a_module_that_hangs_for_good_costs_one_restart_and_no_more", |hsm, faults| {
        let place = Place::new(hsm, setup());
        impatient(&place);
        let mut daemon = place.start();
        // Two threads hang, then one of the two in their place: no more threads are spent on it.
        hang_calls(&mut daemon, faults, 3);
        let (status, said) = daemon.wait();
        assert_eq!(status.code(), Some(START_AGAIN), "{said}");
        let told = record(&place, "keystore.wedged", 0);
        assert!(told["keystore"] == "hsm" && told["hung"].as_u64() >= Some(3), "{told}");
        assert_eq!(records(&place, "daemon.stop").last().map(|stop| stop["reason"].clone()), Some(json!("keystore")));

        // A new process signs. When the same happens to it at once, it does not leave: key sets are served, and callers are told at once.
        let mut daemon = place.start();
        let faults = faults.again();
        signs(&mut daemon.demo()).expect("a new process can use the module");
        hang_calls(&mut daemon, &faults, 3);
        record(&place, "keystore.wedged", 1);
        until("wedged", || match metric(&mut daemon, "claviger_keystore_wedged{keystore=\"hsm\"}") {
            1 => Ok(()),
            other => Err(other.to_string()),
        });
        let refused = daemon.demo().sign("access").expect("an answer");
        assert_eq!(refused.problem(503), "keystore_unavailable");
        assert!(!refused.header("retry-after").is_empty(), "{}", refused.text());
        the_rest_answers(&place, &mut daemon);
        place.check(daemon);
    });
}

/// Calls count as hung after a second.
fn impatient(place: &Place<'_>) {
    place.edit_config(|text| text.replace("workers = 2\n", "workers = 2\nhang_after = \"1s\"\n"));
}
