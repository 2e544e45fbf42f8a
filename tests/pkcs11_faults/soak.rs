//! Many signatures by several callers while faults come and go by a seeded schedule.
//!
//! In scope: each answer is a signature that verifies, one that whoever verifies catches because the token was told to sign with another key
//! just then, or an error of a class that fits what was injected. Everything goes on to the end. Out of scope: calls that hang.
//!
//! `CLAVIGER_FAULT_SIGNATURES` says how many right signatures the run takes, `CLAVIGER_FAULT_SEED` repeats a schedule. Threads meet the faults in
//! another order each time, so a seed repeats the schedule, not the run.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger::clock::{Clock as _, SystemClock};
use claviger::keystore::KeystoreError;
use serde_json::{Value, json};

use crate::support::contract::verified;
use crate::support::faults::{Faults, with_faults};
use crate::support::tokens::NUMBERS;
use crate::{Algorithm, Bench, MESSAGE, signature};

/// How many tasks ask for signatures at the same time.
const CALLERS: usize = 8;
/// Right signatures that are waited for, unless the environment says otherwise: well under a minute on two cores.
const SIGNATURES: u64 = 100_000;
/// How many answers come in while one fault is in force, and how many between two.
const WINDOW: RangeInclusive<u64> = 20..=200;
/// If no answer comes for so long, something stands still: recovery takes about a second, and no call hangs here.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What comes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// A signature that verifies: always allowed.
    Right,
    /// A signature that does not: whoever verifies it catches it.
    Wrong,
    Retry,
    Unavailable,
    Rejected,
    /// Gone, unanswered or overloaded: never allowed here.
    Strange,
}

use Answer::{Rejected, Retry, Right, Strange, Unavailable, Wrong};

impl Answer {
    /// `Ok` says whether the signature verified.
    fn of(outcome: &Result<bool, KeystoreError>) -> Self {
        match outcome {
            Ok(true) => Right,
            Ok(false) => Wrong,
            Err(KeystoreError::Retry(_)) => Retry,
            Err(KeystoreError::Unavailable { .. }) => Unavailable,
            Err(KeystoreError::Rejected(_)) => Rejected,
            Err(KeystoreError::Gone(_) | KeystoreError::Unanswered | KeystoreError::Unusable { .. } | KeystoreError::Overloaded) => Strange,
        }
    }
}

/// What else than a right signature may be answered.
type Allowed = &'static [Answer];

const RETRY: Allowed = &[Retry];
const AWAY: Allowed = &[Retry, Unavailable];

/// A kind of fault: its name, what may be told meanwhile, and how it is injected and ended.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    allowed: Allowed,
    begin: fn(&Faults, &mut Chance),
    end: fn(&Faults),
}

const RENUMBERINGS: &str = "renumberings";
const WRONG_KEYS: &str = "wrong keys";

const KINDS: [Kind; 12] = [
    Kind { name: "session errors", allowed: RETRY, begin: |faults, chance| code(faults, chance, &SESSION), end: Faults::reset },
    Kind { name: "login errors", allowed: AWAY, begin: |faults, chance| code(faults, chance, &LOGIN), end: Faults::reset },
    Kind { name: "device errors", allowed: AWAY, begin: |faults, chance| code(faults, chance, &MODULE), end: Faults::reset },
    Kind { name: "shortages", allowed: RETRY, begin: |faults, chance| code(faults, chance, &THROTTLE), end: Faults::reset },
    Kind { name: "failed openings", allowed: AWAY, begin: opening, end: Faults::reset },
    Kind { name: "refusals", allowed: &[Rejected], begin: |faults, chance| code(faults, chance, &NEVER), end: Faults::reset },
    Kind { name: "dropped sessions", allowed: AWAY, begin: |faults, _| act(faults, &["drop-sessions"]), end: Faults::reset },
    Kind { name: "logouts", allowed: AWAY, begin: |faults, _| act(faults, &["logout"]), end: Faults::reset },
    Kind { name: "removals", allowed: AWAY, begin: |faults, _| act(faults, &["remove"]), end: Faults::reset },
    Kind {
        name: RENUMBERINGS,
        allowed: &[Wrong, Retry, Unavailable],
        begin: |faults, _| act(faults, &["renumber"]),
        // Nothing tells the keystore that numbers changed; the next loss does.
        end: |faults| act(faults, &["logout"]),
    },
    Kind { name: WRONG_KEYS, allowed: &[Wrong], begin: wrong_key, end: Faults::reset },
    Kind { name: "delays", allowed: &[], begin: delay, end: Faults::reset },
];

