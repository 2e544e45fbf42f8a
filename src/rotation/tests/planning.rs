//! The plan, situation by situation.

use super::*;

/// D + e and Q + T + 2e of the default settings.
const LEAD: Duration = Duration::from_secs(940);
const OVERLAP: Duration = Duration::from_secs(962);
/// A minute less than the default period.
const NEARLY_DUE: Duration = Duration::from_mins(30 * 24 * 60 - 1);

fn standing() -> Story {
    let mut story = Story::with(&[wish("tokens")]);
    story.settle();
    story
}

#[test]
fn a_keyring_starts_before_anything_is_served() {
    let story = standing();
    assert_eq!(story.states("tokens"), ["active", "published"]);
    let first_served = story.events().iter().position(|name| *name == "jwks.served");
    let bootstrap = story.events().iter().position(|name| *name == "key.rotated");
    assert!(bootstrap < first_served && bootstrap.is_some(), "{:?}", story.events());
}

#[test]
fn rotation_comes_when_due_and_the_old_key_leaves_by_its_date() {
    let mut story = standing();
    let start = story.now;
    let first = story.active_kid("tokens");
    assert_eq!(story.settle(), Some(start + 30 * DAY));
    story.run(NEARLY_DUE);
    assert_eq!(story.active_kid("tokens"), first);
    story.run(MINUTE);
    assert_eq!(story.states("tokens"), ["retiring", "active", "published"]);
    assert_eq!(story.settle(), Some(start + 30 * DAY + OVERLAP));
    story.run(OVERLAP);
    assert_eq!(story.states("tokens"), ["withdrawn", "active", "published"]);
    story.run(7 * DAY);
    assert_eq!(story.states("tokens"), ["destroyed", "active", "published"]);
}

#[test]
fn a_dead_keystore_blocks_neither_withdrawal_nor_the_keyrings_elsewhere() {
    let other = KeyringWish { keystore: "vault".to_owned(), ..wish("other") };
    let mut story = Story::with(&[wish("tokens"), other]);
    story.settle();
    story.run(NEARLY_DUE);
    story.down.insert("hsm".to_owned());
    story.run(MINUTE + OVERLAP);
    assert_eq!(story.states("tokens"), ["withdrawn", "active", "requested"]);
    assert_eq!(story.states("other"), ["withdrawn", "active", "published"]);
    story.down.clear();
    story.run(2 * MINUTE);
    assert_eq!(story.states("tokens"), ["withdrawn", "active", "published"]);
}

/// A keystore that makes a key, or destroys one, for minutes: everything else goes on, and nothing is begun twice.
#[test]
fn a_keystore_that_is_busy_delays_nobody_else() {
    let mut story = Story::with(&[wish("tokens"), KeyringWish { keystore: "vault".to_owned(), ..wish("other") }]);
    story.settle();
    story.run(NEARLY_DUE);
    story.busy.insert("hsm".to_owned());
    story.run(MINUTE + OVERLAP + 7 * DAY);
    assert_eq!(story.states("tokens"), ["withdrawn", "active", "requested"]);
    assert_eq!(story.states("other"), ["destroyed", "active", "published"]);
    story.busy.clear();
    story.settle();
    assert_eq!(story.states("tokens"), ["destroyed", "active", "published"]);
}

#[test]
fn one_refused_key_does_not_starve_the_others_of_its_keystore() {
    let mut story = Story::with(&[wish("a"), wish("b")]);
    let Plan::Append(event) = story.plan() else { panic!("a request comes first") };
    story.append(event);
    let Plan::Create { name, .. } = story.plan() else { panic!("then its creation") };
    story.refused.insert(name.clone(), story.now + DAY);
    story.settle();
    assert_eq!(story.states("a"), ["requested"]);
    assert_eq!(story.states("b"), ["active", "published"]);
    story.refused.remove(&name);
    story.run(LEAD);
    // The issuer's set was served meanwhile, so the key had to age.
    assert_eq!(story.states("a"), ["active", "published"]);
    assert!(story.active("a").activated >= Some(story.now));
}

#[test]
fn the_first_set_waits_for_every_keyring_that_can_start() {
    let other = KeyringWish { keystore: "vault".to_owned(), ..wish("other") };
    let mut story = Story::with(&[wish("tokens"), other]);
    let issuer = SetName::Issuer("main".to_owned());
    while story.keyring("tokens").active().is_none() {
        assert!(!story.serve() || !story.keyrings.was_served(&issuer), "served before every keyring has started");
        let step = story.plan();
        story.carry_out(step);
    }
    assert!(story.serve() && story.keyrings.was_served(&issuer));
}

