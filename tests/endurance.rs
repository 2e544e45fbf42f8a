//! A hundred rotations through kills, lost tokens and compromises, while verifiers follow: no token is refused but those of compromised
//! keys, those at the latest D + e after their compromise, and the log proves all of it.
//!
//! In scope: the real daemon with seconds where an operator would write minutes and days, behind a shared cache; disasters at random moments
//! by a seed. Each token is judged by PyJWT and by jose at once, and again just before it expires. Out of scope: rotations in good weather
//! (`rotation_under_load`), receipts under load (`kill`), and the machine's own failures.

#[path = "endurance/chance.rs"]
mod chance;
#[path = "support/court.rs"]
mod court;
#[path = "endurance/edge.rs"]
mod edge;
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chance::{Chance, Disaster};
use claviger::clock::{Clock as _, SystemClock};
use court::{Court, Desks, Exposures, Habits, Signed, When, tally};
use edge::{Edge, SET};
use harness::receipts::{Receipt, assert_provable, assert_verifies, lines};
use harness::verifiers::Library;
use harness::{Client, Daemon, Keyring, Place, RaisedAtEnd, Setup, on_softhsm, rest, until};
use serde_json::{Value, json};

/// How many rotations there are, scheduled and on demand; `CLAVIGER_ENDURANCE_ROTATIONS` in the environment says otherwise.
const ROTATIONS: usize = 100;
const KEYRINGS: [&str; 12] =
    ["amber", "basalt", "coral", "diorite", "emerald", "flint", "garnet", "heliodor", "iolite", "jasper", "kyanite", "larimar"];
/// D = A + S + V + R = 6 s, lead = D + e = 7 s, overlap = deadline + T + 2e = 16 s. S is how long the daemon may be away: the cache before it
/// goes on with what it has. R is what a busy machine may need to hand a set on.
const SECONDS: &[(&str, &str)] = &[
    ("token_ttl", "12s"),
    ("jwks_max_age", "1s"),
    ("jwks_stale", "2s"),
    ("verifier_poll", "1s"),
    ("propagation", "2s"),
    ("clock_skew", "1s"),
    ("rotate_every", "8s"),
    ("provisioning_budget", "1s"),
    ("max_exposure", "7s"),
    ("destroy_after", "1s"),
];
/// D + e. It is shorter than a token's life, so that some tokens of each compromised key outlive the trust in it.
const EXPOSURE: Duration = Duration::from_secs(7);
/// `verifier_poll` is 1 s.
const HABITS: Habits = Habits { caches: [(Library::PyJwt, "1"), (Library::Jose, "1")], late: 1000 };
/// How long the daemon stays away at most when nobody starts it at once: within S, the start included.
const ABSENCE: Duration = Duration::from_millis(1500);
/// How long after an order a kill falls at most: some orders are not read by then, and some are obeyed.
const ORDER: Duration = Duration::from_millis(20);
/// How long a client rests between two tokens, and the operator at most between two steps.
const PACE: Duration = Duration::from_millis(200);
/// The operator's most steps between two disasters.
const CALM: usize = 40;
/// Why a client may get no token: no daemon, no token in sight, no key that may sign after a compromise, or a busy machine.
const EXPECTED: [&str; 4] = ["gone", "keystore_unavailable", "no_signer", "overloaded"];
/// What a keystore says of a key whose making was killed: SoftHSM writes each half in a file of its own, and only then that it was made there.
/// Nobody can tell such a key from one that was imported, so an operator has to give it up.
const CUT_SHORT: [&str; 2] = ["cannot be admitted", "the token shows no public half of it"];

/// What the clients share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    receipts: Mutex<Vec<Receipt>>,
    /// Signatures that were not given, by the reason; `gone` where no daemon answered.
    ungiven: Mutex<BTreeMap<String, usize>>,
}

/// Asks for tokens until the stop. That nobody signs for a while is expected; that anybody refuses is not.
fn ask(mut client: Client, keyring: &str, load: &Load, desks: &Desks) {
    while !load.stop.load(Ordering::SeqCst) {
        let ungiven = match client.sign(keyring) {
            Err(_) => Some("gone".to_owned()),
            Ok(answer) if answer.status == 503 => Some(answer.problem(503)),
            Ok(answer) => {
                let reply = answer.ok();
                let [token, kid] = ["token", "kid"].map(|member| reply[member].as_str().expect("a text").into());
                desks.hand_in(&Signed { token, kid, exp: reply["exp"].as_i64().expect("a date") });
                load.receipts.lock().expect("no client panicked").push(Receipt::of(&reply));
                None
            }
        };
        if let Some(reason) = ungiven {
            assert!(EXPECTED.contains(&reason.as_str()), "nobody signs for {keyring}: {reason}");
            *load.ungiven.lock().expect("no client panicked").entry(reason).or_default() += 1;
        }
        rest(PACE);
    }
}

