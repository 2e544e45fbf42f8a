//! Honest worlds have no difference, whatever befalls them; whoever changes one entry or one record makes one.
//!
//! In scope: which signatures are explained. Out of scope: what covers a signature without a record (`allowances`), and what nobody can say
//! (`ends`).

use proptest::prelude::*;
use serde_json::json;

use super::APART;
use super::account::HEARTBEAT;
use crate::Algorithm;
use crate::event::*;
use crate::record::Record;
use crate::verify::Verdict;

mod allowances;
mod backends;
mod ends;
mod world;

use world::*;

/// What happens to a request: how, and by which key.
fn happenings(most: u8) -> impl Strategy<Value = Vec<(u8, usize)>> {
    proptest::collection::vec((0..most, 0..KEYS), 1..40)
}

/// Kills too, as many as there is time for on one day.
fn few_kills() -> impl Strategy<Value = Vec<(u8, usize)>> {
    happenings(8).prop_filter("one day", |happened| happened.iter().filter(|(what, _)| *what == 7).count() < 12)
}

fn told(happenings: &[(u8, usize)]) -> World {
    told_of(World::new(), happenings)
}

fn told_of(mut world: World, happenings: &[(u8, usize)]) -> World {
    // An hour in, so that neither end is near: more than every margin.
    let mut seconds = BEGIN + 3_600;
    for (what, key) in happenings {
        match what {
            0..=3 => world.sign(seconds, *key),
            4 => world.unanswered(seconds, *key),
            5 => world.refused(seconds, *key),
            6 => world.unusable(seconds, *key),
            _ => {
                world.killed(seconds, *key);
                seconds += 3_600;
            }
        }
        seconds += 7;
    }
    world.ended()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_honest_world_differs_in_nothing(happened in few_kills()) {
        let world = told(&happened);
        let (result, findings) = world.compare();
        prop_assert_eq!(findings, Vec::new());
        let count = |what: &[u8]| happened.iter().filter(|(happening, _)| what.contains(happening)).count() as u64;
        prop_assert_eq!((result.matched, result.allowed_count), (KEYS as u64 + count(&[0, 1, 2, 3, 6]), count(&[4, 7])));
        prop_assert_eq!((result.foreign, result.too_new, result.too_old, result.log_keys), (0, 0, 0, 0));
    }

    #[test]
    fn an_entry_that_is_taken_away_is_missed(happened in happenings(7), place in any::<prop::sample::Index>()) {
        let mut world = told(&happened);
        let signed: Vec<&Record> = world.uses.iter().filter(|record| matches!(&record.event, Event::Sign(_))).collect();
        prop_assume!(!signed.is_empty());
        let Event::Sign(Sign { backend_request: Some(request), .. }) = &place.get(&signed).event else { unreachable!() };
        let request = request.clone();
        world.trail.retain(|event| event["requestID"] != request);
        world.vault.retain(|line| !line.contains(&request));
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        prop_assert!(differences[0].starts_with("the keystore's own record shows no signature"), "{differences:?}");
    }

    #[test]
    fn a_record_that_is_taken_away_is_missed(happened in happenings(7), place in any::<prop::sample::Index>()) {
        let mut world = told(&happened);
        let explains = |record: &&Record| matches!(&record.event, Event::Sign(_) | Event::SignUnanswered(_))
            || matches!(&record.event, Event::SignFailed(failed) if failed.backend_request.is_some());
        let seqs: Vec<u64> = world.uses.iter().filter(explains).map(|record| record.seq).collect();
        prop_assume!(!seqs.is_empty());
        let gone = *place.get(&seqs);
        world.uses.retain(|record| record.seq != gone);
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        prop_assert!(differences[0].contains("that no record explains"), "{differences:?}");
    }

    #[test]
    fn an_id_or_a_kid_that_is_changed_is_seen(happened in happenings(7), place in any::<prop::sample::Index>(), other in 0..KEYS) {
        let world = told(&happened);
        let signs: Vec<usize> = world.uses.iter().enumerate().filter(|(_, record)| matches!(record.event, Event::Sign(_))).map(|(i, _)| i).collect();
        prop_assume!(!signs.is_empty());
        let change = |change: &dyn Fn(&mut Sign)| {
            let mut world = world.clone();
            let Event::Sign(sign) = &mut world.uses[*place.get(&signs)].event else { unreachable!() };
            change(sign);
            world.differences()
        };
        prop_assert_eq!(change(&|sign| sign.backend_request = Some("8d0b35e0-0000-0000-0000-000000000000".into())).len(), 2);
        let same = change(&|sign| sign.kid = kid(other));
        let Event::Sign(sign) = &world.uses[*place.get(&signs)].event else { unreachable!() };
        prop_assert_eq!(same.len(), usize::from(sign.kid != kid(other)), "{:?}", same);
    }

    #[test]
    fn a_signature_of_somebody_else_is_seen(happened in few_kills(), key in 0..KEYS, later in 0_u64..80_000) {
        // As many calls were in flight at each kill as its start names: then nothing is left for a thief.
        let mut world = told_of(World::with(1), &happened);
        let request = world.next();
        world.entry(BEGIN + 3_600 + later, key, &request, None);
        let differences = world.differences();
        prop_assert_eq!(differences.len(), 1);
        // Beside an honest call without an answer nobody can say which of the two was counted; one of them is told.
        let is_thief = differences[0].contains(if key < 2 { "assumed-role/claviger" } else { "approle role claviger from 192.0.2.8" });
        prop_assert!(is_thief || happened.iter().any(|(what, _)| *what == 7), "{differences:?}");
    }
}

