//! What the keystores' own records hold beside signatures by our keys, and what they leave out.

use serde_json::{Value, json};

use super::world::*;
use crate::event::*;
use crate::verify::Verdict;

const LATER: u64 = BEGIN + 7_200;

/// The last event of the trail.
fn event(world: &mut World) -> &mut Value {
    world.trail.last_mut().unwrap()
}

/// Changes the response of the last request to Vault.
fn answer(world: &mut World, change: impl Fn(&mut Value)) {
    let mut answer = serde_json::from_str(world.vault.last().unwrap()).unwrap();
    change(&mut answer);
    *world.vault.last_mut().unwrap() = answer.to_string();
}

#[test]
fn only_management_events_are_calls() {
    for (category, differing) in
        [(None, 1), (Some(""), 1), (Some("Management"), 1), (Some("NetworkActivity"), 0), (Some("Insight"), 0), (Some("Data"), 0)]
    {
        let mut world = World::new();
        world.signed(LATER, 0);
        if let Some(category) = category {
            event(&mut world)["eventCategory"] = category.into();
        }
        assert_eq!(world.ended().differences().len(), differing, "{category:?}");
    }
}

/// Whoever makes an entry of another key under the same id takes nothing away.
#[test]
fn the_first_entry_of_a_request_is_the_one_that_is_meant() {
    let mut world = World::new();
    world.sign(LATER, 0);
    let request = event(&mut world)["requestID"].as_str().unwrap().to_owned();
    world.entry(LATER, 1, &request, None);
    let differences = world.clone().ended().differences();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].starts_with("a signature by key kid-1"), "{differences:?}");
    // One key under two of its names is one key, delivered twice.
    *event(&mut world) = world.trail[world.trail.len() - 2].clone();
    event(&mut world)["resources"][0]["ARN"] = arn(0).rsplit_once('/').unwrap().1.into();
    let (result, findings) = world.ended().compare();
    assert_eq!((result.backends[0].doubled, findings), (1, Vec::new()));
}

#[test]
fn signatures_without_an_id_are_not_one_another() {
    let mut world = World::new();
    for _ in 0..2 {
        world.entry(LATER, 0, "", None);
    }
    assert_eq!(world.ended().differences().len(), 2);
}

/// A replica of a multi-region key holds the same private key.
#[test]
fn a_signature_in_another_region_is_by_the_same_key() {
    let mut world = World::new();
    world.signed(LATER, 0);
    let replica = arn(0).replace("eu-central-1", "eu-west-1");
    let event = event(&mut world);
    event["awsRegion"] = "eu-west-1".into();
    event["resources"][0]["ARN"] = replica.clone().into();
    event["requestParameters"]["keyId"] = replica.into();
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].starts_with("a signature by key kid-0"), "{differences:?}");
}

/// A key of the same name in another namespace is another key; with or without its namespace, ours is ours.
#[test]
fn a_namespace_is_part_of_the_key() {
    for (namespace, path, text) in [("team/", "", "by key kid-2"), ("", "team/", "by key kid-2"), ("other/", "", "that no record knows")] {
        let mut world = World::new();
        world.signed(LATER, 2);
        answer(&mut world, |entry| {
            entry["request"]["namespace"]["path"] = namespace.into();
            entry["request"]["path"] = format!("{path}transit/sign/{}", name(2)).into();
        });
        let differences = world.ended().differences();
        assert_eq!(differences.len(), 1);
        assert!(differences[0].contains(text), "{namespace}: {differences:?}");
    }
}

/// Not every Vault answers a batch in the same form; what was asked for tells.
#[test]
fn a_batch_is_told_by_its_request() {
    let mut world = World::new();
    world.sign(LATER, 2);
    answer(&mut world, |entry| {
        entry["request"]["data"] = json!({ "batch_input": [{ "input": "hmac-sha256:00" }] });
        entry["response"] = json!({ "data": {} });
    });
    let differences = world.ended().differences();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].contains("signed several inputs"), "{differences:?}");
}