#[test]
fn a_dead_keystore_does_not_hold_the_first_set_but_an_empty_one_is_never_served() {
    let other = KeyringWish { keystore: "vault".to_owned(), ..wish("other") };
    let mut story = Story::with(&[wish("tokens"), other]);
    story.down.insert("vault".to_owned());
    story.settle();
    assert_eq!((story.states("tokens"), story.states("other")), (vec!["active", "published"], vec!["requested"]));
    assert!(story.keyrings.was_served(&SetName::Issuer("main".to_owned())));
    assert!(!story.keyrings.was_served(&SetName::Keyring("other".to_owned())));

    let mut alone = Story::with(&[wish("tokens")]);
    alone.down.insert("hsm".to_owned());
    alone.settle();
    assert!(!alone.events().contains(&"jwks.served"));
}

#[test]
fn a_keystore_that_dies_after_creation_costs_no_start() {
    let mut story = Story::with(&[wish("tokens")]);
    while story.states("tokens") != ["published"] {
        let step = story.plan();
        story.carry_out(step);
    }
    story.down.insert("hsm".to_owned());
    story.unavailable.insert("hsm".to_owned(), story.now + MINUTE);
    assert!(!story.serve(), "served before the key could start");
    story.settle();
    assert_eq!(story.states("tokens"), ["active"]);
}

#[test]
fn a_migration_keeps_the_old_standby_until_the_new_one_may_sign() {
    let mut story = standing();
    story.run(DAY);
    story.reconcile(&[KeyringWish { algorithm: Algorithm::Ed25519, ..wish("tokens") }]);
    story.settle();
    assert_eq!(story.states("tokens"), ["active", "published", "published"]);
    story.run(LEAD.saturating_sub(MINUTE));
    assert_eq!(story.states("tokens"), ["active", "published", "published"]);
    story.run(MINUTE);
    assert_eq!(story.states("tokens"), ["active", "destroyed", "published"]);
    story.run(30 * DAY);
    assert_eq!(story.active("tokens").algorithm, Algorithm::Ed25519);
}

#[test]
fn a_due_rotation_waits_for_the_new_standby_but_not_for_ever() {
    let mut story = standing();
    story.run(NEARLY_DUE);
    story.down.insert("vault".to_owned());
    story.reconcile(&[KeyringWish { keystore: "vault".to_owned(), ..wish("tokens") }]);
    story.run(MINUTE);
    assert_eq!(story.states("tokens"), ["active", "published", "requested"]);
    story.run(LEAD + 10 * MINUTE);
    assert_eq!(story.states("tokens"), ["retiring", "active", "requested"]);
    assert_eq!(story.active("tokens").keystore, "hsm");
}

#[test]
fn two_changes_of_mind_leave_one_fallback() {
    let mut story = standing();
    story.run(DAY);
    for keystore in ["vault", "kms"] {
        story.reconcile(&[KeyringWish { keystore: keystore.to_owned(), ..wish("tokens") }]);
        story.settle();
    }
    assert_eq!(story.states("tokens"), ["active", "published", "destroyed", "published"]);
    story.reconcile(&[wish("tokens")]);
    story.settle();
    assert_eq!(story.states("tokens"), ["active", "published", "destroyed", "destroyed"]);
}

#[test]
fn nobody_signs_after_a_compromise_until_the_standby_has_aged() {
    let mut story = standing();
    let (kid, since) = (story.active_kid("tokens"), story.now);
    story.verb(|keyrings, now| super::super::verbs::compromise(keyrings, now, &kid, since, "leaked"));
    let start = story.now;
    assert_eq!(story.settle(), Some(start + LEAD));
    assert_eq!(story.states("tokens"), ["destroyed", "published"]);
    story.run(LEAD);
    assert_eq!(story.states("tokens"), ["destroyed", "active", "published"]);
}

#[test]
fn a_suspended_keyring_does_not_rotate_by_itself() {
    let mut story = standing();
    let kid = story.active_kid("tokens");
    story.run(DAY);
    story.verb(|keyrings, _| super::super::verbs::suspend(keyrings, &kid, "doubt"));
    assert_eq!(story.settle(), None);
    story.run(60 * DAY);
    assert_eq!(story.states("tokens"), ["suspended", "published"]);
    story.verb(|keyrings, _| super::super::verbs::resume(keyrings, &kid, "cleared"));
    story.settle();
    assert_eq!(story.states("tokens"), ["retiring", "active", "published"]);
}

