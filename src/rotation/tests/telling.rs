//! The timeline and the story of one key.

use claviger_audit::keyrings::Rule;

use super::super::timeline::{explain, timeline};
use super::super::verbs::{rotate, suspend};
use super::*;

fn standing() -> Story {
    let mut story = Story::with(&[wish("tokens")]);
    story.settle();
    story
}

/// What lies ahead, told before it happens, is what then happens.
#[test]
fn the_timeline_comes_true() {
    let mut story = standing();
    story.run(DAY);
    let told = timeline(&story.keyrings, "tokens", story.now);
    let ahead: Vec<_> = told.iter().filter(|entry| !entry.done).map(|e| (e.key.clone(), e.state, e.at.expect("dated"))).collect();
    assert_eq!(ahead.len(), 3, "{ahead:?}");
    story.run(31 * DAY);
    let came = timeline(&story.keyrings, "tokens", story.now);
    for (key, state, at) in ahead {
        assert!(came.iter().any(|e| e.done && e.key == key && e.state == state && e.at == Some(at)), "{key} {state:?} {at}");
    }
    let dates: Vec<_> = came.iter().filter(|entry| entry.done).map(|entry| entry.at).collect();
    assert!(dates.is_sorted());
}

#[test]
fn each_date_names_its_invariant() {
    let mut story = standing();
    story.run(DAY);
    let first = story.active_kid("tokens");
    let next = explain(&story.keyrings, &first, story.now).expect("known").next().cloned().expect("it goes on");
    assert_eq!((next.state, next.rule), (State::Retiring, Some(Rule::I8)));
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
    let told = explain(&story.keyrings, &first, story.now).expect("known");
    assert_eq!((told.keyring.as_str(), told.state), ("tokens", State::Retiring));
    let rules: Vec<_> = told.entries.iter().filter(|entry| !entry.done).map(|entry| (entry.state, entry.rule)).collect();
    assert_eq!(rules, [(State::Withdrawn, Some(Rule::I3)), (State::Destroyed, Some(Rule::I11))]);
}

#[test]
fn what_blocks_a_step_is_told() {
    let mut story = standing();
    let (kid, standby) = (story.active_kid("tokens"), story.standby_kid("tokens"));
    story.verb(|keyrings, _| suspend(keyrings, &kid, "doubt"));
    let blocked = |story: &Story, key: &str| {
        let told = explain(&story.keyrings, key, story.now).expect("known");
        told.next().and_then(|entry| entry.blocked_by.clone()).expect("blocked")
    };
    assert_eq!(blocked(&story, &kid), "an operator must resume it, rotate or compromise it");
    assert_eq!(blocked(&story, &standby), format!("key {kid} is suspended: resume it, rotate or compromise it"));

    let mut dead = Story::with(&[wish("tokens")]);
    dead.down.insert("hsm".to_owned());
    dead.settle();
    let name = dead.keyring("tokens").keys[0].name.as_ref().expect("named").to_string();
    assert_eq!(blocked(&dead, &name), "keystore hsm has not made it yet");
    assert_eq!(explain(&dead.keyrings, "nobody", dead.now), None);
}
