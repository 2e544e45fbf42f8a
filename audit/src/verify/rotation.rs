//! The story of each rotation, for `--rotation`: what happened when, and how much room each invariant had.
//!
//! In scope: dates that the records state or imply. Out of scope: judging them; the transition table has done that.

use serde::Serialize;

use crate::event::{Event, KeyCompromised, KeyRotated, RotationReason};
use crate::keyrings::{Key, Keyring, Keyrings, State};
use crate::record::Record;
use crate::time::Timestamp;

/// One change of the key that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// Sequence number of the record.
    pub seq: u64,
    /// Its time: `from` stopped and `to` began to sign.
    pub time: Timestamp,
    /// The keyring.
    pub keyring: String,
    /// `bootstrap`, `scheduled`, `on_demand` or `compromised`.
    pub cause: &'static str,
    /// Whether an operator overrode I1.
    pub forced: bool,
    /// The operator's words.
    pub note: Option<String>,
    /// The kid that stopped signing.
    pub from: Option<String>,
    /// The kid that signs from then on.
    pub to: Option<String>,
    /// When `to` became part of its sets.
    pub published: Option<Timestamp>,
    /// When the last registered node first served it.
    pub visible: Option<Timestamp>,
    /// When I1 held for it.
    pub eligible: Option<Timestamp>,
    /// When a scheduled rotation was due.
    pub due: Option<Timestamp>,
    /// When `from` may leave the JWKS.
    pub withdraw_after: Option<Timestamp>,
    /// When it did.
    pub withdrawn: Option<Timestamp>,
    /// The earliest withdrawal that I3 allows.
    pub keep_until: Option<Timestamp>,
    /// The room that each invariant had.
    pub slack: Vec<Slack>,
}

/// How far a date lay from the one that an invariant demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slack {
    /// The invariant.
    pub rule: &'static str,
    /// What is compared.
    pub of: &'static str,
    /// Milliseconds to spare; negative where an operator forced it, or where it came late.
    pub millis: i64,
}

/// The story as far as it is known before the record is applied; `None` for every other event.
pub(super) fn begin(keyrings: &Keyrings, record: &Record) -> Option<Rotation> {
    match &record.event {
        Event::KeyRotated(event) => rotated(keyrings, record, event),
        Event::KeyCompromised(event) => compromised(keyrings, record, event),
        _ => None,
    }
}

fn rotated(keyrings: &Keyrings, record: &Record, event: &KeyRotated) -> Option<Rotation> {
    let (keyring, to) = keyrings.key(&event.to)?;
    let mut story = story_of(keyrings, record, keyring, Some(to));
    story.cause = match event.reason {
        RotationReason::Bootstrap => "bootstrap",
        RotationReason::Scheduled => "scheduled",
        RotationReason::OnDemand => "on_demand",
    };
    story.forced = event.forced;
    story.note.clone_from(&event.note);
    story.from.clone_from(&event.from);
    story.withdraw_after = event.withdraw_after;
    story.keep_until = keyring.current().map(|from| record.time + keyring.overlap_at(from, record.time));
    Some(story)
}

/// A compromise of a key that did not sign changes no signer, so it is no rotation.
fn compromised(keyrings: &Keyrings, record: &Record, event: &KeyCompromised) -> Option<Rotation> {
    let (keyring, _) = keyrings.key(&event.kid).filter(|(_, key)| matches!(key.state, State::Active | State::Suspended))?;
    let to = event.to.as_ref().and_then(|kid| keyring.key(kid));
    let mut story = story_of(keyrings, record, keyring, to);
    story.note = Some(event.reason.clone());
    story.from = Some(event.kid.clone());
    Some(story)
}

fn story_of(keyrings: &Keyrings, record: &Record, keyring: &Keyring, to: Option<&Key>) -> Rotation {
    Rotation {
        seq: record.seq,
        time: record.time,
        keyring: keyring.name.clone(),
        cause: "compromised",
        forced: false,
        note: None,
        from: None,
        to: to.and_then(|key| key.kid.clone()),
        published: to.and_then(|key| entered(key, State::Published)),
        visible: to.and_then(|key| keyrings.visible(keyring, key)),
        eligible: to.and_then(|key| keyrings.eligible_at(keyring, key, record.time)),
        due: keyring.next_rotation,
        withdraw_after: None,
        withdrawn: None,
        keep_until: None,
        slack: Vec::new(),
    }
}

fn entered(key: &Key, state: State) -> Option<Timestamp> {
    key.history.iter().find(|(_, _, entered)| *entered == state).map(|(_, time, _)| *time)
}

impl Rotation {
    /// Adds the withdrawal, which comes long after, and counts the slack.
    pub(super) fn finish(&mut self, keyrings: &Keyrings) {
        let from = self.from.as_ref().and_then(|kid| keyrings.key(kid));
        self.withdrawn = from.and_then(|(_, key)| entered(key, State::Withdrawn));
        let room = |later: Timestamp, earlier: Timestamp| later.millis() - earlier.millis();
        let mut slack = Vec::new();
        if let Some(eligible) = self.eligible {
            slack.push(Slack { rule: "I1", of: "activated - (visible + D + e)", millis: room(self.time, eligible) });
        }
        if let (Some(date), Some(least)) = (self.withdraw_after, self.keep_until) {
            slack.push(Slack { rule: "I3", of: "withdraw_after - (stopped signing + Q + T + 2e)", millis: room(date, least) });
        }
        if let (Some(date), Some(least)) = (self.withdrawn, self.keep_until) {
            slack.push(Slack { rule: "I3", of: "withdrawn - (stopped signing + Q + T + 2e)", millis: room(date, least) });
        }
        if let Some(due) = self.due.filter(|_| self.cause == "scheduled") {
            slack.push(Slack { rule: "I8", of: "due - rotated", millis: room(due, self.time) });
        }
        self.slack = slack;
    }
}
