//! Every risk: it is told when it is there, with its dates, and not before.

use claviger_audit::event::{KeyConforms, KeyDrifted};

use super::super::risk::{Code, Facts, NEARLY_FULL, Risk, UNCOVERED_FOR, overdue, risks, standby_since};
use super::super::timing::TICK;
use super::super::verbs::{abandon, compromise, retire, rotate, suspend};
use super::*;

const LEAD: Duration = Duration::from_secs(910 + 30);
const BUDGET: Duration = Duration::from_mins(10);
const MOMENT: Duration = Duration::from_millis(1);

fn standing() -> Story {
    let mut story = Story::with(&[wish("tokens")]);
    story.settle();
    story
}

fn told(story: &Story) -> Vec<Risk> {
    risks(&story.keyrings, story.now, &facts(story))
}

/// What the shell would know: keystores that are down have been so since now.
fn facts(story: &Story) -> Facts {
    Facts { away: story.down.iter().map(|name| (name.clone(), story.now)).collect(), ..Facts::default() }
}

fn codes(story: &Story) -> Vec<&'static str> {
    told(story).iter().map(|risk| risk.code.name()).collect()
}

fn only(story: &Story, code: Code) -> Risk {
    let found: Vec<Risk> = told(story).into_iter().filter(|risk| risk.code == code).collect();
    let [risk] = found.as_slice() else { panic!("{code:?} in {:?}", told(story)) };
    risk.clone()
}

/// Every moment at which the plan does something, over two rotations, and the moments just before and after.
#[test]
fn what_goes_by_the_plan_is_no_risk() {
    let mut story = standing();
    let end = story.now + 61 * DAY;
    while let Some(wake) = story.settle().filter(|wake| *wake <= end) {
        assert_eq!(codes(&story), [""; 0], "at {}", story.now);
        let before = wake - MOMENT;
        assert_eq!(risks(&story.keyrings, before.max(story.now), &facts(&story)), [], "before {wake}");
        story.now = wake;
    }
    assert_eq!(story.events().iter().filter(|event| **event == "key.rotated").count(), 3);
}

#[test]
fn a_keystore_that_is_away_matters_when_a_rotation_is_near() {
    let mut story = standing();
    story.run(29 * DAY);
    story.down.insert("hsm".to_owned());
    assert_eq!(codes(&story), [""; 0], "a standby is there and the rotation far");
    let due = story.keyring("tokens").next_rotation.expect("a date");
    story.now = due - (LEAD + BUDGET) - MOMENT;
    assert_eq!(codes(&story), [""; 0]);
    story.now = due - (LEAD + BUDGET);
    let risk = only(&story, Code::KeystoreLost);
    assert_eq!((risk.keyring.as_deref(), risk.since, risk.until), (Some("tokens"), Some(story.now), Some(due)));
    assert!(risk.detail.contains(&due.to_string()) && risk.detail.contains("hsm"), "{}", risk.detail);
    assert_eq!(codes(&story), ["keystore_lost"]);
    story.down.clear();
    assert_eq!(codes(&story), [""; 0]);
}

/// The keystore goes, the next rotation uses the standby, and then nothing can be made: each risk in its turn, and all gone at the end.
#[test]
fn lateness_is_told_step_by_step_and_ends() {
    let mut story = standing();
    story.run(DAY);
    story.down.insert("hsm".to_owned());
    story.run(29 * DAY);
    let (activated, due) = (story.active("tokens").activated.expect("active"), story.keyring("tokens").next_rotation.expect("a date"));
    assert!(activated > story.now - DAY, "the standby took over");
    let late = activated + LEAD + BUDGET;
    story.run((late - MOMENT).since(story.now));
    assert_eq!(codes(&story), [""; 0], "there is still time to make one");
    story.run(MOMENT);
    let risk = only(&story, Code::NoStandby);
    assert_eq!((risk.since, risk.until), (Some(late), Some(due)));
    assert!(risk.detail.contains("keystore hsm has not made one"), "{}", risk.detail);

    story.run(due.since(story.now) + TICK);
    assert_eq!(overdue(story.keyring("tokens"), story.now), TICK);
    assert_eq!(codes(&story), ["no_standby", "keystore_lost"], "due, and within a tick");
    story.run(MOMENT);
    let risk = only(&story, Code::RotationOverdue);
    let oldest = due + LEAD + BUDGET;
    assert_eq!((risk.since, risk.until), (Some(due), Some(oldest)));
    assert_eq!(only(&story, Code::NoStandby).until, None, "the date has passed");

    story.run(oldest.since(story.now));
    assert!(!codes(&story).contains(&"key_too_old"));
    story.run(MOMENT);
    let risk = only(&story, Code::KeyTooOld);
    assert_eq!((risk.since, risk.until), (Some(oldest), None));
    assert!(risk.detail.contains("30d 25m 40s") && risk.detail.contains("rotate_every is 30d"), "{}", risk.detail);

    story.down.clear();
    story.run(BACKOFF);
    let risk = only(&story, Code::NoStandby);
    assert!(risk.detail.contains("may sign from"), "{}", risk.detail);
    assert!(!codes(&story).contains(&"keystore_lost"));
    story.run(LEAD);
    assert_eq!(codes(&story), [""; 0], "rotated");
}

