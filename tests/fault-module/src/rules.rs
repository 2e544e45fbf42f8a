//! Rules: what is to go wrong, in which calls, how often. Pure: calls in, decisions out; randomness comes from a seed.
//!
//! In scope: matching, counting, chance. Out of scope: carrying out (`pass.rs` and `calls`).

use std::time::{Duration, Instant};

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_OBJECT_CLASS, CK_RV, CK_SLOT_ID};
use serde::Deserialize;
use serde_json::{Value, json};

/// The most rules at one time: each is looked at in every call.
pub(crate) const MOST_RULES: usize = 256;

/// In which of the calls that a rule is about it acts. All of it may be left out: then in every call.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct When {
    /// Act so often, then no more.
    times: Option<u64>,
    /// Leave so many calls alone before.
    skip: u64,
    /// Act with this probability, 0 to 1.
    chance: Option<f64>,
    /// Where the random numbers for `chance` begin.
    seed: Option<u64>,
    /// Act on this slot alone.
    slot: Option<CK_SLOT_ID>,
    /// Have the call performed first.
    performed: bool,
}

/// The objects that a rule is about: those to which everything that is given here applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) id: Option<Vec<u8>>,
    pub(crate) label: Option<Vec<u8>>,
    pub(crate) class: Option<CK_OBJECT_CLASS>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The call answers this code.
    Fail(CK_RV),
    /// The call takes so much longer.
    Delay(Duration),
    /// The call stands still until it is released.
    Hang,
    /// The calls of all threads follow each other at this distance.
    Pace(Duration),
    /// `C_SignInit` is given another key.
    WrongKey,
    /// An attribute reads as these bytes, or as absent.
    Attribute { kind: CK_ATTRIBUTE_TYPE, value: Option<Vec<u8>>, of: Objects },
    /// Searches do not find these objects.
    Hide(Objects),
}

/// A rule in force.
pub(crate) struct Rule {
    pub(crate) id: u64,
    /// `None` stands for every function.
    function: Option<&'static str>,
    pub(crate) effect: Effect,
    when: When,
    /// The command that asked for it.
    said: Value,
    random: u64,
    met: u64,
    fired: u64,
    next_turn: Option<Instant>,
}

/// One thing to be done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for this long, as long as the rule stands.
    Delay { rule: u64, span: Duration },
    /// Wait until then, as long as the rule stands.
    Turn { rule: u64, at: Instant },
    /// Stand still until released.
    Hang { rule: u64 },
    /// Answer this.
    Answer(CK_RV),
}

impl When {
    /// Says what is wrong with it, if anything. `can_perform`: whether the rule's effect can come after the call.
    pub(crate) fn check(&self, can_perform: bool) -> Result<(), String> {
        match (self.chance, self.seed) {
            (Some(chance), _) if !(0.0..=1.0).contains(&chance) => return Err(format!("chance {chance} is not between 0 and 1")),
            (Some(_), None) => return Err("chance needs a seed, so that the run can be repeated".to_owned()),
            (None, Some(_)) => return Err("a seed without a chance means nothing".to_owned()),
            _ => {}
        }
        if self.times == Some(0) {
            return Err("times 0 never acts; leave it out to act always".to_owned());
        }
        if self.performed && !can_perform {
            return Err("performed has no meaning for this command".to_owned());
        }
        Ok(())
    }
}

impl Rule {
    pub(crate) fn new(id: u64, function: Option<&'static str>, effect: Effect, when: When, said: Value) -> Self {
        let random = when.seed.unwrap_or(0);
        Self { id, function, effect, when, said, random, met: 0, fired: 0, next_turn: None }
    }

    /// Whether the rule is about this function.
    pub(crate) fn is_about(&self, function: &str) -> bool {
        self.function.is_none_or(|wanted| wanted == function)
    }

    /// Whether its effect comes after the call.
    pub(crate) fn is_after(&self) -> bool {
        self.when.performed
    }

