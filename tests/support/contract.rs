//! The contract of [`Keystore`], as checks that every adapter must pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use aws_lc_rs::signature as s;
use claviger::clock::{Clock, SystemClock};
use claviger::keystore::{Input, Keystore, KeystoreError, Locator, Made, Terms};
use claviger_audit::Algorithm;
use claviger_audit::algorithm::HashFunction;
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;

/// How long a signature may take here: generous, because a loaded machine must not fail a test.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many callers sign at the same time.
const CALLERS: u8 = 32;

/// A keystore under test, and the clock that it was given.
pub(crate) struct Contract {
    /// The keystore.
    pub(crate) keystore: Arc<dyn Keystore>,
    /// Its clock.
    pub(crate) clock: Arc<SystemClock>,
    /// How long what was done may not be seen: nothing where a keystore shows it at once.
    pub(crate) settle: Duration,
    /// What the names of the installations end with, so that two runs in one place do not meet.
    pub(crate) suffix: String,
}

/// How often is looked whether what was done is seen.
const LOOK: Duration = Duration::from_millis(500);

impl Contract {
    /// Of a keystore that shows at once what was done.
    pub(crate) fn new(keystore: Arc<dyn Keystore>, clock: Arc<SystemClock>) -> Self {
        Self { keystore, clock, settle: Duration::ZERO, suffix: String::new() }
    }

    /// The installations that [`Contract::check_all`] makes keys for.
    pub(crate) fn installations(&self) -> [String; 3] {
        let suffix = &self.suffix;
        [format!("contract{suffix}"), format!("mine{suffix}"), format!("mine{suffix}-too")]
    }

    /// Asks until it is so, or until it had to be; returns the last answer.
    async fn settled<T, F: Future<Output = T>>(&self, ask: impl Fn() -> F, is_so: impl Fn(&T) -> bool) -> T {
        let until = self.clock.monotonic().plus(self.settle);
        let mut looks = None;
        loop {
            let answer = ask().await;
            if is_so(&answer) || self.clock.monotonic() >= until {
                return answer;
            }
            looks.get_or_insert_with(|| tokio::time::interval(LOOK)).tick().await;
        }
    }

    /// Runs every check, on a keystore whose device has no way to serve the algorithms in `lacks`. The keystore is empty before, and holds no
    /// key of the installations used here after.
    pub(crate) async fn check_all(&self, lacks: &[Algorithm]) {
        self.keystore.health().await.expect("a usable keystore");
        for (number, algorithm) in (1..).zip(Algorithm::ALL) {
            if lacks.contains(&algorithm) {
                self.check_lack(number, algorithm).await;
            } else {
                self.check_algorithm(number, algorithm).await;
            }
        }
        self.check_many_callers().await;
        self.check_inventory().await;
        self.check_absent().await;
        self.keystore.health().await.expect("still usable");
    }

    /// Creating finds what it created, the key signs, wrong input is refused, destroying is final and may be repeated.
    async fn check_algorithm(&self, number: u32, algorithm: Algorithm) {
        let name = KeyName::new(&self.installations()[0], "algorithms", number, 0xc0ff_ee00).expect("a well-formed name");
        let made = self.keystore.create(&name, algorithm).await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert!(made.public.fits(algorithm) && made.public.check().is_ok(), "{algorithm}: {:?}", made.public);
        assert!(!made.attributes.is_empty(), "{algorithm}: admission leaves a record");
        let again = self.keystore.create(&name, algorithm).await.expect("found again");
        assert_eq!((&again.public, &again.locator), (&made.public, &made.locator), "{algorithm}");

        self.check_seen(&made, algorithm).await;
        self.sign_and_verify(&made, algorithm, b"a message").await;
        self.check_input(&made, algorithm).await;
        let past = self.clock.monotonic();
        let outcome = self.keystore.sign(&made.locator, algorithm, input(algorithm, b"late"), Terms::own(past)).await;
        assert_eq!(outcome.expect_err("no signature"), KeystoreError::Unanswered, "{algorithm}");

        self.keystore.destroy(&made.locator).await.expect("destroyed");
        let sign = || self.keystore.sign(&made.locator, algorithm, input(algorithm, b"gone"), self.terms());
        let outcome = self.settled(sign, |outcome| matches!(outcome, Err(KeystoreError::Gone(_)))).await;
        assert!(matches!(outcome, Err(KeystoreError::Gone(_))), "{algorithm}: {outcome:?}");
        let outcome = self.settled(|| self.keystore.inspect(&made.locator), |outcome| matches!(outcome, Err(KeystoreError::Gone(_)))).await;
        assert!(matches!(outcome, Err(KeystoreError::Gone(_))), "{algorithm}: {outcome:?}");
        self.keystore.destroy(&made.locator).await.expect("destroyed already");
        let fresh = self.keystore.create(&name, algorithm).await.expect("made anew");
        assert_ne!(fresh.public, made.public, "{algorithm}: a destroyed key does not come back");
        self.keystore.destroy(&fresh.locator).await.expect("destroyed");
    }