#[test]
fn two_records_of_one_signature_are_one_too_many() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 2);
    let Event::Sign(Sign { backend_request: Some(request), .. }) = world.uses.last().unwrap().event.clone() else { unreachable!() };
    world.sign_record(BEGIN + 7_201, 2, &request);
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].starts_with("two records name one signature"), "{differences:?}");
}

#[test]
fn a_batch_is_never_ours() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 2);
    let batch = world
        .vault
        .last()
        .unwrap()
        .replace(r#""input":"hmac-sha256:00""#, r#""batch_input":[{"input":"hmac-sha256:00"},{"input":"hmac-sha256:01"}]"#);
    *world.vault.last_mut().unwrap() = batch;
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].contains("signed several inputs"), "{differences:?}");
}

#[test]
fn keys_of_ours_that_no_record_knows_are_seen_and_others_are_not() {
    let mut world = World::new();
    // In Vault the name tells whose it is; in KMS an alias or a tag does.
    let request = world.next();
    world.entry(BEGIN + 7_200, 7, &request, None);
    let foreign = format!("arn:aws:kms:eu-central-1:{TRAIL}:key/00000000-0000-0000-0000-000000000001");
    for (event, parameters) in [
        ("CreateAlias", json!({"aliasName": "alias/prod/access/8-c1a10000", "targetKeyId": foreign})),
        ("Sign", json!({"keyId": foreign})),
        ("Sign", json!({"keyId": "alias/somebody-elses"})),
    ] {
        let request = world.next();
        world.trail.push(
            json!({"eventSource": "kms.amazonaws.com", "eventName": event, "eventTime": time(BEGIN + 7_300), "awsRegion": "eu-central-1",
            "recipientAccountId": TRAIL, "requestID": request, "requestParameters": parameters}),
        );
    }
    world.vault.push(
        json!({"time": time(BEGIN + 7_400), "type": "response", "request": {"id": "x", "path": "transit/sign/somebody-elses"}}).to_string(),
    );
    let world = world.ended();
    let differences = world.differences();
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences.iter().all(|text| text.contains("that no record knows")), "{differences:?}");
    assert_eq!(world.compare().0.foreign, 1);
}

#[test]
fn log_keys_are_counted_only() {
    let mut world = World::new();
    for key in [KEYS, 9] {
        let request = world.next();
        world.entry(BEGIN + 7_200, key, &request, None);
    }
    let (result, findings) = world.ended().compare();
    // The second one is named as a key of the keyring, and the use log says that it is its own.
    assert_eq!((result.log_keys, findings), (2, Vec::new()));
}

#[test]
fn a_record_of_another_time_or_of_no_key_compares_nothing() {
    let mut world = World::new();
    world.sign(BEGIN + 7_200, 0);
    world.trail.clear();
    world.traffic(BEGIN - 86_400);
    let (result, findings) = world.compare();
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!((result.differing, findings[0].verdict, texts.len()), (0, Verdict::Unpinned, 1));
    assert!(texts[0].starts_with("nothing was compared with trail"), "{texts:?}");
}

/// The self-test of a key that never came to be: a kid that no record tells, of a key that was asked for.
#[test]
fn a_self_test_that_fails_is_explained() {
    let mut world = World::new();
    let requested = KeyRequested { key: name(5), keyring: "access".into(), keystore: "vault".into(), algorithm: Algorithm::EdDSA };
    world.record(LogKind::Keys, BEGIN + 7_000, Event::KeyRequested(requested));
    let (keyring, code) = ("access".to_owned(), "self_test".to_owned());
    let backend_request = Some(world.signed(BEGIN + 7_100, 5));
    let failed = SignFailed { keyring: keyring.clone(), kid: "new".into(), code, reason: None, of: None, backend_request };
    world.record(LogKind::Uses, BEGIN + 7_100, Event::SignFailed(failed));
    world.signed(BEGIN + 7_200, 5);
    world.record(LogKind::Uses, BEGIN + 7_210, Event::SignUnanswered(SignUnanswered { keyring, kid: "new".into(), count: 1 }));
    let mut thief = world.clone();
    let (result, findings) = world.ended().compare();
    assert_eq!((result.matched, result.allowed_count, findings), (KEYS as u64 + 1, 1, Vec::new()));
    thief.signed(BEGIN + 7_220, 5);
    let differences = thief.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].contains("was never taken into use"), "{differences:?}");
}
