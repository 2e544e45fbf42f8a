//! What happened and what will happen, when, and which invariant sets each date.
//!
//! In scope: the story of a keyring and of one key, and what blocks the next step. It asks the same functions as the plan. Out of scope:
//! how a table looks, and what only the running daemon knows (keystores that do not answer, a clock in doubt).

use std::collections::BTreeMap;

use claviger_audit::Timestamp;
use claviger_audit::event::RotationReason;
use claviger_audit::keyrings::{Key, Keyring, Keyrings, Rule, State};

use super::plan::{DateGate, activation, superfluous};

/// One line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened, or when it will at the earliest; `None` where no date can be told yet.
    pub at: Option<Timestamp>,
    /// The key: its kid, or its name before it has one.
    pub key: String,
    /// The state that the key entered, or will.
    pub state: State,
    /// Whether it is recorded already.
    pub done: bool,
    /// The invariant that sets the date of what will happen; `None` where nothing needs to be waited for.
    pub rule: Option<Rule>,
    /// What must happen first, beside the date.
    pub blocked_by: Option<String>,
}

/// The story of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Its keyring.
    pub keyring: String,
    /// Its state now.
    pub state: State,
    /// What happened to it and what will, in order.
    pub entries: Vec<Entry>,
}

impl Story {
    /// The next step, and what it waits for; `None` at the end of the story.
    pub fn next(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| !entry.done)
    }
}

/// The story of a keyring in order of time; what has no date comes last. Empty for an unknown keyring.
pub fn timeline(keyrings: &Keyrings, keyring: &str, now: Timestamp) -> Vec<Entry> {
    let Some(keyring) = keyrings.keyring(keyring) else { return Vec::new() };
    let past = keyring.keys.iter().flat_map(|key| key.history.iter().map(|(_, at, state)| done(key, *at, *state)));
    let future = keyring.keys.iter().flat_map(|key| future(keyrings, keyring, key, now));
    let mut entries: Vec<Entry> = past.chain(future).collect();
    entries.sort_by_key(|entry| (!entry.done, entry.at.is_none(), entry.at));
    entries
}

/// The story of the key with this kid, or of this name; `None` for an unknown one.
pub fn explain(keyrings: &Keyrings, key: &str, now: Timestamp) -> Option<Story> {
    let (keyring, key) = keyrings.key(key).or_else(|| keyrings.key_named(&key.parse().ok()?))?;
    let own = label(key);
    let entries = timeline(keyrings, &keyring.name, now).into_iter().filter(|entry| entry.key == own).collect();
    Some(Story { keyring: keyring.name.clone(), state: key.state, entries })
}

fn label(key: &Key) -> String {
    key.kid.clone().or_else(|| key.name.as_ref().map(ToString::to_string)).unwrap_or_default()
}

fn done(key: &Key, at: Timestamp, state: State) -> Entry {
    Entry { at: Some(at), key: label(key), state, done: true, rule: None, blocked_by: None }
}

fn ahead(key: &Key, state: State, at: Option<Timestamp>, rule: Option<Rule>, blocked_by: Option<String>) -> Entry {
    Entry { at, key: label(key), state, done: false, rule, blocked_by }
}

