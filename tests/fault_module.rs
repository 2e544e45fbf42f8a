//! The fault-injecting PKCS#11 module (`tests/fault-module`), command by command, with cryptoki as its client and SoftHSM behind it.
//!
//! In scope: each command does what its README says, and nothing is changed when none was given. Out of scope: what Claviger makes of the
//! faults (`pkcs11_faults.rs`). Tests of what rules do to calls are in `fault_module/calls.rs`, those about tokens in `fault_module/tokens.rs`.

mod support;

#[path = "fault_module/calls.rs"]
mod calls;
#[path = "fault_module/tokens.rs"]
mod tokens;

use std::os::unix::fs::PermissionsExt as _;
use std::thread::{ScopedJoinHandle, scope, yield_now};

use claviger::clock::{Clock as _, SystemClock};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::{AuthPin, Ulong};
use serde_json::json;

use crate::support::faults::{self, Faults, with_faults};
use crate::support::softhsm::{self, PIN, SoftHsm};

/// The DER of the curve's identifier, P-256.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// What is signed.
const DIGEST: [u8; 32] = [7; 32];

/// A client of the module, with one token.
pub(crate) struct Client {
    pub(crate) library: Pkcs11,
    pub(crate) slot: Slot,
}

/// A key pair on the token.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) public: ObjectHandle,
    pub(crate) private: ObjectHandle,
}

impl Client {
    /// Makes a token, loads the module and initialises it.
    pub(crate) fn new(hsm: &SoftHsm) -> Self {
        hsm.token("faulty");
        let library = Pkcs11::new(hsm.library()).expect("the module loads");
        library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialised");
        let slots = library.get_slots_with_initialized_token().expect("a list");
        let [slot] = slots.as_slice() else { panic!("{slots:?}") };
        Self { library, slot: *slot }
    }

    /// A session, logged in.
    pub(crate) fn session(&self) -> Session {
        let session = self.library.open_rw_session(self.slot).expect("a session");
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Makes a key pair on P-256 with this id.
pub(crate) fn pair(session: &Session, id: u8) -> Pair {
    let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public(id), &private(id)).expect("a key pair");
    Pair { public, private }
}

pub(crate) fn public(id: u8) -> Vec<Attribute> {
    vec![Attribute::Token(true), Attribute::Verify(true), Attribute::Id(vec![id]), Attribute::EcParams(P256.to_vec())]
}

pub(crate) fn private(id: u8) -> Vec<Attribute> {
    vec![Attribute::Token(true), Attribute::Private(true), Attribute::Sign(true), Attribute::Id(vec![id])]
}

pub(crate) fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &DIGEST)
}

/// Whether the token itself takes this signature for one of the pair.
pub(crate) fn verifies(session: &Session, pair: Pair, signature: &[u8]) -> bool {
    session.verify(&Mechanism::Ecdsa, pair.public, &DIGEST, signature).is_ok()
}

/// The code of an error, with the function that answered it.
pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, Error>) -> (RvError, String) {
    match outcome {
        Err(Error::Pkcs11(code, function)) => by(code, function),
        other => panic!("{other:?}"),
    }
}

/// What [`code`] gives when this function answers this code.
pub(crate) fn by(code: RvError, function: Function) -> (RvError, String) {
    (code, format!("{function:?}"))
}

/// The private keys with this id.
pub(crate) fn find(session: &Session, id: u8) -> Vec<ObjectHandle> {
    session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(vec![id])]).expect("a search")
}

/// Waits until this rule holds a thread's call up: fails if the thread ends instead.
pub(crate) fn held<T>(faults: &Faults, rule: u64, thread: &ScopedJoinHandle<'_, T>) {
    let is_held = || {
        let status = faults.status();
        let known = status["rules"].as_array().and_then(|rules| rules.iter().find(|known| known["rule"] == rule)).expect("a rule in force");
        // A call that hangs is told of as soon as it does; one that is delayed is known by the rule alone.
        if known["said"]["do"] == "hang" { status["hung"] != json!([]) } else { known["fired"] == 1 }
    };
    while !is_held() {
        assert!(!thread.is_finished(), "the call was not held up");
        yield_now();
    }
}

#[test]
fn without_a_rule_nothing_is_changed() {
    with_faults("without_a_rule_nothing_is_changed", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let size = [Attribute::ModulusBits(Ulong::new(2048)), Attribute::PublicExponent(vec![1, 0, 1])];
        let template = [&public(1)[..3], &size].concat();
        let (_, key) = session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &template, &private(1)).expect("a key pair");
        let through = session.sign(&Mechanism::RsaPkcs, key, &DIGEST).expect("signed");

        // The same library without the module between: it is initialised already, and knows the key by the same number.
        let direct = Pkcs11::new((softhsm::MODULE.library)()).expect("SoftHSM loads");
        let beside = direct.open_ro_session(client.slot).expect("a session");
        assert_eq!(beside.sign(&Mechanism::RsaPkcs, key, &DIGEST).expect("signed"), through);
        assert_eq!(find(&beside, 1), find(&session, 1));
        let infos = [&client.library, &direct].map(|library| {
            let (token, library) = (library.get_token_info(client.slot).expect("told"), library.get_library_info().expect("told"));
            (token.label().to_owned(), token.serial_number().to_owned(), library.manufacturer_id().to_owned())
        });
        assert_eq!(infos[0], infos[1]);

        let status = faults.status();
        assert_eq!((&status["calls"]["C_Sign"], &status["queries"]["C_Sign"]), (&json!(1), &json!(1)), "the direct calls do not count");
        assert_eq!((&status["rules"], &status["busy"]), (&json!([]), &json!(0)));
    });
}

