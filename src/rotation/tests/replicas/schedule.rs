//! Random schedules: what happens to the nodes, their keystores and their clocks, and what operators order.
//!
//! In scope: the schedules and their seeds. Out of scope: carrying them out.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// How a keystore fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It answers at once that it cannot.
    Down,
    /// It answers nothing; the caller gives up after some seconds.
    Hangs,
    /// It makes or destroys the key, and the answer is lost.
    Forgets,
    /// It refuses what it is asked for.
    Refuses,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Wait(u64),
    /// Until a node wants to do something, or some milliseconds before.
    ToNextDate(u64),
    Store {
        store: usize,
        trouble: Trouble,
        seconds: u64,
    },
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
    /// The keystore is gone for good; the first one alone, for two would be all.
    Lose(usize),
    Retire,
    /// The node dies at one of its next effects on the log or a keystore, before or after it; it comes back.
    Crash {
        node: usize,
        effects: u32,
        before: bool,
        seconds: u64,
    },
    /// The node stops in order and comes back.
    Stop {
        node: usize,
        seconds: u64,
    },
    /// The node hears and says nothing.
    CutOff {
        node: usize,
        seconds: u64,
    },
    /// Notifications of this node come late or never; polling makes sure.
    Deaf {
        node: usize,
        late_ms: u64,
    },
    /// The node's wall clock stands wrong for a while.
    Step {
        node: usize,
        seconds: i64,
        lasts: u64,
    },
}

/// A whole story.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// How far each node's clock is off, in milliseconds; any two are within e.
    pub(super) offsets_ms: Vec<i64>,
    pub(super) actions: Vec<Action>,
}

fn action() -> impl Strategy<Value = Action> {
    let (ring, node) = (|| 0..RINGS.len(), || 0_usize..3);
    let trouble = || prop_oneof![Just(Trouble::Down), Just(Trouble::Hangs), Just(Trouble::Forgets), Just(Trouble::Refuses)];
    let step = || prop_oneof![40_i64..4_000, -4_000_i64..-40, Just(90_000_i64), Just(-90_000)];
    prop_oneof![
        4 => (0_u64..1_800).prop_map(Action::Wait),
        3 => (0_u64..100_000).prop_map(Action::Wait),
        6 => (0_u64..3).prop_map(Action::ToNextDate),
        3 => (0..STORES.len(), trouble(), 0_u64..8_000).prop_map(|(store, trouble, seconds)| Action::Store { store, trouble, seconds }),
        4 => (ring(), any::<bool>()).prop_map(|(ring, force)| Action::Rotate { ring, force }),
        3 => (ring(), 0_usize..4).prop_map(|(ring, key)| Action::Compromise { ring, key }),
        1 => ring().prop_map(Action::Suspend),
        2 => ring().prop_map(Action::Resume),
        1 => (ring(), 0_usize..4).prop_map(|(ring, key)| Action::Abandon { ring, key }),
        3 => (ring(), 0_usize..4).prop_map(|(ring, variant)| Action::Settings { ring, variant }),
        1 => (ring(), 0..STORES.len()).prop_map(|(ring, keystore)| Action::Move { ring, keystore }),
        2 => ring().prop_map(Action::Standby),
        1 => (0..STORES.len()).prop_map(Action::Lose),
        1 => Just(Action::Retire),
        3 => (node(), 0_u32..5, any::<bool>(), 0_u64..8_000)
            .prop_map(|(node, effects, before, seconds)| Action::Crash { node, effects, before, seconds }),
        1 => (node(), 0_u64..8_000).prop_map(|(node, seconds)| Action::Stop { node, seconds }),
        3 => (node(), 0_u64..6_000).prop_map(|(node, seconds)| Action::CutOff { node, seconds }),
        1 => (node(), 0_u64..3_000).prop_map(|(node, late_ms)| Action::Deaf { node, late_ms }),
        2 => (node(), step(), 0_u64..8_000).prop_map(|(node, seconds, lasts)| Action::Step { node, seconds, lasts }),
    ]
}

/// All schedules; small ones first when one is shrunk.
fn schedules() -> impl Strategy<Value = Schedule> {
    let half = i64::try_from(SKEW.as_millis() / 2).expect("small");
    let offset = prop_oneof![Just(0), Just(half), Just(-half), -half..=half];
    (prop::collection::vec(offset, 1..=3), prop::collection::vec(action(), 1..25))
        .prop_map(|(offsets_ms, actions)| Schedule { offsets_ms, actions })
}

/// The schedule of one seed, the same on every machine, with all that is simpler than it.
pub(super) fn tree(seed: u64) -> impl ValueTree<Value = Schedule> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    schedules().new_tree(&mut runner).expect("a schedule")
}

/// The schedule of one seed.
pub(super) fn schedule(seed: u64) -> Schedule {
    tree(seed).current()
}