#[test]
fn a_retired_keyring_ends_by_its_dates() {
    let mut story = standing();
    story.verb(|keyrings, now| super::super::verbs::retire(keyrings, now, "tokens", "no longer used"));
    story.settle();
    assert_eq!(story.states("tokens"), ["retiring", "destroyed"]);
    story.run(OVERLAP + 7 * DAY);
    assert_eq!(story.states("tokens"), ["destroyed", "destroyed"]);
    assert_eq!(story.settle(), None);
}

#[test]
fn dates_that_fell_due_while_down_are_held_and_later_ones_are_not() {
    let short = KeyringWish { timing: timing(|s| s.rotate_every = DAY), ..wish("short") };
    let mut story = Story::with(&[wish("tokens"), short]);
    story.settle();
    story.stop();
    story.now = story.now + 2 * DAY;
    story.start();
    let until = story.now + LEAD;
    story.dates = DateGate::Held { due_before: story.now, until };
    assert_eq!(story.settle(), Some(until));
    assert_eq!(story.states("short"), ["active", "published"]);
    story.run(LEAD);
    assert_eq!(story.states("short"), ["retiring", "active", "published"]);
    // A withdrawal that falls due after the start is not held.
    story.dates = DateGate::Held { due_before: story.now - 2 * DAY, until: story.now + 300 * DAY };
    story.run(OVERLAP);
    assert_eq!(story.states("short"), ["withdrawn", "active", "published"]);
}

#[test]
fn while_the_clock_is_in_doubt_only_a_compromised_key_is_disabled() {
    let mut story = standing();
    let (kid, since) = (story.standby_kid("tokens"), story.now);
    story.dates = DateGate::Paused;
    story.now = story.now + 400 * DAY;
    assert_eq!(story.settle(), None);
    story.verb(|keyrings, now| super::super::verbs::compromise(keyrings, now, &kid, since, "leaked"));
    assert_eq!(story.settle(), None);
    assert_eq!(story.states("tokens"), ["active", "destroyed"]);
    story.dates = DateGate::Open;
    story.settle();
    assert_eq!(story.states("tokens"), ["active", "destroyed", "published"]);
}

#[test]
fn a_renamed_node_does_not_hold_up_rotation() {
    let mut story = standing();
    story.stop();
    story.node = "b";
    story.start();
    story.serve();
    story.run(30 * DAY + LEAD);
    story.run(31 * DAY);
    assert!(story.active("tokens").number() >= 3);
}

#[test]
fn a_lower_lead_counts_only_after_the_old_one() {
    let mut story = standing();
    let (kid, since) = (story.active_kid("tokens"), story.now);
    story.run(MINUTE);
    story.verb(|keyrings, now| super::super::verbs::compromise(keyrings, now, &kid, since, "leaked"));
    let lowered = timing(|s| (s.verifier_poll, s.jwks_max_age) = (MINUTE, MINUTE));
    story.reconcile(&[KeyringWish { timing: lowered, ..wish("tokens") }]);
    // The standby was visible a minute ago: its old lead ends first.
    assert_eq!(story.settle(), Some(since + LEAD));
}

#[test]
fn a_key_that_follows_a_lower_lead_still_waits_for_the_old_one() {
    let mut story = standing();
    story.run(DAY);
    let lowered = timing(|s| (s.verifier_poll, s.jwks_max_age) = (MINUTE, MINUTE));
    story.reconcile(&[KeyringWish { timing: lowered, ..wish("tokens") }]);
    let since = story.now;
    story.run(MINUTE);
    for kid in [story.standby_kid("tokens"), story.active_kid("tokens")] {
        story.verb(|keyrings, now| super::super::verbs::compromise(keyrings, now, &kid, since, "leaked"));
    }
    // Published a minute after the change: a verifier may still be polling at the old pace, and a date only moves later.
    assert_eq!(story.settle(), Some(since + MINUTE + LEAD));
    story.run(LEAD);
    assert_eq!(story.states("tokens"), ["destroyed", "destroyed", "active", "published"]);
}

fn two(first: &str, second: Option<&str>) -> KeyringWish {
    KeyringWish { keystore: first.to_owned(), standby_keystore: second.map(str::to_owned), ..wish("tokens") }
}

/// State and keystore of every key that is not over.
fn living(story: &Story) -> Vec<(&'static str, &str)> {
    let over = [State::Abandoned, State::Destroyed, State::Withdrawn];
    let keys = story.keyring("tokens").keys.iter().filter(|key| !over.contains(&key.state));
    keys.map(|key| (key.state.name(), key.keystore.as_str())).collect()
}

