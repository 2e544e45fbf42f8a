//! Five rotations by the clock, under constant load, with verifiers that cache: no token is ever refused, and the log proves it. Then the
//! log is tampered with, and the verifier says how.
//!
//! In scope: seconds where an operator would write minutes and days; every ratio is that of the defaults. Each token is judged by PyJWT and
//! by jose at once, and again just before it expires, when its key may long have stopped signing. Out of scope: an operator's own rotations
//! (`tokens`) and crashes (`kill`).

#[path = "support/court.rs"]
mod court;
#[path = "rotation_under_load/forge.rs"]
mod forge;
mod harness;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use court::{Court, Desks, Exposures, Habits, Signed, tally};
use harness::receipts::{lines, segments};
use harness::setup::HSM;
use harness::verifiers::Library;
use harness::{Daemon, Keyring, Place, RaisedAtEnd, Setup, SoftHsm, on_softhsm, rest, until};

const KEYRING: &str = "access";
const CLIENTS: usize = 16;
/// How long a client rests between two tokens: about twenty a second each, which both verifiers can follow.
const PACE: Duration = Duration::from_millis(50);
const ROTATIONS: usize = 5;
/// D = A + V + R = 4 s, lead = D + e = 5 s, overlap = deadline + T + 2e = 9 s. R is what a busy machine may need to hand a set on.
const SECONDS: &[(&str, &str)] = &[
    ("token_ttl", "5s"),
    ("jwks_max_age", "1s"),
    ("jwks_stale", "0s"),
    ("verifier_poll", "1s"),
    ("propagation", "2s"),
    ("clock_skew", "1s"),
    ("rotate_every", "7s"),
    ("provisioning_budget", "2s"),
    ("max_exposure", "20s"),
    ("destroy_after", "1s"),
];
/// `verifier_poll` is 1 s.
const HABITS: Habits = Habits { caches: [(Library::PyJwt, "0.5"), (Library::Jose, "1")], late: 300 };
/// No key is compromised here.
const NO_EXPOSURE: Duration = Duration::ZERO;

/// What the clients share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    signed: AtomicUsize,
    kids: Mutex<BTreeSet<String>>,
}

fn ask(mut client: harness::Client, load: &Load, desks: &Desks) {
    while !load.stop.load(Ordering::SeqCst) {
        let reply = client.sign(KEYRING).expect("an answer").ok();
        let [token, kid] = ["token", "kid"].map(|member| reply[member].as_str().expect("a text"));
        desks.hand_in(&Signed { token: token.into(), kid: kid.into(), exp: reply["exp"].as_i64().expect("a date") });
        load.kids.lock().expect("no client panicked").insert(kid.to_owned());
        load.signed.fetch_add(1, Ordering::SeqCst);
        rest(PACE);
    }
}

/// Loads the daemon until a sixth key signs; no token that was signed meanwhile is refused.
fn run(daemon: &mut Daemon) {
    let load = Load::default();
    let court = Court::open(&daemon.url("/.well-known/jwks.json"), &HABITS);
    thread::scope(|scope| {
        let _stop = RaisedAtEnd(&load.stop);
        for _ in 0..CLIENTS {
            let (client, load, desks) = (daemon.demo(), &load, court.desks());
            scope.spawn(move || ask(client, load, &desks));
        }
        until("five rotations", || {
            let count = load.kids.lock().expect("no client panicked").len();
            if count > ROTATIONS { Ok(()) } else { Err(format!("{count} keys have signed")) }
        });
    });
    let signed = load.signed.load(Ordering::SeqCst);
    for (library, when, verdicts) in court.close() {
        tally(&verdicts, &Exposures::default(), NO_EXPOSURE).assert_right(&format!("{library:?}, {when:?}"));
        assert_eq!(verdicts.len(), signed, "{library:?}, {when:?}");
    }
}

/// The verifier's exit code on a log, with the trust file and these arguments.
fn verdict(place: &Place<'_>, log: &std::path::Path, more: &[&str]) -> (i32, String) {
    let trust = place.trust();
    place.verify_at(log, &[&["--trust", trust.to_str().expect("a plain path")], more].concat())
}

fn assert_tampering_is_told(place: &Place<'_>) {
    let heads = place.heads();
    let pinned = ["--head", heads.to_str().expect("a plain path")];

    let edited = forge::copy(place, "edited");
    forge::edit(&edited, "uses", |lines| {
        let middle = lines.len() / 2;
        let change = |(number, line): (usize, &str)| {
            if number == middle { line.replace("\"node\":\"a\"", "\"node\":\"b\"") } else { line.to_owned() }
        };
        lines.into_iter().enumerate().map(change).collect()
    });
    let (code, report) = verdict(place, &edited, &pinned);
    assert_eq!(code, 10, "{report}");

    let cut = forge::copy(place, "cut");
    forge::edit(&cut, "keys", |lines| lines[..lines.len() - 3].iter().map(|line| (*line).to_owned()).collect());
    let (code, report) = verdict(place, &cut, &pinned);
    assert_eq!(code, 11, "{report}");

    let forged = forge::early_activation(place, "forged");
    let (code, report) = verdict(place, &forged, &["--min-size", "1", "--keys-only"]);
    assert_eq!(code, 15, "{report}");
    assert!(report.contains("I1"), "{report}");
}

/// All of it, for one kind of keystore: `setup` says where the keys of the keyring named `keystore`, and those of the logs, live.
fn five_rotations_refuse_no_token(hsm: &SoftHsm, setup: Setup, keystore: &str) {
    let place = Place::new(hsm, setup.keyring(Keyring::jwt(KEYRING, "ES256").keystore(keystore).timing(SECONDS)));
    let mut daemon = place.start();
    run(&mut daemon);
    place.check(daemon);
    let records = lines(&place, "keys");
    let scheduled = |line: &&String| line.contains("\"event\":\"key.rotated\"") && line.contains("\"reason\":\"scheduled\"");
    assert!(records.iter().filter(scheduled).count() >= ROTATIONS, "{records:#?}");
    assert_eq!(segments(&place, "keys").len(), 1, "the forger of this test knows logs of one segment");

    let (code, report) = place.verify(&["--rotation"]);
    assert_eq!(code, 16, "whole, but pinned by nothing: {report}");
    assert_tampering_is_told(&place);
}

#[test]
fn five_rotations_under_load_on_softhsm() {
    on_softhsm("five_rotations_under_load_on_softhsm", |hsm| five_rotations_refuse_no_token(hsm, Setup::new(), HSM));
}
