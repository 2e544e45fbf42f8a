//! Whom a permit could be meant for: each permit without what it says about the request's context.
//!
//! In scope: telling "this caller may never sign here" from "this caller may sign here, but not this". Out of scope: decisions. What is left
//! of a permit matches at least every question that the permit matches, since it keeps only some of the terms of a conjunction.

use cedar_policy::{Effect, Policy};
use serde_json::Value;

use super::load::Entry;
use super::slices::Slices;

pub(super) fn reach(entries: &[Entry]) -> Slices {
    let mut slices = Slices::default();
    for entry in entries.iter().filter(|entry| entry.effect == Effect::Permit) {
        // A permit that cannot be taken apart is kept whole: without its context it then errs, and an error counts as "could match".
        let policy = without_context(&entry.policy).unwrap_or_else(|| entry.policy.clone());
        slices.add(&policy, &entry.scope);
    }
    slices
}

fn without_context(policy: &Policy) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    for condition in json.get_mut("conditions")?.as_array_mut()? {
        let always = condition.get("kind")? == "when";
        let body = condition.get_mut("body")?;
        // Only the terms of a `when` are a conjunction; an `unless` that reads the context is given up whole.
        let kept = if always { keep(body.take()) } else { Some(body.take()).filter(|body| !reads_context(body)) };
        *body = kept.unwrap_or_else(|| serde_json::json!({ "Value": always }));
    }
    Policy::from_json(Some(policy.id().clone()), json).ok()
}

/// The terms of a conjunction that do not read the context.
fn keep(mut body: Value) -> Option<Value> {
    if !reads_context(&body) {
        return Some(body);
    }
    let both = body.get_mut("&&")?;
    let (left, right) = (keep(both.get_mut("left")?.take()), keep(both.get_mut("right")?.take()));
    match (left, right) {
        (Some(left), Some(right)) => Some(serde_json::json!({ "&&": { "left": left, "right": right } })),
        (one, other) => one.or(other),
    }
}

fn reads_context(body: &Value) -> bool {
    match body {
        Value::Object(members) => members.iter().any(|(name, value)| (name == "Var" && value == "context") || reads_context(value)),
        Value::Array(items) => items.iter().any(reads_context),
        _ => false,
    }
}
