//! Random schedules in virtual time: keystores that fail and recover, crashes, compromises, operators and changes of mind.
//!
//! The plan drives the log; [`check`] and the verifier then read the log. In scope: one node. Out of scope: several replicas and a log that cannot be
//! written.

use proptest::prelude::*;

use claviger_audit::event::{ClockSettled, ClockStepped, KeystoreLost, KeystoreRecovered, LogHeartbeat};

use super::super::verbs;
use super::check::{Outage, check};
use super::verified::broken_rules;
use super::*;

const RINGS: [&str; 2] = ["access", "other"];
const KEYSTORES: [&str; 2] = ["hsm", "vault"];

/// Something that happens to the daemon.
#[derive(Clone, Debug)]
enum Action {
    Wait(u64),
    Down(usize),
    Up(usize),
    Rotate {
        ring: usize,
        force: bool,
    },
    Compromise {
        ring: usize,
        key: usize,
    },
    Suspend(usize),
    Resume(usize),
    Abandon {
        ring: usize,
        key: usize,
    },
    Settings {
        ring: usize,
        variant: usize,
    },
    Move {
        ring: usize,
        keystore: usize,
    },
    /// The keyring gets a second keystore, or loses it.
    Standby(usize),
    Retire,
    /// The process dies after a few more steps that nobody served, and comes back after some seconds.
    Crash {
        steps: usize,
        seconds: u64,
    },
    /// The wall clock is in doubt for some seconds.
    Doubt(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let ring = || 0..RINGS.len();
    prop_oneof![
        6 => (0_u64..1_800).prop_map(Action::Wait),
        4 => (0_u64..100_000).prop_map(Action::Wait),
        2 => (0..KEYSTORES.len()).prop_map(Action::Down),
        2 => (0..KEYSTORES.len()).prop_map(Action::Up),
        3 => (ring(), any::<bool>()).prop_map(|(ring, force)| Action::Rotate { ring, force }),
        2 => (ring(), 0_usize..8).prop_map(|(ring, key)| Action::Compromise { ring, key }),
        1 => ring().prop_map(Action::Suspend),
        2 => ring().prop_map(Action::Resume),
        1 => (ring(), 0_usize..8).prop_map(|(ring, key)| Action::Abandon { ring, key }),
        2 => (ring(), 0_usize..4).prop_map(|(ring, variant)| Action::Settings { ring, variant }),
        2 => (ring(), 0..KEYSTORES.len()).prop_map(|(ring, keystore)| Action::Move { ring, keystore }),
        2 => ring().prop_map(Action::Standby),
        1 => Just(Action::Retire),
        2 => (0_usize..6, 0_u64..200_000).prop_map(|(steps, seconds)| Action::Crash { steps, seconds }),
        1 => (0_u64..5_000).prop_map(Action::Doubt),
    ]
}

/// Settings that hold, one of them with a longer lead, one with a longer token life.
fn variant(index: usize) -> Timing {
    timing(|s| {
        s.rotate_every = DAY;
        match index {
            1 => s.verifier_poll = 40 * MINUTE,
            2 => s.life = super::super::timing::SignatureLife::TokenTtl(120 * MINUTE),
            3 => (s.verifier_poll, s.jwks_max_age, s.rotate_every) = (MINUTE, MINUTE, DAY / 2),
            _ => {}
        }
    })
}

struct Simulation {
    story: Story,
    wishes: Vec<KeyringWish>,
    outages: Vec<Outage>,
    /// Since when keystores are down.
    down_since: BTreeMap<usize, Timestamp>,
}

impl Simulation {
    fn new() -> Self {
        let wishes: Vec<KeyringWish> = RINGS
            .iter()
            .zip(KEYSTORES)
            .map(|(name, keystore)| KeyringWish { timing: variant(0), keystore: keystore.to_owned(), ..wish(name) })
            .collect();
        Self { story: Story::with(&wishes), wishes, outages: Vec::new(), down_since: BTreeMap::new() }
    }

    fn perform(&mut self, action: &Action) {
        let story = &mut self.story;
        match *action {
            Action::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Action::Down(keystore) => {
                story.down.insert(KEYSTORES[keystore].to_owned());
                self.down_since.entry(keystore).or_insert(story.now);
            }
            Action::Up(keystore) => {
                story.down.remove(KEYSTORES[keystore]);
                let since = self.down_since.remove(&keystore);
                self.outages.extend(since.map(|since| Outage::of_keystore(since, story.now)));
            }
            Action::Rotate { ring, force } => {
                self.order(|keyrings, now| verbs::rotate(keyrings, now, RINGS[ring], force.then_some("drill")));
            }
            Action::Compromise { ring, key } => {
                self.order(|keyrings, now| verbs::compromise(keyrings, now, &nth(keyrings, RINGS[ring], key), now, "leaked"));
            }
            Action::Suspend(ring) => self.order(|keyrings, _| verbs::suspend(keyrings, &current(keyrings, RINGS[ring]), "doubt")),
            Action::Resume(ring) => self.order(|keyrings, _| verbs::resume(keyrings, &current(keyrings, RINGS[ring]), "cleared")),
            Action::Abandon { ring, key } => {
                self.order(|keyrings, _| verbs::abandon(keyrings, &nth(keyrings, RINGS[ring], key), "unwanted"));
            }
            Action::Settings { ring, variant: index } => self.wish(ring, |wish| wish.timing = variant(index)),
            Action::Move { ring, keystore } => self.wish(ring, |wish| {
                let before = std::mem::replace(&mut wish.keystore, KEYSTORES[keystore].to_owned());
                wish.standby_keystore = wish.standby_keystore.take().map(|other| if other == wish.keystore { before } else { other });
            }),
            Action::Standby(ring) => self.wish(ring, |wish| {
                let other = KEYSTORES.into_iter().find(|other| *other != wish.keystore);
                wish.standby_keystore = if wish.standby_keystore.is_some() { None } else { other.map(str::to_owned) };
            }),
            Action::Retire => {
                self.order(|keyrings, now| verbs::retire(keyrings, now, "other", "done"));
                self.wishes.truncate(1);
            }
            Action::Crash { steps, seconds } => self.crash(steps, Duration::from_secs(seconds)),
            Action::Doubt(seconds) => self.doubt(Duration::from_secs(seconds)),
        }
        self.notice();
        self.story.settle();
    }

