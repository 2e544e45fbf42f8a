//! Everything that is known and counted, under one lock. Pure: calls in, plans out.
//!
//! In scope: which rules act on a call, counts, who hangs. Out of scope: waiting and calling (`pass.rs`), and what is asked (`perform.rs`).

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT};
use serde_json::{Value, json};

use crate::handles::Handles;
use crate::pins::Pins;
use crate::rules::{Effect, MOST_RULES, Rule, Step, When};
use crate::sessions::Sessions;

/// What a call is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// The module as a whole.
    Module,
    /// A slot, by its number.
    Slot(CK_SLOT_ID),
    /// A session.
    Session(CK_SESSION_HANDLE),
}

/// What to do to a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) before: Vec<Step>,
    pub(crate) after: Vec<Step>,
}

/// A call that stands still.
struct Hung {
    function: &'static str,
    rule: u64,
    held: Held,
}

/// Whether a call that stood still may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Not yet.
    Still,
    /// As if nothing had been.
    Free,
    /// It must answer this code.
    Answer(CK_RV),
}

/// What is known.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) sessions: Sessions,
    pub(crate) handles: Handles,
    pub(crate) pins: Pins,
    rules: Vec<Rule>,
    last_rule: u64,
    calls: BTreeMap<&'static str, u64>,
    queries: BTreeMap<&'static str, u64>,
    busy: u64,
    finalized_while_busy: u64,
    hung: BTreeMap<u64, Hung>,
    last_ticket: u64,
    /// Sessions whose next signature is to be spoilt.
    spoilt: HashSet<CK_SESSION_HANDLE>,
}

impl Desk {
    /// A call begins.
    pub(crate) fn begin(&mut self, function: &'static str, touch: Touch, now: Instant) -> Plan {
        *self.calls.entry(function).or_default() += 1;
        if function == "C_Finalize" && self.busy > 0 {
            self.finalized_while_busy += 1;
        }
        self.busy += 1;
        let slot = self.slot(touch);
        let mut plan = Plan::default();
        for after in [false, true] {
            for rule in self.rules.iter_mut().filter(|rule| rule.is_after() == after && rule.is_on_calls() && rule.is_about(function)) {
                let Some(step) = rule.fires(slot).then(|| rule.step(now)).flatten() else { continue };
                if after { &mut plan.after } else { &mut plan.before }.push(step);
                // A call that is answered already meets no further rule.
                if matches!(step, Step::Answer(_)) {
                    return plan;
                }
            }
        }
        plan
    }

    /// It has ended.
    pub(crate) fn end(&mut self) {
        self.busy -= 1;
    }

    /// Counts a call that only asks how long an answer would be; no rule is about those.
    pub(crate) fn query(&mut self, function: &'static str) {
        *self.queries.entry(function).or_default() += 1;
    }

    /// The code to answer if the token is away.
    pub(crate) fn absent(&self, touch: Touch) -> Option<CK_RV> {
        let away = self.slot(touch).is_some_and(|slot| self.sessions.is_away(slot));
        match touch {
            Touch::Slot(_) if away => Some(CKR_TOKEN_NOT_PRESENT),
            Touch::Session(_) if away => Some(CKR_DEVICE_REMOVED),
            _ => None,
        }
    }

    /// The slot that a call is addressed to, where that is known.
    pub(crate) fn slot(&self, touch: Touch) -> Option<CK_SLOT_ID> {
        match touch {
            Touch::Module => None,
            Touch::Slot(slot) => Some(slot),
            Touch::Session(session) => self.sessions.slot_of(session),
        }
    }

    /// Adds a rule, and gives its number.
    pub(crate) fn add(&mut self, function: Option<&'static str>, effect: Effect, when: When, said: Value) -> Result<u64, String> {
        if self.rules.len() >= MOST_RULES {
            return Err(format!("there are {MOST_RULES} rules already; clear some first"));
        }
        self.last_rule += 1;
        self.rules.push(Rule::new(self.last_rule, function, effect, when, said));
        Ok(self.last_rule)
    }

    /// Ends one rule, or all; says how many there were.
    pub(crate) fn clear(&mut self, rule: Option<u64>) -> usize {
        let before = self.rules.len();
        self.rules.retain(|known| rule.is_some_and(|rule| rule != known.id));
        before - self.rules.len()
    }

    pub(crate) fn has_rule(&self, rule: u64) -> bool {
        self.rules.iter().any(|known| known.id == rule)
    }

    /// Whether a rule of this effect acts on this call.
    pub(crate) fn acts(&mut self, slot: Option<CK_SLOT_ID>, wanted: impl Fn(&Effect) -> bool) -> bool {
        self.rules.iter_mut().any(|rule| wanted(&rule.effect) && rule.fires(slot))
    }

    /// The rules about what objects show, by number.
    pub(crate) fn on_objects(&self) -> Vec<(u64, Effect)> {
        let wanted = self.rules.iter().filter(|rule| matches!(rule.effect, Effect::Attribute { .. } | Effect::Hide(_)));
        wanted.map(|rule| (rule.id, rule.effect.clone())).collect()
    }

    /// Whether this rule acts on this call.
    pub(crate) fn fires(&mut self, rule: u64, slot: Option<CK_SLOT_ID>) -> bool {
        self.rules.iter_mut().any(|known| known.id == rule && known.fires(slot))
    }

    /// A call begins to stand still; gives its ticket.
    pub(crate) fn hang(&mut self, function: &'static str, rule: u64) -> u64 {
        self.last_ticket += 1;
        self.hung.insert(self.last_ticket, Hung { function, rule, held: Held::Still });
        self.last_ticket
    }

