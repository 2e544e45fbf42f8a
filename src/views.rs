//! Keyrings and keys as JSON: what `--output json` prints and tables are made of.
//!
//! In scope: one shape for the admin API and the command line. Out of scope: who may see it.

use claviger_audit::Timestamp;
use claviger_audit::jwks;
use claviger_audit::keyrings::{Key, Keyring, Keyrings};
use serde_json::{Value, json};

use crate::journal::{LiveTokens, LogKey};
use crate::operator::Done;
use crate::rotation::risk::Risk;
use crate::rotation::timeline::{self, Entry};
use crate::upkeep::{Pruned, Turned};

/// A keyring with all its keys; `None` if there is none of this name.
pub fn keyring(keyrings: &Keyrings, name: &str, now: Timestamp) -> Option<Value> {
    let keyring = keyrings.keyring(name)?;
    let keys: Vec<Value> = keyring.keys.iter().map(|key| self::key(keyrings, keyring, key, now)).collect();
    let timing = keyring.timing().map(|settings| {
        json!({
            "seq": settings.seq,
            "settings": settings.timing,
            "lead_ms": millis(settings.timing.lead()),
            "overlap_ms": millis(settings.timing.overlap()),
        })
    });
    Some(json!({
        "keyring": keyring.name,
        "purpose": keyring.purpose,
        "issuer": keyring.issuer_url,
        "typ": keyring.typ,
        "algorithm": keyring.algorithm,
        "keystore": keyring.keystore,
        "standby_keystore": keyring.standby_keystore,
        "active": keyring.active().and_then(|key| key.kid.clone()),
        "next_rotation": keyring.next_rotation.map(|date| date.to_string()),
        "retired": keyring.retired.map(|date| date.to_string()),
        "sets": jwks::sets_of(keyring).iter().map(ToString::to_string).collect::<Vec<_>>(),
        "timing": timing,
        "keys": keys,
    }))
}

/// One key with its story and what it waits for; `None` if there is none with this kid or name.
pub fn key_story(keyrings: &Keyrings, kid_or_name: &str, now: Timestamp) -> Option<Value> {
    let by_name = || keyrings.key_named(&kid_or_name.parse().ok()?);
    let (ring, found) = keyrings.key(kid_or_name).or_else(by_name)?;
    let story = timeline::explain(keyrings, kid_or_name, now)?;
    let entries: Vec<Value> = story.entries.iter().map(entry).collect();
    Some(json!({
        "key": key(keyrings, ring, found, now),
        "keyring": ring.name,
        "story": entries,
        "next": story.next().map(entry),
    }))
}

/// What a verb did, with the records that prove it.
pub fn done(done: &Done) -> Value {
    let events: Vec<Value> = done.events.iter().filter_map(|event| serde_json::to_value(event).ok()).collect();
    let receipts = done.receipts.iter().map(|r| json!({ "log": &*r.log, "seq": r.seq, "leaf": r.leaf.to_string() }));
    json!({ "events": events, "receipts": receipts.collect::<Vec<_>>() })
}

/// Tokens of a compromised key that can still be alive.
pub fn live_tokens(live: &LiveTokens) -> Value {
    let callers = live.callers.iter().map(|(caller, count)| json!({ "caller": caller, "count": count }));
    let until = live.until.map(|date| date.to_string());
    json!({ "count": live.count, "until": until, "callers": callers.collect::<Vec<_>>(), "complete": live.complete })
}

/// A log that was handed over to another key, with the line that verifiers need from now on.
pub fn turned(turned: &Turned) -> Value {
    let key = |key: &LogKey| json!({ "verifier_key": key.key.to_string(), "keystore": key.keystore, "locator": key.locator });
    let mut view = done(&turned.done);
    view["old"] = key(&turned.old);
    view["new"] = key(&turned.new);
    view["trust"] = json!(format!("log {}", turned.new.key));
    view["covered"] = json!(turned.covered);
    view
}

/// What was deleted of the use log, or would be.
pub fn pruned(pruned: &Pruned) -> Value {
    let Pruned { old, before, done } = pruned;
    let segments = old.segments.iter().map(|old| json!({ "first": old.first, "records": old.records, "bytes": old.bytes }));
    let mut view = done.as_ref().map_or_else(|| json!({ "events": [], "receipts": [] }), self::done);
    view["deleted"] = json!(done.is_some());
    view["before"] = json!(before);
    view["segments"] = json!(segments.collect::<Vec<_>>());
    view["records"] = json!(old.segments.iter().map(|old| old.records).sum::<u64>());
    view["bytes"] = json!(old.segments.iter().map(|old| old.bytes).sum::<u64>());
    view["first_left"] = json!(old.first);
    view
}

/// Something that is late, or will be.
pub fn risk(risk: &Risk) -> Value {
    json!({
        "keyring": risk.keyring,
        "code": risk.code.name(),
        "detail": risk.detail,
        "since": risk.since.map(|date| date.to_string()),
        "until": risk.until.map(|date| date.to_string()),
    })
}

/// One line of a timeline.
pub fn entry(entry: &Entry) -> Value {
    json!({
        "at": entry.at.map(|at| at.to_string()),
        "key": entry.key,
        "state": entry.state.name(),
        "done": entry.done,
        "rule": entry.rule.map(claviger_audit::keyrings::Rule::name),
        "blocked_by": entry.blocked_by,
    })
}

fn key(keyrings: &Keyrings, keyring: &Keyring, key: &Key, now: Timestamp) -> Value {
    let date = |date: Option<Timestamp>| date.map(|date| date.to_string());
    json!({
        "name": key.name,
        "kid": key.kid,
        "state": key.state.name(),
        "since": key.entered().to_string(),
        "algorithm": key.algorithm,
        "keystore": key.keystore,
        "jwk": key.public,
        "eligible_at": date(keyrings.eligible_at(keyring, key, now)),
        "activated": date(key.activated),
        "stopped": date(key.stopped),
        "withdraw_after": date(key.withdraw_after),
        "destroy_after": date(key.destroy_after),
        "compromised_since": date(key.compromised_since),
        "drift": key.drift.as_ref().filter(|_| key.is_to_conform()).map(|drift| json!({ "found": drift.found, "since": drift.since.to_string() })),
    })
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