    /// A key log has a record every hour.
    fn wait(&mut self, mut span: Duration) {
        while span > Duration::ZERO {
            let step = span.min(60 * MINUTE);
            self.story.run(step);
            self.story.append(Event::LogHeartbeat(LogHeartbeat {}));
            span -= step;
        }
    }

    /// Records which keystores answer, as the daemon does soon after it changed.
    fn notice(&mut self) {
        for keystore in KEYSTORES {
            let (down, recorded) = (self.story.down.contains(keystore), self.story.keyrings.lost_keystores().contains(keystore));
            if down && !recorded {
                self.story.append(Event::KeystoreLost(KeystoreLost { keystore: keystore.to_owned(), reason: "no answer".to_owned() }));
            } else if recorded && !down {
                self.story.append(Event::KeystoreRecovered(KeystoreRecovered { keystore: keystore.to_owned() }));
            }
        }
    }

    /// A verb that is refused changes nothing; one that is allowed must be legal.
    fn order(&mut self, verb: impl FnOnce(&Keyrings, Timestamp) -> Result<Vec<Event>, Illegal>) {
        let events = verb(&self.story.keyrings, self.story.now).unwrap_or_default();
        self.story.caller = Some("operator");
        for event in events {
            self.story.append(event);
        }
        self.story.caller = None;
    }

    fn wish(&mut self, ring: usize, change: impl FnOnce(&mut KeyringWish)) {
        self.wishes.get_mut(ring).map(change);
        self.story.reconcile(&self.wishes);
    }

    fn crash(&mut self, steps: usize, down: Duration) {
        let (from, story) = (self.story.now, &mut self.story);
        for _ in 0..steps {
            let step = story.plan();
            story.carry_out(step);
        }
        story.now = story.now + down;
        story.unavailable.clear();
        story.start();
        let leads = story.keyrings.all().filter_map(Keyring::timing).map(|in_force| in_force.timing.lead());
        let until = story.now + leads.max().unwrap_or_default();
        story.dates = DateGate::Held { due_before: story.now, until };
        self.outages.push(Outage::of_all(from, story.now, until));
    }

    fn doubt(&mut self, span: Duration) {
        let from = self.story.now;
        self.story.append(Event::ClockStepped(ClockStepped { keyring_skew_ms: 30_000, difference_ms: 40_000 }));
        let before = std::mem::replace(&mut self.story.dates, DateGate::Paused);
        self.story.run(span);
        self.story.dates = before;
        self.story.append(Event::ClockSettled(ClockSettled { difference_ms: 0 }));
        let until = self.story.now;
        self.outages.push(Outage::of_all(from, until, until));
    }

    /// No more faults, for long enough that every keyring must sign and rotate again.
    fn recover(&mut self) {
        (0..KEYSTORES.len()).for_each(|keystore| self.perform(&Action::Up(keystore)));
        (0..RINGS.len()).for_each(|ring| self.perform(&Action::Resume(ring)));
        self.wait(3 * DAY);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_breaks_an_invariant(actions in prop::collection::vec(action(), 1..30)) {
        let mut simulation = Simulation::new();
        for action in &actions {
            simulation.perform(action);
        }
        simulation.recover();
        let story = &simulation.story;
        prop_assert_eq!(check(&story.records, &simulation.outages, Some(story.now)), Ok(()));
        prop_assert_eq!(broken_rules(&story.records), Vec::<String>::new());
    }
}

/// The wait after a start was longer by a lead that was lowered right after it.
#[test]
fn a_lead_that_is_lowered_at_a_start_still_excuses_its_dates() {
    let actions = [
        Action::Wait(2_934),
        Action::Settings { ring: 1, variant: 1 },
        Action::Crash { steps: 0, seconds: 83_466 },
        Action::Settings { ring: 1, variant: 2 },
    ];
    let mut simulation = Simulation::new();
    for action in &actions {
        simulation.perform(action);
    }
    simulation.recover();
    assert_eq!(broken_rules(&simulation.story.records), Vec::<String>::new());
}