#[test]
fn many_threads_sign_through_it() {
    with_faults("many_threads_sign_through_it", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pairs = [1, 2].map(|id| pair(&session, id));
        scope(|scope| {
            for thread in 0..8 {
                let (client, pair) = (&client, pairs[thread % 2]);
                scope.spawn(move || {
                    let session = client.session();
                    for _ in 0..50 {
                        let signature = sign(&session, pair.private).expect("signed");
                        assert!(verifies(&session, pair, &signature));
                    }
                });
            }
        });
        assert_eq!(faults.calls("C_Sign"), 400);
    });
}

#[test]
fn rules_are_told_and_a_reset_ends_them() {
    with_faults("rules_are_told_and_a_reset_ends_them", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let pair = pair(&session, 1);
        let rule = faults.fail("C_Sign", "CKR_DEVICE_ERROR", json!({ "skip": 1 }));
        sign(&session, pair.private).expect("the first call is left alone");
        assert_eq!(code(sign(&session, pair.private)), by(RvError::DeviceError, Function::Sign));
        let status = faults.status();
        assert_eq!(status["rules"][0]["rule"], rule);
        assert_eq!((&status["rules"][0]["met"], &status["rules"][0]["fired"]), (&json!(2), &json!(1)));
        assert_eq!(status["rules"][0]["said"]["code"], "CKR_DEVICE_ERROR");
        assert_eq!(status["sessions"], json!({ client.slot.id().to_string(): 1 }));
        assert_eq!(status["target"], (softhsm::MODULE.library)().to_str().expect("a plain path"));

        for command in
            [json!({ "do": "most-sessions", "most": 1 }), json!({ "do": "pin-counter", "tries": 1, "left": 0 }), json!({ "do": "remove" })]
        {
            faults.tell(command);
        }
        faults.reset();
        let session = client.session();
        sign(&session, find(&session, 1)[0]).expect("as if nothing had been");
        let status = faults.status();
        for (member, expected) in [("rules", json!([])), ("removed", json!([])), ("most_sessions", json!(null))] {
            assert_eq!(status[member], expected, "{member}");
        }
        assert!(status["calls"]["C_Sign"].as_u64() > Some(2), "a reset keeps the counts");
        faults.tell(json!({ "do": "reset", "counts": true }));
        assert_eq!(faults.status()["calls"], json!({}));
    });
}

#[test]
fn one_rule_can_be_cleared_alone() {
    with_faults("one_rule_can_be_cleared_alone", |hsm, faults| {
        let client = Client::new(hsm);
        let session = client.session();
        let first = faults.fail("C_GetSessionInfo", "CKR_DEVICE_ERROR", json!({}));
        faults.fail("C_GetSessionInfo", "CKR_DEVICE_MEMORY", json!({}));
        assert_eq!(code(session.get_session_info()).0, RvError::DeviceError);
        assert_eq!(faults.tell(json!({ "do": "clear", "rule": first }))["cleared"], 1);
        assert_eq!(code(session.get_session_info()).0, RvError::DeviceMemory);
        assert_eq!(faults.tell(json!({ "do": "clear" }))["cleared"], 1);
        session.get_session_info().expect("told");
        assert_eq!(faults.say(r#"{"do":"clear","rule":77}"#)["error"], "there is no rule 77");
    });
}

#[test]
fn bad_lines_are_refused_and_the_socket_is_its_owners() {
    with_faults("bad_lines_are_refused_and_the_socket_is_its_owners", |hsm, faults| {
        let _client = Client::new(hsm);
        let socket = hsm.state().with_file_name("control");
        assert_eq!(std::fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777, 0o600);
        for (line, part) in [
            ("nonsense", "not one JSON object"),
            ("[1]", "invalid type"),
            (r#"{"do":"explode"}"#, "unknown variant `explode`"),
            (r#"{"do":"status","all":true}"#, "unknown field `all`"),
            (r#"{"do":"fail","function":"C_Sing","code":5}"#, "no function of PKCS#11"),
            (r#"{"do":"logout"}"#, "no session to log out with"),
            (r#"{"do":"renumber"}"#, "no session to look at objects with"),
            (r#"{"do":"pin-counter","tries":1,"left":2}"#, "more than tries"),
        ] {
            let answer = faults.say(line);
            assert_eq!(answer["ok"], false, "{line}: {answer}");
            assert!(answer["error"].as_str().expect("a reason").contains(part), "{line}: {answer}");
        }
        faults.status();
        let long = faults.say(&"x".repeat(70_000));
        assert_eq!((&long["ok"], &long["error"]), (&json!(false), &json!("the line is longer than 65536 bytes")));
        faults.status();
        faults.again().status();
    });
}

#[test]
fn without_its_environment_it_does_not_load() {
    faults::build();
    let outcome = Pkcs11::new(faults::built());
    assert!(matches!(outcome, Err(Error::Pkcs11(RvError::GeneralError, _))), "{outcome:?}");
}

#[test]
fn it_can_be_loaded_again_in_one_process() {
    with_faults("it_can_be_loaded_again_in_one_process", |hsm, faults| {
        let client = Client::new(hsm);
        faults.status();
        drop(client);
        let again = Pkcs11::new(hsm.library()).expect("the module loads");
        assert!(faults.calls("C_Initialize") == 1, "its state lives as long as the process");
        again.get_all_slots().expect("still initialised");
    });
}

/// A clock for lower bounds: a call that is held up cannot be too slow for a test, only too fast.
pub(crate) fn clock() -> SystemClock {
    SystemClock::start()
}

/// How long `work` takes.
pub(crate) fn span(clock: &SystemClock, work: impl FnOnce()) -> std::time::Duration {
    let begun = clock.monotonic();
    work();
    clock.monotonic().since(begun)
}
