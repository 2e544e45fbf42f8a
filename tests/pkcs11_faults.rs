//! The PKCS#11 adapter over a token that misbehaves: SoftHSM behind the fault-injecting module (`tests/fault-module`).
//!
//! In scope: what callers are told of each failure and what heals it, handles that change, PIN tries, tokens that are away, and a long random
//! run. Out of scope: calls that hang, and the daemon above (`served_faults.rs`), which alone verifies signatures before it releases them.

mod support;

#[path = "pkcs11_faults/absence.rs"]
mod absence;
#[path = "pkcs11_faults/handles.rs"]
mod handles;
#[path = "pkcs11_faults/pins.rs"]
mod pins;
#[path = "pkcs11_faults/recovery.rs"]
mod recovery;
#[path = "pkcs11_faults/secrets.rs"]
mod secrets;
#[path = "pkcs11_faults/soak.rs"]
mod soak;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use claviger::keystore::pkcs11::{DEFAULT_WORKERS, Pkcs11Keystore, Pkcs11Settings};
use claviger::keystore::{Keystore, KeystoreError, Made, Signature, Terms};
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use cryptoki::context::Pkcs11;
use tokio::runtime::Runtime;

use crate::support::contract::{Contract, input, verified};
use crate::support::faults::{Faults, with_faults};
use crate::support::softhsm::{PIN, SoftHsm};

/// What is signed everywhere here.
pub(crate) const MESSAGE: &[u8] = b"a message";
/// How long a signature may take: far longer than any recovery.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing that is waited for here takes longer, even on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A clock that can be put forward, and otherwise goes as the machine's does.
pub(crate) struct Forward {
    system: SystemClock,
    ahead: AtomicU64,
}

impl Forward {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { system: SystemClock::start(), ahead: AtomicU64::new(0) })
    }

    /// Puts it forward.
    pub(crate) fn put(&self, span: Duration) {
        self.ahead.fetch_add(u64::try_from(span.as_millis()).expect("a short span"), Ordering::SeqCst);
    }
}

impl Clock for Forward {
    fn wall(&self) -> Timestamp {
        self.system.wall()
    }

    fn monotonic(&self) -> Monotonic {
        self.system.monotonic().plus(Duration::from_millis(self.ahead.load(Ordering::SeqCst)))
    }
}

/// A keystore on a fresh token behind the module, with two keys of one kind: where handles change places, each signs as the other.
pub(crate) struct Bench<'t> {
    pub(crate) hsm: &'t SoftHsm,
    pub(crate) faults: &'t Faults,
    pub(crate) clock: Arc<Forward>,
    pub(crate) keystore: Arc<Pkcs11Keystore>,
    pub(crate) keys: [Made; 2],
    pub(crate) runtime: Runtime,
}

impl<'t> Bench<'t> {
    pub(crate) fn new(hsm: &'t SoftHsm, faults: &'t Faults) -> Self {
        Self::of(hsm, faults, DEFAULT_WORKERS)
    }

    /// The same with so many signing threads: with one, it is known which session meets a fault.
    pub(crate) fn of(hsm: &'t SoftHsm, faults: &'t Faults, workers: usize) -> Self {
        hsm.token("faulty");
        let (clock, runtime) = (Forward::start(), runtime());
        let settings = Pkcs11Settings { workers, ..hsm.settings("faulty", PIN) };
        let keystore = Arc::new(Pkcs11Keystore::open(settings, clock.clone()));
        let keys = [1, 2].map(|number| runtime.block_on(keystore.create(&name(number), Algorithm::ES256)).expect("made"));
        Self { hsm, faults, clock, keystore, keys, runtime }
    }

    /// Signs with one of the keys, and verifies as the signer does: a signature that is not right fails the test.
    pub(crate) fn sign(&self, key: usize) -> Result<(), KeystoreError> {
        let signature = self.signature(key)?;
        assert!(verified(&self.keys[key].public, Algorithm::ES256, MESSAGE, &signature.bytes), "key {key} has a wrong signature");
        Ok(())
    }

    /// Signs with one of the keys, whatever comes of it.
    pub(crate) fn signature(&self, key: usize) -> Result<Signature, KeystoreError> {
        self.runtime.block_on(signature(&*self.keystore, &*self.clock, &self.keys[key]))
    }

    /// Signs with both keys until it works: what was injected is over, and the keystore must heal by itself.
    pub(crate) fn heals(&self) {
        let begun = self.clock.system.monotonic();
        for key in [1, 0] {
            while let Err(error) = self.sign(key) {
                assert!(self.clock.system.monotonic().since(begun) < LONG, "still {error}");
                assert!(!matches!(error, KeystoreError::Gone(_) | KeystoreError::Unanswered | KeystoreError::Overloaded), "{error:?}");
                std::thread::yield_now();
            }
        }
    }

    /// Another keystore on the same token, as a daemon that was started again has one.
    pub(crate) fn restarted(&self, pin: &str) -> Pkcs11Keystore {
        Pkcs11Keystore::open(self.hsm.settings("faulty", pin), self.clock.clone())
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(crate) fn name(number: u32) -> KeyName {
    KeyName::new("faulty", "pkcs11", number, 0xabad_cafe).expect("a well-formed name")
}

/// One signature over [`MESSAGE`] by ES256.
pub(crate) async fn signature(keystore: &dyn Keystore, clock: &dyn Clock, key: &Made) -> Result<Signature, KeystoreError> {
    let deadline = clock.monotonic().plus(PATIENCE);
    keystore.sign(&key.locator, Algorithm::ES256, input(Algorithm::ES256, MESSAGE), Terms::own(deadline)).await
}

/// Loads the module before any keystore does, so that rules are in force when the first one opens its token.
pub(crate) fn preloaded(settings: &Pkcs11Settings) -> Pkcs11 {
    Pkcs11::new(&settings.module).expect("the module loads")
}

#[test]
fn the_contract_holds_through_the_module() {
    with_faults("the_contract_holds_through_the_module", |hsm, faults| {
        hsm.token("contract");
        let clock = Arc::new(SystemClock::start());
        let keystore = Arc::new(hsm.open("contract", clock.clone()));
        runtime().block_on(Contract::new(keystore, clock).check_all(&[]));
        let status = faults.status();
        assert!(status["calls"]["C_Sign"].as_u64() > Some(100), "{status}");
        assert_eq!((&status["finalized_while_busy"], &status["rules"]), (&serde_json::json!(0), &serde_json::json!([])));
    });
}