/// The one who rotates, and to whom everything happens.
struct Operator<'a, 'h> {
    place: &'a Place<'h>,
    edge: &'a Edge,
    exposures: &'a Exposures,
    chance: Chance,
    daemon: Option<Daemon>,
    met: BTreeMap<Disaster, usize>,
    abandoned: BTreeSet<String>,
}

impl Operator<'_, '_> {
    /// Rotations and disasters until there were `wanted` rotations, and every keyring signs again.
    fn work(&mut self, wanted: usize) {
        self.recover();
        while rotations(self.place) < wanted {
            self.calm();
            let disaster = self.chance.disaster();
            self.meet(disaster);
            *self.met.entry(disaster).or_default() += 1;
            self.recover();
        }
        until("everybody signs", || {
            self.abandon_refused();
            let ready = self.daemon.as_mut().expect("one runs").anonymous().try_get("/readyz/sign")?;
            if ready.status == 200 { Ok(()) } else { Err(ready.text()) }
        });
    }

    /// Gives up each key that its keystore refused, as an operator would who reads so.
    fn abandon_refused(&mut self) {
        for (key, _) in rejected(self.place) {
            if self.abandoned.insert(key.clone()) {
                let order = json!({ "reason": "its making was cut short" });
                let given_up = self.place.admin_socket().post(&format!("/admin/keys/{key}/abandon"), &order);
                assert!([200, 409].contains(&given_up.status), "{}", given_up.text());
            }
        }
    }

    /// Rotates whatever may be rotated, for a random while.
    fn calm(&mut self) {
        for _ in 0..self.chance.below(CALM) {
            let path = self.rotate_path();
            let rotated = self.place.admin_socket().post(&path, &json!({}));
            assert!([200, 409].contains(&rotated.status), "{}", rotated.text());
            rest(self.chance.shorter_than(PACE));
        }
    }

    fn meet(&mut self, disaster: Disaster) {
        match disaster {
            Disaster::Kill => {
                let rotate = self.rotate_path();
                self.kill_during(&rotate, &json!({}));
                rest(self.chance.shorter_than(ABSENCE));
                self.start();
            }
            Disaster::KillInStart => {
                let rotate = self.rotate_path();
                self.kill_during(&rotate, &json!({}));
                // SoftHSM rewrites its token file in place at every login, and a kill in that instant destroys the token, whoever asked
                // for the login. So the token is away while the start is killed.
                self.place.hsm.hide_tokens(true);
                let mut daemon = self.place.spawn();
                daemon.addresses(3);
                daemon.kill();
                self.place.hsm.hide_tokens(false);
                self.start();
            }
            Disaster::TokenRemoved => self.without_token(Self::calm),
            Disaster::KillWithoutToken => self.without_token(|operator| {
                operator.kill();
                operator.start();
            }),
            Disaster::ActiveCompromised => self.compromise(&["active"], Self::order_compromise),
            Disaster::OtherCompromised => self.compromise(&["published", "retiring"], Self::order_compromise),
            Disaster::CompromisedWithoutToken => self.without_token(|operator| operator.compromise(&["active"], Self::order_compromise)),
            Disaster::KilledInCompromise => self.compromise(&["active"], |operator, path| {
                operator.kill_during(path, &theft());
                operator.start();
                // Whoever got no answer asks again; that it was done already is one.
                let done = operator.place.admin_socket().post(path, &theft());
                assert!(done.status == 200 || done.problem(409) == "not_now", "{}", done.text());
            }),
        }
    }

    /// The verb that rotates a random keyring.
    fn rotate_path(&mut self) -> String {
        format!("/admin/keyrings/{}/rotate", self.chance.of(&KEYRINGS))
    }

