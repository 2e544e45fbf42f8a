//! What AWS does and its emulator never shows: the adapter behind a proxy that throttles, hangs, fails, forgets and refuses.

#![cfg(feature = "aws-kms")]

#[path = "kms_faults/credentials.rs"]
mod credentials;
#[path = "kms_faults/making.rs"]
mod making;
#[path = "kms_faults/refusals.rs"]
mod refusals;
#[path = "kms_faults/signing.rs"]
mod signing;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger::clock::{Clock, Monotonic, SystemClock};
use claviger::keystore::aws_kms::{AwsKmsKeystore, AwsKmsSettings};
use claviger::keystore::{Class, Input, Keystore as _, KeystoreError, Made, Signature, Terms};
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};

use crate::support::contract::input;
use crate::support::kms::Kms;
use crate::support::proxy::{Act, Match, Proxy, Rule};

/// What must not take long is over by then, even on a loaded machine.
const SOON: Duration = Duration::from_secs(30);
const JSON: &str = "application/x-amz-json-1.1";

/// A keystore behind a proxy, which is behind nothing yet.
struct Bench {
    kms: Kms,
    proxy: Proxy,
    keystore: Arc<AwsKmsKeystore>,
    clock: Arc<Forward>,
}

/// The clocks of the machine, which a test may put forward.
struct Forward {
    clock: SystemClock,
    seconds: AtomicU64,
}

impl Forward {
    fn start() -> Self {
        Self { clock: SystemClock::start(), seconds: AtomicU64::new(0) }
    }

    fn put(&self, span: Duration) {
        self.seconds.fetch_add(span.as_secs(), Ordering::AcqRel);
    }
}

impl Clock for Forward {
    fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic().plus(Duration::from_secs(self.seconds.load(Ordering::Acquire)))
    }
}

impl Bench {
    fn new(kms: &Kms) -> Self {
        Self::with(kms, |settings| settings)
    }

    fn with(kms: &Kms, adapt: impl FnOnce(AwsKmsSettings) -> AwsKmsSettings) -> Self {
        let (proxy, clock) = (Proxy::before(kms.address()), Arc::new(Forward::start()));
        let settings = adapt(kms.settings(&proxy.url()));
        let keystore = Arc::new(AwsKmsKeystore::open(settings, clock.clone()));
        Self { kms: kms.clone(), proxy, keystore, clock }
    }

    /// A key of this algorithm.
    async fn key(&self, number: u32, algorithm: Algorithm) -> Made {
        self.keystore.create(&name(number), algorithm).await.expect("made")
    }

    async fn sign(&self, key: &Made, class: Class) -> Result<Signature, KeystoreError> {
        let terms = Terms { deadline: self.clock.monotonic().plus(SOON), class, caller: Arc::from("test") };
        self.keystore.sign(&key.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), terms).await
    }

    async fn sign_within(&self, key: &Made, span: Duration) -> Result<Signature, KeystoreError> {
        let terms = Terms { deadline: self.clock.monotonic().plus(span), class: Class::Interactive, caller: Arc::from("test") };
        self.keystore.sign(&key.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), terms).await
    }

    async fn sign_own_within(&self, key: &Made, span: Duration) -> Result<Signature, KeystoreError> {
        let terms = Terms::own(self.clock.monotonic().plus(span));
        self.keystore.sign(&key.locator, Algorithm::ES256, input(Algorithm::ES256, b"x"), terms).await
    }

    async fn sign_message(&self, key: &Made, message: Vec<u8>) -> Result<Signature, KeystoreError> {
        let terms = Terms::own(self.clock.monotonic().plus(SOON));
        self.keystore.sign(&key.locator, Algorithm::EdDSA, Input::Message(message), terms).await
    }

    /// How often an action was asked for.
    fn asked(&self, action: &str) -> usize {
        self.proxy.asked().iter().filter(|asked| asked.operation() == Some(action)).count()
    }
}

fn name(number: u32) -> KeyName {
    KeyName::new("faults", "kms", number, 0xabad_cafe).expect("a well-formed name")
}

/// Runs a test with a bench of its own.
fn on_a_bench<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Bench) -> F) {
    Kms::in_child(test, |kms| within(body(Bench::new(kms))));
}

fn within(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(body);
}

/// A rule that answers an action as AWS refuses.
fn refusal(action: &str, status: u16, code: &str, message: &str) -> Rule {
    Rule::aws_error(Match::target(action), status, code, message)
}

/// A rule that does this to every request of an action.
fn faulty(action: &str, act: Act) -> Rule {
    Rule::new(Match::target(action), act)
}
