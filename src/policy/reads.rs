//! Which context attributes the policies of an action read, so that a request builds those and no others.
//!
//! In scope: reading attribute names off policies, which may find too many, never too few. Out of scope: evaluating them. Addresses and times
//! cost more to build than a slice costs to evaluate, and most policies read neither.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::load::Entry;
use super::vocabulary::Action;

/// The context attributes that some policy of a set reads, by action.
#[derive(Debug, Default)]
pub(super) struct Reads(HashMap<Action, Attributes>);

#[derive(Debug, Default)]
struct Attributes {
    named: HashSet<String>,
    /// Some policy uses the context in another way than by naming an attribute.
    whole: bool,
}

impl Reads {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut reads = Self::default();
        for entry in entries {
            let mut found = Attributes::default();
            match entry.policy.to_json() {
                Ok(json) => found.find(&json),
                Err(_) => found.whole = true,
            }
            for &action in &entry.scope.actions {
                let attributes = reads.0.entry(action).or_default();
                attributes.named.extend(found.named.iter().cloned());
                attributes.whole |= found.whole;
            }
        }
        reads
    }

    pub(super) fn has(&self, action: Action, attribute: &str) -> bool {
        self.0.get(&action).is_some_and(|attributes| attributes.whole || attributes.named.contains(attribute))
    }
}

impl Attributes {
    /// Cedar writes `context.x` as `{".": {"left": {"Var": "context"}, "attr": "x"}}`, and `context has x` likewise.
    fn find(&mut self, json: &Value) {
        match json {
            Value::Object(members) => {
                for (name, value) in members {
                    let named = value.get("attr").and_then(Value::as_str).filter(|_| matches!(name.as_str(), "." | "has"));
                    match named {
                        Some(attribute) if value.pointer("/left/Var").is_some_and(|var| var == "context") => {
                            self.named.insert(attribute.to_owned());
                        }
                        _ => {
                            self.whole |= name == "Var" && value == "context";
                            self.find(value);
                        }
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.find(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::PolicySet;
    use super::super::engine::tests::{file, vocabulary};
    use super::*;

    fn reads(text: &str) -> Reads {
        Reads::of(&PolicySet::load(&[file("a.cedar", text)], &vocabulary()).unwrap().entries)
    }

    #[test]
    fn attributes_are_found_wherever_they_stand() {
        let reads = reads(
            r#"permit (principal, action == Action::"sign", resource) when { if context has tenant then [1, context.lifetime].contains(2) else false };
forbid (principal, action == Action::"rotate", resource) unless { !(context["time"] > datetime("2026-01-01")) };"#,
        );
        let found = |action| ["tenant", "lifetime", "time", "typ"].map(|attribute| reads.has(action, attribute));
        assert_eq!(found(Action::Sign), [true, true, false, false]);
        assert_eq!(found(Action::Rotate), [false, false, true, false]);
        assert_eq!(found(Action::Destroy), [false; 4]);
    }

    #[test]
    fn a_context_used_as_a_whole_reads_everything() {
        let reads = reads(r#"permit (principal, action == Action::"sign", resource) when { context == context };"#);
        assert!(reads.has(Action::Sign, "userAgent") && !reads.has(Action::Rotate, "userAgent"));
    }
}
