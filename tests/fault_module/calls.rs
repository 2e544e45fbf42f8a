//! What rules do to calls: codes, delays, hangs, rates, wrong keys, attributes, searches.

use std::thread::scope;
use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use serde_json::json;

use crate::support::faults::with_faults;
use crate::{Client, by, clock, code, find, held, pair, private, public, sign, span, verifies};

#[test]
fn a_call_answers_a_code_so_often() {
    with_faults("calls::a_call_answers_a_code_so_often", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let rule = faults.fail("C_GetSessionInfo", "CKR_DEVICE_MEMORY", json!({ "times": 2, "skip": 1 }));
        let outcomes = (0..4).map(|_| session.get_session_info().map(drop).map_err(|error| code::<()>(Err(error)).0)).collect::<Vec<_>>();
        assert_eq!(outcomes, [Ok(()), Err(RvError::DeviceMemory), Err(RvError::DeviceMemory), Ok(())]);
        assert_eq!(faults.fired(rule), 2);

        faults.rule(json!({ "do": "fail", "function": "*", "code": 0x8000_0001_u64, "when": { "times": 1 } }));
        assert!(matches!(code(session.get_session_info()).0, RvError::VendorDefined(_)), "any function, and a code by its number");
        faults.fail("C_GetSessionInfo", "CKR_DEVICE_MEMORY", json!({ "slot": client.slot.id() + 1 }));
        session.get_session_info().expect("the rule is about another slot");
    });
}

#[test]
fn a_call_is_performed_and_its_answer_lost() {
    with_faults("calls::a_call_is_performed_and_its_answer_lost", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let make = |id| session.generate_key_pair(&Mechanism::EccKeyPairGen, &public(id), &private(id));
        faults.fail("C_GenerateKeyPair", "CKR_DEVICE_ERROR", json!({ "times": 1 }));
        assert_eq!(code(make(1)), by(RvError::DeviceError, Function::GenerateKeyPair));
        assert!(find(&session, 1).is_empty(), "lost before");
        faults.fail("C_GenerateKeyPair", "CKR_DEVICE_ERROR", json!({ "times": 1, "performed": true }));
        assert_eq!(code(make(1)), by(RvError::DeviceError, Function::GenerateKeyPair));
        assert_eq!(find(&session, 1).len(), 1, "made, and not told");
    });
}

#[test]
fn a_chance_is_repeated_by_its_seed() {
    with_faults("calls::a_chance_is_repeated_by_its_seed", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let run = |seed: u64| {
            faults.fail("C_GetSessionInfo", "CKR_GENERAL_ERROR", json!({ "chance": 0.5, "seed": seed }));
            let outcomes = (0..100).map(|_| session.get_session_info().is_ok()).collect::<Vec<_>>();
            faults.reset();
            outcomes
        };
        let first = run(1);
        assert!(first.contains(&true) && first.contains(&false), "{first:?}");
        assert_eq!(run(1), first);
        assert_ne!(run(2), first);
    });
}

#[test]
fn a_call_is_delayed() {
    with_faults("calls::a_call_is_delayed", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let clock = clock();
        let rule = faults.rule(json!({ "do": "delay", "function": "C_GetSessionInfo", "ms": 50, "when": { "times": 1 } }));
        let taken = span(&clock, || {
            session.get_session_info().expect("told late");
        });
        assert!(taken >= Duration::from_millis(50), "{taken:?}");
        faults.tell(json!({ "do": "clear", "rule": rule }));

        for performed in [false, true] {
            let when = json!({ "times": 1, "performed": performed });
            let rule = faults.rule(json!({ "do": "delay", "function": "C_GetSessionInfo", "ms": 600_000, "when": when }));
            scope(|scope| {
                let thread = scope.spawn(|| client.library.open_ro_session(client.slot).expect("a session").get_session_info());
                held(faults, rule, &thread);
                faults.tell(json!({ "do": "clear", "rule": rule }));
                thread.join().expect("no panic").expect("told when the rule was cleared");
            });
        }
    });
}

#[test]
fn a_call_hangs_until_it_is_released() {
    with_faults("calls::a_call_hangs_until_it_is_released", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        for (release, expected) in [
            (json!({ "do": "release" }), None),
            (json!({ "do": "release", "code": "CKR_FUNCTION_CANCELED" }), Some(RvError::FunctionCanceled)),
            (json!({ "do": "reset" }), None),
        ] {
            let rule = faults.rule(json!({ "do": "hang", "function": "C_Sign", "when": { "times": 1 } }));
            scope(|scope| {
                let thread = scope.spawn(|| {
                    let session = client.session();
                    sign(&session, pair.private).map(|signature| verifies(&session, pair, &signature))
                });
                held(faults, rule, &thread);
                assert_eq!(faults.status()["hung"], json!([{ "function": "C_Sign", "rule": rule }]));
                assert_eq!(faults.tell(json!({ "do": "release", "rule": rule + 1 }))["released"], 0);
                // Others go on meanwhile, and so do commands that have the target for themselves.
                let signature = sign(&session, pair.private).expect("only one call hangs");
                assert!(verifies(&session, pair, &signature));
                faults.tell(json!({ "do": "drop-sessions", "slot": client.slot.id() + 1 }));
                faults.tell(release);
                match expected {
                    None => assert!(thread.join().expect("no panic").expect("it goes on")),
                    Some(expected) => assert_eq!(code(thread.join().expect("no panic")), by(expected, Function::Sign)),
                }
            });
            assert_eq!(faults.status()["hung"], json!([]));
        }
    });
}