/// With two keystores: the loss of the one that signs is told with the command that helps, the loss of the other when a rotation is near.
#[test]
fn a_lost_keystore_is_told_with_the_command_that_moves_signing() {
    let mut story = Story::with(&[KeyringWish { standby_keystore: Some("vault".to_owned()), ..wish("tokens") }]);
    story.settle();
    story.down.insert("hsm".to_owned());
    assert_eq!(codes(&story), [""; 0], "the standby is too young: nothing would help");
    story.down.clear();
    story.run(LEAD);
    story.down.insert("hsm".to_owned());
    let risk = only(&story, Code::SignerAway);
    assert_eq!((risk.keyring.as_deref(), risk.since, risk.until), (Some("tokens"), Some(story.now), None));
    assert!(risk.detail.contains("keystore hsm holds") && risk.detail.contains("`claviger keyring rotate tokens`"), "{}", risk.detail);
    assert_eq!(codes(&story), ["signer_away"]);
    story.down.insert("vault".to_owned());
    assert_eq!(codes(&story), [""; 0], "no command helps");
    story.down.remove("vault");
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
    assert_eq!(codes(&story), [""; 0], "it signs");
    // No next key can be made where it is to live.
    story.run(LEAD + BUDGET);
    let risk = only(&story, Code::NoStandby);
    assert!(risk.detail.contains("keystore hsm has not made one"), "{}", risk.detail);
    assert_eq!(codes(&story), ["no_standby"]);
}

#[test]
fn an_abandoned_standby_is_missed_at_once() {
    let mut story = standing();
    story.run(DAY);
    let standby = story.standby_kid("tokens");
    assert_eq!(standby_since(story.keyring("tokens")), story.keyrings.key(&standby).map(|(_, key)| key.entered()));
    story.verb(|keyrings, _| abandon(keyrings, &standby, "test"));
    let risk = only(&story, Code::NoStandby);
    assert_eq!((risk.since, risk.until), (Some(story.now), story.keyring("tokens").next_rotation));
    assert_eq!(standby_since(story.keyring("tokens")), None);
    story.run(LEAD);
    assert_eq!(codes(&story), [""; 0]);
}

#[test]
fn a_suspended_key_is_told_and_nothing_else_of_its_rotation() {
    let mut story = standing();
    story.run(DAY);
    let (kid, since) = (story.active_kid("tokens"), story.now);
    story.verb(|keyrings, _| suspend(keyrings, &kid, "doubt"));
    assert_eq!(only(&story, Code::Suspended).since, Some(since));
    story.run(60 * DAY);
    assert_eq!(codes(&story), ["suspended"]);
    assert_eq!(overdue(story.keyring("tokens"), story.now), Duration::ZERO, "it waits for an operator");
}

#[test]
fn nobody_who_signs_is_told_with_the_date_of_the_next() {
    let mut story = standing();
    let (kid, at) = (story.active_kid("tokens"), story.now);
    story.verb(|keyrings, now| compromise(keyrings, now, &kid, now, "stolen"));
    story.settle();
    let risk = only(&story, Code::NoSigner);
    assert_eq!((risk.since, risk.until), (Some(at), None));
    assert!(risk.detail.contains("the next key may from"), "{}", risk.detail);
    story.run(LEAD);
    assert_eq!(codes(&story), [""; 0]);

    // A new keyring has its budget.
    let mut dead = Story::with(&[wish("tokens")]);
    dead.down.insert("hsm".to_owned());
    dead.run(BUDGET.saturating_sub(MOMENT));
    assert_eq!(codes(&dead), ["keystore_lost"]);
    dead.run(MOMENT);
    assert_eq!(codes(&dead), ["no_signer", "keystore_lost"]);
}