#[test]
fn what_lets_a_key_out_of_sight_is_told() {
    let (ours, foreign) = (name(2).to_string(), "somebody-elses");
    let told = |path: &str, data: Value, error: Option<&str>| {
        let mut world = World::new();
        world.signed(LATER, 3);
        world.sign_record(LATER, 3, &format!("8d0b35e0-46cf-48b9-be99-{:012}", world.requests));
        let request = world.next();
        world.entry(LATER + 1, 2, &request, error);
        answer(&mut world, |entry| {
            entry["request"]["path"] = format!("transit/{path}").into();
            entry["request"]["data"] = data.clone();
        });
        let (result, findings) = world.ended().compare();
        assert_eq!(result.exposed, findings.len() as u64, "{path}");
        assert!(findings.iter().all(|finding| finding.found.as_ref().unwrap().contains(&request)), "{findings:?}");
        findings.len()
    };
    for (path, data) in [
        (format!("export/signing-key/{ours}"), json!(null)),
        (format!("export/signing-key/{ours}/latest"), json!(null)),
        (format!("byok-export/{foreign}/{ours}"), json!(null)),
        (format!("byok-export/{foreign}/{ours}/1"), json!(null)),
        (format!("backup/{ours}"), json!(null)),
        (format!("keys/{ours}/config"), json!({"exportable": true})),
        // A text is hashed: nobody can say that it was not "true".
        (format!("keys/{ours}/config"), json!({"allow_plaintext_backup": "hmac-sha256:00", "exportable": false})),
        (format!("keys/{ours}/csr"), json!({"csr": "hmac-sha256:00"})),
        (format!("keys/{ours}/rotate"), json!(null)),
    ] {
        assert_eq!(told(&path, data.clone(), None), 1, "{path} {data}");
        assert_eq!(told(&path, data, Some("permission denied")), 0, "{path}");
        assert_eq!(told(&path.replace(&ours, foreign), json!({"exportable": true}), None), 0, "{path}");
    }
    for (path, data) in [
        (format!("keys/{ours}/config"), json!({"deletion_allowed": true})),
        (format!("keys/{ours}/config"), json!({"exportable": false, "allow_plaintext_backup": null})),
        (format!("keys/{ours}"), json!({"exportable": false})),
        (format!("export/public-key/{ours}"), json!(null)),
    ] {
        assert_eq!(told(&path, data.clone(), None), 0, "{path} {data}");
    }
}

#[test]
fn a_keystore_that_no_log_knows_compares_nothing() {
    for (keystore, text) in [("vault", None), ("vualt", Some("a keystore called \"vualt\"; those of this kind are called vault"))] {
        let mut world = World::new();
        world.sign_record(LATER, 2, "nowhere");
        world.keystore = Some(keystore.to_owned());
        let (_, findings) = world.ended().compare();
        assert_eq!(findings.len(), 1, "{findings:?}");
        match text {
            None => assert_eq!(findings[0].verdict, Verdict::Differs),
            Some(text) => assert!(findings[0].verdict == Verdict::Unpinned && findings[0].text.contains(text), "{findings:?}"),
        }
    }
}

/// All that our logs tell lies where the trail may lack entries: an hour of a trail that may be late by half an hour.
#[test]
fn records_that_no_part_of_a_trail_covers_are_not_compared() {
    let mut world = World::new();
    world.trail.clear();
    world.traffic(LATER);
    world.sign_record(LATER + 600, 0, "nowhere");
    world.traffic(LATER + 1_200);
    let mut world = world.ended();
    // What is left at the end of the trail is none of this story.
    world.trail.retain(|event| event["eventTime"] != time(END));
    let (result, findings) = world.clone().compare();
    assert_eq!((result.outside, findings.len()), (3, 1), "{findings:?}");
    let text = &findings[0].text;
    assert!(findings[0].verdict == Verdict::Unpinned && text.contains("less 1800 s") && text.contains(&at(LATER).to_string()), "{text}");
    // A theft was compared with something.
    world.signed(LATER + 700, 0);
    let (_, findings) = world.compare();
    assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Verdict::Differs]);
}

/// A trail that was told to leave out what it should show.
#[test]
fn a_trail_without_any_signature_is_told() {
    let mut world = World::new();
    world.sign(LATER, 0);
    world.sign(LATER, 2);
    let mut world = world.ended();
    world.trail.retain(|event| event["eventName"] != "Sign");
    let texts = |world: &World| -> Vec<String> { world.compare().1.into_iter().map(|finding| finding.text).collect() };
    let found = texts(&world);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("Sign is a read event"), "{found:?}");
    // Somebody else's call is enough, even one that was refused.
    let request = world.next();
    world.entry(LATER, 0, &request, Some("AccessDeniedException"));
    assert!(texts(&world).iter().all(|text| !text.contains("read event")));
}

/// A kill may leave more than a report for people tells.
#[test]
fn the_json_has_all_that_is_allowed() {
    let mut world = World::new();
    for _ in 0..300 {
        world.signed(LATER, 2);
    }
    let unanswered = SignUnanswered { keyring: "access".into(), kid: kid(2), count: 300 };
    world.record(LogKind::Uses, LATER + 1, Event::SignUnanswered(unanswered));
    let (result, findings) = world.ended().compare();
    assert_eq!((result.allowed.len(), result.allowed_count, findings), (300, 300, Vec::new()));
}