#[test]
fn calls_of_all_threads_keep_to_a_rate() {
    with_faults("calls::calls_of_all_threads_keep_to_a_rate", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        faults.rule(json!({ "do": "pace", "function": "C_Sign", "per_second": 100 }));
        let taken = span(&clock(), || {
            scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let session = client.session();
                        for _ in 0..7 {
                            sign(&session, pair.private).expect("signed");
                        }
                    });
                }
            });
        });
        // 21 signatures have 20 distances between them.
        assert!(taken >= Duration::from_millis(200), "{taken:?}");
        assert_eq!(faults.calls("C_Sign"), 21);
    });
}

#[test]
fn another_key_signs() {
    with_faults("calls::another_key_signs", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let (first, second) = (pair(&session, 1), pair(&session, 2));
        let rule = faults.rule(json!({ "do": "wrong-key", "when": { "times": 1 } }));
        let wrong = sign(&session, first.private).expect("signed");
        assert!(!verifies(&session, first, &wrong) && verifies(&session, second, &wrong), "by the other key");
        let right = sign(&session, first.private).expect("signed");
        assert!(verifies(&session, first, &right));
        assert_eq!(faults.fired(rule), 1);
    });
}

#[test]
fn a_lone_keys_signature_is_spoilt() {
    with_faults("calls::a_lone_keys_signature_is_spoilt", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        faults.rule(json!({ "do": "wrong-key", "when": { "times": 1 } }));
        let wrong = sign(&session, pair.private).expect("signed");
        assert!(!verifies(&session, pair, &wrong));
        let right = sign(&session, pair.private).expect("signed");
        assert!(verifies(&session, pair, &right));
    });
}

#[test]
fn attributes_read_otherwise() {
    with_faults("calls::attributes_read_otherwise", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let (first, second) = (pair(&session, 1), pair(&session, 2));
        let read = |pair: crate::Pair| {
            session.get_attributes(pair.private, &[AttributeType::Local, AttributeType::Extractable, AttributeType::Label]).expect("read")
        };
        let (local, inside) = (Attribute::Local(true), Attribute::Extractable(false));
        assert_eq!(read(first)[..2], [local.clone(), inside.clone()]);
        let of = json!({ "id": "01", "class": "private" });
        faults.rule(json!({ "do": "attribute", "attribute": "CKA_EXTRACTABLE", "value": true, "of": of }));
        assert_eq!(read(first)[..2], [local.clone(), Attribute::Extractable(true)]);
        assert_eq!(read(second)[..2], [local, inside], "the rule is about one key");

        faults.rule(json!({ "do": "attribute", "attribute": "CKA_LOCAL", "value": null, "of": of }));
        assert_eq!(read(first)[0], Attribute::Extractable(true), "absent");
        let info = session.get_attribute_info(first.private, &[AttributeType::Local]).expect("told");
        assert!(matches!(info.as_slice(), [AttributeInfo::Unavailable | AttributeInfo::TypeInvalid]), "{info:?}");

        faults.rule(json!({ "do": "attribute", "attribute": "CKA_LABEL", "value": "616263", "of": of }));
        assert!(read(first).contains(&Attribute::Label(b"abc".to_vec())), "longer than the real one");
        faults.reset();
        assert_eq!(read(first)[0], Attribute::Local(true));
    });
}

#[test]
fn objects_are_hidden_from_searches() {
    with_faults("calls::objects_are_hidden_from_searches", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        for id in 1..=3 {
            pair(&session, id);
        }
        let all = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let count = || session.find_objects(&all).expect("a search").len();
        faults.rule(json!({ "do": "hide", "of": { "id": "02", "class": "private" }, "when": { "times": 2 } }));
        assert_eq!((find(&session, 1).len(), find(&session, 2).len(), count()), (1, 0, 2));
        assert_eq!((find(&session, 2).len(), count()), (1, 3), "twice only");
        faults.rule(json!({ "do": "hide", "of": {} }));
        assert_eq!(count(), 0);
        // One by one: an object that is hidden does not end the search.
        faults.reset();
        faults.rule(json!({ "do": "hide", "of": { "id": "01" } }));
        let one_by_one = session.iter_objects_with_cache_size(&all, std::num::NonZeroUsize::MIN).expect("a search");
        assert_eq!(one_by_one.collect::<Result<Vec<_>, Error>>().expect("a search").len(), 2);
    });
}