const SESSION: [&str; 3] = ["CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID", "CKR_OPERATION_NOT_INITIALIZED"];
const LOGIN: [&str; 4] = ["CKR_USER_NOT_LOGGED_IN", "CKR_KEY_HANDLE_INVALID", "CKR_GENERAL_ERROR", "CKR_DEVICE_ERROR"];
const MODULE: [&str; 3] = ["CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_CRYPTOKI_NOT_INITIALIZED"];
const THROTTLE: [&str; 3] = ["CKR_DEVICE_MEMORY", "CKR_HOST_MEMORY", "CKR_FUNCTION_FAILED"];
const NEVER: [&str; 3] = ["CKR_MECHANISM_INVALID", "CKR_KEY_FUNCTION_NOT_PERMITTED", "CKR_ARGUMENTS_BAD"];

/// A code with a chance, in one of the functions of a signature, lost or persisted.
fn code(faults: &Faults, chance: &mut Chance, codes: &[&str]) {
    let function = if chance.below(2) == 0 { "C_SignInit" } else { "C_Sign" };
    let (percent, performed) = (1 + chance.below(10), chance.below(2) == 0);
    let code = chance.of(codes);
    let when = json!({ "chance": f64::from(u32::try_from(percent).expect("few")) / 100.0, "seed": chance.next(), "performed": performed });
    faults.fail(function, code, when);
}

/// A code with a chance, in one of the functions by which a token is opened and its keys are found, and a reason to open it.
fn opening(faults: &Faults, chance: &mut Chance) {
    let functions =
        ["C_Initialize", "C_GetSlotList", "C_OpenSession", "C_GetSessionInfo", "C_Login", "C_FindObjectsInit", "C_GetAttributeValue"];
    let codes: [&[&str]; 4] = [&SESSION, &LOGIN, &MODULE, &THROTTLE];
    let class = chance.of(&codes);
    let code = chance.of(class);
    let when = json!({ "chance": 0.3, "seed": chance.next(), "performed": chance.below(2) == 0 });
    faults.fail(chance.of(&functions), code, when);
    faults.fail("C_SignInit", "CKR_DEVICE_REMOVED", json!({ "times": 1 }));
}

fn wrong_key(faults: &Faults, chance: &mut Chance) {
    let times = 1 + chance.below(5);
    faults.rule(json!({ "do": "wrong-key", "when": { "times": times, "skip": chance.below(10) } }));
}

fn delay(faults: &Faults, chance: &mut Chance) {
    let times = 1 + chance.below(5);
    faults.rule(
        json!({ "do": "delay", "function": "C_Sign", "ms": 1 + chance.below(20), "when": { "times": times, "performed": chance.below(2) == 0 } }),
    );
}

fn act(faults: &Faults, commands: &[&str]) {
    for command in commands {
        // There may be no session just now to log out with or look with; then the token is away for the keystore all the same.
        let answer = faults.say(&json!({ "do": command }).to_string());
        assert!(answer["ok"] == true || answer["error"].as_str().is_some_and(|error| error.contains("no session")), "{command}: {answer}");
    }
}

/// Random numbers from a seed, by `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let bound = u64::try_from(choices.len()).expect("few");
        choices[usize::try_from(self.below(bound)).expect("few")]
    }

    fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }
}

/// What the callers and the schedule share.
struct Run {
    wanted: u64,
    right: AtomicU64,
    answered: AtomicU64,
    /// What is allowed in each window; a call belongs to all windows from its beginning to its end.
    windows: Mutex<Vec<(&'static str, Allowed)>>,
    window: AtomicUsize,
    /// Wrong signatures by callers who met a command to sign with another key, and no renumbering.
    by_command: AtomicU64,
    counts: Mutex<BTreeMap<Answer, u64>>,
    stopped: AtomicBool,
}

impl Run {
    fn enter(&self, name: &'static str, allowed: Allowed) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.push((name, allowed));
        self.window.store(windows.len() - 1, Ordering::SeqCst);
    }

    /// Whether more signatures are wanted.
    fn is_on(&self) -> bool {
        self.right.load(Ordering::SeqCst) < self.wanted && !self.stopped.load(Ordering::SeqCst)
    }

