//! What happens to tokens: sessions, logins and the token itself go away, numbers change, sessions and PIN tries run out.

use cryptoki::context::Function;
use cryptoki::error::RvError;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Limit;
use cryptoki::types::AuthPin;
use serde_json::json;

use crate::support::faults::with_faults;
use crate::support::softhsm::PIN;
use crate::{Client, by, code, find, pair, sign, verifies};

fn log_in(session: &Session, pin: &str) -> Result<(), cryptoki::error::Error> {
    session.login(UserType::User, Some(&AuthPin::from(pin)))
}

#[test]
fn sessions_are_dropped() {
    with_faults("tokens::sessions_are_dropped", |hsm, faults| {
        let client = Client::new(hsm);
        let (session, other) = (client.session(), client.session());
        let slot = client.slot.id();
        assert_eq!(faults.tell(json!({ "do": "drop-sessions", "slot": slot + 1 }))["closed"], 0);
        session.get_session_info().expect("that was another slot");
        assert_eq!(faults.tell(json!({ "do": "drop-sessions" }))["closed"], 2);
        for session in [&session, &other] {
            assert_eq!(code(session.get_session_info()), by(RvError::SessionHandleInvalid, Function::GetSessionInfo));
        }
        let fresh = client.library.open_ro_session(client.slot).expect("a session");
        let state = fresh.get_session_info().expect("told").session_state();
        assert!(matches!(state, SessionState::RoPublic), "the login went with the sessions: {state:?}");
    });
}

#[test]
fn the_client_is_logged_out() {
    with_faults("tokens::the_client_is_logged_out", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        assert_eq!(faults.tell(json!({ "do": "logout" }))["logged_out"], 1);
        assert!(matches!(session.get_session_info().expect("told").session_state(), SessionState::RwPublic));
        assert!(sign(&session, pair.private).is_err());
        log_in(&session, PIN).expect("logged in again");
        sign(&session, find(&session, 1)[0]).expect("signed");
    });
}

#[test]
fn the_token_goes_and_comes_back() {
    with_faults("tokens::the_token_goes_and_comes_back", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        pair(&session, 1);
        let tokens = || client.library.get_slots_with_token().expect("a list").len();
        let with_tokens = tokens();
        faults.tell(json!({ "do": "remove", "slot": client.slot.id() }));
        assert_eq!(code(session.get_session_info()), by(RvError::DeviceRemoved, Function::GetSessionInfo));
        assert_eq!(code(client.library.get_token_info(client.slot)), by(RvError::TokenNotPresent, Function::GetTokenInfo));
        assert_eq!(code(client.library.open_ro_session(client.slot)), by(RvError::TokenNotPresent, Function::OpenSession));
        assert_eq!(tokens(), with_tokens - 1);
        assert!(client.library.get_all_slots().expect("a list").contains(&client.slot), "the slot stays");
        assert!(!client.library.get_slot_info(client.slot).expect("told").token_present());
        assert_eq!(faults.status()["removed"], json!([client.slot.id()]));

        faults.tell(json!({ "do": "return", "slot": client.slot.id() }));
        assert_eq!(tokens(), with_tokens);
        assert_eq!(code(session.get_session_info()), by(RvError::SessionHandleInvalid, Function::GetSessionInfo));
        let session = client.session();
        assert_eq!(find(&session, 1).len(), 1);

        faults.tell(json!({ "do": "remove" }));
        assert_eq!((tokens(), &faults.status()["removed"]), (0, &json!("all")));
        assert_eq!(code(session.get_session_info()).0, RvError::DeviceRemoved);
        let alone = faults.say(&json!({ "do": "return", "slot": client.slot.id() }).to_string());
        assert_eq!(alone["ok"], false, "{alone}");
        faults.tell(json!({ "do": "return" }));
        assert_eq!((tokens(), &faults.status()["removed"]), (with_tokens, &json!([])));
    });
}

#[test]
fn old_numbers_mean_another_object() {
    with_faults("tokens::old_numbers_mean_another_object", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let (first, second) = (pair(&session, 1), pair(&session, 2));
        assert_eq!(faults.tell(json!({ "do": "renumber" }))["renumbered"], 4);
        let ids = |object| session.get_attributes(object, &[AttributeType::Id]).expect("read");
        assert_eq!(ids(first.private), [Attribute::Id(vec![2])], "the old number is another key's");
        assert_eq!(ids(second.private), [Attribute::Id(vec![1])]);
        assert_eq!((find(&session, 1), find(&session, 2)), (vec![second.private], vec![first.private]));

        // The danger itself: a signature by the other key, and no error.
        let signature = sign(&session, first.private).expect("signed");
        assert!(verifies(&session, first, &signature), "both numbers of the old pair mean the other pair by now");
        faults.tell(json!({ "do": "renumber" }));
        assert!(verifies(&session, second, &signature) && !verifies(&session, first, &signature), "and it was the second pair's");
    });
}