    /// Whether the call with this ticket may go on; it is forgotten then.
    pub(crate) fn held(&mut self, ticket: u64) -> Held {
        let held = self.hung.get(&ticket).map_or(Held::Free, |hung| hung.held);
        if held != Held::Still {
            self.hung.remove(&ticket);
        }
        held
    }

    /// Lets the calls that one rule holds go on, or all; says how many there were.
    pub(crate) fn release(&mut self, rule: Option<u64>, code: Option<CK_RV>) -> usize {
        let still = self.hung.values_mut().filter(|hung| hung.held == Held::Still && rule.is_none_or(|rule| rule == hung.rule));
        still.map(|hung| hung.held = code.map_or(Held::Free, Held::Answer)).count()
    }

    /// The next signature of this session is to be spoilt, or is not.
    pub(crate) fn spoil(&mut self, session: CK_SESSION_HANDLE, spoilt: bool) {
        if spoilt {
            self.spoilt.insert(session);
        } else {
            self.spoilt.remove(&session);
        }
    }

    /// Whether it is; asked once, when the signature is there.
    pub(crate) fn is_spoilt(&mut self, session: CK_SESSION_HANDLE) -> bool {
        self.spoilt.remove(&session)
    }

    /// The target's number of an object that the client names.
    pub(crate) fn real(&self, slot: Option<CK_SLOT_ID>, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        slot.map_or(object, |slot| self.handles.real(slot, object))
    }

    /// The number to give the client for an object of the target.
    pub(crate) fn show(&mut self, slot: Option<CK_SLOT_ID>, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        slot.map_or(object, |slot| self.handles.show(slot, object))
    }

    /// The module was finalised: nothing of before is valid.
    pub(crate) fn finalized(&mut self) {
        self.sessions.clear();
        self.handles.clear();
        self.spoilt.clear();
    }

    /// Begins to count anew.
    pub(crate) fn forget_counts(&mut self) {
        self.calls.clear();
        self.queries.clear();
        self.finalized_while_busy = 0;
        self.pins.forget_counts();
    }

    /// Everything that can be told.
    pub(crate) fn describe(&self) -> Value {
        let hung = self.hung.values().filter(|hung| hung.held == Held::Still);
        let sessions: BTreeMap<String, u64> = self.sessions.counts().iter().map(|(slot, count)| (slot.to_string(), *count)).collect();
        json!({
            "calls": self.calls,
            "queries": self.queries,
            "busy": self.busy,
            "finalized_while_busy": self.finalized_while_busy,
            "hung": hung.map(|hung| json!({ "function": hung.function, "rule": hung.rule })).collect::<Vec<_>>(),
            "sessions": sessions,
            "most_sessions": self.sessions.cap().map(|cap| json!({ "most": cap.most, "shown": cap.shown })),
            "removed": if self.sessions.all_are_away() { json!("all") } else { json!(self.sessions.away()) },
            "objects": self.handles.len(),
            "logins": self.pins.describe(),
            "rules": self.rules.iter().map(Rule::describe).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }

    fn when(json: Value) -> When {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn rules_act_in_their_order_and_an_answer_ends_them() {
        let mut desk = Desk::default();
        let span = Duration::from_secs(1);
        let late = desk.add(None, Effect::Delay(span), when(json!({ "performed": true })), Value::Null).unwrap();
        let slow = desk.add(Some("C_Sign"), Effect::Delay(span), When::default(), Value::Null).unwrap();
        desk.add(Some("C_Sign"), Effect::Fail(5), when(json!({ "times": 1 })), Value::Null).unwrap();
        let both = desk.begin("C_Sign", Touch::Session(1), now());
        assert_eq!(both.before, [Step::Delay { rule: slow, span }, Step::Answer(5)]);
        assert_eq!(both.after, [], "what is not performed meets no rule about what was");
        let second = desk.begin("C_Sign", Touch::Session(1), now());
        assert_eq!(second, Plan { before: vec![Step::Delay { rule: slow, span }], after: vec![Step::Delay { rule: late, span }] });
        assert_eq!(desk.begin("C_Login", Touch::Session(1), now()).before, []);
        assert_eq!(desk.clear(None), 3);
        assert_eq!(desk.begin("C_Sign", Touch::Session(1), now()), Plan::default());
        assert_eq!(desk.describe()["calls"], json!({ "C_Login": 1, "C_Sign": 3 }));
    }

    #[test]
    fn hung_calls_go_on_when_they_are_released() {
        let mut desk = Desk::default();
        let (first, second) = (desk.hang("C_Sign", 1), desk.hang("C_Login", 2));
        assert_eq!((desk.held(first), desk.release(Some(1), Some(6))), (Held::Still, 1));
        assert_eq!((desk.held(first), desk.held(second)), (Held::Answer(6), Held::Still));
        assert_eq!((desk.release(None, None), desk.held(second)), (1, Held::Free));
    }

    #[test]
    fn finalising_under_a_live_call_is_noticed() {
        let mut desk = Desk::default();
        desk.begin("C_Finalize", Touch::Module, now());
        desk.end();
        assert_eq!(desk.describe()["finalized_while_busy"], 0);
        desk.begin("C_Sign", Touch::Session(1), now());
        desk.begin("C_Finalize", Touch::Module, now());
        assert_eq!(desk.describe()["finalized_while_busy"], 1);
    }

    #[test]
    fn rules_are_bounded() {
        let mut desk = Desk::default();
        for _ in 0..MOST_RULES {
            desk.add(None, Effect::Hang, When::default(), Value::Null).unwrap();
        }
        assert!(desk.add(None, Effect::Hang, When::default(), Value::Null).is_err());
    }
}