/// The steps that lie ahead of one key, as things stand.
fn future(keyrings: &Keyrings, keyring: &Keyring, key: &Key, now: Timestamp) -> Vec<Entry> {
    if let Some((date, _, reason)) = superfluous(keyrings, keyring, now).into_iter().find(|(_, other, _)| std::ptr::eq(*other, key)) {
        return vec![ahead(key, State::Abandoned, Some(date.unwrap_or(now)), date.map(|_| Rule::I1), Some(reason.to_owned()))];
    }
    match key.state {
        State::Requested => vec![ahead(key, State::Created, None, None, Some(format!("keystore {} has not made it yet", key.keystore)))],
        State::Created => vec![ahead(key, State::Published, Some(now), None, None)],
        State::Published => vec![to_active(keyrings, keyring, key, now)],
        State::Active | State::Suspended => to_end(keyrings, keyring, key, now),
        State::Retiring => {
            let grace = keyring.timing().map(|in_force| in_force.timing.destroy_after()).unwrap_or_default();
            let rule = key.name.as_ref().map(|_| Rule::I3);
            let withdrawn = ahead(key, State::Withdrawn, key.withdraw_after, rule, None);
            let destroyed = key.withdraw_after.map(|date| ahead(key, State::Destroyed, Some(date + grace), Some(Rule::I11), None));
            std::iter::once(withdrawn).chain(destroyed.filter(|_| key.name.is_some())).collect()
        }
        State::Withdrawn if key.name.is_some() => vec![to_destroyed(key, key.destroy_after, now)],
        State::Compromised | State::Abandoned if key.name.is_some() => vec![to_destroyed(key, None, now)],
        _ => Vec::new(),
    }
}

fn to_active(keyrings: &Keyrings, keyring: &Keyring, key: &Key, now: Timestamp) -> Entry {
    let eligible = keyrings.eligible_at(keyring, key, now);
    let state = State::Active;
    if let Some(current) = keyring.current().filter(|current| current.state == State::Suspended) {
        let blocked = format!("key {} is suspended: resume it, rotate or compromise it", label(current));
        return ahead(key, state, eligible, Some(Rule::I1), Some(blocked));
    }
    match activation(keyrings, keyring, now, DateGate::Open, &BTreeMap::new()) {
        Some((at, next, RotationReason::Bootstrap)) if std::ptr::eq(next, key) => ahead(key, state, Some(at), None, None),
        Some((at, next, _)) if std::ptr::eq(next, key) => {
            let rule = if eligible == Some(at) { Rule::I1 } else { Rule::I8 };
            ahead(key, state, Some(at), Some(rule), None)
        }
        Some((_, next, _)) => ahead(key, state, eligible, Some(Rule::I1), Some(format!("key {} signs first", label(next)))),
        None if keyrings.lost_keystores().contains(&key.keystore) => {
            let blocked = format!("keystore {} does not answer, and that of the key that signs does", key.keystore);
            ahead(key, state, eligible, Some(Rule::I1), Some(blocked))
        }
        None => ahead(key, state, None, Some(Rule::I1), Some("not every node serves it yet".to_owned())),
    }
}

/// The end of the key that signs: when its successor takes over, and when its last token is dead.
fn to_end(keyrings: &Keyrings, keyring: &Keyring, key: &Key, now: Timestamp) -> Vec<Entry> {
    if key.state == State::Suspended {
        return vec![ahead(key, State::Active, None, None, Some("an operator must resume it, rotate or compromise it".to_owned()))];
    }
    let Some((at, next, _)) = activation(keyrings, keyring, now, DateGate::Open, &BTreeMap::new()) else {
        let blocked = keyring.next_rotation.map(|_| "no standby may sign yet".to_owned());
        return vec![ahead(key, State::Retiring, keyring.next_rotation, Some(Rule::I1), blocked)];
    };
    let rule = if keyring.next_rotation == Some(at) { Rule::I8 } else { Rule::I1 };
    let withdrawal = at + keyring.overlap_at(key, now);
    vec![
        ahead(key, State::Retiring, Some(at), Some(rule), Some(format!("key {} takes over", label(next)))),
        ahead(key, State::Withdrawn, Some(withdrawal), Some(Rule::I3), None),
    ]
}

fn to_destroyed(key: &Key, date: Option<Timestamp>, now: Timestamp) -> Entry {
    let waits = date.filter(|date| *date > now);
    let blocked = waits.is_none().then(|| format!("keystore {} has not confirmed it yet", key.keystore));
    ahead(key, State::Destroyed, Some(date.unwrap_or(now)), date.map(|_| Rule::I11), blocked)
}