#[test]
fn keys_alternate_between_two_keystores() {
    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    story.settle();
    assert_eq!(living(&story), [("active", "hsm"), ("published", "vault")]);
    story.run(30 * DAY + OVERLAP);
    assert_eq!(living(&story), [("active", "vault"), ("published", "hsm")]);
    story.run(30 * DAY + OVERLAP);
    assert_eq!(living(&story), [("active", "hsm"), ("published", "vault")]);
}

#[test]
fn another_standby_keystore_keeps_the_old_standby_until_the_new_one_may_sign() {
    let mut story = Story::with(&[two("hsm", None)]);
    story.settle();
    story.run(DAY);
    for second in ["vault", "kms"] {
        story.reconcile(&[two("hsm", Some(second))]);
        story.settle();
        let before = living(&story)[1].1.to_owned();
        assert_eq!(living(&story), [("active", "hsm"), ("published", before.as_str()), ("published", second)]);
        story.run(LEAD);
        assert_eq!(living(&story), [("active", "hsm"), ("published", second)]);
    }
    // Signing moves; then the keystores change places, and what is there still fits.
    story.verb(|keyrings, now| super::super::verbs::rotate(keyrings, now, "tokens", None));
    story.run(OVERLAP);
    assert_eq!(living(&story), [("active", "kms"), ("published", "hsm")]);
    story.reconcile(&[two("kms", Some("hsm"))]);
    story.run(LEAD);
    assert_eq!(living(&story), [("active", "kms"), ("published", "hsm")]);
    story.reconcile(&[two("kms", None)]);
    story.run(LEAD);
    assert_eq!(living(&story), [("active", "kms"), ("published", "kms")]);
}

#[test]
fn signing_does_not_move_by_itself_to_a_keystore_that_does_not_answer() {
    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    story.settle();
    story.run(NEARLY_DUE);
    story.down.insert("vault".to_owned());
    story.run(DAY);
    assert_eq!(living(&story), [("active", "hsm"), ("published", "vault")]);
    // Where the key that signs is lost too, the rotation costs nothing, and one of them may be back first.
    story.down.insert("hsm".to_owned());
    story.run(MINUTE);
    assert_eq!(living(&story)[..2], [("retiring", "hsm"), ("active", "vault")]);
    story.down.clear();

    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    story.settle();
    story.run(NEARLY_DUE);
    story.down.insert("vault".to_owned());
    story.run(DAY);
    story.down.clear();
    story.settle();
    assert_eq!(living(&story)[..2], [("retiring", "hsm"), ("active", "vault")], "as soon as it answers");
}

/// The keystore of the key that signs is lost for good: one rotation, and nothing of the keyring waits for it any more.
#[test]
fn a_lost_keystore_is_survived_by_a_rotation() {
    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    story.settle();
    story.run(DAY);
    story.down.insert("hsm".to_owned());
    story.verb(|keyrings, now| super::super::verbs::rotate(keyrings, now, "tokens", None));
    story.run(OVERLAP);
    assert_eq!(story.active("tokens").keystore, "vault");
    assert_eq!(living(&story), [("active", "vault"), ("requested", "hsm")], "withdrawn on its date");
    story.reconcile(&[two("vault", Some("kms"))]);
    story.run(LEAD);
    assert_eq!(living(&story), [("active", "vault"), ("published", "kms")]);
}

/// Nobody signs, and the keystore in which the next key is to be made does not answer: the other one makes it.
#[test]
fn while_nobody_signs_the_keystore_that_answers_makes_the_next_key() {
    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    story.down.insert("hsm".to_owned());
    story.settle();
    assert_eq!(living(&story), [("active", "vault"), ("requested", "hsm")]);

    // Requested before anybody knew that it does not answer.
    let mut story = Story::with(&[two("hsm", Some("vault"))]);
    let Plan::Append(request) = story.plan() else { panic!("a request comes first") };
    story.append(request);
    story.down.insert("hsm".to_owned());
    story.settle();
    assert_eq!(living(&story), [("requested", "hsm"), ("active", "vault")]);
    story.down.clear();
    story.settle();
    assert_eq!(living(&story), [("published", "hsm"), ("active", "vault")]);

    // A compromise leaves the one that ripens, wherever it is.
    let kid = story.active_kid("tokens");
    story.verb(|keyrings, now| super::super::verbs::compromise(keyrings, now, &kid, now, "leaked"));
    story.run(LEAD);
    assert_eq!(living(&story), [("active", "hsm"), ("published", "vault")]);
}