#[test]
fn a_key_that_stays_too_long_is_told() {
    let mut story = standing();
    story.run(DAY);
    story.verb(|keyrings, now| rotate(keyrings, now, "tokens", None));
    let due = story.keyring("tokens").keys.iter().find_map(|key| key.withdraw_after).expect("one retires");
    // Nobody plans: the daemon is down, or its log is dead.
    story.now = due + TICK;
    assert!(!codes(&story).contains(&"withdrawal_overdue"));
    story.now = due + TICK + MOMENT;
    assert_eq!(only(&story, Code::WithdrawalOverdue).since, Some(due));
}

/// Told for every key that verifiers trust or will, whoever signs, until it conforms or is over.
#[test]
fn a_key_that_drifted_is_told_with_its_kid() {
    let mut story = standing();
    story.run(DAY);
    let (active, standby, since) = (story.active_kid("tokens"), story.standby_kid("tokens"), story.now);
    let drifted = |kid: &str, found: &str| Event::KeyDrifted(KeyDrifted { keyring: "tokens".into(), kid: kid.into(), found: found.into() });
    story.append(drifted(&active, "extractable is true, was false"));
    let risk = only(&story, Code::KeyDrifted);
    assert_eq!((risk.keyring.as_deref(), risk.since, risk.until), (Some("tokens"), Some(since), None));
    assert!(risk.detail.contains(&active) && !risk.detail.contains("extractable"), "{}", risk.detail);
    story.now = story.now + MINUTE;
    story.append(drifted(&active, "it is gone"));
    assert_eq!(only(&story, Code::KeyDrifted).since, Some(since), "still the same trouble");
    story.append(drifted(&standby, "it is gone"));
    assert_eq!(codes(&story), ["key_drifted", "key_drifted"]);
    assert_eq!(story.active_kid("tokens"), active, "it is not for the plan to decide");
    story.append(Event::KeyConforms(KeyConforms { keyring: "tokens".into(), kid: standby }));
    assert!(only(&story, Code::KeyDrifted).detail.contains(&active));
    story.verb(|keyrings, now| retire(keyrings, now, "tokens", "test"));
    assert_eq!(codes(&story), ["key_drifted"], "verifiers trust it still");
    story.run(DAY);
    assert_eq!(codes(&story), [""; 0], "withdrawn");
}

#[test]
fn a_retired_keyring_owes_only_its_withdrawals() {
    let mut story = standing();
    story.run(DAY);
    story.verb(|keyrings, now| retire(keyrings, now, "tokens", "test"));
    story.now = story.now + DAY;
    assert_eq!(codes(&story), ["withdrawal_overdue"]);
    story.settle();
    assert_eq!(codes(&story), [""; 0]);
}

#[test]
fn a_set_is_nearly_full_at_nine_tenths() {
    let wishes: Vec<KeyringWish> = (0..NEARLY_FULL / 2).map(|number| wish(&format!("k{number}"))).collect();
    let mut story = Story::with(&wishes[..NEARLY_FULL / 4]);
    story.settle();
    story.reconcile(&wishes[..wishes.len() - 1]);
    story.run(LEAD);
    assert_eq!(codes(&story), [""; 0]);
    story.reconcile(&wishes);
    story.run(LEAD);
    let risk = only(&story, Code::SetNearlyFull);
    assert_eq!(risk.keyring, None);
    assert!(risk.detail.contains("issuer/main holds 90 keys of at most 100"), "{}", risk.detail);
}

#[test]
fn what_the_shell_knows_endangers_all() {
    let story = standing();
    let since = story.now;
    let facts = Facts {
        clock_paused: Some(since),
        disk_low: Some(7),
        uncovered: BTreeMap::from([("keys", since), ("uses", since + MINUTE)]),
        dead_logs: BTreeSet::from(["uses"]),
        ..Facts::default()
    };
    let named = |now| risks(&story.keyrings, now, &facts).iter().map(|risk| risk.code.name()).collect::<Vec<_>>();
    assert_eq!(named(since + UNCOVERED_FOR - MOMENT), ["log_dead", "clock_paused", "disk_low"]);
    assert_eq!(named(since + UNCOVERED_FOR), ["log_dead", "clock_paused", "disk_low", "log_uncovered"]);
    let all = risks(&story.keyrings, since + UNCOVERED_FOR, &facts);
    assert!(all.iter().all(|risk| risk.keyring.is_none()));
    assert!(all[3].detail.contains("log keys") && all[3].since == Some(since), "{:?}", all[3]);
    assert!(all[2].detail.contains("7 %"));
}

#[test]
fn names_of_risks_are_told_apart() {
    let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
}
