//! Five rotations by the clock, under constant load, with verifiers that cache: no token is ever refused, and the log proves it. Then the
//! log is tampered with, and the verifier says how.
//!
//! In scope: seconds where an operator would write minutes and days; every ratio is that of the defaults. Each token is judged by PyJWT and
//! by jose at once, and again just before it expires, when its key may long have stopped signing. Out of scope: an operator's own rotations
//! (`tokens`) and crashes (`kill`).

#[path = "rotation_under_load/forge.rs"]
mod forge;
mod harness;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use harness::receipts::{lines, segments};
use harness::verifiers::{Library, Verifier};
use harness::{Daemon, Keyring, Place, Setup, on_softhsm, rest, until};
use serde_json::Value;

const KEYRING: &str = "access";
const CLIENTS: usize = 16;
/// How long a client rests between two tokens: about twenty a second each, which both verifiers can follow.
const PACE: Duration = Duration::from_millis(50);
const ROTATIONS: usize = 5;
/// D = A + V = 2 s, lead = D + e = 3 s, overlap = deadline + T + 2e = 7 s.
const SECONDS: &[(&str, &str)] = &[
    ("token_ttl", "3s"),
    ("jwks_max_age", "1s"),
    ("jwks_stale", "0s"),
    ("verifier_poll", "1s"),
    ("propagation", "0s"),
    ("clock_skew", "1s"),
    ("rotate_every", "5s"),
    ("provisioning_budget", "2s"),
    ("max_exposure", "20s"),
    ("destroy_after", "1s"),
];
/// By default PyJWT keeps a set for 300 s and jose for 600 s, and `verifier_poll` is 600 s; here that is 1 s. Their rest of 30 s between
/// looks for an unknown kid is made endless: an unknown kid is never looked for, so that none can be overlooked.
const CACHES: [(Library, &str); 2] = [(Library::PyJwt, "0.5"), (Library::Jose, "1")];
/// How long before its expiry a token is judged for the second time.
const LATE: i64 = 300;
/// What a verifier allows for clocks that differ, as `clock_skew` says.
const LEEWAY: [&str; 2] = ["--leeway-seconds", "1"];

/// A token, and when it expires, in seconds.
#[derive(Clone)]
struct Signed {
    token: Arc<str>,
    exp: i64,
}

/// When a token is judged.
#[derive(Clone, Copy, Debug)]
enum When {
    AtOnce,
    BeforeItExpires,
}

/// What one verifier said of all tokens.
struct Verdicts {
    judged: usize,
    refused: Vec<Value>,
}

/// What the clients share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    signed: AtomicUsize,
    kids: Mutex<BTreeSet<String>>,
}

fn ask(mut client: harness::Client, load: &Load, verifiers: &[Sender<Signed>]) {
    while !load.stop.load(Ordering::SeqCst) {
        let reply = client.sign(KEYRING).expect("an answer").ok();
        let token = Arc::from(reply["token"].as_str().expect("a token"));
        let signed = Signed { token, exp: reply["exp"].as_i64().expect("a date") };
        load.kids.lock().expect("no client panicked").insert(reply["kid"].as_str().expect("a kid").to_owned());
        load.signed.fetch_add(1, Ordering::SeqCst);
        for verifier in verifiers {
            verifier.send(signed.clone()).expect("the verifier still reads");
        }
        rest(PACE);
    }
}

fn judge_all(mut verifier: Verifier, when: When, tokens: &Receiver<Signed>) -> Verdicts {
    let clock = SystemClock::start();
    let mut verdicts = Verdicts { judged: 0, refused: Vec::new() };
    for signed in tokens {
        if let When::BeforeItExpires = when {
            let left = signed.exp * 1000 - LATE - clock.wall().millis();
            rest(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        let answer = verifier.judge(&signed.token);
        verdicts.judged += 1;
        if answer["ok"] != true {
            verdicts.refused.push(answer);
        }
    }
    verdicts
}

/// Loads the daemon until a sixth key signs and its first token has expired; gives the number of tokens and what was said of them.
fn run(daemon: &mut Daemon) -> (usize, Vec<(String, Verdicts)>) {
    let load = Load::default();
    let url = daemon.url("/.well-known/jwks.json");
    thread::scope(|scope| {
        let (mut senders, mut judges) = (Vec::new(), Vec::new());
        for (library, cache) in CACHES {
            for when in [When::AtOnce, When::BeforeItExpires] {
                let caching = ["--cache-seconds", cache, "--no-refetch"];
                let arguments = [&Verifier::for_tokens("ES256")[..], &caching, &LEEWAY].concat();
                let verifier = Verifier::start(library, &url, &arguments);
                let (sender, receiver) = channel();
                senders.push(sender);
                judges.push((format!("{library:?}, {when:?}"), scope.spawn(move || judge_all(verifier, when, &receiver))));
            }
        }
        for _ in 0..CLIENTS {
            let (client, load, senders) = (daemon.demo(), &load, senders.clone());
            scope.spawn(move || ask(client, load, &senders));
        }
        drop(senders);
        until("five rotations", || {
            let count = load.kids.lock().expect("no client panicked").len();
            if count > ROTATIONS { Ok(()) } else { Err(format!("{count} keys have signed")) }
        });
        load.stop.store(true, Ordering::SeqCst);
        let verdicts = judges.into_iter().map(|(name, judge)| (name, judge.join().expect("a verifier's thread"))).collect();
        // Only now have all clients ended: a judge ends when the last of them has dropped its sender.
        (load.signed.load(Ordering::SeqCst), verdicts)
    })
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

#[test]
fn five_rotations_under_load_refuse_no_token() {
    on_softhsm("five_rotations_under_load_refuse_no_token", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt(KEYRING, "ES256").timing(SECONDS)));
        let mut daemon = place.start();
        let (signed, verdicts) = run(&mut daemon);
        for (verifier, verdicts) in &verdicts {
            assert_eq!(verdicts.refused, Vec::<Value>::new(), "{verifier}");
            assert_eq!(verdicts.judged, signed, "{verifier}");
        }
        place.check(daemon);
        let records = lines(&place, "keys");
        let scheduled = |line: &&String| line.contains("\"event\":\"key.rotated\"") && line.contains("\"reason\":\"scheduled\"");
        assert!(records.iter().filter(scheduled).count() >= ROTATIONS, "{records:#?}");
        assert_eq!(segments(&place, "keys").len(), 1, "the forger of this test knows logs of one segment");

        let (code, report) = place.verify(&["--rotation"]);
        assert_eq!(code, 16, "whole, but pinned by nothing: {report}");
        assert_tampering_is_told(&place);
    });
}