    /// Kills the daemon before, while or after it obeys.
    fn kill_during(&mut self, path: &str, order: &Value) {
        let (mut admin, delay) = (self.place.admin_socket(), self.chance.shorter_than(ORDER));
        thread::scope(|scope| {
            // Whether an answer comes is left to chance.
            scope.spawn(move || admin.try_post(path, order).is_ok());
            rest(delay);
            self.kill();
        });
    }

    fn kill(&mut self) {
        self.edge.point(None);
        self.daemon.take().expect("one runs").kill();
    }

    fn start(&mut self) {
        let mut daemon = self.place.spawn();
        self.edge.point(Some(daemon.tcp()));
        daemon.addresses(3);
        self.daemon = Some(daemon);
    }

    fn without_token(&mut self, work: impl FnOnce(&mut Self)) {
        self.place.hsm.hide_tokens(true);
        // The module notices a lost token when it is used.
        until("the loss", || if self.keystore_answers()? { Err("the keystore answers".to_owned()) } else { Ok(()) });
        work(self);
        self.place.hsm.hide_tokens(false);
    }

    /// Compromises a random key in one of these states by `order`, if there is one.
    fn compromise(&mut self, states: &[&str], order: impl FnOnce(&mut Self, &str)) {
        let path = format!("/admin/keyrings/{}", self.chance.of(&KEYRINGS));
        let keyring = self.place.admin_socket().get(&path).ok();
        let keys = keyring["keys"].as_array().expect("a keyring has keys");
        let compromisable = |key: &&Value| states.iter().any(|state| key["state"] == *state);
        let kids: Vec<&str> = keys.iter().filter(compromisable).filter_map(|key| key["kid"].as_str()).collect();
        if kids.is_empty() {
            return;
        }
        let (kid, exposures) = (*self.chance.of(&kids), self.exposures);
        exposures.compromise(kid, || order(self, &format!("/admin/keys/{kid}/compromise")));
    }

    fn order_compromise(&mut self, path: &str) {
        self.place.admin_socket().post(path, &theft()).ok();
    }