    /// What the device cannot make is refused for good, and nothing is left of the try.
    async fn check_lack(&self, number: u32, algorithm: Algorithm) {
        let name = KeyName::new(&self.installations()[0], "algorithms", number, 0xc0ff_ee00).expect("a well-formed name");
        let outcome = self.keystore.create(&name, algorithm).await;
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{algorithm}: {outcome:?}");
        assert!(self.listed(name.installation()).await.is_empty(), "{algorithm}");
    }

    /// A key is read back as it was made, with every attribute that was recorded, and stays as it is.
    async fn check_seen(&self, made: &Made, algorithm: Algorithm) {
        for _ in 0..2 {
            let seen = self.keystore.inspect(&made.locator).await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
            assert_eq!(seen.public.as_ref(), Ok(&made.public), "{algorithm}");
            for (name, value) in &made.attributes {
                assert_eq!(seen.attributes.get(name), Some(&Some(value.clone())), "{algorithm}: {name}");
            }
        }
    }

    /// A digest of any other length, and the other kind of input, are refused, not signed.
    async fn check_input(&self, made: &Made, algorithm: Algorithm) {
        let exact = algorithm.hash().map(HashFunction::digest_length);
        let wrong = [0, 20, 31, 32, 33, 48, 64, 100].into_iter().filter(|length| Some(*length) != exact);
        let mut inputs = wrong.map(|length| Input::Digest(vec![7; length])).collect::<Vec<_>>();
        if exact.is_some() {
            inputs.push(Input::Message(vec![7; 32]));
        }
        for input in inputs {
            let outcome = self.keystore.sign(&made.locator, algorithm, input.clone(), self.terms()).await;
            assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{algorithm} {input:?}: {outcome:?}");
        }
        let other = Algorithm::ALL.into_iter().find(|other| other.key_shape() != algorithm.key_shape()).expect("there are other shapes");
        let outcome = self.keystore.sign(&made.locator, other, self::input(other, b"x"), self.terms()).await;
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_))), "{other} with a key for {algorithm}: {outcome:?}");
    }

    /// Many callers with two keys at once: each gets a signature of its own message by its own key.
    async fn check_many_callers(&self) {
        let mut keys = Vec::new();
        for number in [1, 2] {
            let name = KeyName::new(&self.installations()[0], "many", number, 1).expect("a well-formed name");
            keys.push(self.keystore.create(&name, Algorithm::ES256).await.expect("made"));
        }
        let callers = (0..CALLERS).map(|caller| {
            let (keystore, key, terms) = (Arc::clone(&self.keystore), keys[usize::from(caller % 2)].clone(), self.terms());
            tokio::spawn(async move {
                for round in 0..4 {
                    let message = [caller, round];
                    let signature = keystore.sign(&key.locator, Algorithm::ES256, input(Algorithm::ES256, &message), terms.clone()).await;
                    verify(&key.public, Algorithm::ES256, &message, &signature.expect("signed").bytes);
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.expect("every caller was served");
        }
        for key in keys {
            self.keystore.destroy(&key.locator).await.expect("destroyed");
        }
    }

    /// The inventory of an installation is exactly its own keys, sorted, even beside one whose name begins alike.
    async fn check_inventory(&self) {
        let [_, mine, too] = self.installations();
        let mut made = BTreeSet::new();
        for (installation, number) in [(&mine, 2), (&mine, 1), (&too, 1)] {
            let name = KeyName::new(installation, "listed", number, 7).expect("a well-formed name");
            let locator = self.keystore.create(&name, Algorithm::ES256).await.expect("made").locator;
            made.insert((name, locator.as_str().to_owned()));
        }
        let own = made.iter().filter(|(name, _)| name.installation() == mine).cloned().collect::<Vec<_>>();
        let listed = self.settled(|| self.listed(&mine), |listed| *listed == own).await;
        assert_eq!(listed, own);
        for (_, locator) in made {
            self.keystore.destroy(&Locator::new(locator)).await.expect("destroyed");
        }
        for installation in [&mine, &too] {
            assert_eq!(self.settled(|| self.listed(installation), Vec::is_empty).await, []);
        }
    }

    /// Where the keys are that a run left, as soon as there are none, or none had to be.
    pub(crate) async fn left(&self) -> Vec<Locator> {
        let mut left = Vec::new();
        for installation in self.installations() {
            left.extend(
                self.settled(|| self.listed(&installation), Vec::is_empty).await.into_iter().map(|(_, locator)| Locator::new(locator)),
            );
        }
        left
    }

    async fn listed(&self, installation: &str) -> Vec<(KeyName, String)> {
        let listed = self.keystore.inventory(installation).await.expect("listed");
        listed.into_iter().map(|(name, locator)| (name, locator.as_str().to_owned())).collect()
    }

    /// A locator of another kind is refused, whatever is asked of it.
    async fn check_absent(&self) {
        let strange = Locator::new("no such thing");
        let outcome = self.keystore.sign(&strange, Algorithm::ES256, input(Algorithm::ES256, b"x"), self.terms()).await;
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_) | KeystoreError::Gone(_))), "{outcome:?}");
        let outcome = self.keystore.inspect(&strange).await;
        assert!(matches!(outcome, Err(KeystoreError::Rejected(_) | KeystoreError::Gone(_))), "{outcome:?}");
    }

    /// Signs with a key and verifies the signature with its public half.
    pub(crate) async fn sign_and_verify(&self, made: &Made, algorithm: Algorithm, message: &[u8]) {
        let outcome = self.keystore.sign(&made.locator, algorithm, input(algorithm, message), self.terms()).await;
        let signature = outcome.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        verify(&made.public, algorithm, message, &signature.bytes);
    }

    /// A deadline that is far enough.
    pub(crate) fn terms(&self) -> Terms {
        Terms::own(self.clock.monotonic().plus(PATIENCE))
    }
}

