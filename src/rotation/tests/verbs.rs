//! Each verb: what it writes, and its refusals with rule and date.

use claviger_audit::keyrings::Rule;

use super::super::verbs::{Entry, abandon, compromise, destroy, import, resume, retire, rotate, suspend};
use super::*;

fn standing() -> Story {
    let mut story = Story::with(&[wish("tokens")]);
    story.settle();
    story
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Illegal>) -> (Rule, Option<Timestamp>) {
    let illegal = result.expect_err("refused");
    (illegal.rule, illegal.until)
}

#[test]
fn rotate_is_refused_until_the_standby_has_aged() {
    let mut story = standing();
    let until = story.now + wish("tokens").timing.lead();
    assert_eq!(refusal(rotate(&story.keyrings, story.now, "tokens", None)), (Rule::I1, Some(until)));
    story.now = until;
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
    story.settle();
    assert_eq!(story.states("tokens"), ["retiring", "active", "published"]);
}

#[test]
fn force_is_recorded_where_it_was_needed_and_needs_a_reason() {
    let mut story = standing();
    assert_eq!(refusal(rotate(&story.keyrings, story.now, "tokens", Some(" "))), (Rule::Form, None));
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", Some("drill")));
    let Some(Event::KeyRotated(forced)) = story.records.last().map(|record| &record.event) else { panic!("it rotated") };
    assert_eq!((forced.forced, forced.note.as_deref()), (true, Some("drill")));
    assert_eq!(refusal(rotate(&story.keyrings, story.now, "tokens", Some("drill"))), (Rule::I1, None));
    story.run(DAY);
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", Some("drill")));
    let Some(Event::KeyRotated(plain)) = story.records.last().map(|record| &record.event) else { panic!("it rotated") };
    assert_eq!((plain.forced, plain.note.as_deref()), (false, None));
}

#[test]
fn rotate_is_refused_when_the_set_is_full() {
    let long = KeyringWish { timing: timing(|s| s.life = super::super::timing::SignatureLife::TokenTtl(30 * DAY)), ..wish("tokens") };
    let mut story = Story::with(&[long]);
    story.settle();
    let mut first_withdrawal = None;
    for _ in 0..98 {
        story.run(20 * MINUTE);
        story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
        let stopped = story.keyring("tokens").keys.iter().find_map(|key| key.withdraw_after);
        first_withdrawal = first_withdrawal.or(stopped);
    }
    story.run(20 * MINUTE);
    assert_eq!(story.keyrings.published_in(&SetName::Issuer("main".to_owned())), 100);
    assert_eq!(refusal(rotate(&story.keyrings, story.now, "tokens", None)), (Rule::I6, first_withdrawal));
}

#[test]
fn compromise_promotes_the_standby_only_if_it_has_aged() {
    let mut story = standing();
    let (kid, since, now) = (story.active_kid("tokens"), story.now, story.now);
    assert_eq!(refusal(compromise(&story.keyrings, now, &kid, since + MINUTE, "leak")), (Rule::Form, None));
    let early = compromise(&story.keyrings, now, &kid, since, "leak").expect("allowed");
    let [Event::KeyCompromised(early)] = early.as_slice() else { panic!("one event") };
    assert_eq!((early.to.as_ref(), early.next_rotation), (None, None));
    story.run(DAY);
    let standby = story.standby_kid("tokens");
    story.verb(|keyrings, now| compromise(keyrings, now, &kid, since, "leak"));
    assert_eq!(story.active_kid("tokens"), standby);
    assert_eq!(refusal(compromise(&story.keyrings, story.now, &kid, since, "leak")), (Rule::I11, None));
}

#[test]
fn a_standby_that_never_signed_did_not_stop_signing() {
    let mut story = standing();
    let (kid, since) = (story.standby_kid("tokens"), story.now);
    story.verb(|keyrings, now| compromise(keyrings, now, &kid, since, "leak"));
    let (_, key) = story.keyrings.key(&kid).expect("known");
    assert_eq!((key.state, key.stopped), (State::Compromised, None));
    assert_eq!(story.states("tokens")[0], "active");
}