    /// Waits until the keystore answers, somebody signs, and the cache has this daemon's set: S counts each absence for itself. No login is
    /// under way then, and the daemon may be killed.
    fn recover(&mut self) {
        until("a recovery", || {
            let mut client = self.place.sign_socket();
            let signs = KEYRINGS.iter().any(|keyring| client.sign(keyring).is_ok_and(|answer| answer.status == 200));
            let seen = (self.keystore_answers()?, signs, self.edge.is_refreshed());
            if seen == (true, true, true) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        self.abandon_refused();
        self.place.remember_heads();
    }

    fn keystore_answers(&self) -> Result<bool, String> {
        let status = self.place.admin_socket().try_get("/admin/status")?.ok();
        status["keystores"][0]["answers"].as_bool().ok_or_else(|| status.to_string())
    }
}

/// Waits for the first keys of all keyrings: before that the issuer has no set to verify by.
fn wait_for_set(daemon: &mut Daemon) {
    daemon.ready();
    let mut client = daemon.anonymous();
    until("the issuer's set", || {
        let set = client.try_get(SET)?;
        if set.status == 200 { Ok(()) } else { Err(set.text()) }
    });
}

fn theft() -> Value {
    json!({ "reason": "stolen" })
}

/// How many rotations the log holds, but for the first key of each keyring and for what follows a compromise.
fn rotations(place: &Place<'_>) -> usize {
    let is_rotation = |line: &&String| line.contains("\"event\":\"key.rotated\"") && !line.contains("\"reason\":\"bootstrap\"");
    lines(place, "keys").iter().filter(is_rotation).count()
}

/// The keys that their keystore refused, and why.
fn rejected(place: &Place<'_>) -> Vec<(String, String)> {
    let records = lines(place, "keys").into_iter().filter(|line| line.contains("\"event\":\"keystore.rejected\""));
    let told = records.map(|line| serde_json::from_str::<Value>(&line).expect("a record is JSON"));
    told.map(|record| ["key", "reason"].map(|member| record[member].as_str().expect("a text").to_owned()).into()).collect()
}

/// The number of this name in the environment.
#[expect(clippy::disallowed_methods, reason = "whoever wants another run than everybody needs asks for it; no program reads this")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The auditor tells the story of all rotations, and finds nothing.
fn assert_proven(place: &Place<'_>, wanted: usize) {
    let (trust, heads) = (place.trust(), place.heads());
    let [trust, heads] = [&trust, &heads].map(|path| path.to_str().expect("a plain path"));
    let (code, report) = place.verify(&["--trust", trust, "--head", heads, "--rotation", "--format", "json"]);
    assert_eq!(code, 0, "{report}");
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    assert_eq!((&report["findings"], &report["more_findings"]), (&json!([]), &json!(0)));
    let told = report["rotations"].as_array().expect("rotations were asked for");
    let count = |cause: &str| told.iter().filter(|rotation| rotation["cause"] == cause).count();
    let (scheduled, on_demand) = (count("scheduled"), count("on_demand"));
    assert!(scheduled > 0 && on_demand > 0 && scheduled + on_demand >= wanted, "{scheduled} scheduled, {on_demand} on demand");
    assert_eq!(scheduled + on_demand, rotations(place));
    let strange: Vec<_> = rejected(place).into_iter().filter(|(_, reason)| !CUT_SHORT.iter().any(|words| reason.contains(words))).collect();
    assert_eq!(strange, [], "what a disaster leaves in the token needs no hand to remove it");
    let drifted = lines(place, "keys").into_iter().find(|line| line.contains("\"event\":\"key.drifted\""));
    assert_eq!(drifted, None, "every start looks at every key, and no disaster changes one");
    assert!(count("compromised") > 0 && told.iter().all(|rotation| rotation["forced"] == false));
}

#[test]
fn a_hundred_rotations_through_every_disaster_refuse_no_token() {
    on_softhsm("a_hundred_rotations_through_every_disaster_refuse_no_token", |hsm| {
        let seed = asked("CLAVIGER_ENDURANCE_SEED").unwrap_or_else(|| SystemClock::start().wall().millis().unsigned_abs());
        let wanted = asked("CLAVIGER_ENDURANCE_ROTATIONS").map_or(ROTATIONS, |count| usize::try_from(count).expect("a small number"));
        say(&format!("CLAVIGER_ENDURANCE_SEED={seed}"));
        let place =
            Place::new(hsm, KEYRINGS.iter().fold(Setup::new(), |setup, name| setup.keyring(Keyring::jwt(name, "ES256").timing(SECONDS))));
        let (edge, exposures, load) = (Edge::start(), Exposures::default(), Load::default());
        let court = Court::open(&edge.url(), &HABITS);
        let mut operator = Operator {
            place: &place,
            edge: &edge,
            exposures: &exposures,
            chance: Chance::new(seed),
            daemon: None,
            met: BTreeMap::new(),
            abandoned: BTreeSet::new(),
        };
        operator.start();
        wait_for_set(operator.daemon.as_mut().expect("one runs"));
        thread::scope(|scope| {
            let _stop = RaisedAtEnd(&load.stop);
            for keyring in KEYRINGS {
                let (client, load, desks) = (place.sign_socket(), &load, court.desks());
                scope.spawn(move || ask(client, keyring, load, &desks));
            }
            operator.work(wanted);
        });
        let all = court.close();
        let receipts = load.receipts.into_inner().expect("no client panicked");
        let ungiven = load.ungiven.into_inner().expect("no client panicked");
        say(&format!("{:?}, compromised: {}, ungiven: {ungiven:?}, most stale: {:?}", operator.met, exposures.count(), edge.most_stale()));
        for (library, when, verdicts) in &all {
            let tally = tally(verdicts, &exposures, EXPOSURE);
            let (accepted, refused, too_late, wrong) = (tally.accepted, tally.refused, tally.too_late, tally.wrong.len());
            say(&format!("{library:?}, {when:?}: {accepted} accepted, {refused} refused, {too_late} too late, {wrong} wrong"));
            tally.assert_right(&format!("{library:?}, {when:?}"));
            assert_eq!(verdicts.len(), receipts.len(), "{library:?}, {when:?}");
            let outlived = tally.refused > 0 || *when == When::AtOnce;
            assert!(outlived, "{library:?}: no token was alive when the trust in its compromised key ended");
        }
        assert_provable(&place, &receipts);
        place.check(operator.daemon.take().expect("one runs"));
        assert_provable(&place, &receipts);
        assert_verifies(&place, &receipts);
        assert_proven(&place, wanted);
    });
}

#[expect(clippy::print_stderr, reason = "whoever reads of a failed run needs its seed, and what had happened")]
fn say(text: &str) {
    eprintln!("{text}");
}