/// The message, hashed once as the algorithm wants it.
pub(crate) fn input(algorithm: Algorithm, message: &[u8]) -> Input {
    let hash = match algorithm.hash() {
        None => return Input::Message(message.to_vec()),
        Some(HashFunction::Sha256) => &SHA256,
        Some(HashFunction::Sha384) => &SHA384,
        Some(HashFunction::Sha512) => &SHA512,
    };
    Input::Digest(digest(hash, message).as_ref().to_vec())
}

/// Verifies a JOSE signature over the message.
pub(crate) fn verify(public: &PublicKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) {
    assert!(verified(public, algorithm, message, signature), "{algorithm}: the signature does not verify");
}

/// Whether a JOSE signature over the message verifies, by a library that had no part in making it.
pub(crate) fn verified(public: &PublicKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let rsa: Option<&s::RsaParameters> = match algorithm {
        Algorithm::RS256 => Some(&s::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&s::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&s::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&s::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&s::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&s::RSA_PSS_2048_8192_SHA512),
        _ => None,
    };
    let outcome = match (rsa, public.rsa_components(), public.raw_point()) {
        (Some(parameters), Some((n, e)), None) => s::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature),
        (None, None, Some(point)) => {
            let curve: &dyn s::VerificationAlgorithm = match algorithm {
                Algorithm::ES256 => &s::ECDSA_P256_SHA256_FIXED,
                Algorithm::ES384 => &s::ECDSA_P384_SHA384_FIXED,
                Algorithm::ES512 => &s::ECDSA_P521_SHA512_FIXED,
                _ => &s::ED25519,
            };
            s::UnparsedPublicKey::new(curve, point).verify(message, signature)
        }
        _ => panic!("{algorithm} and this public key do not belong together"),
    };
    outcome.is_ok()
}
