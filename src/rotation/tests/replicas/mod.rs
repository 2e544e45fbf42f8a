//! The whole rotation in virtual time: replicas over one shared log, keystores, clocks, issuers and verifiers, and everything that goes
//! wrong with them.
//!
//! In scope: random schedules (`schedule`), played in a world (`world`, `node`, `keystores`, `issuer`, `verifiers`), judged by properties
//! (`properties`) that read the event log and what verifiers saw; the ways to break the machine (`mutants`, `mistakes`), each of which must be
//! caught; and every interleaving of a small world (`exhaustive`).
//! Out of scope: the daemon's threads, files and sockets.
//!
//! The number of schedules is fixed, so a run is the same everywhere. For more of them, or another seed:
//!
//! ```text
//! CLAVIGER_SIMULATION_SCHEDULES=100000 CLAVIGER_SIMULATION_SEED=7 cargo test --lib replicas::no_schedule -- --nocapture
//! ```
//!
//! A schedule that breaks a property is shrunk to a short story and printed with its seed; that seed with one schedule plays it again.

use proptest::strategy::ValueTree as _;

use super::super::cache::CacheLife;
use super::super::gate::Readings;
use super::super::lease::{self, Lease};
use super::super::verbs;
use super::check::{Outage, check};
use super::*;
use crate::clock::Monotonic;

mod exhaustive;
mod issuer;
mod keystores;
mod machine;
mod mistakes;
mod mutants;
mod node;
mod properties;
mod schedule;
mod verifiers;
mod world;

use keystores::{Answer, Keystores};
use machine::{Honest, Knows, Machine};
use node::{Appended, Node};
use properties::{Caught, Counts, holds, play};
use schedule::{Action, Schedule, Trouble};
use verifiers::{Served, Tale, Token, Views};
use world::World;

const RINGS: [&str; 2] = ["access", "other"];
const STORES: [&str; 2] = ["hsm", "vault"];
const HOUR: Duration = Duration::from_hours(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// e, the same in all settings here.
const SKEW: Duration = Duration::from_secs(30);
const SKEW_MS: u64 = 30_000;
/// How late a node hears of a record at most, while it hears at all; within R.
const POLL: Duration = Duration::from_secs(3);
/// How long a keystore can keep a node waiting; with the poll within R.
const HANG: Duration = Duration::from_secs(5);
/// Two clocks are read one after the other.
const SLACK: Duration = Duration::from_millis(1);
/// Schedules of a run, unless `CLAVIGER_SIMULATION_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 1500;

#[expect(clippy::disallowed_methods, reason = "only tests, and only how much they do")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")))
}

/// What a run looked at, for whoever asks for it with `--nocapture`.
#[expect(clippy::print_stdout, reason = "a test prints its counts")]
fn report(text: &str) {
    println!("{text}");
}

#[test]
fn no_schedule_breaks_a_property() {
    let first = setting("CLAVIGER_SIMULATION_SEED").unwrap_or(0);
    let schedules = setting("CLAVIGER_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let mut counts = Counts::default();
    for seed in first..first.saturating_add(schedules) {
        match play(&Honest, &schedule::schedule(seed)) {
            Ok(more) => counts.add(&more),
            Err(caught) => panic!("seed {seed}: {}", story(seed, caught)),
        }
    }
    report(&format!("{counts:#?}"));
    let seen = [counts.rotations, counts.withdrawals, counts.compromises, counts.tokens, counts.met, counts.stale, counts.crashes];
    assert!(schedules < 100 || counts.rescues > 0, "no loss of a keystore was survived: {counts:?}");
    assert!(schedules < 100 || seen.iter().all(|count| *count > 0), "an empty check: {counts:?}");
}

/// The shortest story that breaks a property too.
fn story(seed: u64, first: Caught) -> String {
    let (mut tree, mut shortest) = (schedule::tree(seed), (schedule::schedule(seed), first));
    let mut smaller = tree.simplify();
    while smaller {
        let candidate = tree.current();
        smaller = match play(&Honest, &candidate) {
            Err(caught) => {
                shortest = (candidate, caught);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    format!("{}: {}\n{:#?}", shortest.1.by, shortest.1.why, shortest.0)
}