#[test]
fn the_old_number_of_a_lone_object_means_nothing() {
    with_faults("tokens::the_old_number_of_a_lone_object_means_nothing", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        faults.tell(json!({ "do": "renumber" }));
        let (code, function) = code(sign(&session, pair.private));
        assert!(matches!(code, RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid), "{code:?}");
        assert_eq!(function, format!("{:?}", Function::SignInit));
        let found = find(&session, 1);
        assert_ne!(found, [pair.private]);
        sign(&session, found[0]).expect("signed");
        session.destroy_object(found[0]).expect("destroyed");
        assert!(find(&session, 1).is_empty());
    });
}

#[test]
fn sessions_run_out() {
    with_faults("tokens::sessions_run_out", |hsm, faults| {
        let client = Client::new(hsm);
        let _first = client.session();
        let most = || client.library.get_token_info(client.slot).expect("told").max_session_count();
        faults.tell(json!({ "do": "most-sessions", "most": 2 }));
        assert!(!matches!(most(), Limit::Max(2)), "not shown");
        let second = client.session();
        assert_eq!(code(client.library.open_ro_session(client.slot)), by(RvError::SessionCount, Function::OpenSession));
        faults.tell(json!({ "do": "most-sessions", "most": 2, "shown": true }));
        assert!(matches!(most(), Limit::Max(2)), "{:?}", most());
        drop(second);
        let _again = client.session();
        faults.tell(json!({ "do": "most-sessions" }));
        client.session();
    });
}

#[test]
fn logins_are_counted_by_outcome_and_pin() {
    with_faults("tokens::logins_are_counted_by_outcome_and_pin", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.library.open_rw_session(client.slot).expect("a session");
        for pin in ["8888-wrong", "9999-wrong", "8888-wrong"] {
            assert_eq!(code(log_in(&session, pin)).0, RvError::PinIncorrect);
        }
        log_in(&session, PIN).expect("logged in");
        let status = faults.status();
        assert_eq!(status["logins"]["outcomes"], json!({ "CKR_OK": 1, "CKR_PIN_INCORRECT": 3 }));
        assert_eq!(status["logins"]["distinct"], json!([{ "CKR_PIN_INCORRECT": 2 }, { "CKR_PIN_INCORRECT": 1 }, { "CKR_OK": 1 }]));
        for pin in ["8888", "9999", PIN] {
            assert!(!status.to_string().contains(pin));
        }
    });
}

#[test]
fn a_pin_is_locked_after_so_many_tries() {
    with_faults("tokens::a_pin_is_locked_after_so_many_tries", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.library.open_rw_session(client.slot).expect("a session");
        let flags = || {
            let token = client.library.get_token_info(client.slot).expect("told");
            (token.user_pin_count_low(), token.user_pin_final_try(), token.user_pin_locked())
        };
        faults.tell(json!({ "do": "pin-counter", "tries": 2 }));
        assert_eq!(flags(), (false, false, false));
        assert_eq!(code(log_in(&session, "8888-wrong")).0, RvError::PinIncorrect);
        assert_eq!(flags(), (true, true, false));
        log_in(&session, PIN).expect("logged in");
        session.logout().expect("logged out");
        assert_eq!(flags(), (false, false, false), "a right PIN fills the counter");
        for _ in 0..2 {
            assert_eq!(code(log_in(&session, "8888-wrong")).0, RvError::PinIncorrect);
        }
        assert_eq!(flags(), (true, false, true));
        assert_eq!(code(log_in(&session, PIN)).0, RvError::PinLocked, "the right one comes too late");
        faults.tell(json!({ "do": "pin-counter" }));
        log_in(&session, PIN).expect("the target itself counts nothing");
    });
}

#[test]
fn finalising_under_a_live_call_is_told() {
    with_faults("tokens::finalising_under_a_live_call_is_told", |hsm, faults| {
        let client = Client::new(hsm);
        let rule = faults.rule(json!({ "do": "hang", "function": "C_GetSessionInfo", "when": { "times": 1 } }));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| client.library.open_ro_session(client.slot).expect("a session").get_session_info());
            crate::held(faults, rule, &thread);
            client.library.clone().finalize().expect("finalised");
            faults.tell(json!({ "do": "release" }));
            assert_eq!(code(thread.join().expect("no panic")).0, RvError::CryptokiNotInitialized);
        });
        let status = faults.status();
        assert_eq!((&status["finalized_while_busy"], &status["sessions"]), (&json!(1), &json!({})));
    });
}