    /// Judges one answer to a call that lasted from one window to another.
    fn judge(&self, (first, last): (usize, usize), outcome: &Result<bool, KeystoreError>) {
        let met = self.windows.lock().unwrap_or_else(PoisonError::into_inner)[first..=last].to_vec();
        let answer = Answer::of(outcome);
        let fits = answer == Right || met.iter().any(|(_, allowed)| allowed.contains(&answer));
        assert!(fits, "{outcome:?} while there were {met:?}");
        let by_command = answer == Wrong && met.iter().all(|(name, _)| *name != RENUMBERINGS);
        self.by_command.fetch_add(u64::from(by_command), Ordering::SeqCst);
        self.right.fetch_add(u64::from(answer == Right), Ordering::SeqCst);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(answer).or_default() += 1;
    }
}

async fn call(run: Arc<Run>, bench: Parts, caller: usize) {
    let key = &bench.keys[caller % 2];
    while run.is_on() {
        let first = run.window.load(Ordering::SeqCst);
        let outcome = signature(&*bench.keystore, &*bench.clock, key).await;
        let last = run.window.load(Ordering::SeqCst);
        let judged = outcome.map(|signature| verified(&key.public, Algorithm::ES256, MESSAGE, &signature.bytes));
        run.judge((first, last), &judged);
        run.answered.fetch_add(1, Ordering::SeqCst);
        // A caller who is told to come back later lets others go first.
        tokio::task::yield_now().await;
    }
}

/// What a caller needs of the bench.
#[derive(Clone)]
struct Parts {
    keystore: Arc<claviger::keystore::pkcs11::Pkcs11Keystore>,
    clock: Arc<crate::Forward>,
    keys: [claviger::keystore::Made; 2],
}

/// Waits until so many more answers have come in, or no more are wanted.
fn let_pass(run: &Run, answers: u64) {
    let (clock, goal) = (SystemClock::start(), run.answered.load(Ordering::SeqCst) + answers);
    while run.answered.load(Ordering::SeqCst) < goal && run.is_on() {
        assert!(clock.monotonic().since(claviger::clock::Monotonic::at(Duration::ZERO)) < STANDSTILL, "no answer comes any more");
        std::thread::yield_now();
    }
}

/// Injects one fault after the other until all signatures are in. Gives how often each came, and how often the module was told to sign with
/// another key and did.
fn disturb(run: &Run, bench: &Bench<'_>, chance: &mut Chance) -> (BTreeMap<&'static str, u64>, u64) {
    let (mut injected, mut wrong) = (BTreeMap::new(), 0);
    while run.is_on() {
        let kind = chance.of(&KINDS);
        *injected.entry(kind.name).or_default() += 1;
        run.enter(kind.name, kind.allowed);
        (kind.begin)(bench.faults, chance);
        let_pass(run, chance.within(&WINDOW));
        if kind.name == WRONG_KEYS {
            wrong += bench.faults.status()["rules"][0]["fired"].as_u64().expect("a count");
        }
        (kind.end)(bench.faults);
        bench.heals();
        run.enter("calm", &[]);
        let_pass(run, chance.within(&WINDOW));
    }
    (injected, wrong)
}

#[expect(clippy::disallowed_methods, reason = "a developer's wish, not the daemon's configuration")]
fn wish(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

#[test]
fn every_answer_is_right_whatever_goes_wrong() {
    with_faults("soak::every_answer_is_right_whatever_goes_wrong", |hsm, faults| {
        let seed = wish("CLAVIGER_FAULT_SEED").unwrap_or_else(|| SystemClock::start().wall().millis().unsigned_abs());
        report(&json!({ "seed": seed }));
        let wanted = wish("CLAVIGER_FAULT_SIGNATURES").unwrap_or(SIGNATURES);
        let bench = Bench::new(hsm, faults);
        let run = Arc::new(Run {
            wanted,
            right: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            windows: Mutex::new(vec![("calm", [].as_slice())]),
            window: AtomicUsize::new(0),
            by_command: AtomicU64::new(0),
            counts: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let parts = Parts { keystore: Arc::clone(&bench.keystore), clock: bench.clock.clone(), keys: bench.keys.clone() };
        let callers = (0..CALLERS).map(|caller| {
            let task = bench.runtime.spawn(call(Arc::clone(&run), parts.clone(), caller));
            let run = Arc::clone(&run);
            bench.runtime.spawn(async move {
                let outcome = task.await;
                // One caller that fails ends the run, so that its reason is seen.
                run.stopped.fetch_or(outcome.is_err(), Ordering::SeqCst);
                outcome.expect("every answer fits");
            })
        });
        let callers = callers.collect::<Vec<_>>();
        let (injected, wrong) = disturb(&run, &bench, &mut Chance(seed));
        for caller in callers {
            bench.runtime.block_on(caller).expect("every answer fits");
        }
        bench.heals();
        let status = faults.status();
        assert_eq!(status["finalized_while_busy"], 0, "{status}");
        let counts = run.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter().map(|(answer, count)| (format!("{answer:?}"), *count)).collect::<BTreeMap<_, _>>();
        report(&json!({ "seed": seed, "faults": injected, "answers": counts, "openings": bench.keystore.state().openings }));
        assert!(run.right.load(Ordering::SeqCst) >= wanted, "{counts:?}");
        let by_command = run.by_command.load(Ordering::SeqCst);
        assert!(by_command <= wrong, "{by_command} wrong signatures, but only {wrong} on command");
        assert_eq!(status["logins"]["distinct"].as_array().map(Vec::len), Some(1), "one PIN: {status}");
    });
}

#[expect(clippy::print_stdout, reason = "the numbers of a random run are what it is for")]
fn report(numbers: &Value) {
    println!("{NUMBERS}{numbers}");
}
