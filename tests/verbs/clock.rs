//! `claviger clock confirm`, with the daemon in this process, whose clocks the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use claviger::daemon::{self, Ended};
use claviger_audit::Timestamp;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use crate::harness::{Keyring, Place, Setup, on_softhsm, until};
use crate::{FOUND, LATER, USAGE, fails, json, kid, records};

/// The machine's clocks, moved.
struct Moved {
    clock: SystemClock,
    /// Milliseconds that have passed beside those of the machine.
    passed: AtomicU64,
    /// Milliseconds by which the wall clock alone was stepped.
    stepped: AtomicU64,
}

impl Moved {
    fn start() -> Arc<Self> {
        Arc::new(Self { clock: SystemClock::start(), passed: AtomicU64::default(), stepped: AtomicU64::default() })
    }

    /// Time passes, by both clocks.
    fn pass(&self, minutes: u64) {
        self.passed.fetch_add(minutes * 60_000, Ordering::SeqCst);
    }

    /// The wall clock stands this much ahead of what it was started with.
    fn step_to(&self, minutes: u64) {
        self.stepped.store(minutes * 60_000, Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn wall(&self) -> Timestamp {
        let ahead = self.passed.load(Ordering::SeqCst) + self.stepped.load(Ordering::SeqCst);
        self.clock.wall() + Duration::from_millis(ahead)
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic().plus(Duration::from_millis(self.passed.load(Ordering::SeqCst)))
    }
}

/// The daemon as `claviger serve` runs it, but for its clock. This process is the test's own.
fn serve(place: &Place<'_>, clock: &Arc<Moved>) -> JoinHandle<Ended> {
    let (config, clock): (_, Arc<dyn Clock>) = (place.config(), clock.clone());
    let daemon = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(daemon::serve(&config, clock)).expect("it starts")
    });
    until("the admin socket", || if place.root().join("admin.sock").exists() { Ok(()) } else { Err("not bound yet".to_owned()) });
    daemon
}

fn stop(daemon: JoinHandle<Ended>) {
    kill_process(getpid(), Signal::TERM).expect("a signal to this process");
    assert_eq!(daemon.join().expect("it did not panic"), Ended::Stopped);
}

/// Wakes the rotator, by a record of something else, until there is a record of this event.
fn noticed(place: &Place<'_>, event: &str, count: usize) -> Vec<Value> {
    until(event, || {
        json(place, &["policy", "reload"]);
        let found = records(place, event);
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

/// What the admin API answers to a verb that it refuses.
fn refused(place: &Place<'_>, path: &str, body: &Value) -> Value {
    let answer = place.admin_socket().post(path, body);
    assert_eq!(answer.problem(409), "not_now");
    answer.json()
}

#[test]
fn a_stepped_clock_pauses_transitions_until_it_is_gone_or_confirmed() {
    on_softhsm("clock::a_stepped_clock_pauses_transitions_until_it_is_gone_or_confirmed", |hsm| {
        // D + e is a little more than ten minutes.
        let slow = Keyring::jwt("access", "ES256").set("verifier_poll", "10m").set("max_exposure", "1h").set("rotate_every", "25m");
        let place = Place::new(hsm, Setup::new().keyring(slow));
        let clock = Moved::start();
        let daemon = serve(&place, &clock);
        let (active, standby) = (kid(&place, "access", "active"), kid(&place, "access", "published"));
        until("a date for the standby", || {
            let key = json(&place, &["key", "show", &standby]);
            key["eligible_at"].as_str().map(drop).ok_or_else(|| key.to_string())
        });
        clock.pass(11);
        let confirm = ["clock", "confirm", "--reason", "the time server was right"];
        let said = fails(&place, LATER, &confirm);
        assert!(said.contains("I12") && said.contains("no step of the clock is on record"), "{said}");
        assert_eq!(refused(&place, "/admin/clock/confirm", &json!({ "reason": "x" }))["invariant"], "I12");

        // A step that is taken back ends by itself.
        clock.step_to(10);
        let stepped = noticed(&place, "clock.stepped", 1);
        assert!(stepped[0]["difference_ms"].as_i64().is_some_and(|ms| (599_000..=601_000).contains(&ms)), "{stepped:?}");
        clock.step_to(0);
        noticed(&place, "clock.settled", 1);
        fails(&place, LATER, &confirm);

        // The rotation of minute 25 is ahead still, the standby is old enough, and no verb trusts a date.
        clock.step_to(10);
        assert_eq!(refused(&place, "/admin/keyrings/access/rotate", &json!({}))["invariant"], "I12", "at once");
        noticed(&place, "clock.stepped", 2);
        let said = fails(&place, FOUND, &["doctor"]);
        assert!(said.contains("claviger clock confirm"), "{said}");
        for drawn in [["keyring", "plan", "access"], ["key", "explain", &active]] {
            assert!(place.command(&drawn).contains("The wall clock was stepped"), "{drawn:?}");
        }
        let problem = refused(&place, "/admin/keyrings/access/rotate", &json!({}));
        assert_eq!((&problem["invariant"], &problem["until"]), (&json!("I12"), &Value::Null), "{problem}");
        fails(&place, USAGE, &["clock", "confirm"]);
        assert_eq!(place.admin_socket().post("/admin/clock/confirm", &json!({ "reason": " " })).problem(400), "malformed");
        assert!(records(&place, "clock.confirmed").is_empty());

        let done = json(&place, &confirm);
        let event = &done["events"][0];
        assert_eq!((&event["event"], &event["reason"]), (&json!("clock.confirmed"), &json!("the time server was right")), "{done}");
        assert!(event["difference_ms"].as_i64().is_some_and(|ms| (599_000..=601_000).contains(&ms)), "{done}");
        assert!(records(&place, "clock.confirmed")[0]["caller"].as_str().is_some_and(|caller| caller.starts_with("unix:uid=")));
        fails(&place, LATER, &confirm);
        assert_eq!(place.admin_socket().get("/admin/status").ok()["clock"]["paused"], false);

        // Verifiers do not hurry because our clock did: no date counts before D + e have passed.
        let problem = refused(&place, "/admin/keyrings/access/rotate", &json!({}));
        let date: Timestamp = problem["until"].as_str().expect("a date").parse().expect("a time");
        assert_eq!(problem["invariant"], "I12");
        clock.pass(5);
        json(&place, &["policy", "reload"]);
        clock.pass(6);
        let rotated = noticed(&place, "key.rotated", 2);
        let at: Timestamp = rotated[1]["time"].as_str().expect("a time").parse().expect("a time");
        assert!(at >= date && rotated[1]["reason"] == "scheduled", "{date}: {rotated:?}");
        assert_eq!(kid(&place, "access", "active"), standby);

        // By a clock that is hours ahead the grace of the old key is over; it is not destroyed by that.
        clock.pass(1);
        noticed(&place, "key.withdrawn", 1);
        clock.step_to(10 + 120);
        noticed(&place, "clock.stepped", 3);
        let problem = refused(&place, &format!("/admin/keys/{active}/destroy"), &json!({}));
        assert_eq!((&problem["invariant"], &problem["until"]), (&json!("I12"), &Value::Null), "{problem}");
        clock.step_to(10);
        noticed(&place, "clock.settled", 2);
        stop(daemon);
        place.check_stopped();
    });
}