    /// Meets one call, and decides whether to act on it.
    pub(crate) fn fires(&mut self, slot: Option<CK_SLOT_ID>) -> bool {
        if self.when.slot.is_some_and(|wanted| slot != Some(wanted)) {
            return false;
        }
        self.met += 1;
        if self.met <= self.when.skip || self.when.times.is_some_and(|times| self.fired >= times) {
            return false;
        }
        let acts = self.when.chance.is_none_or(|chance| unit(&mut self.random) < chance);
        self.fired += u64::from(acts);
        acts
    }

    /// What to do to a call on which this rule acts; `None` if its effect is not one on calls as such.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        let rule = self.id;
        match &self.effect {
            Effect::Fail(code) => Some(Step::Answer(*code)),
            Effect::Delay(span) => Some(Step::Delay { rule, span: *span }),
            Effect::Hang => Some(Step::Hang { rule }),
            Effect::Pace(distance) => {
                let at = self.next_turn.map_or(now, |turn| turn.max(now));
                self.next_turn = Some(at + *distance);
                Some(Step::Turn { rule, at })
            }
            Effect::WrongKey | Effect::Attribute { .. } | Effect::Hide(_) => None,
        }
    }

    /// Whether its effect is one on calls as such.
    pub(crate) fn is_on_calls(&self) -> bool {
        matches!(self.effect, Effect::Fail(_) | Effect::Delay(_) | Effect::Hang | Effect::Pace(_))
    }

    /// For the status.
    pub(crate) fn describe(&self) -> Value {
        json!({ "rule": self.id, "met": self.met, "fired": self.fired, "said": self.said })
    }
}

/// The next number of SplitMix64, from 0 to below 1: small, well spread, and the same everywhere.
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // 32 bits fit a double exactly, and are fine enough for a chance.
    f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(when: Value) -> Rule {
        Rule::new(1, Some("C_Sign"), Effect::Hang, serde_json::from_value(when).unwrap(), Value::Null)
    }

    fn acts(rule: &mut Rule, calls: usize) -> Vec<bool> {
        (0..calls).map(|_| rule.fires(Some(7))).collect()
    }

    #[test]
    fn times_and_skip_are_counted() {
        assert_eq!(acts(&mut rule(json!({})), 2), [true, true]);
        assert_eq!(acts(&mut rule(json!({ "times": 2, "skip": 1 })), 4), [false, true, true, false]);
        assert_eq!(acts(&mut rule(json!({ "slot": 8 })), 1), [false]);
    }

    #[test]
    fn chance_follows_its_seed() {
        let run = |seed: u64| acts(&mut rule(json!({ "chance": 0.25, "seed": seed })), 4000);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let hits = run(3).into_iter().filter(|hit| *hit).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert_eq!(acts(&mut rule(json!({ "chance": 0.0, "seed": 1 })), 99), [false; 99]);
        assert_eq!(acts(&mut rule(json!({ "chance": 1.0, "seed": 1 })), 99), [true; 99]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = [
            json!({ "chance": 1.5, "seed": 1 }),
            json!({ "chance": 0.5 }),
            json!({ "seed": 5 }),
            json!({ "times": 0 }),
            json!({ "performed": true }),
        ];
        for when in wrong {
            assert!(serde_json::from_value::<When>(when.clone()).unwrap().check(false).is_err(), "{when}");
        }
        assert!(serde_json::from_value::<When>(json!({ "performed": true, "times": 1 })).unwrap().check(true).is_ok());
        assert!(serde_json::from_value::<When>(json!({ "time": 1 })).is_err());
    }

    #[test]
    fn turns_follow_each_other_at_a_distance() {
        let mut pace = Rule::new(1, None, Effect::Pace(Duration::from_millis(10)), When::default(), Value::Null);
        #[expect(clippy::disallowed_methods, reason = "an instant to start from")]
        let now = Instant::now();
        let mut at = |now| match pace.step(now) {
            Some(Step::Turn { at, .. }) => at,
            other => panic!("{other:?}"),
        };
        let later = |millis| now + Duration::from_millis(millis);
        assert_eq!([at(now), at(now), at(later(5)), at(later(95))], [now, later(10), later(20), later(95)]);
    }
}