#[test]
fn suspend_and_resume_are_for_the_key_that_signs() {
    let mut story = standing();
    let (kid, standby) = (story.active_kid("tokens"), story.standby_kid("tokens"));
    let text = suspend(&story.keyrings, &standby, "doubt").expect_err("refused").to_string();
    assert!(text.ends_with("a standby is abandoned, not suspended (I11)"), "{text}");
    assert_eq!(refusal(resume(&story.keyrings, &kid, "fine")), (Rule::I11, None));
    story.verb(|keyrings, _| suspend(keyrings, &kid, "doubt"));
    assert!(story.keyring("tokens").active().is_none());
    story.verb(|keyrings, _| resume(keyrings, &kid, "fine"));
    assert_eq!(story.active_kid("tokens"), kid);
}

#[test]
fn destroy_is_guarded_until_its_date() {
    let mut story = standing();
    let first = story.active_kid("tokens");
    assert_eq!(refusal(destroy(&story.keyrings, story.now, &first)), (Rule::I11, None));
    story.run(DAY);
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
    let overlap = wish("tokens").timing.overlap();
    let until = story.now + overlap + 7 * DAY;
    assert_eq!(refusal(destroy(&story.keyrings, story.now, &first)), (Rule::I3, Some(until)));
    story.run(overlap);
    assert_eq!(refusal(destroy(&story.keyrings, story.now, &first)), (Rule::I11, Some(until)));
    story.now = until;
    let allowed = destroy(&story.keyrings, story.now, &first).expect("its grace is over");
    assert!(matches!(allowed, Plan::Destroy { locator: Some(_), .. }));
    assert_eq!(story.plan(), allowed);
}

#[test]
fn abandon_takes_a_name_and_only_a_key_that_never_signed() {
    let mut story = standing();
    let (kid, standby) = (story.active_kid("tokens"), story.standby_kid("tokens"));
    assert_eq!(refusal(abandon(&story.keyrings, &kid, "test")), (Rule::I11, None));
    assert_eq!(refusal(abandon(&story.keyrings, "prod.tokens.9-00000000", "test")), (Rule::Form, None));
    let name = story.keyrings.key(&standby).and_then(|(_, key)| key.name.clone()).expect("named").to_string();
    story.verb(|keyrings, _| abandon(keyrings, &name, "test"));
    story.settle();
    assert_eq!(story.states("tokens"), ["active", "destroyed", "published"]);
}

#[test]
fn retire_is_final() {
    let mut story = standing();
    assert_eq!(refusal(retire(&story.keyrings, story.now, "tokens", "")), (Rule::Form, None));
    story.verb(|keyrings, now| retire(keyrings, now, "tokens", "done"));
    assert_eq!(refusal(retire(&story.keyrings, story.now, "tokens", "done")), (Rule::Form, None));
    assert_eq!(refusal(rotate(&story.keyrings, story.now, "tokens", Some("why not"))), (Rule::Form, None));
}

#[test]
fn imported_keys_join_the_set_and_leave_by_their_date() {
    let mut story = standing();
    let jwk = PublicKey::from_ed25519(&[7; 32]);
    let entries = |count: usize| -> Vec<Entry> {
        (0..count).map(|n| Entry { kid: format!("old-{n}"), jwk: jwk.clone(), algorithm: Algorithm::EdDSA }).collect()
    };
    let until = story.now + DAY;
    assert_eq!(refusal(import(&story.keyrings, story.now, "tokens", &entries(97), until, "move")), (Rule::I6, None));
    assert_eq!(refusal(import(&story.keyrings, story.now, "tokens", &[entries(1), entries(1)].concat(), until, "move")).0, Rule::Form);
    story.verb(|keyrings, now| import(keyrings, now, "tokens", &entries(2), until, "move"));
    story.settle();
    assert_eq!(story.keyrings.published_in(&SetName::Issuer("main".to_owned())), 4);
    assert_eq!(refusal(destroy(&story.keyrings, story.now, "old-0")), (Rule::Form, None));
    assert_eq!(story.settle(), Some(until));
    story.run(40 * DAY);
    let states: Vec<State> = ["old-0", "old-1"].iter().filter_map(|kid| Some(story.keyrings.key(kid)?.1.state)).collect();
    assert_eq!(states, [State::Withdrawn, State::Withdrawn]);
}
